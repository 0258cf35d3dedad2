"""What each version of a credential carries, and whether one may be revoked at its provider."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.db.models.functions import Now
from typer.testing import CliRunner

from conduit.access.models import Role
from conduit.cli import credentials as credentials_command
from conduit.core import clock
from conduit.core import live as live_processes
from conduit.core.actor import SYSTEM, Actor
from conduit.core.ids import uuid7
from conduit.core.models import Epoch, LiveProcess
from conduit.core.money import parse_usd
from conduit.core.secret import Secret
from keys.issuing import create_key
from keys.models import Team, UncertainAttempt, VirtualKey, Worker
from keys.teams import create_team
from providers import vault
from providers.credentials import add_credential
from providers.models import Credential, CredentialVersion
from providers.providers import add_provider
from providers.routes import add_route
from tests.access.clients import client_of, faults
from tests.usage.events import at, costing
from usage import revoke_light, version_use
from usage.ledger import apply
from usage.models import UsageEvent
from usage.revoke_light import safe_to_revoke

pytestmark = pytest.mark.django_db
NAMES = ["in_force", "traffic", "open_requests", "known", "replayed"]


@pytest.fixture
def credential() -> Credential:
    """With v1, retiring, and v2, active."""
    provider = add_provider(actor=SYSTEM, name="openai-main", kind="openai")
    fields = {"api_key": Secret("sk-proj-canary0123456789abcdef")}
    made = add_credential(provider, actor=SYSTEM, name="main", fields=fields, verify=False)
    CredentialVersion.objects.filter(credential=made).update(state="retiring")
    vault.seal_version(made, fields, number=2, state="active")
    add_route(actor=SYSTEM, name="fast", targets=[{"provider": "openai-main", "model": "gpt-4o-mini"}])
    return made


@pytest.fixture
def teams() -> tuple[Team, Team]:
    return create_team(actor=SYSTEM, name="Support"), create_team(actor=SYSTEM, name="Search")


@pytest.fixture
def keys(teams: tuple[Team, Team]) -> list[VirtualKey]:
    return [create_key(actor=SYSTEM, name=f"app-{team.name}", team=team)[0] for team in teams]


def version(credential: Credential, number: int) -> CredentialVersion:
    return credential.versions.get(number=number)


def used(credential: Credential, number: int, *, ago: timedelta = timedelta(0), **given: Any) -> Any:
    key = given.pop("key", None)
    owner = {"key_id": key.id.bytes, "team_id": key.team_id.bytes} if key else {}
    return costing(
        given.pop("cost", 1_000),
        time_us=given.pop("time_us", at(datetime.now(UTC) - ago)),
        provider_id=credential.provider_id.bytes,
        credential_id=credential.id.bytes,
        credential_version=number,
        route=given.pop("route", "fast"),
        **owner,
        **given,
    )


def web_process(snapshot: int | None = None, **versions: Any) -> LiveProcess:
    """One that knows everything and has nothing open."""
    known = Epoch.objects.get(id=1).snapshot if snapshot is None else snapshot
    ident = uuid7()
    live_processes.report(ident, kind="web", node="n1", pid=7, snapshot=known, versions=versions)
    return LiveProcess.objects.get(id=ident)


def said(**given: Any) -> dict[str, Any]:
    return {"open": 0, "last": 0.0, "tripped": 0.0, "why": "", **given}


def narrowed(team: Team) -> Actor:
    return Actor("user", "1", "bob", Role.OPERATOR, frozenset({team.id}))


# --- figures -------------------------------------------------------------------------------------------------------


def test_the_figures_of_a_version_are_the_sums_of_its_events(credential: Credential, keys: list[VirtualKey]) -> None:
    apply(
        [
            *(used(credential, 1, latency_us=1_000 * n, cost=10, key=keys[0]) for n in range(1, 21)),
            used(credential, 2, outcome="error", status=502, error_code="upstream_auth_failed", cost=0),
            used(credential, 2, outcome="error", status=503, error_code="upstream_unavailable", cost=0),
            used(credential, 2, key=keys[1], cost=70),
            used(credential, 1, ago=timedelta(minutes=11), cost=999),
        ]
    )
    found = version_use.figures(SYSTEM, credential.id, clock.now() - version_use.WINDOW)
    one, two = found[1], found[2]
    assert (one.requests, one.auth_failures, one.errors, one.p95_us, one.cost) == (20, 0, 0, 19_000, 200)
    assert (two.requests, two.auth_failures, two.errors, two.failed, two.cost) == (3, 1, 1, 2, 70)


def test_each_minute_counts_its_own_attempts(credential: Credential) -> None:
    now = clock.now()
    first = version_use.first_minute(now)
    late = first + timedelta(seconds=59, microseconds=999_999)
    moments = [
        (1, first),
        (1, late),
        (2, first + timedelta(minutes=7)),
        (2, now),
        (1, first - timedelta(microseconds=1)),
    ]
    apply([used(credential, number, time_us=at(moment)) for number, moment in moments])
    found = version_use.per_minute(credential.id, now)
    counted = {number: {place: n for place, n in enumerate(row) if n} for number, row in found.items()}
    assert counted == {1: {0: 2}, 2: {7: 1, 59: 1}}


def test_callers_are_told_by_key_and_route_and_only_those_of_the_own_teams(
    credential: Credential, keys: list[VirtualKey], teams: tuple[Team, Team]
) -> None:
    apply(
        [
            *(used(credential, 1, key=keys[0]) for _ in range(3)),
            used(credential, 2, key=keys[0]),
            used(credential, 2, key=keys[0], route="slow"),
            *(used(credential, 2, key=keys[1]) for _ in range(2)),
        ]
    )
    since = clock.now() - version_use.WINDOW
    found = [(row.key, row.route, dict(row.requests)) for row in version_use.callers(SYSTEM, credential.id, since)]
    assert found[0] == ("app-Support", "fast", {1: 3, 2: 1})
    assert sorted(found[1:]) == [("app-Search", "fast", {2: 2}), ("app-Support", "slow", {2: 1})]
    own = version_use.callers(narrowed(teams[1]), credential.id, since)
    assert [(row.key, row.total) for row in own] == [("app-Search", 2)]
    figures = version_use.figures(narrowed(teams[1]), credential.id, since)
    assert (figures[1].requests, figures[1].cost, figures[2].cost) == (3, 0, 2_000)


def test_spend_of_the_month_is_each_versions_own_in_hours_alone_and_in_hours_shared(
    credential: Credential, keys: list[VirtualKey], teams: tuple[Team, Team]
) -> None:
    hour = timedelta(hours=1)
    records = [used(credential, 1, ago=n * hour, cost=n, key=keys[n % 2]) for n in range(3, 9)]
    records += [used(credential, 2, ago=n * hour, cost=100 * n, key=keys[n % 2]) for n in range(5)]
    records.append(used(credential, 1, ago=2 * hour, cost=7))
    apply(records)
    since = clock.now().replace(minute=0, second=0, microsecond=0) - 7 * hour
    for actor in (SYSTEM, narrowed(teams[0])):
        seen = [
            event
            for event in UsageEvent.objects.filter(time__gte=since)
            if actor.teams is None or event.team_id in actor.teams
        ]
        expected = {
            number: sum(event.cost_nanos for event in seen if event.credential_version == number) for number in (1, 2)
        }
        assert version_use.spend_by_version(actor, credential.id, [1, 2], since) == expected
        assert all(expected.values())


def test_a_credential_counts_the_routes_and_keys_that_used_it(
    credential: Credential, keys: list[VirtualKey], teams: tuple[Team, Team]
) -> None:
    since = clock.now().replace(hour=0, minute=0, second=0, microsecond=0)
    apply([used(credential, 1, key=key, route=route) for key in keys for route in ("fast", "slow")])
    assert version_use.who_uses(SYSTEM, since) == {credential.id: version_use.Use(2, 2, 4_000)}
    assert version_use.who_uses(narrowed(teams[0]), since) == {credential.id: version_use.Use(2, 1, 2_000)}
    assert version_use.routes_to(credential) == ["fast"]
    assert version_use.recent([credential.id], clock.now() - version_use.WINDOW) == {credential.id: 4}


def test_what_processes_say_of_a_version_is_added_up(credential: Credential) -> None:
    ident, now = version(credential, 1).id, time.time()
    web_process(**{str(ident): said(open=2, last=now - 5)})
    web_process(**{str(ident): said(open=3, last=now - 9, tripped=now + 30, why="HTTP 401")})
    found = version_use.live(live_processes.alive())[ident]
    assert (found.open, found.why) == (5, "HTTP 401")
    assert found.last == datetime.fromtimestamp(now - 5, UTC)
    assert [found.health(clock.now() + timedelta(seconds=later)) for later in (0, 60)] == ["tripped", "half_open"]
    assert version_use.Live().health(clock.now()) == "closed"


# --- the light -----------------------------------------------------------------------------------------------------


def lit(credential: Credential, number: int = 1) -> tuple[str, list[str]]:
    """The colour, and the names of the checks that are not met."""
    light = safe_to_revoke(version(credential, number))
    assert [check.name for check in light.checks] == NAMES
    return light.colour, [check.name for check in light.checks if not check.met]


def test_a_version_that_nothing_uses_and_everybody_left_is_green(credential: Credential) -> None:
    apply([used(credential, 1, ago=timedelta(minutes=11)), used(credential, 2)])
    web_process(**{str(version(credential, 1).id): said(last=time.time() - 660)})
    assert lit(credential) == ("green", [])


def test_a_version_in_force_is_red_however_quiet(credential: Credential) -> None:
    web_process()
    assert lit(credential, 2) == ("red", ["in_force"])


def test_requests_of_the_last_ten_minutes_are_red(credential: Credential) -> None:
    web_process()
    apply([used(credential, 1, ago=timedelta(minutes=9))])
    assert lit(credential) == ("red", ["traffic"])


def test_a_request_that_only_its_process_knows_of_is_red(credential: Credential) -> None:
    web_process(**{str(version(credential, 1).id): said(last=time.time() - 3)})
    assert lit(credential) == ("red", ["traffic"])


def test_an_open_request_is_red(credential: Credential) -> None:
    web_process(**{str(version(credential, 1).id): said(open=1, last=time.time() - 3600)})
    assert lit(credential) == ("red", ["open_requests"])


def test_without_a_process_that_reports_nothing_is_green(credential: Credential) -> None:
    assert lit(credential) == ("yellow", ["open_requests", "known"])
    silent = web_process()
    assert lit(credential) == ("green", [])
    LiveProcess.objects.filter(id=silent.id).update(seen_at=Now() - timedelta(seconds=16))
    assert lit(credential) == ("yellow", ["open_requests", "known"])


def test_a_process_of_jobs_says_nothing_about_requests(credential: Credential) -> None:
    known = Epoch.objects.get(id=1).snapshot
    live_processes.report(uuid7(), kind="jobs", node="n1", pid=8, snapshot=known)
    assert lit(credential) == ("yellow", ["open_requests", "known"])


def test_a_process_that_does_not_know_the_newer_version_yet_keeps_it_yellow(credential: Credential) -> None:
    web_process()
    web_process(snapshot=Epoch.objects.get(id=1).snapshot - 1)
    assert lit(credential) == ("yellow", ["known"])
    (known,) = [check for check in safe_to_revoke(version(credential, 1)).checks if check.name == "known"]
    assert known.found == "1 of 2 web processes know v2"


def test_an_uncertain_attempt_on_it_keeps_it_yellow_until_it_is_resolved(credential: Credential) -> None:
    web_process()
    lost = used(credential, 1, ago=timedelta(minutes=20), exactness="uncertain")
    other = used(credential, 2, ago=timedelta(minutes=20), exactness="uncertain")
    apply([lost, other])
    assert UncertainAttempt.objects.count() == 2
    assert lit(credential) == ("yellow", ["replayed"])
    UncertainAttempt.objects.filter(id=UsageEvent.objects.get(credential_version=1).id).update(resolved_at=clock.now())
    assert lit(credential) == ("green", [])


def test_a_process_that_ended_keeps_it_yellow_until_its_journal_is_applied(credential: Credential) -> None:
    web_process()
    worker = Worker.objects.create(id=uuid7(), node="n1", pid=9)
    assert lit(credential) == ("green", [])
    Worker.objects.filter(id=worker.id).update(seen_at=Now() - timedelta(seconds=20))
    assert lit(credential) == ("yellow", ["replayed"])
    Worker.objects.filter(id=worker.id).update(stopped_at=Now())
    assert lit(credential) == ("green", [])


def test_a_shipper_that_is_behind_keeps_it_yellow(credential: Credential, monkeypatch: pytest.MonkeyPatch) -> None:
    web_process()
    for oldest, colour in ((1.0, "green"), (31.0, "yellow")):
        told = {"lag": {"records": 5, "oldest_seconds": oldest}}
        monkeypatch.setattr(revoke_light.status, "read", lambda _path, told=told: told)
        assert lit(credential)[0] == colour


# --- the API -------------------------------------------------------------------------------------------------------


def test_the_api_tells_figures_and_light_of_each_version(credential: Credential, keys: list[VirtualKey]) -> None:
    apply(
        [used(credential, 1, key=keys[0], cost=2_000), used(credential, 2, key=keys[0], cost=3_000, latency_us=2_500)]
    )
    web_process(**{str(version(credential, 1).id): said(open=1, last=time.time())})
    body = client_of(Role.AUDITOR).get(f"/credentials/{credential.id}/use").json()
    assert (body["name"], body["provider"], body["routes"], body["web_processes"]) == (
        "main",
        "openai-main",
        ["fast"],
        1,
    )
    two, one = body["versions"]
    assert (two["version"], two["requests"], two["latency_ms_p95"], sum(two["per_minute"])) == (2, 1, 2.5, 1)
    assert parse_usd(two["cost_usd"]) == 3_000
    assert parse_usd(two["month_cost_usd"]) == 3_000
    assert (one["open_requests"], one["safe_to_revoke"]["colour"]) == (1, "red")
    assert body["callers"] == [
        {"key": str(keys[0].id), "name": keys[0].name, "route": "fast", "requests": {"1": 1, "2": 1}}
    ]
    (only,) = client_of(Role.AUDITOR).get(f"/credentials/{credential.id}/use?version=1").json()["versions"]
    assert only["version"] == 1


def test_the_api_refuses_what_is_not_there(credential: Credential) -> None:
    client = client_of(Role.OWNER)
    for text, code in (("x", "invalid_number"), ("0", "out_of_range"), ("3", "unknown")):
        answer = client.get(f"/credentials/{credential.id}/use?version={text}")
        assert (answer.status_code, faults(answer)) == (400, {"version": code})
    assert client.get(f"/credentials/{uuid7()}/use").status_code == 404
    assert client_of(Role.ANALYST).get(f"/credentials/{credential.id}/use").status_code == 403


def test_the_command_tells_the_same_as_the_api(credential: Credential, keys: list[VirtualKey]) -> None:
    apply([used(credential, 1, key=keys[0]), used(credential, 2, key=keys[0])])
    web_process(**{str(version(credential, 1).id): said(open=2, last=time.time())})
    with time_machine.travel(clock.now(), tick=False):  # both tell of the same minutes
        shown = CliRunner().invoke(credentials_command.app, ["use", "openai-main/main", "--json"])
        assert shown.exit_code == 0, shown.output
        body = client_of(Role.OWNER).get(f"/credentials/{credential.id}/use").json()
    assert json.loads(shown.output) == body
    lines = CliRunner().invoke(credentials_command.app, ["use", "main"]).output
    assert "v1    retiring" in lines
    assert "2 open  red: No, v1 carries live traffic" in lines
    assert "no 2 open requests on v1" in lines
