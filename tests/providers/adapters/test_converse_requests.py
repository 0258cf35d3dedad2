"""Requests to Bedrock's Converse: where they go, their messages and their tools, each judged by botocore."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest

from providers.adapters.base import Head
from providers.adapters.registry import adapter_for
from providers.adapters.types import (
    Audio,
    CacheMark,
    Dialect,
    Document,
    EmbeddingRequest,
    Endpoint,
    Image,
    Media,
    Message,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    ServerTool,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from providers.errors import CannotCarry
from tests.conformance.wires.converse import parameters
from tests.providers.adapters.converse_asked import (
    ADAPTER,
    CLAUDE,
    LLAMA,
    NOVA,
    PDF,
    PNG,
    WEATHER,
    ask,
    built,
    said,
    upstream,
)

CALL = ToolCall(id="call_1", name="weather", arguments='{"city":"Paris"}')
HOUR, SHORT = CacheMark("1h"), CacheMark()


# --- where ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "written"),
    [
        (CLAUDE, "anthropic.claude-sonnet-4-5-20250929-v1%3A0"),
        ("apac.amazon.nova-lite-v1:0", "apac.amazon.nova-lite-v1%3A0"),
        (
            "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/a1b2c3",
            "arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Aapplication-inference-profile%2Fa1b2c3",
        ),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_model_stands_in_the_path_as_botocore_writes_it(model: str, written: str, stream: bool) -> None:
    made = ADAPTER.build_request(ask(stream=stream), upstream(model))
    call = "converse-stream" if stream else "converse"
    assert made.url == f"https://bedrock-runtime.eu-west-1.amazonaws.com/model/{written}/{call}"
    assert parameters(made)[1]["modelId"] == model
    assert made.headers == {"authorization": "Bearer k-1", "content-type": "application/json"}


def test_a_base_url_with_the_path_of_another_wire_format_serves_as_well() -> None:
    older = msgspec.structs.replace(upstream(), base_url="https://bedrock-runtime.eu-west-1.amazonaws.com/openai/v1")
    assert ADAPTER.build_request(ask(), older).url == ADAPTER.build_request(ask(), upstream()).url
    compatible = adapter_for("bedrock", {}, "openai.gpt-oss-120b-1:0")
    for base in (older, upstream()):
        url = compatible.build_request(ask(), base).url
        assert url == "https://bedrock-runtime.eu-west-1.amazonaws.com/openai/v1/chat/completions"


def test_no_client_speaks_converse_so_nothing_is_passed_through() -> None:
    assert ADAPTER.native == frozenset()
    head = Head(endpoint=Endpoint.CHAT, model="r")
    with pytest.raises(CannotCarry):
        ADAPTER.pass_through(b"{}", head, upstream())
    with pytest.raises(CannotCarry):
        ADAPTER.read_usage(Endpoint.CHAT, b"{}")
    with pytest.raises(CannotCarry):
        ADAPTER.relay(head)
    with pytest.raises(CannotCarry, match="input"):
        ADAPTER.build_request(EmbeddingRequest(model="r", inputs=("a",)), upstream())


# --- messages -------------------------------------------------------------------------------------------------------


def test_a_conversation_of_every_kind_of_part() -> None:
    result = ToolResult("call_1", (Text("Sunny"), Image(Media(mime="image/png", data=PNG))), name="weather")
    body, dropped = built(
        ask(
            said(Text("Be kind"), role="system"),
            said(Text("Look"), Image(Media(data="/9j/4AAQ"))),
            said(Text(" ")),  # blank text is refused by the service
            said(Document(Media(mime="application/pdf", data=PDF), title="Q1: report.pdf", citations=True)),
            said(Reasoning(text="Hm", signature="c2ln"), Reasoning(redacted="cmVk"), CALL, role="assistant"),
            said(result, role="tool"),
            said(Text("And then?")),
            tools=(WEATHER,),
        )
    )
    assert dropped == ()
    assert body["system"] == [{"text": "Be kind"}]
    assert [turn["role"] for turn in body["messages"]] == ["user", "assistant", "user"]
    document = {
        "format": "pdf",
        "name": "Q1 report pdf",
        "source": {"bytes": b"%PDF-1.4\n"},
        "citations": {"enabled": True},
    }
    assert body["messages"][0]["content"] == [
        {"text": "Look"},
        {"image": {"format": "jpeg", "source": {"bytes": b"\xff\xd8\xff\xe0\x00\x10"}}},
        {"document": document},
    ]
    assert body["messages"][1]["content"] == [
        {"reasoningContent": {"reasoningText": {"text": "Hm", "signature": "c2ln"}}},
        {"reasoningContent": {"redactedContent": b"red"}},
        {"toolUse": {"toolUseId": "call_1", "name": "weather", "input": {"city": "Paris"}}},
    ]
    png = {"image": {"format": "png", "source": {"bytes": b"\x89PNG\r\n\x1a\n"}}}
    assert body["messages"][2]["content"] == [
        {"toolResult": {"toolUseId": "call_1", "content": [{"text": "Sunny"}, png]}},
        {"text": "And then?"},
    ]


@pytest.mark.parametrize(
    ("mime", "form"),
    [
        ("text/csv", "csv"),
        ("text/html", "html"),
        ("text/markdown", "md"),
        ("text/x-python", "txt"),
        ("application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", "xlsx"),
    ],
)
def test_documents_go_by_their_format(mime: str, form: str) -> None:
    body, _ = built(ask(said(Text("Read"), Document(Media(mime=mime, data=PDF)))))
    assert body["messages"][0]["content"][1]["document"]["format"] == form


def test_names_of_documents_hold_what_is_allowed_and_never_repeat() -> None:
    same = Document(Media(), title="a/b\n[1]", text="One", context="Of old")
    body, _ = built(ask(said(Text("Read"), same, same, Document(Media(), text="Two"))))
    found = [block["document"] for block in body["messages"][0]["content"][1:]]
    assert [one["name"] for one in found] == ["a b [1]", "a b [1] (2)", "document"]
    assert found[0] == {"format": "txt", "name": "a b [1]", "source": {"bytes": b"One"}, "context": "Of old"}


@pytest.mark.parametrize(
    ("part", "field"),
    [
        (Image(Media(url="https://example.org/a.png")), "messages.image"),
        (Image(Media(mime="image/tiff", data=PNG)), "messages.image"),
        (Document(Media(url="https://example.org/a.pdf")), "messages.document"),
        (Document(Media(file_id="file-1")), "messages.document"),
        (Document(Media(mime="application/zip", data=PDF)), "messages.document"),
        (Audio(Media(data="UklG"), format="wav"), "messages.audio"),
    ],
)
def test_content_that_cannot_be_carried_is_refused_by_name(part: Part, field: str) -> None:
    with pytest.raises(CannotCarry) as refused:
        built(ask(said(Text("See"), part)))
    assert refused.value.field == field
    assert "Amazon Bedrock" in refused.value.detail


def test_audio_goes_to_a_model_that_may_take_it() -> None:
    body, _ = built(ask(said(Audio(Media(data="UklG"), format="wav"))), "mistral.voxtral-small-24b-2507")
    assert body["messages"][0]["content"] == [{"audio": {"format": "wav", "source": {"bytes": b"RIF"}}}]


def test_what_is_left_out_of_messages_is_named() -> None:
    spoken = Audio(Media(), transcript="Hi", id="a")
    own = Opaque(dialect=Dialect.CONVERSE, raw={"text": "mine"})
    other = Opaque(dialect=Dialect.ANTHROPIC, raw={"type": "server_tool_use"})
    body, dropped = built(
        ask(
            Message(role="user", parts=(Text("Hello"),), name="Bob"),
            said(spoken, Reasoning(text="unsigned"), Refusal("No"), own, other, role="assistant"),
            said(Image(Media(data=PNG), detail="low")),
        )
    )
    assert body["messages"][1]["content"] == [{"text": "Hi"}, {"text": "No"}, {"text": "mine"}]
    assert dropped == (
        "messages.name",
        "messages.assistant.audio",
        "messages.reasoning",
        "messages.content",
        "messages.image.detail",
    )


def test_call_ids_of_other_providers_fit_and_stay_apart() -> None:
    long = "toolu_" + "x" * 80
    calls = [ToolCall(id=one, name="weather") for one in ("call 1/2", long + "a", long + "b")]
    results = [ToolResult(call.id, (Text("ok"),)) for call in calls]
    body, _ = built(ask(said(Text("Go")), said(*calls, role="assistant"), said(*results, role="tool")))
    asked = [block["toolUse"]["toolUseId"] for block in body["messages"][1]["content"]]
    assert asked == [block["toolResult"]["toolUseId"] for block in body["messages"][2]["content"]]
    assert asked[0] == "call_1_2"
    assert len(set(asked)) == 3
    assert all(re.fullmatch(r"[a-zA-Z0-9_.:-]{1,64}", one) for one in asked)


@pytest.mark.parametrize(("arguments", "given"), [("", {}), ("[1]", {"arguments": "[1]"}), ("{", {"arguments": "{"})])
def test_arguments_that_are_no_object_are_put_into_one(arguments: str, given: object) -> None:
    call = ToolCall(id="c", name="weather", arguments=arguments)
    body, _ = built(ask(said(Text("Go")), said(call, role="assistant"), said(ToolResult("c"), role="tool")))
    assert body["messages"][1]["content"][0]["toolUse"]["input"] == given


def test_cache_points_stand_behind_what_is_marked_where_the_model_caches() -> None:
    result = ToolResult("call_1", (Text("Sunny", cache=SHORT),))
    request = ask(
        said(Text("Be kind", cache=HOUR), role="system"),
        said(Text("Look", cache=SHORT)),
        said(CALL, role="assistant"),
        said(result, role="tool"),
        tools=(msgspec.structs.replace(WEATHER, cache=SHORT),),
    )
    body, dropped = built(request)
    point, hour = {"cachePoint": {"type": "default"}}, {"cachePoint": {"type": "default", "ttl": "1h"}}
    assert dropped == ()
    assert body["system"] == [{"text": "Be kind"}, hour]
    assert body["messages"][0]["content"] == [{"text": "Look"}, point]
    assert body["messages"][2]["content"][1] == point
    assert body["toolConfig"]["tools"][1] == point
    nova, dropped = built(request, NOVA)  # caches no tools, and nothing for an hour
    assert nova["system"] == [{"text": "Be kind"}, point]
    assert len(nova["toolConfig"]["tools"]) == 1
    assert dropped == ("cache_control",)
    llama, dropped = built(request, LLAMA)
    assert "cachePoint" not in str(llama)
    assert dropped == ("cache_control",)


# --- tools ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "model", "config", "dropped"),
    [
        (None, CLAUDE, None, ()),
        (ToolChoice("auto"), CLAUDE, None, ()),
        (ToolChoice("required"), CLAUDE, {"any": {}}, ()),
        (ToolChoice("tool", "weather"), CLAUDE, {"tool": {"name": "weather"}}, ()),
        (ToolChoice("required"), LLAMA, None, ("tool_choice",)),
        (ToolChoice("required"), NOVA, {"any": {}}, ()),
    ],
)
def test_a_tool_is_demanded_where_the_model_lets_itself(
    choice: ToolChoice | None, model: str, config: Any, dropped: tuple[str, ...]
) -> None:
    body, named = built(ask(tools=(WEATHER,), tool_choice=choice), model)
    assert body["toolConfig"].get("toolChoice") == config
    assert named == dropped


def test_a_choice_among_some_tools_offers_no_others_and_none_offers_none() -> None:
    other = Tool(name="time", strict=True)
    some, _ = built(ask(tools=(WEATHER, other), tool_choice=ToolChoice("required", allowed=("time",))))
    assert [tool["toolSpec"]["name"] for tool in some["toolConfig"]["tools"]] == ["time"]
    assert some["toolConfig"]["tools"][0]["toolSpec"]["strict"] is True
    none, dropped = built(ask(tools=(WEATHER,), tool_choice=ToolChoice("none")))
    assert "toolConfig" not in none
    assert dropped == ()


def test_tools_that_were_called_are_declared_whatever_is_offered_now() -> None:
    """The service refuses calls and results in a conversation without a declaration."""
    past = (said(Text("Go")), said(CALL, role="assistant"), said(ToolResult("call_1", (Text("ok"),)), role="tool"))
    body, _ = built(ask(*past))
    assert [tool["toolSpec"]["name"] for tool in body["toolConfig"]["tools"]] == ["weather"]
    body, dropped = built(ask(*past, tools=(WEATHER,), tool_choice=ToolChoice("none")))
    assert body["toolConfig"]["tools"][0]["toolSpec"]["description"] == "Tells the weather"
    assert dropped == ("tool_choice",)


def test_what_tools_lose_is_named() -> None:
    search = ServerTool(dialect=Dialect.ANTHROPIC, raw={"type": "web_search"})
    failed = ToolResult("call_1", (Text("no"),), error=True)
    past = (said(Text("Go")), said(CALL, role="assistant"), said(failed, role="tool"))
    body, dropped = built(ask(*past, tools=(WEATHER, search), parallel_tools=False))
    assert dropped == ("tools", "parallel_tool_calls")
    assert body["messages"][2]["content"][0]["toolResult"]["status"] == "error"
    body, dropped = built(ask(*past), LLAMA)
    assert dropped == ("messages.tool_result.error",)
