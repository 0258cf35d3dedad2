"""The usage explorer adds up: rows and "Other" make the whole, buckets make the rows, and a URL is one question."""

from __future__ import annotations

import itertools
import random
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl

import pytest

from conduit.core.actor import SYSTEM
from conduit.core.errors import InvalidInput
from keys.models import Team, VirtualKey
from tests.usage.events import at, costing, random_records
from usage import answers, explorer
from usage.answers import Answer, answer
from usage.explorer import Ask
from usage.ledger import apply
from usage.models import UsageEvent
from usage.summaries import Span
from usage.sums import Sums

START = datetime(2026, 10, 12, tzinfo=UTC)
DAYS = 40
NOW = datetime(2026, 11, 20, 14, 32, tzinfo=UTC)


def asked(**params: str) -> Ask:
    return explorer.parse(params, NOW)


def total_of(found: Answer) -> Sums:
    sums = Sums()
    for line in found.lines:
        sums = sums + line.sums
    return sums


def drawn(found: Answer) -> list[float]:
    """What each series of the chart adds up to."""
    return [sum(value or 0 for value in series["data"]) for series in found.chart.drawing["series"]]


@pytest.fixture
def events(db: None) -> list[UsageEvent]:
    apply(random_records(random.Random(5), 600, START, DAYS))
    return list(UsageEvent.objects.all())


def within(events: list[UsageEvent], span: Span) -> list[UsageEvent]:
    return [event for event in events if span.start <= event.time < span.end]


def test_rows_and_buckets_add_up_to_the_whole(events: list[UsageEvent]) -> None:
    groups = [name for name in explorer.GROUPS if name != "tag"]
    for group, bucket in itertools.product(groups, explorer.BUCKETS):
        sub = "customer" if group != "customer" else "model"
        adds_up(events, asked(group=group, sub=sub, bucket=bucket, range="30d", compare="former", metric="requests"))


def adds_up(events: list[UsageEvent], ask: Ask) -> None:
    found = answer(SYSTEM, ask)
    mine = within(events, Span(ask.span.start, NOW))
    assert total_of(found) == found.whole
    assert found.whole.cost_nanos == sum(event.cost_nanos for event in mine)
    assert found.whole.requests == sum(event.final for event in mine) > 0
    *series, former = drawn(found)
    assert sum(series) == found.whole.requests
    assert [line.sums.requests for line in found.lines[: len(series)]] == series
    assert ask.former is not None
    before = sum(event.final for event in within(events, ask.former))
    assert former == before == (found.former or Sums()).requests
    assert sum(line.former.requests for line in found.lines if line.former) == before > 0
    for line in found.lines:
        inner = Sums()
        for one in line.subs:
            inner = inner + one.sums
        assert inner == line.sums or line.key is None


def test_what_is_beyond_the_top_is_one_row_and_one_series(db: None) -> None:
    apply([costing(100 - n, time_us=at(NOW - timedelta(hours=1 + n)), model=f"m{n}") for n in range(12)])
    for top, rows in (("5", 6), ("10", 11), ("50", 12)):
        found = answer(SYSTEM, asked(top=top))
        assert len(found.lines) == rows
        assert found.groups == 12
        assert total_of(found).cost_nanos == sum(100 - n for n in range(12))
        assert [series.name for series in found.chart.series] == ["m0", "m1", "m2", "m3", "m4", "Other (7)"]
    assert found.lines[-1].name == "m11"


def test_a_request_with_two_tags_counts_under_both_and_once_in_the_whole(db: None) -> None:
    apply([costing(5, time_us=at(NOW - timedelta(hours=1)), tags=["prod", "eu"]), costing(7, time_us=at(NOW))])
    found = answer(SYSTEM, asked(group="tag"))
    assert [(line.name, line.sums.cost_nanos) for line in found.lines] == [("eu", 5), ("prod", 5)]
    assert found.whole.cost_nanos == 12
    assert found.chart.drawing["kind"] == "line"
    narrowed = answer(SYSTEM, asked(group="key", tag="prod"))
    assert narrowed.whole.cost_nanos == 5


