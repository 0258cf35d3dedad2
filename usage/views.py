"""The request log and one request: pages that need no more than the stored events."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from conduit.access.pages import go, page
from conduit.access.permissions import scope
from conduit.core import clock
from conduit.core.actor import Actor
from conduit.core.errors import InvalidInput, NotFound
from keys.models import VirtualKey
from providers.models import Provider
from usage import answers, charts, explorer, figures, log
from usage.filters import DIMENSIONS
from usage.filters import values as dimension_values
from usage.models import Exactness
from usage.summaries import Span

OUTCOMES = (("", "All"), ("ok", "Served"), ("error", "Errors"), ("refused", "Refused"), ("cancelled", "Client left"))
EXACTNESS = (("", "Exact or not"), *((name.value, name.label) for name in Exactness))
MOST_CHOICES = 200
OTHERS = ("team", "credential", "customer", "model", "endpoint", "tag")
DATELESS = {"from": "", "to": "", "cursor": ""}
COLORS = {"Served": 6, "Error": 5, "Refused": 3}


@dataclass(frozen=True, slots=True)
class Range:
    """`step` None: drawn from the hourly rollups, in hours or days."""

    title: str
    length: timedelta
    bucket: str
    step: timedelta | None = None


RANGES = {
    "15m": Range("15 min", timedelta(minutes=15), "minute", timedelta(minutes=1)),
    "1h": Range("1 hour", timedelta(hours=1), "minute", timedelta(minutes=1)),
    "24h": Range("24 hours", timedelta(hours=24), "hour"),
    "7d": Range("7 days", timedelta(days=7), "day"),
    "30d": Range("30 days", timedelta(days=30), "day"),
}


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _query(request: HttpRequest, **changes: str) -> str:
    query = request.GET.copy()
    for name, value in changes.items():
        query[name] = value
        if not value:
            del query[name]
    return query.urlencode()


def _others(request: HttpRequest) -> dict[str, str]:
    """Dimensions that the page has no field for: they come from the usage explorer and show as chips."""
    given = {name: request.GET.get(name, "")[:254] for name in OTHERS}
    return {name: text for name, text in given.items() if text}


def _day(text: str) -> datetime | None:
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        return None


def _chosen(request: HttpRequest, at: datetime) -> tuple[str, Range, datetime]:
    """(name, range, end). Whole days when the URL names a first and a last one, with no name."""
    first, last = (_day(request.GET.get(name, "")) for name in ("from", "to"))
    if first and last and first <= last and first < at:
        end = min(last + timedelta(days=1), at)
        hours = end - first <= timedelta(days=2)
        return "", Range(explorer.words(Span(first, end)), end - first, "hour" if hours else "day"), end
    value = request.GET.get("range", "1h")
    value = value if value in RANGES else "1h"
    return value, RANGES[value], at


def _filters(request: HttpRequest, since: datetime, until: datetime | None = None) -> log.Filters:
    outcome, exactness = request.GET.get("outcome", ""), request.GET.get("exactness", "")
    return log.Filters(
        since,
        key=_uuid(request.GET.get("key", "")),
        provider=_uuid(request.GET.get("provider", "")),
        route=request.GET.get("route", "")[:200],
        outcome=outcome if outcome in dict(OUTCOMES) else "",
        text=request.GET.get("q", "").strip()[:128],
        exactness=exactness if exactness in Exactness.values else "",
        until=until,
        others=_others(request),
    )


def _starts(chosen: Range, at: datetime) -> list[datetime]:
    """The buckets' beginnings; the log below begins at the first of them, so that both count the same rows."""
    since = at - chosen.length
    if chosen.step is None:
        last = at - timedelta(microseconds=1)
        return figures.hour_starts(since, last) if chosen.bucket == "hour" else figures.day_starts(since, last)
    first = since.replace(second=0, microsecond=0)
    return [first + n * chosen.step for n in range(int((at - first) / chosen.step) + 1)]


