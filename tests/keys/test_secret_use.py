"""Who still uses which secret of a key: noted by workers, written in batches, shown for an hour, kept for a day."""

from __future__ import annotations

from datetime import timedelta

from conduit.core.clock import now
from conduit.core.models import Epoch
from keys import entries, tasks, use
from keys.models import KeySecret, SecretUse
from tests.access.clients import ApiClient
from tests.keys.life import issue, rotate


def notes(*calls: tuple[str, str]) -> None:
    """Requests with these raw keys from these addresses, as a worker notes and writes them."""
    uses = use.Uses()
    for raw, address in calls:
        entry = entries.load(raw[7:17])
        assert entry is not None
        uses.note(entry, address)
    taken = uses.take(0.0)
    assert taken is not None
    use.write(taken)


def test_who_still_uses_the_old_secret_is_seen(owner: ApiClient) -> None:
    created = issue(owner)
    notes((created["key"], "192.0.2.1"))
    assert not SecretUse.objects.exists()  # one secret: nothing to tell apart
    assert owner.get(f"/keys/{created['id']}").json()["last_used_at"] is not None
    rotated = rotate(owner, created)
    notes(*[(created["key"], "192.0.2.1")] * 3, (created["key"], "2001:db8::9"), (rotated["key"], "192.0.2.1"))
    notes((created["key"], "192.0.2.1"))
    new, old = owner.get(f"/keys/{created['id']}/versions").json()["data"]
    assert (new["requests_last_hour"], old["requests_last_hour"]) == (1, 5)
    assert [(one["address"], one["requests"]) for one in old["callers"]] == [("192.0.2.1", 4), ("2001:db8::9", 1)]
    assert old["last_used_at"] is not None


def test_counts_are_bounded_however_many_addresses_call(owner: ApiClient) -> None:
    created = issue(owner)
    rotate(owner, created)
    for turn in range(3):
        notes(*[(created["key"], f"2001:db8::{turn}:{n:x}") for n in range(use.ADDRESSES)])
    callers = owner.get(f"/keys/{created['id']}/versions").json()["data"][1]["callers"]
    assert len(callers) <= 2 * (use.ADDRESSES + 1)  # two slices where five minutes ended meanwhile
    assert sum(one["requests"] for one in callers) == 3 * use.ADDRESSES
    assert "" in {one["address"] for one in callers}


def test_writing_uses_drops_no_key_from_the_workers_caches(owner: ApiClient) -> None:
    created = issue(owner)
    rotate(owner, created)
    before = Epoch.objects.get(id=1).keys
    notes((created["key"], "192.0.2.1"))
    assert KeySecret.objects.exclude(last_used_at=None).count() == 1
    assert Epoch.objects.get(id=1).keys == before


def test_a_last_use_is_written_once_a_minute_and_what_failed_again() -> None:
    entry = type("Entry", (), {"secret_id": 7, "rotating": False})()
    uses = use.Uses()
    uses.note(entry, "")
    first = uses.take(0.0)
    assert first is not None
    assert first.used == [7]
    uses.note(entry, "")
    assert uses.take(30.0) is None
    uses.put_back(first)
    assert uses.take(31.0) == first
    uses.note(entry, "")
    assert uses.take(31.0 + use.AGAIN) == first


def test_counts_older_than_a_day_are_forgotten(owner: ApiClient) -> None:
    created = issue(owner)
    rotate(owner, created)
    notes((created["key"], "192.0.2.1"))
    SecretUse.objects.update(slice_at=now() - timedelta(days=1, minutes=1))
    tasks.end_overlaps()
    assert not SecretUse.objects.exists()
