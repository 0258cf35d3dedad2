"""What is asked of OpenAI's Responses API, translated and relayed."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from providers.adapters.base import Head, Upstream
from providers.adapters.openai import OpenAIAdapter
from providers.adapters.openai_responses import OpenAIResponsesAdapter
from providers.adapters.registry import adapter_for
from providers.adapters.types import (
    Audio,
    CacheMark,
    ChatRequest,
    Dialect,
    Document,
    EmbeddingRequest,
    Endpoint,
    Image,
    Media,
    Message,
    Opaque,
    Reasoning,
    ReasoningSettings,
    Refusal,
    ResponseFormat,
    ServerTool,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from providers.errors import CannotCarry

ADAPTER = OpenAIResponsesAdapter()
UPSTREAM = Upstream(base_url="https://api.openai.com/v1", model="o3-pro", secrets={"api_key": "sk-test"})
CITY = {"type": "object", "properties": {"city": {"type": "string"}}}


def request(*messages: Message, **fields: Any) -> ChatRequest:
    given = messages or (Message("user", (Text("hi"),)),)
    return ChatRequest(model="route", messages=given, **fields)


def sent(asked: ChatRequest, **upstream: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    built = ADAPTER.build_request(asked, msgspec.structs.replace(UPSTREAM, **upstream))
    assert (built.method, built.url) == ("POST", "https://api.openai.com/v1/responses")
    assert built.headers["authorization"] == "Bearer sk-test"
    body: dict[str, Any] = json.loads(built.body)
    assert body.pop("store") is False, "nothing may stay in an account that several callers share"
    return body, built.dropped


# --- which wire format a model is served by


@pytest.mark.parametrize(
    ("model", "wire"),
    [
        ("gpt-4o", Dialect.OPENAI),
        ("o3", Dialect.OPENAI),
        ("gpt-5", Dialect.OPENAI),
        ("text-embedding-3-small", Dialect.OPENAI),
        ("o1-pro", Dialect.RESPONSES),
        ("o3-pro-2025-06-10", Dialect.RESPONSES),
        ("gpt-5-pro", Dialect.RESPONSES),
        ("gpt-5-codex", Dialect.RESPONSES),
        ("codex-mini-latest", Dialect.RESPONSES),
        ("o4-mini-deep-research", Dialect.RESPONSES),
    ],
)
def test_models_that_only_one_api_serves_are_asked_there(model: str, wire: Dialect) -> None:
    assert adapter_for("openai", {}, model).wire is wire
    assert adapter_for("openai", {"dialect": "responses"}, model).wire is Dialect.RESPONSES
    assert adapter_for("openai", {"dialect": "openai"}, model).wire is Dialect.OPENAI


# --- requests


def test_a_conversation_becomes_items() -> None:
    body, dropped = sent(
        request(
            Message("system", (Text("be brief"),)),
            Message(
                "user",
                (
                    Text("see", cache=CacheMark()),
                    Image(Media(mime="image/png", data="QQ=="), detail="low"),
                    Document(Media(mime="application/pdf", data="QQ=="), title="a.pdf"),
                ),
            ),
            Message(
                "assistant",
                (
                    Reasoning(text="hm", signature="sealed"),
                    Reasoning(redacted="blob"),
                    Text("let me look"),
                    Refusal("no"),
                    ToolCall("c1", "weather", '{"city":"Oslo"}'),
                    Opaque(Dialect.RESPONSES, {"type": "web_search_call", "id": "ws_1"}),
                ),
            ),
            Message("tool", (ToolResult("c1", (Text("rain"), Image(Media(url="https://e.org/a.png")))),)),
            Message("user", (Text("and now?"),)),
        )
    )
    assert body == {
        "model": "o3-pro",
        "include": ["reasoning.encrypted_content"],
        "input": [
            {"role": "system", "content": "be brief"},
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "see"},
                    {"type": "input_image", "detail": "low", "image_url": "data:image/png;base64,QQ=="},
                    {"type": "input_file", "file_data": "data:application/pdf;base64,QQ==", "filename": "a.pdf"},
                ],
            },
            {
                "type": "reasoning",
                "summary": [{"type": "summary_text", "text": "hm"}],
                "encrypted_content": "sealed",
            },
            {"type": "reasoning", "summary": [], "encrypted_content": "blob"},
            {"role": "assistant", "content": "let me look"},
            {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
            {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city":"Oslo"}'},
            {"type": "web_search_call", "id": "ws_1"},
            {
                "type": "function_call_output",
                "call_id": "c1",
                "output": [
                    {"type": "input_text", "text": "rain"},
                    {"type": "input_image", "detail": "auto", "image_url": "https://e.org/a.png"},
                ],
            },
            {"role": "user", "content": "and now?"},
        ],
    }
    assert dropped == ()


def test_settings_have_their_own_names() -> None:
    body, dropped = sent(
        request(
            tools=(
                Tool("weather", "Says it", CITY),
                ServerTool(Dialect.OPENAI, {"type": "custom", "custom": {"name": "script", "description": "Runs"}}),
            ),
            tool_choice=ToolChoice("auto", allowed=("weather",)),
            parallel_tools=False,
            response_format=ResponseFormat("json_schema", "out", CITY, strict=True),
            verbosity="low",
            reasoning=ReasoningSettings(effort="high", show=True),
            temperature=0.5,
            top_p=0.9,
            logprobs=True,
            top_logprobs=2,
            user="alice",
            metadata={"a": "b"},
            service_tier="flex",
            stream=True,
            max_output_tokens=99,
            extra={"prompt_cache_key": "k"},
            extra_dialect=Dialect.OPENAI,
        ),
        max_output_tokens=50,
    )
    assert dropped == ()
    del body["input"]
    assert body == {
        "model": "o3-pro",
        "include": ["reasoning.encrypted_content", "message.output_text.logprobs"],
        "tools": [
            {"type": "function", "name": "weather", "description": "Says it", "parameters": CITY, "strict": False},
            {"type": "custom", "name": "script", "description": "Runs"},
        ],
        "tool_choice": {
            "type": "allowed_tools",
            "mode": "auto",
            "tools": [{"type": "function", "name": "weather"}],
        },
        "parallel_tool_calls": False,
        "text": {"format": {"type": "json_schema", "name": "out", "schema": CITY, "strict": True}, "verbosity": "low"},
        "reasoning": {"effort": "high", "summary": "auto"},
        "temperature": 0.5,
        "top_p": 0.9,
        "top_logprobs": 2,
        "user": "alice",
        "metadata": {"a": "b"},
        "service_tier": "flex",
        "stream": True,
        "max_output_tokens": 50,
        "prompt_cache_key": "k",
    }


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-5-chat-latest"])
def test_thoughts_are_asked_for_only_where_the_model_thinks(model: str) -> None:
    body, _ = sent(request(), model=model)
    assert "include" not in body


def test_what_cannot_be_carried_is_named() -> None:
    _, dropped = sent(
        request(
            Message("user", (Text("a"), Audio(Media(mime="audio/wav", data="QQ=="), format="wav")), name="bob"),
            Message("assistant", (Reasoning(text="unsealed"), ToolCall("c", "f", "{}", signature="g"))),
            tools=(ServerTool(Dialect.ANTHROPIC, {"type": "web_search_20250305"}),),
            stop=("END",),
            seed=1,
            top_k=5,
            presence_penalty=0.1,
            frequency_penalty=0.1,
            logit_bias={"1": 1.0},
            modalities=("text", "audio"),
            store=True,
            extra={"prediction": {}},
            extra_dialect=Dialect.OPENAI,
        )
    )
    assert set(dropped) == {
        "messages.name",
        "messages.audio",
        "messages.reasoning",
        "messages.tool_call.signature",
        "tools.web_search_20250305",
        "stop",
        "seed",
        "top_k",
        "presence_penalty",
        "frequency_penalty",
        "logit_bias",
        "modalities",
        "store",
        "prediction",
    }


def test_several_choices_cannot_be_had() -> None:
    with pytest.raises(CannotCarry) as caught:
        sent(request(n=2))
    assert caught.value.field == "n"


def test_a_free_text_tool_is_called_and_answered_in_free_text() -> None:
    body, _ = sent(
        request(
            Message("assistant", (ToolCall("c1", "script", '{"input":"say \\"hi\\""}'),)),
            Message("tool", (ToolResult("c1", (Text("done"),)),)),
            tools=(ServerTool(Dialect.OPENAI, {"type": "custom", "custom": {"name": "script"}}),),
        )
    )
    assert body["input"] == [
        {"type": "custom_tool_call", "call_id": "c1", "name": "script", "input": 'say "hi"'},
        {"type": "custom_tool_call_output", "call_id": "c1", "output": "done"},
    ]


def test_embeddings_are_asked_where_they_always_are() -> None:
    built = ADAPTER.build_request(EmbeddingRequest(model="m", inputs=("a",)), UPSTREAM)
    assert built.url.endswith("/v1/embeddings")


# --- requests that are relayed


def test_a_relayed_request_keeps_all_but_its_model_and_cap() -> None:
    body = b'{"model":"route","input": [ {"role":"user","content":"h\\u00e9"} ],"stream":true,"new": 1.50}'
    head = Head(endpoint=Endpoint.RESPONSES, model="route", stream=True)
    for adapter in (OpenAIAdapter(), ADAPTER):
        built = adapter.pass_through(body, head, UPSTREAM)
        assert built.url == "https://api.openai.com/v1/responses"
        assert built.body == body.replace(b'"route"', b'"o3-pro"').replace(b'input": ', b'input":').replace(
            b'new": ', b'new":'
        )
        capped = adapter.pass_through(body, head, msgspec.structs.replace(UPSTREAM, max_output_tokens=9))
        assert json.loads(capped.body) == {**json.loads(built.body), "max_output_tokens": 9}
