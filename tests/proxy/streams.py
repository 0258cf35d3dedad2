"""What the tests of streams share: a pace of tenths of seconds, and an upstream that says what a test tells it to."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

from conduit.proxy.stream_watch import Pace
from tests.harness.gateway import RunningGateway
from tests.harness.speakers import Speaker

# What a client's parser passes over, by dialect.
MARKS = {
    "openai": b": keep-alive\n\n",
    "responses": b": keep-alive\n\n",
    "anthropic": b"event: ping\n",
    "gemini": b"\r\n\r\n\r\n",
}
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
Step = bytes | float | Callable[[socket.socket], None]


@contextmanager
def paced(gateway: RunningGateway, *, keep_alive: float = 0, idle: float = 0, total: float = 0) -> Iterator[None]:
    """The gateway with these seconds instead of its own; 0 is off."""
    watch = gateway.app._proxy.streams
    before, watch.pace = watch.pace, Pace(keep_alive, idle, total)
    try:
        yield
    finally:
        watch.pace = before


@contextmanager
def standing_still(gateway: RunningGateway, *, after: float, seconds: float) -> Iterator[None]:
    """The whole web process, once, while its providers go on: in the middle of reading sockets, so that its timers come
    before the rest of them. A process that was paused and continued is there as well."""
    loop = gateway.app.gateway._tasks[0].get_loop()
    ours, theirs = socket.socketpair()

    def stand() -> None:
        theirs.recv(1)
        time.sleep(seconds)

    loop.call_soon_threadsafe(loop.add_reader, theirs, stand)
    timer = threading.Timer(after, ours.send, [b"!"])
    timer.start()
    with ours, theirs:
        try:
            yield
        finally:
            timer.join()
            loop.call_soon_threadsafe(loop.remove_reader, theirs)
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(30)


def chunk(text: str) -> bytes:
    """A content frame of OpenAI's wire format."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return (
        b"data: " + json.dumps({"id": "c", "object": "chat.completion.chunk", "choices": [choice]}).encode() + b"\n\n"
    )


def ending(prompt: int, answer: int) -> bytes:
    """The finish, the usage and the end marker."""
    finish = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    usage = {"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": answer}}
    return b"".join(b"data: " + json.dumps(one).encode() + b"\n\n" for one in (finish, usage)) + b"data: [DONE]\n\n"


def opened(
    gateway: RunningGateway,
    speaker: Speaker,
    model: str,
    request_id: str,
    faults: dict[str, str],
    *,
    key: str = "",
    text: str = "hello big world",
    cap: int | None = None,
    stream: bool = True,
) -> socket.socket:
    """A connection on which an answer, mostly a stream, has been asked for."""
    body = json.dumps(speaker.body(model, text, stream, cap)).encode()
    sent = {
        "host": "gateway",
        "content-type": "application/json",
        "content-length": str(len(body)),
        **speaker.headers(key or gateway.raw_key, {"x-request-id": request_id, **faults}),
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
    parts = urlsplit(gateway.url)
    connection = socket.create_connection((parts.hostname, parts.port), timeout=20)
    connection.sendall(f"POST {speaker.address(model, stream)} HTTP/1.1\r\n{head}\r\n".encode() + body)
    return connection


class Scripted:
    """An upstream on loopback. Each connection takes one request and plays `steps`: bytes are sent, a number is a pause
    in seconds, a function gets the socket. `closed` has the moments (monotonic) at which the gateway hung up."""

    def __init__(self) -> None:
        self.steps: Sequence[Step] = ()
        self.closed: list[float] = []
        self.sent = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # else the thread would wait, and listen, for ever
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection = self._listener.accept()[0]
                threading.Thread(target=self._serve, args=(connection, self.steps), daemon=True).start()

    def _serve(self, connection: socket.socket, steps: Sequence[Step]) -> None:
        with connection:
            connection.recv(65536)
            try:
                for step in steps:
                    if isinstance(step, bytes):
                        connection.sendall(step)
                        self.sent += len(step)
                    elif isinstance(step, float):
                        self._pause(connection, step)
                    else:
                        step(connection)
            except OSError:
                self.closed.append(time.monotonic())

    def _pause(self, connection: socket.socket, seconds: float) -> None:
        """Ends early with OSError when the gateway hangs up."""
        connection.settimeout(seconds)
        with suppress(TimeoutError):
            if not connection.recv(1):
                raise ConnectionResetError
        connection.settimeout(None)


@contextmanager
def scripted(gateway: RunningGateway, name: str) -> Iterator[Scripted]:
    """With a custom provider and a route of this name that lead to it."""
    from conduit.core.actor import SYSTEM
    from conduit.core.secret import Secret
    from providers.credentials import add_credential
    from providers.models import Provider

    upstream = Scripted()
    provider: Any = Provider.objects.create(name=name, kind="custom", base_url=upstream.url)
    add_credential(provider, actor=SYSTEM, name="main", fields={"api_key": Secret("sk-scripted")}, verify=False)
    gateway.route(name, (provider, "scripted"))
    try:
        yield upstream
    finally:
        upstream.close()
