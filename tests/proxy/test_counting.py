"""Tokens are counted by the provider that would serve the prompt; where it cannot, they are estimated."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from conduit.core.actor import SYSTEM
from conduit.core.secret import Secret
from providers.credentials import add_credential
from providers.models import Provider
from tests.harness.gateway import RunningGateway
from tests.harness.invoice import read_invoice
from tests.harness.speakers import PREFIXES, SPEAKERS, client
from tests.harness.stub_upstream import Said, Stub, stub_upstream

pytestmark = pytest.mark.usefixtures("module_books")
FIELD = {"anthropic": "input_tokens", "gemini": "totalTokens"}
TOOL = {"name": "look", "description": "Looks.", "input_schema": {"type": "object", "properties": {}}}


def ask(
    gateway: RunningGateway, dialect: str, model: str, text: str = "hello big world", key: str = "", **fields: Any
) -> httpx.Response:
    speaker = SPEAKERS[dialect]
    path = "/v1/messages/count_tokens" if dialect == "anthropic" else f"/v1beta/models/{model}:countTokens"
    body = {**speaker.body(model, text, False, None), **fields}
    body.pop("max_tokens", None)
    return client().post(gateway.url + path, json=body, headers=speaker.headers(key or gateway.raw_key))


@pytest.fixture(scope="module")
def stub(gateway: RunningGateway) -> Iterator[Stub]:
    with stub_upstream() as running:
        for name, kind in ("claude", "anthropic"), ("google", "gemini"):
            row = Provider.objects.create(name=name, kind=kind, base_url=running.url)
            add_credential(row, actor=SYSTEM, name="main", fields={"api_key": Secret("sk-secret-1")}, verify=False)
            gateway.route(name, (row, "its-model"))
        yield running


@pytest.mark.parametrize("dialect", list(FIELD))
@pytest.mark.parametrize("wire", ["anthropic", "gemini"])
def test_the_provider_counts_in_whichever_dialect_is_asked(gateway: RunningGateway, dialect: str, wire: str) -> None:
    before = len(read_invoice(gateway.sandbox.invoice))
    answer = ask(gateway, dialect, f"{PREFIXES[wire]}sandbox-echo")
    assert (answer.status_code, answer.json()) == (200, {FIELD[dialect]: 10}), "exactly as the sandbox counts"
    told = answer.headers
    assert (told["x-conduit-count"], told["x-conduit-model"]) == ("provider", "sandbox-echo")
    assert told["x-conduit-provider"] == f"sandbox-{wire}"
    assert len(read_invoice(gateway.sandbox.invoice)) == before, "nobody bills it"


@pytest.mark.parametrize("dialect", list(FIELD))
def test_where_the_provider_has_no_such_call_it_is_estimated(gateway: RunningGateway, dialect: str) -> None:
    answer = ask(gateway, dialect, "sandbox-echo")
    assert 10 <= answer.json()[FIELD[dialect]] <= 16
    assert answer.headers["x-conduit-count"] == "estimated"
    assert "x-conduit-provider" not in answer.headers


def test_system_and_tools_are_counted_with_the_rest(gateway: RunningGateway, stub: Stub) -> None:
    stub.asked.clear()
    stub.says = lambda asked: Said(body={"input_tokens": 7})
    assert ask(gateway, "anthropic", "claude", system="be brief", tools=[TOOL]).json() == {"input_tokens": 7}
    (asked,) = stub.asked
    assert (asked.path, asked.headers["x-api-key"]) == ("/v1/messages/count_tokens", "sk-secret-1")
    assert (asked.body["model"], asked.body["system"], asked.body["tools"][0]["name"]) == (
        "its-model",
        "be brief",
        "look",
    )
    stub.asked.clear()
    config = {
        "systemInstruction": {"parts": [{"text": "be brief"}]},
        "tools": [{"functionDeclarations": [{"name": "look"}]}],
    }
    contents = [{"role": "user", "parts": [{"text": "hi"}]}]
    inner = {"generateContentRequest": {"model": "models/claude", "contents": contents, **config}}
    assert ask(gateway, "gemini", "claude", contents=None, **inner).json() == {"totalTokens": 7}
    (asked,) = stub.asked
    assert {"max_tokens", "stream"}.isdisjoint(asked.body), "what the call does not take is left out"
    assert (asked.body["model"], asked.body["tools"][0]["name"]) == ("its-model", "look")
    assert "be brief" in str(asked.body["system"])


def test_a_claude_client_of_a_gemini_provider(gateway: RunningGateway, stub: Stub) -> None:
    stub.asked.clear()
    stub.says = lambda asked: Said(body={"totalTokens": 9})
    assert ask(gateway, "anthropic", "google", system="be brief", tools=[TOOL]).json() == {"input_tokens": 9}
    (asked,) = stub.asked
    assert asked.path == "/v1beta/models/its-model:countTokens"
    whole = asked.body["generateContentRequest"]
    assert (whole["model"], whole["tools"][0]["functionDeclarations"][0]["name"]) == ("models/its-model", "look")


FAULTS = {
    "overloaded": Said(529, {"error": {"message": "no"}}),
    "no such call": Said(404, {"error": {"message": "no"}}),
    "rubbish": Said(200, b"<html>"),
    "no count": Said(200, {"input_tokens": "many"}),
    "huge": Said(200, b" " * 200_000),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_goes_wrong_upstream_there_is_a_figure(gateway: RunningGateway, stub: Stub, fault: str) -> None:
    stub.says = lambda asked: FAULTS[fault]
    answer = ask(gateway, "anthropic", "claude")
    assert (answer.status_code, answer.headers["x-conduit-count"]) == (200, "estimated")
    assert 10 <= answer.json()["input_tokens"] <= 16


def test_a_credential_that_the_provider_rejects_is_passed_over_from_then_on(
    gateway: RunningGateway, stub: Stub
) -> None:
    stub.says = lambda asked: Said(401, {"error": {"message": "bad key"}})
    assert ask(gateway, "anthropic", "claude").headers["x-conduit-count"] == "estimated"
    assert len(gateway.app.gateway.breaker.trips) == 1
    gateway.app.gateway.breaker.trips.clear()


@pytest.mark.usefixtures("minute")
def test_counting_stays_within_the_keys_limits(gateway: RunningGateway) -> None:
    key = gateway.key(rpm=1)
    first, second = (ask(gateway, "anthropic", "anthropic/sandbox-echo", key=key) for _ in range(2))
    assert (first.status_code, second.status_code) == (200, 429)
    assert "x-ratelimit-remaining-requests" in first.headers
    for refused, status in ((gateway.key(models=["x"]), 403), (gateway.key(endpoints=["chat"]), 403), ("cdt_vk_", 401)):
        assert ask(gateway, "anthropic", "anthropic/sandbox-echo", key=refused).status_code == status
