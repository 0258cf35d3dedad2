"""Sends a reply, billing each step before it leaves and committing the faults that concern the wire.

The order is always: the line into the invoice, then the bytes. A client that has left is billed nothing further, unless
`bill-after-cancel` is set.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any

from providers.sandbox.connection import Exchange
from providers.sandbox.faults import Faults
from providers.sandbox.invoice import Bill

PAGE = b"<!doctype html><html><head><title>502 Bad Gateway</title></head><body>The server is busy.</body></html>"
TORN_EVENT = b'data: {"id":"torn","choices":[{"del\n\n'

# Output tokens that have left with this frame (cumulative), and its bytes.
Frame = tuple[int, bytes]


@dataclass(slots=True)
class Reply:
    """A `body` or `frames` to send. `bill` is None where nothing is sold; `output_tokens` of the whole answer."""

    bill: Bill | None
    output_tokens: int = 0
    body: bytes = b""
    frames: Iterator[Frame] | None = None
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Errors:
    """The dialect's error as a whole body and as an event of a stream."""

    body: Callable[[int, str], bytes]
    event: Callable[[str], bytes]


def deliver(exchange: Exchange, reply: Reply, faults: Faults, errors: Errors) -> Coroutine[Any, Any, None] | None:
    """Answers at once and returns None where nothing needs waiting for."""
    if reply.frames is None and not faults.delay_ms and not faults.hang and faults.cut_after_bytes is None:
        body = _whole_body(reply, faults, errors)
        _close(reply)
        exchange.whole(200, _headers(reply, faults), body)
        return None
    return _deliver_slowly(exchange, reply, faults, errors)


def _unsold(faults: Faults, *, stream: bool) -> bool:
    return faults.malformed == "html" or (faults.error_200 and not stream)


def _headers(reply: Reply, faults: Faults) -> dict[str, str]:
    kind = "text/html; charset=utf-8" if faults.malformed == "html" else reply.content_type
    return {"content-type": kind, **reply.headers}


def _whole_body(reply: Reply, faults: Faults, errors: Errors) -> bytes:
    if faults.malformed == "html":
        body, reply.bill = PAGE, None
    elif faults.error_200:
        body, reply.bill = errors.body(500, "The model failed."), None
    elif faults.malformed:
        body = reply.body[: len(reply.body) * 2 // 3]
    else:
        body = reply.body
    return body


def _close(reply: Reply) -> None:
    if reply.bill is not None:
        reply.bill.step(reply.output_tokens, final=True)


async def _deliver_slowly(exchange: Exchange, reply: Reply, faults: Faults, errors: Errors) -> None:
    if reply.bill is not None and not _unsold(faults, stream=reply.frames is not None):
        reply.bill.step()
    if faults.delay_ms:
        await exchange.pause(faults.delay_ms / 1000)
    if faults.hang == "headers":
        await exchange.hang()
    if faults.cut_after_bytes is not None:
        exchange.cut_after(faults.cut_after_bytes)
    if exchange.gone and not faults.bill_after_cancel:
        if reply.bill is not None and reply.bill.accepted:
            reply.bill.step(final=True)
    elif reply.frames is None or faults.malformed == "html":
        await _send_body(exchange, reply, faults, errors)
    else:
        await _send_frames(exchange, reply, faults, errors)


async def _send_body(exchange: Exchange, reply: Reply, faults: Faults, errors: Errors) -> None:
    body = _whole_body(reply, faults, errors)
    _close(reply)
    exchange.start(200, _headers(reply, faults), len(body))
    if faults.hang == "body":
        await exchange.send(body[: len(body) // 2])
        await exchange.hang()
    await exchange.send(body)
    exchange.end()


async def _send_frames(exchange: Exchange, reply: Reply, faults: Faults, errors: Errors) -> None:
    assert reply.frames is not None
    bill = reply.bill
    try:
        exchange.start(200, _headers(reply, faults))
        half, halved = (reply.output_tokens + 1) // 2, False
        for tokens, frame in reply.frames:
            if exchange.gone and not faults.bill_after_cancel:
                return
            if bill is not None and tokens != bill.output_tokens:
                bill.step(tokens)
            await exchange.send(frame)
            if not halved and tokens >= half:
                halved = True
                if not await _half_way(exchange, faults, errors):
                    return
            if faults.chunk_gap_ms:
                await exchange.pause(faults.chunk_gap_ms / 1000)
        if not exchange.gone:
            exchange.end()
    finally:
        if bill is not None:
            bill.step(final=True)


async def _half_way(exchange: Exchange, faults: Faults, errors: Errors) -> bool:
    """Commits the fault of mid-stream; False ends the stream there."""
    if faults.malformed:
        await exchange.send(TORN_EVENT)
    if faults.hang == "body":
        await exchange.hang()
    if faults.error_200:
        await exchange.send(errors.event("The model failed."))
        exchange.end()
        return False
    return True
