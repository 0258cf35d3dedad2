"""What scripts read of usage: events, sums, exports, explanations, prices, the ledger's checks."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import AsyncClient
from typer.testing import CliRunner

from conduit.cli import ledger as ledger_command
from conduit.cli import prices as prices_command
from conduit.cli import usage as usage_command
from conduit.core.money import parse_usd
from keys.models import Team, VirtualKey
from providers.catalogue_sync import sync_models
from providers.models import Provider
from tests.access.clients import ApiClient, client_of, faults
from tests.usage.events import at, costing, refused, settled
from usage import reports, tasks
from usage.ledger import apply
from usage.models import UsageEvent, UsageHour
from usage.price_sync import sync_prices

pytestmark = pytest.mark.django_db
HOUR = timedelta(hours=1)
NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


@pytest.fixture
def teams() -> tuple[Team, Team]:
    return Team.objects.create(name="Alice's"), Team.objects.create(name="Charlie's")


@pytest.fixture
def key(teams: tuple[Team, Team]) -> VirtualKey:
    return VirtualKey.objects.create(name="forecast", team=teams[0])


def of(team: Team, **given: Any) -> dict[str, Any]:
    return {"team_id": team.id.bytes, **given}


EVENT_FIELDS = {
    "id", "request_id", "attempt", "time", "key", "team", "customer", "provider", "credential", "route", "model",
    "dialect", "endpoint", "stream", "status", "outcome", "exactness", "input_tokens", "output_tokens",
    "cache_read_tokens", "cache_write_tokens", "reasoning_tokens", "units", "cost_usd", "price", "latency_ms",
    "ttft_ms", "tags", "error_code",
}  # fmt: skip


def test_an_event_has_the_contracts_fields_and_an_exact_cost(owner: ApiClient, key: VirtualKey) -> None:
    apply([settled(key_id=key.id.bytes, time_us=at(NOON), ttft_us=1_500, tags=["prod"])])
    (event,) = owner.get("/usage/events").json()["data"]
    assert set(event) == EVENT_FIELDS
    assert (event["key"], event["cost_usd"], event["time"]) == (str(key.id), "0.000135", "2026-11-20T12:00:00Z")
    assert (event["latency_ms"], event["ttft_ms"], event["error_code"]) == (1.0, 1.5, None)


def test_pages_are_newest_first_without_gaps_or_repeats(owner: ApiClient) -> None:
    apply([settled(time_us=at(NOON) + n // 3) for n in range(10)])
    seen, cursor = [], ""
    while True:
        body = owner.get(f"/usage/events?limit=3{cursor}").json()
        seen += [(datetime.fromisoformat(event["time"]), event["id"]) for event in body["data"]]
        if body["next"] is None:
            break
        cursor = f"&cursor={body['next']}"
    assert len(set(seen)) == 10
    assert seen == sorted(seen, reverse=True)


def test_every_filter_narrows(owner: ApiClient, key: VirtualKey) -> None:
    provider = Provider.objects.create(name="Sandbox", kind="sandbox")
    mine = settled(
        time_us=at(NOON),
        key_id=key.id.bytes,
        team_id=key.team_id.bytes,  # type: ignore[union-attr]
        model="m",
        provider_id=provider.id.bytes,
        status=418,
        tags=["prod", "eu"],
        request_id="req_mine0001",
    )
    apply([mine, settled(time_us=at(NOON - HOUR)), refused(time_us=at(NOON - HOUR))])
    for query in (
        f"key={key.id}",
        f"team={key.team_id}",
        "model=m",
        "provider=Sandbox",
        f"provider={provider.id}",
        "status=418",
        "tag=eu",
        "from=2026-11-20T12:00:00Z",
        "request_id=req_mine0001",
    ):
        found = owner.get(f"/usage/events?{query}").json()["data"]
        assert [event["request_id"] for event in found] == ["req_mine0001"], query
    assert len(owner.get("/usage/events?to=2026-11-20T12:00:00Z").json()["data"]) == 2


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("/usage/events?key=x", {"key": "invalid_id"}),
        ("/usage/events?status=ok", {"status": "invalid_number"}),
        ("/usage/events?from=yesterday", {"from": "invalid_time"}),
        ("/usage/events?kee=1", {"kee": "unknown_parameter"}),
        ("/usage/summary", {"group_by": "required"}),
        ("/usage/summary?group_by=colour", {"group_by": "unknown_group"}),
        ("/usage/summary?group_by=tag,model", {"group_by": "invalid_combination"}),
        (
            "/usage/summary?group_by=key&from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z",
            {"from": "out_of_range"},
        ),
        ("/usage/export?format=xlsx", {"format": "invalid_choice"}),
    ],
)
def test_a_wrong_filter_is_named(owner: ApiClient, path: str, fault: dict[str, str]) -> None:
    response = owner.get(path)
    assert response.status_code == 400
    assert faults(response) == fault


def test_charlie_sees_nothing_of_alices_team(teams: tuple[Team, Team]) -> None:
    alices, charlies = teams
    apply([settled(**of(alices, request_id="req_alice001", tags=["a"])), settled(), settled(**of(charlies))])
    charlie = client_of("operator", charlies.id)
    assert [event["team"] for event in charlie.get("/usage/events").json()["data"]] == [str(charlies.id)]
    for group in ("team", "tag", "model"):
        body = charlie.get(f"/usage/summary?group_by={group}").json()
        assert body["total"]["requests"] == 1
        assert all(row.get("team", str(charlies.id)) == str(charlies.id) for row in body["data"])
    assert charlie.get("/usage/summary?group_by=tag").json()["data"] == []
    assert charlie.get("/requests/req_alice001").status_code == 404
    assert client_of("operator", alices.id).get("/requests/req_alice001").status_code == 200


@pytest.mark.parametrize("group", ["key", "model", "provider", "team", "day", "hour", "key,model,hour"])
def test_sums_equal_the_rows_behind_them_for_any_range(owner: ApiClient, key: VirtualKey, group: str) -> None:
    """From 12:10 to 15:40: two cut hours from the events, two whole ones from the rollups."""
    times = [NOON + timedelta(minutes=minutes) for minutes in range(0, 300, 7)]
    apply(
        [
            costing(10**n % 997 + 1, time_us=at(when), key_id=key.id.bytes if n % 2 else None, model=f"m{n % 3}")
            for n, when in enumerate(times)
        ]
    )
    start, end = NOON + timedelta(minutes=10), NOON + timedelta(minutes=220)
    query = f"group_by={group}&from={start:%Y-%m-%dT%H:%M:%SZ}&to={end:%Y-%m-%dT%H:%M:%SZ}"
    body = owner.get(f"/usage/summary?{query}").json()
    rows = list(UsageEvent.objects.filter(time__gte=start, time__lt=end))
    assert len(rows) == 30
    assert parse_usd(body["total"]["cost_usd"]) == sum(event.cost_nanos for event in rows)
    assert sum(parse_usd(row["cost_usd"]) for row in body["data"]) == sum(event.cost_nanos for event in rows)
    assert sum(row["requests"] for row in body["data"]) == 30
    # The rollups were really used: what they are made to say shows in the sum.
    UsageHour.objects.filter(hour=NOON + HOUR).update(cost_nanos=0)
    assert parse_usd(owner.get(f"/usage/summary?{query}").json()["total"]["cost_usd"]) != parse_usd(
        body["total"]["cost_usd"]
    )


def test_a_range_within_one_hour_is_summed_from_its_events(owner: ApiClient) -> None:
    apply([costing(5, time_us=at(NOON + timedelta(minutes=minutes)), tags=["a"]) for minutes in (10, 20, 30)])
    span = "from=2026-11-20T12:15:00Z&to=2026-11-20T12:25:00Z"
    assert owner.get(f"/usage/summary?group_by=tag&{span}").json()["data"][0]["cost_usd"] == "0.000000005"


async def _exported(client: ApiClient, query: str) -> tuple[Any, bytes]:
    response = await AsyncClient().get(
        f"/api/v1/usage/export?{query}", headers={"Authorization": f"Bearer {client.raw}"}
    )
    return response, b"".join([part async for part in response.streaming_content])  # type: ignore[union-attr]


@pytest.mark.django_db(transaction=True)
async def test_exports_hold_every_row_in_order_over_many_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    from asgiref.sync import sync_to_async

    monkeypatch.setattr(reports, "CHUNK", 4)
    owner = await sync_to_async(client_of)("owner")
    records = [settled(time_us=at(NOON) + n // 2) for n in range(11)]
    await sync_to_async(apply)(records)
    response, body = await _exported(owner, "format=jsonl&from=2026-11-20T00:00:00Z")
    rows = [json.loads(line) for line in body.splitlines()]
    assert response["Content-Type"] == "application/jsonl"
    assert set(rows[0]) == EVENT_FIELDS
    assert len({row["id"] for row in rows}) == 11
    times = [datetime.fromisoformat(row["time"]) for row in rows]
    assert times == sorted(times)
    response, body = await _exported(owner, "format=csv")
    lines = list(csv.DictReader(io.StringIO(body.decode())))
    assert response["Content-Disposition"] == 'attachment; filename="usage.csv"'
    assert {line["id"] for line in lines} == {row["id"] for row in rows}
    await sync_to_async(lambda: connection.close())()  # the worker thread's, which the test database would wait for


@pytest.mark.parametrize(
    "text", ["\tplain", "\rplain", "=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", " =1", "\t=1", "\r=1"]
)
def test_a_spreadsheet_runs_nothing_from_an_export(text: str) -> None:
    apply([settled(customer=text, route=text)])
    rows = list(csv.DictReader(io.StringIO(reports.as_csv(UsageEvent.objects.all(), first=True).decode(), newline="")))
    assert rows[0]["customer"] == f"'{text}"
    assert rows[0]["route"] == f"'{text}"
    assert rows[0]["input_tokens"] == "100"


def test_a_request_explains_its_attempts_and_its_arithmetic(owner: ApiClient) -> None:
    trace = [{"check": "key", "ok": True}]
    together = {"request_id": "req_explained"}
    apply(
        [
            settled(**together, attempt=1, final=False, outcome="error", status=503, cost_nanos=0, arithmetic=[]),
            settled(**together, attempt=2, trace=trace, held_nanos=10**9, flags=["rate_fallback"]),
        ]
    )
    body = owner.get("/requests/req_explained").json()
    assert (body["cost_usd"], body["trace"]) == ("0.000135", trace)
    first, second = body["attempts"]
    assert (first["final"], second["final"], second["held_usd"], second["flags"]) == (
        False,
        True,
        "1.00",
        ["rate_fallback"],
    )
    assert second["arithmetic"][1] == {
        "unit": "output",
        "count": 200,
        "rate_usd_per_million": "0.60",
        "cost_usd": "0.00012",
    }
    assert owner.get("/requests/req_unknown1").status_code == 404


def test_a_price_set_by_the_api_shows_in_the_list(admin: ApiClient) -> None:
    body = {"model": "m", "rates": {"input": "0.15", "output": "0.60"}, "per": {"image": "0.01"}}
    made = admin.post("/prices", body)
    assert made.status_code == 201
    (price,) = admin.get("/prices?model=m").json()["data"]
    assert price == made.json()
    assert (price["rates"], price["per"]) == (body["rates"], body["per"])
    assert faults(admin.post("/prices", {**body, "rates": {"input": "-1"}})) == {"rates.input": "too_small"}
    assert faults(admin.post("/prices", {**body, "colour": 1})) == {"colour": "unknown_field"}


def test_the_catalogue_shows_each_model_with_its_prices_in_force(admin: ApiClient) -> None:
    sync_models()
    sync_prices()
    listed = "/models?vendor=sandbox&name=sandbox-echo"
    (model,) = admin.get(listed).json()["data"]
    assert [(price["source"], price["rates"]["input"]) for price in model["prices"]] == [("catalogue", "0.15")]
    assert admin.post("/prices", {"model": "sandbox-echo", "rates": {"input": "9"}}).status_code == 201
    ahead = {"model": "sandbox-echo", "rates": {"input": "5"}, "effective_from": "2096-01-01T00:00:00Z"}
    assert admin.post("/prices", ahead).status_code == 201
    (model,) = admin.get(listed).json()["data"]
    assert [(price["source"], price["rates"]["input"]) for price in model["prices"]] == [
        ("override", "9.00"),
        ("catalogue", "0.15"),
    ]
    assert admin.get(f"/models/{model['id']}").json() == model


def test_operators_read_prices_and_cannot_set_them(operator: ApiClient) -> None:
    assert operator.get("/prices").status_code == 200
    assert operator.post("/prices", {"model": "m", "rates": {"input": "0"}}).status_code == 403


def test_the_ledgers_checks_are_shown_with_their_figures(auditor: ApiClient) -> None:
    apply([settled()])
    body = auditor.get("/ledger/verify").json()
    assert (body["ok"], body["events"], body["cost_usd"]) == (True, 1, "0.000135")
    UsageHour.objects.update(cost_nanos=1)
    body = auditor.get("/ledger/verify").json()
    broken = [check for check in body["checks"] if not check["ok"]]
    assert [check["name"] for check in broken] == ["hours"]
    assert broken[0]["examples"][0]["recorded"] == 1
    assert broken[0]["examples"][0]["computed"] == 135_000


# --- commands and tasks --------------------------------------------------------------------------------------------


def test_the_ledger_command_fails_when_a_check_does() -> None:
    apply([settled()])
    good = CliRunner().invoke(ledger_command.app, ["verify"])
    assert good.exit_code == 0, good.output
    UsageHour.objects.all().delete()
    bad = CliRunner().invoke(ledger_command.app, ["verify", "--json"])
    assert bad.exit_code == 1
    assert json.loads(bad.stdout)["ok"] is False
    rebuilt = CliRunner().invoke(ledger_command.app, ["rebuild", "--json"])
    assert json.loads(rebuilt.stdout) == {"hours": 1}
    assert CliRunner().invoke(ledger_command.app, ["verify"]).exit_code == 0


def test_the_usage_command_sums_by_group() -> None:
    apply([settled(), settled()])
    done = CliRunner().invoke(usage_command.app, ["--group-by", "model", "--json"])
    assert json.loads(done.stdout)["data"][0]["cost_usd"] == "0.00027"
    assert "sandbox-echo  $0.00027  2 requests" in CliRunner().invoke(usage_command.app, []).stdout


def test_the_usage_command_calls_keys_by_their_names(key: VirtualKey) -> None:
    apply([settled(key_id=key.id.bytes)])
    assert "forecast  $0.000135  1 requests" in CliRunner().invoke(usage_command.app, ["--group-by", "key"]).stdout


def test_the_prices_command_sets_lists_and_syncs() -> None:
    run = CliRunner().invoke
    done = run(prices_command.app, ["set", "m", "--rate", "input=0.15", "--per", "image=0.01", "--json"])
    assert json.loads(done.stdout)["rates"] == {"input": "0.15"}
    assert "input 0.15, image 0.01 each" in run(prices_command.app, ["list", "m"]).stdout
    ahead = json.loads(run(prices_command.app, ["diff", "--json"]).stdout)
    synced = json.loads(run(prices_command.app, ["sync", "--json"]).stdout)
    assert len(ahead["changes"]) == len(synced["changes"]) > 2_000
    assert "0 to change" in run(prices_command.app, ["diff"]).stdout


def test_tasks_may_run_twice() -> None:
    apply([settled()])
    kept = (tasks.drop_old_replies, tasks.drop_old_responses)
    for task in (tasks.ensure_partitions, tasks.sync_prices, tasks.verify_ledger, *kept):
        task()
        task()
