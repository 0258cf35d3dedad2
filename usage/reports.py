"""What scripts ask of usage: events, summaries from the rollups, exports. All scoped to the actor's teams.

A filter that is wrong raises InvalidInput naming it. Amounts are nano-dollars inside, decimal strings outside.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connection
from django.db.models import Q, QuerySet

from conduit.access.permissions import scope
from conduit.core import clock
from conduit.core.actor import Actor
from conduit.core.clock import rfc3339
from conduit.core.errors import InvalidInput
from conduit.core.fields import nearest, parse_time
from conduit.core.money import format_usd
from providers.providers import find
from usage import rollups
from usage.models import NIL, UsageEvent

FILTERS = ("key", "team", "model", "provider", "status", "tag", "from", "to", "request_id")
NEWEST_FIRST = ("-time", "-id")
CHUNK = 1_000
MOST_GROUPS = 10_000
MOST_ATTEMPTS = 200
DEFAULT_RANGE = timedelta(days=30)


# --- events --------------------------------------------------------------------------------------------------------


def _id(name: str, text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise InvalidInput(name, "Is not an id.", "invalid_id") from None


def _time(name: str, text: str) -> datetime:
    try:
        return parse_time(text)
    except InvalidInput as error:
        raise InvalidInput(name, error.detail, error.code) from None


def _status(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 3):
        raise InvalidInput("status", "Must be an HTTP status.", "invalid_number")
    return int(text)


def _provider(text: str) -> UUID:
    """By name or id; the id of a provider that was deleted still finds its events."""
    try:
        return UUID(text)
    except ValueError:
        return find(text).id


_CONDITIONS: dict[str, Callable[[str], Q]] = {
    "key": lambda text: Q(key_id=_id("key", text)),
    "team": lambda text: Q(team_id=_id("team", text)),
    "model": lambda text: Q(model=text),
    "provider": lambda text: Q(provider_id=_provider(text)),
    "status": lambda text: Q(status=_status(text)),
    "tag": lambda text: Q(tags__contains=[text]),
    "from": lambda text: Q(time__gte=_time("from", text)),
    "to": lambda text: Q(time__lt=_time("to", text)),
    "request_id": lambda text: Q(request_id=text),
}


def events(actor: Actor, filters: Mapping[str, str]) -> QuerySet[UsageEvent]:
    """The actor's usage events under the filters of the contract; `from` is inclusive, `to` exclusive."""
    found = scope(UsageEvent.objects.all(), actor)
    for name, text in filters.items():
        found = found.filter(_CONDITIONS[name](text))
    return found


def event_body(event: UsageEvent) -> dict[str, Any]:
    """A usage event in the contract's names."""
    return {
        "id": str(event.id),
        "request_id": event.request_id,
        "attempt": event.attempt,
        "time": rfc3339(event.time),
        "key": _text(event.key_id),
        "team": _text(event.team_id),
        "customer": event.customer or None,
        "provider": _text(event.provider_id),
        "credential": _text(event.credential_id),
        "route": event.route,
        "model": event.model,
        "dialect": event.dialect,
        "endpoint": event.endpoint,
        "stream": event.stream,
        "status": event.status,
        "outcome": event.outcome,
        "exactness": event.exactness,
        "input_tokens": event.input_tokens,
        "output_tokens": event.output_tokens,
        "cache_read_tokens": event.cache_read_tokens,
        "cache_write_tokens": event.cache_write_tokens,
        "reasoning_tokens": event.reasoning_tokens,
        "units": event.units,
        "cost_usd": format_usd(event.cost_nanos),
        "price": _text(event.price_id),
        "latency_ms": _milliseconds(event.latency_us),
        "ttft_ms": _milliseconds(event.ttft_us),
        "tags": event.tags,
        "error_code": event.error_code or None,
    }


def _text(value: UUID | None) -> str | None:
    return None if value is None or value == NIL else str(value)


def _milliseconds(micros: int | None) -> float | None:
    return None if micros is None else micros / 1000


# --- export --------------------------------------------------------------------------------------------------------


def chunks(found: QuerySet[UsageEvent]) -> Iterator[list[UsageEvent]]:
    """Oldest first, each chunk its own query, so that an export of any length holds neither memory nor a cursor."""
    after: Q = Q()
    while True:
        rows = list(found.filter(after).order_by("time", "id")[:CHUNK])
        if rows:
            yield rows
        if len(rows) < CHUNK:
            return
        last = rows[-1]
        after = Q(time__gt=last.time) | Q(time=last.time, id__gt=last.id)


def as_jsonl(rows: Iterable[UsageEvent], *, first: bool) -> bytes:
    del first
    return b"".join(json.dumps(event_body(event), ensure_ascii=False).encode() + b"\n" for event in rows)


