"""What the usage explorer answers: the chart's series, the table's rows, and what both were a period before.

All of it is sums of usage/summaries.py; "Other" is the whole less what is shown, so that a page adds up exactly.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import Model

from conduit.access.permissions import scope
from conduit.core import wording
from conduit.core.actor import Actor
from conduit.core.errors import InvalidInput
from keys.models import Team, VirtualKey
from providers.models import Credential, Provider
from usage import charts, explorer, filters, summaries
from usage.charts import Chart, Plot, Plots
from usage.explorer import Ask
from usage.models import NIL
from usage.summaries import Question
from usage.sums import Sums

SUBS = 5  # rows of the subgroup under each row
OTHER = 6  # the color of what has none of its own
_TABLES: dict[str, type[Model]] = {"key": VirtualKey, "team": Team, "provider": Provider, "credential": Credential}
Buckets = Mapping[datetime, Sums]


@dataclass(frozen=True, slots=True)
class Line:
    """A row of the table. `key` is the group's value, None for "Other"; `former` None: nothing to compare with."""

    name: str
    sums: Sums
    key: Any = None
    color: int = OTHER
    former: Sums | None = None
    subs: list[Line] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Answer:
    """`groups`: how many there are, shown or not. `whole` goes over everything, what has several tags counted once."""

    lines: list[Line]
    groups: int
    whole: Sums
    former: Sums | None
    chart: Chart


def answer(actor: Actor, ask: Ask) -> Answer:
    question = Question(actor, ask.span, ask.where, ask.tagged)
    found = summaries.ranked(question, [ask.group], ask.measured.measure, ask.top)
    many = found[0][0] if found else 0
    keys = [key for _, ((key,), _) in found]
    names = titles(ask.group, keys)
    before = _former(question, ask)
    earlier = dict(summaries.grouped(before.among(ask.group, keys), [ask.group])) if before and keys else {}
    subs = _subs(question, ask, keys)
    lines = [
        Line(
            names[key],
            sums,
            key,
            place + 1 if place < charts.SHOWN else OTHER,
            earlier.get((key,), Sums()) if before else None,
            subs.get(key, []),
        )
        for place, (_, ((key,), sums)) in enumerate(found)
    ]
    whole = summaries.total(_whole(question))
    past = summaries.total(_whole(before)) if before else None
    if ask.group != "tag" and many > len(lines):
        shown, shown_before = _sum(line.sums for line in lines), _sum(line.former or Sums() for line in lines)
        rest = past - shown_before if past else None
        lines.append(Line(f"Other ({many - len(lines)})", whole - shown, former=rest))
    return Answer(lines, many, whole, past, _chart(ask, question, before, lines[: charts.SHOWN], (many, whole, past)))


def _sum(found: Iterable[Sums]) -> Sums:
    total = Sums()
    for one in found:
        total = total + one
    return total


def _former(question: Question, ask: Ask) -> Question | None:
    return Question(question.actor, ask.former, question.where, question.tagged) if ask.former else None


def _whole(question: Question) -> Question:
    return Question(question.actor, question.span, question.where, tagged="tag" in question.where)


def _subs(question: Question, ask: Ask, keys: Sequence[Any]) -> dict[Any, list[Line]]:
    """The largest of the subgroup in each group, the others of it as one line."""
    if not ask.sub or not keys:
        return {}
    found = summaries.ranked(question.among(ask.group, keys), [ask.group, ask.sub], ask.measured.measure, SUBS)
    names = titles(ask.sub, {sub for _, ((_, sub), _) in found})
    lines: defaultdict[Any, list[Line]] = defaultdict(list)
    counts: dict[Any, int] = {}
    for many, ((key, sub), sums) in found:
        lines[key].append(Line(names[sub], sums, sub))
        counts[key] = many
    if ask.sub != "tag":
        totals = dict(summaries.grouped(question.among(ask.group, keys), [ask.group]))
        for key, mine in lines.items():
            if counts[key] > len(mine):
                rest = totals[(key,)] - _sum(line.sums for line in mine)
                mine.append(Line(f"Other ({counts[key] - len(mine)})", rest))
    return dict(lines)


