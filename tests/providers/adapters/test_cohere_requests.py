"""Canonical requests as Cohere takes them, judged by the `cohere` package (tests/conformance/wires/cohere.py)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from providers.adapters.base import Head, Upstream, UpstreamRequest
from providers.adapters.cohere import CohereAdapter
from providers.adapters.types import (
    Audio,
    ChatRequest,
    Dialect,
    Document,
    EmbeddingRequest,
    Endpoint,
    Image,
    Media,
    Message,
    Reasoning,
    ReasoningSettings,
    ResponseFormat,
    ServerTool,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from providers.errors import CannotCarry
from tests.conformance.wires import cohere

ADAPTER = CohereAdapter()
TARGET = Upstream(base_url="https://api.cohere.com", model="command-a-03-2025", secrets={"api_key": "k"})
HELLO = (Message("user", (Text("Hello"),)),)


def sent(upstream: Upstream = TARGET, **given: Any) -> tuple[dict[str, Any], UpstreamRequest]:
    request = ADAPTER.build_request(ChatRequest(**{"model": "r", "messages": HELLO, **given}), upstream)
    cohere.facts(request)
    return json.loads(request.body), request


def test_a_plain_chat_goes_to_its_address_with_its_key() -> None:
    body, request = sent(max_output_tokens=90)
    assert (request.method, request.url) == ("POST", "https://api.cohere.com/v2/chat")
    assert request.headers["authorization"] == "Bearer k"
    assert body == {
        "model": "command-a-03-2025",
        "messages": [{"role": "user", "content": "Hello"}],
        "stream": False,
        "max_tokens": 90,
    }
    assert request.dropped == ()


def test_settings_have_cohere_s_names_and_bounds() -> None:
    body, request = sent(
        temperature=0.5,
        top_p=1.0,
        top_k=900,
        seed=0,
        stop=("a", "b"),
        presence_penalty=0.5,
        frequency_penalty=-0.5,
        logprobs=True,
        stream=True,
    )
    assert (body["temperature"], body["p"], body["k"], body["seed"]) == (0.5, 0.99, 500, 0)
    assert (body["stop_sequences"], body["presence_penalty"], body["logprobs"]) == (["a", "b"], 0.5, True)
    assert body["stream"] is True
    assert request.dropped == ("frequency_penalty",)


def test_what_cohere_has_no_place_for_is_named() -> None:
    _, request = sent(
        n=2,
        logit_bias={"1": 1.0},
        user="u",
        metadata={"a": "b"},
        store=True,
        verbosity="low",
        service_tier="auto",
        parallel_tools=False,
        logprobs=True,
        top_logprobs=2,
        modalities=("text", "audio"),
        tools=(ServerTool(Dialect.ANTHROPIC, {"type": "web_search_20250305"}),),
        extra={"prediction": {}, "max_tokens": 3},
        extra_dialect=Dialect.OPENAI,
        messages=(Message("user", (Text("Hi"),), name="alice"),),
    )
    assert set(request.dropped) == {
        *("n", "logit_bias", "user", "metadata", "store", "verbosity", "service_tier", "parallel_tool_calls"),
        *("logprobs", "top_logprobs", "modalities", "tools", "prediction", "messages.name"),
    }


def test_six_stop_sequences_are_refused_rather_than_five_kept() -> None:
    with pytest.raises(CannotCarry, match="stop"):
        sent(stop=("a", "b", "c", "d", "e", "f"))


WEATHER = Tool("weather", "Tells it", {"type": "object", "properties": {"city": {"type": "string"}}})
TIDES = Tool("tides")


@pytest.mark.parametrize(
    ("choice", "offered", "word"),
    [
        (None, ["weather", "tides"], None),
        (ToolChoice("auto"), ["weather", "tides"], None),
        (ToolChoice("none"), ["weather", "tides"], "NONE"),
        (ToolChoice("required"), ["weather", "tides"], "REQUIRED"),
        (ToolChoice("tool", name="tides"), ["tides"], "REQUIRED"),
        (ToolChoice("auto", allowed=("tides",)), ["tides"], None),
        (ToolChoice("required", allowed=("weather",)), ["weather"], "REQUIRED"),
    ],
)
def test_a_choice_of_tools_is_made_by_what_is_offered(
    choice: ToolChoice | None, offered: list[str], word: str | None
) -> None:
    body, request = sent(tools=(WEATHER, TIDES), tool_choice=choice)
    assert [tool["function"]["name"] for tool in body["tools"]] == offered
    assert body.get("tool_choice") == word
    assert request.dropped == ()


@pytest.mark.parametrize(
    ("strict", "told", "dropped"),
    [((True, True), True, ()), ((True, None), None, ("tools.strict",)), ((None, False), None, ())],
)
def test_strictness_is_of_all_tools_or_of_none(
    strict: tuple[bool | None, bool | None], told: bool | None, dropped: tuple[str, ...]
) -> None:
    body, request = sent(tools=(Tool("a", strict=strict[0]), Tool("b", strict=strict[1])))
    assert body.get("strict_tools") == told
    assert request.dropped == dropped


def test_a_conversation_with_tools_keeps_its_plan_and_results() -> None:
    body, request = sent(
        messages=(
            Message("system", (Text("Be kind."), Text("Be short."))),
            Message("user", (Text("Paris?"), Image(Media(url="https://example.org/a.png"), detail="low"))),
            Message("assistant", (Reasoning("I will ask."), ToolCall("c1", "weather", '{"city":"Paris"}'))),
            Message(
                "user",
                (
                    ToolResult("c1", (Text("sunny"), Document(Media(), title="T", text="21 degrees"))),
                    Text("And now?"),
                ),
            ),
            Message("assistant", (Reasoning("Easy."), Text("Sunny."))),
        )
    )
    image = {"url": "https://example.org/a.png", "detail": "low"}
    assert body["messages"] == [
        {"role": "system", "content": "Be kind.\n\nBe short."},
        {"role": "user", "content": [{"type": "text", "text": "Paris?"}, {"type": "image_url", "image_url": image}]},
        {
            "role": "assistant",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Paris"}'}}
            ],
            "tool_plan": "I will ask.",
        },
        {
            "role": "tool",
            "tool_call_id": "c1",
            "content": [
                {"type": "text", "text": "sunny"},
                {"type": "document", "document": {"data": {"title": "T", "text": "21 degrees"}}},
            ],
        },
        {"role": "user", "content": "And now?"},
        {
            "role": "assistant",
            "content": [{"type": "thinking", "thinking": "Easy."}, {"type": "text", "text": "Sunny."}],
        },
    ]
    assert request.dropped == ()


def test_what_of_a_turn_cannot_go_back_is_named() -> None:
    signed = Message("assistant", (Reasoning("x", signature="s"), ToolCall("c", "f", signature="g")))
    failed = Message("tool", (ToolResult("c", (Image(Media(url="https://example.org/i.png")),), error=True),))
    body, request = sent(messages=(signed, failed))
    assert set(request.dropped) == {
        *("messages.reasoning.signature", "messages.tool_call.signature"),
        *("messages.tool_result.error", "messages.tool_result.image"),
    }
    assert body["messages"][1]["content"] == "[image left out]"


def test_documents_that_shall_be_cited_stand_beside_the_messages() -> None:
    cited = Document(Media(), title="Notes", text="It is sunny.", citations=True)
    body, _ = sent(
        messages=(Message("user", (cited, Text("How is it?"))),),
        extra={"documents": ["mine"], "safety_mode": "STRICT"},
        extra_dialect=Dialect.OPENAI,
    )
    assert body["documents"] == [{"id": "doc_0", "data": {"title": "Notes", "text": "It is sunny."}}, "mine"]
    assert body["safety_mode"] == "STRICT"
    assert body["messages"] == [{"role": "user", "content": "How is it?"}]
    body, _ = sent(messages=(Message("user", (Document(Media(), title="Notes", text="Plain."), Text("Q"))),))
    assert body["messages"][0]["content"] == "Notes\n\nPlain.\n\nQ"


@pytest.mark.parametrize(
    ("part", "field"),
    [
        (Audio(Media(data="AAAA"), format="wav"), "messages.audio"),
        (Document(Media(data="AAAA", mime="application/pdf")), "messages.document"),
        (Image(Media(file_id="file-1")), "messages.image.file_id"),
    ],
)
def test_media_without_a_place_are_refused_by_name(part: Any, field: str) -> None:
    with pytest.raises(CannotCarry) as caught:
        sent(messages=(Message("user", (Text("Look"), part)),))
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("wanted", "cap", "thinking"),
    [
        (ReasoningSettings(off=True), None, {"type": "disabled"}),
        (ReasoningSettings(effort="none"), None, {"type": "disabled"}),
        (ReasoningSettings(effort="low"), None, {"type": "enabled", "token_budget": 2048}),
        (ReasoningSettings(budget_tokens=3000), None, {"type": "enabled", "token_budget": 3000}),
        (ReasoningSettings(budget_tokens=3000), 500, {"type": "enabled", "token_budget": 499}),
        (ReasoningSettings(adaptive=True), None, {"type": "enabled"}),
    ],
)
def test_thinking_stays_below_the_cap(wanted: ReasoningSettings, cap: int | None, thinking: dict[str, Any]) -> None:
    body, _ = sent(reasoning=wanted, max_output_tokens=cap)
    assert body["thinking"] == thinking


def test_a_format_is_json_with_or_without_a_schema() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    told = {"type": "json_object", "json_schema": schema}
    assert sent(response_format=ResponseFormat("json_schema", schema=schema))[0]["response_format"] == told
    assert sent(response_format=ResponseFormat("json"))[0]["response_format"] == {"type": "json_object"}
    assert "response_format" not in sent(response_format=ResponseFormat("text"))[0]


@pytest.mark.parametrize(
    ("given", "more", "dropped"),
    [
        ({}, {"input_type": "search_document", "embedding_types": ["float"]}, ()),
        ({"task": "RETRIEVAL_QUERY", "encoding": "base64"}, {"input_type": "search_query"}, ()),
        ({"task": "CLUSTERING", "dimensions": 256}, {"input_type": "clustering", "output_dimension": 256}, ()),
        ({"task": "SEMANTIC_SIMILARITY", "user": "u"}, {"input_type": "search_document"}, ("task", "user")),
    ],
)
def test_embeddings_say_what_they_are_for(
    given: dict[str, Any], more: dict[str, Any], dropped: tuple[str, ...]
) -> None:
    request = ADAPTER.build_request(EmbeddingRequest(model="r", inputs=("one", "two"), **given), TARGET)
    body = json.loads(request.body)
    assert request.url == "https://api.cohere.com/v2/embed"
    assert (body["texts"], body["embedding_types"]) == (["one", "two"], [given.get("encoding", "float")])
    assert {name: body[name] for name in more} == more
    assert request.dropped == dropped


def test_lists_of_tokens_are_refused() -> None:
    with pytest.raises(CannotCarry, match="input"):
        ADAPTER.build_request(EmbeddingRequest(model="r", inputs=((1, 2),)), TARGET)


def test_a_credential_is_verified_by_the_list_of_models() -> None:
    request = ADAPTER.verification(TARGET)
    assert (request.method, request.url.partition("?")[0]) == ("GET", "https://api.cohere.com/v1/models")
    assert request.headers["authorization"] == "Bearer k"
    assert ADAPTER.parse_models(b'{"models":[{"name":"command-a-03-2025","endpoints":["chat"]}]}') == [
        "command-a-03-2025"
    ]


def test_nothing_is_passed_through() -> None:
    assert ADAPTER.native == frozenset()
    with pytest.raises(CannotCarry):
        ADAPTER.pass_through(b"{}", Head(endpoint=Endpoint.CHAT, model="m"), TARGET)
