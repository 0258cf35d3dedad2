"""More money for a while. A raise reverts by itself: it counts while its end lies ahead, and no job has to run."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import transaction

from conduit.access import permissions
from conduit.core import audit
from conduit.core.actor import Actor
from conduit.core.clock import now, rfc3339
from conduit.core.errors import Conflict, Forbidden, InvalidInput, NotFound
from conduit.core.fields import parse_amount, parse_time
from conduit.core.money import MAX_NANOS, format_usd
from keys import budgets
from keys.budget_owners import find, may_raise, owner_names, team_of, visible
from keys.models import Budget, BudgetRaise

RESOURCE = "budgets"
LONGEST = timedelta(days=366)
MOST = 16


def parse(extra: object, until: object) -> tuple[int, datetime]:
    """What a person typed: dollars and an RFC 3339 time. Raises InvalidInput naming `extra_usd` or `until`."""
    try:
        nanos = parse_amount(extra, 1)
    except InvalidInput as error:
        raise InvalidInput("extra_usd", error.detail, error.code) from None
    try:
        return nanos, parse_time(until)
    except InvalidInput as error:
        raise InvalidInput("until", error.detail, error.code) from None


def check(extra_nanos: int, until: datetime, at: datetime) -> None:
    """Raises InvalidInput naming the field."""
    if not 0 < extra_nanos <= MAX_NANOS:
        raise InvalidInput("extra_usd", "The amount must be more than 0.", "too_small")
    if until <= at:
        raise InvalidInput("until", "Must lie in the future.", "past")
    if until > at + LONGEST:
        raise InvalidInput("until", "Must be at most a year from now; for longer, change the limit itself.", "too_late")


def raise_budget(budget: Budget, *, actor: Actor, extra_nanos: int, until: datetime) -> BudgetRaise:
    """The budget's limit is `extra_nanos` higher until `until` (aware), then as it was.

    Raises InvalidInput naming the field, Forbidden, NotFound for another team's budget or one no longer in force, and
    Conflict when MOST raises are in force.
    """
    _demand(actor, budget)
    at = now()
    check(extra_nanos, until, at)
    with transaction.atomic():
        row = find(actor, budget.id, lock=True)
        present = budgets.raises_in_force([row.id], at)[row.id]
        before = row.limit_nanos + sum(one.extra_nanos for one in present)
        if before + extra_nanos > MAX_NANOS:
            raise InvalidInput("extra_usd", "The limit would be too large.", "too_large")
        if len(present) >= MOST:
            raise Conflict(f"The budget is raised {MOST} times already. End one of these raises first.")
        made = BudgetRaise.objects.create(budget=row, extra_nanos=extra_nanos, until=until, created_by=actor.name)
        budgets.lock_running([row.id], at)
        _record(row, actor, "budget.raise", (before, before + extra_nanos), made)
    return made


def end_raise(raised: BudgetRaise, *, actor: Actor) -> None:
    """Back to what the limit was, now. Raises NotFound when the raise has ended or is not the actor's to see."""
    at = now()
    with transaction.atomic():
        row = find(actor, raised.budget_id, lock=True)
        _demand(actor, row)
        present = budgets.raises_in_force([row.id], at)[row.id]
        current = next((one for one in present if one.id == raised.id), None)
        if current is None:
            raise NotFound("The raise has ended.")
        before = row.limit_nanos + sum(one.extra_nanos for one in present)
        after = before - current.extra_nanos
        _record(row, actor, "budget.raise_end", (before, after), current)
        current.delete()
        budgets.lock_running([row.id], at)


def in_force(actor: Actor) -> list[BudgetRaise]:
    """Every raise in force of a budget that the actor may see, the next to end first."""
    rows = BudgetRaise.objects.filter(until__gt=now(), budget__in=visible(actor)).select_related("budget")
    return list(rows.order_by("until", "id")[:200])


def _demand(actor: Actor, budget: Budget) -> None:
    permissions.demand(actor, RESOURCE)
    if not may_raise(actor, budget.owner_kind):
        raise Forbidden("A provider's budget is raised by those who may change the provider.")


def _record(row: Budget, actor: Actor, action: str, limits: tuple[int, int], raised: BudgetRaise) -> None:
    before, after = limits
    audit.record(
        actor=actor,
        action=action,
        kind="budget",
        id=row.id,
        name=owner_names([row]).get((row.owner_kind, row.owner_id), ""),
        team_id=team_of(row),
        before={"limit_usd": format_usd(before)},
        after={
            "limit_usd": format_usd(after),
            "extra_usd": format_usd(raised.extra_nanos),
            "until": rfc3339(raised.until),
        },
    )
