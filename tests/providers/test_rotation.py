"""A new secret is proven before it serves, takes over in steps, and what ended never comes back."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from conduit.core.clock import now
from conduit.core.errors import Conflict, InvalidInput
from conduit.core.models import AuditEntry
from conduit.core.secret import Secret
from providers import rotation, vault
from providers.adapters.registry import KINDS
from providers.canary import Canary
from providers.models import Credential, CredentialVersion, Rotation
from providers.providers import add_provider
from providers.verification import VerificationFailed, _told, check
from tests.harness.sandbox import RunningSandbox
from tests.providers.rotations import ALICE, BAD, FOREIGN, NEW, OLD, THIRD, a_credential, destroyed, fields, secret_of
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


# --- taking over ---------------------------------------------------------------------------------------------------


def test_a_proven_secret_takes_over_and_the_old_one_stays_for_the_overlap(main: Credential) -> None:
    made = begun(main, overlap_seconds=3600, reason="leaver")
    assert (made.state, made.ended_at) == ("draining", None)
    assert states_of(main) == {1: "retiring", 2: "active"}
    assert secret_of(main) == NEW
    new = main.versions.get(number=2)
    assert (new.reason, new.created_by, new.account) == ("leaver", ALICE.name, "main")
    assert new.verified_at is not None
    assert new.verified_at <= new.activated_at
    old = main.versions.get(number=1)
    assert abs(old.retire_at - new.activated_at - timedelta(hours=1)) < timedelta(seconds=5)
    assert not destroyed(main, 1)
    assert rotation.under_way(main) == made
    assert actions()[1:] == ["credential.rotate", "credential.promote"]
    assert NEW not in str(list(AuditEntry.objects.values_list("before", "after")))


def test_without_an_overlap_the_old_secret_is_destroyed_at_once(main: Credential) -> None:
    made = begun(main, overlap_seconds=0)
    assert (made.state, states_of(main)) == ("finished", {1: "retired", 2: "active"})
    assert destroyed(main, 1)
    assert rotation.under_way(main) is None


def test_a_canary_moves_by_hand_to_the_end(main: Credential) -> None:
    made = in_canary(main, steps=(5, 20))
    assert (made.state, made.new.share, states_of(main)) == ("canary", 5, {1: "active", 2: "verifying"})
    assert secret_of(main) == OLD
    since = made.share_since
    assert rotation.set_share(main, actor=ALICE, share=5).share_since == since
    moved = rotation.set_share(main, actor=ALICE, share=20)
    assert moved.share_since > since
    assert main.versions.get(number=2).share == 20
    done = rotation.set_share(main, actor=ALICE, share=100)
    assert (done.state, states_of(main)) == ("draining", {1: "retiring", 2: "active"})
    assert main.versions.get(number=2).share == 0
    assert rotation.promote(main, actor=ALICE).id == made.id
    finished = rotation.finish(main, actor=ALICE)
    assert (finished.state, states_of(main)) == ("finished", {1: "retired", 2: "active"})
    assert rotation.finish(main, actor=ALICE).ended_at == finished.ended_at
    assert rotation.promote(main, actor=ALICE).id == made.id
    assert actions().count("credential.promote") == actions().count("credential.retire") == 1


def test_the_new_secrets_own_expiry_counts_once_it_serves_and_the_old_ones_after_going_back(main: Credential) -> None:
    first, second = now() + timedelta(days=3), now() + timedelta(days=90)
    Credential.objects.filter(pk=main.pk).update(expires_at=first, last_error="rejected")
    begun(main, canary=Canary(), expires_at=second)
    main.refresh_from_db()
    assert main.expires_at == first
    rotation.promote(main, actor=ALICE)
    main.refresh_from_db()
    assert (main.expires_at, main.last_error) == (second, "")
    rotation.roll_back(main, actor=ALICE)
    main.refresh_from_db()
    assert main.expires_at == first


# --- refused secrets -----------------------------------------------------------------------------------------------


def test_a_secret_that_the_provider_refuses_is_never_active_and_is_destroyed(main: Credential) -> None:
    for canary in (None, Canary()):
        with pytest.raises(VerificationFailed, match="Incorrect API key"):
            begun(main, BAD, canary=canary)
    assert states_of(main) == {1: "active", 2: "revoked", 3: "revoked"}
    assert destroyed(main, 2)
    assert "Incorrect API key" in main.versions.get(number=2).problem
    assert not Rotation.objects.exists()
    assert secret_of(main) == OLD
    assert actions()[1:3] == ["credential.rotate", "credential.refuse"]
    assert begun(main).new.number == 4


def test_a_secret_of_another_account_is_refused_unless_it_is_meant(main: Credential) -> None:
    with pytest.raises(InvalidInput, match="account bob, and this credential to main") as refused:
        begun(main, FOREIGN)
    assert (refused.value.field, refused.value.code) == ("secret", "foreign_account")
    assert states_of(main) == {1: "active", 2: "revoked"}
    assert destroyed(main, 2)
    made = begun(main, FOREIGN, other_account=True)
    assert (made.new.account, states_of(main)[3]) == ("bob", "active")


def test_an_account_that_was_never_noted_is_asked_for_before_it_is_compared(main: Credential) -> None:
    CredentialVersion.objects.update(account="")
    with pytest.raises(InvalidInput, match="account bob, and this credential to main"):
        begun(main, FOREIGN)
    assert main.versions.get(number=1).account == "main"
    rotation.revoke(main, actor=ALICE, number=1)
    with pytest.raises(InvalidInput, match="to main"):
        begun(main, FOREIGN)


@pytest.mark.parametrize("dialect", ["openai", "anthropic", "gemini"])
def test_the_sandbox_tells_whose_a_key_is_in_every_wire_format(dialect: str) -> None:
    provider = add_provider(actor=ALICE, name="Sandbox", kind="sandbox", options={"dialect": dialect})
    assert [check(provider, fields(text)).account for text in (OLD, FOREIGN)] == ["main", "bob"]


def test_a_secret_that_comes_back_as_the_account_is_masked_and_rubbish_is_none() -> None:
    row = KINDS["sandbox"]
    told = [_told(row, {"x-sandbox-account": text}, [Secret(OLD)]) for text in (f"of {OLD}", "a\x00b", "x" * 500, "")]
    assert OLD not in told[0]
    assert (told[1], told[2], told[3]) == ("", "x" * 200, "")
    assert _told(KINDS["custom"], {"": "anybody"}, []) == ""


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"overlap_seconds": -1}, "overlap_seconds"),
        ({"overlap_seconds": True}, "overlap_seconds"),
        ({"overlap_seconds": 91 * 86_400}, "overlap_seconds"),
        ({"reason": "x" * 201}, "reason"),
        ({"expires_at": now() - timedelta(days=1)}, "expires_at"),
        ({"canary": Canary(steps=())}, "canary.steps"),
        ({"canary": Canary(steps=(10, 10))}, "canary.steps"),
        ({"canary": Canary(steps=(1, 100))}, "canary.steps"),
        ({"canary": Canary(steps=(0,))}, "canary.steps"),
        ({"canary": Canary(step_seconds=0)}, "canary.step_seconds"),
        ({"canary": Canary(max_error_percent=Decimal("100.01"))}, "canary.max_error_percent"),
        ({"canary": Canary(max_error_percent=Decimal("NaN"))}, "canary.max_error_percent"),
        ({"canary": Canary(max_error_percent=Decimal("0.001"))}, "canary.max_error_percent"),
    ],
)
def test_wrong_rules_are_refused_by_name_before_anything_is_sealed(
    main: Credential, given: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        begun(main, **given)
    assert refused.value.field == field
    assert states_of(main) == {1: "active"}


# --- repeating, and steps out of order -----------------------------------------------------------------------------


def test_a_rotation_whose_reply_was_lost_gives_the_same_rotation(main: Credential) -> None:
    made = in_canary(main)
    assert in_canary(main, steps=(50,)).id == made.id
    rotation.promote(main, actor=ALICE)
    assert begun(main).id == made.id
    rotation.finish(main, actor=ALICE)
    assert begun(main).id == made.id
    assert states_of(main) == {1: "retired", 2: "active"}


def test_another_secret_meanwhile_is_a_conflict_that_names_the_state(main: Credential) -> None:
    in_canary(main)
    with pytest.raises(Conflict, match="main is in canary: version 2 has 1 %"):
        begun(main, THIRD)
    rotation.promote(main, actor=ALICE)
    with pytest.raises(Conflict, match="draining: version 2 is active and version 1 retiring until"):
        begun(main, THIRD)
    rotation.finish(main, actor=ALICE)
    assert begun(main, THIRD).new.number == 3


def test_the_secret_that_serves_without_any_rotation_is_refused(main: Credential) -> None:
    with pytest.raises(InvalidInput, match="serves already, as version 1") as refused:
        begun(main, OLD)
    assert refused.value.code == "same_secret"


def test_each_step_out_of_order_names_the_state(main: Credential) -> None:
    steps = {
        "promote": lambda: rotation.promote(main, actor=ALICE),
        "roll_back": lambda: rotation.roll_back(main, actor=ALICE),
        "finish": lambda: rotation.finish(main, actor=ALICE),
        "extend": lambda: rotation.extend(main, actor=ALICE, overlap_seconds=60),
        "set_share": lambda: rotation.set_share(main, actor=ALICE, share=50),
        "change_rules": lambda: rotation.change_rules(main, actor=ALICE, changes={"automatic": True}),
    }

    def refused(*names: str, words: str) -> None:
        for name in names:
            with pytest.raises(Conflict, match=words):
                steps[name]()

    refused(*steps, words="No rotation of main is under way")
    in_canary(main)
    refused("finish", words="in canary")
    rotation.promote(main, actor=ALICE)
    refused("set_share", "change_rules", words="draining")
    rotation.finish(main, actor=ALICE)
    refused("roll_back", "extend", "set_share", "change_rules", words="finished; version 2 is active")
    begun(main, THIRD)
    rotation.roll_back(main, actor=ALICE)
    refused("promote", "finish", "extend", "set_share", "change_rules", words="rolled back")


def test_a_version_that_is_still_being_verified_stands_in_the_way_until_it_is_abandoned(main: Credential) -> None:
    pending = vault.seal_version(main, fields(THIRD), number=2)
    with pytest.raises(Conflict, match="Version 2 of main is pending: it is being verified"):
        begun(main)
    assert rotation.retire_due() == 0
    CredentialVersion.objects.filter(pk=pending.pk).update(created_at=now() - 2 * rotation.ABANDONED)
    assert begun(main).new.number == 3
    assert states_of(main)[2] == "revoked"
    assert destroyed(main, 2)


# --- going back ----------------------------------------------------------------------------------------------------


def test_a_canary_is_rolled_back_with_its_problem(main: Credential) -> None:
    made = in_canary(main)
    done = rotation.roll_back(main, actor=ALICE, problem="3 of 40 requests failed")
    assert (done.id, done.state, done.problem) == (made.id, "rolled_back", "3 of 40 requests failed")
    assert states_of(main) == {1: "active", 2: "revoked"}
    assert main.versions.get(number=2).problem == "3 of 40 requests failed"
    assert destroyed(main, 2)
    assert rotation.roll_back(main, actor=ALICE, problem="again").problem == "3 of 40 requests failed"
    assert actions().count("credential.roll_back") == 1


def test_while_it_drains_the_old_version_is_active_again(main: Credential) -> None:
    begun(main)
    rotation.roll_back(main, actor=ALICE)
    assert states_of(main) == {1: "active", 2: "revoked"}
    assert secret_of(main) == OLD
    assert main.versions.get(number=1).retire_at is None


def test_the_data_planes_verdict_rolls_back_once_and_only_the_version_it_names(main: Credential) -> None:
    assert not rotation.roll_back_failed(main.id, 1, "401")
    in_canary(main)
    assert not rotation.roll_back_failed(main.id, 1, "401")
    assert rotation.roll_back_failed(main.id, 2, "Incorrect API key")
    assert not rotation.roll_back_failed(main.id, 2, "Incorrect API key")
    assert states_of(main) == {1: "active", 2: "revoked"}
    entry = AuditEntry.objects.get(action="credential.roll_back")
    assert (entry.actor_name, entry.after["problem"]) == ("system", "Incorrect API key")
    begun(main, THIRD)
    assert rotation.roll_back_failed(main.id, 3, "401")
    assert secret_of(main) == OLD
    begun(main, THIRD, overlap_seconds=0)
    assert not rotation.roll_back_failed(main.id, 4, "401")
    assert secret_of(main) == THIRD
    ident = main.id
    main.delete()
    assert not rotation.roll_back_failed(ident, 4, "401")