def as_csv(rows: Iterable[UsageEvent], *, first: bool) -> bytes:
    """With a heading before the first row. Objects and lists are JSON in their cell."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\r\n")
    if first:
        writer.writerow(event_body(UsageEvent(time=datetime.now(UTC))))
    for event in rows:
        writer.writerow([_cell(value) for value in event_body(event).values()])
    return buffer.getvalue().encode()


_FORMULA = ("=", "+", "-", "@")


def _cell(value: Any) -> Any:
    """A text that a spreadsheet would run as a formula gets an apostrophe in front, which spreadsheets do not show."""
    if isinstance(value, dict | list):
        value = json.dumps(value, ensure_ascii=False)
    if isinstance(value, str) and value.lstrip()[:1] in _FORMULA:
        return f"'{value}"
    return value


# --- summary -------------------------------------------------------------------------------------------------------

_GROUPS = {
    "key": "key_id",
    "model": "model",
    "provider": "provider_id",
    "team": "team_id",
    "tag": "tag",
    "day": "date_trunc('day', hour, 'UTC')",
    "hour": "hour",
}


@dataclass(frozen=True, slots=True)
class Range:
    """[start, end); `first` to `last` are the whole hours in it, which the rollups hold."""

    start: datetime
    end: datetime

    @property
    def first(self) -> datetime:
        floor = self.start.replace(minute=0, second=0, microsecond=0)
        return floor if floor == self.start else floor + timedelta(hours=1)

    @property
    def last(self) -> datetime:
        return max(self.first, self.end.replace(minute=0, second=0, microsecond=0))


def parse_groups(text: str) -> list[str]:
    """`group_by` as names. Raises InvalidInput; a tag goes with key, team and time only, as its rollup does."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise InvalidInput("group_by", f"Name at least one of {', '.join(_GROUPS)}.", "required")
    for name in names:
        if name not in _GROUPS:
            raise InvalidInput("group_by", f"There is no such grouping.{nearest(name, _GROUPS)}", "unknown_group")
    if "tag" in names and {"model", "provider"} & set(names):
        raise InvalidInput("group_by", "tag can be combined with key, team, day and hour.", "invalid_combination")
    return list(dict.fromkeys(names))


def parse_range(filters: Mapping[str, str]) -> Range:
    """`from` and `to`, by default the last 30 days."""
    end = _time("to", filters["to"]) if "to" in filters else clock.now()
    start = _time("from", filters["from"]) if "from" in filters else end - DEFAULT_RANGE
    if start > end:
        raise InvalidInput("from", "Must not be after to.", "out_of_range")
    return Range(start, end)


def summary(actor: Actor, groups: list[str], span: Range) -> dict[str, Any]:
    """Sums by group, dearest first, and over everything (`total`). Exact to the microsecond: whole hours come from the
    rollups, the rest of a broken hour from its events. Raises InvalidInput when there are too many groups."""
    rows = _grouped(actor, groups, span)
    if len(rows) > MOST_GROUPS:
        raise InvalidInput("group_by", f"More than {MOST_GROUPS:,} groups. Narrow from and to.", "too_many_groups")
    total = _grouped(actor, [], span)
    return {
        "from": rfc3339(span.start),
        "to": rfc3339(span.end),
        "data": rows,
        "total": total[0] if total else None,
        "next": None,
    }


def _grouped(actor: Actor, groups: list[str], span: Range) -> list[dict[str, Any]]:
    tagged = "tag" in groups
    names = rollups.TAG_MEASURES if tagged else rollups.MEASURES
    keys = [f"{_GROUPS[name]} AS g_{name}" for name in groups]
    sums = [f"coalesce(sum({name}), 0)::bigint AS {name}" for name in names]
    grouping = f" GROUP BY {', '.join(str(n + 1) for n in range(len(groups)))}" if groups else ""
    sql = (
        f"SELECT {', '.join([*keys, *sums])} FROM ({_rows(tagged=tagged)}) AS rows{grouping}"  # noqa: S608 (own names)
        f" ORDER BY cost_nanos DESC, 1 LIMIT {MOST_GROUPS + 1}"
    )
    values: dict[str, Any] = {
        "start": span.start,
        "end": span.end,
        "first": span.first,
        "last": span.last,
        "all": actor.teams is None,
        "teams": list(actor.teams or []),
    }
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        return [_group_body(groups, names, row) for row in cursor.fetchall()]


def _rows(*, tagged: bool) -> str:
    """Rollup rows of the whole hours, and the same made of the events of the hours that are cut."""
    table = rollups.TAG_TABLE if tagged else rollups.HOUR_TABLE
    dimensions = rollups.TAG_DIMENSIONS if tagged else rollups.HOUR_DIMENSIONS
    names = ", ".join([*dimensions, *(rollups.TAG_MEASURES if tagged else rollups.MEASURES)])
    scoped = "(%(all)s OR team_id = ANY(%(teams)s::uuid[]))"
    edges = (
        f"(SELECT * FROM usage_event WHERE time >= %(start)s AND time < %(end)s AND {scoped}"  # noqa: S608 (own names)
        " AND NOT (time >= %(first)s AND time < %(last)s)) AS edges"
    )
    made = rollups.tag_hours(edges) if tagged else rollups.hours(edges)
    return (
        f"SELECT {names} FROM {table} WHERE hour >= %(first)s AND hour < %(last)s AND {scoped}"  # noqa: S608 (own names)
        f" UNION ALL SELECT {names} FROM ({made}) AS cut"
    )


def _group_body(groups: list[str], names: tuple[str, ...], row: tuple[Any, ...]) -> dict[str, Any]:
    body = {name: _key(value) for name, value in zip(groups, row, strict=False)}
    for name, value in zip(names, row[len(groups) :], strict=True):
        if name == "cost_nanos":
            body["cost_usd"] = format_usd(value)
        elif not name.endswith(("_us", "ttft_count")):
            body[name] = value
    return body


def _key(value: Any) -> Any:
    if isinstance(value, UUID):
        return _text(value)
    return rfc3339(value) if isinstance(value, datetime) else value
