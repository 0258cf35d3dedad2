"""Which worker holds how much of an owner's budgets at this moment, for a page."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from django.db.models import F

from keys.budgets import BudgetState
from keys.models import BudgetPeriod, Lease


@dataclass(frozen=True, slots=True)
class Held:
    """Nano-dollars of one budget's running period, as of the holder's last renewal.

    `lent_nanos` is what a worker may still spend without asking; of it `in_flight_nanos` is held by requests it is
    serving. What uncertain attempts hold belongs to no worker: its `worker` is empty.
    """

    window: str
    worker: str
    seen_at: datetime | None
    lent_nanos: int
    in_flight_nanos: int


def held_now(states: Iterable[BudgetState]) -> list[Held]:
    """By window, the largest first. The sum of `lent_nanos` over a budget is its held amount."""
    wanted = {(state.id, state.period_start): state for state in states}
    periods = BudgetPeriod.objects.filter(
        budget__in={budget for budget, _ in wanted}, starts_at__in={start for _, start in wanted}
    )
    running = {row.id: row for row in periods if (row.budget_id, row.starts_at) in wanted}
    windows = {row.id: wanted[row.budget_id, row.starts_at].window for row in running.values()}
    leases = Lease.objects.filter(period__in=list(running), granted_nanos__gt=F("spent_nanos")).select_related("worker")
    found = [
        Held(
            window=windows[lease.period_id],
            worker=str(lease.worker),
            seen_at=lease.worker.seen_at,
            lent_nanos=lease.open_nanos,
            in_flight_nanos=min(lease.held_nanos, lease.open_nanos),
        )
        for lease in leases
    ]
    found += [
        Held(windows[row.id], "", None, row.uncertain_nanos, 0) for row in running.values() if row.uncertain_nanos
    ]
    return sorted(found, key=lambda held: (held.window, -held.lent_nanos))
