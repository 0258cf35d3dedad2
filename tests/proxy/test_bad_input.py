"""What a provider cannot carry is refused with field and provider, or left out and named; never lost in silence.

The first part asks every kind of the registry in every wire format that it offers, without a socket.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from conduit.core.actor import SYSTEM
from conduit.core.secret import Secret
from conduit.proxy.dialects.registry import DIALECTS
from providers import credentials
from providers.adapters.base import CONTENT, Upstream, UpstreamRequest
from providers.adapters.registry import KINDS, adapter_for
from providers.adapters.types import Dialect, Endpoint
from providers.credentials import add_credential
from providers.errors import CannotCarry
from providers.models import Provider
from tests.harness.gateway import RunningGateway
from tests.harness.speakers import PREFIXES, SPEAKERS, Speaker
from tests.harness.stub_upstream import Said, Stub, stub_upstream

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
WAV, PDF = "UklGRiQAAABXQVZF", "JVBERi0xLjQK"
FUNCTION = {"name": "look", "description": "Looks.", "parameters": {"type": "object", "properties": {}}}
TOOL = {"type": "function", "function": FUNCTION}
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "string"}},
    "required": ["a"],
    "additionalProperties": False,
}


def _user(part: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}, part]}]}


def _file(source: dict[str, Any]) -> dict[str, Any]:
    return _user({"type": "file", "file": source})


OPENAI: dict[str, dict[str, Any]] = {
    "temperature": {"temperature": 0.123},
    "top_p": {"top_p": 0.456},
    "seed": {"seed": 424242},
    "stop": {"stop": ["STOP"]},
    "n": {"n": 2},
    "presence_penalty": {"presence_penalty": 0.25},
    "frequency_penalty": {"frequency_penalty": 0.25},
    "logit_bias": {"logit_bias": {"1234": 5}},
    "logprobs": {"logprobs": True, "top_logprobs": 3},
    "user": {"user": "alice"},
    "metadata": {"metadata": {"m": "x"}},
    "store": {"store": True},
    "service_tier": {"service_tier": "flex"},
    "reasoning_effort": {"reasoning_effort": "low"},
    "verbosity": {"verbosity": "low"},
    "response_format": {
        "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA, "strict": True}}
    },
    "prediction": {"prediction": {"type": "content", "content": "x"}},
    "modalities": {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}},
    "web_search_options": {"web_search_options": {}},
    "prompt_cache_key": {"prompt_cache_key": "k"},
    "unknown_field": {"unknown_field": 1},
    "tools": {"tools": [TOOL]},
    "messages.name": {"messages": [{"role": "user", "content": "x", "name": "bob"}]},
}
ANTHROPIC: dict[str, dict[str, Any]] = {
    "temperature": {"temperature": 0.123},
    "top_p": {"top_p": 0.456},
    "top_k": {"top_k": 37},
    "stop_sequences": {"stop_sequences": ["STOP"]},
    "metadata.user_id": {"metadata": {"user_id": "alice"}},
    "system": {"system": "be brief"},
    "thinking": {"thinking": {"type": "enabled", "budget_tokens": 1024}},
    "service_tier": {"service_tier": "standard_only"},
    "unknown_field": {"unknown_field": 1},
    "tools": {"tools": [{"name": "look", "description": "Looks.", "input_schema": {"type": "object"}}]},
}
GEMINI: dict[str, dict[str, Any]] = {
    "temperature": {"generationConfig": {"temperature": 0.123}},
    "topK": {"generationConfig": {"topK": 37}},
    "seed": {"generationConfig": {"seed": 424242}},
    "stopSequences": {"generationConfig": {"stopSequences": ["STOP"]}},
    "candidateCount": {"generationConfig": {"candidateCount": 2}},
    "responseSchema": {"generationConfig": {"responseMimeType": "application/json", "responseSchema": SCHEMA}},
    "thinkingConfig": {"generationConfig": {"thinkingConfig": {"thinkingBudget": 1024}}},
    "safetySettings": {"safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}]},
    "systemInstruction": {"systemInstruction": {"parts": [{"text": "be brief"}]}},
    "cachedContent": {"cachedContent": "cachedContents/x"},
    "tools": {"tools": [{"functionDeclarations": [{"name": "look", "description": "Looks."}]}]},
}
BASES: dict[Dialect, tuple[Endpoint, dict[str, Any]]] = {
    Dialect.OPENAI: (Endpoint.CHAT, {"model": "m", "messages": [{"role": "user", "content": "x"}]}),
    Dialect.ANTHROPIC: (
        Endpoint.MESSAGES,
        {"model": "m", "max_tokens": 4096, "messages": [{"role": "user", "content": "x"}]},
    ),
    Dialect.GEMINI: (Endpoint.GENERATE, {"contents": [{"role": "user", "parts": [{"text": "x"}]}]}),
}
PARAMETERS = [
    *((Dialect.OPENAI, name, fields) for name, fields in OPENAI.items()),
    *((Dialect.ANTHROPIC, name, fields) for name, fields in ANTHROPIC.items()),
    *((Dialect.GEMINI, name, fields) for name, fields in GEMINI.items()),
]
CONTENT_PARTS: dict[str, tuple[dict[str, Any], str]] = {
    "image": (_user({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}), PNG),
    "image by address": (
        _user({"type": "image_url", "image_url": {"url": "https://pictures.example/i.png"}}),
        "https://pictures.example/i.png",
    ),
    "audio": (_user({"type": "input_audio", "input_audio": {"data": WAV, "format": "wav"}}), WAV),
    "document": (_file({"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{PDF}"}), PDF),
    "file by id": (_file({"file_id": "file-0123"}), "file-0123"),
}
SPOKEN = [(kind, dialect) for kind, row in KINDS.items() for dialect in row.adapters]
SECRETS = {
    "api_key": "k",
    "access_key_id": "AKIAX",
    "secret_access_key": "s",
    "access_token": "t",
    "project": "p",
}


def built(kind: str, wire: str, dialect: Dialect, fields: dict[str, Any]) -> UpstreamRequest:
    """Raises CannotCarry, or ApiError for what the dialect itself refuses."""
    endpoint, base = BASES[dialect]
    inbound = DIALECTS[dialect].parse(endpoint, json.dumps({**base, **fields}).encode(), model="m")
    options = {"project": "p", **({"dialect": wire} if len(KINDS[kind].adapters) > 1 else {})}
    upstream = Upstream(
        base_url="https://upstream.example/v1",
        model="m",
        secrets=SECRETS,
        options=options,
        region="us-east-1",
        max_output_tokens=4096,
    )
    return adapter_for(kind, options, "m").build_request(inbound.canonical(), upstream)


def told(kind: str, wire: str, dialect: Dialect, fields: dict[str, Any]) -> tuple[bytes, set[str]]:
    """What is sent, and which fields are named as left out or as the reason of a refusal."""
    try:
        sent = built(kind, wire, dialect, fields)
    except CannotCarry as refused:
        return b"", {refused.field}
    return sent.body, set(sent.dropped)


@pytest.mark.parametrize(("kind", "wire"), SPOKEN)
def test_no_parameter_is_lost_in_silence(kind: str, wire: str) -> None:
    lost = []
    for dialect, name, fields in PARAMETERS:
        plain, (body, named) = told(kind, wire, dialect, {}), told(kind, wire, dialect, fields)
        if body == plain[0] and not named:
            lost.append((str(dialect), name))
    assert not lost


@pytest.mark.parametrize("part", CONTENT_PARTS)
@pytest.mark.parametrize(("kind", "wire"), SPOKEN)
def test_no_content_is_lost_in_silence(kind: str, wire: str, part: str) -> None:
    fields, mark = CONTENT_PARTS[part]
    body, named = told(kind, wire, Dialect.OPENAI, fields)
    assert mark.encode() in body or named & CONTENT, (named, body)


@pytest.mark.parametrize(("kind", "wire"), SPOKEN)
def test_a_kept_prompt_is_not_lost_in_silence(kind: str, wire: str) -> None:
    body, named = told(kind, wire, Dialect.GEMINI, GEMINI["cachedContent"])
    assert b"cachedContents/x" in body or named & CONTENT, named


@pytest.mark.parametrize(("kind", "wire"), SPOKEN)
def test_a_wire_format_that_a_kind_does_not_offer_is_refused(kind: str, wire: str) -> None:
    with pytest.raises(ValueError, match=r"dialect must be one of "):
        adapter_for(kind, {"dialect": "klingon"}, "m")


# --- over sockets


@pytest.fixture(scope="module")
def routes(gateway: RunningGateway) -> None:
    claude, gpt = gateway.provider("sandbox-anthropic"), gateway.provider("sandbox")
    gateway.route("strict", (claude, "sandbox-echo"), strict=True)
    gateway.route("claude then gpt", (claude, "sandbox-echo"), (gpt, "sandbox-echo"))
    gateway.route("strict claude then gpt", (claude, "sandbox-echo"), (gpt, "sandbox-echo"), strict=True)


AUDIO = CONTENT_PARTS["audio"][0]["messages"]


def test_content_that_would_be_missing_is_refused(gateway: RunningGateway, routes: None) -> None:
    answer = gateway.chat(model="anthropic/sandbox-echo", messages=AUDIO)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "invalid_value", "messages.audio")
    assert "'sandbox-anthropic'" in error["message"]
    assert gateway.event(answer).attempt == 0


def test_a_parameter_that_is_left_out_is_named(gateway: RunningGateway, routes: None) -> None:
    answer = gateway.chat(model="anthropic/sandbox-echo", seed=7, logit_bias={"1": 1})
    assert answer.status_code == 200
    assert set(answer.headers["x-conduit-dropped-params"].split(",")) == {"seed", "logit_bias"}


def test_a_strict_route_refuses_it(gateway: RunningGateway, routes: None) -> None:
    answer = gateway.chat(model="strict", seed=7)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "invalid_value", "seed")
    assert "'sandbox-anthropic'" in error["message"]


@pytest.mark.parametrize(
    ("route", "fields"), [("claude then gpt", {"messages": AUDIO}), ("strict claude then gpt", {"seed": 7})]
)
def test_a_target_that_can_carry_it_serves(gateway: RunningGateway, routes: None, route: str, fields: Any) -> None:
    answer = gateway.chat(model=route, **fields)
    assert (answer.status_code, answer.headers["x-conduit-provider"]) == (200, "sandbox"), answer.text
    assert "x-conduit-dropped-params" not in answer.headers
    dry = gateway.chat(model=route, headers={"x-conduit-dry-run": "1"}, **fields).json()
    assert (dry["decision"], dry["provider"]) == ("allowed", "sandbox")


SEARCH = {"type": "search_result", "source": "s", "title": "t", "content": [{"type": "text", "text": "the facts"}]}


def test_a_block_that_only_the_clients_dialect_knows_is_refused_where_it_stands(
    gateway: RunningGateway, routes: None
) -> None:
    anthropic, gemini = SPEAKERS["anthropic"], SPEAKERS["gemini"]
    asked = (
        (anthropic, {"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "messages[0].content[0]"),
        (gemini, {"contents": [{"parts": [{"text": "x"}, {"weirdPart": {}}]}]}, "contents[0].parts[1]"),
        (gemini, {"cachedContent": "cachedContents/1"}, "cachedContent"),
    )
    for client, fields, field in asked:
        answer = client.ask(gateway.url, gateway.raw_key, **fields)
        message = client.told(answer.json()).message
        assert answer.status_code == 400, answer.text
        assert message.startswith(f"{field}: ")
        assert "provider" in message
        assert "'sandbox'" in message
        assert gateway.event(answer).attempt == 0


def test_a_setting_of_geminis_is_named_by_itself(gateway: RunningGateway, routes: None) -> None:
    config = {"maxOutputTokens": 50, "mediaResolution": "MEDIA_RESOLUTION_LOW", "enableEnhancedCivicAnswers": True}
    answer = SPEAKERS["gemini"].ask(gateway.url, gateway.raw_key, generationConfig=config)
    assert answer.status_code == 200, answer.text
    dropped = set(answer.headers["x-conduit-dropped-params"].split(","))
    assert dropped == {"generationConfig.mediaResolution", "generationConfig.enableEnhancedCivicAnswers"}


def test_found_passages_reach_every_provider(gateway: RunningGateway, routes: None) -> None:
    client, messages = SPEAKERS["anthropic"], [{"role": "user", "content": [SEARCH]}]
    answer = client.ask(gateway.url, gateway.raw_key, messages=messages)
    assert answer.status_code == 200, answer.text
    assert "the facts" in client.read(answer.json())[0]
    cited = [{"role": "user", "content": [{**SEARCH, "citations": {"enabled": True}}]}]
    answer = client.ask(gateway.url, gateway.raw_key, messages=cited)
    assert answer.headers["x-conduit-dropped-params"] == "messages.content.citations"


def test_a_dialect_names_the_field_it_does_not_know_how_to_read(gateway: RunningGateway) -> None:
    for content in ([{"type": "hologram"}], [{"type": "image_url"}], [7]):
        answer = gateway.chat(model="anthropic/sandbox-echo", messages=[{"role": "user", "content": content}])
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (400, "invalid_value"), answer.text
        assert error["param"].startswith("messages[0].content"), error


# --- the provider's own words


@pytest.fixture(scope="module")
def stub(gateway: RunningGateway) -> Iterator[Stub]:
    with stub_upstream() as running:
        kinds = {"openai": "openai", "anthropic": "anthropic", "gemini": "gemini"}
        for name, kind in kinds.items():
            row = Provider.objects.create(name=f"stub-{name}", kind=kind, base_url=running.url)
            add_credential(row, actor=SYSTEM, name="main", fields={"api_key": Secret("sk-secret-99")}, verify=False)
            gateway.route(f"stub-{name}", (row, "m"))
        yield running


@pytest.mark.parametrize("wire", list(PREFIXES))
def test_an_upstream_error_keeps_status_and_words_and_no_secret(
    gateway: RunningGateway, speaker: Speaker, stub: Stub, wire: str
) -> None:
    for status in (400, 404, 422):
        words = f"top_k is not for {status}; you sent sk-secret-99"
        stub.says = lambda asked, status=status, words=words: Said(status, {"error": {"message": words}})
        answer = speaker.ask(gateway.url, gateway.raw_key, model=f"stub-{wire}")
        assert answer.status_code == status
        message = speaker.told(answer.json()).message
        assert message.startswith(f"top_k is not for {status}; you sent ")
        assert "sk-secret-99" not in answer.text
        assert message.count("top_k") == 1, "mapped once"


@pytest.mark.parametrize("wire", list(PREFIXES))
def test_a_missing_permission_is_told_in_the_providers_words_and_ours(
    gateway: RunningGateway, stub: Stub, wire: str
) -> None:
    words = "Missing scopes: model.request. The key sk-secret-99 may not do this."
    stub.says = lambda asked: Said(403, {"error": {"message": words}})
    answer = gateway.chat(model=f"stub-{wire}")
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (502, "upstream_auth_failed")
    assert "Missing scopes: model.request." in error["message"]
    assert "sk-secret-99" not in answer.text
    credential = Provider.objects.get(name=f"stub-{wire}").credentials.get()
    outcome = credentials.tested(credential, actor=SYSTEM)
    assert not outcome.ok
    assert "Missing scopes: model.request." in outcome.detail
    assert "sk-secret-99" not in outcome.detail
    assert outcome.guidance == KINDS[wire].guidance["upstream_auth_failed"]
