"""Streams: bytes relayed as they are where the wire format is the client's own, else events rendered anew.

Both are async generators of bytes for the client. However they end (whole, broken, cancelled by the client's leaving),
the attempt is settled before they are gone, and the upstream connection is closed unless it was read to its end.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from time import perf_counter

from django.conf import settings

from conduit.proxy.call import Call, Flow
from conduit.proxy.dialects.base import Inbound, StreamRenderer
from conduit.proxy.dialects.gemini_stream import ArrayFrames
from conduit.proxy.dialects.responses_answer import ResponsesRenderer
from conduit.proxy.errors import ApiError, Withdrawn
from conduit.proxy.seals import Seals
from conduit.proxy.settlement import Attempt
from conduit.proxy.stream_watch import StreamIdle, StreamTooLarge
from providers.adapters.base import Adapter, Numbered, Relay, StreamParser
from providers.adapters.events import (
    Ended,
    MediaDelta,
    ReasoningDelta,
    RefusalDelta,
    StreamEvent,
    TextDelta,
    ToolDelta,
    ToolStarted,
    UsageSeen,
)
from providers.adapters.types import ChatResponse, EmbeddingResponse, Reasoning, Refusal, Text, ToolCall, Usage
from providers.errors import CannotCarry, InvalidResponse, UpstreamError, UpstreamTimeout
from providers.transport import UpstreamAnswer

_SEALED = (ReasoningDelta, ToolStarted)
_WRITTEN = (TextDelta, ToolDelta, ReasoningDelta, RefusalDelta)


class OverCap(InvalidResponse):
    """The provider takes no notice of the output cap."""


class Translation:
    """A stream parser and a renderer joined, in the shape of a Relay."""

    def __init__(self, parser: StreamParser, renderer: StreamRenderer, seals: Seals | None = None) -> None:
        self._parser, self._renderer, self._seals = parser, renderer, seals
        self.usage: Usage | None = None
        self.ended = False
        self.frames = 0
        self.text_bytes = 0

    def feed(self, data: bytes) -> bytes:
        return self._render(self._parser.feed(data))

    def close(self) -> bytes:
        return self._render(self._parser.close())

    def broken(self, error: ApiError) -> bytes:
        """By the renderer that wrote what came before: it counts its events."""
        return self._renderer.broken(error)

    def _render(self, events: list[StreamEvent]) -> bytes:
        if self._seals is not None and any(type(event) in _SEALED for event in events):
            events = self._seals.events(events)
        for event in events:
            kind = type(event)
            if kind in _WRITTEN:
                text = event.arguments if kind is ToolDelta else event.text  # type: ignore[union-attr]
                if text:  # not a signature
                    self.frames += 1
                    self.text_bytes += len(text) if text.isascii() else len(text.encode())
            elif kind is MediaDelta or kind is ToolStarted:
                self.frames += 1
            elif isinstance(event, UsageSeen):
                self.usage = event.usage
            elif kind is Ended:
                self.ended = True
        return self._renderer.feed(events)


class AsArray:
    """A relay whose events reach the client as one JSON array. A broken stream leaves the array open."""

    def __init__(self, inner: Relay) -> None:
        self._inner, self._frames = inner, ArrayFrames()

    @property
    def usage(self) -> Usage | None:
        return self._inner.usage

    @property
    def ended(self) -> bool:
        return self._inner.ended

    @property
    def frames(self) -> int:
        return self._inner.frames

    @property
    def text_bytes(self) -> int:
        return self._inner.text_bytes

    def feed(self, data: bytes) -> bytes:
        return self._frames.feed(self._inner.feed(data))

    def close(self) -> bytes:
        return self._frames.feed(self._inner.close()) + self._frames.close()

    def broken(self, frame: bytes) -> bytes:
        """The error as the array's last element."""
        return self._frames.feed(frame) + self._frames.close()


def text_bytes(response: ChatResponse | EmbeddingResponse) -> int:
    """UTF-8 bytes of the generated text of a whole answer, tool arguments and reasoning included."""
    if isinstance(response, EmbeddingResponse):
        return 0
    total = 0
    for choice in response.choices:
        for part in choice.parts:
            if isinstance(part, (Text, Reasoning, Refusal)):
                total += len(part.text.encode())
            elif isinstance(part, ToolCall):
                total += len(part.name) + len(part.arguments.encode())
    return total


def generated_in(
    inbound: Inbound, adapter: Adapter, body: bytes, response: ChatResponse | EmbeddingResponse | None
) -> int:
    """The same of a whole answer that may not have been read yet."""
    try:
        return text_bytes(response or adapter.parse_response(inbound.canonical(), body))
    except CannotCarry:  # there is no canonical form of the request, so none of its answer either
        return len(body)


