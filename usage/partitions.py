"""Monthly partitions of usage_event. What has no month yet lies in the default partition until its month is made."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from django.db import connection, transaction

from conduit.core import clock

_LOCK = 0x636F6E64  # advisory: one process makes partitions at a time
_OLDEST = datetime(2020, 1, 1, tzinfo=UTC)
_AHEAD = timedelta(days=62)


def month_of(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def following(month: datetime) -> datetime:
    return (month + timedelta(days=32)).replace(day=1)


def table_name(month: datetime) -> str:
    return f"usage_event_y{month:%Y}m{month:%m}"


def existing() -> set[str]:
    """Names of all partitions, the default one included."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
            " WHERE i.inhparent = 'usage_event'::regclass"
        )
        return {name for (name,) in cursor.fetchall()}


def ensure(months: Iterable[datetime]) -> list[str]:
    """Makes the missing partitions of these months and returns their names; months far from today are left out.

    Rows of a month that waited in the default partition move into it. So a wrong clock somewhere costs neither an event
    nor a thousand tables.
    """
    newest = clock.now() + _AHEAD
    wanted = {table_name(month): month for month in map(month_of, months) if _OLDEST <= month <= newest}
    missing = wanted.keys() - existing()
    made = []
    for name in sorted(missing):
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
            if name not in existing():
                _make(name, wanted[name])
                made.append(name)
    return made


def _make(name: str, month: datetime) -> None:
    """Attaching to the parent lets readers and writers of the other months go on."""
    bounds = {"start": month, "end": following(month)}
    with connection.cursor() as cursor:
        cursor.execute("LOCK TABLE usage_event_default IN ACCESS EXCLUSIVE MODE")
        cursor.execute(f"CREATE TABLE {name} (LIKE usage_event INCLUDING DEFAULTS INCLUDING CONSTRAINTS)")
        cursor.execute(
            "WITH moved AS (DELETE FROM usage_event_default WHERE time >= %(start)s AND time < %(end)s RETURNING *)"  # noqa: S608 (own name)
            f" INSERT INTO {name} SELECT * FROM moved",
            bounds,
        )
        start, end = (bound.strftime("%Y-%m-%d 00:00:00+00") for bound in bounds.values())
        cursor.execute(f"ALTER TABLE usage_event ATTACH PARTITION {name} FOR VALUES FROM ('{start}') TO ('{end}')")


def ensure_ahead() -> list[str]:
    """This month and the next."""
    month = month_of(clock.now())
    return ensure([month, following(month)])
