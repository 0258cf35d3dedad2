"""Deadlines that uvicorn lacks: a client that sends its headers or body too slowly, or does not read, is cut.

No timer per request: each connection notes when it began to wait for its client, and `sweep` looks at all of them
once a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

REFUSAL = (
    b'{"error":{"message":"The request arrived too slowly.","type":"invalid_request_error",'
    b'"param":null,"code":"request_timeout"}}'
)
ANSWER = (
    b"HTTP/1.1 408 Request Timeout\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: "
    + str(len(REFUSAL)).encode()
    + b"\r\n\r\n"
    + REFUSAL
)


@dataclass(frozen=True)
class Deadlines:
    """Seconds; `body_rate` is bytes a second. A body of n bytes has `body_grace` + n / `body_rate` to arrive whole."""

    headers: float = 20.0
    body_idle: float = 20.0
    body_grace: float = 60.0
    body_rate: float = 1024.0
    reader: float = 120.0


LIMITS = Deadlines()


class DeadlineProtocol(HttpToolsProtocol):
    """HttpToolsProtocol that knows since when it waits for its client. `limits` may be replaced on a subclass."""

    limits = LIMITS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._headers_since = self._body_since = self._body_last = self._reader_since = 0.0
        self._body_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._headers_since = self.loop.time()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if not self._headers_since:
            self._headers_since = self.loop.time()

    def on_headers_complete(self) -> None:
        self._headers_since = 0.0
        self._body_since = self._body_last = self.loop.time()
        self._body_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body_last = self.loop.time()
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._body_since = 0.0
        super().on_message_complete()

    def pause_writing(self) -> None:
        self._reader_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._reader_since = 0.0
        super().resume_writing()

    def late(self, now: float) -> bool:
        """Whether the client has used up one of its deadlines at `now` (the loop's clock)."""
        limits = self.limits
        if self._reader_since and now - self._reader_since > limits.reader:
            return True
        if self.flow is not None and self.flow.read_paused:
            # We are the ones who do not read: the client's time does not run.
            self._headers_since = now if self._headers_since else 0.0
            self._body_since, self._body_last = (now, now) if self._body_since else (0.0, now)
            return False
        if self._headers_since:
            return now - self._headers_since > limits.headers
        if not self._body_since:
            return False
        allowed = limits.body_grace + self._body_bytes / limits.body_rate
        return now - self._body_last > limits.body_idle or now - self._body_since > allowed

    def cut(self) -> None:
        """Answers 408 where no answer has begun, and closes. A client that does not read is dropped at once."""
        if self._reader_since:
            self.transport.abort()
            return
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            self.transport.write(ANSWER)
        self.transport.close()


def sweep(connections: Iterable[object], now: float) -> int:
    """Cuts every late connection; returns how many."""
    late = [one for one in connections if isinstance(one, DeadlineProtocol) and one.late(now)]
    for one in late:
        one.cut()
    return len(late)
