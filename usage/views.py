"""The request log and one request: pages that need no more than the stored events."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from conduit.access.pages import go, page
from conduit.access.permissions import may, scope
from conduit.core import clock, wording
from conduit.core.actor import Actor
from conduit.core.errors import NotFound
from keys.models import VirtualKey
from providers.models import Credential, Provider
from usage import charts, figures, log
from usage.models import Exactness, Price, UsageEvent
from usage.traces import checks_of, for_actor

OUTCOMES = (("", "All"), ("ok", "Served"), ("error", "Errors"), ("refused", "Refused"), ("cancelled", "Client left"))
EXACTNESS = (("", "Exact or not"), *((name.value, name.label) for name in Exactness))
MOST_CHOICES = 200
COLORS = {"Served": 6, "Error": 5, "Refused": 3}
DIALECTS = {"openai": "OpenAI", "anthropic": "Anthropic", "gemini": "Gemini"}
UNITS = {"cache_read": "Cache read", "cache_write_5m": "Cache write, 5 min", "cache_write_1h": "Cache write, 1 h"}
USAGE_WORDS = {
    Exactness.EXACT: "sent by the provider",
    Exactness.ESTIMATED: "estimated: the provider sent none",
    Exactness.UNCERTAIN: "unknown: the answer was lost, so the whole hold counts until it is reconciled",
}


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


def _filters(request: HttpRequest, since: datetime) -> log.Filters:
    outcome, exactness = request.GET.get("outcome", ""), request.GET.get("exactness", "")
    return log.Filters(
        since,
        key=_uuid(request.GET.get("key", "")),
        provider=_uuid(request.GET.get("provider", "")),
        route=request.GET.get("route", "")[:200],
        outcome=outcome if outcome in dict(OUTCOMES) else "",
        text=request.GET.get("q", "").strip()[:128],
        exactness=exactness if exactness in Exactness.values else "",
    )


def _starts(chosen: Range, at: datetime) -> list[datetime]:
    """The buckets' beginnings; the log below begins at the first of them, so that both count the same rows."""
    since = at - chosen.length
    if chosen.step is None:
        return figures.hour_starts(since, at) if chosen.bucket == "hour" else figures.day_starts(since, at)
    first = since.replace(second=0, microsecond=0)
    return [first + n * chosen.step for n in range(int((at - first) / chosen.step) + 1)]


