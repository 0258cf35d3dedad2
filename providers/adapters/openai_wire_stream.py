"""Streams of OpenAI's wire format, chunk by chunk, as canonical events."""

from __future__ import annotations

import msgspec

from providers.adapters.counts import checked
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
from providers.adapters.sse import Event, SSEReader
from providers.adapters.types import (
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
    Usage,
    UsageSeen,
)
from providers.errors import InvalidResponse, UpstreamCut, UpstreamError

DONE = b"[DONE]"
STREAM_LIMIT = 8 * 1024 * 1024  # bytes of one event: audio and images come whole
_SILENT = (Started, Finished, UsageSeen)  # events that carry nothing generated
_chunk = msgspec.json.Decoder(WireChat)


class OpenAIStream:
    """Raises UpstreamRefusal for an error in the stream, InvalidResponse for what is no chunk, UpstreamCut on close
    when `[DONE]` never came. An error behind good events of the same piece is raised by the next call: how the bytes
    were cut changes nothing."""

    def __init__(self) -> None:
        self._reader = SSEReader(STREAM_LIMIT)
        self._started = False
        self._ended = False
        self._usage: Usage | None = None
        self._generated = False
        self._error: UpstreamError | None = None
        self._calls: dict[tuple[int, int], str] = {}  # (choice, index) of an open tool call -> its id

    def feed(self, data: bytes) -> list[StreamEvent]:
        if self._error is not None:
            raise self._error
        events: list[StreamEvent] = []
        try:
            for event in self._reader.feed(data):
                self._event(event, events)
        except UpstreamError as error:
            if not events:
                raise
            self._error = error
        return events

    def close(self) -> list[StreamEvent]:
        if self._error is not None:
            raise self._error
        events: list[StreamEvent] = []
        for event in self._reader.close():
            self._event(event, events)
        if not self._ended:
            raise UpstreamCut("The provider's stream ended before its end marker.")
        return events

    def _event(self, event: Event, events: list[StreamEvent]) -> None:
        if self._ended:
            return
        data = event.data
        if data.strip() == DONE:
            self._ended = True
            events.append(Ended())
            return
        if event.event == "error":
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
        self._generated = self._generated or any(not isinstance(event, _SILENT) for event in events)
        usage = usage_or_none(chunk.usage)
        if usage is not None:
            self._usage = later_usage(self._usage, usage)
            events.append(UsageSeen(usage=checked(self._usage, generated=self._generated)))

    def _choice(self, choice: WireChoice, events: list[StreamEvent]) -> None:
        index = choice.index
        delta = choice.delta or choice.message or WireMessage()
        for thought in reasoning_parts(delta.reasoning_details, delta.reasoning_content or delta.reasoning):
            self._thought(thought.text, thought.signature, thought.redacted, index, events)
        text, logprobs = text_of(delta.content), logprobs_of(choice.logprobs)
        if text or logprobs:
            events.append(TextDelta(text=text, choice=index, logprobs=logprobs))
        if delta.refusal:
            events.append(RefusalDelta(text=delta.refusal, choice=index))
        if delta.audio:
            events.append(MediaDelta(part=audio_of(delta.audio), choice=index))
        events.extend([MediaDelta(part=image, choice=index) for image in images_of(delta.images)])
        events.extend([CitationSeen(citation=item, choice=index) for item in citations_of(delta.annotations)])
        for position, call in enumerate(calls_of(delta)):
            self._call(call, position, index, events)
        if choice.finish_reason:
            events.append(Finished(finish=FINISH.get(choice.finish_reason, "stop"), choice=index))

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
