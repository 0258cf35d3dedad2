"""Canonical requests as Anthropic's bodies; each must please the SDK's own parameter types."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming
from pydantic import TypeAdapter

from providers.adapters.anthropic import AnthropicAdapter
from providers.adapters.base import Head, Upstream
from providers.adapters.types import (
    Audio,
    AudioOutput,
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
    ResponseFormat,
    ServerTool,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from providers.errors import CannotCarry

ADAPTER = AnthropicAdapter()
PARAMS = TypeAdapter(MessageCreateParamsNonStreaming)
HELLO = (Message("user", (Text("Hello"),)),)
PNG = "iVBORw0KGgo="
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def upstream(cap: int | None = None, **options: Any) -> Upstream:
    return Upstream(
        base_url="https://api.example.org",
        model="claude-opus",
        secrets={"api_key": "sk-ant-x"},
        options=options,
        max_output_tokens=cap,
    )


def body_of(request: ChatRequest, cap: int | None = None, **options: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    sent = ADAPTER.build_request(request, upstream(cap, **options))
    body = json.loads(sent.body)
    PARAMS.validate_python({name: value for name, value in body.items() if name != "stream"})
    return body, sent.dropped


def asked(**fields: Any) -> ChatRequest:
    return ChatRequest(**{"model": "route", "messages": HELLO, **fields})


def test_the_call_has_address_key_and_version():
    sent = ADAPTER.build_request(asked(), upstream(anthropic_beta="files-api-2025-04-14"))
    assert (sent.method, sent.url) == ("POST", "https://api.example.org/v1/messages")
    assert sent.headers == {
        "x-api-key": "sk-ant-x",
        "anthropic-version": "2023-06-01",
        "content-type": "application/json",
        "anthropic-beta": "files-api-2025-04-14",
    }
    check = ADAPTER.verification(upstream())
    assert (check.method, check.url) == ("GET", "https://api.example.org/v1/models?limit=1000")
    assert ADAPTER.parse_models(b'{"data":[{"id":"claude-a","type":"model"},{"id":"claude-b"}]}') == [
        "claude-a",
        "claude-b",
    ]


@pytest.mark.parametrize(("cap", "own", "sent"), [(50, 99, 50), (None, 99, 99), (None, None, 4096), (0, 9, 0)])
def test_there_is_always_exactly_one_cap(cap, own, sent):
    assert body_of(asked(max_output_tokens=own), cap)[0]["max_tokens"] == sent


def test_system_messages_are_merged_and_turns_alternate():
    messages = (
        Message("system", (Text("Be kind.", cache=CacheMark()),)),
        Message("user", (Text("One"),)),
        Message("user", (Text(""), Text("Two"))),
        Message("system", (Text("Be brief."),)),
        Message("assistant", (ToolCall("call/1", "weather", '{"city": "Paris", "big": 12345678901234567890123}'),)),
        Message("tool", (ToolResult("call/1", (Text("Sunny"), Image(Media(data=PNG))), error=True),)),
        Message("user", (Text("And?", cache=CacheMark(ttl="1h")),)),
    )
    sent = ADAPTER.build_request(asked(messages=messages), upstream())
    assert b"12345678901234567890123" in sent.body  # arguments go as the model wrote them
    body, dropped = body_of(asked(messages=messages))
    assert dropped == ()
    assert body["system"] == [
        {"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": "Be brief."},
    ]
    assert [turn["role"] for turn in body["messages"]] == ["user", "assistant", "user"]
    assert [block["text"] for block in body["messages"][0]["content"]] == ["One", "Two"]
    assert body["messages"][1]["content"][0]["id"] == "call_1"
    result, question = body["messages"][2]["content"]
    assert result == {
        "type": "tool_result",
        "tool_use_id": "call_1",
        "content": [
            {"type": "text", "text": "Sunny"},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
        ],
        "is_error": True,
    }
    assert question == {"type": "text", "text": "And?", "cache_control": {"type": "ephemeral", "ttl": "1h"}}


def test_media_documents_and_thoughts_have_their_blocks():
    raw = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
    parts = (
        Image(Media(url="https://example.org/a.png")),
        Image(Media(file_id="file_1")),
        Document(Media(mime="application/pdf", data="JVBERi0="), title="T", context="C", citations=True),
        Document(Media(url="https://example.org/a.pdf")),
        Document(Media(mime="text/plain"), text="plain"),
        Document(Media(mime="text/csv", data=base64.b64encode(b"a,b").decode())),
        Reasoning(text="hm", signature="sig"),
        Reasoning(redacted="blob"),
        Opaque(Dialect.ANTHROPIC, raw),
    )
    body, dropped = body_of(asked(messages=(Message("user", parts),)))
    assert dropped == ()
    blocks = body["messages"][0]["content"]
    assert [block.get("source", {}).get("type") for block in blocks[:6]] == [
        "url",
        "file",
        "base64",
        "url",
        "text",
        "text",
    ]
    assert blocks[2]["title"] == "T"
    assert blocks[2]["citations"] == {"enabled": True}
    assert blocks[5]["source"]["data"] == "a,b"
    assert blocks[6:] == [
        {"type": "thinking", "thinking": "hm", "signature": "sig"},
        {"type": "redacted_thinking", "data": "blob"},
        raw,
    ]


def test_what_cannot_be_carried_is_named():
    parts = (
        Text("x"),
        Audio(Media(data="AAA="), format="wav"),
        Reasoning(text="unsigned"),
        Opaque(Dialect.GEMINI, {"executableCode": {}}),
        Document(Media(mime="application/msword", data="AAA=")),
        Image(Media(data=PNG), detail="low"),
    )
    request = asked(
        messages=(Message("user", parts, name="bob"),),
        tools=(ServerTool(Dialect.GEMINI, {"googleSearch": {}}),),
        n=2,
        seed=1,
        presence_penalty=0.1,
        frequency_penalty=0.1,
        logit_bias={"1": 1.0},
        logprobs=True,
        top_logprobs=2,
        modalities=("text", "audio"),
        audio=AudioOutput(voice="v"),
        metadata={"a": "b"},
        store=True,
        verbosity="low",
        service_tier="flex",
        response_format=ResponseFormat(kind="json"),
        temperature=1.5,
        extra={"safetySettings": []},
        extra_dialect=Dialect.GEMINI,
    )
    _, dropped = body_of(request)
    assert set(dropped) == {
        "messages.audio",
        "messages.reasoning",
        "messages.content",
        "messages.document",
        "messages.image.detail",
        "messages.name",
        "tools",
        "n",
        "seed",
        "presence_penalty",
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "top_logprobs",
        "modalities",
        "audio",
        "metadata",
        "store",
        "verbosity",
        "service_tier",
        "response_format",
        "temperature",
        "safetySettings",
    }
    with pytest.raises(CannotCarry):
        ADAPTER.build_request(EmbeddingRequest(model="m", inputs=("a",)), upstream())


TOOLS = (
    Tool("weather", "Tells it", SCHEMA, strict=True, cache=CacheMark()),
    Tool("now"),
    ServerTool(Dialect.ANTHROPIC, {"type": "web_search_20250305", "name": "web_search"}),
)


def test_tools_keep_schema_strictness_and_cache_mark():
    body, _ = body_of(asked(tools=TOOLS))
    assert body["tools"][0] == {
        "name": "weather",
        "description": "Tells it",
        "input_schema": SCHEMA,
        "strict": True,
        "cache_control": {"type": "ephemeral"},
    }
    assert body["tools"][1]["input_schema"] == {"type": "object", "properties": {}}
    assert body["tools"][2] == {"type": "web_search_20250305", "name": "web_search"}
    assert "tool_choice" not in body


@pytest.mark.parametrize(
    ("choice", "parallel", "wire"),
    [
        (ToolChoice("auto"), None, {"type": "auto"}),
        (ToolChoice("required"), False, {"type": "any", "disable_parallel_tool_use": True}),
        (ToolChoice("tool", name="now"), None, {"type": "tool", "name": "now"}),
        (ToolChoice("none"), False, {"type": "none"}),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
    ],
)
def test_tool_choices(choice, parallel, wire):
    body, _ = body_of(asked(tools=TOOLS, tool_choice=choice, parallel_tools=parallel))
    assert body["tool_choice"] == wire


def test_only_allowed_tools_are_offered():
    body, _ = body_of(asked(tools=TOOLS[:2], tool_choice=ToolChoice("required", allowed=("now",))))
    assert [tool["name"] for tool in body["tools"]] == ["now"]


@pytest.mark.parametrize(
    ("settings", "thinking", "effort"),
    [
        (ReasoningSettings(off=True), {"type": "disabled"}, None),
        (ReasoningSettings(effort="none"), {"type": "disabled"}, None),
        (
            ReasoningSettings(budget_tokens=2000, show=True),
            {"type": "enabled", "budget_tokens": 2000, "display": "summarized"},
            None,
        ),
        (ReasoningSettings(budget_tokens=10), {"type": "enabled", "budget_tokens": 1024}, None),
        (ReasoningSettings(budget_tokens=99999), {"type": "enabled", "budget_tokens": 4095}, None),
        (ReasoningSettings(effort="minimal"), {"type": "adaptive"}, "low"),
        (
            ReasoningSettings(effort="xhigh", adaptive=True, show=False),
            {"type": "adaptive", "display": "omitted"},
            "xhigh",
        ),
    ],
)
def test_reasoning_follows_the_current_api(settings, thinking, effort):
    body, dropped = body_of(asked(reasoning=settings))
    assert body["thinking"] == thinking
    assert body.get("output_config", {}).get("effort") == effort
    assert dropped == ()


def test_models_that_think_by_budget_get_one_for_a_word():
    body, _ = body_of(asked(reasoning=ReasoningSettings(effort="low")), reasoning="budget")
    assert body["thinking"] == {"type": "enabled", "budget_tokens": 2048}
    assert "output_config" not in body


def test_thinking_that_does_not_fit_the_cap_is_dropped():
    body, dropped = body_of(asked(reasoning=ReasoningSettings(budget_tokens=2000)), 500)
    assert "thinking" not in body
    assert dropped == ("reasoning",)


def test_sampling_is_narrower_while_thinking_and_may_be_left_out_by_option():
    plain = asked(temperature=0.2, top_p=0.9, top_k=5)
    body, dropped = body_of(plain)
    assert (body["temperature"], body["top_p"], body["top_k"], dropped) == (0.2, 0.9, 5, ())
    thinks = asked(temperature=0.2, top_p=0.9, top_k=5, reasoning=ReasoningSettings(effort="low"))
    assert set(body_of(thinks)[1]) == {"temperature", "top_p", "top_k"}
    body, dropped = body_of(plain, None, omit=["temperature", "top_k"])
    assert "temperature" not in body
    assert dropped == ("temperature", "top_k")


def test_the_rest_of_the_fields_find_their_place():
    request = asked(
        stop=("a", "b"),
        user="u-1",
        service_tier="default",
        response_format=ResponseFormat(kind="json_schema", schema=SCHEMA),
        stream=True,
        extra={"container": "c-1", "model": "evil"},
        extra_dialect=Dialect.ANTHROPIC,
    )
    body, dropped = body_of(request)
    assert dropped == ()
    assert body["stop_sequences"] == ["a", "b"]
    assert body["metadata"] == {"user_id": "u-1"}
    assert body["service_tier"] == "standard_only"
    assert body["output_config"] == {"format": {"type": "json_schema", "schema": SCHEMA}}
    assert body["stream"] is True
    assert body["container"] == "c-1"
    assert body["model"] == "claude-opus"


@pytest.mark.parametrize(
    ("arguments", "wire"),
    [("", {}), ("  ", {}), ('{"a":1}', {"a": 1}), ("[1]", {"arguments": "[1]"}), ('{"a":', {"arguments": '{"a":'})],
)
def test_arguments_are_always_an_object(arguments, wire):
    body, _ = body_of(asked(messages=(*HELLO, Message("assistant", (ToolCall("c", "t", arguments),)))))
    assert body["messages"][1]["content"][0]["input"] == wire


def test_pass_through_changes_model_and_cap_and_not_another_byte():
    body = b'{"model":"route","max_tokens":9000,"x":{"y": [1.0,  2]},"messages":[{"role":"user","content":"\\u00e4"}]}'
    head = Head(endpoint=Endpoint.MESSAGES, model="route")
    sent = ADAPTER.pass_through(body, head, upstream(100))
    assert sent.body == (
        b'{"model":"claude-opus","max_tokens":100,"x":{"y": [1.0,  2]},'
        b'"messages":[{"role":"user","content":"\\u00e4"}]}'
    )
    assert b'"max_tokens":9000' in ADAPTER.pass_through(body, head, upstream()).body


def test_tokens_are_counted_by_the_provider_itself():
    sent = ADAPTER.count_tokens(b'{"model":"route","messages":[]}', upstream(7))
    assert sent.url == "https://api.example.org/v1/messages/count_tokens"
    assert json.loads(sent.body) == {"model": "claude-opus", "messages": []}
    assert ADAPTER.read_count(b'{"input_tokens":12}') == 12
