"""Rotation with overlap, ends, kinds and parents over the API: what each step does, and what it says out of step."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections

from conduit.access.models import Role, User
from conduit.access.users import create_user, update_user
from conduit.core import raw_keys
from conduit.core.actor import SYSTEM, Actor
from conduit.core.clock import now
from conduit.core.errors import NotFound
from conduit.core.models import AuditEntry, Epoch
from keys import entries, issuing, rotation, tasks, use
from keys.errors import OutOfStep
from keys.models import Budget, BudgetPeriod, KeySecret, SecretUse, VirtualKey
from keys.teams import create_team
from tests.access.clients import ApiClient, client_of, faults


def issue(client: ApiClient, **body: Any) -> dict[str, Any]:
    response = client.post("/keys", {"name": "app", **body})
    assert response.status_code == 201, response.content
    answer: dict[str, Any] = response.json()
    return answer


def rotate(client: ApiClient, key: dict[str, Any], **body: Any) -> dict[str, Any]:
    response = client.post(f"/keys/{key['id']}/rotate", body)
    assert response.status_code == 200, response.content
    answer: dict[str, Any] = response.json()
    return answer


def alive(raw: str) -> bool:
    """Whether the data plane would take it."""
    entry = entries.load(raw[7:17])
    return entry is not None and entry.public_id == raw[7:17]


def detail(response: Any) -> str:
    assert response.status_code == 409, response.content
    text: str = response.json()["detail"]
    return text


def states(client: ApiClient, key: dict[str, Any]) -> list[tuple[int, str]]:
    rows = client.get(f"/keys/{key['id']}/versions").json()["data"]
    return [(row["number"], row["state"]) for row in rows]


def past(key: dict[str, Any], **fields: Any) -> None:
    """As if the overlap had ended."""
    KeySecret.objects.filter(key=key["id"], destroyed_at=None).exclude(expires_at=None).update(
        expires_at=now() - timedelta(seconds=1), **fields
    )


# --- rotation


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


# --- what is seen of their use


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


# --- personal keys


@pytest.fixture
def person(db: None) -> Callable[..., User]:
    def make(name: str, role: str = Role.OPERATOR, *teams: Any) -> User:
        ids = [team.id for team in teams]
        user, _ = create_user(actor=SYSTEM, email=f"{name}@example.org", role=role, in_teams=ids)
        return user

    return make


def test_a_personal_key_stops_with_its_user_and_comes_back(owner: ApiClient, person: Callable[..., User]) -> None:
    alice = person("alice")
    created = issue(owner, kind="personal", user="Alice@Example.org")
    assert (created["kind"], created["user"], created["user_email"]) == ("personal", str(alice.id), alice.email)
    assert alive(created["key"])
    before = Epoch.objects.get(id=1).keys
    update_user(alice, actor=SYSTEM, active=False)
    assert Epoch.objects.get(id=1).keys > before  # workers are told
    assert not alive(created["key"])
    assert "deactivated" in owner.get(f"/keys/{created['id']}").json()["stopped"]
    update_user(alice, actor=SYSTEM, active=True)
    assert alive(created["key"])


def test_a_personal_key_narrows_with_the_teams_and_role_of_its_user(
    owner: ApiClient, person: Callable[..., User]
) -> None:
    search, support = (create_team(actor=SYSTEM, name=name) for name in ("search", "support"))
    alice = person("alice", Role.OPERATOR, search)
    created = issue(owner, kind="personal", user=str(alice.id), team="search")
    assert alive(created["key"])
    before = Epoch.objects.get(id=1).keys
    update_user(alice, actor=SYSTEM, teams=[support.id])
    assert Epoch.objects.get(id=1).keys > before
    assert not alive(created["key"])
    update_user(alice, actor=SYSTEM, role=Role.ADMIN)  # an admin is of all teams
    assert alive(created["key"])
    update_user(alice, actor=SYSTEM, role=Role.ANALYST)
    assert not alive(created["key"])


def test_who_is_taken_out_of_the_only_team_loses_its_personal_keys(
    owner: ApiClient, person: Callable[..., User]
) -> None:
    search = create_team(actor=SYSTEM, name="search")
    alice, bob = person("alice", Role.OPERATOR, search), person("bob")
    created = issue(owner, kind="personal", user=str(alice.id), team="search")
    update_user(alice, actor=SYSTEM, teams=[])
    assert not alive(created["key"])
    refused = owner.post("/keys", {"name": "app", "kind": "personal", "user": str(bob.id), "team": "search"})
    assert faults(refused) == {"user": "out_of_team"}
    assert "Put the user into it" in refused.content.decode()
    update_user(alice, actor=SYSTEM, teams=[search.id])
    assert alive(created["key"])


def test_kind_and_user_belong_together(owner: ApiClient, person: Callable[..., User]) -> None:
    search = create_team(actor=SYSTEM, name="search")
    person("alice", Role.OPERATOR, search)
    bob = person("bob")
    update_user(bob, actor=SYSTEM, active=False)
    wrong: list[tuple[dict[str, Any], dict[str, str]]] = [
        ({"kind": "personal"}, {"user": "required"}),
        ({"user": "alice@example.org"}, {"user": "unexpected"}),
        ({"kind": "robot"}, {"kind": "invalid_choice"}),
        ({"kind": "personal", "user": "nobody@example.org"}, {"user": "not_found"}),
        ({"kind": "personal", "user": "bob@example.org"}, {"user": "inactive"}),
        ({"kind": "personal", "user": "alice@example.org"}, {"user": "out_of_team"}),
    ]
    for body, blamed in wrong:
        assert faults(owner.post("/keys", {"name": "app", **body})) == blamed, body
    created = issue(owner, kind="personal", user="alice@example.org", team="search")
    path = f"/keys/{created['id']}"
    assert faults(owner.patch(path, {"team": None})) == {"user": "out_of_team"}
    assert faults(owner.patch(path, {"user": None})) == {"user": "required"}
    changed = owner.patch(path, {"kind": "service"}).json()
    assert (changed["kind"], changed["user"]) == ("service", None)


def test_who_may_not_read_users_makes_personal_keys_for_nobody_else(person: Callable[..., User]) -> None:
    person("alice")
    operator = client_of(Role.OPERATOR)
    for body in ({"kind": "personal"}, {}, {"kind": "personal", "rpm": -1}):
        answers = [
            faults(operator.post("/keys", {"name": "app", **body, "user": email}))
            for email in ("alice@example.org", "nobody@example.org")
        ]
        assert answers[0] == answers[1], body
        assert answers[0]["user"] == "not_found"


# --- delegation


def test_a_child_can_do_no_more_than_its_parent(owner: ApiClient) -> None:
    team = create_team(actor=SYSTEM, name="search", models=["a*", "b*"])
    parent = issue(
        owner,
        name="parent",
        team="search",
        models=["a1", "a2", "b1"],
        endpoints=["chat"],
        ip_allowlist=["10.0.0.0/8"],
        max_output_tokens=100,
        rpm=10,
        expires_at="2998-01-01T00:00:00Z",
        budgets=[{"limit_usd": "5.00"}],
    )
    child = issue(owner, parent="parent", models=["a*", "z"], max_output_tokens=500, budgets=[{"limit_usd": "50.00"}])
    assert (child["parent"], child["parent_name"], child["team"]) == (parent["id"], "parent", str(team.id))
    entry = entries.load(child["key"][7:17])
    assert entry is not None
    assert [model for model in ("a1", "a2", "a3", "b1", "z") if entry.may_use_model(model)] == ["a1", "a2"]
    assert entry.may_use_endpoint("chat")
    assert not entry.may_use_endpoint("embeddings")
    assert entry.may_come_from("10.1.2.3")
    assert not entry.may_come_from("192.0.2.1")
    assert entry.max_output_tokens == 100
    assert entry.expires_at is not None
    assert ("parent", 10) in {(scope.kind, scope.rpm) for scope in entry.rates}
    assert {(one.owner_kind, one.limit_nanos) for one in entry.budgets} == {("key", 50 * 10**9), ("parent", 5 * 10**9)}


@pytest.mark.parametrize(("stop", "start"), [("disable", "enable"), ("expire", None), ("revoke", None)])
def test_a_parent_that_is_stopped_stops_everything_below_it(owner: ApiClient, stop: str, start: str | None) -> None:
    top = issue(owner, name="top")
    middle = issue(owner, name="middle", parent="top")
    low = issue(owner, name="low", parent=middle["id"])
    assert alive(low["key"])
    owner.post(f"/keys/{top['id']}/{stop}")
    assert not alive(middle["key"])
    assert not alive(low["key"])
    read = owner.get(f"/keys/{low['id']}").json()
    assert read["state"] == "active"
    assert read["stopped"].startswith("Its parent top ")
    if start:
        owner.post(f"/keys/{top['id']}/{start}")
        assert alive(low["key"])


def test_no_key_stands_above_itself_or_too_deep(owner: ApiClient) -> None:
    line = [issue(owner, name="k1")]
    for depth in range(2, 9):
        line.append(issue(owner, name=f"k{depth}", parent=line[-1]["id"]))
    assert faults(owner.post("/keys", {"name": "k9", "parent": "k8"})) == {"parent": "too_deep"}
    assert "cannot be above itself" in detail(owner.patch(f"/keys/{line[0]['id']}", {"parent": "k8"}))
    assert "cannot be above itself" in detail(owner.patch(f"/keys/{line[3]['id']}", {"parent": "k4"}))
    issue(owner, name="other")
    assert faults(owner.patch(f"/keys/{line[0]['id']}", {"parent": "other"})) == {"parent": "too_deep"}
    assert owner.patch(f"/keys/{line[1]['id']}", {"parent": "other"}).status_code == 200
    revoked = issue(owner, name="gone")
    owner.post(f"/keys/{revoked['id']}/revoke")
    assert faults(owner.post("/keys", {"name": "k9", "parent": "gone"})) == {"parent": "revoked"}


def test_a_line_that_is_too_deep_all_the_same_opens_nothing(owner: ApiClient) -> None:
    line = [issue(owner, name="k1")]
    for depth in range(2, 11):
        row = issue(owner, name=f"k{depth}")
        VirtualKey.objects.filter(id=row["id"]).update(parent=line[-1]["id"])
        line.append(row)
    assert alive(line[7]["key"])
    assert not alive(line[8]["key"])
    VirtualKey.objects.filter(id=line[0]["id"]).update(parent=line[7]["id"])  # a circle, as if written past us
    assert not alive(line[0]["key"])


def test_another_team_s_key_is_no_parent_and_a_parent_is_not_deleted(owner: ApiClient) -> None:
    mine, theirs = (create_team(actor=SYSTEM, name=name) for name in ("mine", "theirs"))
    parent = issue(owner, name="parent", team="theirs")
    operator = client_of(Role.OPERATOR, mine.id)
    for body in ({"parent": "parent"}, {"parent": parent["id"], "team": "mine"}, {"parent": "nothing"}):
        assert faults(operator.post("/keys", {"name": "app", **body})) == {"parent": "not_found"}
    child = issue(owner, name="child", parent="parent")
    assert "child stand below" in detail(owner.delete(f"/keys/{parent['id']}"))
    owner.patch(f"/keys/{child['id']}", {"parent": None})
    assert owner.delete(f"/keys/{parent['id']}").status_code == 204
    assert theirs.keys.count() == 1


def test_what_other_teams_hold_above_and_below_a_key_is_not_named(owner: ApiClient) -> None:
    mine, _ = (create_team(actor=SYSTEM, name=name) for name in ("mine", "theirs"))
    operator = client_of(Role.OPERATOR, mine.id)
    top = issue(owner, name="top-secret", team="theirs")
    middle = issue(owner, name="middle", team="mine", parent=top["id"])
    for name in ("theirs-1", "theirs-2"):
        issue(owner, name=name, team="theirs", parent=middle["id"])
    owner.post(f"/keys/{top['id']}/disable")
    path = f"/keys/{middle['id']}"
    read = operator.get(path).json()
    assert (read["parent"], read["parent_name"]) == (None, "another key")
    assert read["stopped"] == "A key above it is disabled."
    assert detail(operator.delete(path)).startswith("other keys stand below")
    issue(owner, name="ours", team="mine", parent=middle["id"])
    assert detail(operator.delete(path)).startswith("ours and other keys stand below")
    assert detail(owner.delete(path)).startswith("ours, theirs-1 and theirs-2 stand below")
    assert owner.get(path).json()["stopped"] == "Its parent top-secret is disabled."


def test_a_parent_s_name_is_looked_up_among_the_actor_s_keys_only(owner: ApiClient) -> None:
    mine, _ = (create_team(actor=SYSTEM, name=name) for name in ("mine", "theirs"))
    ours = issue(owner, name="prod", team="mine")
    issue(owner, name="prod", team="theirs")
    assert faults(owner.post("/keys", {"name": "app", "parent": "prod"})) == {"parent": "ambiguous"}
    assert issue(client_of(Role.OPERATOR, mine.id), parent="prod")["parent"] == ours["id"]


@pytest.mark.django_db(transaction=True)
def test_two_moves_at_once_close_no_circle() -> None:
    one, _ = issuing.create_key(actor=SYSTEM, name="one")
    two, _ = issuing.create_key(actor=SYSTEM, name="two")
    together = threading.Barrier(2)

    def move(key: VirtualKey, parent: VirtualKey) -> bool:
        together.wait(20)
        try:
            issuing.update_key(key, actor=SYSTEM, changes={"parent": parent})
        except issuing.Conflict:
            return False
        finally:
            connections.close_all()
        return True

    with ThreadPoolExecutor(2) as threads:
        done = list(threads.map(move, (one, two), (two, one)))
    assert sorted(done) == [False, True]


def test_only_the_team_that_delegated_a_key_can_let_it_go(owner: ApiClient) -> None:
    mine, _ = (create_team(actor=SYSTEM, name=name) for name in ("mine", "theirs"))
    parent = issue(owner, name="parent", team="theirs", models=["small"])
    child = issue(owner, name="child", team="mine", parent=parent["id"])
    operator = client_of(Role.OPERATOR, mine.id)
    assert faults(operator.patch(f"/keys/{child['id']}", {"parent": None})) == {"parent": "not_yours"}
    assert owner.get(f"/keys/{child['id']}").json()["parent"] == parent["id"]
    assert operator.patch(f"/keys/{child['id']}", {"rpm": 5}).status_code == 200
    assert owner.patch(f"/keys/{child['id']}", {"parent": None}).status_code == 200
