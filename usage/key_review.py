"""Stale-access review: keys nobody uses, keys that may far more than they do, keys about to end, keys without an owner.

    review(actor, days=…)            keys with something to say about them, a page at a time
    proposal(key, …)                 what the key may now beside what it used
    shrink(key, actor=…, …)          the proposal as one change of the key

Use is what was served in whole days up to now, and the day of `days` ago counts. What was refused is no use.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import transaction

from conduit.access import permissions
from conduit.access.models import User
from conduit.core.actor import SYSTEM, Actor
from conduit.core.clock import now
from conduit.core.errors import Conflict, InvalidInput, NotFound
from conduit.core.money import NANOS_PER_DOLLAR, format_usd
from keys import budgets, constraints, delegation, entries, issuing
from keys.budgets import BudgetState
from keys.entries import KeyEntry
from keys.models import KeyState, OwnerKind, VirtualKey, Window
from keys.representation import state_of
from providers.models import Route
from usage import log, summaries
from usage.models import NIL
from usage.summaries import Question, Span

DAY = timedelta(days=1)
DAYS, MOST_DAYS = 30, 366
SOON = 30 * DAY
BATCH, MOST_LOOKED_AT = 200, 2_000
FAR_ABOVE = 2  # may use more than twice as many models or endpoints as it used
LOOSE = 10  # a limit of more than ten times the dearest window
HEADROOM = 2  # and what is proposed instead: twice the dearest window
CODES = (
    "unused", "never_used", "expiring", "expired", "broad_models", "broad_endpoints", "loose_budget", "owner_gone",
    "no_owner",
)  # fmt: skip
SPANS = {Window.DAY.value: 1, Window.WEEK.value: 7, Window.MONTH.value: 30}
# Listing models leaves no usage event, so nobody can tell that it was not used; SDKs do it on their own.
UNMETERED = frozenset({"models"})


@dataclass(frozen=True, slots=True)
class Used:
    """What one key was served in the span. `days` is its spend per day, nano-dollars, oldest first."""

    routes: frozenset[str] = frozenset()
    endpoints: frozenset[str] = frozenset()
    requests: int = 0
    days: tuple[int, ...] = ()

    def dearest(self, window: str) -> int | None:
        """The dearest run of so many days; None for a window that is longer than the span, or has no end."""
        length = SPANS.get(window)
        if length is None or length > len(self.days):
            return None
        return max(sum(self.days[start : start + length]) for start in range(len(self.days) - length + 1))


@dataclass(frozen=True, slots=True)
class Remark:
    """`code` is one of CODES."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Reviewed:
    key: VirtualKey
    last_used_at: datetime | None
    used: Used
    remarks: list[Remark]

    @property
    def shrinkable(self) -> bool:
        return any(remark.code in ("broad_models", "broad_endpoints", "loose_budget") for remark in self.remarks)


@dataclass(frozen=True, slots=True)
class Review:
    """`cursor`: where the next page begins, None at the end."""

    rows: list[Reviewed]
    cursor: UUID | None


def parse_days(value: object) -> int:
    """Raises InvalidInput."""
    text = str(value)
    if isinstance(value, bool) or not (text.isascii() and text.isdigit() and len(text) <= 3):
        raise InvalidInput("days", f"Must be a whole number from 1 to {MOST_DAYS}.", "out_of_range")
    if not 1 <= int(text) <= MOST_DAYS:
        raise InvalidInput("days", f"Must be a whole number from 1 to {MOST_DAYS}.", "out_of_range")
    return int(text)


def review(actor: Actor, *, days: int = DAYS, before: UUID | None = None, limit: int = 50) -> Review:
    """Newest key first; revoked keys are left out. A page may end early, after so many keys without a remark.

    Raises Forbidden, also for who sees no more of keys than their names.
    """
    permissions.demand(actor, "keys", write=False)
    permissions.demand_whole(actor, "which of them to review")
    span, rows, seen = span_of(days), [], 0
    routes = _route_names()
    while seen < MOST_LOOKED_AT:
        batch = _batch(actor, before)
        for reviewed in _reviewed(batch, span, routes):
            before, seen = reviewed.key.id, seen + 1
            if reviewed.remarks:
                rows.append(reviewed)
            if len(rows) == limit:
                return Review(rows, before)
        if len(batch) < BATCH:
            return Review(rows, None)
    return Review(rows, before)


def span_of(days: int) -> Span:
    """From the midnight (UTC) of so many days ago until now."""
    at = now()
    return Span((at - days * DAY).replace(hour=0, minute=0, second=0, microsecond=0), at)


def _batch(actor: Actor, before: UUID | None) -> list[VirtualKey]:
    rows = permissions.scope(VirtualKey.objects.select_related("team", "user"), actor).exclude(state=KeyState.REVOKED)
    return list((rows.filter(id__lt=before) if before else rows).order_by("-id")[:BATCH])


