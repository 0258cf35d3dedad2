"""Gemini's stream: each event is a GenerateContentResponse with what is new; usage counts are totals so far.

There is no end marker. A candidate is whole once a chunk gave its finishReason; a prompt that was blocked has none.
"""

from __future__ import annotations

import secrets

from providers.adapters.counts import checked
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
from providers.adapters.gemini_response import (
    citations_of,
    finish_of,
    logprobs_of,
    parts_of,
    read_answer,
    usage_of,
)
from providers.adapters.gemini_wire import AnswerWire, CandidateWire
from providers.adapters.parsing import PieceParser, says
from providers.adapters.sse import Event, SSEReader
from providers.adapters.types import Audio, Image, Opaque, Part, Reasoning, Text, TokenLogprob, ToolCall, Usage

FRAME_LIMIT = 32 * 1024 * 1024  # bytes: generated images come whole in one line


def later_usage(before: Usage | None, now: Usage) -> Usage:
    """Totals cannot shrink: the larger figure stays and is flagged."""
    if before is None:
        return now
    if now.output_tokens < before.output_tokens or now.input_tokens < before.input_tokens:
        now.output_tokens = max(now.output_tokens, before.output_tokens)
        now.input_tokens = max(now.input_tokens, before.input_tokens)
        now.flags = (*now.flags, "decreasing")
    if not now.units:
        now.units = before.units
    return now


class GeminiStreamParser(PieceParser[Event]):
    """`choices` is how many candidates were asked for: the stream is whole when each of them finished."""

    def __init__(self, choices: int) -> None:
        super().__init__(SSEReader(FRAME_LIMIT))
        self._choices = choices
        self._name = ""
        self._calls: dict[int, int] = {}  # tool calls so far by choice
        self._finished: set[int] = set()
        self._usage: Usage | None = None

    def close(self) -> list[StreamEvent]:
        return [*super().close(), Ended()]

    def _read(self, piece: Event, events: list[StreamEvent]) -> None:
        wire = read_answer(piece.data)
        found: list[StreamEvent] = []  # nothing of a piece that turns out to be broken
        if not self._started:
            self._started, self._name = True, name_of(wire.response_id)
            found.append(Started(id=wire.response_id, model=wire.model_version))
        for candidate in wire.candidates or ():
            self._candidate(wire, candidate, found)
        if wire.prompt_feedback is not None and wire.prompt_feedback.block_reason and not self._finished:
            self._finished.update(range(self._choices))
            self._ended = True
            found += [Finished(finish="content_filter", choice=choice) for choice in range(self._choices)]
        self._generated = self._generated or says(found)
        usage = usage_of(wire)
        if usage is not None:
            self._usage = later_usage(self._usage, usage)
            found.append(UsageSeen(checked(self._usage, generated=self._generated)))
        events += found

    def _candidate(self, wire: AnswerWire, candidate: CandidateWire, events: list[StreamEvent]) -> None:
        choice = candidate.index
        logprobs = logprobs_of(candidate.logprobs_result)
        for raw in (candidate.content.parts if candidate.content else None) or ():
            number = self._calls.get(choice, 0)
            for part in parts_of(raw, call_id(self._name, choice, number)):
                events += self._part(part, choice, logprobs)
                logprobs = None if isinstance(part, Text) else logprobs
        events += [CitationSeen(citation, choice) for citation in citations_of(candidate.grounding_metadata)]
        if candidate.finish_reason and choice not in self._finished:
            self._finished.add(choice)
            self._ended = len(self._finished) >= self._choices
            finish = finish_of(candidate.finish_reason, calls=bool(self._calls.get(choice)))
            events.append(Finished(finish=finish, choice=choice))

    def _part(self, part: Part, choice: int, logprobs: tuple[TokenLogprob, ...] | None) -> list[StreamEvent]:
        if isinstance(part, Text):
            return [TextDelta(part.text, choice, logprobs)]
        if isinstance(part, Reasoning):
            deltas: list[StreamEvent] = [ReasoningDelta(text=part.text, choice=choice)] if part.text else []
            if part.signature:
                deltas.append(ReasoningDelta(signature=part.signature, choice=choice))
            return deltas
        if isinstance(part, ToolCall):
            index = self._calls.get(choice, 0)
            self._calls[choice] = index + 1
            started = ToolStarted(index=index, id=part.id, name=part.name, choice=choice, signature=part.signature)
            return [started, ToolDelta(index=index, arguments=part.arguments, choice=choice)]
        if isinstance(part, Image | Audio):
            return [MediaDelta(part, choice)]
        return [OpaqueSeen(part, choice)] if isinstance(part, Opaque) else []


def name_of(response_id: str) -> str:
    """What sets an answer's calls apart from those of other turns; drawn once for an answer without an id."""
    return response_id or secrets.token_hex(8)


def call_id(name: str, choice: int, number: int) -> str:
    """Gemini may leave calls without an id; the same answer must give the same one, streamed or not."""
    return f"call_{name}_{choice}_{number}"
