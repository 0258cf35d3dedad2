"""The data plane with secrets from elsewhere and minted tokens: requests never wait for them, changes become effective
by themselves, and what a cloud demands of a request arrives there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conduit.core.actor import SYSTEM
from providers import supply
from providers.credentials import add_credential
from providers.models import Credential, Provider
from providers.providers import add_provider
from tests.harness.clouds import CLIENT, CLIENT_SECRET, TENANT, Clouds, running_clouds
from tests.harness.gateway import RunningGateway, wait_for

SECRET_KEY = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"


@pytest.fixture(scope="module")
def clouds() -> Iterator[Clouds]:
    with running_clouds() as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path, gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch) -> Path:
    from django.conf import settings

    monkeypatch.setattr(settings, "CONDUIT_SECRET_FILES", [str(tmp_path)], raising=False)
    return tmp_path


def routed(gateway: RunningGateway, provider: Provider, fields: dict[str, Any]) -> Credential:
    """A credential that is not called first, and a route of the provider's name; serving when this returns."""
    made = add_credential(provider, actor=SYSTEM, name="main", fields=fields, verify=False)
    # of Bedrock's models, one that is asked in OpenAI's wire format
    gateway.route(provider.name, (provider, "openai.gpt-oss-20b-1:0" if provider.kind == "bedrock" else "m"))
    wait_for(lambda: bool(_entry(gateway, provider).credentials), 30)
    return made


def _entry(gateway: RunningGateway, provider: Provider) -> Any:
    return gateway.app.gateway.snapshot.routing.providers[provider.id]


def _serves(gateway: RunningGateway, provider: Provider) -> str:
    found = _entry(gateway, provider).credentials
    return found[0].secrets["api_key"] if found else ""


