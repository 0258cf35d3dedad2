"""The life of a virtual key: issue, change, disable, enable, revoke, delete. The raw key leaves here once.

What is stored of it is HMAC-SHA256 under the purpose key PEPPER; keys/authentication.py compares against that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypedDict, Unpack
from uuid import UUID

from django.db import transaction

from conduit.access import permissions
from conduit.core import audit, keyring, raw_keys
from conduit.core.actor import Actor
from conduit.core.clock import now
from conduit.core.errors import Conflict, InvalidInput, NotFound
from conduit.core.secret import Secret
from keys import budget_specs, budgets, constraints
from keys.errors import KeyRevoked
from keys.models import KeySecret, KeyState, OwnerKind, Team, VirtualKey

PEPPER = "pepper"
RESOURCE = "keys"


class KeyLimits(TypedDict, total=False):
    """null or absent: no limit of its own. `models` and `endpoints` empty: everything."""

    models: Sequence[str]
    endpoints: Sequence[str]
    budgets: Sequence[budget_specs.BudgetSpec | Mapping[str, Any]]
    rpm: int | None
    tpm: int | None
    max_parallel: int | None
    max_output_tokens: int | None
    expires_at: datetime | str | None
    ip_allowlist: Sequence[str]
    tags: Sequence[str]
    metadata: Mapping[str, Any]


def create_key(
    *, actor: Actor, name: str, team: Team | None = None, owner: str = "", **limits: Unpack[KeyLimits]
) -> tuple[VirtualKey, Secret]:
    """The key and its raw text, which nobody can show again.

    Raises InvalidInput naming the field, Forbidden, and NotFound for another team.
    """
    permissions.demand(actor, RESOURCE)
    _check_team(actor, team)
    specs = budget_specs.parse_specs(limits.pop("budgets", ()))
    stored = constraints.clean({"name": name, "owner": owner, **limits}, constraints.KEY_FIELDS)
    minted = raw_keys.mint(raw_keys.VIRTUAL_KEY)
    raw = minted.raw.reveal()
    with transaction.atomic():
        version, pepper = keyring.purpose_key(PEPPER)
        key = VirtualKey.objects.create(team=team, created_by=actor.name, **stored)
        KeySecret.objects.create(
            key=key,
            public_id=minted.public_id,
            digest=raw_keys.digest(raw, pepper),
            pepper_version=version,
            last_four=raw[-4:],
        )
        budgets.set_budgets(OwnerKind.KEY, key.id, specs, actor=actor)
        _record(key, actor, "key.create", None, terms(key))
    return key, minted.raw


def update_key(key: VirtualKey, *, actor: Actor, changes: Mapping[str, Any]) -> VirtualKey:
    """Changes the named fields only; `team` is a Team or None. Raises as `create_key`, and KeyRevoked."""
    permissions.demand(actor, RESOURCE)
    changes = dict(changes)
    specs = budget_specs.parse_specs(changes.pop("budgets")) if "budgets" in changes else None
    moves, team = "team" in changes, changes.pop("team", None)
    with transaction.atomic():
        key = _locked(key, actor)
        _check_live(key)
        before = terms(key)
        stored = constraints.clean(changes, constraints.KEY_FIELDS)
        if moves:
            _check_team(actor, team)
            stored["team"] = team
        for field, value in stored.items():
            setattr(key, field, value)
        old, new = audit.changes(before, terms(key))
        if new:
            key.save(update_fields=[*stored, "updated_at"])
            _record(key, actor, "key.update", old, new)
        if specs is not None:
            budgets.set_budgets(OwnerKind.KEY, key.id, specs, actor=actor)
    return key


def disable_key(key: VirtualKey, *, actor: Actor) -> VirtualKey:
    """Refused until enabled again."""
    return _turn(key, actor, KeyState.DISABLED, "key.disable")


def enable_key(key: VirtualKey, *, actor: Actor) -> VirtualKey:
    """Raises KeyRevoked: what was revoked stays so."""
    return _turn(key, actor, KeyState.ACTIVE, "key.enable")


def revoke_key(key: VirtualKey, *, actor: Actor) -> VirtualKey:
    """For good, on every worker within a second. Doing it twice changes nothing."""
    permissions.demand(actor, RESOURCE)
    with transaction.atomic():
        key = _locked(key, actor)
        if key.state == KeyState.REVOKED:
            return key
        before = key.state
        key.state, key.revoked_at = KeyState.REVOKED, now()
        key.save(update_fields=["state", "revoked_at", "updated_at"])
        _record(key, actor, "key.revoke", {"state": before}, {"state": key.state})
    return key


def delete_key(key: VirtualKey, *, actor: Actor) -> None:
    """Revokes it and forgets its limits and secrets. Usage events, budgets' history and the audit log keep its id."""
    permissions.demand(actor, RESOURCE)
    with transaction.atomic():
        key = _locked(key, actor)
        budgets.remove_budgets(OwnerKind.KEY, [key.id])
        _record(key, actor, "key.delete", terms(key), None)
        key.delete()


def find_key(reference: str) -> VirtualKey:
    """A key by id, or by name where only one has it. Raises NotFound, or Conflict for an ambiguous name."""
    try:
        rows = VirtualKey.objects.filter(pk=UUID(reference))
    except ValueError:
        rows = VirtualKey.objects.filter(name=reference)
    found = list(rows.select_related("team")[:2])
    if not found:
        raise NotFound(f"There is no key {reference}.")
    if len(found) > 1:
        raise Conflict(f"Several keys are called {reference}; name one by its id.")
    return found[0]


def terms(key: VirtualKey) -> dict[str, Any]:
    """What was agreed about a key, in the contract's names; no secret, nothing that changes by use."""
    team = {"team": str(key.team_id) if key.team_id else None}
    return {**constraints.outward(key, constraints.KEY_FIELDS), **team, "state": key.state}


def _turn(key: VirtualKey, actor: Actor, state: KeyState, action: str) -> VirtualKey:
    permissions.demand(actor, RESOURCE)
    with transaction.atomic():
        key = _locked(key, actor)
        _check_live(key)
        if key.state != state:
            before, key.state = key.state, state
            key.save(update_fields=["state", "updated_at"])
            _record(key, actor, action, {"state": before}, {"state": state})
    return key


def _locked(key: VirtualKey, actor: Actor) -> VirtualKey:
    row = VirtualKey.objects.select_for_update(of=("self",)).select_related("team").get(pk=key.pk)
    permissions.demand_scope(actor, row.team_id)
    return row


def _check_live(key: VirtualKey) -> None:
    if key.state == KeyState.REVOKED:
        raise KeyRevoked("The key is revoked; a revoked key cannot be changed.")


def _check_team(actor: Actor, team: Team | None) -> None:
    if team is None and actor.teams is not None:
        raise InvalidInput("team", "Choose one of your own teams.", "required")
    if team is not None and not permissions.in_scope(actor, team.id):
        raise InvalidInput("team", "There is no such team.", "not_found")


def _record(
    key: VirtualKey, actor: Actor, action: str, before: dict[str, Any] | None, after: dict[str, Any] | None
) -> None:
    team_id: UUID | None = key.team_id
    audit.record(
        actor=actor, action=action, kind="key", id=key.id, name=key.name, team_id=team_id, before=before, after=after
    )
