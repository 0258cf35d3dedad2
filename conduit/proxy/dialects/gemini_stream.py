"""Canonical events as Gemini's stream: each event a GenerateContentResponse with what is new.

The dialect has no end marker; the last chunk carries finishReason and usage, so it is held back until the upstream's
answer is known to be whole. Calls are told whole, with the last chunk of their candidate.

`ArrayFrames` turns such a stream, or one relayed from Google, into the JSON array that clients get without `alt=sse`.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import msgspec

from conduit.proxy.dialects.gemini_render import (
    call_body,
    candidate_body,
    grounding,
    logprobs_body,
    parts_of,
    thought,
    usage_body,
)
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
from providers.adapters.sse import SSEReader
from providers.adapters.types import Finish, JSONObject, Reasoning, TokenLogprob, ToolCall, Usage

LINE_LIMIT = 32 * 1024 * 1024  # bytes: generated images come whole in one line
_json = msgspec.json.Encoder()


class _Candidate:
    """What is to be told of one choice: `parts` with the next chunk, the rest with its last."""

    def __init__(self) -> None:
        self.parts: list[JSONObject] = []
        self.logprobs: list[TokenLogprob] = []
        self.calls: dict[int, ToolCall] = {}
        self.pieces: dict[int, list[str]] = {}
        self.citations: list[CitationSeen] = []
        self.finish: Finish | None = None

    def last_parts(self) -> list[JSONObject]:
        for index, call in self.calls.items():
            arguments = "".join(self.pieces.get(index, ())) or "{}"
            self.parts.append(call_body(msgspec.structs.replace(call, arguments=arguments)))
        return self.parts or [{"text": ""}]


class GeminiStream:
    def __init__(self, model: str, error_body: Callable[[Any], bytes]) -> None:
        self._model = model
        self._error_body = error_body
        self._id = ""
        self._candidates: dict[int, _Candidate] = {}
        self._usage: Usage | None = None

    def feed(self, events: list[StreamEvent]) -> bytes:
        ended = False
        for event in events:
            if isinstance(event, Started):
                self._id, self._model = event.id or f"conduit-{uuid.uuid4().hex}", event.model or self._model
            elif isinstance(event, UsageSeen):
                self._usage = event.usage
            elif isinstance(event, Ended):
                ended = True
            else:
                self._take(event, self._candidates.setdefault(event.choice, _Candidate()))
        return self._last() if ended else self._chunk()

    def broken(self, error: Any) -> bytes:
        return b"data: %b\r\n\r\n" % self._error_body(error)

    def _take(self, event: StreamEvent, candidate: _Candidate) -> None:
        if isinstance(event, TextDelta | RefusalDelta):
            _add_text(candidate.parts, event.text)
            candidate.logprobs += event.logprobs or () if isinstance(event, TextDelta) else ()
        elif isinstance(event, ReasoningDelta):
            part = Reasoning(text=event.text, signature=event.signature, redacted=event.redacted)
            candidate.parts.append(thought(part))
        elif isinstance(event, ToolStarted):
            candidate.calls[event.index] = ToolCall(id=event.id, name=event.name, signature=event.signature)
        elif isinstance(event, ToolDelta):
            candidate.pieces.setdefault(event.index, []).append(event.arguments)
        elif isinstance(event, MediaDelta | OpaqueSeen):
            candidate.parts += parts_of(event.part)
        elif isinstance(event, CitationSeen):
            candidate.citations.append(event)
        elif isinstance(event, Finished):
            candidate.finish = event.finish

    def _chunk(self) -> bytes:
        told = [(index, candidate) for index, candidate in self._candidates.items() if candidate.parts]
        if not told:
            return b""
        bodies: list[JSONObject] = []
        for index, candidate in told:
            body = candidate_body(index, candidate.parts)
            if candidate.logprobs:
                body["logprobsResult"] = logprobs_body(candidate.logprobs)
            bodies.append(body)
            candidate.parts, candidate.logprobs = [], []
        return self._frame({"candidates": bodies})

    def _last(self) -> bytes:
        bodies: list[JSONObject] = []
        for index, candidate in sorted(self._candidates.items()):
            body = candidate_body(index, candidate.last_parts(), candidate.finish or "stop")
            if chunks := grounding([seen.citation for seen in candidate.citations]):
                body["groundingMetadata"] = {"groundingChunks": chunks}
            if candidate.logprobs:
                body["logprobsResult"] = logprobs_body(candidate.logprobs)
            bodies.append(body)
        self._candidates.clear()
        return self._frame({"candidates": bodies or [candidate_body(0, [{"text": ""}], "stop")]})

    def _frame(self, body: JSONObject) -> bytes:
        if self._usage is not None:
            body["usageMetadata"] = usage_body(self._usage)
        body["modelVersion"], body["responseId"] = self._model, self._id
        return b"data: %b\r\n\r\n" % _json.encode(body)


def _add_text(parts: list[JSONObject], text: str) -> None:
    if not text:
        return
    if parts and parts[-1].keys() == {"text"}:
        parts[-1]["text"] += text
    else:
        parts.append({"text": text})


class ArrayFrames:
    """SSE bytes in, the pieces of one JSON array out; `close()` ends the array."""

    def __init__(self) -> None:
        self._reader = SSEReader(LINE_LIMIT)
        self._begun = False

    def feed(self, data: bytes) -> bytes:
        return b"".join([self._item(event.data) for event in self._reader.feed(data)])

    def close(self) -> bytes:
        rest = b"".join([self._item(event.data) for event in self._reader.close()])
        return rest + (b"]" if self._begun else b"[]")

    def _item(self, data: bytes) -> bytes:
        opening = b",\r\n" if self._begun else b"["
        self._begun = True
        return opening + data
