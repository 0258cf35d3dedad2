"""Budgets: what they may be, their windows, and what is spent of them.

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
from zoneinfo import ZoneInfo, available_timezones

from django.db import transaction

from conduit.core import audit
from conduit.core.actor import Actor
from conduit.core.clock import now, rfc3339
from conduit.core.errors import InvalidInput
from conduit.core.fields import nearest, parse_choice, parse_whole
from conduit.core.money import MoneyError, format_usd, parse_usd
from keys.models import Budget, BudgetPeriod, Window

KINDS = ("hard", "soft")
UNBOUNDED = ("deny", "exclusive", "soft")
MOST = 16
LONGEST_WAIT = 60_000
Bounds = tuple[datetime, datetime | None]


@dataclass(frozen=True, slots=True)
class BudgetSpec:
    """What is asked for. `limit_nanos` 0 blocks everything. `reset`: the running period begins anew."""

    limit_nanos: int
    window: str = Window.LIFETIME
    timezone: str = "UTC"
    kind: str = "hard"
    unbounded: str = "deny"
    wait_ms: int = 2000
    reset: bool = False

    @property
    def identity(self) -> tuple[str, str, str]:
        """What makes it the same budget as before an edit."""
        return self.window, self.timezone, self.kind


@dataclass(frozen=True, slots=True)
class BudgetState:
    """A budget in force with its running period. `held_nanos` is leased to workers; all amounts in nano-dollars."""

    id: UUID
    owner_kind: str
    owner_id: UUID
    limit_nanos: int
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

    def terms(self) -> dict[str, Any]:
        """What was agreed, in the contract's names, without what changes by itself."""
        return {
            "id": str(self.id),
            "limit_usd": format_usd(self.limit_nanos),
            "window": self.window,
            "timezone": self.timezone,
            "kind": self.kind,
            "unbounded": self.unbounded,
            "wait_ms": self.wait_ms,
        }

    def outward(self) -> dict[str, Any]:
        return {
            **self.terms(),
            "settled_usd": format_usd(self.settled_nanos),
            "held_usd": format_usd(self.held_nanos),
            "remaining_usd": format_usd(self.remaining_nanos),
            "period_start": rfc3339(self.period_start),
            "resets_at": rfc3339(self.resets_at) if self.resets_at else None,
        }


def _limit(value: object) -> int:
    try:
        nanos = parse_usd(value)  # type: ignore[arg-type]  # it refuses other types itself
    except MoneyError as error:
        raise InvalidInput("", f"The amount {error}.", "invalid_amount") from None
    if nanos < 0:
        raise InvalidInput("", "The amount must not be negative.", "too_small")
    return nanos


def _timezone(value: object) -> str:
    names = available_timezones()
    if not isinstance(value, str) or value not in names:
        meant = nearest(value, names) if isinstance(value, str) else ""
        raise InvalidInput("", f'Must be an IANA time zone such as "Europe/Berlin".{meant}', "unknown_timezone")
    return value


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidInput("", "Must be true or false.", "invalid_flag")
    return value


_PARSERS = {
    "limit_usd": ("limit_nanos", _limit),
    "window": ("window", lambda value: parse_choice(value, Window.values)),
    "timezone": ("timezone", _timezone),
    "kind": ("kind", lambda value: parse_choice(value, KINDS)),
    "unbounded": ("unbounded", lambda value: parse_choice(value, UNBOUNDED)),
    "wait_ms": ("wait_ms", lambda value: parse_whole(value, 0, LONGEST_WAIT)),
    "reset": ("reset", _flag),
}


def parse_spec(value: object) -> BudgetSpec:
    """One item of `budgets`. Raises InvalidInput naming the member."""
    if isinstance(value, BudgetSpec):
        return value
    if not isinstance(value, Mapping):
        raise InvalidInput("", "Must be an object.", "invalid_object")
    found: dict[str, Any] = {}
    for name, member in value.items():
        if name not in _PARSERS:
            raise InvalidInput(str(name), f"There is no such field.{nearest(str(name), _PARSERS)}", "unknown_field")
        attribute, parse = _PARSERS[name]
        try:
            found[attribute] = parse(member)
        except InvalidInput as error:
            raise InvalidInput(name, error.detail, error.code) from None
    if "limit_nanos" not in found:
        raise InvalidInput("limit_usd", "This field is required.", "required")
    return BudgetSpec(**found)


def parse_specs(value: object, field: str = "budgets") -> list[BudgetSpec]:
    """The whole list. Raises InvalidInput with a field such as `budgets.0.limit_usd`."""
    if not isinstance(value, (list, tuple)):
        raise InvalidInput(field, "Must be a list.", "invalid_list")
    if len(value) > MOST:
        raise InvalidInput(field, f"Must have at most {MOST} members.", "too_many")
    specs: list[BudgetSpec] = []
    for index, member in enumerate(value):
        try:
            spec = parse_spec(member)
        except InvalidInput as error:
            inner = f".{error.field}" if error.field else ""
            raise InvalidInput(f"{field}.{index}{inner}", error.detail, error.code) from None
        if spec.identity in {other.identity for other in specs}:
            raise InvalidInput(f"{field}.{index}", "There is already one of this window, time zone and kind.", "double")
        specs.append(spec)
    return specs


def set_budgets(
    owner_kind: str, owner_id: UUID, specs: Sequence[BudgetSpec | Mapping[str, Any]], *, actor: Actor
) -> None:
    """Makes `specs` the owner's budgets. One of the same window, time zone and kind keeps its id and what was spent.

    The caller has checked that the actor may, and holds the owner's row locked.
    """
    wanted = parse_specs(list(specs))
    with transaction.atomic():
        at = now()
        rows = Budget.objects.select_for_update().filter(owner_kind=owner_kind, owner_id=owner_id, removed_at=None)
        present = {(row.window, row.timezone, row.kind): row for row in rows}
        before = [_terms(row) for row in present.values()]
        for spec in wanted:
            row = present.pop(spec.identity, None) or Budget(owner_kind=owner_kind, owner_id=owner_id)
            if _apply(row, spec, at):
                row.save()
        for row in present.values():
            row.removed_at = at
            row.save(update_fields=["removed_at"])
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
    at = at or now()
    bounds = {row.id: period_bounds(row, at) for row in rows}
    spent: dict[UUID, dict[datetime, BudgetPeriod]] = defaultdict(dict)
    starts = {start for start, _ in bounds.values()}
    for period in BudgetPeriod.objects.filter(budget__in=[row.id for row in rows], starts_at__in=starts):
        spent[period.budget_id][period.starts_at] = period
    return [_state(row, bounds[row.id], spent[row.id].get(bounds[row.id][0])) for row in rows]


def _state(row: Budget, bounds: Bounds, period: BudgetPeriod | None) -> BudgetState:
    return BudgetState(
        id=row.id,
        owner_kind=row.owner_kind,
        owner_id=row.owner_id,
        limit_nanos=row.limit_nanos,
        window=row.window,
        timezone=row.timezone,
        kind=row.kind,
        unbounded=row.unbounded,
        wait_ms=row.wait_ms,
        settled_nanos=period.settled_nanos if period else 0,
        held_nanos=period.leased_nanos if period else 0,
        period_start=bounds[0],
        resets_at=bounds[1],
    )
