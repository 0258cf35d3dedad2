"""The registry of provider kinds: its rows are whole, and each row's adapters exist and speak what the row says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from providers.adapters.base import Head, Upstream
from providers.adapters.registry import KINDS, adapter_for
from providers.adapters.types import ChatRequest, Dialect, Endpoint, Message, Text

PAIRS = [(row.kind, dialect) for row in KINDS.values() for dialect in row.adapters]
HELLO = ChatRequest(model="r", messages=(Message(role="user", parts=(Text(text="Hello"),)),))


def upstream(base_url: str, **options: Any) -> Upstream:
    return Upstream(base_url=base_url, model="m", secrets={"api_key": "k-1"}, options=options, attempt="att_1")


@pytest.mark.parametrize(("kind", "dialect"), PAIRS)
def test_each_row_has_the_adapters_it_names(kind: str, dialect: Dialect) -> None:
    adapter = adapter_for(kind, {"dialect": dialect.value})
    assert adapter.wire is dialect
    assert adapter_for(kind, {"dialect": dialect.value}) is adapter  # stateless, hence shared


@pytest.mark.parametrize("kind", KINDS)
def test_each_row_is_whole(kind: str) -> None:
    row = KINDS[kind]
    assert row.kind == kind
    assert row.title
    assert row.base_url.startswith(("https://", "http://127.0.0.1")) or kind == "custom"
    assert not row.base_url.endswith("/")
    assert Endpoint.CHAT in row.endpoints
    assert [spec.secret for spec in row.fields if spec.name == "api_key"] == [True]
    assert all(spec.help for spec in (*row.fields, *row.options))
    assert "upstream_auth_failed" in row.guidance
    assert adapter_for(kind, {}).wire is next(iter(row.adapters))


def test_an_unknown_kind_or_dialect_is_refused() -> None:
    with pytest.raises(KeyError):
        adapter_for("nobody", {})
    with pytest.raises(ValueError, match="openai, anthropic"):
        adapter_for("custom", {"dialect": "gemini"})


# --- custom endpoints -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("auth", "expected"),
    [
        (None, {"authorization": "Bearer k-1"}),
        ("bearer", {"authorization": "Bearer k-1"}),
        ("Api-Key", {"api-key": "k-1"}),
        ("none", {}),
    ],
)
def test_a_custom_endpoint_gets_its_key_its_own_way(auth: str | None, expected: dict[str, str]) -> None:
    adapter = adapter_for("custom", {})
    target = upstream("https://llm.example.org/v1", auth=auth)
    for request in (adapter.build_request(HELLO, target), adapter.verification(target)):
        assert {name: value for name, value in request.headers.items() if name != "content-type"} == expected


def test_a_custom_endpoint_has_its_own_headers_paths_and_cap() -> None:
    adapter = adapter_for("custom", {})
    target = Upstream(
        base_url="https://llm.example.org/api",
        model="m",
        secrets={},
        options={"headers": {"X-Tenant": "t"}, "path_map": {"/chat/completions": "chat", "/models": "/list"}},
        max_output_tokens=9,
        attempt="att_1",
    )
    built = adapter.build_request(HELLO, target)
    assert built.url == "https://llm.example.org/api/chat"
    assert built.headers == {"content-type": "application/json", "x-tenant": "t"}
    assert json.loads(built.body)["max_tokens"] == 9
    assert adapter.verification(target).url == "https://llm.example.org/api/list"
    head = Head(endpoint=Endpoint.CHAT, model="r")
    assert adapter.pass_through(b'{"model":"r"}', head, target).url == "https://llm.example.org/api/chat"


def test_a_custom_anthropic_endpoint_may_take_a_bearer_key() -> None:
    adapter = adapter_for("custom", {"dialect": "anthropic"})
    built = adapter.build_request(HELLO, upstream("https://llm.example.org", auth="bearer"))
    assert built.headers["authorization"] == "Bearer k-1"
    assert "x-api-key" not in built.headers


# --- the sandbox ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", ["openai", "anthropic", "gemini"])
@pytest.mark.parametrize("base_url", ["http://127.0.0.1:8081", "http://127.0.0.1:8081/v1"])
def test_the_sandbox_is_told_our_attempt_and_scripted_faults_alone(dialect: str, base_url: str) -> None:
    adapter = adapter_for("sandbox", {"dialect": dialect})
    scripted = {"X-Sandbox-Status": "503", "authorization": "stolen"}
    target = upstream(base_url, sandbox_headers=scripted)
    built = adapter.build_request(HELLO, target)
    assert built.headers["x-conduit-attempt"] == "att_1"
    assert built.headers["x-sandbox-status"] == "503"
    assert "stolen" not in built.headers.values()
    assert built.url.startswith("http://127.0.0.1:8081/v1")
    assert "/v1/v1" not in built.url
    assert "k-1" in " ".join(built.headers.values())


@pytest.mark.parametrize(("kind", "dialect"), [pair for pair in PAIRS if pair[0] != "sandbox"])
def test_no_other_provider_is_told_our_attempt(kind: str, dialect: Dialect) -> None:
    adapter = adapter_for(kind, {"dialect": dialect.value})
    target = upstream("https://llm.example.org", sandbox_headers={"x-sandbox-status": "503"})
    built = adapter.build_request(HELLO, target)
    assert "att_1" not in built.headers.values()
    assert not any(name.startswith("x-sandbox") for name in built.headers)
