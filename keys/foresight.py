"""What a hold would meet, without taking it: for dry runs from a worker's slices, for simulations from the database.

The answer is that of keys/holds.py for a request that comes alone: `exceeded` can never fit, `waits` has only holds in
flight in its way, `unavailable` has no figures to decide by.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Literal

import msgspec
from django.db.models import Sum

from keys.budgets import period_bounds
from keys.entries import BudgetEntry
from keys.models import BudgetPeriod, BudgetRaise, Lease
from keys.slices import NEVER, Request, Slice, amount, runs_alone

Result = Literal["fits", "waits", "exceeded", "unavailable"]


class Prospect(msgspec.Struct, frozen=True):
    """One budget's answer. `needed` is the least that has to be free there, `hold` what would be held, nano-dollars."""

    slice: Slice
    needed: int
    hold: int
    result: Result

    @property
    def waits(self) -> bool:
        return self.result == "waits"

    @property
    def passes(self) -> bool:
        """A budget that lets nobody wait refuses what would have to."""
        return self.result == "fits" or (self.waits and self.slice.entry.wait_ms > 0)


def foresee(slices: Sequence[Slice], request: Request) -> list[Prospect]:
    """One for each slice, in order. Nothing is changed."""
    hard = [one for one in slices if one.hard]
    hold = amount(request, hard) if hard else request.most
    return [_prospect(one, request, hold) for one in slices]


def _prospect(one: Slice, request: Request, hold: int) -> Prospect:
    if not one.hard:
        return Prospect(one, 0, 0, "fits")
    needed, in_flight = max(1, request.least), one.held + one.elsewhere
    if one.told == NEVER:
        return Prospect(one, needed, hold, "unavailable")
    alone = runs_alone(request, one)
    if alone:
        hold = max(needed, one.remaining)
    elif request.unbounded and one.entry.unbounded == "soft":
        return Prospect(one, 0, max(0, min(hold, one.remaining - in_flight)), "fits")
    if needed > one.remaining:
        return Prospect(one, needed, hold, "exceeded")
    waits = in_flight > 0 if alone else hold > one.remaining - in_flight
    return Prospect(one, needed, hold, "waits" if waits else "fits")


def read_slices(budgets: Iterable[BudgetEntry], at: datetime) -> list[Slice]:
    """The running periods as the database knows them, one slice for each budget, as a worker that holds nothing would
    see them. `elsewhere` is what requests in flight hold by the workers' last renewal."""
    entries = list(budgets)
    ids = [entry.id for entry in entries]
    starts = {entry.id: period_bounds(entry, at)[0] for entry in entries}
    periods = {
        period.budget_id: period
        for period in BudgetPeriod.objects.filter(budget__in=ids, starts_at__in=set(starts.values()))
        if period.starts_at == starts[period.budget_id]
    }
    raised = (
        BudgetRaise.objects.filter(budget__in=ids, until__gt=at).values("budget").annotate(extra=Sum("extra_nanos"))
    )
    extras = {row["budget"]: int(row["extra"]) for row in raised}
    rows = [period.id for period in periods.values()]
    leases = Lease.objects.filter(period__in=rows).values("period").annotate(held=Sum("held_nanos"))
    held = {row["period"]: int(row["held"]) for row in leases}
    return [_slice(entry, at, periods.get(entry.id), extras.get(entry.id, 0), held) for entry in entries]


def _slice(entry: BudgetEntry, at: datetime, period: BudgetPeriod | None, extra: int, held: dict[int, int]) -> Slice:
    one = Slice(entry, at.timestamp())
    one.told, one.allowed = 0.0, entry.limit_nanos + extra
    if period is not None:
        one.period, one.base = period.id, period.settled_nanos + period.uncertain_nanos
        one.elsewhere = held.get(period.id, 0)
    return one
