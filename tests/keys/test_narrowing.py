"""effective = key ∩ parents ∩ teams ∩ user, after any sequence of edits: against a model that knows only the rows."""

from __future__ import annotations

import ipaddress
import random
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import Any
from uuid import UUID

import pytest

from conduit.access.models import Role, User
from conduit.access.users import create_user, update_user
from conduit.core.actor import SYSTEM
from conduit.core.clock import now
from conduit.core.errors import Conflict, InvalidInput
from keys import entries, issuing
from keys.models import Team, TeamMember, VirtualKey
from keys.teams import create_team, update_team

MODELS = ("a1", "a2", "b1", "b2", "c1")
PATTERNS = ("a*", "b*", "*1", "*2", "c1", "a1", "*")
ENDPOINTS = ("chat", "messages", "embeddings")
ADDRESSES = ("10.1.0.1", "10.2.0.1", "192.0.2.1", "2001:db8::1")
NETWORKS = ("10.0.0.0/8", "10.1.0.0/16", "192.0.2.0/24", "2001:db8::/32")
EDITS = 25


class Installation:
    """Teams, users and keys that are edited at random; `raws` keeps what callers hold."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.teams = [create_team(actor=SYSTEM, name=f"t{n}") for n in range(3)]
        self.users = [
            create_user(actor=SYSTEM, email=f"u{n}@example.org", role=Role.OPERATOR, in_teams=[self.teams[n].id])[0]
            for n in range(2)
        ]
        self.raws: dict[UUID, str] = {}
        parent = None
        for number in range(4):  # k1 and k3 stand below k0 and k2
            key, raw = issuing.create_key(actor=SYSTEM, name=f"k{number}", parent=parent if number % 2 else None)
            parent = key
            self.raws[key.id] = raw.reveal()

    def edit(self) -> bool:
        """One edit by the functions that everybody uses; False: they refused it."""
        try:
            self.rng.choice((self._key,) * 5 + (self._team, self._team, self._user, self._state))()
        except (InvalidInput, Conflict):
            return False
        return True

    def _some(self, members: tuple[str, ...]) -> list[str]:
        return self.rng.sample(members, self.rng.choice((0, 1, 2)))

    def _any_key(self) -> VirtualKey:
        return VirtualKey.objects.get(id=self.rng.choice(list(self.raws)))

    def _key(self) -> None:
        rng, key = self.rng, self._any_key()
        team, user = rng.choice([None, *self.teams]), rng.choice(self.users)
        change: dict[str, Any] = rng.choice(
            (
                {"models": self._some(PATTERNS)},
                {"endpoints": self._some(ENDPOINTS)},
                {"ip_allowlist": self._some(NETWORKS)},
                {"max_output_tokens": rng.choice((None, 10, 100))},
                {"rpm": rng.choice((None, 5, 50))},
                {"budgets": [] if rng.random() < 0.5 else [{"limit_usd": "1"}]},
                {"team": team},
                {"parent": self._any_key()},
                {"parent": rng.choice((None, self._any_key()))},
                {"kind": "personal", "user": user, "team": rng.choice(self.teams)},
                {"kind": "service"},
                {"expires_at": rng.choice((None, now() + timedelta(days=1)))},
            )
        )
        issuing.update_key(key, actor=SYSTEM, changes=change)

    def _team(self) -> None:
        team, parent = self.rng.choice(self.teams), self.rng.choice([None, *self.teams])
        change: dict[str, Any] = self.rng.choice(
            ({"models": self._some(PATTERNS)}, {"endpoints": self._some(ENDPOINTS)}, {"parent": parent}, {"rpm": 7})
        )
        update_team(team, actor=SYSTEM, changes=change)

    def _user(self) -> None:
        user, teams = self.rng.choice(self.users), self.rng.sample(self.teams, self.rng.choice((0, 1, 1, 2)))
        if self.rng.random() < 0.4:
            update_user(user, actor=SYSTEM, active=self.rng.random() < 0.7)
        elif self.rng.random() < 0.4:
            update_user(user, actor=SYSTEM, role=self.rng.choice((Role.OPERATOR, Role.ADMIN, Role.ANALYST)))
        else:
            update_user(user, actor=SYSTEM, teams=[team.id for team in teams])

    def _state(self) -> None:
        step = self.rng.choice((issuing.disable_key, issuing.enable_key, issuing.enable_key, issuing.expire_key))
        step(self._any_key(), actor=SYSTEM)


class Rows:
    """What the rows say, read anew and combined by nothing of the product's."""

    def __init__(self) -> None:
        self.keys = {row["id"]: row for row in VirtualKey.objects.values()}
        self.teams = {row["id"]: row for row in Team.objects.values()}
        self.users = {row["id"]: row for row in User.objects.values()}
        self.members = list(TeamMember.objects.values_list("user_id", "team_id"))

    def line(self, key_id: UUID | None) -> list[dict[str, Any]]:
        found = []
        while key_id is not None:
            found.append(self.keys[key_id])
            key_id = found[-1]["parent_id"]
        return found

    def teams_above(self, team_id: UUID | None) -> list[dict[str, Any]]:
        found = []
        while team_id is not None:
            found.append(self.teams[team_id])
            team_id = found[-1]["parent_id"]
        return found

    def works(self, key: dict[str, Any]) -> bool:
        if key["state"] != "active" or (key["expires_at"] and key["expires_at"] <= now()):
            return False
        if key["kind"] == "service":
            return True
        user = self.users[key["user_id"]]
        own = {team for member, team in self.members if member == user["id"]}
        above = {team["id"] for team in self.teams_above(key["team_id"])}
        belongs = own & above if above else not own  # a key of no team is for who is in none
        return bool(user["is_active"] and (user["role"] not in ("operator", "analyst") or belongs))


