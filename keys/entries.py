"""A virtual key as the data plane sees it: one immutable entry with everything that its checks need.

`load(public_id)` reads it (control plane, synchronous). Rights only narrow: a request must pass the key's own lists,
those of every key that it is delegated from (keys/delegation.py), and those of every team above any of them.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from uuid import UUID

import msgspec
from django.db.models import F

from conduit.core.actor import Actor
from conduit.core.clock import now
from conduit.core.stored_digests import stored_digest
from keys import delegation
from keys.budget_owners import owner_names
from keys.budgets import Bounds, period_bounds
from keys.models import Budget, Customer, KeySecret, OwnerKind, Team, VirtualKey

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Caller = tuple[UUID, int]  # id of a key and of one of its secrets
DEEPEST_TEAM = 32
EVER = datetime.min.replace(tzinfo=UTC)  # before which nothing expires


class RateScope(msgspec.Struct, frozen=True):
    """One owner's rate limits; None means no limit of its own."""

    kind: str  # "key" | "parent" | "team" | "customer"
    id: UUID
    name: str
    rpm: int | None
    tpm: int | None
    max_parallel: int | None


class BudgetEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One budget in force. Two entries are equal when nothing about the budget differs."""

    id: UUID
    owner_kind: str  # "parent": another key's, which the caller's is delegated from
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
    teams: tuple[UUID, ...]  # from its own team up to the root, then those of its parents
    digest: bytes
    pepper_version: int
    expires_at: float | None  # Unix seconds: the earliest end of the key, its parents and this secret
    model_rules: tuple[tuple[str, ...], ...]  # every rule (a tuple of patterns) must match
    endpoint_rules: tuple[frozenset[str], ...]
    networks: tuple[tuple[Network, ...], ...]  # every rule must hold the address
    max_output_tokens: int | None
    rates: tuple[RateScope, ...]
    budgets: tuple[BudgetEntry, ...]
    tags: tuple[str, ...]
    parents: tuple[UUID, ...] = ()  # the nearest first
    secret_id: int = 0
    rotating: bool = False  # the key has another live secret: who uses which is counted

    def may_use_model(self, model: str) -> bool:
        return all(any(fnmatchcase(model, pattern) for pattern in rule) for rule in self.model_rules)

    def may_use_some(self, pattern: str) -> bool:
        """Whether models may be among those that begin as a route's `pattern` (one star, at its end) does, as far as
        rules tell: one rule too wide counts, for those who ask how far a key reaches."""
        return all(any(_overlap(pattern[:-1], one) for one in rule) for rule in self.model_rules)

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
        return all(any((mapped or where) in network for network in rule) for rule in self.networks)


def _overlap(prefix: str, rule: str) -> bool:
    """Whether a name that begins so can match the rule."""
    literal = re.split(r"[*?\[]", rule, maxsplit=1)[0]
    return literal.startswith(prefix) or (literal != rule and prefix.startswith(literal))


def allowed_networks(entry: KeyEntry) -> list[str] | None:
    """What all of its rules allow together. None: every address; empty: none, the rules have nothing in common."""
    rules = entry.networks
    if not rules:
        return None
    every = {network for rule in rules for network in rule}
    allowed = [one for one in every if all(any(_within(one, other) for other in rule) for rule in rules)]
    return sorted(map(str, allowed))


def _within(network: Network, other: Network) -> bool:
    if isinstance(network, ipaddress.IPv4Network):
        return isinstance(other, ipaddress.IPv4Network) and network.subnet_of(other)
    return isinstance(other, ipaddress.IPv6Network) and network.subnet_of(other)


def load(public_id: str) -> KeyEntry | None:
    """The live key that this secret belongs to. None for unknown, disabled, revoked and expired ones alike."""
    at = now()
    of_key = KeySecret.objects.select_related("key", "key__team").filter(
        key__secrets__public_id=public_id, destroyed_at=None
    )
    live = [secret for secret in of_key if secret.expires_at is None or secret.expires_at > at]
    secret = next((one for one in live if one.public_id == public_id), None)
    if secret is None:
        return None
    line = delegation.line_of(secret.key)
    return None if delegation.hindrance(line, at) else _entry(line, secret, rotating=len(live) > 1)


def stored(public_id: str) -> tuple[int, bytes]:
    """(pepper version, digest) of the secret with this public id, and nothing else about it; version 0 for nobody's."""
    return stored_digest(KeySecret, public_id)


