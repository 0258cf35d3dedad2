"""The system page: what runs and what is held, the acts on lost ones, and a bundle that gives nothing away."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.conf import settings as django_settings
from django.test import Client
from django.utils import timezone

from conduit.access.models import Role
from keys.models import Budget, BudgetPeriod, UncertainAttempt, VirtualKey, Worker
from providers.models import Provider
from tests.console.conftest import SECRET, World
from tests.console.pages import Markup
from tests.console.test_pages import HOSTILE
from tests.keys.test_lost_workers import lease, worker
from tests.usage.test_ledger import red
from tests.usage.uncertain_rows import event_of, period_of, uncertain_attempt

HELD = 1_250_000_000


@pytest.fixture
def attempt(world: World) -> UncertainAttempt:
    """Of Alice's key, held in its budget."""
    own = Budget.objects.get(owner_id=world.alice_key.id)
    return uncertain_attempt(
        own,
        held=HELD,
        key_id=world.alice_key.id.bytes,
        team_id=world.support.id.bytes,
        provider_id=world.provider.id.bytes,
    )


@pytest.fixture
def lost(world: World) -> Worker:
    """A lost worker with $0.50 open, of which $0.20 was held; and one that serves."""
    period = period_of(Budget.objects.get(owner_id=world.alice_key.id))
    gone = worker(4_000, node="node-gone", pid=4321)
    lease(gone, period, 700_000_000, spent=200_000_000, held=200_000_000)
    lease(worker(0, node="node-here", pid=77), period, 60_000_000)
    return gone


def words(answer: Any) -> str:
    return " ".join("".join(Markup(answer.content.decode()).text).split())


def test_the_page_shows_engines_workers_leases_and_what_waits(
    world: World, owner: Client, attempt: UncertainAttempt, lost: Worker, settings: Any, tmp_path: Path
) -> None:
    # Where no job has left a report, and no shipper a record that it set aside.
    settings.CONDUIT_HOME, settings.JOURNAL_DIR = tmp_path, tmp_path / "journal"
    answer = owner.get("/system")
    text = words(answer)
    assert Markup(answer.content.decode()).offences() == []
    for said in (
        "PostgreSQL 1",
        "Healthy",
        "1 of 2 workers",
        "node-gone Lost 4321",
        "node-here Serving 77",
        "$0.5600 $0.2000",
        "support-chat key",
        "1 attempt to resolve",
        "$1.25",
        "support-chat (month)",
        "Not checked yet",
        "Quarantine Empty",
    ):
        assert said in text, said
    assert answer.context["leased"].open_nanos == 560_000_000
    assert [row["lost"] for row in answer.context["workers"]] == [True, False]
    valkey = answer.context["lines"][1]
    assert valkey.what.startswith(("Valkey", "Redis"))
    assert valkey.answers_us is not None


def test_a_valkey_that_is_away_and_files_that_tell_trouble_are_shown_as_such(
    world: World, owner: Client, settings: Any, tmp_path: Path
) -> None:
    settings.VALKEY_URL = "redis://user:canary-password@127.0.0.1:1/0"
    settings.CONDUIT_HOME, settings.JOURNAL_DIR = tmp_path, tmp_path / "journal"
    (tmp_path / "run").mkdir()
    (tmp_path / "journal" / "quarantine").mkdir(parents=True)
    (tmp_path / "journal" / "quarantine" / "a-1.bin").write_bytes(b"x")
    old = {"node": "n", "working": True, "applied": 5, "lag": {"records": 12, "oldest_seconds": 7.5}, "time": 1.0}
    (tmp_path / "run" / "shipper.json").write_text(json.dumps(old))
    checks = [{"name": "hours", "ok": False}, {"name": "sane", "ok": True}]
    failed = {"ok": False, "events": 3, "time": 1.0, "checks": checks}
    (tmp_path / "run" / "ledger.json").write_text(json.dumps(failed))
    answer = owner.get("/system")
    text = words(answer)
    for said in (
        "Away does not answer (ConnectionError)",
        "Jobs Unknown",
        "Shipper Silent",
        "12 events",
        "oldest 7 s",
        "Not applied 1 record in journal/quarantine",
        "Does not add up failed: hours",
    ):
        assert said in text.replace("\u00a0", " "), said
    assert "canary-password" not in answer.content.decode()


