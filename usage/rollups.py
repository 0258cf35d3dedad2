"""The rollups' one definition, in SQL: by hour and by day, and by tag the same. All are kept by `steps`.

Every count is over rows of usage_event and nothing else, so a rollup can always be recreated identically. Requests are
final attempts and refusals; averages of latency go over `requests - refused`, because refusals add none. Hours and days
are UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_NIL = "'00000000-0000-0000-0000-000000000000'::uuid"
_SERVED = "final AND attempt > 0"

_MEASURES = {
    "requests": "count(*) FILTER (WHERE final)",
    "attempts": "count(*) FILTER (WHERE attempt > 0)",
    "errors": f"count(*) FILTER (WHERE {_SERVED} AND outcome = 'error')",
    "refused": "count(*) FILTER (WHERE attempt = 0)",
    "cancelled": f"count(*) FILTER (WHERE {_SERVED} AND outcome = 'cancelled')",
    "estimated": "count(*) FILTER (WHERE exactness = 'estimated')",
    "uncertain": "count(*) FILTER (WHERE exactness = 'uncertain')",
    "input_tokens": "sum(input_tokens)",
    "output_tokens": "sum(output_tokens)",
    "cache_read_tokens": "sum(cache_read_tokens)",
    "cache_write_tokens": "sum(cache_write_tokens)",
    "reasoning_tokens": "sum(reasoning_tokens)",
    "cost_nanos": "sum(cost_nanos)",
    "latency_us": f"coalesce(sum(latency_us) FILTER (WHERE {_SERVED}), 0)",
    "ttft_us": f"coalesce(sum(ttft_us) FILTER (WHERE {_SERVED}), 0)",
    "ttft_count": f"count(ttft_us) FILTER (WHERE {_SERVED})",
}
MEASURES = tuple(_MEASURES)
TAG_MEASURES = ("requests", "errors", "refused", "input_tokens", "output_tokens", "cost_nanos")

_DIMENSIONS = {
    "key_id": f"coalesce(key_id, {_NIL})",
    "team_id": f"coalesce(team_id, {_NIL})",
    "provider_id": f"coalesce(provider_id, {_NIL})",
    "credential_id": f"coalesce(credential_id, {_NIL})",
    "customer": "customer",
    "route": "route",
    "model": "model",
    "endpoint": "endpoint",
}
_TAG_DIMENSIONS = {"tag": "tag", "team_id": _DIMENSIONS["team_id"], "key_id": _DIMENSIONS["key_id"]}


@dataclass(frozen=True, slots=True)
class Rollup:
    """One table. `unit` is its time column, `hour` or `day`; `dimensions` are column → expression over events."""

    table: str
    unit: str
    dimensions: Mapping[str, str]
    measures: tuple[str, ...]
    tagged: bool = False

    @property
    def keys(self) -> tuple[str, ...]:
        """The columns that name a row."""
        return (self.unit, *self.dimensions)

    def select(self, source: str) -> str:
        """SELECT of this rollup over `source`, a relation with usage_event's columns.

        A tag that an event names twice counts once.
        """
        if self.tagged:
            source = f"{source} CROSS JOIN LATERAL (SELECT DISTINCT unnest(tags) AS tag) AS own"
        columns = [f"date_trunc('{self.unit}', time, 'UTC') AS {self.unit}"]
        columns += [f"{expression} AS {name}" for name, expression in self.dimensions.items()]
        columns += [f"{_MEASURES[name]} AS {name}" for name in self.measures]
        return f"SELECT {', '.join(columns)} FROM {source} GROUP BY {self._places}"  # noqa: S608 (own names)

    def coarser(self, source: str) -> str:
        """The same SELECT over rows of the hourly rollup with these dimensions."""
        columns = [f"date_trunc('{self.unit}', hour, 'UTC') AS {self.unit}", *self.dimensions]
        columns += [f"sum({name}) AS {name}" for name in self.measures]
        return f"SELECT {', '.join(columns)} FROM {source} GROUP BY {self._places}"  # noqa: S608 (own names)

    def add(self, select: str) -> str:
        """INSERT that adds the rows of `select` to the table."""
        names = ", ".join([*self.keys, *self.measures])
        sums = ", ".join(f"{name} = {self.table}.{name} + excluded.{name}" for name in self.measures)
        # In a fixed order, so that two shippers lock the same rows one after the other instead of each other.
        return (
            f"INSERT INTO {self.table} ({names}) {select} ORDER BY {self._places}"  # noqa: S608 (own names)
            f" ON CONFLICT ({', '.join(self.keys)}) DO UPDATE SET {sums}"
        )

    def negated(self, select: str) -> str:
        """The rows of `select` with every measure below zero: added, they take out what was added before."""
        columns = [*self.keys, *(f"-{name} AS {name}" for name in self.measures)]
        return f"SELECT {', '.join(columns)} FROM ({select}) AS former"  # noqa: S608 (own names)

    @property
    def _places(self) -> str:
        return ", ".join(str(place + 1) for place in range(len(self.keys)))


HOURS = Rollup("usage_usagehour", "hour", _DIMENSIONS, MEASURES)
DAYS = Rollup("usage_usageday", "day", _DIMENSIONS, MEASURES)
TAG_HOURS = Rollup("usage_usagetaghour", "hour", _TAG_DIMENSIONS, TAG_MEASURES, tagged=True)
TAG_DAYS = Rollup("usage_usagetagday", "day", _TAG_DIMENSIONS, TAG_MEASURES, tagged=True)
ROLLUPS = (HOURS, DAYS, TAG_HOURS, TAG_DAYS)


def steps(source: str, *, taken: bool = False) -> str:
    """CTEs for a WITH that add the rows of `source` to every rollup, or take them out; `hour_sums` are the hourly ones.

    Events are grouped once by hour: a day is the sum of its hours, and there are fewer of those. PostgreSQL runs the
    INSERTs in an order of its own, the same in every session because it is the same text: all writers of rollups use
    this, so nobody waits in a circle.
    """
    hours, tag_hours = HOURS.select(source), TAG_HOURS.select(source)
    return f"""
    hour_sums AS MATERIALIZED ({HOURS.negated(hours) if taken else hours}),
    tag_hour_sums AS MATERIALIZED ({TAG_HOURS.negated(tag_hours) if taken else tag_hours}),
    hours AS ({HOURS.add("SELECT * FROM hour_sums")}),
    days AS ({DAYS.add(DAYS.coarser("hour_sums"))}),
    tag_hours AS ({TAG_HOURS.add("SELECT * FROM tag_hour_sums")}),
    tag_days AS ({TAG_DAYS.add(TAG_DAYS.coarser("tag_hour_sums"))})
    """  # noqa: S608 (own names)
