"""PostgreSQL stands still while requests run and settle: nothing is lost or doubled, nothing is overspent (J3)."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import suppress
from uuid import uuid4

import psutil
import pytest

from tests.end_to_end.installation import Installation
from tests.end_to_end.test_ends import NANOS, Client, _call, _http, _once_each, _period
from tests.harness.gateway import wait_for


def _postgres(conduit: Installation) -> list[psutil.Process]:
    """Whoever of its processes is PostgreSQL."""
    found = []
    for one in conduit.processes():
        with suppress(psutil.NoSuchProcess):
            if one.name().startswith("postgres"):
                found.append(one)
    return found


async def _warm(conduit: Installation, key: str, budget: str) -> None:
    """Requests over new connections until each process has asked for money of this budget, so that it knows the key."""

    def lenders() -> int:
        query = (
            "SELECT count(*) FROM keys_lease l JOIN keys_budgetperiod p ON p.id = l.period_id WHERE p.budget_id = %s"
        )
        with conduit.database() as session:
            row = session.execute(query, [budget]).fetchone()
        return row[0] if row else 0

    async with asyncio.timeout(60):
        while await asyncio.to_thread(lenders) < conduit.workers:
            async with _http(conduit) as http:
                warm = [Client(f"away-warm-{uuid4().hex}", False) for _ in range(20)]
                await asyncio.gather(*[_call(http, key, one) for one in warm])


async def _away(conduit: Installation, seconds: float) -> None:
    run = uuid4().hex[:8]
    made = conduit.made("/keys", {"name": f"away-{run}", "budgets": [{"limit_usd": "5"}]})
    key, budget = made["key"], made["budgets"][0]["id"]
    streams = [Client(f"away-{run}-stream-{number:03d}", True) for number in range(20)]
    small = [Client(f"away-{run}-small-{number:03d}", False) for number in range(30)]
    big = Client(f"away-{run}-big", False)
    slowest = 0.0
    await _warm(conduit, key, budget)
    async with _http(conduit) as http:
        tasks = [asyncio.create_task(_call(http, key, one, chunk_gap_ms=30, tokens=60)) for one in streams]
        await asyncio.to_thread(wait_for, lambda: all(one.body.count("data:") > 3 for one in streams), 30)
        frozen = _postgres(conduit)
        assert frozen
        try:
            for one in frozen:
                one.suspend()
            end = time.monotonic() + seconds
            for one in small:
                began = time.monotonic()
                await _call(http, key, one)
                slowest = max(slowest, time.monotonic() - began)
                await asyncio.sleep(max(0.0, (end - time.monotonic()) / len(small)))
            answer = await http.post(
                "/v1/chat/completions",
                json={"model": "sandbox-dear", "max_tokens": 50_000, "messages": [{"role": "user", "content": "x"}]},
                headers={"authorization": f"Bearer {key}", "x-request-id": big.request_id},
            )
            await asyncio.gather(*tasks)
        finally:
            for one in frozen:
                with suppress(psutil.NoSuchProcess):
                    one.resume()
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "budget_unavailable"), "more than was lent"
    assert "retry-after" in answer.headers
    assert all(one.whole for one in streams), "what ran goes on"
    assert {one.status for one in small} <= {200, 503}
    assert slowest < 30, "nobody waits for a database that stands still"
    served = [*streams, *[one for one in small if one.status == 200]]
    # What a worker refused because it could not even look the key up is nobody's event.
    events = await asyncio.to_thread(conduit.settle, {one.request_id for one in served})
    _once_each(conduit, events)
    finals = {event["request_id"]: event for event in events}
    assert all(finals[one.request_id]["status"] == 200 for one in served)
    assert all(
        finals[one.request_id]["status"] == 503 for one in small if one.status != 200 and one.request_id in finals
    )
    await asyncio.to_thread(conduit.verified)
    await asyncio.to_thread(wait_for, lambda: _period(conduit, budget)[1] == 0, 60)
    settled, _, uncertain, held = _period(conduit, budget)
    mine = [event for event in events if event["key"] == made["id"]]
    assert settled == sum(round(float(event["cost_usd"]) * NANOS) for event in mine)
    assert uncertain == held
    counts = Counter(one.status for one in small)
    print(
        f"J3: PostgreSQL still for {seconds:.0f} s with {len(streams)} streams: all ended whole, {counts[200]} served"
        f" from leases and {counts[503]} refused meanwhile in {slowest:.1f} s at most, lost 0, doubled 0"
    )


async def test_requests_run_and_settle_while_postgresql_stands_still(conduit: Installation) -> None:
    await _away(conduit, 4)


@pytest.mark.long
async def test_requests_run_and_settle_while_postgresql_stands_still_for_half_a_minute(conduit: Installation) -> None:
    await _away(conduit, 30)