def test_each_answer_of_the_form_resolves_once_and_the_books_are_right(
    world: World, owner: Client, attempt: UncertainAttempt
) -> None:
    form = owner.get(f"/system/uncertain/{attempt.id}")
    assert Markup(form.content.decode()).offences() == []
    text = words(form)
    assert "nothing is settled, $1.25 is free again" in text
    assert "leaves 1 budget: support-chat (month)." in text
    assert f"conduit uncertain resolve {attempt.id}" in text
    done = owner.post(
        f"/system/uncertain/{attempt.id}", {"outcome": "billed", "cost_usd": "$0.0125", "from_invoice": "1"}
    )
    assert (done.status_code, done["Location"]) == (303, "/system")
    event = event_of(attempt)
    assert (event.cost_nanos, event.exactness) == (12_500_000, "exact")
    assert "Resolved: $0.0125 settled, $1.25 is no longer held." in words(owner.get("/system"))
    again = owner.post(f"/system/uncertain/{attempt.id}", {"outcome": "unbilled"})
    assert again.status_code == 409
    assert "resolved it to $0.0125" in words(again)
    assert red() <= {"arithmetic"}  # one of the world's own events


@pytest.mark.parametrize(
    ("outcome", "cost"),
    [("unbilled", 0), ("held", HELD)],
)
def test_the_plain_answers_cost_nothing_or_the_hold(
    world: World, owner: Client, attempt: UncertainAttempt, outcome: str, cost: int
) -> None:
    assert owner.post(f"/system/uncertain/{attempt.id}", {"outcome": outcome}).status_code == 303
    event = event_of(attempt)
    assert (event.cost_nanos, event.exactness) == (cost, "estimated")
    assert red() <= {"arithmetic"}  # one of the world's own events


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({}, "outcome"),
        ({"outcome": "free"}, "outcome"),
        ({"outcome": "billed"}, "cost_usd"),
        ({"outcome": "billed", "cost_usd": "1,0"}, "cost_usd"),
        ({"outcome": "billed", "cost_usd": "-1"}, "cost_usd"),
        ({"outcome": "billed", "cost_usd": "NaN"}, "cost_usd"),
        ({"outcome": "billed", "cost_usd": "9223372036"}, "cost_usd"),
        ({"outcome": "unbilled", "cost_usd": "0.01"}, "cost_usd"),
    ],
)
def test_a_form_that_says_nothing_clear_comes_back_with_the_field(
    world: World, owner: Client, attempt: UncertainAttempt, given: dict[str, str], field: str
) -> None:
    for headers in ({}, {"HX-Request": "true"}):
        answer = owner.post(f"/system/uncertain/{attempt.id}", given, headers=headers)
        assert answer.status_code == 422
        assert list(answer.context["errors"]) == [field]
        assert f'href="#{field}"' in answer.content.decode()
    assert event_of(attempt).exactness == "uncertain"


def test_a_lost_worker_is_released_and_one_that_serves_is_not(world: World, owner: Client, lost: Worker) -> None:
    asked = owner.get(f"/system/workers/{lost.id}/release")
    assert Markup(asked.content.decode()).offences() == []
    assert "Release worker 4321 of node node-gone?" in words(asked)
    assert "$0.5000 of 1 lease is free for other workers at once." in words(asked)
    assert "$0.2000 of it was held by requests in flight" in words(asked)
    assert BudgetPeriod.objects.get().leased_nanos == 560_000_000
    done = owner.post(f"/system/workers/{lost.id}/release")
    assert done.status_code == 303
    assert BudgetPeriod.objects.get().leased_nanos == 60_000_000
    text = words(owner.get("/system"))
    assert "Worker 4321 of node node-gone is released: $0.5000 is free again in 1 budget period." in text
    assert owner.post(f"/system/workers/{lost.id}/release").status_code == 409
    here = Worker.objects.get(pid=77)
    for refused in (owner.get(f"/system/workers/{here.id}/release"), owner.post(f"/system/workers/{here.id}/release")):
        assert refused.status_code == 409
        assert "may still be serving" in words(refused)
    assert owner.get(f"/system/workers/{world.support.id}/release").status_code == 404


def test_who_only_reads_sees_the_page_without_acts_and_an_analyst_nothing(
    world: World, signed_in: Callable[..., Client], attempt: UncertainAttempt, lost: Worker
) -> None:
    for role in (Role.OWNER, Role.ADMIN, Role.OPERATOR):
        text = words(signed_in(role).get("/system"))
        assert "Resolve…" in text
        assert "Release…" in text
    auditor = signed_in(Role.AUDITOR)
    text = words(auditor.get("/system"))
    assert "node-gone" in text
    assert "Resolve…" not in text
    assert "Release" not in text
    for path in (f"/system/uncertain/{attempt.id}", f"/system/workers/{lost.id}/release"):
        assert auditor.post(path, {"outcome": "unbilled"}).status_code == 403
    assert signed_in(Role.ANALYST).get("/system").status_code == 403
    assert signed_in(Role.ANALYST, world.search).get("/system/support-bundle").status_code == 403


