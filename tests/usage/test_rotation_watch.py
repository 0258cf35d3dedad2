"""Automatic canaries move by what the ledger says, never on hope, and each step once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from conduit.celery import SCHEDULE, app
from conduit.core.clock import now
from providers import rotation
from providers.canary import Canary
from providers.models import Credential, Rotation
from tests.harness.sandbox import RunningSandbox
from tests.providers.conftest import sandbox, sandbox_process
from tests.providers.rotations import ALICE, NEW, a_credential, fields, states
from tests.usage.events import settled
from usage import rotation_watch, tasks
from usage.ledger import apply

__all__ = ["sandbox", "sandbox_process"]
pytestmark = pytest.mark.django_db


@pytest.fixture
def main(sandbox: RunningSandbox) -> Credential:
    return a_credential()


def a_canary(credential: Credential, **rules: Any) -> Rotation:
    rules = {"steps": (1, 10), "step_seconds": 600, "automatic": True, **rules}
    return rotation.begin(credential, actor=ALICE, fields=fields(NEW), canary=Canary(**rules))


def held_for(row: Rotation, seconds: int) -> None:
    """As if the present share had begun so long ago."""
    Rotation.objects.filter(pk=row.pk).update(share_since=now() - timedelta(seconds=seconds))


def attempts(credential: Credential, number: int, *, version: int = 2, **given: Any) -> None:
    own = {"credential_id": credential.id.bytes, "credential_version": version}
    apply([settled(**own, **given) for _ in range(number)])


def failing(credential: Credential, number: int, **given: Any) -> None:
    attempts(credential, number, **{"status": 503, "outcome": "error", "error_code": "upstream_unavailable", **given})


def share(credential: Credential) -> int:
    return credential.versions.get(number=2).share


def test_each_share_is_held_and_then_the_next_one_comes_until_it_is_active(main: Credential) -> None:
    made = a_canary(main)
    attempts(main, 3)
    assert (rotation_watch.watch(), share(main)) == (0, 1)
    held_for(made, 601)
    assert (rotation_watch.watch(), share(main)) == (1, 10)
    assert (rotation_watch.watch(), share(main)) == (0, 10)
    held_for(made, 601)
    for _ in range(2):
        tasks.watch_rotations()
    assert states(main) == {1: "retiring", 2: "active"}


def test_an_error_rate_above_the_bound_goes_back_with_the_figures(main: Credential) -> None:
    made = a_canary(main)
    attempts(main, 18)
    failing(main, 1)
    assert rotation_watch.watch() == 0
    held_for(made, 601)
    assert rotation_watch.watch() == 1
    assert states(main) == {1: "active", 2: "revoked"}
    made.refresh_from_db()
    assert made.problem == "1 of 19 requests failed (5.26 %; at most 1.00 %)."


def test_enough_failures_need_no_waiting_and_at_the_bound_is_not_above_it(main: Credential) -> None:
    made = a_canary(main, max_error_percent=10)
    attempts(main, 18)
    failing(main, 2, status=429, error_code="upstream_rate_limited")
    assert rotation_watch.watch() == 0
    held_for(made, 601)
    assert (rotation_watch.watch(), share(main)) == (1, 10)
    failing(main, 20)
    assert rotation_watch.watch() == 1
    assert states(main)[2] == "revoked"


def test_one_rejected_request_goes_back_at_once(main: Credential) -> None:
    a_canary(main, max_error_percent=100)
    attempts(main, 5)
    failing(main, 1, status=502, error_code="upstream_auth_failed")
    assert rotation_watch.watch() == 1
    assert "1 of 6 requests were rejected" in main.versions.get(number=2).problem


def test_what_the_client_did_wrong_and_what_the_old_version_did_does_not_count(main: Credential) -> None:
    made = a_canary(main)
    attempts(main, 1)
    failing(main, 30, status=400, error_code="upstream_rejected")
    failing(main, 30, version=1)
    attempts(main, 30, status=499, outcome="cancelled")
    failing(main, 30, time_us=int((now() - timedelta(days=1)).timestamp() * 1e6))
    held_for(made, 601)
    assert (rotation_watch.watch(), share(main)) == (1, 10)


def test_without_any_request_it_waits_three_times_as_long(main: Credential) -> None:
    made = a_canary(main)
    held_for(made, 1700)
    assert (rotation_watch.watch(), share(main)) == (0, 1)
    held_for(made, 1801)
    assert (rotation_watch.watch(), share(main)) == (1, 10)


def test_a_canary_by_hand_is_left_alone(main: Credential) -> None:
    made = a_canary(main, automatic=False)
    failing(main, 30)
    held_for(made, 10_000)
    assert rotation_watch.watch() == 0
    assert states(main) == {1: "active", 2: "verifying"}


def test_a_verdict_over_figures_that_are_no_longer_those_of_the_share_changes_nothing(
    main: Credential, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = a_canary(main)
    failing(main, 30)
    counted = rotation_watch.figures

    def and_meanwhile(step: Callable[[], Any]) -> None:
        def figures(row: Rotation, since: datetime) -> rotation_watch.Figures:
            found = counted(row, since)
            step()
            return found

        monkeypatch.setattr(rotation_watch, "figures", figures)
        assert rotation_watch.watch() == 0
        monkeypatch.setattr(rotation_watch, "figures", counted)

    and_meanwhile(lambda: rotation.change_rules(main, actor=ALICE, changes={"automatic": False}))
    rotation.change_rules(main, actor=ALICE, changes={"automatic": True})
    and_meanwhile(lambda: rotation.set_share(main, actor=ALICE, share=50))
    held_for(made, 1)
    failing(main, 30)
    and_meanwhile(lambda: rotation.promote(main, actor=ALICE))
    assert states(main) == {1: "retiring", 2: "active"}


def test_it_runs_every_five_seconds() -> None:
    app.loader.import_default_modules()
    assert SCHEDULE["watch-rotations"] == {"task": "usage.tasks.watch_rotations", "schedule": 5.0}
    assert {entry["task"] for entry in SCHEDULE.values()} <= set(app.tasks)
