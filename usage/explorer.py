"""The usage explorer's question, as it stands in a page's URL: measure x group x subgroup x bucket, in a span of time.

What a URL leaves out or misspells has its default, but for a filter: a wrong one raises InvalidInput, because the sums
without it would be another answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from conduit.core.errors import InvalidInput
from usage import filters, summaries
from usage.charts import Unit
from usage.summaries import Span
from usage.sums import Sums


@dataclass(frozen=True, slots=True)
class Metric:
    """`measure` ranks the groups. What does not add up (a mean) is drawn as lines and has no shares."""

    title: str
    unit: Unit
    measure: str
    value: Callable[[Sums], int | None]
    adds: bool = True
    tagged: bool = True


METRICS = {
    "spend": Metric("Spend", "usd", "cost_nanos", lambda sums: sums.cost_nanos),
    "requests": Metric("Requests", "count", "requests", lambda sums: sums.requests),
    "input": Metric("Input tokens", "count", "input_tokens", lambda sums: sums.input_tokens),
    "output": Metric("Output tokens", "count", "output_tokens", lambda sums: sums.output_tokens),
    "cached": Metric("Cached tokens", "count", "cache_read_tokens", lambda sums: sums.cache_read_tokens, tagged=False),
    "errors": Metric("Errors", "count", "errors", lambda sums: sums.errors),
    "refused": Metric("Refused", "count", "refused", lambda sums: sums.refused),
    "latency": Metric("Mean latency", "ms", "requests", lambda sums: sums.mean_latency_us, adds=False, tagged=False),
    "ttft": Metric(
        "Mean time to first token", "ms", "requests", lambda sums: sums.mean_ttft_us, adds=False, tagged=False
    ),
}
GROUPS = {
    "model": "Model",
    "key": "Key",
    "team": "Team",
    "provider": "Provider",
    "credential": "Credential",
    "route": "Route",
    "tag": "Tag",
    "customer": "Customer",
    "endpoint": "Endpoint",
}
BUCKETS = {"hour": "Hour", "day": "Day", "week": "Week", "month": "Month"}
RANGES = {
    "24h": "Last 24 hours",
    "7d": "Last 7 days",
    "30d": "Last 30 days",
    "month": "This month",
    "last-month": "Last month",
    "custom": "Custom…",
}
COMPARE = {"former": "Period before", "4w": "4 weeks earlier", "": "Nothing"}
TOPS = (5, 10, 50)
SHAPES = {"bars": "Bars", "lines": "Lines", "sum": "Cumulative"}
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
MOST_BUCKETS = 750
_OLDEST = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Ask:
    """`given` are the filters as texts; `coarser`: the asked bucket was too fine for the span."""

    metric: str
    group: str
    sub: str
    bucket: str
    range: str
    span: Span
    compare: str
    top: int
    shape: str
    given: Mapping[str, str]
    where: Mapping[str, Any] = field(repr=False)
    at: datetime
    coarser: bool = False

    @property
    def measured(self) -> Metric:
        return METRICS[self.metric]

    @property
    def tagged(self) -> bool:
        return "tag" in (self.group, self.sub) or "tag" in self.given

    @property
    def stacks(self) -> bool:
        """Whether the groups add up to the whole: means do not, nor do tags, of which a request may have several."""
        return self.measured.adds and self.group != "tag"

    @property
    def shift(self) -> timedelta | None:
        """How much earlier the former period is: whole days, so that hours fall upon the same hours."""
        if self.compare == "4w":
            return 28 * DAY
        days = -(-(self.span.end - self.span.start) // DAY)
        return max(days, 1) * DAY if self.compare else None

    @property
    def former(self) -> Span | None:
        """As much earlier as it is long, and no longer than the span has lasted until now."""
        if self.shift is None:
            return None
        end = min(self.span.end, max(self.at, self.span.start))
        return Span(self.span.start - self.shift, end - self.shift)

    def query(self, **changes: Any) -> str:
        """The URL's query with some parts changed; a filter that is None goes."""
        given = {name: changes.pop(name, text) for name, text in self.given.items()}
        state = {
            "metric": self.metric,
            "group": self.group,
            "sub": self.sub,
            "bucket": self.bucket,
            "range": self.range,
            **self._dates(),
            "compare": self.compare,
            "top": self.top,
            "shape": self.shape,
            **given,
            **changes,
        }
        return urlencode({name: value for name, value in state.items() if value is not None})

    def _dates(self) -> dict[str, str]:
        return dates(self.span) if self.range == "custom" else {}


def dates(span: Span) -> dict[str, str]:
    """First and last day, as a form has them."""
    last = span.end - timedelta(microseconds=1)
    return {"from": f"{span.start:%Y-%m-%d}", "to": f"{last:%Y-%m-%d}"}


