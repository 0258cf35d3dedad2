"""Chat completions as the `openai` package writes and reads them."""

from __future__ import annotations

import json
from contextlib import suppress
from functools import cache
from typing import Any

import httpx2
import openai

from providers.adapters.types import Audio, ChatResponse, Dialect, Endpoint, Finish, Reasoning, Text, ToolCall, Usage
from tests.conformance import facts as yard
from tests.conformance.dialects.transport import Kept, Line, Sent

DIALECT = Dialect.OPENAI
ENDPOINT = Endpoint.CHAT
_FINISH: dict[Finish, str] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
}
_WEATHER = {
    "type": "function",
    "function": {"name": "weather", "description": "Tells the weather", "parameters": yard.SCHEMA},
}


def _user(*parts: dict[str, Any]) -> dict[str, Any]:
    content = [{"type": "text", "text": yard.QUESTION}, *parts]
    return {"messages": [{"role": "user", "content": content}]}


def _marked() -> dict[str, Any]:
    part = {"type": "text", "text": yard.QUESTION, "cache_control": {"type": "ephemeral"}}
    return {"messages": [{"role": "user", "content": [part]}]}


_SYSTEM = {"role": "system", "content": yard.SYSTEM}
_PLAIN = {"role": "user", "content": yard.QUESTION}
_CALLED = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "weather", "arguments": json.dumps(yard.ARGUMENTS)},
}
_TOOLS: dict[str, Any] = {"tools": [_WEATHER]}
_RESULTS = [
    _PLAIN,
    {"role": "assistant", "content": None, "tool_calls": [_CALLED]},
    {"role": "tool", "tool_call_id": "call_1", "content": yard.RESULT},
]
_FORMAT = {"type": "json_schema", "json_schema": {"name": "place", "schema": yard.SCHEMA, "strict": True}}
_IMAGE = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{yard.PNG}"}}
_AUDIO = {"type": "input_audio", "input_audio": {"data": yard.WAV, "format": "wav"}}
_FILE = {
    "type": "file",
    "file": {"file_data": f"data:application/pdf;base64,{yard.PDF}", "filename": "paper.pdf"},
}
_ASKS: dict[str, dict[str, Any]] = {
    "text": {"max_completion_tokens": 500},
    "system": {"messages": [_SYSTEM, _PLAIN]},
    "sampling": {"temperature": 0.5, "top_p": 0.9},
    "tools": _TOOLS,
    "parallel_tools": _TOOLS,
    "one_tool_at_a_time": {**_TOOLS, "parallel_tool_calls": False},
    "tool_choice": {**_TOOLS, "tool_choice": "required"},
    "named_tool": {**_TOOLS, "tool_choice": {"type": "function", "function": {"name": "weather"}}},
    "tool_results": {**_TOOLS, "messages": _RESULTS},
    "vision": _user(_IMAGE),
    "audio_in": _user(_AUDIO),
    "audio_out": {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}},
    "documents": _user(_FILE),
    "structured": {"response_format": _FORMAT},
    "reasoning": {"reasoning_effort": "high", "max_completion_tokens": 4000},
    "prompt_cache": _marked(),
    "stop": {"stop": ["END"]},
    "seed": {"seed": 7},
    "penalties": {"presence_penalty": 0.5, "frequency_penalty": 0.25},
    "several": {"n": 2},
    "logprobs": {"logprobs": True, "top_logprobs": 1},
}
_SAYABLE = {"streaming", "citations", "usage", "ends_at_cap", "ends_filtered", "thoughts_back"}


def asked(feature: str, *, stream: bool, before: bytes | None = None) -> Sent | None:
    if feature not in _ASKS and feature not in _SAYABLE:
        return None
    body: dict[str, Any] = {"model": "some-model", "messages": [_PLAIN], **_ASKS.get(feature, {})}
    if before is not None:
        body["messages"] = [_PLAIN, _turn(before, stream=stream), {"role": "user", "content": "And now?"}]
    if stream:
        body.update(stream=True, stream_options={"include_usage": True})
    line, client = _line()
    line.reply = None
    with suppress(openai.APIConnectionError, Kept):
        client.chat.completions.create(**body)
    return line.take()


@cache
def _line() -> tuple[Line, openai.OpenAI]:
    line = Line(httpx2)
    http = httpx2.Client(transport=line.transport)
    return line, openai.OpenAI(api_key="k", base_url="http://conduit/v1", max_retries=0, http_client=http)


def _read(body: bytes, *, stream: bool) -> list[Any]:
    """The answer, or the chunks."""
    line, client = _line()
    line.reply = body
    messages: Any = [_PLAIN]
    if not stream:
        return [client.chat.completions.create(model="some-model", messages=messages)]
    return list(client.chat.completions.create(model="some-model", messages=messages, stream=True))


