"""`conduit uncertain` and `conduit leases`: what they print and refuse, and once each as a process."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest
from click.testing import Result
from typer.testing import CliRunner

from conduit.cli.main import app
from conduit.core.errors import Conflict, InvalidInput
from conduit.core.ids import uuid7
from keys.models import Budget, BudgetPeriod, UncertainAttempt, VirtualKey
from tests.access.test_commands import conduit
from tests.keys.test_lost_workers import lease, worker
from tests.usage.events import budget
from tests.usage.uncertain_rows import event_of, period_of, uncertain_attempt

pytestmark = pytest.mark.django_db


@pytest.fixture
def own() -> Budget:
    return budget(VirtualKey.objects.create(name="forecast"))


def run(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def told(*words: str) -> Any:
    done = run(*words, "--json")
    assert done.exception is None
    return json.loads(done.stdout)


def test_attempts_are_listed_and_resolved(own: Budget) -> None:
    attempts = [uncertain_attempt(own, held=1_000, node=node) for node in ("node-a", "node-a", "node-b", "node-c")]
    listed = told("uncertain", "list")
    assert {UUID(row["id"]) for row in listed["data"]} == {attempt.id for attempt in attempts}
    assert (listed["attempts"], listed["held_usd"]) == (4, "0.000004")
    plain = run("uncertain", "list", "--node", "node-b").stdout.splitlines()
    assert plain[0].startswith(str(attempts[2].id))
    assert plain[-1] == "1 attempts, $0.000001 held"

    first, _, third, fourth = (str(attempt.id) for attempt in attempts)
    given = ("--as", "billed", "--cost", "0.0000015", "--from-invoice")
    assert told("uncertain", "resolve", third, *given)["cost_usd"] == "0.0000015"
    assert event_of(attempts[2]).flags == ["resolved", "above_hold"]
    said = run("uncertain", "resolve", fourth, "--as", "held")
    assert said.stdout == "$0.000001 settled, $0.000001 no longer held\n"
    again = run("uncertain", "resolve", fourth, "--as", "unbilled")
    assert isinstance(again.exception, Conflict)
    assert "by command line to $0.000001; that stands" in str(again.exception)

    assert told("uncertain", "resolve", "--older-than", "1", "--as", "held")["attempts"] == 0
    many = told("uncertain", "resolve", "--node", "node-a", "--as", "unbilled")
    assert many == {"attempts": 2, "cost_usd": "0.00", "held_usd": "0.000002", "left": 0}
    assert first not in run("uncertain", "list").stdout
    assert not UncertainAttempt.objects.filter(resolved_at=None).exists()
    period = BudgetPeriod.objects.get()
    assert (period.settled_nanos, period.uncertain_nanos) == (2_500, 0)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ((), "ATTEMPT"),
        (("x", "--as", "unbilled"), "ATTEMPT"),
        ((str(uuid7()), "--node", "a", "--as", "unbilled"), "ATTEMPT"),
        ((str(uuid7()),), "--as"),
        (("--node", "a"), "--as"),
        (("--node", "a", "--as", "billed", "--cost", "1"), "--as"),
        ((str(uuid7()), "--as", "billed"), "--cost"),
        ((str(uuid7()), "--as", "unbilled", "--cost", "1"), "--cost"),
        ((str(uuid7()), "--as", "billed", "--cost", "1,0"), "--cost"),
    ],
)
def test_what_is_not_said_clearly_is_wrong_usage(words: tuple[str, ...], named: str) -> None:
    done = run("uncertain", "resolve", *words)
    assert isinstance(done.exception, InvalidInput)
    assert done.exception.field == named


def test_leases_are_listed_and_those_of_a_lost_worker_released(own: Budget) -> None:
    period = period_of(own)
    gone, here = worker(200, node="node-b", pid=9), worker(0, node="node-a", pid=8)
    lease(gone, period, 5_000, spent=1_000, held=2_000)
    lease(here, period, 500)
    listed = told("leases", "list")
    assert [(row["node"], row["open_usd"]) for row in listed["data"]] == [
        ("node-b", "0.000004"),
        ("node-a", "0.0000005"),
    ]
    assert {row["pid"]: row["state"] for row in listed["workers"]} == {8: "serving", 9: "lost"}
    plain = run("leases", "list", "--node", "node-b").stdout
    assert f"worker {gone.id}  node node-b 9  lost" in plain
    assert "lease key forecast per lifetime" in plain
    refused = run("leases", "release", str(here.id))
    assert isinstance(refused.exception, Conflict)
    assert "may still be serving" in str(refused.exception)
    done = run("leases", "release", str(gone.id))
    assert done.stdout == "$0.000004 released in 1 budget periods\n"
    assert BudgetPeriod.objects.get().leased_nanos == 500
    assert isinstance(run("leases", "release", "node-b").exception, InvalidInput)


@pytest.mark.django_db(transaction=True)
def test_as_processes_they_end_with_the_right_exit_code(database_url: str, own: Budget) -> None:
    attempt = uncertain_attempt(own, held=1_000)
    assert conduit(database_url, "uncertain", "resolve", str(attempt.id), "--as", "held").returncode == 0
    assert conduit(database_url, "uncertain", "resolve", str(attempt.id), "--as", "held").returncode == 1
    assert conduit(database_url, "leases", "release", "node-b").returncode == 2
