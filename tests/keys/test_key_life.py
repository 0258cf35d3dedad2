"""Rotation with overlap and its ends over the API: what each step does, and what it says out of step."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connections

from conduit.access.models import Role
from conduit.core import raw_keys
from conduit.core.actor import SYSTEM, Actor
from conduit.core.clock import now
from conduit.core.errors import NotFound
from conduit.core.models import AuditEntry
from keys import entries, issuing, rotation, tasks
from keys.errors import OutOfStep
from keys.models import Budget, BudgetPeriod, KeySecret, VirtualKey
from keys.teams import create_team
from tests.access.clients import ApiClient, client_of, faults
from tests.keys.life import alive, detail, issue, past, rotate, states


def test_a_rotation_keeps_the_id_and_everything_agreed_and_spent(owner: ApiClient) -> None:
    created = issue(owner, budgets=[{"limit_usd": "5.00"}], rpm=60, tags=["prod"], models=["a*"])
    budget = Budget.objects.get(owner_id=created["id"])
    BudgetPeriod.objects.create(budget=budget, starts_at=budget.created_at, settled_nanos=1_234_000_000)
    before = owner.get(f"/keys/{created['id']}").json()
    rotated = rotate(owner, created)
    assert rotated["id"] == created["id"]
    assert rotated["key"] != created["key"]
    assert raw_keys.public_id("vk", rotated["key"])
    assert rotated["hint"].startswith(rotated["key"][:17])
    after = owner.get(f"/keys/{created['id']}").json()
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {"hint", "rotating_until"}
    assert after["budgets"][0]["settled_usd"] == "1.234"
    assert alive(created["key"])
    assert alive(rotated["key"])
    old, new = entries.load(created["key"][7:17]), entries.load(rotated["key"][7:17])
    assert old is not None
    assert new is not None
    assert old.rotating
    assert new.rotating
    assert old.budgets == new.budgets
    assert old.id == new.id
    assert new.expires_at is None
    assert old.expires_at is not None
    assert abs(old.expires_at - (now().timestamp() + rotation.OVERLAP)) < 60


def test_the_old_secret_ends_with_the_overlap_and_is_destroyed_by_the_job(owner: ApiClient) -> None:
    created = issue(owner)
    rotated = rotate(owner, created, overlap_seconds=600)
    past(created)
    assert not alive(created["key"])
    assert alive(rotated["key"])
    assert states(owner, created) == [(2, "active"), (1, "retired")]
    old = KeySecret.objects.get(public_id=created["key"][7:17])
    assert bytes(old.digest) != b""
    tasks.end_overlaps()
    tasks.end_overlaps()
    old.refresh_from_db()
    assert bytes(old.digest) == b""
    assert old.destroyed_at is not None
    assert AuditEntry.objects.filter(object_id=created["id"], action="key.destroy_secret").count() == 1
    assert states(owner, created) == [(2, "active"), (1, "retired")]  # its row stays as history
    loaded = entries.load(rotated["key"][7:17])
    assert loaded is not None
    assert not loaded.rotating


def test_without_an_overlap_the_old_secret_ends_at_once(owner: ApiClient) -> None:
    created = issue(owner)
    rotated = rotate(owner, created, overlap_seconds=0)
    assert not alive(created["key"])
    assert alive(rotated["key"])
    assert bytes(KeySecret.objects.get(public_id=created["key"][7:17]).digest) == b""
    assert owner.get(f"/keys/{created['id']}").json()["rotating_until"] is None


def test_a_third_rotation_is_a_conflict_that_names_the_state_and_the_ways_on(owner: ApiClient) -> None:
    created = issue(owner)
    rotate(owner, created)
    said = detail(owner.post(f"/keys/{created['id']}/rotate", {}))
    for word in ("under way since", "v2 is active", "v1 works until", "Finish", "extend", '"replace": true'):
        assert word in said
    assert len(rotation.live_secrets(VirtualKey.objects.get(id=created["id"]), now())) == 2


def test_a_lost_reply_is_repeated_by_the_idempotency_key_with_the_same_secret(owner: ApiClient) -> None:
    created = issue(owner)
    first = owner.post(f"/keys/{created['id']}/rotate", {}, Idempotency_Key="rotate-1")
    again = owner.post(f"/keys/{created['id']}/rotate", {}, Idempotency_Key="rotate-1")
    assert first.status_code == again.status_code == 200
    assert first.json()["key"] == again.json()["key"]
    assert states(owner, created) == [(2, "active"), (1, "retiring")]


def test_a_lost_reply_without_one_is_made_good_by_another_secret_in_its_place(owner: ApiClient) -> None:
    created = issue(owner)
    unseen = rotate(owner, created, overlap_seconds=3600)
    until = owner.get(f"/keys/{created['id']}").json()["rotating_until"]
    seen = rotate(owner, created, replace=True)
    assert not alive(unseen["key"])
    assert alive(created["key"])
    assert alive(seen["key"])
    assert seen["rotating_until"] == until  # the callers' time to move is as it was
    assert states(owner, created) == [(3, "active"), (2, "retired"), (1, "retiring")]


def test_finish_ends_the_old_secret_and_can_be_repeated(owner: ApiClient) -> None:
    created = issue(owner)
    assert "v1 is the only live secret" in detail(owner.post(f"/keys/{created['id']}/finish"))
    rotated = rotate(owner, created)
    for _ in range(2):
        assert owner.post(f"/keys/{created['id']}/finish").status_code == 200
    assert not alive(created["key"])
    assert alive(rotated["key"])
    assert AuditEntry.objects.filter(object_id=created["id"], action="key.finish_rotation").count() == 1


def test_extend_moves_the_end_away_and_never_nearer(owner: ApiClient) -> None:
    created = issue(owner)
    path = f"/keys/{created['id']}/extend"
    assert "No rotation is under way" in detail(owner.post(path, {"overlap_seconds": 60}))
    first = rotate(owner, created, overlap_seconds=600)["rotating_until"]
    assert faults(owner.post(path, {"overlap_seconds": 60})) == {"overlap_seconds": "too_short"}
    assert owner.post(path, {"overlap_seconds": 7200}).json()["rotating_until"] > first
    past(created)
    assert "What has ended stays so" in detail(owner.post(path, {"overlap_seconds": 60}))


@pytest.mark.parametrize("overlap", [-1, True, "60", 1.5, 90 * 86_400 + 1, None])
def test_an_overlap_is_whole_seconds_within_its_bounds(owner: ApiClient, overlap: Any) -> None:
    created = issue(owner)
    answer = owner.post(f"/keys/{created['id']}/rotate", {"overlap_seconds": overlap})
    assert set(faults(answer)) == {"overlap_seconds"}
    assert states(owner, created) == [(1, "active")]


def test_a_revoked_or_expired_key_is_not_rotated_and_a_disabled_one_stays_disabled(owner: ApiClient) -> None:
    created = issue(owner)
    owner.post(f"/keys/{created['id']}/disable")
    rotated = rotate(owner, created)
    assert rotated["state"] == "disabled"
    assert not alive(rotated["key"])
    owner.post(f"/keys/{created['id']}/enable")
    assert alive(rotated["key"])
    assert owner.post(f"/keys/{created['id']}/expire").json()["state"] == "expired"
    assert "expired at" in detail(owner.post(f"/keys/{created['id']}/rotate", {"replace": True}))
    owner.post(f"/keys/{created['id']}/revoke")
    for step, body in (
        ("rotate", {}),
        ("finish", None),
        ("extend", {"overlap_seconds": 9_999_999 // 2}),
        ("expire", None),
    ):
        assert "revoked" in detail(owner.post(f"/keys/{created['id']}/{step}", body))


def test_each_step_is_audited_without_any_secret(owner: ApiClient) -> None:
    created = issue(owner)
    rotated = rotate(owner, created, overlap_seconds=600)
    replaced = rotate(owner, created, replace=True)
    owner.post(f"/keys/{created['id']}/extend", {"overlap_seconds": 7200})
    owner.post(f"/keys/{created['id']}/finish")
    owner.post(f"/keys/{created['id']}/expire")
    rows = list(AuditEntry.objects.filter(object_id=created["id"]).order_by("id"))
    assert [row.action for row in rows] == [
        "key.create",
        "key.rotate",
        "key.replace_secret",
        "key.extend_rotation",
        "key.finish_rotation",
        "key.expire",
    ]
    written = "".join(f"{row.before}{row.after}" for row in rows)
    for raw in (created["key"], rotated["key"], replaced["key"]):
        assert raw[17:49] not in written


def test_an_expired_key_works_again_after_a_later_end(owner: ApiClient) -> None:
    created = issue(owner)
    for _ in range(2):
        assert owner.post(f"/keys/{created['id']}/expire").json()["state"] == "expired"
    assert not alive(created["key"])
    owner.patch(f"/keys/{created['id']}", {"expires_at": "2999-01-01T00:00:00Z"})
    assert alive(created["key"])


def test_versions_tell_an_analyst_states_only_and_another_team_nothing(owner: ApiClient, analyst: ApiClient) -> None:
    created = issue(owner)
    rotate(owner, created)
    rows = analyst.get(f"/keys/{created['id']}/versions").json()["data"]
    assert rows == [{"number": 2, "state": "active"}, {"number": 1, "state": "retiring"}]
    other = create_team(actor=SYSTEM, name="other")
    stranger = client_of(Role.OPERATOR, other.id)
    assert stranger.get(f"/keys/{created['id']}/versions").status_code == 404
    assert stranger.post(f"/keys/{created['id']}/rotate", {}).status_code == 404


def test_of_two_who_saw_the_same_secret_the_second_is_refused_and_the_first_s_lives(owner: ApiClient) -> None:
    created = issue(owner)
    first = rotate(owner, created, overlap_seconds=0, expected=1)
    path = f"/keys/{created['id']}"
    assert "v2, not v1" in detail(owner.post(f"{path}/rotate", {"overlap_seconds": 0, "expected": 1}))
    assert "v2, not v1" in detail(owner.post(f"{path}/replace", {"expected": 1}))
    assert alive(first["key"])
    second = rotate(owner, created, expected=2)
    third = rotate(owner, created, replace=True, expected=3)
    assert "v4, not v3" in detail(owner.post(f"{path}/rotate", {"replace": True, "expected": 3}))
    assert [alive(one["key"]) for one in (first, second, third)] == [True, False, True]
    assert owner.post(f"{path}/replace", {"expected": 4}).status_code == 200


def test_a_key_that_is_deleted_meanwhile_is_not_found_and_the_job_goes_on(
    owner: ApiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, other = issue(owner), issue(owner)
    row = VirtualKey.objects.get(id=gone["id"])
    for key in (gone, other):
        rotate(owner, key)
        past(key)
    lock = rotation.locked

    def overtaken(key: VirtualKey, actor: Actor) -> VirtualKey:
        VirtualKey.objects.filter(id=gone["id"]).delete()
        return lock(key, actor)

    monkeypatch.setattr(rotation, "locked", overtaken)
    assert rotation.destroy_ended() == 1
    with pytest.raises(NotFound):
        issuing.revoke_key(row, actor=SYSTEM)


@pytest.mark.django_db(transaction=True)
def test_of_many_rotations_at_once_one_succeeds() -> None:
    key, _ = issuing.create_key(actor=SYSTEM, name="app")
    together = threading.Barrier(4)

    def visit(_: int) -> str:
        together.wait(20)
        try:
            rotation.rotate_key(key, actor=SYSTEM)
        except OutOfStep as error:
            return str(error)
        finally:
            connections.close_all()
        return ""

    with ThreadPoolExecutor(4) as threads:
        said = sorted(threads.map(visit, range(4)))
    assert said[0] == ""
    assert all("under way since" in text for text in said[1:])
    assert len(rotation.live_secrets(key, now())) == 2
