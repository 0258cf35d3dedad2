"""Journal records into usage events, rollups and budget periods: in one transaction, each attempt exactly once.

The proof that nothing counts twice is the primary key (time, attempt id): only rows that the INSERT really inserted are
added to rollups and periods, in the same transaction, and the journal cursor moves in it too. So a batch may be applied
again after any crash, by anyone, at the same time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
from django.db import DataError, connection, transaction

from conduit.core import clock
from keys import leases
from keys.budgets import period_bounds
from keys.models import Budget, BudgetPeriod
from usage import partitions, rollups
from usage.models import Exactness, Outcome
from usage.records import Attempt, Dispatched, Ended, Settled
from usage.staging import COLUMNS, copy_text

_STAGING = (
    "CREATE TEMPORARY TABLE IF NOT EXISTS usage_staging (LIKE usage_event INCLUDING DEFAULTS) ON COMMIT DELETE ROWS"
)
# Returns the staged rows that were there before.
_INSERT = f"""
WITH inserted AS (
  INSERT INTO usage_event ({COLUMNS}) SELECT {COLUMNS} FROM usage_staging ON CONFLICT DO NOTHING RETURNING *
), {rollups.steps("inserted")}
SELECT id FROM usage_staging EXCEPT SELECT id FROM inserted
"""  # noqa: S608 (own names)

_CURSOR = """
INSERT INTO usage_journalcursor AS c (segment, node, position, closed, updated_at)
SELECT segment, %(node)s, position, closed, %(at)s
  FROM unnest(%(segments)s::text[], %(positions)s::bigint[], %(closed)s::bool[]) AS moved (segment, position, closed)
 ORDER BY segment
ON CONFLICT (segment) DO UPDATE SET position = greatest(c.position, excluded.position),
  closed = c.closed OR excluded.closed, updated_at = excluded.updated_at
