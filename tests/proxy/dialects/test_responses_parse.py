"""Requests in the dialect of OpenAI's responses: what is refused and how it is named, what a provider is asked."""

from __future__ import annotations

import json
from typing import Any

import pytest

from conduit.proxy.dialects.base import Inbound
from conduit.proxy.dialects.responses import RESPONSES
from conduit.proxy.errors import ApiError
from providers.adapters.openai import CompatibleAdapter
from providers.adapters.types import (
    Audio,
    ChatRequest,
    Dialect,
    Document,
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
    Usage,
)

PNG = "iVBORw0KGgo="
CITY = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER = {"type": "function", "name": "weather", "description": "Says it", "parameters": CITY, "strict": True}
SCRIPT = {"type": "custom", "name": "script", "description": "Runs it"}
SOUND = {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}
USAGE = Usage(input_tokens=12, output_tokens=9, cache_read_tokens=4, cache_write_tokens=2, reasoning_tokens=5)


def parsed(**fields: Any) -> Inbound:
    return RESPONSES.parse(Endpoint.RESPONSES, json.dumps({"model": "m", "input": "hi", **fields}).encode())


def said(part: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [part]}]


def result(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"type": "function_call_output", "call_id": "c", "output": list(parts)}]


def canonical(**fields: Any) -> ChatRequest:
    request = parsed(**fields).canonical()
    assert isinstance(request, ChatRequest)
    return request


def refused(**fields: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        parsed(**fields).canonical()
    assert caught.value.status == 400
    return caught.value


# --- what is refused


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": 5}, "input"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0].text"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0].image_url"),
        (
            {"input": ["x", {"role": "user", "content": [{"type": "input_image", "image_url": {"url": "u"}}]}][1:]},
            "input[0].content[0].image_url",
        ),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input[0].content[0].file_data"),
        ({"input": [{"role": "user", "content": [{"type": "hologram"}]}]}, "input[0].content[0].type"),
        ({"input": [{"type": "function_call", "name": "f", "arguments": "{}"}]}, "input[0].call_id"),
        ({"input": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": {}}]}, "input[0].arguments"),
        ({"input": [{"type": "function_call_output", "call_id": "c"}]}, "input[0].output"),
        (
            {
                "input": [
                    {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": 1}]}
                ]
            },
            "input[0].output[0].text",
        ),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0].id"),
        ({"input": [{"id": "msg_1"}]}, "input[0].id"),
        ({"input": [{"type": "computer_call_output", "call_id": "c", "output": {}}]}, "input[0].type"),
        ({"input": result({"type": "input_text", "text": "x"}, SOUND)}, "input[0].output[1].type"),
        ({"input": result({"type": "refusal", "refusal": "no"})}, "input[0].output[0].type"),
        ({"input": result({"type": "hologram"})}, "input[0].output[0].type"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"background": True}, "background"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"input": said({"type": "input_file", "file_id": "file-1"})}, "input[0].content[0].file_id"),
        (
            {"input": said({"type": "input_file", "file_data": "QQ==", "file_id": "file-1"})},
            "input[0].content[0].file_id",
        ),
        ({"input": said({"type": "input_image", "file_id": "file-1"})}, "input[0].content[0].file_id"),
        (
            {
                "input": [
                    {
                        "type": "function_call_output",
                        "call_id": "c",
                        "output": [{"type": "input_file", "file_id": "file-1"}],
                    }
                ]
            },
            "input[0].output[0].file_id",
        ),
        (
            {
                "input": [
                    {
                        "type": "computer_call_output",
                        "call_id": "c",
                        "output": {"type": "computer_screenshot", "file_id": "file-1"},
                    }
                ]
            },
            "input[0].output.file_id",
        ),
        ({"input": [{"type": "image_generation_call", "id": "ig_1", "status": "completed"}]}, "input[0].id"),
        ({"tools": [{"type": "file_search", "vector_store_ids": ["vs_1"]}]}, "tools[0].vector_store_ids"),
        ({"tools": [{"type": "code_interpreter", "container": "cntr_1"}]}, "tools[0].container"),
        (
            {"tools": [{"type": "code_interpreter", "container": {"type": "auto", "file_ids": ["file-1"]}}]},
            "tools[0].container.file_ids",
        ),
        (
            {"tools": [{"type": "shell", "environment": {"type": "container_reference", "container_id": "cntr_1"}}]},
            "tools[0].environment.container_id",
        ),
        (
            {"tools": [{"type": "shell", "environment": {"skills": [{"skill_id": "s_1"}]}}]},
            "tools[0].environment.skills[0].skill_id",
        ),
        (
            {"tools": [{"type": "image_generation", "input_image_mask": {"file_id": "file-1"}}]},
            "tools[0].input_image_mask.file_id",
        ),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tools": [{"type": "function", "function": {"name": "nested"}}]}, "tools[0].name"),
        ({"tool_choice": "sometimes"}, "tool_choice"),
        ({"tool_choice": {"type": "function"}}, "tool_choice.name"),
        ({"tool_choice": {"type": "allowed_tools", "mode": "auto"}}, "tool_choice.tools"),
        ({"text": {"format": {"type": "json_schema", "name": "a"}}}, "text.format.schema"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"max_output_tokens": True}, "max_output_tokens"),
        ({"temperature": "warm"}, "temperature"),
        ({"reasoning": {"effort": 3}}, "reasoning.effort"),
        ({"Instructions": "x"}, "Instructions"),
    ],
)
def test_what_is_wrong_is_refused_by_its_place(fields: dict[str, Any], param: str) -> None:
    error = refused(**fields)
    assert error.param == param
    assert error.message.startswith(f"{param}: ")