def _route_names() -> list[str]:
    return list(Route.objects.filter(enabled=True).order_by("name").values_list("name", flat=True))


def _reviewed(keys: Sequence[VirtualKey], span: Span, routes: Sequence[str]) -> Iterable[Reviewed]:
    ids = [key.id for key in keys]
    used, last = used_by(ids, span), log.last_used(ids)
    limits, gone = budgets.states(OwnerKind.KEY, ids), _gone([key.owner for key in keys])
    lines = delegation.lines_of(keys)
    for key in keys:
        at = max((moment for moment in (last.get(key.id), key.last_used_at) if moment), default=None)
        one = used.get(key.id, Used())
        remarks = [*_idle(key, at, span), *_ending(key), *_owner(key, gone)]
        if one.requests:
            remarks += _broad(entries.of_line(lines[key.id]), one, routes) + _loose(limits[key.id], one)
        yield Reviewed(key, at, one, remarks)


def used_by(ids: Sequence[UUID], span: Span) -> dict[UUID, Used]:
    """By key; a key that was served nothing has no entry. Two questions for all of them.

    Not scoped to teams: what a key did before it came to its team is in use too. The keys are the actor's to see.
    """
    if not ids:
        return {}
    question = Question(SYSTEM, span, {"key": list(ids)})
    routes: dict[UUID, set[str]] = defaultdict(set)
    endpoints: dict[UUID, set[str]] = defaultdict(set)
    requests: dict[UUID, int] = defaultdict(int)
    for (key_id, route, endpoint), sums in summaries.grouped(question, ["key", "route", "endpoint"]):
        if sums.served > 0 and key_id != NIL:
            routes[key_id].add(route)
            endpoints[key_id].add(endpoint)
            requests[key_id] += sums.served
    starts = _days(span)
    days: dict[UUID, list[int]] = defaultdict(lambda: [0] * len(starts))
    for (key_id, day), sums in summaries.grouped(question, ["key", "day"]):
        days[key_id][starts[day]] = sums.cost_nanos
    return {
        key_id: Used(frozenset(routes[key_id] - {""}), frozenset(endpoints[key_id]), number, tuple(days[key_id]))
        for key_id, number in requests.items()
    }


def _days(span: Span) -> dict[datetime, int]:
    """Midnight → its place in the span."""
    return {span.start + number * DAY: number for number in range((span.end - span.start).days + 1)}


def _idle(key: VirtualKey, last: datetime | None, span: Span) -> list[Remark]:
    if key.created_at >= span.start:
        return []  # too young to tell
    if last is None:
        return [Remark("never_used", "It has never been used. Revoke it if nobody waits for it.")]
    if last < span.start:
        return [Remark("unused", f"Last used on {last:%Y-%m-%d}. Disable it, or revoke it.")]
    return []


def _ending(key: VirtualKey) -> list[Remark]:
    at = now()
    if state_of(key, at) == "expired":
        return [Remark("expired", f"It expired on {key.expires_at:%Y-%m-%d}. Revoke it, or give it a later end.")]
    if key.expires_at is not None and key.expires_at - at <= SOON:
        return [Remark("expiring", f"It expires on {key.expires_at:%Y-%m-%d}: its callers get 401 from then on.")]
    return []


def _gone(owners: Iterable[str]) -> frozenset[str]:
    """Which of the owners are people who may no longer sign in."""
    names = {owner.strip().lower() for owner in owners if "@" in owner}
    return frozenset(User.objects.filter(email__in=names, is_active=False).values_list("email", flat=True))


def _owner(key: VirtualKey, gone: frozenset[str]) -> list[Remark]:
    if key.owner.strip().lower() in gone or (key.user is not None and not key.user.is_active):
        return [Remark("owner_gone", "Its owner may no longer sign in. Give it another owner.")]
    if not key.owner and key.team_id is None and key.user_id is None:
        return [Remark("no_owner", "It has neither owner nor team. Name who answers for it.")]
    return []


def _broad(entry: KeyEntry, used: Used, routes: Sequence[str]) -> list[Remark]:
    found = []
    open_routes = [name for name in routes if entry.may_use_model(name)]
    unused = set(open_routes) - used.routes
    if unused and len(open_routes) > FAR_ABOVE * len(used.routes & set(open_routes)):
        detail = f"It may use {len(open_routes)} models and used {len(used.routes & set(open_routes))}."
        found.append(Remark("broad_models", detail))
    endpoints = [name for name in constraints.ENDPOINTS if entry.may_use_endpoint(name) and name not in UNMETERED]
    if len(endpoints) > FAR_ABOVE * len(used.endpoints):
        detail = f"It may call {len(endpoints)} kinds of endpoint and called {len(used.endpoints)}."
        found.append(Remark("broad_endpoints", detail))
    return found


