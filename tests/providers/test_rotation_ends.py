"""How a rotation ends: the overlap runs out, rules move it on, or somebody revokes a version in an emergency."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from conduit.core.actor import Actor
from conduit.core.clock import now
from conduit.core.errors import Conflict, Forbidden, InvalidInput, NotFound
from conduit.core.models import AuditEntry
from providers import credentials, rotation, tasks
from providers.canary import Canary
from providers.models import Credential, CredentialVersion, Rotation
from providers.verification import VerificationFailed
from tests.harness.sandbox import RunningSandbox
from tests.providers.rotations import ALICE, BAD, NEW, OLD, THIRD, a_credential, destroyed, dump, fields, secret_of
from tests.providers.rotations import states as states_of

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("sandbox")]


@pytest.fixture
def main(sandbox: RunningSandbox) -> Credential:
    return a_credential()


def begun(credential: Credential, text: str = NEW, **more: Any) -> Rotation:
    return rotation.begin(credential, actor=ALICE, fields=fields(text), **more)


def in_canary(credential: Credential, **more: Any) -> Rotation:
    return begun(credential, canary=Canary(**more))


def actions() -> list[str]:
    return list(AuditEntry.objects.filter(object_kind="credential").order_by("id").values_list("action", flat=True))


# --- the end of the overlap ----------------------------------------------------------------------------------------


def test_the_job_retires_what_is_due_and_nothing_else_however_often_it_runs(main: Credential) -> None:
    other = a_credential(name="other")
    begun(main)
    begun(other)
    CredentialVersion.objects.filter(credential=main, number=1).update(retire_at=now() - timedelta(seconds=1))
    for _ in range(2):
        tasks.finish_rotations()
    assert (states_of(main), states_of(other)) == ({1: "retired", 2: "active"}, {1: "retiring", 2: "active"})
    assert destroyed(main, 1)
    assert not destroyed(other, 1)
    assert actions().count("credential.retire") == 1
    assert not rotation._retire_due(other)  # as if it had been extended after the job read its list


def test_an_extended_overlap_counts_from_now(main: Credential) -> None:
    begun(main, overlap_seconds=60)
    before = main.versions.get(number=1).retire_at
    rotation.extend(main, actor=ALICE, overlap_seconds=7200)
    assert main.versions.get(number=1).retire_at - before > timedelta(minutes=100)
    assert rotation.under_way(main).overlap_seconds == 7200


def test_the_rules_of_a_canary_can_be_changed(main: Credential) -> None:
    in_canary(main)
    rules = {"steps": [2, 30], "step_seconds": 60, "max_error_percent": "0.5", "automatic": True, "overlap_seconds": 9}
    changed = rotation.change_rules(main, actor=ALICE, changes=rules)
    changed.refresh_from_db()
    assert (changed.steps, changed.max_error_percent) == ([2, 30], Decimal("0.5"))
    rotation.change_rules(main, actor=ALICE, changes=rules)
    assert actions().count("credential.rules") == 1
    for wrong in ({"steps": "1"}, {"step_secs": 5}, {"automatic": "yes"}, {"max_error_percent": True}):
        with pytest.raises(InvalidInput):
            rotation.change_rules(main, actor=ALICE, changes=wrong)


def test_an_automatic_canary_takes_each_step_once(main: Credential) -> None:
    made = in_canary(main, automatic=True)
    assert rotation.advance(made, seen=made.share_since)
    assert not rotation.advance(made, seen=made.share_since)
    made.refresh_from_db()
    assert main.versions.get(number=2).share == 10
    assert rotation.advance(made, seen=made.share_since)
    assert states_of(main) == {1: "retiring", 2: "active"}
    assert not rotation.advance(made, seen=made.share_since)
    by_hand = a_credential(name="by hand")
    slow = in_canary(by_hand)
    assert not rotation.advance(slow, seen=slow.share_since)


# --- emergencies ---------------------------------------------------------------------------------------------------


def test_revoking_the_active_version_brings_back_its_retiring_predecessor(main: Credential) -> None:
    begun(main)
    left = rotation.revoke(main, actor=ALICE, number=2)
    assert left is not None
    assert (left.number, states_of(main)) == (1, {1: "active", 2: "revoked"})
    assert rotation.revoke(main, actor=ALICE, number=2) == left
    assert actions().count("credential.revoke") == 1


def test_revoking_the_active_version_during_a_canary_lets_the_canary_take_over(main: Credential) -> None:
    in_canary(main)
    left = rotation.revoke(main, actor=ALICE, number=1)
    assert left is not None
    assert (left.number, states_of(main)) == (2, {1: "revoked", 2: "active"})
    assert destroyed(main, 1)
    assert rotation.under_way(main) is None


def test_revoking_the_last_version_leaves_none_and_a_new_secret_ends_that(main: Credential) -> None:
    assert rotation.revoke(main, actor=ALICE, number=1) is None
    assert (credentials.health(main), credentials.hint(main)) == ("revoked", "")
    assert destroyed(main, 1)
    with pytest.raises(InvalidInput, match="leave the canary out"):
        in_canary(main)
    made = begun(main)
    assert (made.state, made.old, secret_of(main)) == ("finished", None, NEW)
    assert credentials.health(main) == "ok"


def test_revoking_the_old_version_ends_the_overlap_and_the_canary_ends_the_rotation(main: Credential) -> None:
    begun(main)
    assert rotation.revoke(main, actor=ALICE, number=1).number == 2
    assert (states_of(main), rotation.under_way(main)) == ({1: "revoked", 2: "active"}, None)
    begun(main, THIRD, canary=Canary())
    assert rotation.revoke(main, actor=ALICE, number=3).number == 2
    assert (states_of(main)[3], rotation.under_way(main)) == ("revoked", None)


def test_what_is_retired_or_unknown_is_not_revoked(main: Credential) -> None:
    begun(main, overlap_seconds=0)
    with pytest.raises(Conflict, match="Version 1 is retired"):
        rotation.revoke(main, actor=ALICE, number=1)
    with pytest.raises(NotFound, match="no version 7"):
        rotation.revoke(main, actor=ALICE, number=7)


def test_a_credential_in_the_middle_of_a_rotation_can_be_deleted(main: Credential) -> None:
    in_canary(main)
    credentials.delete_credential(main, actor=ALICE)
    assert not (CredentialVersion.objects.exists())
    assert not (Rotation.objects.exists())


def test_only_roles_that_write_may_take_a_step(main: Credential) -> None:
    auditor = Actor("user", "2", "bob@example.org", "auditor", None)
    in_canary(main)
    with pytest.raises(Forbidden):
        rotation.begin(main, actor=auditor, fields=fields(THIRD))
    for step in (rotation.promote, rotation.roll_back, rotation.finish):
        with pytest.raises(Forbidden):
            step(main, actor=auditor)
    for step, given in (
        (rotation.set_share, {"share": 5}),
        (rotation.extend, {"overlap_seconds": 5}),
        (rotation.change_rules, {"changes": {}}),
        (rotation.revoke, {"number": 1}),
    ):
        with pytest.raises(Forbidden):
            step(main, actor=auditor, **given)
    assert states_of(main) == {1: "active", 2: "verifying"}


def test_no_table_holds_a_secret_whatever_became_of_it(main: Credential) -> None:
    with pytest.raises(VerificationFailed):
        begun(main, BAD)
    begun(main)
    rotation.roll_back(main, actor=ALICE)
    begun(main, THIRD, overlap_seconds=0)
    whole = dump()
    assert str(main.id) in whole
    for text in (OLD, NEW, THIRD, BAD):
        assert text not in whole
        assert text.encode().hex() not in whole
