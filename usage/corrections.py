"""Changing one usage event's cost with its rollups: the only place where an event is written after it was inserted.

A rollup is a sum over events, so a correction takes the event's own contribution out, as the rollup's one definition
computes it from the row as it was, and adds the one of the row as it is now. Nothing is worked out a second way, so
nothing can drift; and other events of the same hour may arrive meanwhile.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connection

from usage import rollups
from usage.models import UsageEvent
from usage.records import Line

_EVENT = "(SELECT * FROM usage_event WHERE time = %(time)s AND id = %(id)s) AS event"
_TAKE = f"WITH {rollups.steps(_EVENT, taken=True)} SELECT 1"
_ADD = f"WITH {rollups.steps(_EVENT)} SELECT 1"


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