"""

_UNCERTAIN = """
INSERT INTO keys_uncertainattempt (id, time, team_id, held_nanos, periods, node, reason, created_at, resolved_by)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, '') ON CONFLICT DO NOTHING
"""
NOBODY = UUID(int=0)  # the worker of a record that no lease stood behind


@dataclass(frozen=True, slots=True)
class Advance:
    """`segment` is applied up to `position` (bytes); `closed`: nothing is left in it."""

    segment: str
    position: int
    closed: bool = False


@dataclass(slots=True)
class Applied:
    """What one batch did. `rejected` could not be stored at all, for a reason that lies in the record itself."""

    inserted: int = 0
    duplicates: int = 0
    cost_nanos: int = 0
    rejected: list[tuple[Ended, str]] = field(default_factory=list)


def uncertain(record: Dispatched) -> Settled:
    """The event of an attempt whose worker died before it settled: cost unknown, its hold stays on record."""
    return Settled(
        **{name: getattr(record, name) for name in Dispatched.__struct_fields__},
        status=0,
        outcome=Outcome.ERROR.value,
        exactness=Exactness.UNCERTAIN.value,
        error_code="uncertain",
        error_message="The worker ended before the answer did; whether the provider bills it is not known.",
    )


def apply(records: Iterable[Attempt], *, node: str = "", advances: Sequence[Advance] = ()) -> Applied:
    """Applies settled and refused records (`Dispatched` ones are ignored) and moves the cursors, or does nothing.

    Raises django.db.OperationalError when the database is away or two shippers met: apply the same batch again.
    """
    ended = [record for record in records if isinstance(record, Ended)]
    if ended:
        partitions.ensure(_months(ended))
    applied = Applied()
    with transaction.atomic():
        _insert(ended, applied, node)
        _advance(node, advances)
    return applied


def _months(records: list[Ended]) -> set[datetime]:
    hours = {record.time_us // 3_600_000_000 for record in records}
    return {partitions.month_of(datetime.fromtimestamp(hour * 3600, UTC)) for hour in hours}


def _insert(records: list[Ended], applied: Applied, node: str) -> None:
    """Halves a batch that PostgreSQL refuses for its content until the one bad record is found and set aside."""
    if not records:
        return
    try:
        with transaction.atomic():
            placed = _placed(records)
            duplicates = _copy(placed)
            new = _first_of_each(placed, duplicates)
            _settle(new, node)
    except (DataError, OverflowError) as error:
        if len(records) == 1:
            applied.rejected.append((records[0], str(error).splitlines()[0]))
            return
        middle = len(records) // 2
        _insert(records[:middle], applied, node)
        _insert(records[middle:], applied, node)
        return
    applied.inserted += len(new)
    applied.duplicates += len(records) - len(new)
    applied.cost_nanos += sum(record.cost_nanos for record in new)


def _copy(records: list[Ended]) -> set[bytes]:
    """Stages and inserts; returns the attempt ids that were in usage_event before."""
    with connection.cursor() as cursor:
        cursor.execute(_STAGING)
        cursor.execute("DELETE FROM usage_staging")
        # Django wraps what its own cursor methods raise; `copy` is the driver's.
        with connection.wrap_database_errors, cursor.copy(f"COPY usage_staging ({COLUMNS}) FROM STDIN") as copy:
            copy.write(copy_text(records))
        cursor.execute(_INSERT)
        return {attempt_id.bytes for (attempt_id,) in cursor.fetchall()}


def _first_of_each(records: list[Ended], duplicates: set[bytes]) -> list[Ended]:
    first: dict[bytes, Ended] = {}
    for record in records:
        first.setdefault(record.attempt_id, record)
    return [record for attempt_id, record in first.items() if attempt_id not in duplicates]


def _settle(records: list[Ended], node: str) -> None:
    """Moves each cost from the lease that held it to its periods; what is uncertain is set aside there."""
    amounts: defaultdict[tuple[UUID, int], list[int]] = defaultdict(lambda: [0, 0])
    for record in records:
        uncertain_ = record.exactness == Exactness.UNCERTAIN.value
        worker = UUID(bytes=record.worker) if record.worker else NOBODY
        for period in set(record.periods) if record.cost_nanos or uncertain_ else ():
            amounts[worker, period][0] += record.cost_nanos
            amounts[worker, period][1] += record.held_nanos if uncertain_ else 0
    leases.settle({place: (cost, held) for place, (cost, held) in amounts.items()})
    doubtful = [record for record in records if record.exactness == Exactness.UNCERTAIN.value]
    if doubtful:
        with connection.cursor() as cursor:
            cursor.executemany(_UNCERTAIN, [_uncertain_row(record, node) for record in doubtful])


def _uncertain_row(record: Ended, node: str) -> list[Any]:
    return [
        UUID(bytes=record.attempt_id),
        instant(record.time_us),
        UUID(bytes=record.team_id) if record.team_id else None,
        record.held_nanos,
        sorted(set(record.periods)),
        node,
        record.error_code,
        clock.now(),
    ]


_Period = tuple[UUID, datetime, datetime | None]


def _placed(records: list[Ended]) -> list[Ended]:
    """With the periods that a worker could not name, found by the attempt's time; a budget deleted for good has none.

    The records that came stay as they are: when this transaction fails, the periods it made are gone with it.
    """
    lost = [record for record in records if record.budgets and (0 in record.periods or not record.periods)]
    if not lost:
        return records
    ids = {UUID(bytes=budget) for record in lost for budget in record.budgets}
    budgets = {budget.id.bytes: budget for budget in Budget.objects.filter(id__in=ids)}
    resets = _resets([budget for budget in budgets.values() if budget.epoch_at is not None])
    places: dict[tuple[bytes, bytes], _Period] = {}
    running: dict[bytes, tuple[int, int, _Period]] = {}
    for record in lost:
        for budget_id in set(record.budgets) & budgets.keys():
            period = running.get(budget_id)
            if period is None or not period[0] <= record.time_us < period[1]:
                budget = budgets[budget_id]
                period = running[budget_id] = _period(budget, record.time_us, resets.get(budget.id, []))
            places[record.attempt_id, budget_id] = period[2]
    rows = leases.open_periods(sorted(set(places.values()), key=lambda period: period[:2]))
    found = {}
    for record in lost:
        known = dict(zip(record.budgets, record.periods, strict=True)) if record.periods else {}
        named = [known.get(budget) or _row(rows, places.get((record.attempt_id, budget))) for budget in record.budgets]
        found[record.attempt_id] = [period for period in named if period]
    return [
        msgspec.structs.replace(record, periods=found[record.attempt_id]) if record.attempt_id in found else record
        for record in records
    ]


def _row(rows: dict[tuple[UUID, datetime], int], period: _Period | None) -> int:
    return rows.get(period[:2], 0) if period else 0


def _resets(budgets: list[Budget]) -> dict[UUID, list[datetime]]:
    """Where the periods of budgets that were reset begin: a budget keeps only its last reset, its periods keep all."""
    starts: defaultdict[UUID, list[datetime]] = defaultdict(list)
    for period in BudgetPeriod.objects.filter(budget__in=budgets).order_by("starts_at"):
        starts[period.budget_id].append(period.starts_at)
    return starts


def _period(budget: Budget, time_us: int, starts: list[datetime]) -> tuple[int, int, _Period]:
    """The instants between which the answer holds, and the period. Nothing is spent before a budget was made: such a
    time comes from another node's clock."""
    at = max(instant(time_us), budget.created_at)
    starts_at, ends_at = period_bounds(budget, at)
    inner = [start for start in starts if starts_at < start <= at]
    later = [start for start in starts if start > at]
    starts_at = max(inner, default=starts_at)
    holds_until = min([*later, *([ends_at] if ends_at else [])], default=None)
    end_us = 2**63 if holds_until is None else microseconds(holds_until)
    return microseconds(starts_at), end_us, (budget.id, starts_at, ends_at)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def instant(time_us: int) -> datetime:
    seconds, micros = divmod(time_us, 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=micros)


def microseconds(at: datetime) -> int:
    since = at - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _advance(node: str, advances: Sequence[Advance]) -> None:
    if advances:
        moved: dict[str, Any] = {
            "node": node,
            "at": clock.now(),
            "segments": [advance.segment for advance in advances],
            "positions": [advance.position for advance in advances],
            "closed": [advance.closed for advance in advances],
        }
        with connection.cursor() as cursor:
            cursor.execute(_CURSOR, moved)