@page("requests")
def request_list(request: HttpRequest, actor: Actor) -> HttpResponse:
    """A request id typed into the filter leads straight to that request."""
    text = request.GET.get("q", "").strip()[:128]
    if text and log.exists(actor, text):
        return go(request, reverse("request-detail", args=[text]))
    at = clock.now()
    value = request.GET.get("range", "1h")
    value = value if value in RANGES else "1h"
    chosen = RANGES[value]
    starts = _starts(chosen, at)
    filters = _filters(request, starts[0])
    cursor = request.GET.get("cursor", "")
    try:
        shown = log.page(actor, filters, cursor)
    except ValueError:
        raise NotFound("") from None
    counted = _histogram(actor, filters, chosen, starts)
    number = sum(sum(values) for values in counted.values())
    context = {
        "crumbs": [{"title": "Requests"}],
        "range": value,
        "ranges": _choices(request, "range", [(name, one.title) for name, one in RANGES.items()], value),
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


def _choices(request: HttpRequest, name: str, values: Any, current: str) -> list[dict[str, Any]]:
    return [
        {"title": title, "query": _query(request, cursor="", **{name: value}), "current": value == current}
        for value, title in values
    ]


def _histogram(actor: Actor, filters: log.Filters, chosen: Range, starts: list[datetime]) -> dict[str, list[int]]:
    """Short ranges are counted from the events, long ones from the rollups: a page stays fast with millions of rows."""
    if chosen.step is not None or filters.text or filters.exactness:
        return log.counted(actor, filters, starts)
    where: dict[str, Any] = {}
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


@page("requests")
def request_detail(request: HttpRequest, actor: Actor, request_id: str) -> HttpResponse:
    events = log.attempts(actor, request_id)
    if not events:
        raise NotFound("")
    final, refused = events[-1], events[-1].attempt == 0
    checks = checks_of(final, for_actor(actor, final.trace))
    stopped = next((check for check in checks if check.result == "stop"), None)
    cost = sum(event.cost_nanos for event in events)
    exactness = log.least_exact(event.exactness for event in events)
    context = {
        "crumbs": [{"title": "Requests", "url": reverse("requests")}, {"title": request_id}],
        "request_id": request_id,
        "final": final,
        "refused": refused,
        "headline": _headline(events),
        "stopped_title": f"Stopped by the check: {stopped.title}" if stopped else f"Refused: {final.error_code}",
        "key": _key(actor, final),
        "dialect_title": DIALECTS.get(final.dialect, final.dialect),
        "attempts": events,
        "total": {"cost": cost},
        "whole_us": _ends(events[-1], events[0]),
        "waterfall": [] if refused else _waterfall(events),
        "arithmetic": [_arithmetic(event) for event in events if event.arithmetic],
        "price": Price.objects.filter(id=final.price_id).first() if final.price_id else None,
        "exactness": exactness,
        "usage_words": USAGE_WORDS[Exactness(exactness)],
        "speed": _speed(final),
        "checks": checks,
        "same_as": _same_as(request, request_id),
    }
    return render(request, "usage/request.html", context)


def _key(actor: Actor, event: UsageEvent) -> VirtualKey | None:
    if event.key_id is None or not may(actor, "keys", write=False):
        return None
    return VirtualKey.objects.filter(id=event.key_id).first()


def _headline(events: list[UsageEvent]) -> str:
    final = events[-1]
    if final.attempt == 0:
        return f"{final.status} refused"
    if final.outcome == "cancelled":
        return "client left"
    if final.outcome == "ok" and len(events) > 1:
        return f"{final.status}, absorbed {wording.plural(len(events) - 1, 'failure')}"
    return f"{final.status} {final.error_code}".strip()


def _starts_us(event: UsageEvent, first: UsageEvent) -> int:
    return int((event.time - first.time).total_seconds() * 1_000_000)


def _ends(event: UsageEvent, first: UsageEvent) -> int:
    return _starts_us(event, first) + event.latency_us


def _waterfall(events: list[UsageEvent]) -> list[dict[str, Any]]:
    whole = max(max(_ends(event, events[0]) for event in events), 1)
    providers = dict(Provider.objects.filter(id__in=[e.provider_id for e in events]).values_list("id", "name"))
    owned = dict(Credential.objects.filter(id__in=[e.credential_id for e in events]).values_list("id", "name"))
    rows = []
    for event in events:
        starts = _starts_us(event, events[0])
        wait = min(event.ttft_us or 0, event.latency_us)
        ok = event.outcome == "ok"
        rows.append(
            {
                "event": event,
                "provider_name": providers.get(event.provider_id, "") if event.provider_id else "",
                "credential_name": owned.get(event.credential_id, "") if event.credential_id else "",
                "starts_us": starts,
                "lead": starts * 100 / whole,
                "wait": wait * 100 / whole,
                "run": (event.latency_us - wait) * 100 / whole,
                "css": "f1" if ok else "fbad",
                "words": f"{wording.microseconds(starts)} to {wording.microseconds(starts + event.latency_us)}",
                "outcome_words": f"{event.status} {event.error_code}".strip() if not ok else str(event.status),
                "detail": event.error_message
                or (f"first token after {wording.microseconds(wait)} (grey)" if wait else ""),
            }
        )
    return rows


def _arithmetic(event: UsageEvent) -> dict[str, Any]:
    lines = [
        {"title": UNITS.get(unit, unit.replace("_", " ").capitalize()), "count": count, "rate": rate, "nanos": nanos}
        for unit, count, rate, nanos in event.arithmetic
    ]
    return {"attempt": event.attempt, "lines": lines, "total": event.cost_nanos}


def _speed(final: UsageEvent) -> str:
    seconds = (final.latency_us - (final.ttft_us or 0)) / 1_000_000
    return f"{final.output_tokens / seconds:,.0f}" if final.stream and seconds > 0 and final.output_tokens > 1 else ""


def _same_as(request: HttpRequest, request_id: str) -> list[dict[str, str]]:
    base = f"{request.scheme}://{request.get_host()}"
    text = f'curl \\\n  {base}/api/v1/requests/{request_id} \\\n  -H "Authorization: Bearer $CONDUIT_TOKEN"'
    return [{"ident": "1", "title": "curl", "text": text}]
