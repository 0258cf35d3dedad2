"""Leases in the database: what a worker asks of it, and what the ledger tells it (functions of migration 0005).

Of a hard budget's period, at every commit: settled + leased + uncertain <= limit. `exchange` is the only thing that
raises `leased`; `settle` moves money from a lease to settled (or uncertain), `close` ends what a dead worker held.
All amounts are nano-dollars.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

import msgspec
from django.db import connection

# SQLSTATEs of `exchange`: the worker's leases were closed; a later question of the worker was answered before.
CLOSED, LATE = "CDT01", "CDT02"

EXCHANGE = """
SELECT o_period, o_granted, o_spent, o_allowed, o_settled, o_leased, o_uncertain, o_open FROM conduit_exchange(
  %(worker)s, %(node)s, %(pid)s, %(number)s, %(period)s::bigint[], %(back)s::bigint[], %(held)s::bigint[],
  %(least)s::bigint[], %(wanted)s::bigint[], %(ahead)s::bigint[], %(recall)s::boolean[])
"""
OPEN = """
WITH wanted AS (
  SELECT * FROM unnest(%(budgets)s::uuid[], %(starts)s::timestamptz[], %(ends)s::timestamptz[])
    AS t (budget_id, starts_at, ends_at)
), made AS (
  INSERT INTO keys_budgetperiod (budget_id, starts_at, ends_at, settled_nanos, leased_nanos, uncertain_nanos)
  SELECT budget_id, starts_at, ends_at, 0, 0, 0 FROM wanted WHERE EXISTS (
    SELECT 1 FROM keys_budget b WHERE b.id = wanted.budget_id)
   ORDER BY budget_id, starts_at
  ON CONFLICT (budget_id, starts_at) DO NOTHING RETURNING id, budget_id, starts_at
)
SELECT id, budget_id, starts_at FROM made
UNION ALL SELECT p.id, p.budget_id, p.starts_at FROM keys_budgetperiod p JOIN wanted USING (budget_id, starts_at)
"""


class Demand(msgspec.Struct):
    """One period of an exchange.

    `back` is returned; then `least` or nothing is granted, up to `wanted`, and up to `ahead` more (never more than a
    hundredth of what is free). `held` is what requests in flight hold, to be shown. `recall`: ask others for theirs.
    """

    period: int
    back: int = 0
    held: int = 0
    least: int = 0
    wanted: int = 0
    ahead: int = 0
    recall: bool = False


class Account(msgspec.Struct):
    """A period after an exchange. `granted` less what was given back, `spent` (by the ledger) and `open` are the asking
    worker's lease; `allowed` is the limit with the raises in force; `leased` goes over all workers."""

    period: int
    granted: int
    spent: int
    allowed: int
    settled: int
    leased: int
    uncertain: int
    open: int


class BankAway(Exception):
    """The database cannot be asked."""


class Bank(Protocol):
    """How a worker reaches the database. Both raise BankAway."""

    async def open(self, periods: Sequence[tuple[UUID, datetime, datetime | None]]) -> dict[tuple[UUID, datetime], int]:
        """(budget, start, end) of periods to their row ids, made where they are new."""
        ...

    async def exchange(self, demands: Sequence[Demand]) -> list[Account]: ...


def arguments(worker: UUID, node: str, pid: int, number: int, demands: Sequence[Demand]) -> dict[str, Any]:
    """Of EXCHANGE. `number` counts the worker's questions."""
    named: dict[str, Any] = {"worker": worker, "node": node, "pid": pid, "number": number}
    return named | {name: [getattr(demand, name) for demand in demands] for name in Demand.__struct_fields__}


def open_periods(periods: Iterable[tuple[UUID, datetime, datetime | None]]) -> dict[tuple[UUID, datetime], int]:
    """The same as Bank.open, from the control plane. A budget that does not exist has no period."""
    wanted = list(periods)
    if not wanted:
        return {}
    with connection.cursor() as cursor:
        found: dict[tuple[UUID, datetime], int] = {}
        for _ in range(2):  # a row that another transaction committed meanwhile is neither made nor seen: look again
            cursor.execute(OPEN, open_arguments(wanted))
            found |= {(budget, start): row for row, budget, start in cursor.fetchall()}
            if len(found) == len({(budget, start) for budget, start, _ in wanted}):
                break
    return found


def open_arguments(periods: Sequence[tuple[UUID, datetime, datetime | None]]) -> dict[str, Any]:
    """Of OPEN."""
    budgets, starts, ends = zip(*periods, strict=True)
    return {"budgets": list(budgets), "starts": list(starts), "ends": list(ends)}


def settle(amounts: dict[tuple[UUID, int], tuple[int, int]]) -> None:
    """(worker, period) to (cost, uncertain holds) of attempts that are new in the ledger, in their transaction."""
    if amounts:
        places = sorted(amounts, key=lambda place: (place[1], place[0]))
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT conduit_settle(%s::uuid[], %s::bigint[], %s::bigint[], %s::bigint[])",
                [
                    [worker for worker, _ in places],
                    [period for _, period in places],
                    [amounts[place][0] for place in places],
                    [amounts[place][1] for place in places],
                ],
            )


def close(worker: UUID) -> int:
    """Ends a worker's leases, once nothing it journalled is left to settle; returns what was open, nano-dollars."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT conduit_close(%s)", [worker])
        row = cursor.fetchone()
    return int(row[0]) if row else 0