def of_key(key: VirtualKey, actor: Actor | None = None) -> tuple[KeyEntry, str]:
    """A key's entry by its newest secret, and why a caller could not use it now (empty: a caller could), in words for
    `actor`."""
    at, line = now(), delegation.line_of(key)
    secrets = list(KeySecret.objects.filter(key=key, destroyed_at=None).order_by("-number"))
    alive = any(secret.expires_at is None or secret.expires_at > at for secret in secrets)
    why = delegation.hindrance(line, at, actor) or ("" if alive else "It has no live secret.")
    newest = secrets[0] if secrets else KeySecret(key=key, digest=b"", pepper_version=0)
    return _entry(line, newest, rotating=False), why


def of_line(line: Sequence[VirtualKey]) -> KeyEntry:
    """What the first key of the line may call, for reports over many keys: without secret and budgets, so that nothing
    is asked but the teams above."""
    return _entry(line, KeySecret(key=line[0], digest=b"", pepper_version=0), rotating=False, with_budgets=False)


def withdrawn(callers: set[Caller]) -> set[Caller]:
    """Those who may call no more: their key, or one above it, is revoked, disabled, deleted or without its user, or
    their secret was ended before its time. What is streamed to them is cut. Whose time ran out may hear the end."""
    rows = VirtualKey.objects.filter(pk__in={key for key, _ in callers}).select_related("team", "user")
    able = {key.pk for key in rows if not delegation.hindrance(delegation.line_of(key), EVER)}
    ended = KeySecret.objects.filter(pk__in={secret for _, secret in callers}, destroyed_at=F("expires_at"))
    struck = set(ended.values_list("pk", flat=True))
    return {(key, secret) for key, secret in callers if key not in able or secret in struck}


def _entry(line: Sequence[VirtualKey], secret: KeySecret, *, rotating: bool, with_budgets: bool = True) -> KeyEntry:
    key, teams = line[0], _teams(line)
    owners = (*line, *teams)
    ends = [end for end in (secret.expires_at, *(one.expires_at for one in line)) if end is not None]
    caps = [one.max_output_tokens for one in line if one.max_output_tokens is not None]
    return KeyEntry(
        id=key.id,
        public_id=secret.public_id,
        name=key.name,
        team_id=key.team_id,
        teams=tuple(team.id for team in teams),
        digest=bytes(secret.digest),
        pepper_version=secret.pepper_version,
        expires_at=min(end.timestamp() for end in ends) if ends else None,
        model_rules=tuple(tuple(owner.allowed_models) for owner in owners if owner.allowed_models),
        endpoint_rules=tuple(frozenset(owner.allowed_endpoints) for owner in owners if owner.allowed_endpoints),
        networks=tuple(_networks(one.ip_allowlist) for one in line if one.ip_allowlist),
        max_output_tokens=min(caps, default=None),
        rates=_rates(line, teams),
        budgets=_budgets(line, teams) if with_budgets else (),
        tags=tuple(key.tags),
        parents=tuple(one.id for one in line[1:]),
        secret_id=secret.id or 0,
        rotating=rotating,
    )


def _networks(texts: Sequence[str]) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(text, strict=False) for text in texts)


def _teams(line: Sequence[VirtualKey]) -> list[Team]:
    found: dict[UUID, Team] = {}
    for key in line:
        found |= {team.id: team for team in _chain(key.team)}
    return list(found.values())


def _chain(team: Team | None) -> list[Team]:
    found: list[Team] = []
    while team is not None and len(found) < DEEPEST_TEAM:
        found.append(team)
        team = team.parent
    return found


def _rates(line: Sequence[VirtualKey], teams: Sequence[Team]) -> tuple[RateScope, ...]:
    owners = [("parent" if place else "key", key) for place, key in enumerate(line)]
    scopes = [RateScope(kind, one.id, one.name, one.rpm, one.tpm, one.max_parallel) for kind, one in owners]
    scopes += [RateScope("team", team.id, team.name, team.rpm, team.tpm, team.max_parallel) for team in teams]
    return tuple(scope for scope in scopes if (scope.rpm, scope.tpm, scope.max_parallel) != (None, None, None))


def _budgets(line: Sequence[VirtualKey], teams: Sequence[Team]) -> tuple[BudgetEntry, ...]:
    names = {one.id: one.name for one in line} | {team.id: team.name for team in teams}
    above = {key.id for key in line[1:]}
    kinds = (OwnerKind.KEY, OwnerKind.TEAM)
    rows = list(Budget.objects.filter(owner_kind__in=kinds, owner_id__in=names, removed_at=None).order_by("id"))
    found = [budget_entry(row, names[row.owner_id]) for row in rows]
    parents = {row.id for row in rows if row.owner_id in above}
    return tuple(msgspec.structs.replace(one, owner_kind="parent") if one.id in parents else one for one in found)


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
