"""Streams: bytes relayed as they are where the wire format is the client's own, else events rendered anew.

Both are async generators of bytes for the client. However they end (whole, broken, cancelled by the client's leaving),
the attempt is settled before they are gone, and the upstream connection is closed unless it was read to its end.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from time import perf_counter

from conduit.proxy.call import Call
from conduit.proxy.dialects.base import StreamRenderer
from conduit.proxy.dialects.gemini_stream import ArrayFrames
from conduit.proxy.errors import ApiError
from conduit.proxy.settlement import Attempt
from providers.adapters.base import Relay, StreamParser
from providers.adapters.types import (
    ChatResponse,
    EmbeddingResponse,
    Ended,
    MediaDelta,
    Reasoning,
    ReasoningDelta,
    Refusal,
    RefusalDelta,
    StreamEvent,
    Text,
    TextDelta,
    ToolCall,
    ToolDelta,
    Usage,
    UsageSeen,
)
from providers.errors import InvalidResponse, UpstreamError
from providers.transport import UpstreamAnswer


class Translation:
    """A stream parser and a renderer joined, in the shape of a Relay."""

    def __init__(self, parser: StreamParser, renderer: StreamRenderer) -> None:
        self._parser, self._renderer = parser, renderer
        self.usage: Usage | None = None
        self.ended = False
        self.frames = 0
        self.text_bytes = 0

    def feed(self, data: bytes) -> bytes:
        return self._render(self._parser.feed(data))

    def close(self) -> bytes:
        return self._render(self._parser.close())

    def _render(self, events: list[StreamEvent]) -> bytes:
        for event in events:
            if isinstance(event, (TextDelta, RefusalDelta, ReasoningDelta)):
                self.frames += 1
                self.text_bytes += len(event.text.encode())
            elif isinstance(event, ToolDelta):
                self.frames += 1
                self.text_bytes += len(event.arguments.encode())
            elif isinstance(event, MediaDelta):
                self.frames += 1
            elif isinstance(event, UsageSeen):
                self.usage = event.usage
            elif isinstance(event, Ended):
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


def generated(relay: Relay) -> int:
    """Bytes of generated text so far, at least four for each frame: each carries a token."""
    return max(relay.text_bytes, 4 * relay.frames)


def _broken(call: Call, relay: Relay, error: ApiError) -> bytes:
    assert call.inbound is not None
    frame = call.dialect.stream(call.inbound, call.request_id).broken(error)
    return relay.broken(frame) if isinstance(relay, AsArray) else frame


async def first_piece(call: Call, upstream: UpstreamAnswer, relay: Relay) -> bytes:
    """Reads until there is something for the client. Raises UpstreamError: nothing has been sent, all is still open."""
    began = perf_counter()
    try:
        while chunk := await upstream.more():
            piece = relay.feed(chunk)
            if piece:
                return piece
        return relay.close()
    finally:
        call.upstream += perf_counter() - began


async def pieces(
    call: Call, attempt: Attempt, upstream: UpstreamAnswer, relay: Relay, first: bytes
) -> AsyncIterator[bytes]:
    """The whole stream for the client, from its `first` piece on."""
    whole = False
    most = attempt.most_frames()
    began = perf_counter()
    try:
        yield b""  # the caller takes this one at once: see pipeline._stream
        attempt.first_byte()
        yield first
        while chunk := await upstream.more():
            piece = relay.feed(chunk)
            if piece:
                yield piece
            if relay.frames > most:
                raise InvalidResponse("The provider went on after the output cap; the answer was cut there.")
        rest = relay.close()
        whole = True
        call.upstream += perf_counter() - began
        upstream.finish()
        attempt.succeed(relay.usage, answer_bytes=generated(relay))
        if rest:
            yield rest
    except UpstreamError as error:
        call.upstream += perf_counter() - began
        shown = attempt.shown(error)
        call.broken = True
        attempt.fail(shown, error, usage=relay.usage, answer_bytes=generated(relay), final=True)
        yield _broken(call, relay, shown)
    finally:
        if attempt.open:
            call.upstream += perf_counter() - began
            with suppress(UpstreamError):
                relay.feed(upstream.arrived())
            attempt.cancel(relay.usage, answer_bytes=generated(relay), ended=relay.ended)
        if not whole:
            upstream.close()
