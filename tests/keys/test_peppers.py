"""A new version of the pepper: keys under older ones go on, and move when they are used."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from conduit.core import keks, keyring, raw_keys
from conduit.core.actor import SYSTEM
from conduit.core.models import Epoch
from keys import entries
from keys.authentication import KeyCache
from keys.issuing import create_key
from keys.models import KeySecret
from keys.peppers import AT_ONCE, Move, Peppers, repepper
from keys.rotation import rotate_key

pytestmark = pytest.mark.django_db


def issued(name: str = "app") -> str:
    return create_key(actor=SYSTEM, name=name)[1].reveal()


class Worker:
    """The part of a gateway that checks keys, asking the database itself."""

    def __init__(self) -> None:
        self.read = 0
        self.peppers = Peppers(keyring.purpose_keys("pepper"), self._load)
        self.rows: dict[str, entries.KeyEntry | None] = {}
        self.newest: dict[int, bytes] = {}
        self.keys = KeyCache(self._entry, self.peppers)

    async def _load(self) -> dict[int, bytes]:
        self.read += 1
        return self.newest

    async def _entry(self, public_id: str) -> entries.KeyEntry | None:
        return self.rows.get(public_id)

    def look(self, *raws: str) -> None:
        """Reads what the database holds now, as the synchronous side would."""
        self.newest = keyring.purpose_keys("pepper")
        self.rows = {raw[7:17]: entries.load(raw[7:17]) for raw in raws}


def version_of(raw: str) -> int:
    return KeySecret.objects.get(public_id=raw[7:17]).pepper_version


def test_a_used_secret_moves_to_the_newest_pepper_and_an_idle_one_stays() -> None:
    from asgiref.sync import async_to_sync

    used, idle = issued("used"), issued("idle")
    worker = Worker()
    keks.rotate_purpose("pepper", actor=SYSTEM)
    fresh = issued("fresh")
    assert (version_of(used), version_of(fresh)) == (1, 2)
    worker.look(used, idle, fresh)

    find = async_to_sync(worker.keys.find)
    assert find(fresh) is not None  # of a version that the worker did not know
    assert worker.read == 1
    assert find(used) is not None
    moves = worker.peppers.due()
    assert repepper(moves) == 1
    assert (version_of(used), version_of(idle)) == (2, 1)
    assert repepper(moves) == 0  # again changes nothing

    worker.look(used, idle, fresh)
    worker.keys.drop()
    assert all(find(raw) is not None for raw in (used, idle, fresh))
    assert [move.public_id for move in worker.peppers.due()] == [idle[7:17]]
    forged = raw_keys.mint(raw_keys.VIRTUAL_KEY).raw.reveal()
    assert find(forged) is None
    assert worker.read == 1


def test_what_moves_at_once_is_bounded_and_each_goes_once() -> None:
    peppers = Peppers({1: b"a" * 32, 2: b"b" * 32}, lambda: None)  # type: ignore[arg-type,return-value]
    raw = issued()
    entry = entries.load(raw[7:17])
    assert entry is not None
    for _ in range(3000):
        peppers.used(entry, raw)
    sizes = []
    while moves := peppers.due():
        sizes.append(len(moves))
    assert (max(sizes), sum(sizes)) == (AT_ONCE, 1000)


def test_a_secret_that_changed_meanwhile_is_not_overwritten() -> None:
    raw = issued()
    before = bytes(KeySecret.objects.get(public_id=raw[7:17]).digest)
    assert repepper([Move(raw[7:17], b"x" * 32, b"y" * 32, 2)]) == 0
    row = KeySecret.objects.get(public_id=raw[7:17])
    assert (bytes(row.digest), row.pepper_version) == (before, 1)


def test_a_batch_of_moves_is_one_statement_in_its_turn_and_makes_no_worker_forget_a_key() -> None:
    raws = [issued(name) for name in ("one", "two", "three")]
    keks.rotate_purpose("pepper", actor=SYSTEM)
    peppers = Peppers(keyring.purpose_keys("pepper"), lambda: None)  # type: ignore[arg-type,return-value]
    for raw in raws:
        entry = entries.load(raw[7:17])
        assert entry is not None
        peppers.used(entry, raw)
    before = Epoch.objects.get(id=1).keys
    with CaptureQueriesContext(connection) as asked:
        assert repepper(peppers.due()) == 3
    said = [one["sql"] for one in asked if "keys_keysecret" in one["sql"] or "FOR UPDATE" in one["sql"]]
    assert ["core_epoch" in said[0], "UPDATE keys_keysecret" in said[1], len(said)] == [True, True, 2]
    assert Epoch.objects.get(id=1).keys == before
    assert {version_of(raw) for raw in raws} == {2}
    key = KeySecret.objects.get(public_id=raws[0][7:17]).key
    rotate_key(key, actor=SYSTEM, overlap_seconds=0)  # the end of a secret is told as before
    assert Epoch.objects.get(id=1).keys > before
