"""The rollups' one definition, in SQL: `apply` adds it for what it inserted, `rebuild` for everything there is.

Every count is over rows of usage_event and nothing else, so a rollup can always be recreated identically. Requests are
final attempts and refusals; averages of latency go over `requests - refused`, because refusals add none.
"""

from __future__ import annotations

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
_TAG_MEASURES = ("requests", "errors", "refused", "input_tokens", "output_tokens", "cost_nanos")
_HOUR = "date_trunc('hour', time, 'UTC')"

HOUR_TABLE, TAG_TABLE = "usage_usagehour", "usage_usagetaghour"
HOUR_DIMENSIONS = {
    "hour": _HOUR,
    "key_id": f"coalesce(key_id, {_NIL})",
    "team_id": f"coalesce(team_id, {_NIL})",
    "provider_id": f"coalesce(provider_id, {_NIL})",
    "credential_id": f"coalesce(credential_id, {_NIL})",
    "customer": "customer",
    "route": "route",
    "model": "model",
    "endpoint": "endpoint",
}
TAG_DIMENSIONS = {
    "hour": _HOUR,
    "tag": "tag",
    "team_id": f"coalesce(team_id, {_NIL})",
    "key_id": f"coalesce(key_id, {_NIL})",
}
MEASURES = tuple(_MEASURES)
TAG_MEASURES = _TAG_MEASURES


def hours(source: str) -> str:
    """SELECT of the hourly rollup over `source`, a relation with usage_event's columns."""
    return _select(source, HOUR_DIMENSIONS, MEASURES)


def tag_hours(source: str) -> str:
    """SELECT of the rollup by tag; a tag that an event names twice counts once."""
    tagged = f"{source} CROSS JOIN LATERAL (SELECT DISTINCT unnest(tags) AS tag) AS own"
    return _select(tagged, TAG_DIMENSIONS, _TAG_MEASURES)


def add_hours(source: str) -> str:
    """INSERT that adds the rollup of `source` to the table."""
    return _upsert(HOUR_TABLE, HOUR_DIMENSIONS, MEASURES, hours(source))


def add_tag_hours(source: str) -> str:
    return _upsert(TAG_TABLE, TAG_DIMENSIONS, _TAG_MEASURES, tag_hours(source))


def _select(source: str, dimensions: dict[str, str], measures: tuple[str, ...]) -> str:
    columns = [f"{expression} AS {name}" for name, expression in dimensions.items()]
    columns += [f"{_MEASURES[name]} AS {name}" for name in measures]
    places = ", ".join(str(place + 1) for place in range(len(dimensions)))
    # In a fixed order, so that two shippers lock the same rows one after the other instead of each other.
    return f"SELECT {', '.join(columns)} FROM {source} GROUP BY {places} ORDER BY {places}"  # noqa: S608 (own names)


def _upsert(table: str, dimensions: dict[str, str], measures: tuple[str, ...], select: str) -> str:
    names = ", ".join([*dimensions, *measures])
    sums = ", ".join(f"{name} = {table}.{name} + excluded.{name}" for name in measures)
    return (
        f"INSERT INTO {table} ({names}) {select}"  # noqa: S608 (own names)
        f" ON CONFLICT ({', '.join(dimensions)}) DO UPDATE SET {sums}"
    )
