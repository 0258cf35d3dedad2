"""Answers in the shape of OpenAI's Response: the whole object, and the stream of events that builds it."""

from __future__ import annotations

from typing import Any

import msgspec

from conduit.proxy.dialects.base import Inbound
from conduit.proxy.dialects.openai_answer import SERVICE_TIERS, unix_now
from conduit.proxy.dialects.responses_output import INCOMPLETE, Output, identity
from conduit.proxy.dialects.responses_request import custom_tools
from conduit.proxy.errors import ApiError
from providers.adapters.events import (
    CitationSeen,
    Ended,
    Finished,
    MediaDelta,
    OpaqueSeen,
    ReasoningDelta,
    RefusalDelta,
    Started,
    StreamEvent,
    TextDelta,
    ToolDelta,
    ToolStarted,
    UsageSeen,
)
from providers.adapters.types import ChatResponse, Finish, Image, JSONObject, Text, Usage

_encode = msgspec.json.Encoder().encode
_object = msgspec.json.Decoder(dict[str, Any])
# What the caller asked for and the object repeats, with what holds where nothing was said.
_REPEATED: JSONObject = {
    "background": False,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "service_tier": "default",
    "store": False,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}
_FAILED = {"code": "server_error", "message": "The model failed before its answer was complete."}


def whole(inbound: Inbound, response: ChatResponse) -> bytes:
    raw = _object.decode(inbound.body)
    body = begun(raw, response.model or inbound.head.model, response.created)
    output = Output(_unheard, custom=custom_tools(raw))
    finish: Finish = ""
    for choice in response.choices[:1]:
        finish, logprobs = choice.finish, choice.logprobs
        for part in choice.parts:
            output.part(part, logprobs)
            if isinstance(part, Text):
                logprobs = None  # they are of the whole text
    output.finish(finish)
    if response.service_tier in SERVICE_TIERS:
        body["service_tier"] = response.service_tier
    _close(body, output.items, finish, response.usage)
    return _encode(body)


def usage(spent: Usage) -> JSONObject:
    return {
        "input_tokens": spent.input_tokens,
        "input_tokens_details": {
            "cached_tokens": spent.cache_read_tokens,
            "cache_write_tokens": spent.cache_write_tokens,
        },
        "output_tokens": spent.output_tokens,
        "output_tokens_details": {"reasoning_tokens": spent.reasoning_tokens},
        "total_tokens": spent.input_tokens + spent.output_tokens,
    }


class ResponsesRenderer:
    def __init__(self, inbound: Inbound) -> None:
        self._inbound = inbound
        self.number = 0  # of the next event
        self._out: list[bytes] = []
        self._body: JSONObject | None = None  # once it has begun
        self._output: Output | None = None
        self._usage: Usage | None = None
        self._finish: Finish = ""

    def feed(self, events: list[StreamEvent]) -> bytes:
        for event in events:
            self._event(event)
        out, self._out = self._out, []
        return b"".join(out)

    def broken(self, error: ApiError) -> bytes:
        members = {"code": error.code or error.type, "message": error.message, "param": error.param}
        self._tell("error", members)
        out, self._out = self._out, []
        return b"".join(out)

    def _event(self, event: StreamEvent) -> None:
        if isinstance(event, Started):
            self._begin(event.model, event.created)
        elif isinstance(event, UsageSeen):
            self._usage = event.usage
        elif isinstance(event, Finished):
            if not event.choice:
                self._finish = event.finish
        elif isinstance(event, Ended):
            self._end()
        elif not event.choice:
            self._delta(event)

    def _delta(self, event: StreamEvent) -> None:
        output = self._output or self._begin()
        if isinstance(event, TextDelta):
            output.text(event.text, event.logprobs)
        elif isinstance(event, ReasoningDelta):
            output.thought(event.text, event.signature, event.redacted)
        elif isinstance(event, ToolStarted):
            output.call(event.index, event.id, event.name, event.signature)
        elif isinstance(event, ToolDelta):
            output.arguments(event.index, event.arguments)
        elif isinstance(event, RefusalDelta):
            output.refusal(event.text)
        elif isinstance(event, CitationSeen):
            output.citation(event.citation, len(event.citation.text))
        elif isinstance(event, MediaDelta) and isinstance(event.part, Image):
            output.image(event.part)
        elif isinstance(event, OpaqueSeen):
            output.opaque(event.part)

    def _begin(self, model: str = "", created: int = 0) -> Output:
        if self._output is None:
            raw = _object.decode(self._inbound.body)
            self._body = begun(raw, model or self._inbound.head.model, created)
            self._output = Output(self._tell, custom=custom_tools(raw))
            self._tell("response.created", {"response": self._body})
            self._tell("response.in_progress", {"response": self._body})
        return self._output

    def _end(self) -> None:
        output = self._begin() if self._output is None else self._output
        assert self._body is not None
        output.finish(self._finish)
        _close(self._body, output.items, self._finish, self._usage)
        self._tell(f"response.{self._body['status']}", {"response": self._body})

    def _tell(self, kind: str, members: JSONObject) -> None:
        data = _encode({"type": kind, "sequence_number": self.number, **members})
        self._out.append(b"event: %b\ndata: %b\n\n" % (kind.encode(), data))
        self.number += 1


def _unheard(kind: str, members: JSONObject) -> None:
    """Nobody listens to the making of a whole answer."""


def begun(raw: JSONObject, model: str, created: int) -> JSONObject:
    """The object before anything is said. `raw` is the request; `created` Unix seconds, 0: now."""
    body: JSONObject = {
        "id": identity("resp"),
        "object": "response",
        "created_at": created or unix_now(),
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "model": model,
        "output": [],
        "usage": None,
    }
    for name, usual in _REPEATED.items():
        given = raw.get(name)
        body[name] = usual if given is None else given
    body["store"] = False  # nothing is kept of it here
    return body


def _close(body: JSONObject, items: list[JSONObject], finish: Finish, spent: Usage | None) -> None:
    body["output"] = items
    body["usage"] = None if spent is None else usage(spent)
    if finish == "error":
        body["status"], body["error"] = "failed", _FAILED
    elif reason := INCOMPLETE.get(finish):
        body["status"], body["incomplete_details"] = "incomplete", {"reason": reason}
    else:
        body["status"], body["completed_at"] = "completed", unix_now()
