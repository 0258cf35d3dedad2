"""Responses as the `openai` package writes and reads them."""

from __future__ import annotations

import json
from contextlib import suppress
from functools import cache
from typing import Any

import httpx2
import openai

from providers.adapters.types import ChatResponse, Dialect, Endpoint, Finish, Reasoning, Text, ToolCall, Usage
from tests.conformance import facts as yard
from tests.conformance.dialects.transport import Kept, Line, Sent

DIALECT = Dialect.RESPONSES
ENDPOINT = Endpoint.RESPONSES
_FINISH: dict[Finish, str] = {
    "stop": "completed",
    "tool_calls": "completed",
    "length": "max_output_tokens",
    "content_filter": "content_filter",
}
_WEATHER = {
    "type": "function",
    "name": "weather",
    "description": "Tells the weather",
    "parameters": yard.SCHEMA,
    "strict": False,
}
_TOOLS: dict[str, Any] = {"tools": [_WEATHER]}
_PLAIN = {"role": "user", "content": yard.QUESTION}


def _user(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"input": [{"role": "user", "content": [{"type": "input_text", "text": yard.QUESTION}, *parts]}]}


_RESULTS = [
    _PLAIN,
    {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": json.dumps(yard.ARGUMENTS)},
    {"type": "function_call_output", "call_id": "call_1", "output": yard.RESULT},
]
_IMAGE = {"type": "input_image", "detail": "auto", "image_url": f"data:image/png;base64,{yard.PNG}"}
_FILE = {
    "type": "input_file",
    "file_data": f"data:application/pdf;base64,{yard.PDF}",
    "filename": "paper.pdf",
}
_ASKS: dict[str, dict[str, Any]] = {
    "text": {"max_output_tokens": 500},
    "system": {"instructions": yard.SYSTEM},
    "sampling": {"temperature": 0.5, "top_p": 0.9},
    "tools": _TOOLS,
    "parallel_tools": _TOOLS,
    "one_tool_at_a_time": {**_TOOLS, "parallel_tool_calls": False},
    "tool_choice": {**_TOOLS, "tool_choice": "required"},
    "named_tool": {**_TOOLS, "tool_choice": {"type": "function", "name": "weather"}},
    "tool_results": {**_TOOLS, "input": _RESULTS},
    "vision": _user(_IMAGE),
    "documents": _user(_FILE),
    "structured": {"text": {"format": {"type": "json_schema", "name": "place", "schema": yard.SCHEMA}}},
    "reasoning": {"reasoning": {"effort": "high", "summary": "auto"}, "max_output_tokens": 4000},
    "logprobs": {"include": ["message.output_text.logprobs"], "top_logprobs": 1},
}
_SAYABLE = {"streaming", "citations", "usage", "ends_at_cap", "ends_filtered", "thoughts_back"}
_SEALED = ["reasoning.encrypted_content"]


def asked(feature: str, *, stream: bool, before: bytes | None = None) -> Sent | None:
    if feature not in _ASKS and feature not in _SAYABLE:
        return None
    body: dict[str, Any] = {"model": "some-model", "input": [_PLAIN], **_ASKS.get(feature, {})}
    if feature in ("reasoning", "thoughts_back"):
        body["include"] = _SEALED
    if before is not None:
        answer = _read(before, stream=stream)
        turns = [item.model_dump(exclude_none=True) for item in answer.output]
        body["input"] = [_PLAIN, *turns, {"role": "user", "content": "And now?"}]
    if stream:
        body["stream"] = True
    line, client = _line()
    line.reply = None
    with suppress(openai.APIConnectionError, Kept):
        client.responses.create(**body)
    return line.take()


@cache
def _line() -> tuple[Line, openai.OpenAI]:
    line = Line(httpx2)
    http = httpx2.Client(transport=line.transport)
    return line, openai.OpenAI(api_key="k", base_url="http://conduit/v1", max_retries=0, http_client=http)


def _read(body: bytes, *, stream: bool) -> Any:
    """The answer; of a stream the one that the package's own helper puts together, which its last event repeats."""
    line, client = _line()
    line.reply = body
    if not stream:
        return client.responses.create(model="some-model", input="x")
    with client.responses.stream(model="some-model", input="x") as events:
        seen = list(events)
    last = seen[-1]
    assert last.type in ("response.completed", "response.incomplete"), last.type
    numbers = [event.sequence_number for event in seen]
    assert numbers == sorted(numbers)
    deltas = "".join(event.delta for event in seen if event.type == "response.output_text.delta")
    assert deltas == last.response.output_text, "what was told in pieces is what is told at the end"
    return last.response


def seen(body: bytes, *, stream: bool) -> dict[str, Any]:
    answer = _read(body, stream=stream)
    thoughts = [item for item in answer.output if item.type == "reasoning"]
    texts = [part for item in answer.output if item.type == "message" for part in item.content]
    usage = answer.usage
    return {
        "texts": [answer.output_text],
        "calls": [(one.name, json.loads(one.arguments)) for one in answer.output if one.type == "function_call"],
        "finish": answer.incomplete_details.reason if answer.incomplete_details else answer.status,
        "thoughts": "".join(part.text for item in thoughts for part in item.summary),
        "citations": [note.url for part in texts for note in part.annotations],
        "transcript": answer.output_text,
        "logprobs": [
            (one.token, one.logprob, [(top.token, top.logprob) for top in one.top_logprobs])
            for part in texts
            for one in part.logprobs or ()
        ],
        "input": usage.input_tokens,
        "output": usage.output_tokens,
        "cached": usage.input_tokens_details.cached_tokens,
        "reasoning_tokens": usage.output_tokens_details.reasoning_tokens,
    }


def expected(answer: ChatResponse) -> dict[str, Any]:
    """The dialect has one choice and no sound."""
    choice, usage = answer.choices[0], answer.usage or Usage()
    texts = [part for part in choice.parts if isinstance(part, Text)]
    return {
        "texts": ["".join(part.text for part in texts)],
        "calls": [(part.name, json.loads(part.arguments)) for part in choice.parts if isinstance(part, ToolCall)],
        "finish": _FINISH[choice.finish],
        "thoughts": "".join(part.text for part in choice.parts if isinstance(part, Reasoning)),
        "citations": [found.url for part in texts for found in part.citations],
        "logprobs": [
            (one.token, one.logprob, [(top.token, top.logprob) for top in one.top]) for one in choice.logprobs or ()
        ],
        "input": usage.input_tokens,
        "output": usage.output_tokens,
        "cached": usage.cache_read_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
    }