@page("requests")
def request_list(request: HttpRequest, actor: Actor) -> HttpResponse:
    """A request id typed into the filter leads straight to that request."""
    text = request.GET.get("q", "").strip()[:128]
    if text and log.exists(actor, text):
        return go(request, reverse("request-detail", args=[text]))
    value, chosen, at = _chosen(request, clock.now())
    starts = _starts(chosen, at)
    filters = _filters(request, starts[0], None if value else at)
    cursor = request.GET.get("cursor", "")
    try:
        shown = log.page(actor, filters, cursor)
    except (ValueError, InvalidInput):
        raise NotFound("") from None
    counted = _histogram(actor, filters, chosen, starts)
    number = sum(sum(values) for values in counted.values())
    context = {
        "crumbs": [{"title": "Requests"}],
        "range": value,
        "ranges": [
            {"title": one.title, "query": _query(request, **DATELESS, range=name), "current": name == value}
            for name, one in RANGES.items()
        ],
        "chips": _chips(request, "" if value else chosen.title),
        "hidden": {**filters.others, **({} if value else {name: request.GET[name] for name in ("from", "to")})},
        "outcomes": _choices(request, "outcome", OUTCOMES, filters.outcome),
        "outcome": filters.outcome,
        "q": text,
        "route": filters.route,
        "keys": scope(VirtualKey.objects.order_by("name"), actor).only("id", "name")[:MOST_CHOICES],
        "key_id": request.GET.get("key", ""),
        "providers": Provider.objects.order_by("name").only("id", "name")[:MOST_CHOICES],
        "provider_id": request.GET.get("provider", ""),
        "exactness": filters.exactness,
        "exactness_choices": EXACTNESS,
        "histogram_total": number,
        "span_words": _span(starts[0], at, chosen),
        "bucket": chosen.bucket,
        "chart": _chart(counted, chosen, starts) if number else None,
        "rows": shown.rows,
        "foot": _foot(shown.rows),
        "estimated": any(row.exactness != Exactness.EXACT for row in shown.rows),
        "cursor": cursor,
        "first_query": _query(request, cursor=""),
        "older_query": _query(request, cursor=shown.older) if shown.older else "",
        "fresh_query": _query(request, after=_mark(shown.rows, at), cursor=""),
    }
    return render(request, "usage/requests.html", context)


def _chips(request: HttpRequest, days: str) -> list[dict[str, str]]:
    chips = [
        {
            "title": explorer.GROUPS[name],
            "value": answers.title(name, text),
            "query": _query(request, **{name: "", "cursor": ""}),
        }
        for name, text in _others(request).items()
    ]
    return [*chips, {"title": "Days", "value": days, "query": _query(request, **DATELESS)}] if days else chips


def _choices(request: HttpRequest, name: str, values: Any, current: str) -> list[dict[str, Any]]:
    return [
        {"title": title, "query": _query(request, cursor="", **{name: value}), "current": value == current}
        for value, title in values
    ]


def _histogram(actor: Actor, filters: log.Filters, chosen: Range, starts: list[datetime]) -> dict[str, list[int]]:
    """Short ranges are counted from the events, long ones from the rollups: a page stays fast with millions of rows."""
    if chosen.step is not None or filters.text or filters.exactness or "tag" in filters.others:
        return log.counted(actor, filters, starts)
    where: dict[str, Any] = {DIMENSIONS[name]: value for name, value in dimension_values(filters.others).items()}
    if filters.until:
        where["hour__lt"] = filters.until
    if filters.key:
        where["key_id"] = filters.key
    if filters.provider:
        where["provider_id"] = filters.provider
    if filters.route:
        where["route"] = filters.route
    found = figures.outcomes(actor, starts[0], starts, where)
    named = {"ok": "Served", "cancelled": "Client left", "error": "Error", "refused": "Refused"}.get(filters.outcome)
    return {name: values if named in (None, name) else [0] * len(starts) for name, values in found.items()}


def _span(since: datetime, at: datetime, chosen: Range) -> str:
    if chosen.bucket == "day":
        return f"{since.day} {since:%b} to {at.day} {at:%b}"
    return f"{since:%H:%M} to {at:%H:%M}"


def _chart(counted: dict[str, list[int]], chosen: Range, starts: list[datetime]) -> charts.Chart:
    shown = [(name, values) for name, values in counted.items() if sum(values)]
    days = chosen.bucket == "day"
    axis = (chosen.bucket.capitalize(), [f"{s.day} {s:%b}" if days else f"{s:%H:%M}" for s in starts])
    colors = [COLORS.get(name, 2) for name, _ in shown]
    label = f"Requests per {chosen.bucket} by outcome"
    return charts.stacked("hist", label, axis, shown, unit="count", colors=colors)


def _foot(rows: list[log.Row]) -> dict[str, int]:
    return {
        "attempts": sum(row.attempts for row in rows),
        "input_tokens": sum(row.event.input_tokens for row in rows),
        "output_tokens": sum(row.event.output_tokens for row in rows),
        "cost": sum(row.cost for row in rows),
    }


def _mark(rows: list[log.Row], at: datetime) -> str:
    """The instant after which a request is new to this page, in microseconds."""
    newest = rows[0].event.time if rows else at
    return str(int(newest.timestamp() * 1_000_000))


@page("requests")
def request_fresh(request: HttpRequest, actor: Actor) -> HttpResponse:
    """How many came since the page was made; the list itself holds still."""
    mark = request.GET.get("after", "")
    if not mark.isdigit() or len(mark) > 17:
        raise NotFound("")
    after = datetime.fromtimestamp(0, tz=clock.now().tzinfo) + timedelta(microseconds=int(mark))
    number = log.fresh(actor, _filters(request, after), after)
    context = {
        "number": min(number, log.MOST_FRESH),
        "more": number > log.MOST_FRESH,
        "query": _query(request, after="", cursor=""),
    }
    return render(request, "usage/fresh.html", context)
