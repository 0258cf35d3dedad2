"""The database's part of leases, twice: as plain Python, and through the real functions of PostgreSQL.

Both do what migration 0005 of keys says; a test of the one with the other would show where they differ.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import ParamSpec, Protocol, TypeVar
from uuid import UUID

from keys import leases
from keys.entries import BudgetEntry
from keys.leases import Account, Demand

Place = tuple[UUID, int]  # worker, period
P = ParamSpec("P")
R = TypeVar("R")


class Closed(Exception):
    """The worker's leases were closed."""


class Late(Exception):
    """A later question of the same worker was answered before this one arrived."""


@dataclass
class Lent:
    granted: int = 0
    spent: int = 0

    @property
    def open(self) -> int:
        return max(0, self.granted - self.spent)


@dataclass
class Standing:
    """One period. `allowed`: the limit with the raises in force."""

    budget: UUID
    allowed: int
    settled: int = 0
    leased: int = 0
    uncertain: int = 0
    lent: dict[UUID, Lent] = field(default_factory=dict)

    @property
    def gone(self) -> int:
        return self.settled + self.leased + self.uncertain


class Books(Protocol):
    def enter(self, entry: BudgetEntry) -> None:
        """The budget exists from now on, and is in force."""
        ...

    def open(self, wanted: Sequence[tuple[UUID, datetime, datetime | None]]) -> dict[tuple[UUID, datetime], int]: ...
    def exchange(self, worker: UUID, number: int, demands: Sequence[Demand]) -> list[Account]: ...
    def settle(self, amounts: Mapping[Place, tuple[int, int]]) -> None: ...
    def close(self, worker: UUID) -> int: ...
    def limit(self, budget: UUID, nanos: int) -> None: ...
    def raise_by(self, budget: UUID, nanos: int) -> None:
        """One raise in force, or none for 0."""
        ...

    def look(self) -> dict[int, Standing]: ...


@dataclass
class _Period:
    budget: UUID
    ends_at: datetime | None
    settled: int = 0
    leased: int = 0
    uncertain: int = 0


