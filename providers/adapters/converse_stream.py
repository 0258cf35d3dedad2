"""ConverseStream's events, parsed to canonical events.

messageStart · contentBlock{Start,Delta,Stop} · messageStop · metadata (usage), each a frame of Amazon's event stream;
exceptions are frames too. Both messageStop and metadata mark a whole answer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from providers.adapters.converse_answer import (
    FINISHES,
    answer_tool,
    citation_of,
    decoded,
    error_named,
    image_of,
    text_in,
    usage_of,
)
from providers.adapters.counts import checked
from providers.adapters.event_stream import EventStreamReader, Frame
from providers.adapters.events import (
    CitationSeen,
    Ended,
    Finished,
    MediaDelta,
    OpaqueSeen,
    ReasoningDelta,
    Started,
    StreamEvent,
    TextDelta,
    ToolDelta,
    ToolStarted,
    UsageSeen,
)
from providers.adapters.parsing import PieceParser
from providers.adapters.types import ChatRequest, Dialect, JSONObject, Opaque
from providers.errors import InvalidResponse, UpstreamError


class _Delta(msgspec.Struct):
    text: str | None = None
    toolUse: JSONObject | None = None  # noqa: N815 (the wire's names, here and below)
    reasoningContent: JSONObject | None = None  # noqa: N815
    citation: JSONObject | None = None
    image: JSONObject | None = None


class _Event(msgspec.Struct):
    contentBlockIndex: int = 0  # noqa: N815
    start: JSONObject | None = None
    delta: _Delta | None = None
    stopReason: str = ""  # noqa: N815
    usage: Any = None
    message: str = ""
    originalMessage: str = ""  # noqa: N815


_event = msgspec.json.Decoder(_Event)


class _Call:
    """A tool call that is open. `index` is its place among the calls; -1 where it is the provider's own tool."""

    def __init__(self, wire: JSONObject, index: int) -> None:
        self.wire = wire
        self.index = index
        self.pieces: list[str] = []


class ConverseStream(PieceParser[Frame]):
    def __init__(self, request: ChatRequest) -> None:
        self._frames = EventStreamReader()
        super().__init__(self._frames)
        self._model = request.model
        self._answer = answer_tool(request)
        self._calls: dict[int, _Call] = {}  # open ones by content block
        self._answers: dict[int, bool] = {}  # blocks whose call is the answer; whether any of it came
        self._images: dict[int, str] = {}  # formats of images by content block
        self._called = 0
        self._stopped = self._metered = False
        self._steps: dict[str, Callable[[_Event], list[StreamEvent]]] = {
            "messageStart": self._start,
            "contentBlockStart": self._open,
            "contentBlockDelta": self._delta,
            "contentBlockStop": self._shut,
            "messageStop": self._stop,
            "metadata": self._metadata,
        }

    def close(self) -> list[StreamEvent]:
        events = super().close()
        if self._frames.torn:
            raise InvalidResponse("The provider's stream goes on after its end.")
        return events

    def _read(self, piece: Frame, events: list[StreamEvent]) -> None:
        kind = piece.headers.get(":message-type", "event")
        if kind == "error":  # of the transport: told in headers alone
            words = piece.headers.get(":error-message", "") or "The provider's stream broke off with an error."
            raise error_named(piece.headers.get(":error-code", ""), words)
        if kind == "exception":
            raise _exception(piece)
        step = self._steps.get(piece.headers.get(":event-type", ""))
        if step is not None and not self._ended:
            events += step(decoded(_event, piece.payload))

    def _start(self, event: _Event) -> list[StreamEvent]:
        return [Started(id="", model=self._model)]

    def _open(self, event: _Event) -> list[StreamEvent]:
        self._generated = True
        start, at = event.start or {}, event.contentBlockIndex
        image, tool = start.get("image"), start.get("toolUse")
        if isinstance(image, dict):
            self._images[at] = text_in(image, "format") or "png"
        if not isinstance(tool, dict):
            return []
        name = text_in(tool, "name")
        if self._answer and name == self._answer:
            self._answers[at] = False
            return []
        own = "type" in tool
        call = self._calls[at] = _Call(tool, -1 if own else self._called)
        if own:
            return []
        self._called += 1
        return [ToolStarted(index=call.index, id=text_in(tool, "toolUseId"), name=name)]

    def _delta(self, event: _Event) -> list[StreamEvent]:
        self._generated = True
        delta, at = event.delta or _Delta(), event.contentBlockIndex
        if delta.text is not None:
            return [TextDelta(delta.text)] if delta.text else []
        if delta.toolUse is not None:
            return self._arguments(at, delta.toolUse.get("input"))
        if delta.reasoningContent is not None:
            return _thoughts(delta.reasoningContent)
        if delta.citation is not None:
            return [CitationSeen(citation_of(delta.citation))]
        if delta.image is not None and (image := image_of({**delta.image, "format": self._images.get(at, "png")})):
            return [MediaDelta(image)]
        return []

    def _arguments(self, at: int, piece: object) -> list[StreamEvent]:
        if not isinstance(piece, str) or not piece:
            return []
        if at in self._answers:
            self._answers[at] = True
            return [TextDelta(piece)]
        call = self._calls.get(at)
        if call is None:
            return []
        call.pieces.append(piece)
        return [ToolDelta(index=call.index, arguments=piece)] if call.index >= 0 else []

    def _shut(self, event: _Event) -> list[StreamEvent]:
        at = event.contentBlockIndex
        if self._answers.get(at) is False:
            return [TextDelta("{}")]
        call = self._calls.pop(at, None)
        if call is None:
            return []
        if call.index >= 0:
            return [] if call.pieces else [ToolDelta(index=call.index, arguments="{}")]
        given = decoded(_objects, "".join(call.pieces).encode() or b"{}")
        return [OpaqueSeen(Opaque(dialect=Dialect.CONVERSE, raw={"toolUse": {**call.wire, "input": given}}))]

    def _stop(self, event: _Event) -> list[StreamEvent]:
        if self._stopped:
            return []
        self._stopped = True
        finish = FINISHES.get(event.stopReason, "stop")
        if finish == "tool_calls" and not self._called:
            finish = "stop"  # the only call was the answer itself
        return [Finished(finish), *self._end()]

    def _metadata(self, event: _Event) -> list[StreamEvent]:
        self._metered = True
        usage = usage_of(event.usage)
        seen: list[StreamEvent] = [UsageSeen(checked(usage, generated=self._generated))] if usage else []
        return [*seen, *self._end()]

    def _end(self) -> list[StreamEvent]:
        """Both messageStop and metadata had to come."""
        self._ended = self._stopped and self._metered
        return [Ended()] if self._ended else []


_objects = msgspec.json.Decoder(dict[str, Any])


def _thoughts(wire: JSONObject) -> list[StreamEvent]:
    """One event each; a signature or redacted data comes alone."""
    thoughts = [
        ReasoningDelta(text=text_in(wire, "text")),
        ReasoningDelta(signature=text_in(wire, "signature")),
        ReasoningDelta(redacted=text_in(wire, "redactedContent")),
    ]
    return [thought for thought in thoughts if thought.text or thought.signature or thought.redacted]


def _exception(frame: Frame) -> UpstreamError:
    try:
        told = _event.decode(frame.payload)
    except (msgspec.DecodeError, UnicodeDecodeError):
        told = _Event()
    words = told.message or told.originalMessage or "The provider's stream broke off with an error."
    return error_named(frame.headers.get(":exception-type", ""), words)