def _chart(
    ask: Ask, question: Question, before: Question | None, lines: list[Line], totals: tuple[int, Sums, Sums | None]
) -> Chart:
    many, whole, past = totals
    begin = explorer.starts(ask.bucket, ask.span)
    keys = [line.key for line in lines if line.key is not None]
    series = _series(question.among(ask.group, keys), ask) if keys else {}
    sums = _buckets(_whole(question), ask)
    value = ask.measured.value
    plots = [
        Plot(line.name, _amounts(ask, series.get(line.key, {}), begin), value(line.sums), line.color)
        for line in lines
        if line.key is not None
    ]
    if ask.group != "tag" and many > len(plots):
        shown = {start: _sum(found.get(start, Sums()) for found in series.values()) for start in begin}
        rest = {start: sums.get(start, Sums()) - shown[start] for start in begin}
        outside = whole - _sum(line.sums for line in lines if line.key is not None)
        plots.append(Plot(f"Other ({many - len(plots)})", _amounts(ask, rest, begin), value(outside), OTHER))
    former = None
    if before is not None and past is not None:
        amounts = _amounts(ask, _buckets(_whole(before), ask, shift=True), begin)
        former = Plot(explorer.words(before.span), amounts, value(past))
    return charts.plotted(
        "usage",
        f"{ask.measured.title} by {explorer.GROUPS[ask.group].lower()} per {ask.bucket}",
        (f"{explorer.BUCKETS[ask.bucket]} (UTC)", [explorer.label(ask.bucket, start, ask.span) for start in begin]),
        Plots(plots, Plot("", _amounts(ask, sums, begin), value(whole)), former),
        unit=ask.measured.unit,
        lines=ask.shape == "lines" or not ask.stacks,
    )


def _series(question: Question, ask: Ask) -> dict[Any, dict[datetime, Sums]]:
    found: defaultdict[Any, dict[datetime, Sums]] = defaultdict(dict)
    for (key, start), sums in summaries.grouped(question, [ask.group, ask.bucket]):
        found[key][start] = sums
    return found


def _buckets(question: Question, ask: Ask, *, shift: bool = False) -> dict[datetime, Sums]:
    """By bucket; what was earlier falls into the bucket of the same time now, be it in the midst of a week or month."""
    fine = ask.bucket if ask.bucket == "hour" or not shift else "day"
    found: defaultdict[datetime, Sums] = defaultdict(Sums)
    for (start,), sums in summaries.grouped(question, [fine]):
        at = start + ask.shift if shift and ask.shift else start
        found[explorer.floor(ask.bucket, at)] += sums
    return found


def _amounts(ask: Ask, found: Buckets, begin: Sequence[datetime]) -> list[int | None]:
    """One amount per bucket, or what they amount to so far. A mean of nothing is a gap."""
    sums = [found.get(start, Sums()) for start in begin]
    if ask.shape == "sum" and ask.stacks:
        for index in range(1, len(sums)):
            sums[index] = sums[index - 1] + sums[index]
    return [ask.measured.value(one) for one in sums]


# --- names ---------------------------------------------------------------------------------------------------------


def titles(dimension: str, values: Iterable[Any]) -> dict[Any, str]:
    """What people call the values of a dimension."""
    wanted = list(values)
    none = f"no {dimension}"
    table = _TABLES.get(dimension)
    if table is None:
        return {value: str(value) or none for value in wanted}
    known = dict(table._default_manager.filter(pk__in=wanted).values_list("pk", "name"))
    return {value: known.get(value, none if value == NIL else f"deleted {dimension}") for value in wanted}


def title(dimension: str, text: str) -> str:
    """Of one filter, whose text may be an id."""
    if dimension not in filters.IDS:
        return text
    try:
        ident = UUID(text)
    except ValueError:
        return text
    return titles(dimension, [ident])[ident]


def named(actor: Actor, dimension: str, text: str) -> str:
    """The filter that somebody means who types a name: for what has ids, the id. Raises InvalidInput."""
    table = _TABLES.get(dimension)
    if table is None:
        return text
    known = table._default_manager.all()
    if dimension in ("key", "team"):
        known = scope(known, actor, "team_id" if dimension == "key" else "id")
    try:
        found = known.filter(pk=UUID(text))
    except ValueError:
        found = known.filter(name__iexact=text)
    ids = list(found.values_list("pk", flat=True)[:2])
    if not ids:
        raise InvalidInput(dimension, f'There is no {dimension} named "{text}".', "unknown")
    if len(ids) > 1:
        raise InvalidInput(dimension, f'Several have the name "{text}"; give the id.', "ambiguous")
    return str(ids[0])


def change(now: int | None, before: int | None) -> str:
    """`+14.2 %` against the former period; a dash where there was nothing."""
    if now is None or not before:
        return wording.DASH
    tenths = (abs(now - before) * 2000 + before) // (2 * before)
    sign = "+" if now > before else wording.MINUS if now < before else ""
    return f"{sign}{tenths // 10:,}.{tenths % 10}{wording.NBSP}%"
