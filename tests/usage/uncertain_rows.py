"""Uncertain attempts as the ledger leaves them: the event at no cost, the hold in its budget periods."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db.models import F

from conduit.core.clock import now
from keys.budgets import period_bounds
from keys.models import Budget, BudgetPeriod, UncertainAttempt
from tests.usage.events import settled
from usage.ledger import apply, instant
from usage.models import UsageEvent


def period_of(budget: Budget) -> BudgetPeriod:
    """The budget's running period, as a lease makes it."""
    start, end = period_bounds(budget, now())
    period, _ = BudgetPeriod.objects.get_or_create(budget=budget, starts_at=start, defaults={"ends_at": end})
    return period


def uncertain_attempt(*budgets: Budget, held: int = 700_000, node: str = "node-a", **given: Any) -> UncertainAttempt:
    """An attempt whose worker died, applied; `given` are fields of its record."""
    periods = sorted(period_of(budget).id for budget in budgets)
    record = settled(
        held_nanos=held,
        budgets=[budget.id.bytes for budget in budgets],
        periods=periods,
        **{
            "cost_nanos": 0,
            "arithmetic": [],
            "input_tokens": 0,
            "output_tokens": 0,
            "exactness": "uncertain",
            "outcome": "error",
            "status": 0,
            "error_code": "uncertain",
            **given,
        },
    )
    apply([record], node=node)
    attempt, made = UncertainAttempt.objects.get_or_create(
        id=UUID(bytes=record.attempt_id),
        defaults={
            "time": instant(record.time_us),
            "team_id": None if record.team_id is None else UUID(bytes=record.team_id),
            "held_nanos": held,
            "periods": periods,
            "node": node,
            "reason": record.error_code,
        },
    )
    if made:
        BudgetPeriod.objects.filter(id__in=periods).update(uncertain_nanos=F("uncertain_nanos") + held)
    return attempt


def event_of(attempt: UncertainAttempt) -> UsageEvent:
    return UsageEvent.objects.get(time=attempt.time, id=attempt.id)
