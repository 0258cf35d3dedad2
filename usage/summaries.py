"""Sums of usage by the dimensions of the rollups, over any span: every figure is the sum of the events behind it.

Whole days come from the daily rollup, whole hours beside them from the hourly one, and what is left of a cut hour from
the events themselves, so a sum is exact to the microsecond and costs the same for a month as for a day. Scoped to the
actor's teams.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import connection

from conduit.core.actor import Actor
from conduit.core.errors import InvalidInput
from conduit.core.fields import nearest
from usage import filters, rollups
from usage.rollups import Rollup
from usage.sums import Sums

GROUPS = {**filters.DIMENSIONS, "tag": "tag"}
BUCKETS = {
    "hour": "at",
    "day": "date_trunc('day', at, 'UTC')",
    "week": "date_trunc('week', at, 'UTC')",
    "month": "date_trunc('month', at, 'UTC')",
}
WITH_TAG = ("key", "team", "tag", *BUCKETS)


@dataclass(frozen=True, slots=True)
class Span:
    """[start, end)."""

    start: datetime
    end: datetime

    def whole(self, unit: timedelta) -> tuple[datetime, datetime]:
        """From where to where it is made of whole hours or whole days (UTC); the same instant twice when of none."""
        first = _floor(self.start, unit)
        first = first if first == self.start else first + unit
        return first, max(first, _floor(self.end, unit))


def _floor(at: datetime, unit: timedelta) -> datetime:
    return at.replace(hour=0 if unit >= _DAY else at.hour, minute=0, second=0, microsecond=0)


_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Question:
    """Whose usage, when, narrowed by what (`filters.values`). `tagged`: over the rollup by tag, in which an event
    counts once for each of its tags."""

    actor: Actor
    span: Span
    where: Mapping[str, Any]
    tagged: bool = False

    def among(self, dimension: str, named: Iterable[Any]) -> Question:
        """The same for some values of a dimension."""
        return Question(self.actor, self.span, {**self.where, dimension: list(named)}, self.tagged)


Row = tuple[tuple[Any, ...], Sums]


def demand_combination(groups: Sequence[str], where: Iterable[str]) -> bool:
    """Whether the answer is in the rollup by tag. Raises InvalidInput when no rollup has it."""
    named = [("group_by", name) for name in groups] + [(name, name) for name in where]
    if "tag" not in (name for _, name in named):
        return False
    for field, name in named:
        if name not in WITH_TAG:
            allowed = "key, team, day and hour"
            raise InvalidInput(field, f"A tag can be combined with {allowed}, not with {name}.", "invalid_combination")
    return True


def parse_groups(text: str, names: Iterable[str] = (*GROUPS, "day", "hour")) -> list[str]:
    """`group_by` as names. Raises InvalidInput."""
    known, found = list(names), [name.strip() for name in text.split(",") if name.strip()]
    if not found:
        raise InvalidInput("group_by", f"Name at least one of {', '.join(known)}.", "required")
    for name in found:
        if name not in known:
            raise InvalidInput("group_by", f"There is no such grouping.{nearest(name, known)}", "unknown_group")
    return list(dict.fromkeys(found))


def grouped(question: Question, groups: Sequence[str], *, limit: int | None = None) -> list[Row]:
    """Sums by group, dearest first. Without groups: one row over everything."""
    order = f" ORDER BY cost_nanos DESC{''.join(f', {place + 1}' for place in range(len(groups)))}"
    return _run(question, groups, _select(question, groups) + order + (f" LIMIT {limit}" if limit else ""))


def total(question: Question) -> Sums:
    ((_, found),) = grouped(question, [])
    return found


def ranked(question: Question, groups: Sequence[str], measure: str, top: int) -> list[tuple[int, Row]]:
    """The `top` largest of the last group within each of the groups before it, with how many there are of it.

    `measure` is one of the rollup's; equal ones are in the order of their names.
    """
    within = ", ".join(f"g_{name}" for name in groups[:-1])
    window = f"{f'PARTITION BY {within} ' if within else ''}ORDER BY {measure} DESC, g_{groups[-1]}"
    sql = (
        f"SELECT * FROM (SELECT *, row_number() OVER ({window}) AS place,"  # noqa: S608 (own names)
        f" count(*) OVER ({f'PARTITION BY {within}' if within else ''}) AS many"
        f" FROM ({_select(question, groups)}) AS sums) AS placed WHERE place <= {top} ORDER BY place"
    )
    return [(row[-1], _row(question, groups, row)) for row in _fetch(question, groups, sql)]


def _measures(question: Question) -> tuple[str, ...]:
    return rollups.TAG_MEASURES if question.tagged else rollups.MEASURES


def _select(question: Question, groups: Sequence[str]) -> str:
    keys = [f"{GROUPS.get(name) or BUCKETS[name]} AS g_{name}" for name in groups]
    sums = [f"coalesce(sum({name}), 0)::bigint AS {name}" for name in _measures(question)]
    conditions = ["(%(all)s OR team_id = ANY(%(teams)s::uuid[]))"]
    for name in question.where:
        kind = "uuid" if name in filters.IDS else "text"
        conditions.append(f"{GROUPS[name]} = ANY(%(where_{name})s::{kind}[])")
    grouping = f" GROUP BY {', '.join(str(place + 1) for place in range(len(groups)))}" if groups else ""
    return (
        f"SELECT {', '.join([*keys, *sums])} FROM ({_rows(question, by_hour='hour' in groups)}) AS rows"  # noqa: S608
        f" WHERE {' AND '.join(conditions)}{grouping}"
    )


def _rows(question: Question, *, by_hour: bool) -> str:
    """The rows that make up the span: of the rollups, and made of the events of hours that are cut."""
    span = question.span
    hours, days = (rollups.TAG_HOURS, rollups.TAG_DAYS) if question.tagged else (rollups.HOURS, rollups.DAYS)
    first, last = span.whole(_HOUR)
    first_day, last_day = span.whole(_DAY)
    in_days = first_day < last_day and not by_hour
    parts = []
    if in_days:
        parts.append(_columns(days, days.table, "day >= %(first_day)s AND day < %(last_day)s"))
    if first < last and not (in_days and (first, last) == (first_day, last_day)):
        beside = " AND NOT (hour >= %(first_day)s AND hour < %(last_day)s)" if in_days else ""
        parts.append(_columns(hours, hours.table, f"hour >= %(first)s AND hour < %(last)s{beside}"))
    if not parts or (first, last) != (span.start, span.end):
        cut = (
            "(SELECT * FROM usage_event WHERE time >= %(start)s AND time < %(end)s"
            " AND NOT (time >= %(first)s AND time < %(last)s)) AS cut"
        )
        parts.append(_columns(hours, f"({hours.select(cut)}) AS made", "true"))
    return " UNION ALL ".join(parts)


def _columns(rollup: Rollup, source: str, condition: str) -> str:
    names = ", ".join([*rollup.dimensions, *rollup.measures])
    return f"SELECT {rollup.unit} AS at, {names} FROM {source} WHERE {condition}"  # noqa: S608 (own names)


def _run(question: Question, groups: Sequence[str], sql: str) -> list[Row]:
    return [_row(question, groups, row) for row in _fetch(question, groups, sql)]


def _fetch(question: Question, groups: Sequence[str], sql: str) -> list[tuple[Any, ...]]:
    span, actor = question.span, question.actor
    first, last = span.whole(_HOUR)
    first_day, last_day = span.whole(_DAY)
    places: dict[str, Any] = {
        "start": span.start,
        "end": span.end,
        "first": first,
        "last": last,
        "first_day": first_day,
        "last_day": last_day,
        "all": actor.teams is None,
        "teams": list(actor.teams or []),
    }
    for name, value in question.where.items():
        places[f"where_{name}"] = value if isinstance(value, list) else [value]
    with connection.cursor() as cursor:
        cursor.execute(sql, places)
        found: list[tuple[Any, ...]] = cursor.fetchall()
    return found


def _row(question: Question, groups: Sequence[str], row: tuple[Any, ...]) -> Row:
    names = _measures(question)
    counted = row[len(groups) : len(groups) + len(names)]
    return row[: len(groups)], Sums(**dict(zip(names, counted, strict=True)))
