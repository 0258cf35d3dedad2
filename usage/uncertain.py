"""Attempts that may have been billed and whose cost nobody reported, until somebody says what they cost.

Their hold stays in their budget periods (`uncertain_nanos`) and their usage events cost nothing. A resolution does all
of it in one transaction: the event's cost, its rollups, the hold out of the periods, the cost into them, the audit log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal
from uuid import UUID

from django.db import DataError, connection, transaction
from django.db.models import Exists, OuterRef, Q, QuerySet, Sum
from django.db.models.functions import Coalesce

from conduit.access.permissions import demand, demand_scope, scope
from conduit.core import audit
from conduit.core.actor import Actor
from conduit.core.clock import now, rfc3339
from conduit.core.errors import Conflict, InvalidInput, NotFound
from conduit.core.fields import parse_choice, parse_time
from conduit.core.money import RATE_UNITS, format_usd
from keys.live_leases import PeriodName, period_names
from keys.models import UncertainAttempt, VirtualKey
from providers.models import Provider
from providers.providers import find
from usage import corrections
from usage.models import Exactness, UsageEvent
from usage.records import Line

RESOURCE = "uncertain"
STATES = ("open", "resolved", "all")
NEWEST_FIRST = ("-time", "-id")
MAX_COST = 2**62
RESOLVED, ABOVE_HOLD = "resolved", "above_hold"

# Whoever changes several periods locks them in the order of their ids.
_LOCK_PERIODS = "SELECT id FROM keys_budgetperiod WHERE id = ANY(%s) ORDER BY id FOR NO KEY UPDATE"
_MOVE = """
UPDATE keys_budgetperiod SET
  uncertain_nanos = uncertain_nanos - CASE WHEN id = ANY(%(held_in)s) THEN %(held)s ELSE 0 END,
  settled_nanos = settled_nanos + CASE WHEN id = ANY(%(counts_in)s) THEN %(cost)s ELSE 0 END
 WHERE id = ANY(%(held_in)s) OR id = ANY(%(counts_in)s)
"""


# --- what is open --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Shown:
    """An attempt with what people call its parts. `periods`: those of the actor's own budgets. `event` is None where
    the usage event is no longer kept."""

    attempt: UncertainAttempt
    event: UsageEvent | None
    key: str
    provider: str
    periods: tuple[PeriodName, ...]


def _id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise InvalidInput("", "Is not an id.", "invalid_id") from None


def _state(text: str) -> Q:
    state = parse_choice(text, STATES)
    return Q() if state == "all" else Q(resolved_at__isnull=state == "open")


_OF_ATTEMPT: dict[str, Callable[[str], Q]] = {
    "state": _state,
    "team": lambda text: Q(team_id=_id(text)),
    "node": lambda text: Q(node=text),
    "reason": lambda text: Q(reason=text),
    "from": lambda text: Q(time__gte=parse_time(text)),
    "to": lambda text: Q(time__lt=parse_time(text)),
}
_OF_EVENT: dict[str, Callable[[str], Q]] = {
    "key": lambda text: Q(key_id=_id(text)),
    "provider": lambda text: Q(provider_id=find(text).id),
    "model": lambda text: Q(model=text),
}
FILTERS = (*_OF_ATTEMPT, *_OF_EVENT)


def open_attempts(actor: Actor, filters: Mapping[str, str] | None = None) -> QuerySet[UncertainAttempt]:
    """The actor's attempts, by default those that nobody has resolved yet. Raises InvalidInput naming the filter."""
    found, event = scope(UncertainAttempt.objects.all(), actor), Q()
    for name, text in {"state": "open", **(filters or {})}.items():
        try:
            if name in _OF_EVENT:
                event &= _OF_EVENT[name](text)
            else:
                found = found.filter(_OF_ATTEMPT[name](text))
        except InvalidInput as error:
            raise InvalidInput(name, error.detail, error.code) from None
    if event:
        found = found.filter(Exists(UsageEvent.objects.filter(event, time=OuterRef("time"), id=OuterRef("id"))))
    return found


