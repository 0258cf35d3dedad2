"""What each budget has settled, as this worker knows it: read from the database each second, raised by own requests.

Settled spend of a period only grows, so the greater of "what the database said" and "what this worker added to it
since" is never above the truth. A budget refuses once its settled spend has reached the limit. Until budgets are
leased to workers, requests already in flight when that happens are still served: a hard limit can be overshot by what
is in flight (docs/guarantees.md).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from uuid import UUID

from keys.entries import BudgetEntry

FAR = float("inf")


class _Period:
    __slots__ = ("end", "settled", "start")

    def __init__(self, entry: BudgetEntry, at: float) -> None:
        start, end = entry.bounds(datetime.fromtimestamp(at, UTC))
        self.start = start.timestamp()
        self.end = FAR if end is None else end.timestamp()
        self.settled = 0


class Spending:
    """Not thread-safe: used by the event loop's thread only. Amounts are nano-dollars, times Unix seconds."""

    def __init__(self) -> None:
        self._periods: dict[UUID, _Period] = {}
        self._entries: dict[UUID, BudgetEntry] = {}

    def track(self, budgets: Iterable[BudgetEntry], settled: Mapping[tuple[UUID, float], int]) -> None:
        """Starts to follow these budgets; `settled` is what keys.entries.settled() answered for them."""
        at = time.time()
        for entry in budgets:
            self._entries[entry.id] = entry
            self._periods[entry.id] = self._refreshed(entry, at)
        self.update(settled)

    def _refreshed(self, entry: BudgetEntry, at: float) -> _Period:
        fresh, old = _Period(entry, at), self._periods.get(entry.id)
        if old is not None and old.start == fresh.start:
            fresh.settled = old.settled
        return fresh

    def update(self, settled: Mapping[tuple[UUID, float], int]) -> None:
        for (budget, start), nanos in settled.items():
            period = self._periods.get(budget)
            if period is not None and period.start == start:
                period.settled = max(period.settled, nanos)

    def settled(self, entry: BudgetEntry) -> int:
        """In the period that runs now."""
        period = self._periods.get(entry.id)
        at = time.time()
        if period is None or at >= period.end:
            period = self._periods[entry.id] = _Period(entry, at)
            self._entries[entry.id] = entry
        return period.settled

    def resets_at(self, entry: BudgetEntry) -> datetime | None:
        period = self._periods.get(entry.id)
        return None if period is None or period.end == FAR else datetime.fromtimestamp(period.end, UTC)

    def add(self, budgets: Iterable[BudgetEntry], nanos: int) -> None:
        for entry in budgets:
            self.settled(entry)
            self._periods[entry.id].settled += nanos

    def followed(self) -> list[UUID]:
        return list(self._entries)

    def forget(self) -> None:
        """Follows no budget any more; they come back with the keys that are read again. What this worker has spent in
        a period that still runs stays known: the database may not have it yet."""
        at = time.time()
        self._entries.clear()
        self._periods = {budget: period for budget, period in self._periods.items() if period.end > at}
