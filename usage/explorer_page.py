"""The usage explorer: every number is the sum of its rows, the URL is the whole question."""

from __future__ import annotations

import csv
import io
import shlex
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from conduit.access.pages import go, page
from conduit.access.permissions import may
from conduit.core import clock, wording
from conduit.core.actor import Actor
from conduit.core.clock import rfc3339
from conduit.core.errors import InvalidInput
from conduit.core.money import format_usd
from usage import answers, explorer, filters, reports, rollups, summaries
from usage.answers import Answer, Line
from usage.explorer import Ask
from usage.models import NIL
from usage.summaries import Question
from usage.sums import Sums

MOST_ROWS = 100_000
PLURALS = {name: f"{title.lower()}s" for name, title in explorer.GROUPS.items()}


@dataclass(frozen=True, slots=True)
class Column:
    """`name` is a metric's, or of a figure made of two; `late`: goes first where there is little room."""

    title: str
    name: str
    late: bool = False


COLUMNS = (
    Column("Spend", "spend"),
    Column("Requests", "requests"),
    Column("Errors", "errors", late=True),
    Column("Input tokens", "input", late=True),
    Column("Cached", "cached-share", late=True),
    Column("Output tokens", "output", late=True),
    Column("Per 1,000 requests", "rate"),
)


@page("usage")
def usage(request: HttpRequest, actor: Actor) -> HttpResponse:
    at = clock.now()
    try:
        if request.GET.get("add"):
            return go(request, f"{reverse('usage')}?{_with_filter(request, actor, explorer.parse(request.GET, at))}")
        ask = explorer.parse(request.GET, at)
    except InvalidInput as error:
        return _refused(request, error)
    found = answers.answer(actor, ask)
    context = {
        "crumbs": [{"title": "Usage"}],
        "ask": ask,
        "form": _form(ask),
        "dates": explorer.dates(ask.span),
        "chips": _chips(ask),
        "filter_names": _filter_names(ask),
        "whole": parse_qsl(ask.query(), keep_blank_values=True),
        "state": f"?{ask.query()}",
        "link": request.build_absolute_uri(f"{reverse('usage')}?{ask.query()}"),
        "hidden": [("top", ask.top), ("shape", ask.shape), *ask.given.items()],
        "title": _title(ask),
        "note": _note(ask, at),
        "tops": [(f"Top {top}", ask.query(top=top), top == ask.top) for top in explorer.TOPS],
        "shapes": [(name, ask.query(shape=value), value == _shape(ask)) for value, name in _shapes(ask)],
        "chart": found.chart if found.whole.requests or found.former and found.former.requests else None,
        "table": _table(ask, found, actor),
        "group_title": explorer.GROUPS[ask.group].lower(),
        "span_words": explorer.words(ask.span),
        "hidden_tags": max(found.groups - len(found.lines), 0) if ask.group == "tag" else 0,
        "tagged": ask.group == "tag" or ask.sub == "tag",
        "exports": _exports(ask),
        "same_as": _same_as(request, ask),
    }
    return render(request, "usage/explorer.html", context)


def _refused(request: HttpRequest, error: InvalidInput) -> HttpResponse:
    """The question is not answered rather than answered otherwise."""
    context = {"crumbs": [{"title": "Usage"}], "error": error}
    return render(request, "usage/explorer_refused.html", context, status=422)


def _with_filter(request: HttpRequest, actor: Actor, ask: Ask) -> str:
    name, text = request.GET["add"], request.GET.get("value", "").strip()
    if name not in filters.SUMMARY or not text:
        raise InvalidInput("value", "Say what to look for.", "required")
    return ask.query(**{name: answers.named(actor, name, text)})


# --- the question --------------------------------------------------------------------------------------------------


def _form(ask: Ask) -> list[dict[str, Any]]:
    """The selects, each with its choices."""
    measures = {name: metric.title for name, metric in explorer.METRICS.items() if metric.tagged or not ask.tagged}
    selects = (
        ("metric", "Measure", measures, ask.metric),
        ("group", "by", explorer.GROUPS, ask.group),
        ("sub", "then by", {"": "Nothing", **explorer.GROUPS}, ask.sub),
        ("bucket", "per", explorer.BUCKETS, ask.bucket),
        ("range", "in", explorer.RANGES, ask.range),
        ("compare", "against", explorer.COMPARE, ask.compare),
    )
    return [
        {"name": name, "label": label, "choices": list(choices.items()), "value": value}
        for name, label, choices, value in selects
    ]


