"""A raw key is found by a full digest, a bad one costs no query, and no change is overtaken by a stale read."""

from __future__ import annotations

import asyncio
import time
import uuid
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from conduit.core import raw_keys
from keys import authentication
from keys.authentication import STRANGER_SECONDS, KeyCache
from keys.entries import KeyEntry
from keys.peppers import Peppers

PEPPER = b"p" * 32


def entry_for(raw: str, **changes: Any) -> KeyEntry:
    entry = KeyEntry(
        id=uuid.uuid4(),
        public_id=raw[7:17],
        name="test",
        team_id=None,
        teams=(),
        digest=raw_keys.digest(raw, PEPPER),
        pepper_version=1,
        expires_at=None,
        model_rules=(),
        endpoint_rules=(),
        networks=(),
        max_output_tokens=None,
        rates=(),
        budgets=(),
        tags=(),
    )
    return msgspec.structs.replace(entry, **changes)


class Rows:
    """What the database would answer, and how often it was asked."""

    def __init__(self, *entries: KeyEntry) -> None:
        self.entries = {entry.public_id: entry for entry in entries}
        self.asked = 0

    async def load(self, public_id: str) -> KeyEntry | None:
        self.asked += 1
        found = self.entries.get(public_id)
        await asyncio.sleep(0)
        return found


def mint() -> str:
    return raw_keys.mint(raw_keys.VIRTUAL_KEY).raw.reveal()


async def test_a_known_key_is_asked_for_once() -> None:
    raw = mint()
    rows = Rows(entry_for(raw))
    cache = KeyCache(rows.load, {1: PEPPER})
    found = [await cache.find(raw) for _ in range(5)]
    assert all(entry is rows.entries[raw[7:17]] for entry in found)
    assert rows.asked == 1


async def test_the_right_public_id_with_another_secret_is_refused() -> None:
    raw = mint()
    head = raw[:17] + mint()[17:49]
    forged = head + raw_keys._checksum(head)
    assert raw_keys.public_id("vk", forged) == raw[7:17]
    rows = Rows(entry_for(raw))
    assert await KeyCache(rows.load, {1: PEPPER}).find(forged) is None


async def test_strangers_are_asked_for_once_in_a_while_and_their_memory_is_bounded() -> None:
    rows = Rows()
    cache = KeyCache(rows.load, {1: PEPPER})
    raw = mint()
    for _ in range(10):
        assert await cache.find(raw) is None
    assert rows.asked == 1
    assert STRANGER_SECONDS <= 10, "a key that appears without any change signal is found soon"
    rows.entries[raw[7:17]] = entry_for(raw)
    cache.drop()
    assert await cache.find(raw) is not None


async def test_an_expired_key_is_refused_from_the_cache_too(monkeypatch: pytest.MonkeyPatch) -> None:
    raw, end = mint(), time.time() + 60
    rows = Rows(entry_for(raw, expires_at=end))
    cache = KeyCache(rows.load, {1: PEPPER})
    assert await cache.find(raw) is not None
    monkeypatch.setattr(authentication, "time", SimpleNamespace(time=lambda: end, monotonic=time.monotonic))
    assert await cache.find(raw) is None
    assert rows.asked == 1


async def test_a_dropped_key_is_read_anew_and_others_stay() -> None:
    first, second = mint(), mint()
    rows = Rows(entry_for(first), entry_for(second))
    cache = KeyCache(rows.load, {1: PEPPER})
    one, _ = await cache.find(first), await cache.find(second)
    assert one is not None
    rows.entries.pop(one.public_id)
    cache.drop(one.id)
    assert await cache.find(first) is None
    assert await cache.find(second) is not None
    assert rows.asked == 3


async def test_a_revocation_during_the_read_is_not_overtaken_by_what_was_read() -> None:
    raw = mint()
    rows = Rows(entry_for(raw))
    cache = KeyCache(rows.load, {1: PEPPER})
    reading = asyncio.create_task(cache.find(raw))
    await asyncio.sleep(0)  # the row has been read, the answer is not yet back
    rows.entries.clear()
    cache.drop()
    assert await reading is None
    assert await cache.find(raw) is None


async def test_a_revocation_while_the_pepper_is_looked_up_is_not_overtaken() -> None:
    raw = mint()
    rows = Rows(entry_for(raw))
    asked, answer = asyncio.Event(), asyncio.Event()

    async def load_peppers() -> dict[int, bytes]:
        asked.set()
        await answer.wait()
        return {1: PEPPER}

    cache = KeyCache(rows.load, Peppers({}, load_peppers))
    reading = asyncio.create_task(cache.find(raw))
    await asked.wait()  # the row has been read, its pepper has not
    rows.entries.clear()
    cache.drop()
    answer.set()
    assert await reading is None
    assert await cache.find(raw) is None
    assert rows.asked == 2


async def test_only_a_change_that_concerns_the_key_makes_it_be_read_again() -> None:
    parent = uuid.uuid4()
    for change, asked in ((uuid.uuid4(), 1), ("own", 2), (parent, 2), (None, 2)):
        raw = mint()
        entry = entry_for(raw, parents=(parent,))
        rows = Rows(entry)
        cache = KeyCache(rows.load, {1: PEPPER})
        reading = asyncio.create_task(cache.find(raw))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert rows.asked == 1
        cache.drop(entry.id if change == "own" else change)  # type: ignore[arg-type]
        assert await reading is entry
        assert rows.asked == asked, change
