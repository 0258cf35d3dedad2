"""What a page shows of rates and holds is what the workers' counters and leases say."""

from __future__ import annotations

import asyncio
import socket
import time
import uuid
from typing import Any

import pytest
from redis.asyncio import Redis

from conduit.core.actor import SYSTEM
from keys.budgets import current
from keys.entries import RateScope
from keys.held_now import held_now
from keys.issuing import create_key
from keys.limits import RateLimits, Taken
from keys.models import Budget, BudgetPeriod, Lease, OwnerKind, Worker
from keys.rates_now import RateNow, rates_now


def scope(rpm: int | None = None, tpm: int | None = None, parallel: int | None = None) -> RateScope:
    return RateScope("key", uuid.uuid4(), "test", rpm, tpm, parallel)


async def test_the_counters_of_every_worker_are_shown(valkey_url: str, patient: None) -> None:
    if time.time() % 60 > 50:  # a minute is a limit of its own
        await asyncio.sleep(60.5 - time.time() % 60)
    client = Redis.from_url(valkey_url)
    busy, idle = scope(rpm=16, tpm=160, parallel=8), scope(rpm=5)
    workers = RateLimits(client, "a"), RateLimits(client, "b")
    try:
        taken = []
        for worker in workers:
            answer = await worker.admit([busy], 10)
            assert isinstance(answer, Taken)
            taken.append((worker, answer))
        first, second = rates_now([busy, idle])
        assert (first.requests, first.tokens, first.parallel) == (2, 20, 2)
        assert (second.requests, second.tokens, second.parallel) == (0, 0, 0)
        for worker, answer in taken:
            worker.release(answer, 10)
            await worker.tick()
        assert rates_now([busy])[0].parallel == 0
    finally:
        for worker in workers:
            await worker.close()
        await client.aclose()


async def test_slots_of_a_worker_that_died_count_no_more(valkey_url: str, patient: None) -> None:
    client, limited = Redis.from_url(valkey_url), scope(parallel=8)
    await client.hset(f"conduit:par:{limited.id}", mapping={"dead": f"5 {int(time.time() - 1) * 1000}"})  # type: ignore[misc]
    await client.hset(f"conduit:par:{limited.id}", mapping={"live": f"3 {int(time.time() + 60) * 1000}"})  # type: ignore[misc]
    await client.aclose()
    assert rates_now([limited])[0].parallel == 3


def test_without_valkey_the_page_says_unknown_and_does_not_hang(settings: Any) -> None:
    limited = scope(rpm=5)
    with socket.socket() as silent:  # takes the connection and never answers
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        for url in ("redis://127.0.0.1:1/0", f"redis://127.0.0.1:{silent.getsockname()[1]}/0"):
            settings.VALKEY_URL = url
            assert rates_now([limited]) == [RateNow(limited, None, None, None)]
    assert rates_now([]) == []


def test_what_is_held_is_shown_by_worker_and_sums_up_to_the_budget_s(db: None) -> None:
    key, _ = create_key(actor=SYSTEM, name="app", budgets=[{"limit_usd": "5"}, {"limit_usd": "1", "window": "day"}])
    lifetime = Budget.objects.get(owner_id=key.id, window="lifetime")
    period = BudgetPeriod.objects.create(
        budget=lifetime, starts_at=lifetime.created_at, settled_nanos=30, leased_nanos=90, uncertain_nanos=7
    )
    for number, (granted, spent, held) in enumerate([(100, 30, 60), (20, 0, 20), (10, 10, 0)]):
        worker = Worker.objects.create(id=uuid.uuid4(), node="node-a", pid=number + 1)
        Lease.objects.create(worker=worker, period=period, granted_nanos=granted, spent_nanos=spent, held_nanos=held)
    found = held_now(current(OwnerKind.KEY, key.id))
    assert [(one.window, one.worker, one.lent_nanos, one.in_flight_nanos) for one in found] == [
        ("lifetime", "node-a 1", 70, 60),
        ("lifetime", "node-a 2", 20, 20),
        ("lifetime", "", 7, 0),
    ]
    assert sum(one.lent_nanos for one in found) == current(OwnerKind.KEY, key.id)[0].held_nanos


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page waits longer than it does for people."""
    monkeypatch.setattr("keys.rates_now.DEADLINE", 15.0)


@pytest.fixture(autouse=True)
def _valkey(settings: Any, valkey_url: str) -> None:
    settings.VALKEY_URL = valkey_url
