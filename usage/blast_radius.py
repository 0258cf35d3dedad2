"""Leak response, second question: what could be done with this key, and what has been done with it?"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from conduit.access.permissions import demand_whole, in_scope, may, scope
from conduit.core.actor import Actor
from conduit.core.clock import now, rfc3339
from conduit.core.errors import InvalidInput
from conduit.core.money import format_usd
from keys import budgets, constraints, entries
from keys.budgets import BudgetState
from keys.entries import KeyEntry
from keys.models import Budget, KeyState, OwnerKind, VirtualKey
from providers.models import Route
from providers.patterns import is_pattern
from usage import summaries
from usage.models import UsageEvent
from usage.summaries import Question, Span
from usage.sums import Sums

DAY = timedelta(days=1)
MOST_DAYS = 366
MOST_ADDRESSES = 50
MOST_CHILDREN = 200


@dataclass(frozen=True, slots=True)
class Reach:
    """What the key opens now. `providers` None: not this actor's to see. `left_nanos` None: no hard budget.
    `networks` None: every address; empty: none."""

    usable: bool
    models: list[str]
    endpoints: list[str]
    providers: list[str] | None
    budgets: list[tuple[str, BudgetState]]
    left_nanos: int | None
    networks: list[str] | None
    children: list[VirtualKey]


@dataclass(frozen=True, slots=True)
class Use:
    """What was done with it from `start` on. `refused_from`: addresses that the key's own list turned away."""

    start: datetime
    sums: Sums
    models: list[tuple[str, Sums]]
    refused_from: list[str]


@dataclass(frozen=True, slots=True)
class BlastRadius:
    key: VirtualKey
    reach: Reach
    day: Use
    since: Use | None


def blast_radius(key: VirtualKey, *, actor: Actor, since: datetime | None = None) -> BlastRadius:
    """The caller has found the key in the actor's scope. Raises InvalidInput for a `since` to come or too long ago, and
    Forbidden for who sees no more of keys than their names."""
    demand_whole(actor, "a key's blast radius")
    at = now()
    if since is not None and not at - MOST_DAYS * DAY <= since < at:
        raise InvalidInput("since", f"Must be in the past, at most {MOST_DAYS} days ago.", "out_of_range")
    used = _use(key, actor, Span(since, at)) if since else None
    return BlastRadius(key, _reach(key, actor), _use(key, actor, Span(at - DAY, at)), used)


def _reach(key: VirtualKey, actor: Actor) -> Reach:
    entry, hindrance = entries.of_key(key)
    routes = [
        route
        for route in Route.objects.filter(enabled=True).order_by("name").prefetch_related("targets__provider")
        if (entry.may_use_some if is_pattern(route.name) else entry.may_use_model)(route.name)
    ]
    providers = {target.provider.name for route in routes for target in route.targets.all() if target.provider.enabled}
    every = _budgets(entry)
    hard = [state.remaining_nanos for _, state in every if state.kind == "hard"]
    return Reach(
        usable=not hindrance,
        models=[route.name for route in routes],
        endpoints=[name for name in constraints.ENDPOINTS if entry.may_use_endpoint(name)],
        providers=sorted(providers) if may(actor, "providers", write=False) else None,
        budgets=[(name, state) for name, state in every if _seen(actor, state)],
        left_nanos=max(0, min(hard)) if hard else None,
        networks=entries.allowed_networks(entry),
        children=list(scope(key.children.exclude(state=KeyState.REVOKED), actor).order_by("-id")[:MOST_CHILDREN]),
    )


def _budgets(entry: KeyEntry) -> list[tuple[str, BudgetState]]:
    """Every budget that a request of this key counts against, with its owner's name."""
    names = {budget.id: budget.owner_name for budget in entry.budgets}
    rows = Budget.objects.filter(id__in=names, removed_at=None).order_by("id")
    return [(names[state.id], state) for state in budgets.states_of(list(rows))]


def _seen(actor: Actor, state: BudgetState) -> bool:
    if actor.teams is None:
        return True
    if state.owner_kind == OwnerKind.TEAM:
        return in_scope(actor, state.owner_id)
    return scope(VirtualKey.objects.filter(id=state.owner_id), actor).exists()


def _use(key: VirtualKey, actor: Actor, span: Span) -> Use:
    question = Question(actor, span, {"key": [key.id]})
    models = [(str(group[0]), sums) for group, sums in summaries.grouped(question, ["route"], limit=20)]
    return Use(span.start, summaries.total(question), models, _refused_from(key, span))


def _refused_from(key: VirtualKey, span: Span) -> list[str]:
    """Of refusals alone: the address of a request that is served is not kept. The index usage_event_refused is made for
    exactly this filter."""
    traces = (
        UsageEvent.objects.filter(
            key_id=key.id, time__gte=span.start, time__lt=span.end, attempt=0, error_code="ip_not_allowed"
        )
        .order_by("-time")
        .values_list("trace", flat=True)[:1000]
    )
    found = {
        str(check.get("address")): None
        for trace in traces
        for check in trace
        if check.get("check") == "address" and check.get("address")
    }
    return list(found)[:MOST_ADDRESSES]


def outward(radius: BlastRadius) -> dict[str, Any]:
    """In the contract's habits: dollars as texts, times in RFC 3339."""
    reach = radius.reach
    return {
        "id": str(radius.key.id),
        "name": radius.key.name,
        "usable": reach.usable,
        "models": reach.models,
        "endpoints": reach.endpoints,
        "providers": reach.providers,
        "ip_allowlist": reach.networks,
        "children": [{"id": str(child.id), "name": child.name} for child in reach.children],
        "budgets": [
            {**state.outward(), "owner": {"kind": state.owner_kind, "id": str(state.owner_id), "name": name}}
            for name, state in reach.budgets
        ],
        "left_usd": None if reach.left_nanos is None else format_usd(reach.left_nanos),
        "last_24h": _use_body(radius.day),
        "since": _use_body(radius.since) if radius.since else None,
    }


def _use_body(use: Use) -> dict[str, Any]:
    return {
        "from": rfc3339(use.start),
        "requests": use.sums.requests,
        "refused": use.sums.refused,
        "errors": use.sums.errors,
        "spend_usd": format_usd(use.sums.cost_nanos),
        "models": [
            {"model": name, "requests": sums.requests, "spend_usd": format_usd(sums.cost_nanos)}
            for name, sums in use.models
        ],
        "refused_from": use.refused_from,
    }