def check(rows: Rows, key_id: UUID, raw: str) -> bool:
    """Whether the key works; what it may do then is exactly what every owner above it allows."""
    entry = entries.load(raw[7:17])
    line = rows.line(key_id)
    teams = [team for key in line for team in rows.teams_above(key["team_id"])]
    assert (entry is not None) == all(rows.works(key) for key in line)
    if entry is None:
        return False
    owners = [*line, *teams]
    for model in MODELS:
        allowed = [any(fnmatchcase(model, one) for one in owner["allowed_models"]) for owner in owners
                   if owner["allowed_models"]]  # fmt: skip
        assert entry.may_use_model(model) == all(allowed)
    for endpoint in ENDPOINTS:
        allowed = [endpoint in owner["allowed_endpoints"] for owner in owners if owner["allowed_endpoints"]]
        assert entry.may_use_endpoint(endpoint) == all(allowed)
    for address in ADDRESSES:
        where = ipaddress.ip_address(address)
        lists = [[ipaddress.ip_network(one) for one in key["ip_allowlist"]] for key in line if key["ip_allowlist"]]
        assert entry.may_come_from(address) == all(any(where in one for one in networks) for networks in lists)
    caps = [key["max_output_tokens"] for key in line if key["max_output_tokens"] is not None]
    assert entry.max_output_tokens == min(caps, default=None)
    assert {scope.id for scope in entry.rates} == {owner["id"] for owner in owners if owner["rpm"] is not None}
    ends = [key["expires_at"].timestamp() for key in line if key["expires_at"]]
    assert entry.expires_at == min(ends, default=None)
    held = entries.Budget.objects.filter(owner_id__in=[owner["id"] for owner in owners], removed_at=None)
    assert {budget.id for budget in entry.budgets} == set(held.values_list("id", flat=True))
    return True


@pytest.mark.parametrize("seed", range(3))
def test_no_sequence_of_edits_lets_a_key_do_more_than_any_above_it(db: None, seed: int) -> None:
    here = Installation(seed)
    changed, worked, narrowed = 0, 0, 0
    for _ in range(EDITS):
        changed += here.edit()
        rows = Rows()
        for key_id, raw in here.raws.items():
            works = check(rows, key_id, raw)
            worked += works
            narrowed += works and rows.keys[key_id]["parent_id"] is not None
    assert changed >= EDITS // 2
    assert worked >= EDITS
    assert narrowed >= 1, "no key with a parent was ever at work: the sequence shows nothing"