def seen(body: bytes, *, stream: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"texts": {}, "calls": {}, "finish": {}, "citations": [], "logprobs": [], "thoughts": ""}
    found.update(signatures=[], audio="", transcript="")
    for answer in _read(body, stream=stream):
        for choice in answer.choices:
            _message(choice.delta if stream else choice.message, choice.index, found)
            if choice.logprobs is not None:
                found["logprobs"] += [
                    (one.token, one.logprob, [(top.token, top.logprob) for top in one.top_logprobs])
                    for one in choice.logprobs.content or ()
                ]
            if choice.finish_reason:
                assert choice.index not in found["finish"], "finished twice"
                found["finish"][choice.index] = choice.finish_reason
        if answer.usage is not None:
            found.update(_spent(answer.usage))
    found["texts"] = [text for _, text in sorted(found["texts"].items())]
    found["transcript"] = found["transcript"] or found["texts"][0]
    found["finish"] = found["finish"].get(0)
    found["calls"] = [(name, json.loads(arguments)) for name, arguments in found["calls"].values()]
    return found


def _message(message: Any, index: int, found: dict[str, Any]) -> None:
    found["texts"][index] = found["texts"].get(index, "") + (message.content or "")
    for at, call in enumerate(message.tool_calls or ()):
        place = getattr(call, "index", at)
        name, arguments = found["calls"].get(place, ("", ""))
        found["calls"][place] = (name + (call.function.name or ""), arguments + (call.function.arguments or ""))
    beside = message.model_extra or {}
    found["thoughts"] += beside.get("reasoning_content") or ""
    found["signatures"] += [one["signature"] for one in beside.get("reasoning_details") or () if "signature" in one]
    audio = getattr(message, "audio", None) or beside.get("audio")
    if audio is not None:
        fields = audio if isinstance(audio, dict) else audio.model_dump()
        found["audio"] += fields.get("data") or ""
        found["transcript"] += fields.get("transcript") or ""
    notes = getattr(message, "annotations", None) or beside.get("annotations") or ()
    for note in notes:
        fields = note if isinstance(note, dict) else note.model_dump()
        found["citations"].append(fields["url_citation"]["url"])


def _spent(usage: Any) -> dict[str, int]:
    given, written = usage.prompt_tokens_details, usage.completion_tokens_details
    return {
        "input": usage.prompt_tokens,
        "output": usage.completion_tokens,
        "cached": given.cached_tokens or 0 if given else 0,
        "written": (given.model_extra or {}).get("cache_write_tokens", getattr(given, "cache_write_tokens", 0)) or 0
        if given
        else 0,
        "reasoning_tokens": written.reasoning_tokens or 0 if written else 0,
    }


def expected(answer: ChatResponse) -> dict[str, Any]:
    parts = [part for choice in answer.choices for part in choice.parts]
    usage = answer.usage or Usage()
    spoken = [part for part in parts if isinstance(part, Audio)]
    return {
        "texts": ["".join(p.text for p in choice.parts if isinstance(p, Text)) for choice in answer.choices],
        "calls": [(part.name, json.loads(part.arguments)) for part in parts if isinstance(part, ToolCall)],
        "finish": _FINISH[answer.choices[0].finish],
        "thoughts": "".join(part.text for part in parts if isinstance(part, Reasoning)),
        "signatures": [part.signature for part in parts if isinstance(part, Reasoning)],
        "citations": [found.url for part in parts if isinstance(part, Text) for found in part.citations],
        "audio": "".join(part.source.data for part in spoken),
        "transcript": "".join(part.transcript for part in spoken),
        "logprobs": [
            (one.token, one.logprob, [(top.token, top.logprob) for top in one.top])
            for choice in answer.choices
            for one in choice.logprobs or ()
        ],
        "input": usage.input_tokens,
        "output": usage.output_tokens,
        "cached": usage.cache_read_tokens,
        "written": usage.cache_write_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
    }


def _turn(before: bytes, *, stream: bool) -> dict[str, Any]:
    """An answer as the client keeps it in its history."""
    told = seen(before, stream=stream)
    turn: dict[str, Any] = {"role": "assistant", "content": told["texts"][0]}
    if told["signatures"]:
        detail = {"type": "reasoning.text", "text": told["thoughts"], "signature": told["signatures"][0]}
        turn["reasoning_details"] = [detail]
    if told["thoughts"]:
        turn["reasoning_content"] = told["thoughts"]
    return turn


# --- embeddings ---------------------------------------------------------------------------------------------------


def asked_vectors(inputs: tuple[str, ...], dimensions: int) -> Sent:
    line, client = _line()
    line.reply = None
    with suppress(openai.APIConnectionError, Kept):
        client.embeddings.create(model="some-model", input=list(inputs), dimensions=dimensions)
    return line.take()


def seen_vectors(body: bytes) -> list[list[float]]:
    """The package asks for base64 and gives out numbers."""
    line, client = _line()
    line.reply = body
    answer = client.embeddings.create(model="some-model", input=["x", "y"])
    return [list(one.embedding) for one in answer.data]
