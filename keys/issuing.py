"""The life of a virtual key: issue, change, disable, enable, expire, revoke, delete. The raw key leaves here once.

keys/rotation.py gives a key another secret, keys/delegation.py says whose it is and below which key it stands.

What is stored of it is HMAC-SHA256 under the purpose key PEPPER; keys/authentication.py compares against that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypedDict, Unpack
from uuid import UUID

from django.db import transaction

from conduit.access import permissions
from conduit.access.models import User
from conduit.core import audit, keyring, raw_keys
from conduit.core.actor import Actor
from conduit.core.clock import now
from conduit.core.errors import Conflict, InvalidInput, NotFound
from conduit.core.secret import Secret
from keys import budget_specs, budgets, constraints, delegation
from keys.errors import KeyInUse, KeyRevoked
from keys.models import KeyKind, KeySecret, KeyState, OwnerKind, Team, VirtualKey

PEPPER = "pepper"
RESOURCE = "keys"


class KeyLimits(TypedDict, total=False):
    """null or absent: no limit of its own. `models` and `endpoints` empty: everything.

    `kind` is "service" (the default) or "personal", which names its `user`. Below a `parent` the key can do no more
    than the parent may; without a team of its own it belongs to the parent's.
    """

    kind: str
    user: User | None
    parent: VirtualKey | None
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
    user, parent = limits.pop("user", None), limits.pop("parent", None)
    if parent is not None:
        delegation.check_seen(actor, parent)
        team = team or parent.team
    _check_team(actor, team)
    specs = budget_specs.parse_specs(limits.pop("budgets", ()))
    stored = constraints.clean({"name": name, "owner": owner, **limits}, constraints.KEY_FIELDS)
    key = VirtualKey(team=team, user=user, parent=parent, created_by=actor.name, **stored)
    with transaction.atomic():
        audit.lock()
        delegation.check_user(actor, key)
        if parent is not None:
            delegation.check_parent(actor, parent, None)
        key.save(force_insert=True)
        raw = add_secret(key, actor=actor, number=1)
        budgets.set_budgets(OwnerKind.KEY, key.id, specs, actor=actor)
        record(key, actor, "key.create", None, terms(key))
    return key, raw


def add_secret(key: VirtualKey, *, actor: Actor, number: int) -> Secret:
    """Another raw key for this identity. Inside the caller's transaction, which writes the audit entry."""
    minted = raw_keys.mint(raw_keys.VIRTUAL_KEY)
    raw = minted.raw.reveal()
    version, pepper = keyring.purpose_key(PEPPER)
    KeySecret.objects.create(
        key=key,
        number=number,
        public_id=minted.public_id,
        digest=raw_keys.digest(raw, pepper),
        pepper_version=version,
        last_four=raw[-4:],
        created_by=actor.name,
    )
    return minted.raw


def update_key(key: VirtualKey, *, actor: Actor, changes: Mapping[str, Any]) -> VirtualKey:
    """Changes the named fields only; `team`, `user` and `parent` are rows or None. Raises as `create_key`, KeyRevoked,
    and Conflict for a key that would stand above itself."""
    permissions.demand(actor, RESOURCE)
    changes = dict(changes)
    specs = budget_specs.parse_specs(changes.pop("budgets")) if "budgets" in changes else None
    places = {name: changes.pop(name) for name in ("team", "user", "parent") if name in changes}
    with transaction.atomic():
        key = locked(key, actor)
        check_live(key)
        before = terms(key)
        stored = constraints.clean(changes, constraints.KEY_FIELDS) | places
        for field, value in stored.items():
            setattr(key, field, value)
        _check_places(key, actor, before, named=stored)
        old, new = audit.changes(before, terms(key))
        if new:
            key.save(update_fields=[*stored, "user", "updated_at"])
            record(key, actor, "key.update", old, new)
        if specs is not None:
            budgets.set_budgets(OwnerKind.KEY, key.id, specs, actor=actor)
    return key


def _check_places(key: VirtualKey, actor: Actor, before: Mapping[str, Any], *, named: Mapping[str, Any]) -> None:
    """Whether the changed key may belong where it would: team, user, parent. What stays as it was is not asked."""
    if "team" in named:
        _check_team(actor, key.team)
    if key.kind == KeyKind.SERVICE and "user" not in named:
        key.user = None
    after = terms(key)
    if any(before[name] != after[name] for name in ("kind", "user", "team")):
        delegation.check_user(actor, key)
    if before["parent"] != after["parent"]:
        delegation.check_leaving(actor, before["parent"])
        if key.parent is not None:
            delegation.check_parent(actor, key.parent, key)