def parse(params: Mapping[str, str], at: datetime) -> Ask:
    """The question of a URL. Raises InvalidInput for a filter that is wrong, and for what no rollup can answer."""
    given = {name: params[name] for name in filters.SUMMARY if params.get(name)}
    group = _choice(params, "group", GROUPS, "model")
    sub = _choice(params, "sub", {**GROUPS, "": ""}, "")
    chosen = _choice(params, "range", RANGES, "30d")
    span = _span(chosen, params, at)
    bucket, coarser = _bucket(_choice(params, "bucket", BUCKETS, "hour" if chosen == "24h" else "day"), span)
    metric = _choice(params, "metric", METRICS, "spend")
    summaries.demand_combination([group, sub] if sub else [group], given)
    found = Ask(
        metric=metric,
        group=group,
        sub="" if sub == group else sub,
        bucket=bucket,
        range=chosen,
        span=span,
        compare=_choice(params, "compare", COMPARE, "former"),
        top=int(_choice(params, "top", {str(top): "" for top in TOPS}, "5")),
        shape=_choice(params, "shape", SHAPES, "bars"),
        given=given,
        where=filters.values(given),
        at=at,
        coarser=coarser,
    )
    if found.tagged and not METRICS[metric].tagged:
        title = METRICS[metric].title
        raise InvalidInput("metric", f"{title} is not counted by tag; choose another measure.", "invalid_combination")
    return found


def _choice(params: Mapping[str, str], name: str, known: Mapping[str, Any], otherwise: str) -> str:
    value = params.get(name, otherwise)
    return value if value in known else otherwise


def _span(chosen: str, params: Mapping[str, str], at: datetime) -> Span:
    """Ends with the running hour, whose rollup has everything until now."""
    hour, day = at.replace(minute=0, second=0, microsecond=0), at.replace(hour=0, minute=0, second=0, microsecond=0)
    end = hour + HOUR
    month = day.replace(day=1)
    if chosen == "24h":
        return Span(end - 24 * HOUR, end)
    if chosen in ("7d", "30d"):
        return Span(day - (int(chosen[:-1]) - 1) * DAY, end)
    if chosen == "month":
        return Span(month, end)
    if chosen == "last-month":
        return Span((month - DAY).replace(day=1), month)
    first = _date(params, "from", day - 6 * DAY)
    last = _date(params, "to", day)
    if first > last:
        raise InvalidInput("from", "Must not be after the last day.", "out_of_range")
    return Span(first, min(last + DAY, end) if first < end else last + DAY)


def _date(params: Mapping[str, str], name: str, otherwise: datetime) -> datetime:
    text = params.get(name, "")
    if not text:
        return otherwise
    try:
        found = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise InvalidInput(name, 'Must be a day such as "2030-01-31".', "invalid_time") from None
    if not _OLDEST <= found <= otherwise.replace(year=otherwise.year + 10, month=1, day=1):
        raise InvalidInput(name, f"Must be a day since {_OLDEST:%Y}.", "out_of_range")
    return found


def _bucket(asked: str, span: Span) -> tuple[str, bool]:
    names = list(BUCKETS)
    for bucket in names[names.index(asked) :]:
        if (span.end - span.start) / {"hour": HOUR, "day": DAY, "week": 7 * DAY, "month": 28 * DAY}[bucket] <= (
            MOST_BUCKETS
        ):
            return bucket, bucket != asked
    return "month", True


def starts(bucket: str, span: Span) -> list[datetime]:
    """Where each bucket begins, the first one at or before the span."""
    found = [floor(bucket, span.start)]
    while (following := _next(bucket, found[-1])) < span.end:
        found.append(following)
    return found


def floor(bucket: str, at: datetime) -> datetime:
    hour = at.replace(minute=0, second=0, microsecond=0)
    if bucket == "hour":
        return hour
    day = hour.replace(hour=0)
    if bucket == "week":
        return day - day.weekday() * DAY
    return day.replace(day=1) if bucket == "month" else day


def _next(bucket: str, start: datetime) -> datetime:
    if bucket == "month":
        return (start + 32 * DAY).replace(day=1)
    return start + {"hour": HOUR, "day": DAY, "week": 7 * DAY}[bucket]


def label(bucket: str, start: datetime, span: Span) -> str:
    """A bucket's beginning, as short as the span allows."""
    year = f" {start.year}" if span.start.year != span.end.year else ""
    if bucket == "month":
        return f"{start:%b} {start.year}"
    day = f"{start.day} {start:%b}{year}"
    if bucket != "hour":
        return day
    return f"{start:%H}:00" if span.end - span.start <= DAY else f"{day} {start:%H}:00"


def words(span: Span) -> str:
    """`1–20 November`, `29 October – 20 November`; with years when there are several."""
    first, last = span.start, span.end - timedelta(microseconds=1)
    if (first.year, first.month, first.day) == (last.year, last.month, last.day):
        return f"{first.day} {first:%B}"
    if (first.year, first.month) == (last.year, last.month):
        return f"{first.day}–{last.day} {last:%B}"
    years = (f" {first.year}", f" {last.year}") if first.year != last.year else ("", "")
    return f"{first.day} {first:%B}{years[0]} – {last.day} {last:%B}{years[1]}"
