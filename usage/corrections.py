"""Changing one usage event's cost with its rollups: the only place where an event is written after it was inserted.

A rollup is a sum over events, so a correction takes the event's own contribution out, as the rollup's one definition
computes it from the row as it was, and adds the one of the row as it is now. Nothing is worked out a second way, so
nothing can drift; and other events of the same hour may arrive meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from django.db import connection

from usage import rollups
from usage.models import UsageEvent
from usage.records import Line


class Rollup(NamedTuple):
    """`select` and `add`: SQL of the rollup of the one event, and the statement that adds it to the table."""

    table: str
    dimensions: Mapping[str, str]
    measures: tuple[str, ...]
    select: str
    add: str

    @property
    def take(self) -> str:
        names = ", ".join([*self.dimensions, *self.measures])
        own = ", ".join([*self.dimensions, *(f"-({name})" for name in self.measures)])
        sums = ", ".join(f"{name} = {self.table}.{name} + excluded.{name}" for name in self.measures)
        return (
            f"INSERT INTO {self.table} ({names}) SELECT {own} FROM ({self.select}) AS former"  # noqa: S608 (own names)
            f" ON CONFLICT ({', '.join(self.dimensions)}) DO UPDATE SET {sums}"
        )


_EVENT = "(SELECT * FROM usage_event WHERE time = %(time)s AND id = %(id)s) AS event"
ROLLUPS = (
    Rollup(
        rollups.HOUR_TABLE,
        rollups.HOUR_DIMENSIONS,
        rollups.MEASURES,
        rollups.hours(_EVENT),
        rollups.add_hours(_EVENT),
    ),
    Rollup(
        rollups.TAG_TABLE,
        rollups.TAG_DIMENSIONS,
        rollups.TAG_MEASURES,
        rollups.tag_hours(_EVENT),
        rollups.add_tag_hours(_EVENT),
    ),
)


def _together(steps: Iterable[str]) -> str:
    """One statement, written in the order in which usage/ledger.py writes its own.

    PostgreSQL runs such steps in an order of its choice (the last one first, in fact); written alike they lock the
    rollups' rows alike, and nobody waits in a circle.
    """
    named = [f"step_{place} AS ({step})" for place, step in enumerate(steps)]
    return f"WITH {', '.join(named)} SELECT 1"


_TAKE = _together(rollup.take for rollup in ROLLUPS)
_ADD = _together(rollup.add for rollup in ROLLUPS)


def locked(time: datetime, attempt: UUID) -> UsageEvent | None:
    """The event, locked until the transaction ends; None where it is no longer kept."""
    return UsageEvent.objects.select_for_update().filter(time=time, id=attempt).first()


def correct(event: UsageEvent, *, line: Line, exactness: str, flags: list[str]) -> None:
    """Makes `line` the event's whole cost, in the transaction of the caller, who holds it `locked`.

    The rollups follow; budget periods are the caller's. Raises django.db.DataError when a sum would leave BIGINT.
    """
    where: dict[str, Any] = {"time": event.time, "id": event.id}
    with connection.cursor() as cursor:
        cursor.execute(_TAKE, where)
        event.cost_nanos, event.arithmetic = line[3], [list(line)]
        event.exactness, event.flags = exactness, flags
        UsageEvent.objects.filter(**where).update(
            cost_nanos=event.cost_nanos, arithmetic=event.arithmetic, exactness=exactness, flags=flags
        )
        cursor.execute(_ADD, where)