def _filter_names(ask: Ask) -> list[tuple[str, str]]:
    return [(name, title) for name, title in explorer.GROUPS.items() if name not in ask.given]


def _chips(ask: Ask) -> list[dict[str, str]]:
    return [
        {"title": explorer.GROUPS[name], "value": answers.title(name, text), "query": ask.query(**{name: None})}
        for name, text in ask.given.items()
    ]


def _shapes(ask: Ask) -> list[tuple[str, str]]:
    return list(explorer.SHAPES.items()) if ask.stacks else [("lines", "Lines")]


def _shape(ask: Ask) -> str:
    return ask.shape if ask.stacks else "lines"


def _title(ask: Ask) -> str:
    then = f" and {explorer.GROUPS[ask.sub].lower()}" if ask.sub else ""
    return f"{ask.measured.title} by {explorer.GROUPS[ask.group].lower()}{then} per {ask.bucket}"


def _note(ask: Ask, at: Any) -> str:
    notes = [explorer.words(ask.span)]
    if ask.span.end > at:
        notes.append(f"the last {ask.bucket} counts until {at:%H:%M} UTC")
    if ask.coarser:
        notes.append("finer steps are drawn for shorter spans")
    if not ask.measured.adds:
        notes.append("the groups with most requests first")
    return "; ".join(notes)


# --- the table -----------------------------------------------------------------------------------------------------


def _table(ask: Ask, found: Answer, actor: Actor) -> dict[str, Any]:
    metric = ask.measured
    rest = [column for column in COLUMNS if column.name != ask.metric]
    columns = [Column(metric.title, ask.metric), *rest]
    digits = wording.digits_for([found.whole.cost_nanos])
    largest = max((metric.value(line.sums) or 0 for line in found.lines), default=0)
    whole = metric.value(found.whole) or 0

    def row(line: Line, *, sub: bool = False) -> dict[str, Any]:
        amount = metric.value(line.sums) or 0
        return {
            "name": line.name,
            "color": line.color,
            "query": "" if sub else _drill(ask, line),
            "log": "" if sub else _log(ask, line, actor),
            "amount": amount,
            "share": wording.percent(amount, whole, 1),
            "cells": [(column, _cell(column, line.sums, digits, tagged=ask.tagged)) for column in columns],
            "change": answers.change(metric.value(line.sums), metric.value(line.former)) if line.former else "",
            "subs": [row(inner, sub=True) for inner in line.subs],
        }

    tagged = "tag" in ask.given
    return {
        "columns": columns,
        "rows": [row(line) for line in found.lines],
        "largest": largest,
        "shares": ask.stacks,
        "sorted": metric.adds,
        "against": _against(ask),
        "foot": {
            "name": "All requests" if ask.group == "tag" else wording.plural(found.groups, PLURALS[ask.group][:-1]),
            "cells": [(column, _cell(column, found.whole, digits, tagged=tagged)) for column in columns],
            "change": answers.change(metric.value(found.whole), metric.value(found.former)) if found.former else "",
        },
    }


def _against(ask: Ask) -> str:
    return f"vs {explorer.words(ask.former)}" if ask.former else ""


def _cell(column: Column, sums: Sums, digits: int, *, tagged: bool) -> dict[str, str]:
    """What is not counted by tag is a dash."""
    name = column.name
    if name == "spend":
        return {"text": wording.usd(sums.cost_nanos, digits), "title": wording.usd_exact(sums.cost_nanos)}
    if name == "rate":
        rate = sums.cost_nanos * 1000 // sums.requests if sums.requests else None
        return {"text": wording.usd(rate, 2), "title": ""}
    if name == "cached-share":
        return {
            "text": wording.DASH if tagged else wording.percent(sums.cache_read_tokens, sums.input_tokens),
            "title": "",
        }
    value = explorer.METRICS[name].value(sums)
    if explorer.METRICS[name].unit == "ms":
        return {"text": wording.microseconds(value), "title": ""}
    if name in ("input", "output", "cached") and value is not None:
        return {"text": wording.compact(value), "title": wording.count(value)}
    return {"text": wording.count(value), "title": ""}


