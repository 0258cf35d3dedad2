"""Streams of OpenAI's Responses API, event by event, as canonical events."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from providers.adapters.counts import checked
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
from providers.adapters.openai_responses_answer import (
    WireResponse,
    citation_of,
    failure_of,
    finish_of,
    free_text,
    image_of,
    searches,
    text,
    usage_or_none,
)
from providers.adapters.openai_responses_relay import ENDS
from providers.adapters.openai_wire import error_in, logprobs_of, refusal_in_answer
from providers.adapters.openai_wire_answer import FAULTS
from providers.adapters.openai_wire_stream import DONE, STREAM_LIMIT
from providers.adapters.parsing import PieceParser
from providers.adapters.sse import Event, SSEReader
from providers.adapters.types import Dialect, JSONObject, Opaque
from providers.errors import InvalidResponse

_TOLD = ("message",)  # items whose events told all of them


class _WireEvent(msgspec.Struct):
    type: str = ""
    delta: Any = None
    item: dict[str, Any] | None = None
    annotation: dict[str, Any] | None = None
    response: WireResponse | None = None
    logprobs: Any = None
    output_index: int = 0
    summary_index: int = 0
    content_index: int = 0
    error: Any = None
    code: Any = None
    message: Any = None
    param: Any = None


_event = msgspec.json.Decoder(_WireEvent)


class ResponsesStream(PieceParser[Event]):
    def __init__(self) -> None:
        super().__init__(SSEReader(STREAM_LIMIT))
        self._calls: dict[int, int] = {}  # output_index of a call -> its number
        self._written: dict[int, int] = {}  # characters of its arguments told so far
        self._thoughts: dict[int, int] = {}  # output_index of a thought -> the part told last

    def _read(self, piece: Event, events: list[StreamEvent]) -> None:
        if self._ended or piece.data.strip() == DONE:
            return
        try:
            wire = _event.decode(piece.data)
        except FAULTS:
            raise InvalidResponse("The provider's stream has an event that is none of its API.") from None
        if piece.event == "error" or wire.type == "error" or (wire.error and not wire.type):
            raise error_in(piece.data) if wire.error else refusal_in_answer(_own_error(wire))
        if wire.type == "response.failed":
            answer = wire.response or WireResponse()
            used = usage_or_none(answer.usage, answer.tool_usage, searches(answer.output or ()))
            raise failure_of(answer.error, used, generated=self._generated)
        if not self._started and wire.response is not None:
            self._started = True
            answer = wire.response
            created = int(answer.created_at or 0)
            events.append(Started(id=answer.id or "", model=answer.model or "", created=created))
        if wire.type in ENDS and wire.response is not None:
            self._end(wire.response, events)
        elif (step := _STEPS.get(wire.type)) is not None:
            before = len(events)
            step(self, wire, events)
            self._generated = self._generated or len(events) > before

    def _end(self, answer: WireResponse, events: list[StreamEvent]) -> None:
        self._ended = True
        finish = finish_of(answer, ())
        events.append(Finished(finish="tool_calls" if self._calls and finish == "stop" else finish))
        usage = usage_or_none(answer.usage, answer.tool_usage, searches(answer.output or ()))
        if usage is not None:
            events.append(UsageSeen(usage=checked(usage, generated=self._generated)))
        events.append(Ended())

    def _text(self, wire: _WireEvent, events: list[StreamEvent]) -> None:
        told = logprobs_of({"content": wire.logprobs}) or None
        if (said := _delta(wire)) or told:
            events.append(TextDelta(text=said, logprobs=told))

    def _refusal(self, wire: _WireEvent, events: list[StreamEvent]) -> None:
        events.append(RefusalDelta(text=_delta(wire)))

    def _thought(self, wire: _WireEvent, events: list[StreamEvent]) -> None:
        place = wire.summary_index or wire.content_index
        before = self._thoughts.get(wire.output_index)
        self._thoughts[wire.output_index] = place
        apart = "\n\n" if before is not None and before != place else ""
        events.append(ReasoningDelta(text=apart + _delta(wire)))

    def _arguments(self, wire: _WireEvent, events: list[StreamEvent]) -> None:
        number = self._calls.get(wire.output_index)
        if number is not None and (delta := _delta(wire)):
            self._written[wire.output_index] += len(delta)
            events.append(ToolDelta(index=number, arguments=delta))

    def _citation(self, wire: _WireEvent, events: list[StreamEvent]) -> None:
        citation = citation_of(wire.annotation or {})
        if citation is not None:
            events.append(CitationSeen(citation=citation))

    def _added(self, wire: _WireEvent, events: list[StreamEvent]) -> None:
        item = wire.item or {}
        if item.get("type") in ("function_call", "custom_tool_call"):
            self._open(wire.output_index, item, events)

    def _open(self, place: int, item: JSONObject, events: list[StreamEvent]) -> None:
        number = self._calls[place] = len(self._calls)
        self._written[place] = 0
        events.append(ToolStarted(index=number, id=text(item, "call_id"), name=text(item, "name")))

    def _done(self, wire: _WireEvent, events: list[StreamEvent]) -> None:
        """What the events of an item left out, or could not tell."""
        item, place = wire.item or {}, wire.output_index
        kind = item.get("type")
        if kind in ("function_call", "custom_tool_call"):
            if place not in self._calls:
                self._open(place, item, events)
            whole = text(item, "arguments") if kind == "function_call" else free_text(text(item, "input"))
            if rest := whole[self._written[place] :]:
                events.append(ToolDelta(index=self._calls[place], arguments=rest))
        elif kind == "reasoning":
            self._close_thought(item, place, events)
        elif (image := image_of(item)) is not None:
            events.append(MediaDelta(part=image))
        elif kind not in _TOLD:
            events.append(OpaqueSeen(part=Opaque(dialect=Dialect.RESPONSES, raw=item)))

    def _close_thought(self, item: JSONObject, place: int, events: list[StreamEvent]) -> None:
        sealed = text(item, "encrypted_content")
        if sealed and place in self._thoughts:
            events.append(ReasoningDelta(signature=sealed))
        elif sealed:
            events.append(ReasoningDelta(redacted=sealed))


def _delta(wire: _WireEvent) -> str:
    return wire.delta if isinstance(wire.delta, str) else ""


def _own_error(wire: _WireEvent) -> JSONObject:
    return {"code": wire.code, "message": wire.message, "param": wire.param}


_STEPS: Mapping[str, Callable[[ResponsesStream, _WireEvent, list[StreamEvent]], None]] = {
    "response.output_text.delta": ResponsesStream._text,
    "response.refusal.delta": ResponsesStream._refusal,
    "response.reasoning_summary_text.delta": ResponsesStream._thought,
    "response.reasoning_text.delta": ResponsesStream._thought,
    "response.function_call_arguments.delta": ResponsesStream._arguments,
    "response.output_text.annotation.added": ResponsesStream._citation,
    "response.output_item.added": ResponsesStream._added,
    "response.output_item.done": ResponsesStream._done,
}