def disable_key(key: VirtualKey, *, actor: Actor) -> VirtualKey:
    """Refused until enabled again."""
    return _turn(key, actor, KeyState.DISABLED, "key.disable")


def enable_key(key: VirtualKey, *, actor: Actor) -> VirtualKey:
    """Raises KeyRevoked: what was revoked stays so."""
    return _turn(key, actor, KeyState.ACTIVE, "key.enable")


def expire_key(key: VirtualKey, *, actor: Actor) -> VirtualKey:
    """Its end is now; a later `expires_at` makes it work again. Raises KeyRevoked. Again changes nothing."""
    permissions.demand(actor, RESOURCE)
    with transaction.atomic():
        key, at = locked(key, actor), now()
        check_live(key)
        if key.expires_at is None or key.expires_at > at:
            before, key.expires_at = key.expires_at, at
            key.save(update_fields=["expires_at", "updated_at"])
            record(key, actor, "key.expire", {"expires_at": before}, {"expires_at": at})
    return key


def revoke_key(key: VirtualKey, *, actor: Actor) -> VirtualKey:
    """For good, on every worker within a second. Doing it twice changes nothing."""
    permissions.demand(actor, RESOURCE)
    with transaction.atomic():
        key = locked(key, actor)
        if key.state == KeyState.REVOKED:
            return key
        before = key.state
        key.state, key.revoked_at = KeyState.REVOKED, now()
        key.save(update_fields=["state", "revoked_at", "updated_at"])
        record(key, actor, "key.revoke", {"state": before}, {"state": key.state})
    return key


def delete_key(key: VirtualKey, *, actor: Actor) -> None:
    """Revokes it and forgets its limits and secrets. Usage events, budgets' history and the audit log keep its id.

    Raises KeyInUse while other keys are delegated from it: without it they would not be narrowed any more.
    """
    permissions.demand(actor, RESOURCE)
    with transaction.atomic():
        key = locked(key, actor)
        if key.children.exists():
            raise KeyInUse(f"{_below(key, actor)} stand below this key. Delete them or give them another parent first.")
        budgets.remove_budgets(OwnerKind.KEY, [key.id])
        record(key, actor, "key.delete", terms(key), None)
        key.delete()


def _below(key: VirtualKey, actor: Actor) -> str:
    """The keys below it by name, as far as they are the actor's to see."""
    rows = permissions.scope(VirtualKey.objects.filter(parent=key), actor)
    names = list(rows.order_by("name").values_list("name", flat=True)[:3])
    if key.children.count() > len(names):
        names.append("other keys")
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


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
    places = {"team": key.team_id, "user": key.user_id, "parent": key.parent_id}
    ids = {name: str(ident) if ident else None for name, ident in places.items()}
    return {**constraints.outward(key, constraints.KEY_FIELDS), **ids, "state": key.state}


def _turn(key: VirtualKey, actor: Actor, state: KeyState, action: str) -> VirtualKey:
    permissions.demand(actor, RESOURCE)
    with transaction.atomic():
        key = locked(key, actor)
        check_live(key)
        if key.state != state:
            before, key.state = key.state, state
            key.save(update_fields=["state", "updated_at"])
            record(key, actor, action, {"state": before}, {"state": state})
    return key


def locked(key: VirtualKey, actor: Actor) -> VirtualKey:
    """The row as it is now, for a change in this transaction. Raises NotFound for another team's, and for a deleted."""
    audit.lock()
    # No lock on the id: rows that name this key are written meanwhile, and would wait for it with the epoch in hand.
    rows = VirtualKey.objects.select_for_update(of=("self",), no_key=True)
    row = rows.select_related("team", "user").filter(pk=key.pk).first()
    if row is None:
        raise NotFound("")
    permissions.demand_scope(actor, row.team_id)
    return row


def check_live(key: VirtualKey) -> None:
    """Raises KeyRevoked."""
    if key.state == KeyState.REVOKED:
        raise KeyRevoked("The key is revoked; a revoked key cannot be changed.")


def _check_team(actor: Actor, team: Team | None) -> None:
    if team is None and actor.teams is not None:
        raise InvalidInput("team", "Choose one of your own teams.", "required")
    if team is not None and not permissions.in_scope(actor, team.id):
        raise InvalidInput("team", "There is no such team.", "not_found")


def record(
    key: VirtualKey, actor: Actor, action: str, before: dict[str, Any] | None, after: dict[str, Any] | None
) -> None:
    """The audit entry of a change of the key."""
    team_id: UUID | None = key.team_id
    audit.record(
        actor=actor, action=action, kind="key", id=key.id, name=key.name, team_id=team_id, before=before, after=after
    )