def house(clouds: Clouds, name: str) -> Provider:
    return add_provider(actor=SYSTEM, name=name, kind="custom", base_url=f"{clouds.url}/v1")


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
def test_each_clouds_own_way_arrives_with_every_request(gateway: RunningGateway, clouds: Clouds, dialect: str) -> None:
    clouds.aws["AKIAIOSFODNN7EXAMPLE"] = SECRET_KEY
    ways: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "bedrock": (
            {"region": "us-east-1", "base_url": f"{clouds.url}/openai/v1"},
            {"access_key_id": "AKIAIOSFODNN7EXAMPLE", "secret_access_key": SECRET_KEY},
        ),
        "vertex": ({"region": "us-east1", "base_url": clouds.url}, {"service_account": clouds.account()}),
        "azure_openai": (
            {"base_url": f"{clouds.url}/openai/v1", "options": {"authority": clouds.url}},
            {"tenant_id": TENANT, "client_id": CLIENT, "client_secret": CLIENT_SECRET},
        ),
    }
    for kind, (provider, fields) in ways.items():
        name = f"{kind}-{dialect}"
        routed(gateway, add_provider(actor=SYSTEM, name=name, kind=kind, **provider), fields)
        if dialect == "openai":
            answer = gateway.chat(model=name)
        else:
            body = {"model": name, "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]}
            with gateway.client() as client:
                answer = client.post("/v1/messages", json=body)
        assert answer.status_code == 200, answer.text
        assert "hello" in answer.text
    paths = [path for path, _, _ in clouds.sent[-3:]]
    assert paths == [
        "/openai/v1/chat/completions",
        "/v1/projects/project-one/locations/us-east1/endpoints/openapi/chat/completions",
        "/openai/v1/chat/completions",
    ]


def test_a_changed_secret_becomes_effective_by_a_refresh_and_by_itself(
    gateway: RunningGateway, clouds: Clouds, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clouds.api_keys |= {"sk-one-0123456789abcdef", "sk-two-0123456789abcdef", "sk-three-0123456789abcdef"}
    (folder / "key").write_text("sk-one-0123456789abcdef")
    provider = house(clouds, "changing")
    made = routed(gateway, provider, {"api_key": {"from": f"file:{folder}/key"}})
    assert gateway.chat(model="changing").status_code == 200
    (folder / "key").write_text("sk-two-0123456789abcdef")
    supply.refresh(made, actor=SYSTEM)
    wait_for(lambda: _serves(gateway, provider) == "sk-two-0123456789abcdef", 30)
    assert gateway.chat(model="changing").status_code == 200
    assert clouds.sent[-1][1]["authorization"] == "Bearer sk-two-0123456789abcdef"
    (folder / "key").write_text("sk-three-0123456789abcdef")  # first: what is read early is not read again for 30 s
    monkeypatch.setattr("providers.kept.monotonic", lambda: time.monotonic() + 31)
    wait_for(lambda: _serves(gateway, provider) == "sk-three-0123456789abcdef", 30)
    assert gateway.chat(model="changing").status_code == 200


def test_a_source_that_is_gone_serves_for_a_minute_and_then_answers_503(
    gateway: RunningGateway, clouds: Clouds, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clouds.api_keys.add("sk-gone-0123456789abcdef")
    (folder / "key").write_text("sk-gone-0123456789abcdef")
    provider = house(clouds, "going")
    routed(gateway, provider, {"api_key": {"from": f"file:{folder}/key"}})
    (folder / "key").unlink()
    ahead = 31.0
    monkeypatch.setattr("providers.kept.monotonic", lambda: time.monotonic() + ahead)
    reference = f"file:{folder}/key"
    wait_for(lambda: _failing(reference), 30)
    assert gateway.chat(model="going").status_code == 200
    ahead += 61
    wait_for(lambda: _entry(gateway, provider).unreadable == ("main",), 30)
    refused = gateway.chat(model="going")
    assert refused.status_code == 503
    assert "sk-gone" not in refused.text
    (folder / "key").write_text("sk-gone-0123456789abcdef")
    ahead += 6
    wait_for(lambda: bool(_entry(gateway, provider).credentials), 30)
    assert gateway.chat(model="going").status_code == 200


def _failing(reference: str) -> bool:
    from providers import sources

    entry = sources.secrets._entries.get(reference)
    return entry is not None and entry.failing_since is not None


def test_a_source_that_hangs_holds_up_neither_requests_nor_changes(
    gateway: RunningGateway, clouds: Clouds, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from providers import sources

    clouds.api_keys.add("sk-quick-0123456789abcdef")
    (folder / "quick").write_text("sk-quick-0123456789abcdef")
    provider = house(clouds, "quick")
    routed(gateway, provider, {"api_key": {"from": f"file:{folder}/quick"}})
    hanging: list[str] = []

    def hang(place: str) -> str:
        hanging.append(place)
        time.sleep(8)
        return "sk-late"

    monkeypatch.setitem(sources._READERS, "env", hang)  # type: ignore[index]
    slow = house(clouds, "slow")
    add_credential(slow, actor=SYSTEM, name="main", fields={"api_key": {"from": "env:CONDUIT_SECRET_X"}}, verify=False)
    wait_for(lambda: bool(hanging), 30)
    began = time.monotonic()
    assert gateway.chat(model="quick").status_code == 200
    gateway.route("made-meanwhile", (provider, "m"))
    assert gateway.chat(model="made-meanwhile").status_code == 200
    assert time.monotonic() - began < 8
    assert _entry(gateway, slow).credentials == ()


def test_a_secret_header_that_the_upstream_quotes_is_masked(gateway: RunningGateway, clouds: Clouds) -> None:
    provider = add_provider(
        actor=SYSTEM, name="headers", kind="custom", base_url=f"{clouds.url}/v1", options={"auth": "none"}
    )
    routed(gateway, provider, {"headers": {"Api-Key": "header-canary-0123456789"}})
    clouds.quotes = "header-canary-0123456789"
    refused = gateway.chat(model="headers")
    clouds.quotes = ""
    assert refused.status_code == 400
    assert "…" in refused.text
    assert "header-canary" not in refused.text
