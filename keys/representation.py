"""Rows of keys, teams, customers and budgets as the API shows them, a page at a time so that queries are shared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import Exists, Max, OuterRef, QuerySet

from conduit.access.permissions import in_scope, names_only
from conduit.core import budgeting
from conduit.core.actor import Actor
from conduit.core.clock import now, rfc3339
from keys import budgets, constraints, delegation, rotation, use
from keys.budget_owners import owner_names
from keys.budgets import BudgetState
from keys.models import Budget, Customer, KeySecret, KeyState, OwnerKind, Team, VirtualKey

CHANGING = ("last_used_at", "key", "stopped", "rotating_until")  # by use, by time, or with somebody else's rows


def keys(rows: Sequence[VirtualKey], actor: Actor) -> list[dict[str, Any]]:
    """Full rows; for an analyst what they are called, no more."""
    if names_only(actor):
        return [_key_name(row) for row in rows]
    ids = [row.id for row in rows]
    states, at, lines = budgets.states(OwnerKind.KEY, ids), now(), delegation.lines_of(rows)
    newest, ends = {one.key_id: one for one in newest_secrets().filter(key__in=ids)}, _overlaps(ids, at)
    shown = []
    for row in rows:
        stopped = delegation.hindrance(lines[row.id], at, actor) or None
        body = _key(row, states[row.id], newest.get(row.id), actor)
        shown.append({**body, "stopped": stopped, "rotating_until": _time(ends.get(row.id))})
    return shown


def newest_secrets() -> QuerySet[KeySecret]:
    """One for each key: a key may have had hundreds."""
    return KeySecret.objects.order_by("key_id", "-number").distinct("key_id")


def _overlaps(ids: Sequence[UUID], at: datetime) -> dict[UUID, datetime]:
    """When the last earlier secret of a key that is in a rotation ends."""
    ending = KeySecret.objects.filter(key__in=ids, destroyed_at=None, expires_at__gt=at)
    later = KeySecret.objects.filter(key=OuterRef("key"), number__gt=OuterRef("number"))
    rows = ending.filter(Exists(later)).values_list("key_id").annotate(end=Max("expires_at"))
    return dict(rows)


def versions(row: VirtualKey, actor: Actor) -> list[dict[str, Any]]:
    """A key's secrets, the newest first, with who uses them; for an analyst what state they are in, no more."""
    at, secrets = now(), list(row.secrets.order_by("-number"))
    newest = secrets[0].number if secrets else 0
    rows = [rotation.describe(secret, newest, at) for secret in secrets]
    if names_only(actor):
        return [{"number": one["number"], "state": one["state"]} for one in rows]
    uses = use.of_secrets(secrets, at)
    return [_version(one, uses[secret.id]) for one, secret in zip(rows, secrets, strict=True)]


def _version(described: dict[str, Any], used: use.Use) -> dict[str, Any]:
    return {
        **described,
        "created_at": rfc3339(described["created_at"]),
        "ends_at": _time(described["ends_at"]),
        "last_used_at": _time(used.last_used_at),
        "requests_last_hour": used.last_hour,
        "callers": [
            {"address": one.address, "requests": one.requests, "last_used_at": rfc3339(one.last_used_at)}
            for one in used.callers
        ],
    }


def teams(rows: Sequence[Team], actor: Actor) -> list[dict[str, Any]]:
    if names_only(actor):
        return [{"id": str(row.id), "name": row.name, "parent": _id(row.parent_id)} for row in rows]
    states = budgets.states(OwnerKind.TEAM, [row.id for row in rows])
    return [_team(row, states[row.id]) for row in rows]


def customers(rows: Sequence[Customer]) -> list[dict[str, Any]]:
    states = budgets.states(OwnerKind.CUSTOMER, [row.id for row in rows])
    return [
        {
            "id": row.name,
            "team": _id(row.team_id),
            **constraints.outward(row, constraints.CUSTOMER_FIELDS),
            "budgets": [owned(state, row.name) for state in states[row.id]],
        }
        for row in rows
    ]


def of_budgets(rows: Sequence[Budget]) -> list[dict[str, Any]]:
    names = owner_names(rows)
    return [owned(state, names.get((state.owner_kind, state.owner_id), "")) for state in budgets.states_of(rows)]


def owned(state: BudgetState, name: str) -> dict[str, Any]:
    """A budget with the owner it hangs on."""
    return {**state.outward(), "owner": {"kind": state.owner_kind, "id": str(state.owner_id), "name": name}}


def of_owner(kind: str, names: Mapping[UUID, str]) -> dict[UUID, list[dict[str, Any]]]:
    """Each owner's budgets, by its id."""
    states = budgets.states(kind, names)
    return {owner_id: [owned(state, name) for state in states[owner_id]] for owner_id, name in names.items()}


def version(body: dict[str, Any]) -> dict[str, Any]:
    """What an ETag is made of: what people decided, without what changes by use."""
    return budgeting.decided({name: value for name, value in body.items() if name not in CHANGING})


def state_of(row: VirtualKey, at: datetime) -> str:
    """active | disabled | revoked | expired."""
    if row.state == KeyState.ACTIVE and row.expires_at is not None and row.expires_at <= at:
        return "expired"
    return str(row.state)


def _key_name(row: VirtualKey) -> dict[str, Any]:
    return {"id": str(row.id), "name": row.name, "team": _id(row.team_id)}


def _parent(row: VirtualKey, actor: Actor) -> dict[str, Any]:
    """The key above it; one that is not the actor's to see is there, but not named."""
    if row.parent is None or in_scope(actor, row.parent.team_id):
        return {"parent": _id(row.parent_id), "parent_name": row.parent.name if row.parent else None}
    return {"parent": None, "parent_name": "another key"}


def _key(row: VirtualKey, states: list[BudgetState], newest: KeySecret | None, actor: Actor) -> dict[str, Any]:
    at = now()
    return {
        "id": str(row.id),
        **constraints.outward(row, constraints.KEY_FIELDS),
        "expires_at": _time(row.expires_at),
        "team": _id(row.team_id),
        "team_name": row.team.name if row.team else None,
        "user": _id(row.user_id),
        "user_email": row.user.email if row.user else None,
        **_parent(row, actor),
        "hint": f"cdt_vk_{newest.public_id}…{newest.last_four}" if newest else "",
        "state": state_of(row, at),
        "budgets": [owned(state, row.name) for state in states],
        "created_by": row.created_by,
        "created_at": rfc3339(row.created_at),
        "updated_at": rfc3339(row.updated_at),
        "revoked_at": _time(row.revoked_at),
        "last_used_at": _time(row.last_used_at),
    }


def _team(row: Team, states: list[BudgetState]) -> dict[str, Any]:
    return {
        "id": str(row.id),
        **constraints.outward(row, constraints.TEAM_FIELDS),
        "parent": _id(row.parent_id),
        "budgets": [owned(state, row.name) for state in states],
        "created_at": rfc3339(row.created_at),
        "updated_at": rfc3339(row.updated_at),
    }


def _id(value: UUID | None) -> str | None:
    return str(value) if value else None


def _time(value: datetime | None) -> str | None:
    return rfc3339(value) if value else None
