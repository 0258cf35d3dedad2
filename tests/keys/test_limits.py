"""Rate limits are exact over workers: what several together let through never exceeds the limit (L12)."""

from __future__ import annotations

import asyncio
import socket
import time
import uuid
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from keys.entries import RateScope
from keys.limits import OverLimit, RateLimits, Taken


def scope(rpm: int | None = None, tpm: int | None = None, parallel: int | None = None) -> RateScope:
    return RateScope("key", uuid.uuid4(), "test", rpm, tpm, parallel)


@pytest.fixture
async def valkey(valkey_url: str) -> AsyncIterator[Redis]:
    client = Redis.from_url(valkey_url)
    yield client
    await client.aclose()


@pytest.fixture(autouse=True)
async def early_in_the_minute() -> None:
    """A test must not straddle two minutes: each is a limit of its own."""
    if time.time() % 60 > 50:
        await asyncio.sleep(60.5 - time.time() % 60)


async def admitted(limits: RateLimits, scopes: list[RateScope], times: int, tokens: int = 1) -> int:
    results = [await limits.admit(scopes, tokens) for _ in range(times)]
    return sum(isinstance(result, Taken) for result in results)


async def test_four_workers_together_admit_exactly_the_limit(valkey: Redis) -> None:
    workers = [RateLimits(valkey, f"w{number}") for number in range(4)]
    limited = [scope(rpm=500)]
    counts = await asyncio.gather(*(admitted(worker, limited, 250) for worker in workers))
    assert sum(counts) <= 500
    assert sum(counts) >= 475, "stranded slices may refuse at most 5 % needlessly"


async def test_an_idle_workers_slice_comes_back(valkey: Redis) -> None:
    first, second = RateLimits(valkey, "a"), RateLimits(valkey, "b")
    limited = [scope(rpm=160)]
    assert await admitted(first, limited, 1) == 1
    await asyncio.sleep(1.1)
    await first.tick()
    assert await admitted(second, limited, 200) == 159


async def test_a_small_limit_is_exact_and_says_when_to_come_back(valkey: Redis) -> None:
    limits = RateLimits(valkey, "a")
    limited = [scope(rpm=3)]
    assert await admitted(limits, limited, 3) == 3
    refused = await limits.admit(limited, 1)
    assert isinstance(refused, OverLimit)
    assert (refused.what, refused.limit) == ("requests", 3)
    assert 0 < refused.retry_after <= 60


async def test_zero_admits_nothing(valkey: Redis) -> None:
    assert await admitted(RateLimits(valkey, "a"), [scope(rpm=0)], 3) == 0
    assert await admitted(RateLimits(valkey, "a"), [scope(parallel=0)], 3) == 0


async def test_tokens_are_corrected_to_what_was_used(valkey: Redis) -> None:
    limits = RateLimits(valkey, "a")
    limited = [scope(tpm=1000)]
    taken = await limits.admit(limited, 900)
    assert isinstance(taken, Taken)
    assert isinstance(await limits.admit(limited, 900), OverLimit)
    limits.release(taken, 100)
    assert isinstance(await limits.admit(limited, 900), Taken)
    assert isinstance(await limits.admit(limited, 1), OverLimit)


async def test_tokens_that_were_underestimated_are_owed(valkey: Redis) -> None:
    limits = RateLimits(valkey, "a")
    limited = [scope(tpm=1000)]
    taken = await limits.admit(limited, 10)
    assert isinstance(taken, Taken)
    limits.release(taken, 990)
    assert isinstance(await limits.admit(limited, 11), OverLimit)
    assert isinstance(await limits.admit(limited, 10), Taken)


async def test_parallel_requests_are_counted_over_workers_and_given_back(valkey: Redis) -> None:
    first, second = RateLimits(valkey, "a"), RateLimits(valkey, "b")
    limited = [scope(parallel=3)]
    running = [await first.admit(limited, 1) for _ in range(2)]
    assert await admitted(second, limited, 3) == 1
    assert isinstance(await first.admit(limited, 1), OverLimit)
    for taken in running:
        assert isinstance(taken, Taken)
        first.release(taken, 1)
    await first.tick()
    assert await admitted(second, limited, 3) == 2


async def test_a_refusal_by_the_second_scope_takes_nothing_from_the_first(valkey: Redis) -> None:
    limits = RateLimits(valkey, "a")
    key, team = scope(rpm=2, parallel=2), scope(rpm=0)
    assert isinstance(await limits.admit([key, team], 1), OverLimit)
    assert await admitted(limits, [key], 3) == 2


async def test_without_valkey_a_worker_enforces_the_limit_by_itself() -> None:
    nowhere = Redis.from_url("redis://127.0.0.1:1", socket_connect_timeout=0.2)
    limits = RateLimits(nowhere, "a")
    assert await admitted(limits, [scope(rpm=5)], 10) == 5
    assert await admitted(limits, [scope(parallel=2)], 10) == 2
    await nowhere.aclose()


async def test_a_valkey_that_hangs_is_waited_for_once_a_second_and_the_limit_still_holds() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # connects, and never answers
        port = silent.getsockname()[1]
        client = Redis(host="127.0.0.1", port=port, socket_timeout=0.25, retry=Retry(NoBackoff(), 0))
        limits, limited = RateLimits(client, "a"), [scope(rpm=20)]
        began = time.monotonic()
        assert await admitted(limits, limited, 30) == 20
        assert time.monotonic() - began < 2, "twenty requests would wait five seconds if each asked"
        await client.aclose()


async def test_parallel_places_taken_at_once_are_all_given(valkey: Redis) -> None:
    limits, limited = RateLimits(valkey, "a"), [scope(parallel=3)]
    crowd = await asyncio.gather(*(limits.admit(limited, 1) for _ in range(8)))
    assert sum(isinstance(one, Taken) for one in crowd) == 3
