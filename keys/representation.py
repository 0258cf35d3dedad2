"""Rows of keys, teams, customers and budgets as the API shows them, a page at a time so that queries are shared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from conduit.access.permissions import names_only
from conduit.core import budgeting
from conduit.core.actor import Actor
from conduit.core.clock import now, rfc3339
from keys import budgets, constraints
from keys.budget_owners import owner_names
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


def of_owner(kind: str, names: Mapping[UUID, str]) -> dict[UUID, list[dict[str, Any]]]:
    """Each owner's budgets, by its id."""
    states = budgets.states(kind, names)
    return {owner_id: [owned(state, name) for state in states[owner_id]] for owner_id, name in names.items()}


def version(body: dict[str, Any]) -> dict[str, Any]:
    """What an ETag is made of: what people decided, without what changes by use."""
    return budgeting.decided({name: value for name, value in body.items() if name not in ("last_used_at", "key")})


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
