"""Every sum is the sum of the events behind it: any grouping, any filter, any span, any actor."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from typer.testing import CliRunner

from conduit.cli import usage as usage_command
from conduit.core.actor import SYSTEM, Actor
from conduit.core.money import parse_usd
from keys.models import Team
from tests.access.clients import ApiClient, client_of, faults
from tests.usage.events import at, costing, random_records, settled
from usage import reports, rollups, summaries
from usage.ledger import apply
from usage.models import NIL, UsageDay, UsageEvent, UsageHour
from usage.summaries import Question, Span
from usage.sums import Sums

pytestmark = pytest.mark.django_db
START = datetime(2026, 11, 2, 0, 0, tzinfo=UTC)
DAYS = 5
NAMES = [field.name for field in fields(Sums)]
DIMENSIONS = tuple(name for name in summaries.GROUPS if name != "tag")


@pytest.fixture
def events() -> list[UsageEvent]:
    """800 events over five days, applied in batches of every size, some of them twice."""
    chance = random.Random(71)
    records = random_records(chance, 800, START, DAYS)
    while records:
        batch = [records.pop() for _ in range(min(len(records), chance.randrange(1, 300)))]
        apply(batch)
        apply(batch[: chance.randrange(3)])
    return list(UsageEvent.objects.all())


def keys_of(event: UsageEvent, group: str) -> list[Any]:
    """What the event counts under: one value, or each of its tags."""
    if group == "tag":
        return sorted(set(event.tags))
    if group == "hour":
        return [event.time.replace(minute=0, second=0, microsecond=0)]
    if group in ("day", "week", "month"):
        day = event.time.replace(hour=0, minute=0, second=0, microsecond=0)
        first = {"day": day, "week": day - timedelta(days=day.weekday()), "month": day.replace(day=1)}
        return [first[group]]
    value = getattr(event, summaries.GROUPS[group])
    return [NIL if value is None else value]


def counted(event: UsageEvent) -> Sums:
    served = event.final and event.attempt > 0
    return Sums(
        requests=int(event.final),
        attempts=int(event.attempt > 0),
        errors=int(served and event.outcome == "error"),
        refused=int(event.attempt == 0),
        cancelled=int(served and event.outcome == "cancelled"),
        estimated=int(event.exactness == "estimated"),
        uncertain=int(event.exactness == "uncertain"),
        input_tokens=event.input_tokens,
        output_tokens=event.output_tokens,
        cache_read_tokens=event.cache_read_tokens,
        cache_write_tokens=event.cache_write_tokens,
        reasoning_tokens=event.reasoning_tokens,
        cost_nanos=event.cost_nanos,
        latency_us=event.latency_us if served else 0,
        ttft_us=(event.ttft_us or 0) if served else 0,
        ttft_count=int(served and event.ttft_us is not None),
    )


def places(event: UsageEvent, groups: Iterable[str]) -> Iterator[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = [()]
    for group in groups:
        found = [(*before, key) for before in found for key in keys_of(event, group)]
    yield from found


def expected(events: Iterable[UsageEvent], groups: Iterable[str], question: Question) -> dict[tuple[Any, ...], Sums]:
    sums: defaultdict[tuple[Any, ...], Sums] = defaultdict(Sums)
    groups = list(groups)
    for event in events:
        if not question.span.start <= event.time < question.span.end:
            continue
        if any(value not in keys_of(event, name) for name, value in question.where.items() if name != "tag"):
            continue
        if question.actor.teams is not None and event.team_id not in question.actor.teams:
            continue
        for place in places(event, groups):
            # Under `tag=` an event is the one row of that tag.
            if "tag" in question.where and "tag" in groups and question.where["tag"] not in place:
                continue
            if "tag" in question.where and question.where["tag"] not in event.tags:
                continue
            sums[place] = sums[place] + counted(event)
    if not question.tagged:
        return dict(sums)
    kept = {name: 0 for name in NAMES if name not in rollups.TAG_MEASURES}
    return {place: replace(found, **kept) for place, found in sums.items()}


def random_span(chance: random.Random) -> Span:
    """Cut anywhere, at whole hours, at whole days, or within one hour."""
    step = chance.choice([1, 3_600_000_000, 86_400_000_000])
    first, second = sorted(chance.randrange(DAYS * 86_400_000_000 // step + 1) * step for _ in range(2))
    if chance.random() < 0.1:
        second = first + chance.randrange(3_600_000_000)
    return Span(START + timedelta(microseconds=first), START + timedelta(microseconds=second))


def random_question(chance: random.Random, events: list[UsageEvent]) -> tuple[Question, list[str]]:
    tagged = chance.random() < 0.3
    known = ("key", "team", "tag") if tagged else DIMENSIONS
    groups = chance.sample([*known, *summaries.BUCKETS], k=chance.randrange(4))
    sample = chance.choice(events)
    where = {name: keys_of(sample, name)[0] for name in chance.sample(known, k=chance.randrange(3)) if name != "tag"}
    if tagged and "tag" not in groups:
        where["tag"] = "prod"
    teams = frozenset(chance.sample([event.team_id for event in events if event.team_id], k=2))
    actor = chance.choice([SYSTEM, replace(SYSTEM, teams=teams)])
    return Question(actor, random_span(chance), where, tagged), groups


def test_every_grouping_filter_and_span_sums_exactly_its_events(events: list[UsageEvent]) -> None:
    chance = random.Random(2026)
    rows = 0
    for _ in range(150):
        question, groups = random_question(chance, events)
        found = summaries.grouped(question, groups)
        wanted = expected(events, groups, question)
        if not groups:
            wanted = wanted or {(): Sums()}
        assert dict(found) == wanted, (groups, question)
        assert len(found) == len(wanted)
        rows += len(found)
    assert rows > 500
    for name in ["tag", *DIMENSIONS, *summaries.BUCKETS]:
        question = Question(SYSTEM, Span(START, START + timedelta(days=DAYS)), {}, tagged=name == "tag")
        assert dict(summaries.grouped(question, [name])) == expected(events, [name], question), name


def test_the_largest_of_each_group_are_ranked_and_the_others_counted(events: list[UsageEvent]) -> None:
    question = Question(SYSTEM, Span(START, START + timedelta(days=DAYS)), {})
    wanted = expected(events, ["provider", "key"], question)
    found = summaries.ranked(question, ["provider", "key"], "cost_nanos", 2)
    for provider in {place[0] for place in wanted}:
        costs = sorted((sums.cost_nanos for place, sums in wanted.items() if place[0] == provider), reverse=True)
        mine = [(many, row) for many, row in found if row[0][0] == provider]
        assert [row[1].cost_nanos for _, row in mine] == costs[:2]
        assert {many for many, _ in mine} == {len(costs)}


def test_whole_days_and_hours_come_from_the_rollups_and_the_rest_from_the_events() -> None:
    apply([costing(1, time_us=at(START + timedelta(minutes=30 * n))) for n in range(4 * 48)])
    whole, cut = timedelta(days=2), timedelta(minutes=90)
    spans = {
        "days": Span(START, START + whole),
        "hours": Span(START + 2 * cut, START + 4 * cut),
        "events": Span(START + timedelta(minutes=5), START + timedelta(minutes=50)),
        "all": Span(START + timedelta(hours=22, minutes=10), START + whole + timedelta(hours=1, minutes=40)),
    }
    UsageDay.objects.update(cost_nanos=1_000_000)
    UsageHour.objects.update(cost_nanos=1_000)
    sums = {name: summaries.total(Question(SYSTEM, span, {})).cost_nanos for name, span in spans.items()}
    # 22:10 to 01:40: one event at 22:30, the hour of 23, one day, the hour of 0, two events at 1:00 and 1:30.
    assert sums == {"days": 2_000_000, "hours": 3_000, "events": 1, "all": 1_000_000 + 2_000 + 1 + 2}
    by_hour = summaries.grouped(Question(SYSTEM, spans["days"], {}), ["hour"])
    assert [row.cost_nanos for _, row in by_hour] == [1_000] * 48


# --- over the API --------------------------------------------------------------------------------------------------

SPAN = "from=2026-11-02T00:00:00Z&to=2026-11-07T00:00:00Z"


def test_the_api_sums_by_each_group(owner: ApiClient, events: list[UsageEvent]) -> None:
    for group in (*summaries.GROUPS, "day", "hour"):
        question = Question(SYSTEM, Span(START, START + timedelta(days=DAYS)), {}, tagged=group == "tag")
        wanted = expected(events, [group], question)
        body = owner.get(f"/usage/summary?group_by={group}&{SPAN}").json()
        assert len(body["data"]) == len(wanted)
        costs = sorted(sums.cost_nanos for sums in wanted.values())
        assert sorted(parse_usd(row["cost_usd"]) for row in body["data"]) == costs
        assert parse_usd(body["total"]["cost_usd"]) == sum(event.cost_nanos for event in events)
        assert body["total"]["requests"] == sum(event.final for event in events)
        assert len({row[group] for row in body["data"]}) == len(wanted), "a group is there twice"


def listed(owner: ApiClient, query: str) -> list[dict[str, Any]]:
    """All pages."""
    found, cursor = [], ""
    while True:
        body = owner.get(f"/usage/events?limit=200&{query}{cursor}").json()
        found += body["data"]
        if body["next"] is None:
            return found
        cursor = f"&cursor={body['next']}"


def test_the_api_narrows_sums_and_events_alike(owner: ApiClient, events: list[UsageEvent]) -> None:
    for name in summaries.GROUPS:
        chosen = next(value for event in events for value in keys_of(event, name) if value and value != NIL)
        found = listed(owner, f"{name}={chosen}")
        mine = [event for event in events if chosen in keys_of(event, name)]
        assert {event["id"] for event in found} == {str(event.id) for event in mine}, name
        total = owner.get(f"/usage/summary?group_by=day&{SPAN}&{name}={chosen}").json()["total"]
        assert parse_usd(total["cost_usd"]) == sum(event.cost_nanos for event in mine)
        assert parse_usd(total["cost_usd"]) == sum(parse_usd(event["cost_usd"]) for event in found)


def test_the_nil_id_finds_what_has_none(owner: ApiClient, events: list[UsageEvent]) -> None:
    mine = [event for event in events if event.key_id is None]
    body = owner.get(f"/usage/summary?group_by=key&{SPAN}&key={NIL}").json()
    assert [(row["key"], row["requests"]) for row in body["data"]] == [(None, sum(event.final for event in mine))]
    found = listed(owner, f"key={NIL}")
    assert {event["id"] for event in found} == {str(event.id) for event in mine}


@pytest.mark.parametrize(
    ("query", "fault"),
    [
        ("group_by=tag,model", {"group_by": "invalid_combination"}),
        ("group_by=customer,tag", {"group_by": "invalid_combination"}),
        ("group_by=model&tag=prod", {"group_by": "invalid_combination"}),
        ("group_by=tag&model=gpt", {"model": "invalid_combination"}),
        ("group_by=week", {"group_by": "unknown_group"}),
        ("group_by=key&credential=main", {"credential": "invalid_id"}),
        ("group_by=key&status=200", {"status": "unknown_parameter"}),
        ("group_by=key&model=%00", {"model": "invalid_text"}),
    ],
)
def test_what_no_rollup_can_answer_is_refused_by_name(owner: ApiClient, query: str, fault: dict[str, str]) -> None:
    response = owner.get(f"/usage/summary?{query}")
    assert response.status_code == 400
    assert faults(response) == fault


@pytest.mark.parametrize(
    ("query", "fault"),
    [
        ("outcome=fine", {"outcome": "invalid_choice"}),
        ("exactness=sure", {"exactness": "invalid_choice"}),
        ("credential=main", {"credential": "invalid_id"}),
        ("customer=%00", {"customer": "invalid_text"}),
        ("request_id=%00", {"request_id": "invalid_text"}),
    ],
)
def test_a_wrong_filter_of_events_is_named(owner: ApiClient, query: str, fault: dict[str, str]) -> None:
    for path in ("/usage/events?", "/usage/export?"):
        response = owner.get(f"{path}{query}")
        assert response.status_code == 400
        assert faults(response) == fault


def test_events_are_found_by_outcome_and_exactness(owner: ApiClient, events: list[UsageEvent]) -> None:
    for name, value in (("outcome", "cancelled"), ("exactness", "uncertain")):
        wanted = {str(event.id) for event in events if getattr(event, name) == value}
        assert wanted
        assert {event["id"] for event in listed(owner, f"{name}={value}")} == wanted


def test_charlie_sums_only_his_team_whatever_he_filters_by() -> None:
    alices, charlies = Team.objects.create(name="Alice's"), Team.objects.create(name="Charlie's")
    for team in (alices, charlies, None):
        ids = {"team_id": team.id.bytes} if team else {}
        apply([costing(7, time_us=at(START), tags=["prod"], customer="Bob", **ids)])
    charlie = client_of("operator", charlies.id)
    for query in ("group_by=team", "group_by=tag", "group_by=customer&customer=Bob", "group_by=day&tag=prod"):
        body = charlie.get(f"/usage/summary?{query}&{SPAN}").json()
        assert [row["cost_usd"] for row in (*body["data"], body["total"])] == ["0.000000007"] * 2, query
    for team_id in (alices.id, NIL):
        body = charlie.get(f"/usage/summary?group_by=day&team={team_id}&{SPAN}").json()
        assert (body["data"], body["total"]["requests"]) == ([], 0)


def test_an_export_asks_for_the_next_rows_only_when_the_former_are_taken(
    django_assert_num_queries: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "CHUNK", 5)
    apply([costing(1, time_us=at(START) + n) for n in range(23)])
    actor: Actor = SYSTEM
    chunks = reports.chunks(reports.events(actor, {}))
    for _ in range(4):
        with django_assert_num_queries(1):
            assert len(next(chunks)) == 5
    assert [len(rows) for rows in chunks] == [3]


def test_the_usage_command_groups_narrows_and_refuses() -> None:
    apply([settled(model="gpt", customer="Alice"), settled(model="gpt", customer="Bob"), settled(model="claude")])
    run = CliRunner().invoke
    done = run(usage_command.app, ["--group-by", "customer,model", "--where", "model=gpt", "--json"])
    body = json.loads(done.stdout)
    assert {row["customer"] for row in body["data"]} == {"Alice", "Bob"}
    assert body["total"]["cost_usd"] == "0.00027"
    assert run(usage_command.app, ["--where", "model"]).exit_code == 2
    assert run(usage_command.app, ["--where", "colour=red"]).exit_code == 1
