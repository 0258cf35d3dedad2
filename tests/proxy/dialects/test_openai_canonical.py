"""The canonical form of OpenAI's requests: every field, every kind of content, the older functions."""

from __future__ import annotations

import json
from typing import Any

import pytest

from conduit.proxy.dialects.openai import OPENAI
from conduit.proxy.errors import ApiError
from providers.adapters.types import (
    Audio,
    AudioOutput,
    CacheMark,
    ChatRequest,
    Dialect,
    Document,
    Endpoint,
    Image,
    Media,
    Message,
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

HELLO = [{"role": "user", "content": "Hello"}]


def canonical(**fields: Any) -> ChatRequest:
    body = {"model": "m", "messages": HELLO, **fields}
    request = OPENAI.parse(Endpoint.CHAT, json.dumps(body).encode()).canonical()
    assert isinstance(request, ChatRequest)
    return request


def one(message: dict[str, Any]) -> Message:
    (parsed,) = canonical(messages=[message]).messages
    return parsed


# --- canonical ------------------------------------------------------------------------------------------------------


def test_every_field_of_a_request() -> None:
    schema = {"type": "object", "properties": {}}
    request = canonical(
        max_tokens=7,
        temperature=0.5,
        top_p=0.9,
        top_k=4,
        stop="end",
        n=2,
        seed=1,
        presence_penalty=0.1,
        frequency_penalty=0.2,
        logit_bias={"5": -1},
        logprobs=True,
        top_logprobs=2,
        response_format={"type": "json_schema", "json_schema": {"name": "p", "schema": schema, "strict": True}},
        reasoning_effort="low",
        verbosity="low",
        modalities=["text", "audio"],
        audio={"voice": "ash", "format": "mp3"},
        user="u",
        metadata={"a": "b"},
        service_tier="flex",
        store=True,
        stream=True,
        stream_options={"include_usage": True},
        tools=[
            {"type": "function", "function": {"name": "f", "description": "d", "parameters": schema, "strict": True}},
            {"type": "custom", "custom": {"name": "free"}},
        ],
        tool_choice={"type": "function", "function": {"name": "f"}},
        parallel_tool_calls=False,
        prompt_cache_key="k",
        brand_new={"deep": [1, 2.5, None]},
    )
    assert request == ChatRequest(
        model="m",
        messages=(Message(role="user", parts=(Text(text="Hello"),)),),
        tools=(
            Tool(name="f", description="d", parameters=schema, strict=True),
            ServerTool(dialect=Dialect.OPENAI, raw={"type": "custom", "custom": {"name": "free"}}),
        ),
        tool_choice=ToolChoice(mode="tool", name="f"),
        parallel_tools=False,
        max_output_tokens=7,
        temperature=0.5,
        top_p=0.9,
        top_k=4,
        stop=("end",),
        n=2,
        seed=1,
        presence_penalty=0.1,
        frequency_penalty=0.2,
        logit_bias={"5": -1},
        logprobs=True,
        top_logprobs=2,
        response_format=ResponseFormat(kind="json_schema", name="p", schema=schema, strict=True),
        reasoning=ReasoningSettings(effort="low"),
        verbosity="low",
        modalities=("text", "audio"),
        audio=AudioOutput(voice="ash", format="mp3"),
        user="u",
        metadata={"a": "b"},
        service_tier="flex",
        store=True,
        stream=True,
        extra={"prompt_cache_key": "k", "brand_new": {"deep": [1, 2.5, None]}},
        extra_dialect=Dialect.OPENAI,
    )


@pytest.mark.parametrize(
    ("fields", "choice"),
    [
        ({"tool_choice": "auto"}, ToolChoice(mode="auto")),
        ({"tool_choice": "none"}, ToolChoice(mode="none")),
        ({"tool_choice": "required"}, ToolChoice(mode="required")),
        ({"function_call": {"name": "f"}}, ToolChoice(mode="tool", name="f")),
        (
            {
                "tool_choice": {
                    "type": "allowed_tools",
                    "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "f"}}]},
                }
            },
            ToolChoice(mode="required", allowed=("f",)),
        ),
        ({}, None),
    ],
)
def test_choices_of_tools(fields: dict[str, Any], choice: ToolChoice | None) -> None:
    assert canonical(**fields).tool_choice == choice


def test_a_choice_of_openais_own_kind_stays_for_openai() -> None:
    choice = {"type": "custom", "custom": {"name": "free"}}
    request = canonical(tool_choice=choice)
    assert (request.tool_choice, request.extra) == (None, {"tool_choice": choice})


@pytest.mark.parametrize(
    ("fields", "settings"),
    [
        ({"reasoning_effort": "none"}, ReasoningSettings(effort="none", off=True)),
        ({"reasoning": {"max_tokens": 2000}}, ReasoningSettings(budget_tokens=2000)),
        ({"reasoning": {"enabled": True, "exclude": True}}, ReasoningSettings(adaptive=True, show=False)),
        ({"reasoning": {"enabled": False}}, ReasoningSettings(off=True)),
        ({}, None),
    ],
)
def test_settings_of_reasoning(fields: dict[str, Any], settings: ReasoningSettings | None) -> None:
    assert canonical(**fields).reasoning == settings


def test_user_content_of_all_kinds() -> None:
    content = [
        {"type": "text", "text": "look", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD", "detail": "low"}},
        {"type": "image_url", "image_url": "https://example.org/a.png"},
        {"type": "input_audio", "input_audio": {"data": "UklG", "format": "wav"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBE", "filename": "a.pdf"}},
        {"type": "file", "file": {"file_id": "file-1"}},
    ]
    assert one({"role": "user", "content": content, "name": "Alice"}) == Message(
        role="user",
        name="Alice",
        parts=(
            Text(text="look", cache=CacheMark(ttl="1h")),
            Image(source=Media(mime="image/png", data="QUJD"), detail="low"),
            Image(source=Media(url="https://example.org/a.png")),
            Audio(source=Media(mime="audio/wav", data="UklG"), format="wav"),
            Document(source=Media(mime="application/pdf", data="JVBE"), title="a.pdf"),
            Document(source=Media(file_id="file-1")),
        ),
    )


def test_a_conversation_with_tools_and_reasoning() -> None:
    call = {"type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
    request = canonical(
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": "Weather?"},
            {
                "role": "assistant",
                "content": "Looking.",
                "reasoning_content": "ignored when there are details",
                "reasoning_details": [
                    {"type": "reasoning.text", "text": "h", "index": 0},
                    {"type": "reasoning.text", "text": "m", "index": 0},
                    {"type": "reasoning.text", "signature": "s", "index": 0},
                    {"type": "reasoning.encrypted", "data": "blob", "index": 1},
                ],
                "tool_calls": [
                    {"id": "c1", **call, "extra_content": {"google": {"thought_signature": "g"}}},
                    {"id": "c2", **call},
                ],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "18"},
            {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "3"}]},
            {"role": "assistant", "content": None, "refusal": "No."},
            {"role": "assistant", "content": "spoken", "audio": {"id": "audio_1"}},
        ]
    )
    arguments = '{"city": "Rome"}'
    assert request.messages == (
        Message(role="system", parts=(Text(text="Be brief."),)),
        Message(role="user", parts=(Text(text="Weather?"),)),
        Message(
            role="assistant",
            parts=(
                Reasoning(text="hm", signature="s"),
                Reasoning(redacted="blob"),
                Text(text="Looking."),
                ToolCall(id="c1", name="weather", arguments=arguments, signature="g"),
                ToolCall(id="c2", name="weather", arguments=arguments),
            ),
        ),
        Message(
            role="tool",
            parts=(
                ToolResult(call_id="c1", parts=(Text(text="18"),), name="weather"),
                ToolResult(call_id="c2", parts=(Text(text="3"),), name="weather"),
            ),
        ),
        Message(role="assistant", parts=(Refusal(text="No."),)),
        Message(role="assistant", parts=(Text(text="spoken"), Audio(source=Media(), id="audio_1"))),
    )


def test_the_older_functions_are_tools() -> None:
    request = canonical(
        functions=[{"name": "f", "parameters": {"type": "object"}}],
        messages=[
            *HELLO,
            {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
            {"role": "function", "name": "f", "content": "4"},
        ],
    )
    assert request.tools == (Tool(name="f", parameters={"type": "object"}),)
    assert request.messages[1].parts == (ToolCall(id="function_f", name="f", arguments="{}"),)
    assert request.messages[2].parts == (ToolResult(call_id="function_f", parts=(Text(text="4"),), name="f"),)


def test_a_kind_of_content_we_do_not_know_passes_but_has_no_canonical_form() -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": [{"type": "hologram", "hologram": 1}]}]}
    inbound = OPENAI.parse(Endpoint.CHAT, json.dumps(body).encode())
    with pytest.raises(ApiError) as caught:
        inbound.canonical()
    assert (caught.value.status, caught.value.param) == (400, "messages[0].content[0].type")
