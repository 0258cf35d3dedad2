"""A virtual key as the data plane sees it: one immutable entry with everything that its checks need.

`load(public_id)` reads it (control plane, synchronous). Rights only narrow: a request must pass the key's own lists
and those of every team above it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import datetime
from fnmatch import fnmatchcase
from uuid import UUID

import msgspec

from conduit.core.clock import now
from keys.budget_owners import owner_names
from keys.budgets import Bounds, period_bounds
from keys.models import Budget, Customer, KeySecret, KeyState, OwnerKind, Team, VirtualKey

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
DEEPEST_TEAM = 32


class RateScope(msgspec.Struct, frozen=True):
    """One owner's rate limits; None means no limit of its own."""

    kind: str  # "key" | "team" | "customer"
    id: UUID
    name: str
    rpm: int | None
    tpm: int | None
    max_parallel: int | None


class BudgetEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One budget in force. Two entries are equal when nothing about the budget differs."""

    id: UUID
    owner_kind: str
    owner_name: str
    limit_nanos: int
    window: str
    timezone: str
    created_at: datetime
    epoch_at: datetime | None
    hard: bool
    unbounded: str
    wait_ms: int

    def bounds(self, at: datetime) -> Bounds:
        return period_bounds(self, at)


class KeyEntry(msgspec.Struct, frozen=True, kw_only=True):
    id: UUID
    public_id: str
    name: str
    team_id: UUID | None
    teams: tuple[UUID, ...]  # from its own team up to the root
    digest: bytes
    pepper_version: int
    expires_at: float | None  # Unix seconds: the earlier of the key's and this secret's end
    model_rules: tuple[tuple[str, ...], ...]  # every rule (a tuple of patterns) must match
    endpoint_rules: tuple[frozenset[str], ...]
    networks: tuple[Network, ...]
    max_output_tokens: int | None
    rates: tuple[RateScope, ...]
    budgets: tuple[BudgetEntry, ...]
    tags: tuple[str, ...]

    def may_use_model(self, model: str) -> bool:
        return all(any(fnmatchcase(model, pattern) for pattern in rule) for rule in self.model_rules)

    def may_use_endpoint(self, endpoint: str) -> bool:
        return all(endpoint in rule for rule in self.endpoint_rules)

    def may_come_from(self, address: str) -> bool:
        if not self.networks:
            return True
        try:
            where = ipaddress.ip_address(address)
        except ValueError:
            return False
        mapped = where.ipv4_mapped if isinstance(where, ipaddress.IPv6Address) else None
        return any((mapped or where) in network for network in self.networks)


def load(public_id: str) -> KeyEntry | None:
    """The live key that this secret belongs to. None for unknown, disabled, revoked and expired ones alike."""
    secret = KeySecret.objects.select_related("key", "key__team").filter(public_id=public_id).first()
    if secret is None or secret.key.state != KeyState.ACTIVE:
        return None
    key, at = secret.key, now()
    ends = [end for end in (secret.expires_at, key.expires_at) if end is not None]
    if any(end <= at for end in ends):
        return None
    return _entry(key, secret, ends)


def of_key(key: VirtualKey) -> tuple[KeyEntry, bool]:
    """A key's entry by its newest secret, and whether a caller could use it: it is active and a secret is alive."""
    at = now()
    secrets = list(KeySecret.objects.filter(key=key).order_by("-created_at"))
    alive = any(secret.expires_at is None or secret.expires_at > at for secret in secrets)
    usable = key.state == KeyState.ACTIVE and alive and (key.expires_at is None or key.expires_at > at)
    return _entry(key, secrets[0] if secrets else KeySecret(key=key, digest=b"", pepper_version=0), ()), usable


