"""A rejected version goes back only to one that works, and nothing counts that changed while the provider was asked."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from conduit.core.clock import now
from conduit.core.errors import Conflict
from conduit.core.models import AuditEntry
from providers import credentials, rotation
from providers.canary import Canary
from providers.models import Credential, CredentialVersion, Rotation
from providers.providers import add_provider, update_provider
from providers.verification import VerificationFailed, check
from tests.providers.conftest import Scripted
from tests.providers.rotations import ALICE, NEW, OLD, destroyed, fields, secret_of
from tests.providers.rotations import states as states_of

pytestmark = pytest.mark.django_db


def begun(credential: Credential, **more: Any) -> Rotation:
    return rotation.begin(credential, actor=ALICE, fields=fields(NEW), **more)


def a_house(upstream: Scripted) -> Credential:
    provider = add_provider(actor=ALICE, name="House", kind="custom", base_url=upstream.url)
    return credentials.add_credential(provider, actor=ALICE, name="house", fields=fields(OLD))


def meanwhile(monkeypatch: pytest.MonkeyPatch, name: str, step: Callable[[], Any]) -> None:
    """The next real check, named as its caller knows it, is followed by `step`, before its outcome is used."""

    def and_then(*given: Any) -> Any:
        monkeypatch.setattr(name, check)
        verified = check(*given)
        step()
        return verified

    monkeypatch.setattr(name, and_then)


def test_a_check_rolls_back_a_canary_that_the_provider_rejects_now(upstream: Scripted) -> None:
    house = a_house(upstream)
    begun(house, canary=Canary())
    credentials.verify(house, actor=ALICE)
    assert states_of(house) == {1: "active", 2: "verifying"}
    upstream.says(503, "{}")
    with pytest.raises(VerificationFailed):
        credentials.verify(house, actor=ALICE)
    assert states_of(house) == {1: "active", 2: "verifying"}
    upstream.says(401, '{"error":{"message":"revoked"}}')
    with pytest.raises(VerificationFailed):
        credentials.verify(house, actor=ALICE)
    assert states_of(house) == {1: "active", 2: "revoked"}
    assert "revoked" in house.versions.get(number=2).problem


def test_a_check_goes_back_to_the_retiring_version_when_the_active_one_is_rejected(upstream: Scripted) -> None:
    house = a_house(upstream)
    begun(house)
    upstream.rejects |= {NEW, OLD}
    with pytest.raises(VerificationFailed):
        credentials.verify(house, actor=ALICE)
    assert states_of(house) == {1: "retiring", 2: "active"}
    upstream.rejects.remove(OLD)
    with pytest.raises(VerificationFailed):
        credentials.verify(house, actor=ALICE)
    assert states_of(house) == {1: "active", 2: "revoked"}
    assert "revoked" in house.versions.get(number=2).problem
    house.refresh_from_db()
    assert house.last_error == ""


def test_nothing_goes_back_to_a_secret_that_has_expired_or_does_not_work(upstream: Scripted) -> None:
    house = a_house(upstream)
    begun(house)
    old = CredentialVersion.objects.filter(credential=house, number=1)
    old.update(expires_at=now() - timedelta(seconds=1))
    assert not rotation.roll_back_failed(house.id, 2, "401")
    old.update(expires_at=now() + timedelta(days=1))
    upstream.rejects.add(OLD)
    assert not rotation.roll_back_failed(house.id, 2, "401")
    assert secret_of(house) == NEW
    upstream.rejects.clear()
    assert rotation.roll_back_failed(house.id, 2, "401")
    assert secret_of(house) == OLD


def test_what_ends_while_the_old_secret_is_proven_is_not_rolled_back(
    upstream: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = a_house(upstream)
    begun(house)
    meanwhile(monkeypatch, "providers.versions.check", lambda: rotation.finish(house, actor=ALICE))
    assert not rotation.roll_back_failed(house.id, 2, "401")
    assert states_of(house) == {1: "retired", 2: "active"}


# --- what changes while the provider is asked ----------------------------------------------------------------------


@pytest.mark.parametrize("changed", [{"options": {"headers": {"X-Tenant": "blue"}}}, {"base_url": "{}/v2"}])
def test_a_secret_proven_at_another_address_or_in_another_way_never_serves(
    upstream: Scripted, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any]
) -> None:
    house = a_house(upstream)
    if "base_url" in changed:
        changed = {"base_url": changed["base_url"].format(upstream.url)}
    meanwhile(
        monkeypatch,
        "providers.rotation.check",
        lambda: update_provider(house.provider, actor=ALICE, changes=changed),
    )
    with pytest.raises(Conflict, match="changed while it was asked"):
        begun(house)
    assert states_of(house) == {1: "active", 2: "revoked"}
    assert destroyed(house, 2)
    assert begun(house).new.number == 3


def test_the_outcome_of_a_version_that_was_replaced_meanwhile_is_not_the_credentials(
    upstream: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = a_house(upstream)
    begun(house, canary=Canary())
    upstream.rejects.add(OLD)
    meanwhile(monkeypatch, "providers.credentials.check", lambda: rotation.promote(house, actor=ALICE))
    with pytest.raises(VerificationFailed):
        credentials.verify(house, actor=ALICE)
    assert states_of(house) == {1: "retiring", 2: "active"}
    house.refresh_from_db()
    assert house.last_error == ""
    assert not AuditEntry.objects.filter(action="credential.verify").exists()