@dataclass(frozen=True, slots=True)
class Sums:
    attempts: int
    held_nanos: int


def sums(rows: QuerySet[UncertainAttempt]) -> Sums:
    held = rows.order_by().aggregate(held=Coalesce(Sum("held_nanos"), 0))["held"]
    return Sums(rows.count(), int(held))


def shown(rows: Sequence[UncertainAttempt], actor: Actor) -> list[Shown]:
    """A page of attempts with their names, in a query per kind of name."""
    found = UsageEvent.objects.filter(time__in={row.time for row in rows}, id__in=[row.id for row in rows])
    events = {event.id: event for event in found}
    keys = _names(VirtualKey, (event.key_id for event in events.values()))
    providers = _names(Provider, (event.provider_id for event in events.values()))
    periods = period_names((period for row in rows for period in row.periods), actor)
    return [
        Shown(
            row,
            event := events.get(row.id),
            keys.get(event.key_id, "") if event else "",
            providers.get(event.provider_id, "") if event else "",
            tuple(periods[period] for period in dict.fromkeys(row.periods) if period in periods),
        )
        for row in rows
    ]


def _names(model: type[VirtualKey] | type[Provider], ids: Iterable[UUID | None]) -> dict[UUID | None, str]:
    return dict(model.objects.filter(id__in={one for one in ids if one is not None}).values_list("id", "name"))


def body(one: Shown) -> dict[str, Any]:
    """In the names of the API and of `conduit uncertain list --json`."""
    row, event = one.attempt, one.event
    return {
        "id": str(row.id),
        "time": rfc3339(row.time),
        "request_id": event.request_id if event else None,
        "attempt": event.attempt if event else None,
        "team": _text(row.team_id),
        "key": _text(event.key_id) if event else None,
        "key_name": one.key or None,
        "provider": _text(event.provider_id) if event else None,
        "provider_name": one.provider or None,
        "model": event.model if event else None,
        "held_usd": format_usd(row.held_nanos),
        "reason": row.reason,
        "message": event.error_message if event else "",
        "node": row.node,
        "periods": [period.outward() for period in one.periods],
        "resolved_at": rfc3339(row.resolved_at) if row.resolved_at else None,
        "resolved_by": row.resolved_by or None,
        "cost_usd": None if row.cost_nanos is None else format_usd(row.cost_nanos),
    }


def _text(value: UUID | None) -> str | None:
    return None if value is None else str(value)


# --- resolving -----------------------------------------------------------------------------------------------------


def resolve(attempt: UUID, *, actor: Actor, cost_nanos: int, from_invoice: bool = False) -> UncertainAttempt:
    """Says what the attempt cost, in nano-dollars: 0 (not billed), its hold, or anything else up to 2^62.

    More than the hold is taken and flagged; the budgets may then be above their limits by the difference.
    `from_invoice`: the provider's invoice says so, and the event is exact from now on instead of estimated. Raises
    NotFound, also for another team's; Conflict when it is resolved already; InvalidInput for the amount.
    """
    demand(actor, RESOURCE)
    if isinstance(cost_nanos, bool) or not 0 <= cost_nanos <= MAX_COST:
        raise InvalidInput("cost_usd", f"Must be from 0 to {format_usd(MAX_COST)}.", "out_of_range")
    try:
        with transaction.atomic():
            audit.lock()
            row = UncertainAttempt.objects.select_for_update().filter(pk=attempt).first()
            if row is None:
                raise NotFound("There is no such uncertain attempt.")
            demand_scope(actor, row.team_id)
            _check_open(row)
            _book(row, cost_nanos, from_invoice=from_invoice)
            _record(row, actor, cost_nanos, from_invoice=from_invoice)
    except DataError:
        raise InvalidInput(
            "cost_usd", "Is so much that a total of the books could not hold it.", "out_of_range"
        ) from None
    return row


def _check_open(row: UncertainAttempt) -> None:
    if row.resolved_at is not None:
        raise Conflict(
            f"The attempt was resolved at {rfc3339(row.resolved_at)} by {row.resolved_by} "
            f"to ${format_usd(row.cost_nanos or 0)}; that stands."
        )


