"""Ollama's stream: a JSON object a line; the last one says done, and how many tokens it took."""

from __future__ import annotations

from providers.adapters.counts import checked
from providers.adapters.events import (
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
from providers.adapters.ndjson import LineSplitter
from providers.adapters.ollama_answer import (
    ChatWire,
    answer_id,
    call_of,
    created_of,
    finish_of,
    logprobs_of,
    read_line,
    thought_of,
    usage_of,
)
from providers.adapters.parsing import PieceParser


class OllamaStream(PieceParser[bytes]):
    def __init__(self) -> None:
        super().__init__(LineSplitter())
        self._calls = 0

    def _read(self, piece: bytes, events: list[StreamEvent]) -> None:
        if self._ended:
            return
        wire = read_line(piece)
        if not self._started:
            self._started = True
            events.append(Started(id=answer_id(wire), model=wire.model, created=created_of(wire)))
        before = len(events)
        if wire.message is not None:
            self._message(wire, events)
        self._generated = self._generated or len(events) > before
        if wire.done:
            self._ended = True
            events.append(Finished(finish=finish_of(wire, calls=self._calls > 0)))
            events.append(UsageSeen(usage=checked(usage_of(wire), generated=self._generated)))
            events.append(Ended())

    def _message(self, wire: ChatWire, events: list[StreamEvent]) -> None:
        assert wire.message is not None
        if thought := thought_of(wire.message):
            events.append(ReasoningDelta(text=thought))
        text, logprobs = wire.message.content or "", logprobs_of(wire)
        if text or logprobs:
            events.append(TextDelta(text=text, logprobs=logprobs))
        for call in wire.message.tool_calls or ():
            found = call_of(wire, call, self._calls)
            events.append(ToolStarted(index=self._calls, id=found.id, name=found.name))
            events.append(ToolDelta(index=self._calls, arguments=found.arguments))
            self._calls += 1
