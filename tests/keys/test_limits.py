"""Rate limits are exact over workers: what several together let through never exceeds the limit (L12)."""

from __future__ import annotations

import asyncio
import socket
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from keys.entries import RateScope
from keys.limits import OverLimit, RateLimits, Taken
from keys.rate_counters import AWAY_SECONDS


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
    assert 0 < refused.retry_after <= 60.5


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
        limits, limited, asked = RateLimits(client, "a"), [scope(rpm=20)], 0
        borrow = limits._counters._borrow

        async def counted(**question: Any) -> Any:
            nonlocal asked
            asked += 1
            return await borrow(**question)

        limits._counters._borrow = counted  # type: ignore[assignment]
        began = time.monotonic()
        assert await admitted(limits, limited, 30) == 20
        assert 1 <= asked <= 1 + (time.monotonic() - began) / AWAY_SECONDS
        await client.aclose()


async def test_parallel_places_taken_at_once_are_all_given(valkey: Redis) -> None:
    limits, limited = RateLimits(valkey, "a"), [scope(parallel=3)]
    crowd = await asyncio.gather(*(limits.admit(limited, 1) for _ in range(8)))
    assert sum(isinstance(one, Taken) for one in crowd) == 3


SHORT = 3.0  # a minute of three seconds, where a test lives through its end


async def settled(*workers: RateLimits) -> None:
    """Each worker can be asked to give back: from then on it borrows more than it needs at once."""
    warm = [scope(rpm=1000)]
    for worker in workers:
        await worker.admit(warm, 1)
        async with asyncio.timeout(20):
            while not worker._counters._listening:  # noqa: ASYNC110 (only a look inside tells)
                await asyncio.sleep(0.01)


async def quiet() -> None:
    """What goes on behind the requests has ended: loans nobody waits for any more, and what is given back."""
    ours = asyncio.current_task()
    async with asyncio.timeout(20):
        while busy := [one for one in asyncio.all_tasks() if one is not ours and one.get_name() != "rate recalls"]:
            await asyncio.wait(busy)


async def beginning(window: float) -> None:
    await asyncio.sleep(window - time.time() % window + 0.02)


async def test_a_slice_that_another_worker_holds_is_given_back_before_anyone_is_refused(valkey: Redis) -> None:
    first, second = RateLimits(valkey, "a"), RateLimits(valkey, "b")
    await settled(first, second)
    requests, tokens, places = scope(rpm=160), scope(tpm=1600), scope(parallel=32)
    for limited in (requests, tokens, places):
        assert await admitted(first, [limited], 1) == 1
    assert first._meters[f"rpm:{requests.id}"].left == 9, "a sixteenth of what was free, less the one"
    assert first._slots[f"par:{places.id}"].held == 2
    assert await admitted(second, [requests], 200) == 159
    assert await admitted(second, [tokens], 40, tokens=100) == 15
    assert await admitted(second, [places], 40) == 31
    for worker in (first, second):
        await worker.close()


async def test_a_worker_that_cannot_be_asked_keeps_nothing(valkey: Redis) -> None:
    limits, limited = RateLimits(valkey, "a"), scope(rpm=160)
    assert await admitted(limits, [limited], 1) == 1  # its first loan, before it listens
    assert limits._meters[f"rpm:{limited.id}"].left == 0
    await limits.close()


async def test_once_the_limit_was_reached_what_comes_free_goes_back_at_once(valkey: Redis) -> None:
    first, second = RateLimits(valkey, "a"), RateLimits(valkey, "b")
    await settled(first, second)
    limited = [scope(tpm=1000)]
    taken = await first.admit(limited, 1000)
    assert isinstance(taken, Taken)
    assert isinstance(await second.admit(limited, 400), OverLimit)
    first.release(taken, 100)
    await quiet()  # nobody asks again, and no tick comes
    assert await valkey.hget(f"conduit:tpm:{limited[0].id}", "used") == b"100", "what was not used came back"
    assert isinstance(await second.admit(limited, 900), Taken)
    assert first._meters[f"tpm:{limited[0].id}"].left == 0
    for worker in (first, second):
        await worker.close()


async def test_a_client_that_waits_as_long_as_it_is_told_is_admitted(valkey: Redis) -> None:
    limits, limited = RateLimits(valkey, "a", window=SHORT), [scope(rpm=2)]
    await beginning(SHORT)
    assert await admitted(limits, limited, 2) == 2
    refused = await limits.admit(limited, 1)
    assert isinstance(refused, OverLimit)
    assert refused.retry_after is not None
    assert 0 < refused.retry_after <= SHORT + 0.5
    await asyncio.sleep(refused.retry_after)
    assert isinstance(await limits.admit(limited, 1), Taken)
    await limits.close()


