"""The usage explorer as people meet it: figures that add up, links to what is behind them, refusals that say why."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Callable

from django.test import Client

from conduit.access.models import Role
from conduit.core import wording
from conduit.core.money import parse_usd
from keys.models import VirtualKey
from tests.console.conftest import World, attempt
from tests.console.pages import Markup
from usage import explorer, ledger


def words(page: str) -> str:
    return " ".join("".join(Markup(page).text).split())


def test_the_page_sums_exactly_what_the_events_cost(world: World, owner: Client) -> None:
    spent = sum(event.cost_nanos for event in world.events)
    page = owner.get("/usage?group=key&sub=model")
    table = page.context["table"]
    assert sum(row["amount"] for row in table["rows"]) == spent
    assert {row["name"] for row in table["rows"]} == {"support-chat", "search-answers"}
    assert f'title="{wording.usd_exact(spent)}"' in page.content.decode()
    assert page.context["chart"].total == wording.usd(spent, 4)


def test_every_measure_opens_by_every_group(world: World, owner: Client) -> None:
    for metric, group in itertools.product(explorer.METRICS, explorer.GROUPS):
        answer = owner.get(f"/usage?metric={metric}&group={group}")
        possible = group != "tag" or explorer.METRICS[metric].tagged
        assert answer.status_code == (200 if possible else 422), (metric, group)
        assert 'id="answer"' in answer.content.decode()


def test_a_row_leads_into_itself_and_to_its_requests(world: World, owner: Client) -> None:
    for group in ("key", "model", "provider", "team", "credential", "route", "endpoint"):
        page = owner.get(f"/usage?group={group}&metric=requests&range=7d")
        for row in page.context["table"]["rows"]:
            if not row["log"]:
                continue
            log = owner.get(row["log"])
            assert log.context["histogram_total"] == len(log.context["rows"]) == row["amount"], (group, row["name"])
            inner = owner.get(f"/usage?{row['query']}")
            assert sum(one["amount"] for one in inner.context["table"]["rows"]) == row["amount"]
            assert [chip["value"] for chip in inner.context["chips"]] == [row["name"]]


def test_the_log_takes_dates_and_every_dimension_and_shows_them_as_chips(world: World, owner: Client) -> None:
    ledger.apply([attempt(world.alice_key, world.provider, world.credential, customer="alice", tags=["prod"])])
    day = f"{world.events[0].time:%Y-%m-%d}"
    for query, value in (("customer=alice", "alice"), ("tag=prod", "prod")):
        log = owner.get(f"/requests?from={day}&to={day}&{query}")
        assert log.context["histogram_total"] == len(log.context["rows"]) == 1
        assert [chip["value"] for chip in log.context["chips"]][0] == value
        assert len(log.context["chips"]) == 2
    assert owner.get(f"/requests?from={day}&to={day}&team=nonsense").status_code == 404
    assert owner.get("/requests?from=2026-01-02&to=2026-01-01").context["range"] == "1h"


def test_a_filter_is_added_by_name(world: World, owner: Client) -> None:
    answer = owner.get("/usage?group=model&add=key&value=Support-Chat")
    assert answer.status_code == 303
    page = owner.get(answer["Location"])
    assert [(chip["title"], chip["value"]) for chip in page.context["chips"]] == [("Key", "support-chat")]
    own = sum(event.cost_nanos for event in world.events if event.key_id == world.alice_key.id)
    assert page.context["table"]["rows"][0]["amount"] <= own
    assert sum(row["amount"] for row in page.context["table"]["rows"]) == own
    refused = owner.get("/usage?add=key&value=nobody")
    assert refused.status_code == 422
    assert 'There is no key named "nobody"' in words(refused.content.decode())


def test_a_narrowed_operator_sums_only_their_team(world: World, signed_in: Callable[..., Client]) -> None:
    client = signed_in(Role.OPERATOR, world.support)
    page = client.get("/usage?group=key")
    own = sum(event.cost_nanos for event in world.events if event.team_id == world.support.id)
    assert [row["name"] for row in page.context["table"]["rows"]] == ["support-chat"]
    assert page.context["table"]["rows"][0]["amount"] == own
    assert client.get("/usage?add=key&value=search-answers").status_code == 422
    listed = client.get("/usage/table.csv?group=key").content.decode()
    assert "search-answers" not in listed


def test_what_no_rollup_answers_is_refused_in_place(world: World, owner: Client) -> None:
    answer = owner.get("/usage?group=tag&sub=model", headers={"HX-Request": "true"})
    assert answer.status_code == 422
    assert "A tag can be combined with key, team, day and hour, not with model" in words(answer.content.decode())
    assert Markup(answer.content.decode()).offences() == []


def test_the_table_as_csv_is_exact_and_inert(world: World, owner: Client) -> None:
    VirtualKey.objects.filter(id=world.alice_key.id).update(name="=1+1")
    answer = owner.get("/usage/table.csv?group=key&sub=model")
    assert answer["Content-Type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(answer.content.decode())))
    assert sum(parse_usd(row["cost_usd"]) for row in rows) == sum(event.cost_nanos for event in world.events)
    assert {row["key"] for row in rows} == {"'=1+1", "search-answers"}
    assert owner.get("/usage/table.csv?group=tag&sub=model").status_code == 422


def test_exports_of_the_page_hold_its_events(world: World, owner: Client) -> None:
    page = owner.get(f"/usage?group=model&key={world.bob_key.id}")
    urls = [export["url"] for export in page.context["exports"]]
    assert urls[0].startswith("/usage/table.csv?")
    for url in urls[1:]:
        assert f"key={world.bob_key.id}" in url
        assert owner.get(url).status_code == 200


def test_the_same_question_elsewhere_is_one_that_is_answered(world: World, owner: Client) -> None:
    same = owner.get("/usage?group=team&sub=model&bucket=week&model=sandbox-echo").context["same_as"]
    path = same[0]["text"].split('"')[1].partition("/api")[2]
    body = owner.get(f"/api{path}").json()
    assert {"team", "model", "day"} <= set(body["data"][0])
    assert "--where model=sandbox-echo" in same[1]["text"]


def test_going_back_gets_the_whole_page_again(world: World, owner: Client) -> None:
    part = owner.get("/usage", headers={"HX-Request": "true"}).content.decode()
    back = {"HX-Request": "true", "HX-History-Restore-Request": "true"}
    assert 'data-go="u"' not in part
    assert 'data-go="u"' in owner.get("/usage", headers=back).content.decode()
