"""The registry of provider kinds: its rows are whole, and each row's adapters exist and speak what the row says."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from providers.adapters.base import Head, Upstream
from providers.adapters.kinds import ProviderKind
from providers.adapters.registry import KINDS, adapter_for
from providers.adapters.types import ChatRequest, Dialect, Endpoint, Message, Text

PAIRS = [(row.kind, dialect) for row in KINDS.values() for dialect in row.adapters]
HELLO = ChatRequest(model="r", messages=(Message(role="user", parts=(Text(text="Hello"),)),))


def upstream(base_url: str, **options: Any) -> Upstream:
    return Upstream(
        base_url=base_url,
        model="m",
        secrets={"api_key": "k-1", "access_token": "t-1", "project_id": "p-1"},
        options=options,
        attempt="att_1",
    )


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
    assert row.base_url.startswith(("https://", "http://127.0.0.1")) or not row.base_url
    assert not set(row.places) - {spec.name for spec in row.options if spec.required}
    assert not row.base_url.endswith("/")
    assert Endpoint.CHAT in row.endpoints
    assert [spec.secret for spec in row.fields if spec.name in ("api_key", "service_account")] == [True]
    assert {name for way in row.ways for name in way} <= {spec.name for spec in row.fields if not spec.required}
    assert all(spec.help for spec in (*row.fields, *row.options))
    assert "upstream_auth_failed" in row.guidance
    assert adapter_for(kind, {}).wire is next(iter(row.adapters))


def contradictions(row: ProviderKind) -> list[str]:
    """Claims of a row that cannot be true together."""
    claims = row.capabilities
    served = {end for way in row.adapters for _, end in adapter_for(row.kind, {"dialect": way}).native}
    told = {
        "embeddings and its endpoint": claims.embeddings == (Endpoint.EMBEDDINGS in row.endpoints),
        "several calls without tools": claims.tools or not claims.parallel_tools,
        "a choice of tool without tools": claims.tools or not claims.tool_choice,
        "an endpoint twice": len(set(row.endpoints)) == len(row.endpoints),
        "an endpoint for some models that none has": set(row.only_models) <= set(row.endpoints),
        "a wire format for models that it does not speak": {way for _, way in row.by_model} <= set(row.adapters),
        # Who cannot pass these on has no place for them: chat is what other dialects are translated to.
        "completions": Endpoint.COMPLETIONS not in row.endpoints or Endpoint.COMPLETIONS in served,
        "responses": Endpoint.RESPONSES not in row.endpoints or Endpoint.RESPONSES in served,
    }
    quirks = row.quirks
    if quirks is not None:
        parts = {"image": claims.vision, "audio": claims.audio_in, "document": claims.documents}
        told |= {f"{part}s in messages": (part in quirks.parts) == yes for part, yes in parts.items()}
        members = {"seed": claims.seed, "stop": claims.stop, "n": claims.several, "logprobs": claims.logprobs}
        told |= {name: not (claimed and name in quirks.drops) for name, claimed in members.items()}
    return [name for name, right in told.items() if not right]


@pytest.mark.parametrize("kind", KINDS)
def test_the_claims_of_a_row_agree(kind: str) -> None:
    assert contradictions(KINDS[kind]) == []


@pytest.mark.parametrize(
    ("kind", "wrong", "told"),
    [
        ("groq", {"embeddings": True}, "embeddings and its endpoint"),
        ("mistral", {"embeddings": False}, "embeddings and its endpoint"),
        ("perplexity", {"parallel_tools": True}, "several calls without tools"),
        ("perplexity", {"tool_choice": True}, "a choice of tool without tools"),
        ("groq", {"audio_in": True}, "audios in messages"),
        ("groq", {"several": True}, "n"),
    ],
)
def test_claims_that_do_not_agree_are_seen(kind: str, wrong: dict[str, bool], told: str) -> None:
    row = KINDS[kind]
    assert contradictions(replace(row, capabilities=replace(row.capabilities, **wrong))) == [told]


def test_endpoints_that_no_wire_format_of_a_row_has_are_seen() -> None:
    row = KINDS["cohere"]
    more = (*row.endpoints, Endpoint.COMPLETIONS, Endpoint.RESPONSES)
    assert contradictions(replace(row, endpoints=more)) == ["completions", "responses"]


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