class MemoryBooks:
    """`now` says what time the windows end by. A planted fault is a method overridden."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._hard: dict[UUID, bool] = {}
        self._limits: dict[UUID, int] = {}
        self._raises: defaultdict[UUID, int] = defaultdict(int)
        self._ids: dict[tuple[UUID, datetime], int] = {}
        self._periods: dict[int, _Period] = {}
        self._lent: dict[Place, Lent] = {}
        self._stopped: set[UUID] = set()
        self._numbers: dict[UUID, int] = {}

    def enter(self, entry: BudgetEntry) -> None:
        self._limits[entry.id], self._hard[entry.id] = entry.limit_nanos, entry.hard

    def open(self, wanted: Sequence[tuple[UUID, datetime, datetime | None]]) -> dict[tuple[UUID, datetime], int]:
        for budget, start, end in wanted:
            if (budget, start) not in self._ids:
                self._ids[budget, start] = len(self._ids) + 1
                self._periods[len(self._ids)] = _Period(budget, end)
        return {(budget, start): self._ids[budget, start] for budget, start, _ in wanted}

    def allowed(self, budget: UUID) -> int:
        return self._limits[budget] + self._raises[budget]

    def arrive(self, worker: UUID, number: int) -> None:
        if worker in self._stopped:
            raise Closed
        if number <= self._numbers.get(worker, 0):
            raise Late
        self._numbers[worker] = number

    def exchange(self, worker: UUID, number: int, demands: Sequence[Demand]) -> list[Account]:
        self.arrive(worker, number)
        return [self._exchange(worker, demand) for demand in sorted(demands, key=lambda one: one.period)]

    def _exchange(self, worker: UUID, demand: Demand) -> Account:
        period, allowed = self._periods[demand.period], self.allowed(self._periods[demand.period].budget)
        lent = self._lent.setdefault((worker, demand.period), Lent())
        was = lent.open
        lent.granted -= demand.back
        room = self.room(period, allowed, was, lent)
        if self._hard[period.budget] and (period.ends_at is None or period.ends_at > self._now()):
            if demand.least > 0 and room >= demand.least:
                lent.granted += min(room, max(demand.least, demand.wanted) + min(demand.ahead, room // 100))
            elif demand.least == 0 and room > 0:
                lent.granted += min(demand.ahead, room // 100)
        period.leased += lent.open - was
        return Account(
            period=demand.period,
            granted=lent.granted,
            spent=lent.spent,
            allowed=allowed,
            settled=period.settled,
            leased=period.leased,
            uncertain=period.uncertain,
            open=lent.open,
        )

    def room(self, period: _Period, allowed: int, was: int, lent: Lent) -> int:
        return allowed - period.settled - period.uncertain - (period.leased - was) - (lent.granted - lent.spent)

    def settle(self, amounts: Mapping[Place, tuple[int, int]]) -> None:
        for (worker, number), (cost, uncertain) in amounts.items():
            period, lent = self._periods[number], self._lent.get((worker, number))
            if lent is not None:
                was = lent.open
                lent.spent += cost + uncertain
                period.leased -= was - lent.open
            period.settled += cost
            period.uncertain += uncertain

    def close(self, worker: UUID) -> int:
        self._stopped.add(worker)
        freed = 0
        for place in [place for place in self._lent if place[0] == worker]:
            gone = self._lent.pop(place).open
            self._periods[place[1]].leased -= gone
            freed += gone
        return freed

    def limit(self, budget: UUID, nanos: int) -> None:
        self._limits[budget] = nanos

    def raise_by(self, budget: UUID, nanos: int) -> None:
        self._raises[budget] = nanos

    def look(self) -> dict[int, Standing]:
        found = {
            number: Standing(one.budget, self.allowed(one.budget), one.settled, one.leased, one.uncertain)
            for number, one in self._periods.items()
        }
        for (worker, number), lent in self._lent.items():
            found[number].lent[worker] = Lent(lent.granted, lent.spent)
        return found


def _outside_the_loop(call: Callable[P, R]) -> Callable[P, R]:
    """Django keeps a connection for each task and refuses to block a loop; the virtual one has nobody else to serve."""

    @wraps(call)
    def outside(*args: P.args, **kwargs: P.kwargs) -> R:
        loop = asyncio._get_running_loop()
        asyncio._set_running_loop(None)
        try:
            return call(*args, **kwargs)
        finally:
            asyncio._set_running_loop(loop)

    return outside


class PostgresBooks:
    """Through the statements that workers, the shipper and the control plane use, over Django's connection."""

    @_outside_the_loop
    def enter(self, entry: BudgetEntry) -> None:
        from keys.models import Budget

        fields = {"owner_kind": entry.owner_kind, "owner_id": entry.id, "limit_nanos": entry.limit_nanos}
        kind = "hard" if entry.hard else "soft"
        Budget.objects.update_or_create(id=entry.id, defaults={**fields, "kind": kind, "epoch_at": entry.epoch_at})

    @_outside_the_loop
    def open(self, wanted: Sequence[tuple[UUID, datetime, datetime | None]]) -> dict[tuple[UUID, datetime], int]:
        return leases.open_periods(wanted)

    @_outside_the_loop
    def exchange(self, worker: UUID, number: int, demands: Sequence[Demand]) -> list[Account]:
        from django.db import DatabaseError, connection, transaction

        asked = leases.arguments(worker, "model", 1, number, demands)
        try:
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute(leases.EXCHANGE, asked)
                return [Account(*row) for row in cursor.fetchall()]
        except DatabaseError as error:
            state = getattr(error.__cause__, "sqlstate", "")
            if state in (leases.CLOSED, leases.LATE):
                raise (Closed if state == leases.CLOSED else Late) from error
            raise

    @_outside_the_loop
    def settle(self, amounts: Mapping[Place, tuple[int, int]]) -> None:
        leases.settle(dict(amounts))

    @_outside_the_loop
    def close(self, worker: UUID) -> int:
        return leases.close(worker)

    @_outside_the_loop
    def limit(self, budget: UUID, nanos: int) -> None:
        from keys.models import Budget

        Budget.objects.filter(id=budget).update(limit_nanos=nanos)

    @_outside_the_loop
    def raise_by(self, budget: UUID, nanos: int) -> None:
        """An ended raise stays as a row: it must not count."""
        from keys.models import BudgetRaise

        at = datetime.now(UTC)
        BudgetRaise.objects.filter(budget_id=budget).update(until=at - timedelta(days=1))
        if nanos:
            BudgetRaise.objects.create(budget_id=budget, extra_nanos=nanos, until=at + timedelta(days=1))

    @_outside_the_loop
    def look(self) -> dict[int, Standing]:
        from django.db import connection

        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT p.id, p.budget_id, b.limit_nanos + coalesce((SELECT sum(extra_nanos) FROM keys_budgetraise r"
                " WHERE r.budget_id = b.id AND r.until > clock_timestamp()), 0)::bigint, p.settled_nanos,"
                " p.leased_nanos, p.uncertain_nanos FROM keys_budgetperiod p JOIN keys_budget b ON b.id = p.budget_id"
            )
            found = {row[0]: Standing(*row[1:]) for row in cursor.fetchall()}
            cursor.execute("SELECT period_id, worker_id, granted_nanos, spent_nanos FROM keys_lease")
            for period, worker, granted, spent in cursor.fetchall():
                found[period].lent[worker] = Lent(granted, spent)
        return found