def test_means_are_means_of_what_was_served(events: list[UsageEvent]) -> None:
    ask = asked(metric="latency", group="model", compare="")
    found = answer(SYSTEM, ask)
    served = [e for e in within(events, Span(ask.span.start, NOW)) if e.final and e.attempt > 0]
    assert found.whole.mean_latency_us == sum(e.latency_us for e in served) // len(served)
    for line in found.lines:
        own = [e.latency_us for e in served if e.model == line.key]
        assert line.sums.mean_latency_us == (sum(own) // len(own) if own else None)
    assert found.chart.drawing["kind"] == "line"


def test_cumulative_ends_with_the_total(events: list[UsageEvent]) -> None:
    found = answer(SYSTEM, asked(metric="requests", shape="sum", compare=""))
    assert sum(series["data"][-1] for series in found.chart.drawing["series"]) == found.whole.requests
    assert found.chart.rows[-1].total == f"{found.whole.requests:,}"


def test_the_former_period_lasts_no_longer_than_this_one_until_now(db: None) -> None:
    inside, after = NOW - timedelta(days=30, minutes=1), NOW - timedelta(days=30) + timedelta(minutes=1)
    apply([costing(3, time_us=at(inside)), costing(9, time_us=at(after))])
    found = answer(SYSTEM, asked(range="30d"))
    assert (found.former or Sums()).cost_nanos == 3


@pytest.mark.parametrize(
    ("params", "span"),
    [
        ({"range": "24h"}, ("2026-11-19T15", "2026-11-20T15")),
        ({"range": "7d"}, ("2026-11-14T00", "2026-11-20T15")),
        ({"range": "month"}, ("2026-11-01T00", "2026-11-20T15")),
        ({"range": "last-month"}, ("2026-10-01T00", "2026-11-01T00")),
        ({"range": "custom", "from": "2026-02-27", "to": "2026-03-02"}, ("2026-02-27T00", "2026-03-03T00")),
        ({"range": "custom", "from": "2026-11-19", "to": "2026-11-20"}, ("2026-11-19T00", "2026-11-20T15")),
    ],
)
def test_ranges(params: dict[str, str], span: tuple[str, str]) -> None:
    found = asked(**params).span
    assert (f"{found.start:%Y-%m-%dT%H}", f"{found.end:%Y-%m-%dT%H}") == span


def test_an_url_is_one_question(db: None) -> None:
    chance = random.Random(3)
    plain = {field.name for field in fields(Ask)} - {"where"}
    known: dict[str, Any] = {
        "metric": explorer.METRICS,
        "group": explorer.GROUPS,
        "sub": ["", *explorer.GROUPS],
        "bucket": explorer.BUCKETS,
        "range": explorer.RANGES,
        "compare": explorer.COMPARE,
        "top": explorer.TOPS,
        "shape": explorer.SHAPES,
        "model": ["", "gpt"],
        "from": ["2026-10-02"],
        "to": ["2026-11-12"],
    }
    answered = 0
    for _ in range(300):
        params = {name: str(chance.choice(list(values))) for name, values in known.items()}
        try:
            ask = explorer.parse(params, NOW)
        except InvalidInput:  # a tag with what it cannot be combined with
            continue
        again = explorer.parse(dict(parse_qsl(ask.query(), keep_blank_values=True)), NOW)
        differ = [name for name in plain - {"coarser"} if getattr(ask, name) != getattr(again, name)]
        assert not differ, params
        answered += 1
    assert answered > 100


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"group": "tag", "sub": "model"}, "group_by"),
        ({"group": "model", "tag": "prod"}, "group_by"),
        ({"group": "tag", "model": "gpt"}, "model"),
        ({"group": "tag", "metric": "latency"}, "metric"),
        ({"key": "alice"}, "key"),
        ({"range": "custom", "from": "2026-02-30"}, "from"),
        ({"range": "custom", "from": "1816-01-01"}, "from"),
        ({"range": "custom", "from": "2026-03-01", "to": "2026-02-01"}, "from"),
    ],
)
def test_what_cannot_be_answered_is_named(params: dict[str, str], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        asked(**params)
    assert caught.value.field == field


def test_buckets_are_made_coarser_where_there_would_be_too_many() -> None:
    ask = asked(range="custom", bucket="hour", **{"from": "2020-01-01", "to": "2026-11-01"})
    assert (ask.bucket, ask.coarser) == ("week", True)
    assert len(explorer.starts(ask.bucket, ask.span)) <= explorer.MOST_BUCKETS + 1


def test_names_lead_to_ids_within_the_actors_teams(db: None) -> None:
    mine, other = Team.objects.create(name="Search"), Team.objects.create(name="Support")
    key = VirtualKey.objects.create(name="forecast", team=mine)
    VirtualKey.objects.create(name="secret-plan", team=other)
    alice = type(SYSTEM)(**{**{f.name: getattr(SYSTEM, f.name) for f in fields(SYSTEM)}, "teams": frozenset({mine.id})})
    assert answers.named(alice, "key", "Forecast") == answers.named(alice, "key", str(key.id)) == str(key.id)
    for name in ("secret-plan", "nobody"):
        with pytest.raises(InvalidInput, match="There is no key named"):
            answers.named(alice, "key", name)
    assert answers.named(alice, "model", "gpt") == "gpt"


@pytest.mark.parametrize(
    ("now", "before", "text"),
    [(119, 100, "+19.0"), (1, 3, "−66.7"), (5, 5, "0.0"), (5, 0, "–"), (None, 5, "–"), (20_000, 10, "+199,900.0")],
)
def test_changes_read_as_percent(now: int | None, before: int | None, text: str) -> None:
    assert answers.change(now, before).replace("\u00a0%", "") == text
