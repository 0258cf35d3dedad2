"""Whole answers in one write.

uvicorn's `send` takes an answer in two messages and looks at each header with two regular expressions; an answer of the
proxy has about fifteen of them. WholeAnswers offers the application the ASGI extension `conduit.answer`, whose `write`
writes status, headers and body at once and checks all headers with one look at the joined bytes.
docs/adr/0009-one-write-per-answer.md has the measurement.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from conduit.engines.deadlines import DeadlineProtocol

EXTENSION = "conduit.answer"


class WholeAnswers(DeadlineProtocol):
    """The protocol of Conduit's web processes."""

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        cycle.scope["extensions"] = {EXTENSION: {"write": partial(answer, cycle)}}
        super()._start_asgi_task(cycle, app)


def answer(cycle: RequestResponseCycle, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> bool:
    """Writes the whole answer; `content-length` is added here. False when it has to go through `send` instead: the
    client reads slowly or wants the connection closed, or a header is not one line. Header names are lower-case."""
    if cycle.response_started or cycle.flow.write_paused or not cycle.keep_alive or cycle.scope["method"] == "HEAD":
        return cycle.disconnected
    if cycle.disconnected:
        return True
    parts = [STATUS_LINE[status]]
    for name, value in (*cycle.default_headers, *headers):
        parts += (name, b": ", value, b"\r\n")
    head = b"".join(parts)
    lines = len(cycle.default_headers) + len(headers) + 1
    if head.count(b"\n") != lines or head.count(b"\r") != lines or b"\0" in head:
        return False
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    cycle.transport.write(b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body))
    cycle.message_event.set()
    cycle.on_response()
    return True
