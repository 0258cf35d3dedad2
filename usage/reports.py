"""What scripts ask of usage: events, summaries from the rollups, exports. All scoped to the actor's teams.

A filter that is wrong raises InvalidInput naming it. Amounts are nano-dollars inside, decimal strings outside.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Q, QuerySet

from conduit.access.permissions import scope
from conduit.core import audit, clock
from conduit.core.actor import Actor
from conduit.core.clock import rfc3339
from conduit.core.errors import InvalidInput
from conduit.core.money import format_usd
from usage import filters, rollups, summaries
from usage.models import NIL, UsageEvent
from usage.summaries import Question, Span
from usage.sums import Sums

NEWEST_FIRST = ("-time", "-id")
CHUNK = 1_000
MOST_GROUPS = 10_000
MOST_ATTEMPTS = 200
DEFAULT_RANGE = timedelta(days=30)


# --- events --------------------------------------------------------------------------------------------------------


def events(actor: Actor, given: Mapping[str, str]) -> QuerySet[UsageEvent]:
    """The actor's usage events under the filters of the contract (`filters.EVENTS`)."""
    return scope(UsageEvent.objects.all(), actor).filter(filters.condition(given))


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


def note_export(actor: Actor, form: str, given: Mapping[str, str]) -> None:
    """That somebody takes figures along is for the audit log. `given`: the filters."""
    with transaction.atomic():
        after = {"format": form, "filters": dict(given)}
        audit.record(actor=actor, action="usage.export", kind="usage", id="events", name="usage events", after=after)


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
        writer.writerow([cell(value) for value in event_body(event).values()])
    return buffer.getvalue().encode()


_FORMULA = ("=", "+", "-", "@")
_LEADING = ("\t", "\r", "\n")  # some spreadsheets drop these and look at what follows


def cell(value: Any) -> Any:
    """A text that a spreadsheet would run as a formula gets an apostrophe in front, which spreadsheets do not show."""
    if isinstance(value, dict | list):
        value = json.dumps(value, ensure_ascii=False)
    if isinstance(value, str) and (value.startswith(_LEADING) or value.lstrip().startswith(_FORMULA)):
        return f"'{value}"
    return value


# --- summary -------------------------------------------------------------------------------------------------------


def parse_span(given: Mapping[str, str]) -> Span:
    """`from` and `to`, by default the last 30 days."""
    end = filters.time("to", given["to"]) if "to" in given else clock.now()
    start = filters.time("from", given["from"]) if "from" in given else end - DEFAULT_RANGE
    if start > end:
        raise InvalidInput("from", "Must not be after to.", "out_of_range")
    return Span(start, end)


def summary(actor: Actor, groups: list[str], span: Span, given: Mapping[str, str]) -> dict[str, Any]:
    """Sums by group, dearest first, and over everything under the filters (`total`; what has several tags counts once
    in it). Raises InvalidInput when no rollup can answer, or when there are too many groups."""
    tagged = summaries.demand_combination(groups, given)
    where = filters.values(given)
    rows = summaries.grouped(Question(actor, span, where, tagged), groups, limit=MOST_GROUPS + 1)
    if len(rows) > MOST_GROUPS:
        raise InvalidInput("group_by", f"More than {MOST_GROUPS:,} groups. Narrow from and to.", "too_many_groups")
    whole = Question(actor, span, where, tagged="tag" in where)
    return {
        "from": rfc3339(span.start),
        "to": rfc3339(span.end),
        "data": [_group_body(groups, keys, sums, tagged=tagged) for keys, sums in rows],
        "total": _group_body([], (), summaries.total(whole), tagged=whole.tagged),
        "next": None,
    }


def _group_body(groups: list[str], keys: tuple[Any, ...], sums: Sums, *, tagged: bool) -> dict[str, Any]:
    body = {name: _key(value) for name, value in zip(groups, keys, strict=True)}
    for name in rollups.TAG_MEASURES if tagged else rollups.MEASURES:
        if name == "cost_nanos":
            body["cost_usd"] = format_usd(sums.cost_nanos)
        elif not name.endswith(("_us", "ttft_count")):
            body[name] = getattr(sums, name)
    return body


def _key(value: Any) -> Any:
    if isinstance(value, UUID):
        return _text(value)
    return rfc3339(value) if isinstance(value, datetime) else value
