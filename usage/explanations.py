"""One request explained: what each attempt was checked for, held, used and cost, and why; for API and page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from conduit.access.permissions import may, scope
from conduit.core.actor import Actor
from conduit.core.clock import rfc3339
from conduit.core.errors import NotFound
from conduit.core.money import format_usd
from keys.budget_owners import owner_names
from keys.models import Budget, BudgetPeriod, OwnerKind, UncertainAttempt, VirtualKey
from usage import remedies, standing, traces
from usage.models import Exactness, Price, UsageEvent
from usage.reports import event_body

MOST_ATTEMPTS = 200
SETTLED = {
    Exactness.EXACT: "by the usage that the provider sent",
    Exactness.ESTIMATED: "by an estimate: the provider sent no usage, or none that can be true",
    Exactness.UNCERTAIN: "not yet: the answer was lost, so the whole hold stays until somebody says what it cost",
}
_NOT_BILLED = "surely not billed: nothing was charged, and the hold moved on or was given back"


def request_body(actor: Actor, request_id: str) -> dict[str, Any]:
    """All attempts of a request with holds, arithmetic and decision trace. Raises NotFound."""
    found = scope(UsageEvent.objects.filter(request_id=request_id), actor)
    attempts = list(found.order_by("time", "attempt", "id")[:MOST_ATTEMPTS])
    if not attempts:
        raise NotFound("There is no such request.")
    prices, periods, uncertain = _prices(attempts), _periods(actor, attempts), uncertain_of(attempts)
    told = next((event for event in reversed(attempts) if event.trace), attempts[-1])
    trace = traces.for_actor(actor, told.trace)
    return {
        "request_id": request_id,
        "cost_usd": format_usd(sum(event.cost_nanos for event in attempts)),
        "trace": [traces.outward(line) for line in trace],
        "refused": _refused(actor, told, trace),
        "attempts": [
            {
                **event_body(event),
                "final": event.final,
                "held_usd": format_usd(event.held_nanos),
                "released_usd": format_usd(released(event)),
                "overhead_ms": None if event.overhead_us is None else event.overhead_us / 1000,
                "credential_version": event.credential_version,
                "budgets": [str(budget) for budget in event.budgets],
                "periods": [periods[one] for one in event.periods if one in periods],
                "price_row": prices.get(event.price_id) if event.price_id else None,
                "arithmetic": [_line(line) for line in event.arithmetic],
                "settlement": settlement(event) if event.attempt else None,
                "uncertain": _uncertain(uncertain.get(event.id)),
                "flags": event.flags,
                "error_message": event.error_message or None,
                "trace": [traces.outward(line) for line in traces.for_actor(actor, event.trace)],
            }
            for event in attempts
        ],
    }


def settlement(event: UsageEvent) -> str:
    """How an attempt's cost came about, in words."""
    if event.outcome == "error" and event.exactness == Exactness.EXACT and not event.cost_nanos:
        return _NOT_BILLED
    return SETTLED[Exactness(event.exactness)]


def released(event: UsageEvent) -> int:
    """What of the hold was given back, nano-dollars."""
    return 0 if event.exactness == Exactness.UNCERTAIN else max(0, event.held_nanos - event.cost_nanos)


def uncertain_of(attempts: Iterable[UsageEvent]) -> dict[UUID, UncertainAttempt]:
    """The attempts whose cost nobody reported, resolved or not, by id."""
    return {row.id: row for row in UncertainAttempt.objects.filter(id__in=[event.id for event in attempts])}


def key_of(actor: Actor, event: UsageEvent) -> VirtualKey | None:
    if event.key_id is None or not may(actor, "keys", write=False):
        return None
    return VirtualKey.objects.select_related("team").filter(id=event.key_id).first()


def _refused(actor: Actor, event: UsageEvent, trace: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    line = traces.stopper(event, trace)
    if line is None:
        return None
    now = standing.of_line(event, line, key_of(actor, event))
    return {
        "by": traces.outward(line),
        "would_let_it_pass": remedies.in_words(line) or None,
        "now": None if now is None else {"passes": now.passes, "found": now.words},
    }


def _prices(attempts: Iterable[UsageEvent]) -> dict[UUID, dict[str, Any]]:
    rows = Price.objects.filter(id__in={event.price_id for event in attempts if event.price_id})
    return {
        row.id: {
            "id": str(row.id),
            "model": row.model,
            "vendor": row.vendor or None,
            "source": row.source,
            "effective_from": rfc3339(row.effective_from),
            "rates": {
                unit: [{"from_units": start, "rate_usd_per_million": format_usd(rate)} for start, rate in steps]
                for unit, steps in row.rates.items()
            },
        }
        for row in rows
    }


def _periods(actor: Actor, attempts: Iterable[UsageEvent]) -> dict[int, dict[str, Any]]:
    """Of budgets that everybody who sees the request may know about; the others are left out."""
    ids = {period for event in attempts for period in event.periods}
    rows = list(BudgetPeriod.objects.filter(id__in=ids).select_related("budget"))
    names = owner_names([row.budget for row in rows])
    return {
        row.id: {
            "id": str(row.id),
            "budget": str(row.budget_id),
            "owner": {"kind": row.budget.owner_kind, "name": names.get((row.budget.owner_kind, row.budget.owner_id))},
            "window": row.budget.window,
            "starts_at": rfc3339(row.starts_at),
            "ends_at": rfc3339(row.ends_at) if row.ends_at else None,
        }
        for row in rows
        if _visible(actor, row.budget)
    }


def _visible(actor: Actor, budget: Budget) -> bool:
    if actor.teams is None or budget.owner_kind in (OwnerKind.KEY, OwnerKind.CUSTOMER):
        return True
    return budget.owner_kind == OwnerKind.TEAM and budget.owner_id in actor.teams


def _uncertain(row: UncertainAttempt | None) -> dict[str, Any] | None:
    if row is None:
        return None
    return {
        "held_usd": format_usd(row.held_nanos),
        "reason": row.reason,
        "resolved_at": rfc3339(row.resolved_at) if row.resolved_at else None,
        "cost_usd": None if row.cost_nanos is None else format_usd(row.cost_nanos),
    }


def _line(line: list[Any]) -> dict[str, Any]:
    unit, count, rate, nanos = line
    return {"unit": unit, "count": count, "rate_usd_per_million": format_usd(rate), "cost_usd": format_usd(nanos)}
