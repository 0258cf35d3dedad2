"""Rows of keys, teams, customers and budgets as the API shows them, a page at a time so that queries are shared."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from django.apps import apps

from conduit.access.permissions import names_only
from conduit.core.actor import Actor
from conduit.core.clock import now, rfc3339
from keys import budgets, constraints
from keys.budgets import BudgetState
from keys.models import Budget, Customer, KeySecret, KeyState, OwnerKind, Team, VirtualKey


def keys(rows: Sequence[VirtualKey], actor: Actor) -> list[dict[str, Any]]:
    """Full rows; for an analyst what they are called, no more."""
    if names_only(actor):
        return [_key_name(row) for row in rows]
    ids = [row.id for row in rows]
    states, at = budgets.states(OwnerKind.KEY, ids), now()
    secrets: dict[UUID, KeySecret] = {
        secret.key_id: secret for secret in KeySecret.objects.filter(key__in=ids).order_by("created_at")
    }
    return [_key(row, states[row.id], secrets.get(row.id), at) for row in rows]


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


def owner_names(rows: Iterable[Budget]) -> dict[tuple[str, UUID], str]:
    """(kind, id) → name, one query per kind."""
    ids: dict[str, set[UUID]] = defaultdict(set)
    for row in rows:
        ids[row.owner_kind].add(row.owner_id)
    # A provider is an owner too, but lives in an app that keys must not import.
    models: dict[str, Any] = {
        OwnerKind.KEY: VirtualKey,
        OwnerKind.TEAM: Team,
        OwnerKind.CUSTOMER: Customer,
        OwnerKind.PROVIDER: apps.get_model("providers", "Provider"),
    }
    names: dict[tuple[str, UUID], str] = {}
    for kind, wanted in ids.items():
        for owner_id, name in models[kind].objects.filter(pk__in=wanted).values_list("id", "name"):
            names[kind, owner_id] = name
    return names


def version(body: dict[str, Any]) -> dict[str, Any]:
    """What an ETag is made of: what people decided, without what changes by use."""
    moving = {"settled_usd", "held_usd", "remaining_usd", "period_start", "resets_at", "owner"}
    terms = [{name: value for name, value in row.items() if name not in moving} for row in body.get("budgets", ())]
    return {**{name: value for name, value in body.items() if name not in ("last_used_at", "key")}, "budgets": terms}


def state_of(row: VirtualKey, at: datetime) -> str:
    """active | disabled | revoked | expired."""
    if row.state == KeyState.ACTIVE and row.expires_at is not None and row.expires_at <= at:
        return "expired"
    return str(row.state)


def _key_name(row: VirtualKey) -> dict[str, Any]:
    return {"id": str(row.id), "name": row.name, "team": _id(row.team_id)}


def _key(row: VirtualKey, states: list[BudgetState], secret: KeySecret | None, at: datetime) -> dict[str, Any]:
    return {
        "id": str(row.id),
        **constraints.outward(row, constraints.KEY_FIELDS),
        "expires_at": _time(row.expires_at),
        "team": _id(row.team_id),
        "team_name": row.team.name if row.team else None,
        "hint": f"cdt_vk_{secret.public_id}…{secret.last_four}" if secret else "",
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
