"""Models that one hosts oneself: servers of OpenAI's style take their own fields, no key, and no address by default."""

from __future__ import annotations

import json
from typing import Any

import pytest
from llama_api_client.types.chat import completion_create_params as llama
from pydantic import TypeAdapter
from pytest_django.fixtures import Settings

from conduit.core.actor import Actor
from conduit.core.errors import InvalidInput
from providers import secret_fields
from providers.adapters.base import Head, Upstream
from providers.adapters.registry import KINDS, adapter_for
from providers.adapters.rows.own_hosting import ROWS
from providers.adapters.types import (
    ChatRequest,
    ChatResponse,
    Dialect,
    Endpoint,
    Message,
    Reasoning,
    Text,
    Tool,
    ToolChoice,
    Usage,
)
from providers.models import Provider
from providers.providers import add_provider, parse_options
from providers.verification import VerificationFailed, check

ALICE = Actor("user", "1", "alice@example.org", "admin", None)
SERVERS = [row.kind for row in ROWS if row.kind != "llama"]
OPENAI_STYLE = [kind for kind in SERVERS if kind != "ollama"]
HELLO = (Message(role="user", parts=(Text(text="Hello"),)),)
# What servers take beyond OpenAI's own fields; a client sends them as extra members of the body.
EXTRA: dict[str, Any] = {
    "guided_json": {"type": "object"},
    "min_p": 0.05,
    "repetition_penalty": 1.1,
    "chat_template_kwargs": {"enable_thinking": False},
    "cache_prompt": True,
}


def upstream(kind: str, **secrets: str) -> Upstream:
    base = KINDS[kind].base_url or "http://127.0.0.1:8080/v1"
    return Upstream(base_url=base, model="m", secrets=secrets, options={})


@pytest.mark.parametrize("kind", SERVERS)
def test_a_server_takes_a_key_only_where_there_is_one(kind: str) -> None:
    row, adapter = KINDS[kind], adapter_for(kind, {})
    assert secret_fields.parse_fields(row, fields={}) == {}
    assert "authorization" not in adapter.verification(upstream(kind)).headers
    assert adapter.verification(upstream(kind, api_key="k-1")).headers["authorization"] == "Bearer k-1"
    assert row.price_provider == ""  # nobody's list has a price: under a hard budget an operator gives one


@pytest.mark.parametrize("kind", OPENAI_STYLE)
def test_fields_of_their_own_go_through_translated_and_passed_on(kind: str) -> None:
    adapter = adapter_for(kind, {})
    request = ChatRequest(model="r", messages=HELLO, top_k=20, extra=EXTRA, extra_dialect=Dialect.OPENAI)
    built = adapter.build_request(request, upstream(kind))
    body = json.loads(built.body)
    assert body.items() >= {**EXTRA, "top_k": 20}.items()
    assert built.dropped == ()
    sent = {"model": "r", "messages": [], "top_k": 20, **EXTRA}
    head = Head(endpoint=Endpoint.CHAT, model="r")
    passed = json.loads(adapter.pass_through(json.dumps(sent).encode(), head, upstream(kind)).body)
    assert passed == {**sent, "model": "m"}


@pytest.mark.parametrize("kind", OPENAI_STYLE)
@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_thoughts_are_read_by_either_name(kind: str, name: str) -> None:
    message = {"role": "assistant", "content": "Done.", name: "First this."}
    answer = {
        "id": "c1",
        "model": "m",
        "created": 1,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    }
    read = adapter_for(kind, {}).parse_response(ChatRequest(model="r", messages=HELLO), json.dumps(answer).encode())
    assert isinstance(read, ChatResponse)
    assert read.choices[0].parts == (Reasoning(text="First this."), Text(text="Done."))
    assert read.usage == Usage(input_tokens=3, output_tokens=2)


def test_metas_own_service_is_asked_as_its_sdk_would() -> None:
    request = ChatRequest(
        model="r",
        messages=HELLO,
        tools=(Tool(name="weather", parameters={"type": "object", "properties": {}}),),
        tool_choice=ToolChoice("tool", name="weather"),
        temperature=0.5,
        top_p=0.9,
        top_k=20,
        user="bob",
    )
    target = Upstream(base_url=KINDS["llama"].base_url, model="Llama-4-Maverick-17B", secrets={"api_key": "LLM|1|a"})
    made = adapter_for("llama", {}).build_request(request, target)
    body = json.loads(made.body)
    TypeAdapter(llama.CompletionCreateParamsNonStreaming).validate_python(body)
    assert body.keys() <= llama.CompletionCreateParamsNonStreaming.__annotations__.keys() | body.keys() & {"stream"}
    assert made.url == "https://api.llama.com/compat/v1/chat/completions"
    assert made.headers["authorization"] == "Bearer LLM|1|a"


@pytest.mark.django_db
@pytest.mark.parametrize("kind", SERVERS)
def test_a_private_address_is_closed_until_an_operator_opens_it(kind: str, settings: Settings) -> None:
    settings.CONDUIT_EGRESS_ALLOW = []
    with pytest.raises(InvalidInput, match="CONDUIT_EGRESS_ALLOW") as refused:
        add_provider(actor=ALICE, name="H", kind=kind, base_url="http://10.0.0.9:8000/v1")
    assert refused.value.field == "base_url"
    if KINDS[kind].base_url:
        with pytest.raises(VerificationFailed, match="CONDUIT_EGRESS_ALLOW"):
            check(Provider(name="H", kind=kind), {})
    settings.CONDUIT_EGRESS_ALLOW = ["10.0.0.0/8"]
    assert add_provider(actor=ALICE, name="H", kind=kind, base_url="http://10.0.0.9:8000/v1").pk


def test_a_llama_cpp_server_has_no_address_to_guess() -> None:
    """Its usual port is Conduit's own."""
    assert KINDS["llamacpp"].base_url == ""


@pytest.mark.parametrize(("given", "problem"), [("8192", ""), ("8k", "whole number"), ("-1", "whole number")])
def test_the_context_of_ollamas_models_is_a_number(given: str, problem: str) -> None:
    row = KINDS["ollama"]
    if not problem:
        assert parse_options(row, {"num_ctx": given, "keep_alive": "24h"}) == {"num_ctx": given, "keep_alive": "24h"}
        return
    with pytest.raises(InvalidInput, match=problem) as refused:
        parse_options(row, {"num_ctx": given})
    assert refused.value.field == "options.num_ctx"
