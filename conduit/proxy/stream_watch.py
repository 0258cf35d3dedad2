"""Looks after open streams: a word to the client while its provider is silent, an end to what takes too long.

One timer for all of them, and only while there are any. A chunk costs two assignments: who relays notes in a `Flow`
how much came and for whom it waits, and the timer compares. So no chunk makes, moves or cancels a timer of its own.

Before the first piece there is no head yet, and the provider may still be exchanged for another. After `keep_alive`
seconds of waiting the head is sent all the same, since proxies and clients give up on a silent connection; from then
on a failure is told inside the stream. Attempts at other candidates go on as before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING, Any

import msgspec
from django.conf import settings

from conduit.proxy import answer_headers
from conduit.proxy.call import Call, Flow
from providers.adapters.types import Dialect
from providers.errors import InvalidResponse, UpstreamTimeout

if TYPE_CHECKING:
    from conduit.proxy.gateway import Gateway

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
AFTER_THE_END = 5.0  # seconds that a provider may leave the connection open behind its end marker
LONGEST_LOOK, SHORTEST_LOOK = 1.0, 0.02  # seconds between two looks
LATE = 0.1  # seconds that a busy event loop may take to come to it

COMMENT = b": keep-alive\n\n"
PING = b'event: ping\ndata: {"type":"ping"}\n\n'
BLANK = b"\r\n"  # Gemini's clients take any line but an empty one for JSON; white space fits a JSON array too


class StreamIdle(UpstreamTimeout):
    """The provider was silent for too long."""


class StreamTooLong(UpstreamTimeout):
    """The stream took longer than any may."""

    ours = True


class StreamTooLarge(InvalidResponse):
    """The stream carried more than any may."""

    ours = True


class Pace(msgspec.Struct, frozen=True):
    """Seconds; 0 switches one off."""

    keep_alive: float
    idle: float
    total: float

    @property
    def look(self) -> float:
        """Seconds between two looks: a quarter of the shortest, so that nothing is late by more."""
        shortest = min([one for one in (self.keep_alive, self.idle, self.total) if one] or [LONGEST_LOOK])
        return max(SHORTEST_LOOK, min(LONGEST_LOOK, shortest / 4))


def configured() -> Pace:
    return Pace(
        settings.CONDUIT_STREAM_KEEPALIVE, settings.CONDUIT_STREAM_IDLE_TIMEOUT, settings.CONDUIT_STREAM_TOTAL_TIMEOUT
    )


def keep_alive(call: Call) -> bytes:
    """What the client's parser passes over. Only ever between two frames."""
    if call.path.dialect is Dialect.GEMINI:
        return BLANK
    return PING if call.path.dialect is Dialect.ANTHROPIC else COMMENT


class Client:
    """One client's connection while its stream is watched. Its own task and the timer both write to it: its task asks
    `quiet` before it does, so that the head leaves once and nothing comes between the halves of a frame.

    Without `send` nobody waits: there is only the provider to look after."""

    def __init__(self, gateway: Gateway, send: Send | None) -> None:
        self._gateway, self._send = gateway, send
        self.begun = False  # the head has left
        self.alone = False  # its task writes the head or the end: the timer keeps out
        self.speaking: asyncio.Task[None] | None = None
        self._flow: Flow | None = None  # as it was at the last look, and since when it has been so:
        self._taken, self._turns = 0, 0
        self._silent = self._waiting = 0.0

    async def quiet(self) -> None:
        """Returns when nothing is being said."""
        if self.speaking is not None:
            await asyncio.wait([self.speaking])

    async def close(self) -> None:
        if self.speaking is not None:
            self.speaking.cancel()
            await asyncio.wait([self.speaking])

    def look(self, call: Call, pace: Pace, now: float) -> None:
        """`now`: perf_counter()."""
        if self.alone:
            return
        flow = call.flow
        if flow is None:
            self._flow, self._waiting = None, self._waiting or call.started
        else:
            if flow is not self._flow or flow.taken != self._taken or flow.giving:
                self._silent = now
            if flow.turns != self._turns or flow.giving:
                self._waiting = now
            self._flow, self._taken, self._turns = flow, flow.taken, flow.turns
            self._judge(call, flow, pace, now)
        if self._send is None or (flow is not None and flow.relay.ended):
            return  # after the end marker nothing may come
        if pace.keep_alive and self.speaking is None and now - (self._waiting or call.started) >= pace.keep_alive:
            self._waiting = now
            self.speaking = asyncio.get_running_loop().create_task(self._speak(call))

    def _judge(self, call: Call, flow: Flow, pace: Pace, now: float) -> None:
        if flow.relay.ended:
            if now - self._silent > AFTER_THE_END:
                flow.upstream.end()
        elif pace.total and now - call.started > pace.total:
            flow.upstream.abort(StreamTooLong(f"The stream took longer than {pace.total:g} seconds."))
        elif pace.idle and now - self._silent > pace.idle:
            flow.upstream.abort(StreamIdle(f"The provider was silent for {pace.idle:g} seconds."))

    async def _speak(self, call: Call) -> None:
        """The head, where it is missing, and a keep-alive. `send` waits before it writes, never between."""
        assert self._send is not None
        try:
            if not self.begun:
                self.begun = True
                head = answer_headers.of_waiting(self._gateway, call)
                await self._send({"type": "http.response.start", "status": 200, "headers": head})
            await self._send({"type": "http.response.body", "body": keep_alive(call), "more_body": True})
        finally:
            self.speaking = None


class StreamWatch:
    """All clients of this worker that have waited for a moment already. `pace` may be replaced at any time."""

    def __init__(self, pace: Pace) -> None:
        self.pace = pace
        self._clients: dict[Client, Callable[[], Call | None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0  # perf_counter() of the next look
        self._stood_still = False  # this process, before the last look

    def add(self, client: Client, call: Callable[[], Call | None]) -> None:
        """`call`: None until it is known whose request it is."""
        self._clients[client] = call
        if self._timer is None:
            self._arm()

    def discard(self, client: Client) -> None:
        self._clients.pop(client, None)
        if not self._clients and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @contextmanager
    def unattended(self, gateway: Gateway, call: Call) -> Iterator[None]:
        """For a stream that no client waits for."""
        nobody = Client(gateway, None)
        self.add(nobody, lambda: call)
        try:
            yield
        finally:
            self.discard(nobody)

    def _arm(self) -> None:
        seconds = SHORTEST_LOOK if self._stood_still else self.pace.look
        self._due = perf_counter() + seconds
        self._timer = asyncio.get_running_loop().call_later(seconds, self._look)

    def _look(self) -> None:
        """A look that is late sees nothing: what came while this process stood still is read after the timers. The
        next one judges, however late it is."""
        self._timer = None
        now = perf_counter()
        self._stood_still = not self._stood_still and now - self._due > LATE
        if self._stood_still:
            self._arm()
            return
        for client, ask in list(self._clients.items()):
            call = ask()
            if call is not None and call.attempts and call.inbound is not None and call.inbound.head.stream:
                client.look(call, self.pace, now)
        if self._clients:
            self._arm()
