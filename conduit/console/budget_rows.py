"""Budgets as pages show them: figures for a meter, how near the limit is, and where the pace of now would lead."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from conduit.core import wording
from keys.budgets import BudgetState
from keys.models import BudgetRaise

EARLY = 20  # a forecast needs a twentieth of the window behind it
TIGHT = 20  # and less than a twentieth of the limit left at the end is tight


@dataclass(frozen=True, slots=True)
class Meter:
    """A budget as a page shows it. `left` is below zero where it is overdrawn; `free` never is."""

    id: UUID
    owner: str
    limit: int
    base: int
    raises: tuple[BudgetRaise, ...]
    settled: int
    held: int
    window: str
    timezone: str
    kind: str
    period_start: datetime
    resets_at: datetime | None

    @property
    def used(self) -> int:
        return self.settled + self.held

    @property
    def left(self) -> int:
        return self.limit - self.used

    @property
    def free(self) -> int:
        return max(self.left, 0)

    @property
    def digits(self) -> int:
        """One precision for its figures."""
        return wording.digits_for([self.limit, self.settled])

    @property
    def reverts_at(self) -> datetime | None:
        """When the first raise ends."""
        return self.raises[0].until if self.raises else None


def meter_of(state: BudgetState, owner: str) -> Meter:
    return Meter(
        id=state.id,
        owner=owner,
        limit=state.limit_nanos,
        base=state.base_nanos,
        raises=state.raises,
        settled=state.settled_nanos,
        held=state.held_nanos,
        window=state.window,
        timezone=state.timezone,
        kind=state.kind,
        period_start=state.period_start,
        resets_at=state.resets_at,
    )


def level(meters: Iterable[Meter]) -> str:
    """How near the tightest hard budget is: empty, warn (80 %) or bad (98 %)."""
    hard = [m for m in meters if m.kind == "hard"]
    if any(m.used * 100 >= m.limit * 98 for m in hard):
        return "bad"
    return "warn" if any(m.used * 100 >= m.limit * 80 for m in hard) else ""


@dataclass(frozen=True, slots=True)
class Pace:
    """`kind` is empty, warn or bad."""

    kind: str
    words: str


def pace(meter: Meter, at: datetime) -> Pace:
    """What is so already, else where spending goes on as until now leads by the end of the window."""
    worst = "bad" if meter.kind == "hard" else "warn"
    if meter.settled > meter.limit:
        return Pace(worst, f"over by {wording.usd(meter.settled - meter.limit)}")
    if meter.limit == 0:
        return Pace(worst, "blocks every request" if meter.kind == "hard" else "limit of $0")
    if meter.left <= 0:
        return Pace(worst, "used up" if meter.settled == meter.limit else "all of it settled or held")
    if meter.resets_at is None:
        return Pace("", wording.DASH)
    behind, whole = at - meter.period_start, meter.resets_at - meter.period_start
    if behind * EARLY < whole:
        return Pace("", "too early to say")
    expected = meter.settled * (whole // behind.resolution) // (behind // behind.resolution)
    if expected > meter.limit:
        ends = meter.period_start + behind * (meter.limit / meter.settled)
        return Pace("warn", f"runs out {_day(ends, at)}")
    left = meter.limit - expected
    words = f"about {wording.usd(left, 0 if left >= wording.NANOS else None)} left"
    return Pace("warn", f"tight: {words}") if left * TIGHT < meter.limit else Pace("", words)


def _day(moment: datetime, at: datetime) -> str:
    """Today as a time of the day, else the date."""
    return f"at {moment:%H:%M}" if moment.date() == at.date() else f"{moment:%a} {moment.day} {moment:%b}"