def _drill(ask: Ask, line: Line) -> str:
    """Into one group: it becomes a filter, and what was the subgroup (or the next dimension) becomes the group."""
    if line.key is None or line.key == "":
        return ""
    tagged = ask.group == "tag" or "tag" in ask.given
    allowed = summaries.WITH_TAG if tagged else explorer.GROUPS
    inner = next(name for name in (ask.sub, "key", "model", "team") if name in allowed and name != ask.group)
    return ask.query(**{ask.group: line.key, "group": inner, "sub": ""})


def _log(ask: Ask, line: Line, actor: Actor) -> str:
    """The requests behind a row, in the log."""
    if line.key is None or line.key in ("", NIL) or not may(actor, "requests", write=False):
        return ""
    return f"{reverse('requests')}?{urlencode({**ask.given, ask.group: line.key, **explorer.dates(ask.span)})}"


# --- the same elsewhere --------------------------------------------------------------------------------------------


def _bounds(ask: Ask) -> dict[str, str]:
    return {"from": rfc3339(ask.span.start), "to": rfc3339(ask.span.end)}


def _exports(ask: Ask) -> list[dict[str, str]]:
    events = {**_bounds(ask), **ask.given}
    every = "/api/v1/usage/export"
    return [
        {"title": "CSV, this table", "url": f"{reverse('usage-table')}?{ask.query()}", "icon": "table"},
        {"title": "CSV, every event", "url": f"{every}?{urlencode({'format': 'csv', **events})}", "icon": "table"},
        {
            "title": "JSON lines, every event",
            "url": f"{every}?{urlencode({'format': 'jsonl', **events})}",
            "icon": "list-details",
        },
    ]


def _same_as(request: HttpRequest, ask: Ask) -> list[dict[str, str]]:
    """The interface sums by hour and by day; weeks and months are sums of days."""
    bucket = ask.bucket if ask.bucket in ("hour", "day") else "day"
    groups = ",".join([ask.group, *([ask.sub] if ask.sub else []), bucket])
    base = f"{request.scheme}://{request.get_host()}"
    query = urlencode({"group_by": groups, **_bounds(ask), **ask.given}, safe=",:")
    curl = f'curl \\\n  "{base}/api/v1/usage/summary?{query}" \\\n  -H "Authorization: Bearer $CONDUIT_TOKEN"'
    parts = [f"conduit usage --group-by {groups}", *(f"--{name} {at}" for name, at in _bounds(ask).items())]
    parts += [f"--where {shlex.quote(f'{name}={text}')}" for name, text in ask.given.items()]
    return [
        {"ident": "1", "title": "curl", "text": curl},
        {"ident": "2", "title": "CLI", "text": " \\\n  ".join(parts)},
    ]


@page("usage")
def usage_table(request: HttpRequest, actor: Actor) -> HttpResponse:
    """The table as CSV: all groups, exact figures."""
    try:
        ask = explorer.parse(request.GET, clock.now())
    except InvalidInput as error:
        return _refused(request, error)
    groups = [ask.group, *([ask.sub] if ask.sub else [])]
    rows = summaries.grouped(Question(actor, ask.span, ask.where, ask.tagged), groups, limit=MOST_ROWS)
    names = [answers.titles(name, {keys[place] for keys, _ in rows}) for place, name in enumerate(groups)]
    measures = rollups.TAG_MEASURES if ask.tagged else rollups.MEASURES
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\r\n")
    heading = [part for name in groups for part in ((name, f"{name}_id") if name in filters.IDS else (name,))]
    writer.writerow([*heading, *("cost_usd" if name == "cost_nanos" else name for name in measures)])
    for keys, sums in rows:
        cells: list[Any] = []
        for place, key in enumerate(keys):
            cells += [names[place][key], "" if key == NIL else key] if groups[place] in filters.IDS else [key]
        cells += [format_usd(sums.cost_nanos) if m == "cost_nanos" else getattr(sums, m) for m in measures]
        writer.writerow([reports.cell(value) for value in cells])
    reports.note_export(actor, "table", {**_bounds(ask), **ask.given})
    response = HttpResponse(buffer.getvalue(), content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="usage-by-{"-".join(groups)}.csv"'
    return response