def _entry(key: VirtualKey, secret: KeySecret, ends: Sequence[datetime]) -> KeyEntry:
    teams = _chain(key.team)
    return KeyEntry(
        id=key.id,
        public_id=secret.public_id,
        name=key.name,
        team_id=key.team_id,
        teams=tuple(team.id for team in teams),
        digest=bytes(secret.digest),
        pepper_version=secret.pepper_version,
        expires_at=min(end.timestamp() for end in ends) if ends else None,
        model_rules=tuple(tuple(owner.allowed_models) for owner in (key, *teams) if owner.allowed_models),
        endpoint_rules=tuple(frozenset(owner.allowed_endpoints) for owner in (key, *teams) if owner.allowed_endpoints),
        networks=tuple(ipaddress.ip_network(text, strict=False) for text in key.ip_allowlist),
        max_output_tokens=key.max_output_tokens,
        rates=_rates(key, teams),
        budgets=_budgets(key, teams),
        tags=tuple(key.tags),
    )


def _chain(team: Team | None) -> list[Team]:
    found: list[Team] = []
    while team is not None and len(found) < DEEPEST_TEAM:
        found.append(team)
        team = team.parent
    return found


def _rates(key: VirtualKey, teams: Sequence[Team]) -> tuple[RateScope, ...]:
    scopes = [RateScope("key", key.id, key.name, key.rpm, key.tpm, key.max_parallel)]
    scopes += [RateScope("team", team.id, team.name, team.rpm, team.tpm, team.max_parallel) for team in teams]
    return tuple(scope for scope in scopes if (scope.rpm, scope.tpm, scope.max_parallel) != (None, None, None))


def _budgets(key: VirtualKey, teams: Sequence[Team]) -> tuple[BudgetEntry, ...]:
    names = {key.id: key.name} | {team.id: team.name for team in teams}
    kinds = (OwnerKind.KEY, OwnerKind.TEAM)
    rows = Budget.objects.filter(owner_kind__in=kinds, owner_id__in=names, removed_at=None)
    return tuple(budget_entry(row, names[row.owner_id]) for row in rows.order_by("id"))


def budget_entry(row: Budget, owner_name: str) -> BudgetEntry:
    return BudgetEntry(
        id=row.id,
        owner_kind=row.owner_kind,
        owner_name=owner_name,
        limit_nanos=row.limit_nanos,
        window=row.window,
        timezone=row.timezone,
        created_at=row.created_at,
        epoch_at=row.epoch_at,
        hard=row.kind == "hard",
        unbounded=row.unbounded,
        wait_ms=row.wait_ms,
    )


def load_provider_budgets() -> dict[UUID, tuple[BudgetEntry, ...]]:
    """What may be spent at each provider by everybody together; those without budgets are left out."""
    rows = list(Budget.objects.filter(owner_kind=OwnerKind.PROVIDER, removed_at=None).order_by("id"))
    names = owner_names(rows)
    found: dict[UUID, list[BudgetEntry]] = {}
    for row in rows:
        found.setdefault(row.owner_id, []).append(budget_entry(row, names.get((row.owner_kind, row.owner_id), "")))
    return {owner: tuple(budgets) for owner, budgets in found.items()}


class CustomerEntry(msgspec.Struct, frozen=True):
    """A customer with limits of its own; most have no row at all."""

    id: UUID
    blocked: bool
    rates: tuple[RateScope, ...]
    budgets: tuple[BudgetEntry, ...]


def load_customer(team_id: UUID | None, name: str) -> CustomerEntry | None:
    where = {"team_id": team_id} if team_id else {"team_id__isnull": True}
    row = Customer.objects.filter(name=name, **where).first()
    if row is None:
        return None
    budgets = Budget.objects.filter(owner_kind=OwnerKind.CUSTOMER, owner_id=row.id, removed_at=None).order_by("id")
    limited = (row.rpm, row.tpm) != (None, None)
    rates = (RateScope("customer", row.id, row.name, row.rpm, row.tpm, None),) if limited else ()
    return CustomerEntry(row.id, row.blocked, rates, tuple(budget_entry(budget, row.name) for budget in budgets))