def _book(row: UncertainAttempt, cost: int, *, from_invoice: bool) -> None:
    """The event with its rollups first, the periods last: the order in which the ledger locks them."""
    event = corrections.locked(row.time, row.id)
    if event is None and cost:
        raise Conflict("Its usage event is no longer kept, so no cost can be recorded: resolve it as unbilled.")
    counts_in: list[int] = []
    added = cost
    if event is not None:
        if event.exactness != Exactness.UNCERTAIN:
            raise Conflict(f"Its usage event is {event.exactness}: what it cost is known, and stands.")
        counts_in, added = sorted(set(event.periods)), cost - event.cost_nanos
        flags = [*event.flags, RESOLVED, *([ABOVE_HOLD] if cost > row.held_nanos else [])]
        line: Line = (RESOLVED, 1, cost * RATE_UNITS, cost)
        exactness = Exactness.EXACT if from_invoice else Exactness.ESTIMATED
        corrections.correct(event, line=line, exactness=exactness.value, flags=flags)
    held_in = sorted(set(row.periods))
    with connection.cursor() as cursor:
        cursor.execute(_LOCK_PERIODS, [sorted({*held_in, *counts_in})])
        cursor.execute(_MOVE, {"held_in": held_in, "held": row.held_nanos, "counts_in": counts_in, "cost": added})


def _record(row: UncertainAttempt, actor: Actor, cost: int, *, from_invoice: bool) -> None:
    row.resolved_at, row.resolved_by, row.cost_nanos = now(), actor.name, cost
    row.save(update_fields=["resolved_at", "resolved_by", "cost_nanos"])
    audit.record(
        actor=actor,
        action="attempt.resolve",
        kind="attempt",
        id=row.id,
        team_id=row.team_id,
        before={"held_usd": format_usd(row.held_nanos), "reason": row.reason},
        after={"cost_usd": format_usd(cost), "from_invoice": from_invoice},
    )


@dataclass(frozen=True, slots=True)
class Resolved:
    """Together: `cost_nanos` is settled, `held_nanos` is no longer held. `left`: others resolved them meanwhile."""

    attempts: int
    cost_nanos: int
    held_nanos: int
    left: int


def resolve_all(
    *,
    actor: Actor,
    node: str = "",
    older_than: timedelta | None = None,
    as_: Literal["unbilled", "held"],
) -> Resolved:
    """Resolves the actor's open attempts of a node, or older than that, or both: each to nothing or to its whole hold.

    One transaction for each, so that a great many hold nobody up, and an end in between leaves whole resolutions:
    repeat it. Raises InvalidInput without either choice, so that nobody resolves everything by leaving one out.
    """
    if not node and older_than is None:
        raise InvalidInput("node", "Name a node, or how old the attempts must be.", "required")
    parse_choice(as_, ("unbilled", "held"))
    found = open_attempts(actor)
    if node:
        found = found.filter(node=node)
    if older_than is not None:
        found = found.filter(time__lt=now() - older_than)
    attempts = cost = held = left = 0
    for attempt_id, held_nanos in list(found.order_by("time", "id").values_list("id", "held_nanos")):
        nanos = held_nanos if as_ == "held" else 0
        try:
            resolve(attempt_id, actor=actor, cost_nanos=nanos)
        except (Conflict, NotFound):
            left += 1
            continue
        attempts, cost, held = attempts + 1, cost + nanos, held + held_nanos
    return Resolved(attempts, cost, held, left)


def newest(rows: QuerySet[UncertainAttempt], limit: int) -> list[UncertainAttempt]:
    return list(rows.order_by(*NEWEST_FIRST)[:limit])


def find_attempt(attempt: UUID, actor: Actor) -> UncertainAttempt:
    """Open or resolved. Raises NotFound, also for another team's."""
    row = open_attempts(actor, {"state": "all"}).filter(pk=attempt).first()
    if row is None:
        raise NotFound("There is no such uncertain attempt.")
    return row
