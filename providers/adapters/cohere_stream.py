"""Streams of Cohere's /v2/chat, event by event, as canonical events.

message-start, then content-start/-delta/-end of texts and thoughts, tool-plan-delta, tool-call-start/-delta/-end,
citation-start/-end, and message-end with finish reason and usage: whoever has seen that has seen all.
"""

from __future__ import annotations

from typing import Any

import msgspec

from providers.adapters.cohere_answer import (
    FAULTS,
    FINISH,
    CallWire,
    CitationWire,
    ContentWire,
    LogprobWire,
    citation_of,
    error_in,
    is_of_text,
    logprob_of,
    usage_of,
)
from providers.adapters.counts import checked
from providers.adapters.events import (
    CitationSeen,
    Ended,
    Finished,
    ReasoningDelta,
    Started,
    StreamEvent,
    TextDelta,
    ToolDelta,
    ToolStarted,
    UsageSeen,
)
from providers.adapters.parsing import PieceParser, says
from providers.adapters.refusals import shortened
from providers.adapters.sse import Event, SSEReader
from providers.errors import InvalidResponse, refusal


class _Message(msgspec.Struct):
    """Of these a delta has one; a list where an event has nothing to say of it."""

    content: ContentWire | list[Any] | None = None
    tool_calls: CallWire | list[Any] | None = None
    tool_plan: str | None = None
    citations: CitationWire | list[Any] | None = None


class _Delta(msgspec.Struct):
    message: _Message | None = None
    finish_reason: str | None = None
    error: str | None = None
    usage: Any = None


class _Chunk(msgspec.Struct):
    type: str = ""
    id: str | None = None
    index: int = 0
    delta: _Delta | None = None
    logprobs: LogprobWire | None = None
    message: str | None = None  # of an error that stands where an event should


_chunk = msgspec.json.Decoder(_Chunk)


class CohereStream(PieceParser[Event]):
    def __init__(self) -> None:
        super().__init__(SSEReader())
        self._calls: dict[int, int] = {}  # Cohere's index of a tool call -> ours, which counts from 0

    def _read(self, piece: Event, events: list[StreamEvent]) -> None:
        if self._ended:
            return
        try:
            chunk = _chunk.decode(piece.data)
        except FAULTS:
            raise InvalidResponse("The provider's stream has an event that is not of its wire format.") from None
        if not chunk.type:
            raise error_in(piece.data)
        if not self._started:
            self._started = True
            events.append(Started(id=chunk.id or "", model=""))
        delta = chunk.delta or _Delta()
        if chunk.type == "message-end":
            self._end(delta, events)
            return
        self._delta(chunk, delta.message or _Message(), events)
        self._generated = self._generated or says(events)

    def _delta(self, chunk: _Chunk, message: _Message, events: list[StreamEvent]) -> None:
        if isinstance(message.content, ContentWire):
            if message.content.thinking:
                events.append(ReasoningDelta(text=message.content.thinking))
            text, logprobs = message.content.text or "", chunk.logprobs
            if text or logprobs is not None:
                events.append(TextDelta(text, logprobs=None if logprobs is None else (logprob_of(logprobs),)))
        if message.tool_plan:
            events.append(ReasoningDelta(text=message.tool_plan))
        if isinstance(message.tool_calls, CallWire):
            self._call(chunk.index, message.tool_calls, events)
        if isinstance(message.citations, CitationWire) and is_of_text(message.citations):
            events.append(CitationSeen(citation_of(message.citations)))

    def _call(self, index: int, call: CallWire, events: list[StreamEvent]) -> None:
        function = call.function
        if index not in self._calls:
            self._calls[index] = at = len(self._calls)
            name = (function.name if function else None) or ""
            events.append(ToolStarted(at, call.id or f"call_{at}", name))
        if function is not None and function.arguments:
            events.append(ToolDelta(self._calls[index], function.arguments))

    def _end(self, delta: _Delta, events: list[StreamEvent]) -> None:
        usage = usage_of(delta.usage)
        if usage is not None:
            events.append(UsageSeen(checked(usage, generated=self._generated)))
        if delta.error:
            raise refusal(500, shortened(delta.error))
        self._ended = True
        events.append(Finished(FINISH.get(delta.finish_reason or "", "stop")))
        events.append(Ended())
