"""A client that reads slowly, or not at all: its provider is not read either, memory stays flat, and the deadline of
readers ends it."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from conduit.engines.deadlines import DeadlineProtocol, Deadlines
from tests.harness.gateway import RunningGateway, wait_for
from tests.harness.speakers import SPEAKERS, Speaker
from tests.proxy.streams import HEAD, Scripted, chunk, ending, opened, paced, scripted

MIB = 1024 * 1024
PIECE = chunk("x" * 100_000)
WHOLE = 64 * MIB // len(PIECE)


def resident() -> int:
    """Bytes of this process, which the gateway is part of."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def stalled(upstream: Scripted) -> int:
    """What the upstream has sent once it can send no more."""
    last = -1
    deadline = time.monotonic() + 20
    while last != upstream.sent:
        assert time.monotonic() < deadline, "the upstream is read although its client does not read"
        last = upstream.sent
        time.sleep(0.4)
    return last


def read_on(connection: socket.socket) -> bytes:
    """The last bytes of all that comes until the end marker."""
    tail = b""
    while not tail.rstrip().endswith((b"0\r\n\r\n", b"0")):
        piece = connection.recv(MIB)
        assert piece, tail
        tail = (tail + piece)[-500:]
    return tail


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
def test_a_client_that_does_not_read_stops_its_provider(gateway: RunningGateway, dialect: str) -> None:
    speaker: Speaker = SPEAKERS[dialect]
    name = f"flood-{dialect}"
    with scripted(gateway, name) as upstream, paced(gateway, keep_alive=0.1, idle=0.3):
        upstream.steps = (HEAD, *[PIECE] * WHOLE, ending(10, 3))
        before = resident()
        with opened(gateway, speaker, name, f"{name}-pressure", {}) as connection:
            sent = stalled(upstream)
            grown = resident() - before
            print(f"U4: {sent / MIB:.1f} MiB left the provider of a {dialect} client that reads nothing")
            assert sent < 24 * MIB, "more than the sockets' buffers hold"
            assert grown < 24 * MIB, "memory grew"
            tail = read_on(connection)
            assert (b"[DONE]" if dialect == "openai" else b"message_stop") in tail, "silence that is ours was counted"
        (event,) = gateway.events(f"{name}-pressure")
        assert event.outcome == "ok"
        wait_for(lambda: upstream.sent == len(HEAD) + len(PIECE) * WHOLE + len(ending(10, 3)))


def test_a_client_that_never_reads_is_disconnected(gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DeadlineProtocol, "limits", Deadlines(reader=0.5))
    with scripted(gateway, "unread") as upstream:
        upstream.steps = (HEAD, *[PIECE] * WHOLE, ending(10, 3))
        with opened(gateway, SPEAKERS["openai"], "unread", "never-reads", {}):
            (event,) = gateway.events("never-reads")
            wait_for(lambda: len(upstream.closed) == 1)
    assert (event.outcome, event.status) == ("cancelled", 499)
