"""Streams of OpenAI's wire format, chunk by chunk, as canonical events."""

from __future__ import annotations

import msgspec

from providers.adapters.counts import checked
from providers.adapters.events import (
    CitationSeen,
    Ended,
    Finished,
    MediaDelta,
    ReasoningDelta,
    RefusalDelta,
    Started,
    StreamEvent,
    TextDelta,
    ToolDelta,
    ToolStarted,
    UsageSeen,
)
from providers.adapters.openai_wire import (
    FINISH,
    error_in,
    later_usage,
    logprobs_of,
    reasoning_parts,
    refusal_in_answer,
)
from providers.adapters.openai_wire_answer import (
    FAULTS,
    WireChat,
    WireChoice,
    WireMessage,
    WireToolCall,
    arguments_of,
    audio_of,
    calls_of,
    citations_of,
    images_of,
    signature_of,
    text_of,
    usage_or_none,
)
from providers.adapters.parsing import PieceParser, says
from providers.adapters.sse import Event, SSEReader
from providers.adapters.types import Usage
from providers.errors import InvalidResponse

DONE = b"[DONE]"
STREAM_LIMIT = 8 * 1024 * 1024  # bytes of one event: audio and images come whole
_chunk = msgspec.json.Decoder(WireChat)


class OpenAIStream(PieceParser[Event]):
    def __init__(self) -> None:
        super().__init__(SSEReader(STREAM_LIMIT))
        self._usage: Usage | None = None
        self._calls: dict[tuple[int, int], str] = {}  # (choice, index) of an open tool call -> its id

    def _read(self, piece: Event, events: list[StreamEvent]) -> None:
        if self._ended:
            return
        data = piece.data
        if data.strip() == DONE:
            self._ended = True
            events.append(Ended())
            return
        if piece.event == "error":
            raise error_in(data)
        try:
            chunk = _chunk.decode(data)
        except FAULTS:
            raise InvalidResponse("The provider's stream has an event that is not a chunk.") from None
        if chunk.error:
            raise refusal_in_answer(chunk.error)
        if not self._started and chunk.choices is not None:
            self._started = True
            events.append(Started(id=chunk.id or "", model=chunk.model or "", created=int(chunk.created or 0)))
        for choice in chunk.choices or ():
            self._choice(choice, events)
        self._generated = self._generated or says(events)
        usage = usage_or_none(chunk.usage)
        if usage is not None:
            self._usage = later_usage(self._usage, usage)
            events.append(UsageSeen(usage=checked(self._usage, generated=self._generated)))

    def _choice(self, choice: WireChoice, events: list[StreamEvent]) -> None:
        index = choice.index
        delta = choice.delta or choice.message or WireMessage()
        thoughts = delta.reasoning_content or delta.reasoning
        if thoughts or delta.reasoning_details:
            for thought in reasoning_parts(delta.reasoning_details, thoughts):
                self._thought(thought.text, thought.signature, thought.redacted, index, events)
        text = text_of(delta.content) if delta.content else ""
        logprobs = logprobs_of(choice.logprobs) if choice.logprobs is not None else None
        if text or logprobs:
            events.append(TextDelta(text=text, choice=index, logprobs=logprobs))
        self._seldom(delta, index, events)
        if delta.tool_calls or delta.function_call:
            for position, call in enumerate(calls_of(delta)):
                self._call(call, position, index, events)
        if choice.finish_reason:
            events.append(Finished(finish=FINISH.get(choice.finish_reason, "stop"), choice=index))

    def _seldom(self, delta: WireMessage, index: int, events: list[StreamEvent]) -> None:
        if delta.refusal:
            events.append(RefusalDelta(text=delta.refusal, choice=index))
        if delta.audio:
            events.append(MediaDelta(part=audio_of(delta.audio), choice=index))
        if delta.images:
            events.extend([MediaDelta(part=image, choice=index) for image in images_of(delta.images)])
        if delta.annotations:
            events.extend([CitationSeen(citation=item, choice=index) for item in citations_of(delta.annotations)])

    def _thought(self, text: str, signature: str, redacted: str, choice: int, events: list[StreamEvent]) -> None:
        """One event each: text comes before the signature that closes it."""
        if text:
            events.append(ReasoningDelta(text=text, choice=choice))
        if signature:
            events.append(ReasoningDelta(signature=signature, choice=choice))
        if redacted:
            events.append(ReasoningDelta(redacted=redacted, choice=choice))

    def _call(self, call: WireToolCall, position: int, choice: int, events: list[StreamEvent]) -> None:
        """A call opens with its first delta. Servers that send no index send each call whole, one after another."""
        function = call.function
        index = call.index
        if index is None:
            known = [number for (of, number), id_ in self._calls.items() if of == choice and id_ == call.id and id_]
            open_calls = sum([1 for of, _ in self._calls if of == choice])
            index = known[0] if known else (open_calls if call.id or (function and function.name) else position)
        if (choice, index) not in self._calls:
            self._calls[choice, index] = call.id or ""
            name = (function.name if function else None) or ""
            id_ = call.id or f"call_{index}"
            events.append(ToolStarted(index=index, id=id_, name=name, choice=choice, signature=signature_of(call)))
        if function is not None and (arguments := arguments_of(function)):
            events.append(ToolDelta(index=index, arguments=arguments, choice=choice))
