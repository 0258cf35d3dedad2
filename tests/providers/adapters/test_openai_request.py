"""What leaves for an OpenAI endpoint: bodies the SDK's own types accept, one output cap, nothing lost silently."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from openai.types.chat.completion_create_params import (
    CompletionCreateParamsNonStreaming,
    CompletionCreateParamsStreaming,
)
from pydantic import TypeAdapter

from providers.adapters.base import Upstream, UpstreamRequest
from providers.adapters.openai import CompatibleAdapter, OpenAIAdapter
from providers.adapters.types import (
    Audio,
    AudioOutput,
    CacheMark,
    ChatRequest,
    Dialect,
    Document,
    EmbeddingRequest,
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

UPSTREAM = Upstream(base_url="https://api.openai.com/v1", model="gpt-4o-mini", secrets={"api_key": "sk-test"})
HELLO = (Message(role="user", parts=(Text(text="Hello"),)),)
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
_whole = TypeAdapter(CompletionCreateParamsNonStreaming)
_streamed = TypeAdapter(CompletionCreateParamsStreaming)


def sent(
    request: ChatRequest, upstream: Upstream = UPSTREAM, adapter: OpenAIAdapter | None = None
) -> tuple[dict[str, Any], UpstreamRequest]:
    built = (adapter or OpenAIAdapter()).build_request(request, upstream)
    body = json.loads(built.body)
    valid: Any = (_streamed if request.stream else _whole).validate_python(body)
    for name in ("messages", "tools"):  # the SDK's types check iterables only when they are walked
        list(valid.get(name, ()))
    return body, built


def chat(**fields: Any) -> ChatRequest:
    return ChatRequest(**{"model": "route", "messages": HELLO, **fields})


def messages_of(
    *messages: Message, adapter: OpenAIAdapter | None = None
) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    body, built = sent(chat(messages=messages), adapter=adapter)
    return body["messages"], built.dropped


def test_the_smallest_request_goes_to_chat_completions_with_the_credential() -> None:
    body, built = sent(chat())
    assert built.method == "POST"
    assert built.url == "https://api.openai.com/v1/chat/completions"
    assert built.headers == {"authorization": "Bearer sk-test", "content-type": "application/json"}
    assert body == {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}
    assert built.dropped == ()


def test_organization_and_project_are_headers() -> None:
    upstream = msgspec.structs.replace(UPSTREAM, options={"organization": "org-1", "project": "proj_1"})
    _, built = sent(chat(), upstream)
    assert (built.headers["openai-organization"], built.headers["openai-project"]) == ("org-1", "proj_1")


def test_every_setting_is_carried() -> None:
    body, built = sent(
        chat(
            temperature=0.5, top_p=0.9, stop=("a", "b"), n=2, seed=7, presence_penalty=0.1, frequency_penalty=-0.1,
            logit_bias={"50256": -100}, logprobs=True, top_logprobs=3, reasoning=ReasoningSettings(effort="low"),
            verbosity="high", modalities=("text", "audio"), audio=AudioOutput(voice="ash", format="mp3"), user="u1",
            metadata={"k": "v"}, service_tier="flex", store=False,
        )
    )  # fmt: skip
    assert built.dropped == ()
    assert body == {
        "model": "gpt-4o-mini",
        "messages": [{"role": "user", "content": "Hello"}],
        "temperature": 0.5, "top_p": 0.9, "stop": ["a", "b"], "n": 2, "seed": 7, "presence_penalty": 0.1,
        "frequency_penalty": -0.1, "logit_bias": {"50256": -100}, "logprobs": True, "top_logprobs": 3,
        "reasoning_effort": "low", "verbosity": "high", "modalities": ["text", "audio"],
        "audio": {"voice": "ash", "format": "mp3"}, "user": "u1", "metadata": {"k": "v"}, "service_tier": "flex",
        "store": False,
    }  # fmt: skip


def test_user_content_of_all_kinds() -> None:
    parts = (
        Text(text="look", cache=CacheMark()),
        Image(source=Media(mime="image/jpeg", data="QUJD"), detail="low"),
        Image(source=Media(url="https://example.org/a.png")),
        Audio(source=Media(mime="audio/wav", data="UklG"), format="wav"),
        Document(source=Media(mime="application/pdf", data="JVBE"), title="a.pdf"),
        Document(source=Media(file_id="file-1")),
        Document(source=Media(), text="plain words", title="Notes"),
    )
    messages, dropped = messages_of(Message(role="user", parts=parts, name="Alice"))
    assert dropped == ()
    assert messages == [
        {
            "role": "user",
            "name": "Alice",
            "content": [
                {"type": "text", "text": "look"},
                {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,QUJD", "detail": "low"}},
                {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
                {"type": "input_audio", "input_audio": {"data": "UklG", "format": "wav"}},
                {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBE", "filename": "a.pdf"}},
                {"type": "file", "file": {"file_id": "file-1"}},
                {"type": "text", "text": "Notes\n\nplain words"},
            ],
        }
    ]


def test_a_conversation_with_parallel_tools() -> None:
    messages, dropped = messages_of(
        Message(role="system", parts=(Text(text="Be brief."),)),
        Message(role="user", parts=(Text(text="Weather?"),)),
        Message(
            role="assistant",
            parts=(
                Text(text="Looking."),
                ToolCall(id="c1", name="weather", arguments='{"city":"Rome"}'),
                ToolCall(id="c2", name="weather", arguments='{"city":"Oslo"}'),
            ),
        ),
        Message(
            role="tool",
            parts=(
                ToolResult(call_id="c1", parts=(Text(text="18"),)),
                ToolResult(call_id="c2", parts=(Text(text="3"), Text(text="snow"))),
            ),
        ),
        Message(role="assistant", parts=(Refusal(text="No."),)),
    )
    assert dropped == ()
    call = {"type": "function", "function": {"name": "weather", "arguments": '{"city":"Rome"}'}}
    assert messages == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": "Looking.",
            "tool_calls": [
                {"id": "c1", **call},
                {"id": "c2", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Oslo"}'}},
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "18"},
        {
            "role": "tool",
            "tool_call_id": "c2",
            "content": [{"type": "text", "text": "3"}, {"type": "text", "text": "snow"}],
        },
        {"role": "assistant", "content": None, "refusal": "No."},
    ]


def test_an_image_in_a_tool_result_leaves_a_note_and_is_named() -> None:
    result = ToolResult(call_id="c1", parts=(Image(source=Media(mime="image/png", data="QQ==")),), error=True)
    messages, dropped = messages_of(
        Message(role="assistant", parts=(ToolCall(id="c1", name="shot"),)), Message(role="tool", parts=(result,))
    )
    assert messages[1]["content"] == "[image left out]"
    assert dropped == ("messages.tool_result.error", "messages.tool_result.image")


def test_what_the_wire_has_no_place_for_is_named() -> None:
    messages, dropped = messages_of(
        Message(
            role="user", parts=(Image(source=Media(file_id="f1")), Audio(source=Media(url="https://example.org/a")))
        ),
        Message(role="user", parts=(Document(source=Media(url="https://example.org/d.pdf"), citations=True),)),
        Message(
            role="assistant",
            parts=(
                Reasoning(text="hm", signature="s"),
                ToolCall(id="c", name="f", signature="g"),
                Image(source=Media(data="QQ==")),
                Opaque(dialect=Dialect.ANTHROPIC, raw={"type": "x"}),
            ),
        ),
    )
    assert [message["content"] for message in messages] == ["", "", None]
    assert set(dropped) == {
        "messages.image.file_id",
        "messages.audio",
        "messages.document.citations",
        "messages.document.url",
        "messages.reasoning",
        "messages.tool_call.signature",
        "messages.assistant.image",
        "messages.assistant.content",
    }


def test_compatible_endpoints_get_reasoning_and_signatures_back() -> None:
    messages, dropped = messages_of(
        Message(
            role="assistant",
            parts=(
                Reasoning(text="hm", signature="s1"),
                Reasoning(redacted="blob"),
                Text(text="ok"),
                ToolCall(id="c", name="f", signature="g"),
            ),
        ),
        adapter=CompatibleAdapter(),
    )
    assert dropped == ()
    assert messages[0]["reasoning_content"] == "hm"
    assert messages[0]["reasoning_details"] == [
        {"type": "reasoning.text", "text": "hm", "signature": "s1"},
        {"type": "reasoning.encrypted", "data": "blob"},
    ]
    assert messages[0]["tool_calls"][0]["extra_content"] == {"google": {"thought_signature": "g"}}


@pytest.mark.parametrize(
    ("choice", "wire"),
    [
        (ToolChoice(mode="auto"), "auto"),
        (ToolChoice(mode="none"), "none"),
        (ToolChoice(mode="required"), "required"),
        (ToolChoice(mode="tool", name="weather"), {"type": "function", "function": {"name": "weather"}}),
        (
            ToolChoice(mode="required", allowed=("weather",)),
            {
                "type": "allowed_tools",
                "allowed_tools": {
                    "mode": "required",
                    "tools": [{"type": "function", "function": {"name": "weather"}}],
                },
            },
        ),
    ],
)
def test_tools_and_their_choice(choice: ToolChoice, wire: object) -> None:
    tools = (
        Tool(name="weather", description="d", parameters=SCHEMA, strict=True),
        Tool(name="empty"),
        ServerTool(dialect=Dialect.OPENAI, raw={"type": "custom", "custom": {"name": "free"}}),
        ServerTool(dialect=Dialect.ANTHROPIC, raw={"type": "web_search_20250305", "name": "web_search"}),
    )
    body, built = sent(chat(tools=tools, tool_choice=choice, parallel_tools=False))
    assert body["tools"] == [
        {"type": "function", "function": {"name": "weather", "description": "d", "parameters": SCHEMA, "strict": True}},
        {"type": "function", "function": {"name": "empty", "parameters": {"type": "object", "properties": {}}}},
        {"type": "custom", "custom": {"name": "free"}},
    ]
    assert body["tool_choice"] == wire
    assert body["parallel_tool_calls"] is False
    assert built.dropped == ("tools.web_search_20250305",)


def test_structured_output_forms() -> None:
    schema = ResponseFormat(kind="json_schema", name="place", schema=SCHEMA, strict=True, description="d")
    assert sent(chat(response_format=schema))[0]["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "place", "schema": SCHEMA, "strict": True, "description": "d"},
    }
    assert sent(chat(response_format=ResponseFormat(kind="json")))[0]["response_format"] == {"type": "json_object"}


@pytest.mark.parametrize(
    ("wanted", "effort", "dropped"),
    [
        (ReasoningSettings(effort="none", off=True), "none", ()),
        (ReasoningSettings(budget_tokens=1024), "minimal", ()),
        (ReasoningSettings(budget_tokens=4096), "low", ()),
        (ReasoningSettings(budget_tokens=10000), "medium", ()),
        (ReasoningSettings(budget_tokens=32000), "high", ()),
        (ReasoningSettings(off=True), None, ("reasoning.off",)),
        (ReasoningSettings(adaptive=True, show=True), None, ("reasoning.show",)),
    ],
)
def test_thinking_settings_become_an_effort(
    wanted: ReasoningSettings, effort: str | None, dropped: tuple[str, ...]
) -> None:
    body, built = sent(chat(reasoning=wanted))
    assert body.get("reasoning_effort") == effort
    assert built.dropped == dropped


def test_streams_always_ask_for_usage() -> None:
    body, _ = sent(chat(stream=True, extra={"stream_options": {"include_usage": False}}, extra_dialect=Dialect.OPENAI))
    assert body["stream"] is True
    assert body["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize(
    ("adapter", "options", "field"),
    [
        (OpenAIAdapter(), {}, "max_completion_tokens"),
        (CompatibleAdapter(), {}, "max_tokens"),
        (CompatibleAdapter(), {"max_tokens_field": "max_completion_tokens"}, "max_completion_tokens"),
    ],
)
def test_exactly_one_output_cap_leaves(adapter: OpenAIAdapter, options: dict[str, str], field: str) -> None:
    extra = {"max_tokens": 10**9, "max_completion_tokens": 10**9}
    request = chat(max_output_tokens=50, extra=extra, extra_dialect=Dialect.OPENAI)
    own, _ = sent(request, msgspec.structs.replace(UPSTREAM, options=options), adapter)
    ours, _ = sent(request, msgspec.structs.replace(UPSTREAM, options=options, max_output_tokens=20), adapter)
    for body, cap in ((own, 50), (ours, 20)):
        assert {name: value for name, value in body.items() if name.startswith("max_")} == {field: cap}


def test_fields_only_the_callers_dialect_knows() -> None:
    extra = {"prompt_cache_key": "k", "model": "evil"}
    body, built = sent(chat(extra=extra, extra_dialect=Dialect.OPENAI))
    assert (body["prompt_cache_key"], body["model"], built.dropped) == ("k", "gpt-4o-mini", ())
    body, built = sent(chat(extra={"container": "c"}, extra_dialect=Dialect.ANTHROPIC, top_k=4, service_tier="odd"))
    assert "container" not in body
    assert set(built.dropped) == {"container", "top_k", "service_tier"}
    body, built = sent(chat(top_k=4), adapter=CompatibleAdapter())
    assert (body["top_k"], built.dropped) == (4, ())


def test_embeddings() -> None:
    request = EmbeddingRequest(model="r", inputs=("a", (1, 2)), dimensions=8, encoding="base64", task="x", user="u")
    built = OpenAIAdapter().build_request(request, UPSTREAM)
    assert built.url == "https://api.openai.com/v1/embeddings"
    assert json.loads(built.body) == {
        "model": "gpt-4o-mini", "input": ["a", [1, 2]], "encoding_format": "base64", "dimensions": 8, "user": "u",
    }  # fmt: skip
    assert built.dropped == ("task",)
