"""Budgets: their windows, what is spent of them, and how they are changed. keys/raises.py lifts one for a while.

A window is a `BudgetPeriod` row that is never reset; `period_bounds` says which one an instant belongs to. Windows
start at midnight of the budget's own time zone, weeks on Monday (ISO 8601), whatever clock changes lie between.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Protocol
from uuid import UUID
from zoneinfo import ZoneInfo

from django.db import transaction

from conduit.core import audit
from conduit.core.actor import Actor
from conduit.core.clock import now, rfc3339
from conduit.core.errors import InvalidInput
from conduit.core.money import MAX_NANOS, format_usd
from keys.budget_specs import BudgetSpec, parse_specs
from keys.models import Budget, BudgetPeriod, BudgetRaise, Window

Bounds = tuple[datetime, datetime | None]


@dataclass(frozen=True, slots=True)
class BudgetState:
    """A budget in force with its running period. All amounts in nano-dollars.

    `limit_nanos` is what holds at this moment: `base_nanos` and every raise in force. `held_nanos` is leased to workers
    or kept for uncertain attempts.
    """

    id: UUID
    owner_kind: str
    owner_id: UUID
    limit_nanos: int
    base_nanos: int
    raises: tuple[BudgetRaise, ...]
    window: str
    timezone: str
    kind: str
    unbounded: str
    wait_ms: int
    settled_nanos: int
    held_nanos: int
    period_start: datetime
    resets_at: datetime | None

    @property
    def remaining_nanos(self) -> int:
        """Below zero where a soft budget was overspent or a limit lowered under what was spent."""
        return self.limit_nanos - self.settled_nanos - self.held_nanos

    def outward(self) -> dict[str, Any]:
        """In the contract's names, without the owner."""
        return {
            "id": str(self.id),
            "limit_usd": format_usd(self.limit_nanos),
            "base_limit_usd": format_usd(self.base_nanos),
            "raises": [
                {"id": str(row.id), "extra_usd": format_usd(row.extra_nanos), "until": rfc3339(row.until)}
                for row in self.raises
            ],
            "window": self.window,
            "timezone": self.timezone,
            "kind": self.kind,
            "unbounded": self.unbounded,
            "wait_ms": self.wait_ms,
            "settled_usd": format_usd(self.settled_nanos),
            "held_usd": format_usd(self.held_nanos),
            "remaining_usd": format_usd(self.remaining_nanos),
            "period_start": rfc3339(self.period_start),
            "resets_at": rfc3339(self.resets_at) if self.resets_at else None,
        }


def set_budgets(
    owner_kind: str, owner_id: UUID, specs: Sequence[BudgetSpec | Mapping[str, Any]], *, actor: Actor
) -> None:
    """Makes `specs` the owner's budgets. One of the same window, time zone and kind keeps its id and what was spent.

    The caller has checked that the actor may, and holds the owner's row locked. Raises InvalidInput naming the member.
    """
    wanted = parse_specs(list(specs))
    with transaction.atomic():
        audit.lock()
        at = now()
        # Without the key: the ledger may write a period of such a budget meanwhile, and must not wait for this.
        rows = Budget.objects.select_for_update(no_key=True).filter(
            owner_kind=owner_kind, owner_id=owner_id, removed_at=None
        )
        present = {(row.window, row.timezone, row.kind): row for row in rows.order_by("id")}
        extra = extras([row.id for row in present.values()], at)
        before = [_terms(row) for row in present.values()]
        changed: list[UUID] = []
        for index, spec in enumerate(wanted):
            row = present.pop(spec.identity, None) or Budget(owner_kind=owner_kind, owner_id=owner_id)
            if spec.limit_nanos + extra.get(row.id, 0) > MAX_NANOS:
                raise InvalidInput(
                    f"budgets.{index}.limit_usd", "The amount with its raises is too large.", "too_large"
                )
            if _apply(row, spec, at):
                row.save()
                changed.append(row.id)
        for row in present.values():
            row.removed_at = at
            row.save(update_fields=["removed_at"])
        lock_running([*changed, *(row.id for row in present.values())], at)
        left = Budget.objects.filter(owner_kind=owner_kind, owner_id=owner_id, removed_at=None).order_by("id")
        after = [_terms(row) for row in left]
        if sorted(before, key=str) != sorted(after, key=str):
            audit.record(
                actor=actor,
                action="budget.set",
                kind=owner_kind,
                id=owner_id,
                before={"budgets": before},
                after={"budgets": after},
            )


def lock_running(budgets: Sequence[UUID], at: datetime) -> None:
    """Locks the periods of these budgets that have not ended, in the order of their ids as everybody does.

    Called after a limit was written, in its transaction: a lease that is granted at the same time has seen the limit
    before the change, or waits here and sees it after.
    """
    rows = BudgetPeriod.objects.select_for_update(no_key=True).filter(budget__in=budgets).exclude(ends_at__lte=at)
    list(rows.order_by("id").values_list("id", flat=True))


def raises_in_force(budgets: Iterable[UUID], at: datetime) -> dict[UUID, list[BudgetRaise]]:
    """By budget, the first to end first. What has ended is no longer here: the time alone reverts a raise."""
    found: dict[UUID, list[BudgetRaise]] = defaultdict(list)
    for row in BudgetRaise.objects.filter(budget__in=list(budgets), until__gt=at).order_by("until", "id"):
        found[row.budget_id].append(row)
    return found


def extras(budgets: Iterable[UUID], at: datetime) -> dict[UUID, int]:
    """What the raises in force add to each budget's limit, nano-dollars; a budget without one has no entry."""
    return {
        budget: sum(row.extra_nanos for row in rows) for budget, rows in raises_in_force(budgets, at).items() if rows
    }


