"""Personal keys, and keys below other keys: each can do no more than its user and its parent, evaluated at use."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connections

from conduit.access.models import Role, User
from conduit.access.users import create_user, update_user
from conduit.core.actor import SYSTEM
from conduit.core.models import Epoch
from keys import entries, issuing
from keys.models import VirtualKey
from keys.teams import create_team
from tests.access.clients import ApiClient, client_of, faults
from tests.keys.life import alive, detail, issue

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
