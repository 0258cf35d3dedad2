"""A credential that its provider rejects is passed over by itself; nobody else is, and no request fails."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from conduit.core.actor import SYSTEM
from conduit.core.clock import now
from conduit.core.models import LiveProcess
from conduit.core.secret import Secret
from providers.credentials import add_credential
from providers.models import Credential, Provider
from tests.harness.gateway import RunningGateway, wait_for

pytestmark = pytest.mark.usefixtures("books")


@pytest.fixture
def provider(gateway: RunningGateway) -> Iterator[Provider]:
    """One with two credentials: the provider takes only one of them at work, and that one is drawn rarely."""
    row = Provider.objects.create(name="two-keys", kind="sandbox")
    for name, secret, weight in (("bad", "sk-sandbox-listing-1", 99), ("good", "sk-sandbox-good", 1)):
        fields = {"api_key": Secret(secret)}
        add_credential(row, actor=SYSTEM, name=name, fields=fields, weight=weight, verify=False)
    route = gateway.route("two-keys", (row, "sandbox-echo"))
    yield row
    route.delete()
    Credential.objects.filter(provider=row).delete()
    row.delete()
    gateway.refresh()


def _version(credential: Credential) -> str:
    return str(credential.versions.get(state="active").id)


def test_a_401_trips_that_credential_only_and_fails_nobody(gateway: RunningGateway, provider: Provider) -> None:
    answers = [gateway.chat(model="two-keys") for _ in range(12)]
    assert {answer.status_code for answer in answers} == {200}
    attempts = [int(answer.headers["x-conduit-attempts"]) for answer in answers]
    assert sum(attempts) == len(attempts) + 1, "one request found out, and no other one tried it again"
    bad, good = (provider.credentials.get(name=name) for name in ("bad", "good"))

    def reported() -> dict[str, Any]:
        return LiveProcess.objects.filter(kind="web").latest("seen_at").versions

    wait_for(lambda: _version(bad) in reported() and _version(good) in reported())
    assert reported()[_version(bad)]["tripped"] > now().timestamp()
    assert "may list models only" in reported()[_version(bad)]["why"]
    assert reported()[_version(good)]["tripped"] == 0


def test_a_provider_whose_only_credential_is_rejected_says_so(gateway: RunningGateway, provider: Provider) -> None:
    provider.credentials.get(name="good").delete()
    gateway.refresh()
    for _ in range(3):
        answer = gateway.chat(model="two-keys")
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_auth_failed")
        assert "may list models only" in answer.json()["error"]["message"]
        assert "sk-sandbox" not in answer.text


def test_an_expired_credential_serves_no_more(gateway: RunningGateway, provider: Provider) -> None:
    provider.credentials.filter(name="bad").delete()
    provider.credentials.filter(name="good").update(expires_at=now() - timedelta(seconds=1))
    gateway.refresh()
    answer = gateway.chat(model="two-keys")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "upstream_unavailable")