def test_a_narrowed_operator_sees_what_is_their_team_s(
    world: World, signed_in: Callable[..., Client], attempt: UncertainAttempt, lost: Worker
) -> None:
    own = signed_in(Role.OPERATOR, world.support)
    assert "Resolve…" in words(own.get("/system"))
    assert "Release…" not in words(own.get("/system"))
    assert own.post(f"/system/workers/{lost.id}/release").status_code == 403
    foreign = uncertain_attempt(held=9, team_id=world.search.id.bytes, error_code="elsewhere")
    assert own.get("/system").context["uncertain"].attempts == 1
    assert "elsewhere" not in words(own.get("/system"))
    assert own.get(f"/system/uncertain/{foreign.id}").status_code == 404
    assert own.post(f"/system/uncertain/{foreign.id}", {"outcome": "unbilled"}).status_code == 404
    assert "elsewhere" not in own.get("/system/support-bundle").content.decode()


def test_hostile_names_are_shown_as_text(world: World, owner: Client, attempt: UncertainAttempt, lost: Worker) -> None:
    VirtualKey.objects.filter(id=world.alice_key.id).update(name=HOSTILE)
    Provider.objects.filter(id=world.provider.id).update(name=HOSTILE)
    Worker.objects.update(node=HOSTILE[:64])
    UncertainAttempt.objects.update(reason=HOSTILE[:64], node=HOSTILE[:64])
    for path in ("/system", f"/system/uncertain/{attempt.id}", f"/system/workers/{lost.id}/release"):
        page = owner.get(path).content.decode()
        assert Markup(page).offences() == [], path
        assert "791900007920" not in page
        assert HOSTILE[:64] in "".join(Markup(page).text), path


# --- the bundle ----------------------------------------------------------------------------------------------------


def _canaries(world: World) -> dict[str, str]:
    """Secrets, and words of people that no helper needs."""
    password = urlsplit(django_settings.DATABASE_URL).password or ""
    found = {
        "credential": SECRET,
        "raw key": world.alice_raw,
        "django": django_settings.SECRET_KEY,
        "environment": os.environ["CONDUIT_CANARY"],
        "database password": password,
        "key's name": "support-chat",
        "team's name": "Support",
        "error message": "canary-error-message",
        "customer": "canary-customer",
        "person": "owner0@conduit.local",
    }
    return {name: text for name, text in found.items() if len(text) > 5}


def test_the_bundle_tells_how_it_runs_and_no_secret_name_or_address(
    world: World, owner: Client, lost: Worker, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONDUIT_CANARY", "canary-of-the-environment")
    settings.METRICS_TOKEN = "canary-metrics-token"
    own = Budget.objects.get(owner_id=world.alice_key.id)
    attempt = uncertain_attempt(
        own,
        key_id=world.alice_key.id.bytes,
        team_id=world.support.id.bytes,
        error_message="canary-error-message sk-canary",
        customer="canary-customer",
    )
    answer = owner.get("/system/support-bundle")
    assert answer["Content-Type"] == "application/json"
    assert answer["Content-Disposition"].startswith('attachment; filename="conduit-support-')
    text = answer.content.decode()
    canaries = {**_canaries(world), "metrics": "canary-metrics-token"}
    assert len(canaries) >= 9
    assert [name for name, canary in canaries.items() if canary in text] == []
    assert "canary" not in text
    assert str(django_settings.CONDUIT_HOME) not in text
    told = json.loads(text)
    assert told["uncertain"]["newest"][0]["id"] == str(attempt.id)
    assert {row["node"] for row in told["workers"]} == {"node-gone", "node-here"}
    assert [row["owner"]["kind"] for row in told["leases"]] == ["key", "key"]
    assert told["engines"][0]["name"] == "PostgreSQL"
    assert told["migrations"]["keys"] >= "0004"
    assert told["rows"]["providers"] == {"openai": 1}
    assert told["settings"]["lost_node"] == "keep"


def test_a_bundle_that_copied_the_environment_or_rows_would_be_caught(
    world: World, owner: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control of the test above: its canaries are found where they are."""
    monkeypatch.setenv("CONDUIT_CANARY", "canary-of-the-environment")
    leak = json.dumps({"environment": dict(os.environ), "keys": [key.name for key in VirtualKey.objects.all()]})
    found = {name for name, canary in _canaries(world).items() if canary in leak}
    assert {"environment", "key's name"} <= found


def test_old_workers_do_not_fill_the_page(world: World, owner: Client) -> None:
    stopped = timezone.now() - timedelta(days=1)
    for pid in range(5):
        worker(90_000, pid=pid, stopped_at=stopped)
    assert owner.get("/system").context["workers"] == []