# --- what a provider is asked


def test_items_become_a_conversation() -> None:
    items = [
        {"role": "developer", "content": "be brief"},
        {
            "role": "user",
            "content": [{"type": "input_text", "text": "see"}, {"type": "input_image", "image_url": "https://e.org/i"}],
        },
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [{"type": "summary_text", "text": "hm"}],
            "encrypted_content": "s",
        },
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "let me look"}]},
        {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city":"Oslo"}'},
        {"type": "custom_tool_call", "call_id": "c2", "name": "script", "input": 'say "hi"'},
        {"type": "web_search_call", "id": "ws_1", "status": "completed"},
        {"type": "function_call_output", "call_id": "c1", "output": "rain"},
        {
            "type": "custom_tool_call_output",
            "call_id": "c2",
            "output": [{"type": "input_image", "image_url": f"data:image/png;base64,{PNG}"}],
        },
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
    ]
    assert canonical(input=items, instructions="first").messages == (
        Message("system", (Text("first"),)),
        Message("system", (Text("be brief"),)),
        Message("user", (Text("see"), Image(Media(url="https://e.org/i")))),
        Message(
            "assistant",
            (
                Reasoning(text="hm", signature="s", id="rs_1"),
                Text("let me look"),
                ToolCall("c1", "weather", '{"city":"Oslo"}'),
                ToolCall("c2", "script", '{"input":"say \\"hi\\""}'),
                Opaque(Dialect.RESPONSES, items[6]),
            ),
        ),
        Message(
            "tool",
            (
                ToolResult("c1", (Text("rain"),), name="weather"),
                ToolResult("c2", (Image(Media(mime="image/png", data=PNG)),), name="script"),
            ),
        ),
        Message("assistant", (Refusal("no"),)),
    )


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ({"type": "input_file", "file_data": "QQ==", "filename": "a.pdf"}, ("application/pdf", "QQ==", "")),
        ({"type": "input_file", "file_data": "data:text/csv;base64,QQ=="}, ("text/csv", "QQ==", "")),
        ({"type": "input_file", "file_url": "https://e.org/a.pdf"}, ("", "", "https://e.org/a.pdf")),
    ],
)
def test_files_arrive_however_they_are_given(part: dict[str, Any], expected: tuple[str, str, str]) -> None:
    (document,) = canonical(input=[{"role": "user", "content": [part]}]).messages[0].parts
    assert isinstance(document, Document)
    source = document.source
    assert (source.mime, source.data, source.url) == expected


def test_sound_arrives() -> None:
    heard = {"type": "input_audio", "input_audio": {"data": "QQ==", "format": "wav"}}
    (part,) = canonical(input=[{"role": "user", "content": [heard]}]).messages[0].parts
    assert part == Audio(Media(mime="audio/wav", data="QQ=="), format="wav")


def test_settings_are_understood() -> None:
    request = canonical(
        tools=[WEATHER, SCRIPT, {"type": "web_search"}],
        tool_choice={"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "weather"}]},
        parallel_tool_calls=False,
        text={"format": {"type": "json_schema", "name": "out", "schema": CITY, "strict": True}, "verbosity": "low"},
        reasoning={"effort": "high", "summary": "auto"},
        max_output_tokens=77,
        temperature=0.5,
        top_p=0.9,
        top_logprobs=2,
        include=["message.output_text.logprobs", "reasoning.encrypted_content", "web_search_call.action.sources"],
        user="alice",
        metadata={"a": "b"},
        store=True,
        truncation="auto",
        prompt_cache_key="k",
        service_tier="flex",
    )
    free_text = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}
    assert request.tools == (
        Tool("weather", "Says it", CITY, strict=True),
        Tool("script", "Runs it", free_text),
        ServerTool(Dialect.RESPONSES, {"type": "web_search"}),
    )
    assert request.tool_choice == ToolChoice("required", allowed=("weather",))
    assert request.response_format == ResponseFormat("json_schema", "out", CITY, strict=True)
    assert request.reasoning == ReasoningSettings(effort="high", show=True)
    assert (request.parallel_tools, request.verbosity, request.max_output_tokens) == (False, "low", 77)
    assert (request.temperature, request.top_p, request.logprobs, request.top_logprobs) == (0.5, 0.9, True, 2)
    assert (request.user, request.service_tier) == ("alice", "flex")
    assert (request.store, request.metadata) == (None, None), "kept and told by us: no provider needs them"
    assert request.extra == {
        "include": ["web_search_call.action.sources"],
        "truncation": "auto",
        "prompt_cache_key": "k",
    }


def test_what_another_provider_cannot_be_told_is_named() -> None:
    from providers.adapters.base import Upstream

    request = canonical(
        tools=[{**SCRIPT, "format": {"type": "grammar", "syntax": "regex", "definition": "a"}}, {"type": "mcp"}],
        include=["file_search_call.results"],
        prompt_cache_key="k",
        tool_choice={"type": "mcp"},
    )
    upstream = Upstream(base_url="https://e.org/v1", model="m", secrets={})
    built = CompatibleAdapter().build_request(request, upstream)
    expected = {"tools.mcp", "tools[0].format", "include", "prompt_cache_key", "tool_choice"}
    assert set(built.dropped) == expected


@pytest.mark.parametrize(
    ("fields", "user"), [({"user": "a", "safety_identifier": "b"}, "a"), ({"safety_identifier": "b"}, "b")]
)
def test_the_customer_is_the_user_or_the_safety_identifier(fields: dict[str, str], user: str) -> None:
    assert parsed(**fields).head.user == user
