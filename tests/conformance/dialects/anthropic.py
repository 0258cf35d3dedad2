"""Messages as the `anthropic` package writes and reads them."""

from __future__ import annotations

import json
from contextlib import suppress
from functools import cache
from typing import Any

import anthropic
import httpx2

from providers.adapters.types import Audio, ChatResponse, Dialect, Endpoint, Finish, Reasoning, Text, ToolCall, Usage
from tests.conformance import facts as yard
from tests.conformance.dialects.transport import Kept, Line, Sent

DIALECT = Dialect.ANTHROPIC
ENDPOINT = Endpoint.MESSAGES
_FINISH: dict[Finish, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}
_TOOLS: dict[str, Any] = {
    "tools": [{"name": "weather", "description": "Tells the weather", "input_schema": yard.SCHEMA}]
}
_PLAIN = {"role": "user", "content": yard.QUESTION}
_ASKED = {"type": "text", "text": yard.QUESTION}


def _user(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [_ASKED, *blocks]}]}


def _media(kind: str, mime: str, data: str) -> dict[str, Any]:
    return {"type": kind, "source": {"type": "base64", "media_type": mime, "data": data}}


_RESULTS = [
    _PLAIN,
    {
        "role": "assistant",
        "content": [{"type": "tool_use", "id": "call_1", "name": "weather", "input": yard.ARGUMENTS}],
    },
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "call_1", "content": yard.RESULT}]},
]
_ASKS: dict[str, dict[str, Any]] = {
    "text": {},
    "system": {"system": yard.SYSTEM},
    "sampling": {"extra_body": {"temperature": 0.5, "top_p": 0.9}},  # the package has left them to older models
    "tools": _TOOLS,
    "parallel_tools": _TOOLS,
    "one_tool_at_a_time": {**_TOOLS, "tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
    "tool_choice": {**_TOOLS, "tool_choice": {"type": "any"}},
    "named_tool": {**_TOOLS, "tool_choice": {"type": "tool", "name": "weather"}},
    "tool_results": {**_TOOLS, "messages": _RESULTS},
    "vision": _user(_media("image", "image/png", yard.PNG)),
    "documents": _user(_media("document", "application/pdf", yard.PDF)),
    "structured": {"output_config": {"format": {"type": "json_schema", "schema": yard.SCHEMA}}},
    "reasoning": {"thinking": {"type": "enabled", "budget_tokens": 2048}, "max_tokens": 4000},
    "prompt_cache": {"messages": [{"role": "user", "content": [{**_ASKED, "cache_control": {"type": "ephemeral"}}]}]},
    "stop": {"stop_sequences": ["END"]},
}
_SAYABLE = {"streaming", "citations", "usage", "ends_at_cap", "ends_filtered", "thoughts_back"}


def asked(feature: str, *, stream: bool, before: bytes | None = None) -> Sent | None:
    if feature not in _ASKS and feature not in _SAYABLE:
        return None
    body: dict[str, Any] = {"model": "some-model", "max_tokens": 500, "messages": [_PLAIN], **_ASKS.get(feature, {})}
    if before is not None:
        body["messages"] = [_PLAIN, _turn(before, stream=stream), {"role": "user", "content": "And now?"}]
    if stream:
        body["stream"] = True
    line, client = _line()
    line.reply = None
    with suppress(anthropic.APIConnectionError, Kept):
        client.messages.create(**body)
    return line.take()


@cache
def _line() -> tuple[Line, anthropic.Anthropic]:
    line = Line(httpx2)
    http = httpx2.Client(transport=line.transport)
    return line, anthropic.Anthropic(api_key="k", base_url="http://conduit", max_retries=0, http_client=http)


def _read(body: bytes, *, stream: bool) -> Any:
    line, client = _line()
    line.reply = body
    messages: Any = [_PLAIN]
    if not stream:
        return client.messages.create(model="some-model", max_tokens=500, messages=messages)
    with client.messages.stream(model="some-model", max_tokens=500, messages=messages) as events:
        kinds = [event.type for event in events]
        assert kinds[-1] == "message_stop"
        return events.get_final_message()


def seen(body: bytes, *, stream: bool) -> dict[str, Any]:
    message = _read(body, stream=stream)
    blocks, usage = message.content, message.usage
    texts = [block for block in blocks if block.type == "text"]
    thoughts = [block for block in blocks if block.type == "thinking"]
    cached, written = usage.cache_read_input_tokens or 0, usage.cache_creation_input_tokens or 0
    details = usage.output_tokens_details
    return {
        "texts": ["".join(block.text for block in texts)],
        "calls": [(block.name, block.input) for block in blocks if block.type == "tool_use"],
        "finish": message.stop_reason,
        "thoughts": "".join(block.thinking for block in thoughts),
        "signatures": [block.signature for block in thoughts],
        "citations": [found.url for block in texts for found in block.citations or ()],
        "transcript": "".join(block.text for block in texts),
        "input": usage.input_tokens + cached + written,
        "output": usage.output_tokens,
        "cached": cached,
        "written": written,
        "reasoning_tokens": (details.thinking_tokens or 0) if details else 0,
    }


def expected(answer: ChatResponse) -> dict[str, Any]:
    """The dialect has one choice, hears no audio, and sees no probabilities."""
    parts, usage = answer.choices[0].parts, answer.usage or Usage()
    return {
        "texts": ["".join(part.text for part in parts if isinstance(part, Text))],
        "calls": [(part.name, json.loads(part.arguments)) for part in parts if isinstance(part, ToolCall)],
        "finish": _FINISH[answer.choices[0].finish],
        "thoughts": "".join(part.text for part in parts if isinstance(part, Reasoning)),
        "signatures": [part.signature for part in parts if isinstance(part, Reasoning)],
        "citations": [found.url for part in parts if isinstance(part, Text) for found in part.citations],
        "transcript": "".join(part.transcript for part in parts if isinstance(part, Audio)),
        "input": usage.input_tokens,
        "output": usage.output_tokens,
        "cached": usage.cache_read_tokens,
        "written": usage.cache_write_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
    }


def _turn(before: bytes, *, stream: bool) -> dict[str, Any]:
    message = _read(before, stream=stream)
    return {"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in message.content]}
