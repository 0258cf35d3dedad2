"""What expires or grows old is said 30, 7 and 1 days before and at the end, once each."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

import pytest
from pytest_django.fixtures import Settings

from conduit.console.overview import attention
from conduit.console.provider_pages import state_of
from conduit.core.clock import now
from providers import reminders, rotation, tasks
from providers.models import Credential, CredentialVersion
from tests.harness.sandbox import RunningSandbox
from tests.providers.rotations import ALICE, NEW, a_credential, fields

pytestmark = pytest.mark.django_db


@pytest.fixture
def main(sandbox: RunningSandbox) -> Credential:
    return a_credential()


def ending(credential: Credential, days: float) -> datetime:
    ends = now() + timedelta(days=days)
    Credential.objects.filter(pk=credential.pk).update(expires_at=ends)
    return ends


def aged(credential: Credential, days: float) -> None:
    CredentialVersion.objects.filter(credential=credential).update(activated_at=now() - timedelta(days=days))


def found(at: datetime) -> list[tuple[str, int]]:
    return [(reminder.what, reminder.days) for reminder in reminders.reminders(at)]


@pytest.mark.parametrize(
    ("left", "said"), [(30.1, []), (29.9, [30]), (7.1, [30]), (6.9, [7]), (0.9, [1]), (-0.1, [0]), (-400, [0])]
)
def test_the_nearest_threshold_that_is_reached_counts(main: Credential, left: float, said: list[int]) -> None:
    ending(main, left)
    assert found(now()) == [("expires", days) for days in said]
    ending(main, 1000)
    aged(main, 90 - left)
    assert found(now()) == [("old", days) for days in said]


def test_age_counts_from_the_last_rotation_and_only_where_it_matters(main: Credential, settings: Settings) -> None:
    aged(main, 100)
    assert found(now()) == [("old", 0)]
    settings.CREDENTIAL_MAX_AGE_DAYS = 0
    assert found(now()) == []
    settings.CREDENTIAL_MAX_AGE_DAYS = 365
    assert found(now()) == []
    settings.CREDENTIAL_MAX_AGE_DAYS = 90
    rotation.begin(main, actor=ALICE, fields=fields(NEW))
    assert found(now()) == []
    Credential.objects.update(enabled=False)
    aged(main, 100)
    assert found(now()) == []


def test_each_is_logged_once_per_threshold_and_again_for_another_end(
    main: Credential, caplog: pytest.LogCaptureFixture
) -> None:
    ends = ending(main, 20)
    aged(main, 85)

    def logged(at: datetime) -> list[tuple[str, int]]:
        caplog.clear()
        with caplog.at_level(logging.WARNING, "conduit.providers"):
            reminders.remind(at)
        return [(record.getMessage(), record.days) for record in caplog.records]

    assert logged(now()) == [("credential_old", 7), ("credential_expires", 30)]
    assert logged(now()) == []
    assert logged(now() + timedelta(days=4.5)) == [("credential_old", 1)]
    assert logged(ends - timedelta(days=6)) == [("credential_old", 0), ("credential_expires", 7)]
    assert logged(ends - timedelta(days=5)) == []
    ending(main, 25)
    assert logged(now()) == [("credential_old", 7), ("credential_expires", 30)]
    tasks.remind()


def test_the_overview_says_what_is_due(main: Credential) -> None:
    ending(main, 20)
    (item,) = attention(ALICE, now())
    assert (item["kind"], item["name"]) == ("warn", "main")
    assert item["fact"].startswith("expires in ")
    ending(main, -1)
    assert [(one["kind"], one["fact"]) for one in attention(ALICE, now())] == [("bad", "has expired")]
    ending(main, 1000)
    aged(main, 90)
    assert [(one["kind"], one["fact"]) for one in attention(ALICE, now())] == [("warn", "is due for rotation now")]


def test_a_credential_without_a_version_is_bad_on_the_overview_and_its_provider_fails(main: Credential) -> None:
    assert state_of(main.provider, [main]) == "ok"
    rotation.revoke(main, actor=ALICE, number=1)
    assert [(one["kind"], one["fact"]) for one in attention(ALICE, now())] == [("bad", "has no active version")]
    assert state_of(main.provider, [Credential.objects.get()]) == "failing"