async def test_tokens_owed_beyond_the_limit_are_paid_off_by_the_minutes_that_follow(valkey: Redis) -> None:
    first, second = RateLimits(valkey, "a", window=SHORT), RateLimits(valkey, "b", window=SHORT)
    limited = [scope(tpm=1000)]
    await beginning(SHORT)
    taken = await first.admit(limited, 10)
    assert isinstance(taken, Taken)
    first.release(taken, 2500)  # two minutes and a half
    await quiet()
    refused = await second.admit(limited, 600)
    assert isinstance(refused, OverLimit)
    assert refused.retry_after is not None
    assert SHORT < refused.retry_after <= 3 * SHORT + 0.5
    await beginning(SHORT)
    assert isinstance(await second.admit(limited, 600), OverLimit), "1500 are still owed"
    await beginning(SHORT)
    assert isinstance(await second.admit(limited, 600), OverLimit), "500 are still owed"
    assert isinstance(await second.admit(limited, 400), Taken)
    for worker in (first, second):
        await worker.close()


async def test_what_was_not_used_of_one_minute_is_no_gift_to_the_next(valkey: Redis) -> None:
    limits, limited = RateLimits(valkey, "a", window=SHORT), [scope(tpm=1000)]
    await beginning(SHORT)
    taken = await limits.admit(limited, 1000)
    assert isinstance(taken, Taken)
    await beginning(SHORT)
    assert await admitted(limits, limited, 1, tokens=600) == 1
    limits.release(taken, 0)
    assert await admitted(limits, limited, 1, tokens=600) == 0
    assert await admitted(limits, limited, 1, tokens=400) == 1
    await limits.close()


async def test_a_worker_ends_at_once_whenever_it_is_closed(valkey_url: str) -> None:
    """Also while its listener connects: the client may swallow a cancellation there."""
    for number in range(400):
        valkey = Redis.from_url(valkey_url)
        limits = RateLimits(valkey, "a")
        await limits.admit([scope(tpm=100)], 101)
        for _ in range(number % 8):
            await asyncio.sleep(0)
        async with asyncio.timeout(30):
            await limits.close()
        await valkey.aclose()


async def test_a_request_that_alone_is_more_than_the_limit_is_not_told_to_wait(valkey: Redis) -> None:
    limits = RateLimits(valkey, "a")
    refused = await limits.admit([scope(tpm=100)], 101)
    assert isinstance(refused, OverLimit)
    assert refused.retry_after is None
    await limits.close()


async def test_a_limit_that_is_lowered_holds_for_what_was_borrowed_and_what_runs(valkey: Redis) -> None:
    limits = RateLimits(valkey, "a")
    await settled(limits)
    high = scope(rpm=1600, parallel=32)
    assert await admitted(limits, [high], 4) == 4
    low = RateScope("key", high.id, "test", 5, None, None)
    assert await admitted(limits, [low], 4) == 1
    few = RateScope("key", high.id, "test", None, None, 5)
    assert await admitted(limits, [few], 4) == 1, "four run already"
    await limits.close()


async def test_a_client_that_leaves_while_it_is_decided_takes_nothing(valkey: Redis) -> None:
    limits, limited = RateLimits(valkey, "a"), [scope(rpm=4, tpm=400)]
    for _ in range(4):
        leaving = asyncio.create_task(limits.admit(limited, 100))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
    await quiet()
    assert await admitted(limits, limited, 6, tokens=100) == 4
    await limits.close()


@pytest.mark.parametrize("what", ["rpm", "par"])
async def test_every_worker_answers_a_recall_so_that_a_refusal_need_not_wait_for_its_bound(
    valkey: Redis, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keys.rate_counters.RECALL_SECONDS", 60.0)
    workers = [RateLimits(valkey, f"w{number}") for number in range(3)]
    await settled(*workers)
    limited = scope(rpm=4) if what == "rpm" else scope(parallel=4)
    async with asyncio.timeout(20):
        assert sum([await admitted(worker, [limited], 2) for worker in workers]) == 4
    state = await valkey.hgetall(f"conduit:rpm:{limited.id}" if what == "rpm" else f"conduit:par:{limited.id}:recall")
    assert int(state[b"asked_of"]) == 3
    assert state[b"answers"] == state[b"asked_of"]
    for worker in workers:
        await worker.close()