def generated(relay: Relay) -> int:
    """Bytes of generated text so far, at least four for each frame: each carries a token."""
    return max(relay.text_bytes, 4 * relay.frames)


def broken(call: Call, error: ApiError, relay: Relay | None = None) -> bytes:
    """The error as the stream's last frame. `relay`: what has been relayed before, if anything."""
    assert call.inbound is not None
    call.broken = True
    if isinstance(relay, Translation):
        return relay.broken(error)
    renderer = call.dialect.stream(call.inbound, call.request_id)
    if isinstance(relay, Numbered) and isinstance(renderer, ResponsesRenderer):
        renderer.number = relay.next_number()
    frame = renderer.broken(error)
    if relay is None and call.path.array:
        frames = ArrayFrames()
        return frames.feed(frame) + frames.close()
    return relay.broken(frame) if isinstance(relay, AsArray) else frame


async def first_piece(call: Call, upstream: UpstreamAnswer, relay: Relay) -> bytes:
    """Reads until there is something for the client. Raises UpstreamError: nothing has been sent, all is still open."""
    began = perf_counter()
    flow = call.flow = Flow(upstream, relay)
    upstream.untimed()  # from here on the watch looks after it
    piece = None
    try:
        while chunk := await upstream.more():
            flow.taken += len(chunk)
            piece = relay.feed(chunk)
            if piece:
                return piece
            if flow.taken > settings.CONDUIT_STREAM_MAX_BYTES:
                raise _too_large()
        piece = relay.close()
        return piece
    finally:
        call.upstream += perf_counter() - began
        if piece is None:
            call.flow = None


def _too_large() -> StreamTooLarge:
    return StreamTooLarge(f"The provider's stream is larger than {settings.CONDUIT_STREAM_MAX_BYTES} bytes.")


def _over(attempt: Attempt) -> UpstreamError:
    """More pieces than are allowed: by the request's own cap, or of any stream."""
    if attempt.most_frames() <= settings.CONDUIT_STREAM_MAX_EVENTS:
        return OverCap("The provider went on after the output cap; the answer was cut there.")
    return StreamTooLarge(f"The provider's stream has more than {settings.CONDUIT_STREAM_MAX_EVENTS} events.")


async def pieces(
    call: Call, attempt: Attempt, upstream: UpstreamAnswer, relay: Relay, first: bytes
) -> AsyncIterator[bytes]:
    """The whole stream for the client, from its `first` piece on."""
    whole, why = False, "client_gone"
    flow = call.flow
    assert flow is not None
    most, room = min(attempt.most_frames(), settings.CONDUIT_STREAM_MAX_EVENTS), settings.CONDUIT_STREAM_MAX_BYTES
    began = perf_counter()
    attempt.stream_opened()
    try:
        yield b""  # the caller takes this one at once: see pipeline._stream
        attempt.first_byte()
        flow.turns = 1
        yield first
        flow.turns = 2
        while chunk := await upstream.more():
            flow.taken += len(chunk)
            piece = relay.feed(chunk)
            if piece:
                flow.turns += 1
                yield piece
                flow.turns += 1
            if relay.frames > most:
                raise _over(attempt)
            if flow.taken > room:
                raise _too_large()
        rest = relay.close()
        whole = True
        call.upstream += perf_counter() - began
        upstream.finish()
        attempt.succeed(relay.usage, answer_bytes=generated(relay))
        why = "completed"
        if rest:
            yield rest
    except UpstreamError as error:
        call.upstream += perf_counter() - began
        why = _why(error)
        shown = attempt.shown(error)
        attempt.noted(error)
        attempt.fail(shown, error, usage=relay.usage, answer_bytes=generated(relay), final=True)
        yield broken(call, shown, relay)
    finally:
        if attempt.open:
            call.upstream += perf_counter() - began
            with suppress(UpstreamError):
                relay.feed(upstream.arrived())
            attempt.cancel(relay.usage, answer_bytes=generated(relay), ended=relay.ended)
        if not whole:
            upstream.close()
        attempt.stream_closed(why)


def _why(error: UpstreamError) -> str:
    """The word that `conduit_streams_ended_total` has for it."""
    if isinstance(error, StreamIdle):
        return "idle_timeout"
    if isinstance(error, UpstreamTimeout):
        return "total_timeout"
    return "cut" if isinstance(error, (StreamTooLarge, Withdrawn, OverCap)) else "upstream_error"