def _loose(states: Sequence[BudgetState], used: Used) -> list[Remark]:
    found = []
    for state in states:
        dearest = used.dearest(state.window)
        if dearest is not None and state.base_nanos > LOOSE * dearest and tightened(state, used) < state.base_nanos:
            spent, limit = format_usd(dearest), format_usd(state.base_nanos)
            detail = f"${limit} a {state.window}; the dearest {state.window} cost ${spent}."
            found.append(Remark("loose_budget", detail))
    return found


def tightened(state: BudgetState, used: Used) -> int:
    """The limit that is proposed: twice the dearest window, in whole dollars, never above what is set."""
    dearest = used.dearest(state.window)
    if dearest is None:
        return state.base_nanos
    dollars = max(1, -(-HEADROOM * dearest // NANOS_PER_DOLLAR))
    return min(state.base_nanos, dollars * NANOS_PER_DOLLAR)


@dataclass(frozen=True, slots=True)
class Proposal:
    """`before` and `after` name the fields that would change, as `update_key` takes them."""

    key: VirtualKey
    used: Used
    days: int
    before: Mapping[str, Any] = field(default_factory=dict)
    after: Mapping[str, Any] = field(default_factory=dict)


def proposal(key: VirtualKey, *, days: int = DAYS, with_budgets: bool = False) -> Proposal:
    """What the key used, as its new terms. Only ever narrower than what it may now.

    Raises Conflict for a revoked key, and for one that was served nothing in these days.
    """
    if key.state == KeyState.REVOKED:
        raise Conflict("The key is revoked: there is nothing left to shrink.")
    used = used_by([key.id], span_of(days)).get(key.id)
    if used is None:
        raise Conflict(f"The key was served nothing in the last {days} days. Disable or revoke it instead.")
    now_, then = _lists(key, used)
    if with_budgets:
        states = budgets.current(OwnerKind.KEY, key.id)
        limits = [_spec(state, tightened(state, used)) for state in states]
        present = [_spec(state, state.base_nanos) for state in states]
        if limits != present:
            now_["budgets"], then["budgets"] = present, limits
    return Proposal(key, used, days, now_, then)


def _lists(key: VirtualKey, used: Used) -> tuple[dict[str, Any], dict[str, Any]]:
    entry, _ = entries.of_key(key)
    models = sorted(name for name in used.routes if entry.may_use_model(name))
    kept = used.endpoints | UNMETERED
    endpoints = [name for name in constraints.ENDPOINTS if name in kept and entry.may_use_endpoint(name)]
    wanted = {"models": models, "endpoints": endpoints}
    present = {"models": list(key.allowed_models), "endpoints": list(key.allowed_endpoints)}
    # An empty list allows everything, and a list too long cannot be stored: both stay as they are.
    changed = [
        name
        for name, value in wanted.items()
        if 0 < len(value) <= constraints.LONGEST_LIST and set(value) != set(present[name])
    ]
    return {name: present[name] for name in changed}, {name: wanted[name] for name in changed}


def _spec(state: BudgetState, limit_nanos: int) -> dict[str, Any]:
    return {
        "limit_usd": format_usd(limit_nanos),
        "window": state.window,
        "timezone": state.timezone,
        "kind": state.kind,
        "unbounded": state.unbounded,
        "wait_ms": state.wait_ms,
    }


def shrink(key: VirtualKey, *, actor: Actor, days: int = DAYS, with_budgets: bool = False) -> Proposal:
    """Applies the proposal of this instant as one change, which the audit log can undo: it holds what was before.

    The use is added up before anything is locked. Raises as `proposal`, Forbidden, NotFound, and Conflict for a key
    that was changed meanwhile.
    """
    permissions.demand(actor, "keys")
    seen = VirtualKey.objects.select_related("team").filter(pk=key.pk).first()
    if seen is None:
        raise NotFound("")
    permissions.demand_scope(actor, seen.team_id)
    wanted = proposal(seen, days=days, with_budgets=with_budgets)
    if wanted.after:
        with transaction.atomic():
            _check_same(wanted, issuing.locked(seen, actor))
            issuing.update_key(seen, actor=actor, changes=wanted.after)
    return wanted


def _check_same(wanted: Proposal, key: VirtualKey) -> None:
    """Raises Conflict where the key, under its lock, is not what the proposal was made from."""
    same = issuing.terms(key) == issuing.terms(wanted.key)
    if same and "budgets" in wanted.after:
        states = budgets.current(OwnerKind.KEY, key.id)
        same = [_spec(state, state.base_nanos) for state in states] == wanted.before["budgets"]
    if not same:
        raise Conflict(f"The key {key.name} was changed meanwhile. Look at the proposal again.")
