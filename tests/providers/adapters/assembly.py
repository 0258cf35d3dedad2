"""What a client would put together from a stream's events: the whole answer, to hold against the unstreamed one."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from providers.adapters.base import StreamParser
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
from providers.adapters.types import ChatResponse, Choice, Part, Reasoning, Refusal, Text, ToolCall


def parse_in_pieces(parser: StreamParser, stream: bytes, size: int) -> list[StreamEvent]:
    events: list[StreamEvent] = []
    for at in range(0, len(stream), size):
        events += parser.feed(stream[at : at + size])
    return events + parser.close()


def assemble(events: Iterable[StreamEvent]) -> ChatResponse:
    answer, parts, finishes, calls, order = ChatResponse(id="", model="", choices=(), usage=None), {}, {}, {}, []
    for event in events:
        order.append(type(event))
        if isinstance(event, Started):
            answer = msgspec.structs.replace(answer, id=event.id, model=event.model, created=event.created)
        elif isinstance(event, UsageSeen):
            answer = msgspec.structs.replace(answer, usage=event.usage)
        elif isinstance(event, Finished):
            assert event.choice not in finishes, "a choice finished twice"
            finishes[event.choice] = event
        elif not isinstance(event, Ended):
            _take(event, parts.setdefault(event.choice, []), calls)
    assert order.count(Started) == 1
    assert order[0] is Started
    assert order.count(Ended) == 1
    assert order[-1] is Ended
    choices = tuple(
        Choice(index=index, parts=tuple(parts.get(index, ())), finish=done.finish, stop_sequence=done.stop_sequence)
        for index, done in sorted(finishes.items())
    )
    return msgspec.structs.replace(answer, choices=choices)


def _take(event: StreamEvent, parts: list[Part], calls: dict[tuple[int, int], int]) -> None:
    last = parts[-1] if parts else None
    if isinstance(event, TextDelta | RefusalDelta):
        kind = Text if isinstance(event, TextDelta) else Refusal
        if isinstance(last, kind):
            parts[-1] = msgspec.structs.replace(last, text=last.text + event.text)
        else:
            parts.append(kind(text=event.text))
    elif isinstance(event, ReasoningDelta):
        if isinstance(last, Reasoning) and not last.signature and not last.redacted and not event.redacted:
            parts[-1] = Reasoning(text=last.text + event.text, signature=event.signature)
        else:
            parts.append(Reasoning(text=event.text, signature=event.signature, redacted=event.redacted))
    elif isinstance(event, ToolStarted):
        calls[event.choice, event.index] = len(parts)
        parts.append(ToolCall(id=event.id, name=event.name, arguments="", signature=event.signature))
    elif isinstance(event, ToolDelta):
        at = calls[event.choice, event.index]
        call = parts[at]
        assert isinstance(call, ToolCall)
        parts[at] = msgspec.structs.replace(call, arguments=call.arguments + event.arguments)
    elif isinstance(event, MediaDelta | OpaqueSeen):
        parts.append(event.part)
    elif isinstance(event, CitationSeen):
        assert isinstance(last, Text)
        parts[-1] = msgspec.structs.replace(last, citations=(*last.citations, event.citation))
