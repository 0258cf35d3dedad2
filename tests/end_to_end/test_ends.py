"""However requests and processes end, the ledger has what the provider billed: each attempt once."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.end_to_end.installation import Installation
from tests.harness.gateway import wait_for
from tests.harness.invoice import read_lines
from tests.harness.speakers import SPEAKERS, Speaker

NANOS = 1_000_000_000


@dataclass
class Client:
    """What one caller saw: the status (0: none), the stream as far as it came, and when the last byte was there."""

    request_id: str
    stream: bool
    status: int = 0
    body: str = ""
    cost: str | None = None
    done: float = 0.0

    @property
    def whole(self) -> bool:
        return bool(self.done) and self.status == 200 and (not self.stream or "[DONE]" in self.body)


def _key(conduit: Installation, **fields: Any) -> str:
    key: str = conduit.made("/keys", {"name": f"key-{uuid4().hex[:12]}", **fields})["key"]
    return key


async def _call(http: httpx.AsyncClient, key: str, one: Client, **faults: int) -> None:
    headers = {"authorization": f"Bearer {key}", "x-request-id": one.request_id}
    headers |= {f"x-sandbox-{name.replace('_', '-')}": str(value) for name, value in faults.items()}
    body = {"model": "sandbox-echo", "messages": [{"role": "user", "content": "hello big world"}], "stream": one.stream}
    try:
        async with http.stream("POST", "/v1/chat/completions", json=body, headers=headers) as answer:
            one.status, one.cost = answer.status_code, answer.headers.get("x-conduit-cost-usd")
            async for piece in answer.aiter_text():
                one.body += piece
        one.done = time.monotonic()
    except httpx.TransportError:
        pass  # the gateway was killed: the client knows no more than that


def _http(conduit: Installation) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None)
    return httpx.AsyncClient(base_url=conduit.url, limits=limits, timeout=30, trust_env=False, verify=False)


def _once_each(conduit: Installation, events: list[dict[str, Any]]) -> None:
    """Each billed attempt has one event and each request one final state; what is exact is exactly what was billed."""
    assert not [name for name, count in Counter(event["id"] for event in events).items() if count > 1]
    assert not [one for one, count in Counter((e["request_id"], e["attempt"]) for e in events).items() if count > 1]
    known = {event["id"]: event for event in events}
    for attempt, billed in conduit.invoice().items():
        event = known[attempt]
        cost = round(float(event["cost_usd"]) * NANOS)
        assert billed.requests == 1
        if event["exactness"] == "exact":
            assert cost == billed.nanos, event
        elif event["exactness"] == "estimated":
            assert cost >= billed.nanos, event


async def test_kill_9_of_everything_loses_no_event_and_doubles_none(conduit: Installation) -> None:
    await _blows(conduit, [3.0, 1.7])


@pytest.mark.long
async def test_twenty_blows_at_random_moments(conduit: Installation) -> None:
    chance = random.Random(20)
    await _blows(conduit, [chance.uniform(1.0, 5.0) for _ in range(20)])


async def _blows(conduit: Installation, moments: list[float]) -> None:
    uncertain, slowest = 0, 0.0
    for after in moments:
        lost, seconds = await _kill_under_load(conduit, after=after)
        uncertain, slowest = uncertain + lost, max(slowest, seconds)
    print(
        f"J1: {len(moments)} x kill -9 of everything under load: lost 0, doubled 0, {uncertain} uncertain and held,"
        f" leases of dead workers back after {slowest:.0f} s at most"
    )
    assert slowest <= 90


async def _kill_under_load(conduit: Installation, *, after: float) -> tuple[int, float]:
    """200 requests, everything killed `after` seconds, started again: the books must be whole. Returns how many became
    uncertain, and after how many seconds nothing was leased any more."""
    run = uuid4().hex[:8]
    made = conduit.made("/keys", {"name": f"key-{run}", "budgets": [{"limit_usd": "5"}]})
    key, budget = made["key"], made["budgets"][0]["id"]
    before = [Client(f"before-{run}-{number:04d}", number % 2 == 1) for number in range(20)]
    during = [Client(f"during-{run}-{number:04d}", number % 2 == 1) for number in range(200)]
    async with _http(conduit) as http:
        for number, one in enumerate(before):
            await _call(http, key, one, **({"status": 503} if number % 5 == 0 else {}))
        assert [one.status for one in before] == [503 if number % 5 == 0 else 200 for number in range(20)]
        tasks = []
        for number, one in enumerate(during):
            # From some that end before the blow to some that would end long after it.
            faults = {"chunk_gap_ms": 5 + number, "tokens": 60} if one.stream else {"delay_ms": number * 40}
            tasks.append(asyncio.create_task(_call(http, key, one, **faults)))
        await asyncio.sleep(after)
        await asyncio.to_thread(wait_for, lambda: any(one.done for one in during))
        in_flight = sum(not one.done for one in during)
        blow = time.monotonic()
        await asyncio.to_thread(conduit.kill)
        await asyncio.gather(*tasks)
    assert 20 < in_flight < 200, "the blow must fall into the middle"
    await asyncio.to_thread(conduit.up)
    reached = {one.request_id for one in [*before, *during] if one.status}
    events = await asyncio.to_thread(conduit.settle, reached)
    _once_each(conduit, events)
    finals = {event["request_id"]: event for event in events}
    for one in [*before, *during]:
        # A settled record is with the kernel before a plain answer leaves; a stream's last frame may leave before it.
        if one.whole and (not one.stream or one.done < blow - 0.3):
            event = finals[one.request_id]
            assert (event["exactness"], event["outcome"], event["status"]) == ("exact", "ok", 200)
            assert one.stream or event["cost_usd"] == one.cost
    lost = [event for event in events if event["exactness"] == "uncertain" and f"-{run}-" in event["request_id"]]
    assert {event["request_id"] for event in lost} <= {
        one.request_id for one in during if one.done > blow - 0.3 or not one.done
    }
    open_streams = {one.request_id for one in during if one.stream and one.status == 200 and not one.done}
    assert open_streams
    assert open_streams <= {event["request_id"] for event in lost}
    assert {(event["outcome"], event["error_code"]) for event in lost} == {("error", "uncertain")}
    await asyncio.to_thread(conduit.verified)
    await asyncio.to_thread(wait_for, lambda: _period(conduit, budget)[1] == 0, 90)
    seconds = time.monotonic() - blow
    settled, _, uncertain, held = _period(conduit, budget)
    assert settled == sum(round(float(e["cost_usd"]) * NANOS) for e in events if f"-{run}-" in e["request_id"])
    assert uncertain == held > 0
    assert settled + uncertain <= 5 * NANOS
    return len(lost), seconds


def _period(conduit: Installation, budget: str) -> tuple[int, int, int, int]:
    """What is settled, leased and set aside of the budget, and the holds of its uncertain attempts, in nano-dollars."""
    with conduit.database() as session:
        row = session.execute(
            "SELECT settled_nanos, leased_nanos, uncertain_nanos, (SELECT coalesce(sum(held_nanos), 0)"
            " FROM keys_uncertainattempt u WHERE p.id = ANY(u.periods))::bigint FROM keys_budgetperiod p"
            " WHERE budget_id = %s",
            [budget],
        ).fetchone()
        assert row is not None
        return row


async def _refused(conduit: Installation, key: str) -> Client:
    """The first of new requests, one after another, that a stopping installation does not serve."""
    while True:
        late = Client(f"late-{uuid4().hex}", False)
        async with _http(conduit) as fresh:
            await _call(fresh, key, late)
        if late.status != 200:
            assert late.status in (0, 503)
            return late


async def test_sigterm_lets_streams_end_and_loses_nothing(conduit: Installation) -> None:
    key = _key(conduit)
    streams = [Client(f"drain-{number:04d}-{uuid4().hex[:6]}", True) for number in range(100)]
    async with _http(conduit) as http:
        tasks = [asyncio.create_task(_call(http, key, one, chunk_gap_ms=100, tokens=50)) for one in streams]
        await asyncio.to_thread(wait_for, lambda: all(one.body.count("data:") > 3 for one in streams))
        conduit.terminate()
        late = await _refused(conduit, key)
        assert not any(one.done for one in streams), "new requests are refused while streams go on"
        await asyncio.gather(*tasks)
    assert all(one.whole for one in streams)
    assert await asyncio.to_thread(conduit.ended) == 0
    await asyncio.to_thread(conduit.up)
    events = await asyncio.to_thread(conduit.settle, {one.request_id for one in streams})
    _once_each(conduit, events)
    finals = {event["request_id"]: event for event in events}
    for one in streams:
        event = finals[one.request_id]
        assert (event["exactness"], event["outcome"], event["output_tokens"]) == ("exact", "ok", 50)
    assert late.request_id not in finals or finals[late.request_id]["status"] == 503
    await asyncio.to_thread(conduit.verified)
    print(f"J2: SIGTERM with {len(streams)} streams: all ended whole, a new request got {late.status}, lost 0")


@pytest.mark.parametrize("speaker", SPEAKERS.values(), ids=list(SPEAKERS))
def test_a_client_that_leaves_closes_the_upstream_and_pays_for_what_it_got(
    conduit: Installation, speaker: Speaker
) -> None:
    key, request_id, got = _key(conduit), f"leaving-{uuid4().hex}", ""
    faults = {"x-request-id": request_id, "x-sandbox-tokens": "400", "x-sandbox-chunk-gap-ms": "20"}
    path, body = speaker.address("sandbox-echo", True), speaker.body("sandbox-echo", "x", True, None)
    with httpx.Client(trust_env=False, verify=False, timeout=20) as http:
        with http.stream("POST", conduit.url + path, json=body, headers=speaker.headers(key, faults)) as answer:
            assert answer.status_code == 200, answer.read()
            pieces = answer.iter_text()
            while len(speaker.parse(got.replace("\r\n", "\n").rpartition("\n\n")[0]).text.split()) < 12:
                got += next(pieces)
        left = time.time()
    (event,) = [event for event in conduit.settle({request_id}) if event["request_id"] == request_id]
    wait_for(lambda: conduit.invoice()[event["id"]].final)
    lines = [line for line in read_lines(conduit.home / "sandbox" / "invoice.jsonl") if line["attempt"] == event["id"]]
    assert max(_seconds(str(line["time"])) for line in lines) - left < 2, "the upstream went on"  # for eight seconds
    billed = conduit.invoice()[event["id"]]
    assert (event["outcome"], event["status"]) == ("cancelled", 499)
    assert event["output_tokens"] >= billed.units["output_tokens"] >= 12
    assert round(float(event["cost_usd"]) * NANOS) >= billed.nanos
    assert billed.units["output_tokens"] < 100, "far from all that was asked for"


def _seconds(text: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
