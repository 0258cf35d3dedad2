from __future__ import annotations

import uuid
from datetime import UTC, datetime

import pytest
from django.db import transaction

from conduit.core import audit
from conduit.core.actor import SYSTEM
from conduit.core.models import AuditEntry
from conduit.core.secret import Secret


@pytest.mark.django_db(transaction=True)
def test_an_entry_outside_the_transaction_of_its_change_is_refused() -> None:
    with pytest.raises(RuntimeError, match="outside"):
        audit.record(actor=SYSTEM, action="key.create", kind="key", id=1)
    with transaction.atomic():
        audit.record(actor=SYSTEM, action="key.create", kind="key", id=1)
    assert AuditEntry.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_an_entry_vanishes_with_the_change_that_failed() -> None:
    with transaction.atomic():
        audit.record(actor=SYSTEM, action="key.create", kind="key", id=1)
        transaction.set_rollback(True)
    assert not AuditEntry.objects.exists()


def test_a_secret_fails_the_change_instead_of_being_logged(db: None) -> None:
    with pytest.raises(TypeError, match="Secret"):
        audit.record(actor=SYSTEM, action="x", kind="key", id=1, after={"raw": Secret("canary-canary-canary")})
    with pytest.raises(TypeError):
        audit.record(actor=SYSTEM, action="x", kind="key", id=1, after={"list": [{"raw": Secret("canary")}]})


def test_ids_and_times_are_kept_as_texts(db: None) -> None:
    team = uuid.UUID(int=5)
    after = {"team": team, "at": datetime(2030, 1, 2, tzinfo=UTC)}
    audit.record(actor=SYSTEM, action="x", kind="key", id=team, after=after, team_id=team, request_id="req-1")
    entry = AuditEntry.objects.get()
    assert entry.after == {"team": str(team), "at": "2030-01-02T00:00:00Z"}
    assert (entry.object_id, entry.team_id, entry.request_id) == (str(team), team, "req-1")


def test_changes_keeps_what_differs() -> None:
    assert audit.changes({"a": 1, "b": 2}, {"b": 3, "c": 4, "a": 1}) == ({"b": 2, "c": None}, {"b": 3, "c": 4})
