"""Two writers to one connection never mix: the timer's word and what a stream's own task writes."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any, cast

import pytest

from conduit.proxy import answer_headers
from conduit.proxy.call import Call, Flow
from conduit.proxy.paths import Path
from conduit.proxy.stream_watch import COMMENT, Client, Pace, StreamIdle, StreamTooLong
from providers.adapters.types import Dialect, Endpoint
from providers.errors import UpstreamError

PACE = Pace(keep_alive=1, idle=10, total=100)


class Wire:
    """A connection whose buffer may be full."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.room = asyncio.Event()
        self.room.set()

    async def send(self, message: MutableMapping[str, Any]) -> None:
        await self.room.wait()
        self.sent.append(message.get("body", message["type"]))


class Upstream:
    def __init__(self) -> None:
        self.aborted: UpstreamError | None = None
        self.over = False

    def abort(self, error: UpstreamError) -> None:
        self.aborted = error

    def end(self) -> None:
        self.over = True


class Progress:
    ended = False


def a_call(**flow: Any) -> Call:
    path = Path(Dialect.OPENAI, Endpoint.CHAT, "generate", "POST")
    unset = cast(Any, None)
    call = Call(path=path, dialect=unset, key=unset, request_id="r", body=b"", headers={}, address="", started=1000.0)
    if flow:
        call.flow = Flow(cast(Any, Upstream()), cast(Any, Progress()), **flow)
    return call


@pytest.fixture
def quiet_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_headers, "of_waiting", lambda gateway, call: [])


def a_client(wire: Wire) -> Client:
    return Client(cast(Any, None), wire.send)


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.usefixtures("quiet_head")
def test_the_head_leaves_once_and_first() -> None:
    async def scene() -> list[Any]:
        wire = Wire()
        client, call = a_client(wire), a_call()
        for now in (1000.5, 1001.0, 1001.5, 1002.0):
            client.look(call, PACE, now)
            await turn()
        return wire.sent

    assert asyncio.run(scene()) == ["http.response.start", COMMENT, COMMENT]


@pytest.mark.usefixtures("quiet_head")
def test_a_task_that_writes_waits_for_what_is_being_said_and_is_not_spoken_over() -> None:
    async def scene() -> None:
        wire = Wire()
        client, call = a_client(wire), a_call(taken=1, turns=2)
        client.begun = True
        client.look(call, PACE, 1001.0)  # sees it first
        wire.room.clear()
        client.look(call, PACE, 1003.0)
        waiting = asyncio.create_task(client.quiet())
        await turn()
        assert not waiting.done()
        client.look(call, PACE, 1009.0)  # nor twice at once
        wire.room.set()
        await waiting
        assert wire.sent == [COMMENT]
        client.alone = True
        client.look(call, PACE, 1012.0)
        await turn()
        assert wire.sent == [COMMENT]

    asyncio.run(scene())


@pytest.mark.usefixtures("quiet_head")
def test_a_client_that_left_is_not_waited_for() -> None:
    async def scene() -> None:
        wire = Wire()
        wire.room.clear()
        client = a_client(wire)
        client.look(a_call(), PACE, 1002.0)
        await turn()
        assert client.speaking is not None
        await client.close()
        assert client.speaking is None
        assert wire.sent == []

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("flow", "ended", "later", "error"),
    [
        ({"turns": 2}, False, 11, StreamIdle),
        ({"turns": 2}, False, 9, None),
        ({"turns": 1}, False, 50, None),  # it is the client that is slow
        ({"turns": 1}, False, 101, StreamTooLong),
        ({"turns": 2}, True, 50, None),
    ],
)
def test_who_is_late_is_judged_by_whose_turn_it_is(
    flow: dict[str, int], ended: bool, later: float, error: type | None
) -> None:
    call = a_call(**flow)
    assert call.flow is not None
    upstream = cast(Upstream, call.flow.upstream)
    cast(Progress, call.flow.relay).ended = ended

    async def scene() -> None:
        client = a_client(Wire())
        pace = Pace(0, PACE.idle, PACE.total)
        client.look(call, pace, 1000.0)
        client.look(call, pace, 1000.0 + later)

    asyncio.run(scene())
    assert (type(upstream.aborted) if upstream.aborted else None, upstream.over) == (error, ended)