def _apply(row: Budget, spec: BudgetSpec, at: datetime) -> bool:
    """Whether the row changed."""
    before = _terms(row)
    row.limit_nanos, row.window, row.timezone, row.kind = spec.limit_nanos, spec.window, spec.timezone, spec.kind
    row.unbounded, row.wait_ms = spec.unbounded, spec.wait_ms
    if spec.reset and not row._state.adding:
        row.epoch_at = at
    return row._state.adding or before != _terms(row)


def _terms(row: Budget) -> dict[str, Any]:
    return {
        "id": str(row.id),
        "limit_usd": format_usd(row.limit_nanos) if row.limit_nanos is not None else None,
        "window": row.window,
        "timezone": row.timezone,
        "kind": row.kind,
        "unbounded": row.unbounded,
        "wait_ms": row.wait_ms,
        "epoch_at": rfc3339(row.epoch_at) if row.epoch_at else None,
    }


def remove_budgets(owner_kind: str, owner_ids: Iterable[UUID]) -> None:
    """Out of force with their owner; rows and periods stay as history."""
    rows = Budget.objects.filter(owner_kind=owner_kind, owner_id__in=list(owner_ids), removed_at=None)
    rows.update(removed_at=now())


class Windowed(Protocol):
    """What decides the windows of a budget."""

    @property
    def window(self) -> str: ...
    @property
    def timezone(self) -> str: ...
    @property
    def created_at(self) -> datetime: ...
    @property
    def epoch_at(self) -> datetime | None: ...


def period_bounds(budget: Windowed, at: datetime) -> Bounds:
    """[start, end) in UTC of the period that `at` belongs to; end None for a lifetime.

    Pure. A reset (`epoch_at`) cuts its window in two: what came before it ends there, the running period begins there.
    A lifetime's first period starts with the budget, and an earlier `at` (a skewed clock) belongs to it too.
    """
    start: datetime
    end: datetime | None
    if budget.window == Window.LIFETIME:
        start, end = budget.created_at, None
    else:
        start, end = _window(budget.window, ZoneInfo(budget.timezone), at)
    epoch = budget.epoch_at
    if epoch is not None and start <= epoch and (end is None or epoch < end):
        return (epoch, end) if at >= epoch else (start, epoch)
    return start, end


def _window(window: str, zone: ZoneInfo, at: datetime) -> tuple[datetime, datetime]:
    first = _first_day(window, at.astimezone(zone).date())
    start, end = _midnight(first, zone), _midnight(_next(window, first), zone)
    # Where clocks go back over midnight one date comes twice; the instant decides, not the date on the wall.
    while at >= end:
        first = _next(window, first)
        start, end = end, _midnight(_next(window, first), zone)
    while at < start:
        first = _first_day(window, first - timedelta(days=1))
        start, end = _midnight(first, zone), start
    return start, end


def _first_day(window: str, day: date) -> date:
    if window == Window.WEEK:
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if window == Window.MONTH else day


def _next(window: str, first: date) -> date:
    if window == Window.MONTH:
        return (first + timedelta(days=31)).replace(day=1)
    return first + timedelta(days=7 if window == Window.WEEK else 1)


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    # fold=0: of two midnights the first; of a midnight that clocks jump over, the instant of the jump.
    return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)


def current(owner_kind: str, owner_id: UUID, at: datetime | None = None) -> list[BudgetState]:
    """The owner's budgets in force, oldest first."""
    return states(owner_kind, [owner_id], at)[owner_id]


def states(owner_kind: str, owner_ids: Iterable[UUID], at: datetime | None = None) -> dict[UUID, list[BudgetState]]:
    """`current` of many owners in two queries; every owner asked for has an entry."""
    found: dict[UUID, list[BudgetState]] = {owner_id: [] for owner_id in owner_ids}
    rows = Budget.objects.filter(owner_kind=owner_kind, owner_id__in=list(found), removed_at=None).order_by("id")
    for state in states_of(list(rows), at):
        found[state.owner_id].append(state)
    return found


def states_of(rows: Sequence[Budget], at: datetime | None = None) -> list[BudgetState]:
    """The running period of each budget; one that nothing was spent in yet has no row and counts 0."""
    if not rows:
        return []
    at = at or now()
    bounds = {row.id: period_bounds(row, at) for row in rows}
    raised = raises_in_force(bounds, at)
    spent: dict[UUID, dict[datetime, BudgetPeriod]] = defaultdict(dict)
    starts = {start for start, _ in bounds.values()}
    for period in BudgetPeriod.objects.filter(budget__in=list(bounds), starts_at__in=starts):
        spent[period.budget_id][period.starts_at] = period
    return [
        _state(row, bounds[row.id], spent[row.id].get(bounds[row.id][0]), tuple(raised.get(row.id, ()))) for row in rows
    ]


def _state(row: Budget, bounds: Bounds, period: BudgetPeriod | None, raises: tuple[BudgetRaise, ...]) -> BudgetState:
    return BudgetState(
        id=row.id,
        owner_kind=row.owner_kind,
        owner_id=row.owner_id,
        limit_nanos=row.limit_nanos + sum(one.extra_nanos for one in raises),
        base_nanos=row.limit_nanos,
        raises=raises,
        window=row.window,
        timezone=row.timezone,
        kind=row.kind,
        unbounded=row.unbounded,
        wait_ms=row.wait_ms,
        settled_nanos=period.settled_nanos if period else 0,
        held_nanos=period.leased_nanos + period.uncertain_nanos if period else 0,
        period_start=bounds[0],
        resets_at=bounds[1],
    )
