"""A client that leaves, in every phase of a stream: the provider's connection is closed at once, and what it billed is
booked.

Each phase ends with a real socket being closed.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest

from tests.harness import oracle
from tests.harness.gateway import RunningGateway, wait_for
from tests.harness.invoice import read_invoice, read_lines
from tests.harness.speakers import PREFIXES, SPEAKERS, Speaker
from tests.proxy.streams import MARKS, opened, paced

pytestmark = pytest.mark.usefixtures("module_books")
ENDS = {
    "openai": b"[DONE]",
    "responses": b"response.completed",
    "anthropic": b"message_stop",
    "gemini": b"finishReason",
}


@pytest.fixture(scope="module")
def milliseconds() -> Iterator[list[float]]:
    """From a client's leaving to the last byte that was billed, of each case."""
    found: list[float] = []
    yield found
    print(f"U4: {len(found)} phases and dialects left: last upstream byte at most {max(found, default=0):.0f} ms later")


def until(connection: socket.socket, there: Callable[[bytes], bool]) -> bytes:
    got = b""
    while not there(got):
        piece = connection.recv(65536)
        assert piece, got
        got += piece
    return got


def billed_lines(gateway: RunningGateway, since: int) -> list[dict[str, Any]]:
    return read_lines(gateway.sandbox.invoice)[since:]


# phase → the provider's faults, and what has come when the client leaves
PHASES: dict[str, dict[str, str]] = {
    "before the head": {"x-sandbox-delay-ms": "20000"},
    "before the head, kept alive": {"x-sandbox-delay-ms": "20000"},
    "before the first piece": {"x-sandbox-chunk-gap-ms": "20000"},
    "in silence, kept alive": {"x-sandbox-hang": "body", "x-sandbox-tokens": "40"},
    "in the middle": {"x-sandbox-chunk-gap-ms": "20", "x-sandbox-tokens": "1000"},
    "at the last piece": {"x-sandbox-chunk-gap-ms": "30"},
}


@pytest.mark.parametrize("wire", list(PREFIXES))
@pytest.mark.parametrize("phase", list(PHASES))
def test_who_leaves_closes_the_provider_and_pays_what_it_billed(
    gateway: RunningGateway, speaker: Speaker, wire: str, phase: str, milliseconds: list[float]
) -> None:
    request_id = f"{phase.replace(' ', '-').replace(',', '')}-{speaker.name}-{wire}"
    since = len(read_lines(gateway.sandbox.invoice))
    with paced(gateway, keep_alive=0.05 if "kept alive" in phase else 0):
        connection = opened(gateway, speaker, f"{PREFIXES[wire]}sandbox-echo", request_id, PHASES[phase])
        wait_for(lambda: bool(billed_lines(gateway, since)))  # the provider has the request
        if "kept alive" in phase:
            until(connection, lambda got: got.count(MARKS[speaker.name][:12]) >= 3)
        elif phase == "in the middle":
            until(connection, lambda got: len(got) > 3000)
        elif phase == "at the last piece":
            until(connection, lambda got: ENDS[speaker.name] in got)
        connection.close()
        left = time.time()
        (event,) = gateway.events(request_id)
    wait_for(lambda: read_invoice(gateway.sandbox.invoice)[str(event.id)].final)
    billed = oracle.billed(gateway, event.id)
    last = max(
        datetime.fromisoformat(line["time"]).timestamp()
        for line in billed_lines(gateway, since)
        if line["attempt"] == str(event.id)
    )
    milliseconds.append(max(0.0, last - left) * 1000)
    assert last - left < 2, "the provider went on"
    assert event.outcome == "cancelled" or (phase == "at the last piece" and event.outcome == "ok")
    assert event.cost_nanos >= billed.nanos
    assert event.output_tokens <= billed.units["output_tokens"] + 40, "what was streamed, not what was asked for"
    wait_for(lambda: not oracle.left_behind(gateway))


def test_settling_is_not_undone_by_who_leaves_meanwhile(
    gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection is closed by the client at the very moment at which its stream is being settled."""
    from conduit.proxy.settlement import Attempt

    speaker, held = SPEAKERS["openai"], []
    settle = Attempt._end

    def slowly(self: Attempt, *args: Any, **kwargs: Any) -> None:
        held.append(connection)
        connection.close()
        time.sleep(0.2)  # the loop learns of it right after
        settle(self, *args, **kwargs)

    connection = opened(gateway, speaker, "sandbox-echo", "left-while-settling", {"x-sandbox-chunk-gap-ms": "40"})
    monkeypatch.setattr(Attempt, "_end", slowly)
    until(connection, lambda got: b"world" in got)
    wait_for(lambda: bool(held))
    monkeypatch.undo()
    (event,) = gateway.events("left-while-settling")
    assert (event.outcome, event.exactness, event.cost_nanos) == ("ok", "exact", 10 * 150 + 3 * 600)
