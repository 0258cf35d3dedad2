"""Anthropic's event stream, parsed to canonical events.

message_start · content_block_{start,delta,stop} · message_delta (usage is cumulative) · message_stop; ping may come
between.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from providers.adapters.anthropic_response import (
    FINISHES,
    BlockWire,
    UsageWire,
    citation_of,
    decoded,
    in_band_error,
    usage_of,
    usage_wire,
)
from providers.adapters.counts import LARGEST, Counts, checked
from providers.adapters.events import (
    CitationSeen,
    Ended,
    Finished,
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
from providers.adapters.parsing import PieceParser
from providers.adapters.sse import Event, SSEReader
from providers.adapters.types import Dialect, JSONObject, Opaque, Usage


class _Delta(msgspec.Struct):
    type: str = ""
    text: str = ""
    thinking: str = ""
    signature: str = ""
    partial_json: str = ""
    citation: JSONObject | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: JSONObject | None = None


class _Message(msgspec.Struct):
    id: str = ""
    model: str = ""
    usage: Any = None


class EventWire(msgspec.Struct):
    type: str = ""
    index: int = 0
    message: _Message | None = None
    content_block: msgspec.Raw = msgspec.Raw(b'{"type":"text"}')
    delta: _Delta | None = None
    usage: Any = None
    error: Any = None


event_decoder = msgspec.json.Decoder(EventWire)
_block = msgspec.json.Decoder(BlockWire)
_object = msgspec.json.Decoder(dict[str, Any])


class CumulativeUsage:
    """message_start brings the input, each message_delta the totals so far; the last figures count."""

    def __init__(self) -> None:
        self._wire = UsageWire()
        self._seen = False
        self._faults = Counts()

    def add(self, usage: object) -> None:
        wire = usage_wire(usage)
        if wire is None:
            return
        self._seen = True
        for name in UsageWire.__struct_fields__:
            setattr(self._wire, name, self._later(getattr(self._wire, name), getattr(wire, name)))

    def _later(self, before: Any, now: Any) -> Any:
        """A total cannot shrink, nor turn into something else: what was a count stays, and the fault is noted."""
        if now is None:
            return before
        if isinstance(before, dict) and isinstance(now, dict):
            return {**before, **{name: self._later(before.get(name), value) for name, value in now.items()}}
        if type(before) is not int or before < 0 or (type(now) is int and before <= now <= LARGEST):
            return now
        if self._faults.read(now) or now == 0:
            self._faults.note("decreasing")
        return before

    def total(self, *, generated: bool) -> Usage | None:
        if not self._seen:
            return None
        usage = usage_of(self._wire)
        usage.flags = tuple(dict.fromkeys((*usage.flags, *self._faults.flags)))
        return checked(usage, generated=generated)


class _Block:
    """A content block that is open: what came with its start and has to be known at its end."""

    def __init__(self, raw: msgspec.Raw, tool: int) -> None:
        self.wire = decoded(_block, raw)
        self.raw = raw
        self.tool = tool  # index of the tool call; -1 for other blocks
        self.pieces: list[str] = []


class AnthropicStreamParser(PieceParser[Event]):
    def __init__(self) -> None:
        super().__init__(SSEReader())
        self._usage = CumulativeUsage()
        self._blocks: dict[int, _Block] = {}
        self._tools = 0
        self._finished = False
        self._steps: dict[str, Callable[[EventWire], list[StreamEvent]]] = {
            "message_start": self._start,
            "content_block_start": self._open_block,
            "content_block_delta": self._delta,
            "content_block_stop": self._close_block,
            "message_delta": self._message_delta,
            "message_stop": self._stop,
        }

    def _read(self, piece: Event, events: list[StreamEvent]) -> None:
        event = decoded(event_decoder, piece.data)
        if event.type == "error":
            raise in_band_error(event.error)
        step = self._steps.get(event.type)
        if step and not self._ended:
            events += step(event)

    def _start(self, event: EventWire) -> list[StreamEvent]:
        message = event.message or _Message()
        self._usage.add(message.usage)
        usage = self._usage.total(generated=False)
        started = Started(id=message.id, model=message.model)
        return [started, UsageSeen(usage)] if usage else [started]

    def _open_block(self, event: EventWire) -> list[StreamEvent]:
        self._generated = True
        block = _Block(event.content_block, -1)
        wire = block.wire
        self._blocks[event.index] = block
        if wire.type == "tool_use":
            block.tool = self._tools
            self._tools += 1
            return [ToolStarted(index=block.tool, id=wire.id, name=wire.name)]
        if wire.type == "redacted_thinking":
            return [ReasoningDelta(redacted=wire.data or "")]
        opened: list[StreamEvent] = []
        if wire.type == "text" and wire.text:
            opened.append(TextDelta(wire.text))
        if wire.type == "thinking" and wire.thinking:
            opened.append(ReasoningDelta(text=wire.thinking))
        if wire.type == "thinking" and wire.signature:
            opened.append(ReasoningDelta(signature=wire.signature))
        return opened

    def _delta(self, event: EventWire) -> list[StreamEvent]:
        delta = event.delta or _Delta()
        if delta.type == "text_delta":
            return [TextDelta(delta.text)]
        if delta.type == "thinking_delta":
            return [ReasoningDelta(text=delta.thinking)]
        if delta.type == "signature_delta":
            return [ReasoningDelta(signature=delta.signature)]
        if delta.type == "citations_delta" and delta.citation is not None:
            return [CitationSeen(citation_of(delta.citation))]
        block = self._blocks.get(event.index)
        if delta.type != "input_json_delta" or block is None or not delta.partial_json:
            return []
        block.pieces.append(delta.partial_json)
        return [ToolDelta(index=block.tool, arguments=delta.partial_json)] if block.tool >= 0 else []

    def _close_block(self, event: EventWire) -> list[StreamEvent]:
        block = self._blocks.pop(event.index, None)
        if block is None or block.wire.type in ("text", "thinking", "redacted_thinking"):
            return []
        if block.tool >= 0:  # arguments that came whole with the start, usually an empty object
            whole = bytes(block.wire.input).decode()
            return [] if block.pieces else [ToolDelta(index=block.tool, arguments=whole)]
        raw = decoded(_object, block.raw)
        if block.pieces:
            raw["input"] = decoded(_object, "".join(block.pieces).encode())
        return [OpaqueSeen(Opaque(dialect=Dialect.ANTHROPIC, raw=raw))]

    def _message_delta(self, event: EventWire) -> list[StreamEvent]:
        self._usage.add(event.usage)
        delta, events = event.delta or _Delta(), list[StreamEvent]()
        explanation = (delta.stop_details or {}).get("explanation")
        if isinstance(explanation, str) and explanation:
            events.append(RefusalDelta(explanation))
        if delta.stop_reason and not self._finished:
            self._finished = True
            finish = FINISHES.get(delta.stop_reason, "stop")
            events.append(Finished(finish=finish, stop_sequence=delta.stop_sequence or ""))
        usage = self._usage.total(generated=self._generated)
        if usage is not None:
            events.append(UsageSeen(usage))
        return events

    def _stop(self, event: EventWire) -> list[StreamEvent]:
        self._ended = True
        return [Ended()] if self._finished else [Finished(finish="stop"), Ended()]
