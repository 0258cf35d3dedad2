"""The Anthropic dialect: what clients may send, and what the official SDK must be able to read back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from anthropic.types import Message as SDKMessage
from anthropic.types import ModelInfo, RawMessageStreamEvent
from anthropic.types.shared import ErrorResponse
from pydantic import TypeAdapter

from conduit.proxy import errors
from conduit.proxy.dialects.anthropic import ANTHROPIC
from conduit.proxy.dialects.base import Inbound, ModelEntry
from conduit.proxy.dialects.prompt_tokens import prompt_tokens
from conduit.proxy.errors import ApiError
from providers.adapters.anthropic import AnthropicAdapter
from providers.adapters.events import (
    Ended,
    Finished,
    ReasoningDelta,
    RefusalDelta,
    Started,
    TextDelta,
    ToolDelta,
    ToolStarted,
    UsageSeen,
)
from providers.adapters.types import (
    CacheMark,
    ChatRequest,
    ChatResponse,
    Choice,
    Citation,
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
from tests.providers.adapters.assembly import assemble, parse_in_pieces

REQUEST: dict[str, Any] = {
    "model": "route",
    "max_tokens": 500,
    "system": [{"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
    "messages": [
        {"role": "user", "content": "Hi"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "sig"},
                {"type": "redacted_thinking", "data": "blob"},
                {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "q"}},
                {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Paris"}},
                {"type": "tool_use", "id": "c2", "name": "now", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": "Sunny", "is_error": False},
                {
                    "type": "tool_result",
                    "tool_use_id": "c2",
                    "is_error": True,
                    "content": [
                        {"type": "text", "text": "no"},
                        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAA="}},
                    ],
                },
                {"type": "text", "text": "And?", "cache_control": {"type": "ephemeral"}},
                {
                    "type": "document",
                    "source": {"type": "text", "media_type": "text/plain", "data": "plain"},
                    "title": "T",
                    "context": "C",
                    "citations": {"enabled": True},
                },
                {"type": "document", "source": {"type": "url", "url": "https://example.org/a.pdf"}},
                {"type": "image", "source": {"type": "file", "file_id": "file_1"}},
            ],
        },
    ],
    "tools": [
        {"name": "weather", "description": "D", "input_schema": {"type": "object"}, "strict": True},
        {"type": "web_search_20250305", "name": "web_search", "max_uses": 3},
    ],
    "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
    "thinking": {"type": "enabled", "budget_tokens": 2000, "display": "summarized"},
    "output_config": {"effort": "high", "format": {"type": "json_schema", "schema": {"type": "object"}}},
    "stop_sequences": ["END"],
    "temperature": 0.5,
    "top_p": 0.9,
    "top_k": 4,
    "metadata": {"user_id": "u-1"},
    "service_tier": "auto",
    "stream": True,
    "container": "c-1",
}
CANONICAL = ChatRequest(
    model="route",
    messages=(
        Message("system", (Text("Be kind.", cache=CacheMark(ttl="1h")),)),
        Message("user", (Text("Hi"),)),
        Message(
            "assistant",
            (
                Reasoning(text="hm", signature="sig"),
                Reasoning(redacted="blob"),
                Opaque(
                    Dialect.ANTHROPIC,
                    {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "q"}},
                    field="messages[1].content[2]",
                ),
                ToolCall("c1", "weather", '{"city": "Paris"}'),
                ToolCall("c2", "now", "{}"),
            ),
        ),
        Message(
            "tool",
            (
                ToolResult("c1", (Text("Sunny"),), name="weather"),
                ToolResult("c2", (Text("no"), Image(Media(mime="image/png", data="AAA="))), name="now", error=True),
            ),
        ),
        Message(
            "user",
            (
                Text("And?", cache=CacheMark()),
                Document(Media(mime="text/plain"), title="T", context="C", text="plain", citations=True),
                Document(Media(url="https://example.org/a.pdf")),
                Image(Media(file_id="file_1")),
            ),
        ),
    ),
    tools=(
        Tool("weather", "D", {"type": "object"}, strict=True),
        ServerTool(Dialect.ANTHROPIC, {"type": "web_search_20250305", "name": "web_search", "max_uses": 3}),
    ),
    tool_choice=ToolChoice("required"),
    parallel_tools=False,
    max_output_tokens=500,
    temperature=0.5,
    top_p=0.9,
    top_k=4,
    stop=("END",),
    response_format=ResponseFormat("json_schema", schema={"type": "object"}, strict=True),
    reasoning=ReasoningSettings(effort="high", budget_tokens=2000, show=True),
    user="u-1",
    service_tier="auto",
    stream=True,
    extra={"container": "c-1"},
    extra_dialect=Dialect.ANTHROPIC,
)


def parse(body: dict[str, Any]) -> Inbound:
    return ANTHROPIC.parse(Endpoint.MESSAGES, json.dumps(body).encode())


INBOUND = parse(REQUEST)


def test_a_request_keeps_everything():
    head = INBOUND.head
    assert (head.model, head.stream, head.max_output_tokens, head.user) == ("route", True, 500, "u-1")
    assert INBOUND.canonical() == CANONICAL


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": "1e3"}, "max_tokens"),
        ({"max_tokens": 1e3}, "max_tokens"),
        ({"model": ""}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "owner", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": 3}]}]}, "messages[0].content[0].text"),
        ({"temperature": 1.5}, "temperature"),
        ({"stop_sequences": "END"}, "stop_sequences"),
        ({"tool_choice": {"type": "some"}}, "tool_choice.type"),
        ({"metadata": {"user_id": 3}}, "metadata.user_id"),
    ],
)
def test_wrong_fields_are_named_at_once(change, param):
    with pytest.raises(ApiError) as caught:
        parse({**REQUEST, **change})
    assert (caught.value.status, caught.value.param) == (400, param)


def test_a_request_without_a_cap_is_refused():
    body = {name: value for name, value in REQUEST.items() if name != "max_tokens"}
    with pytest.raises(ApiError) as caught:
        parse(body)
    assert caught.value.param == "max_tokens"


@pytest.mark.parametrize(
    ("content", "param"),
    [
        ([{"type": "text"}], "messages[0].content[0].text"),
        ([{"type": "image"}], "messages[0].content[0].source"),
        ([{"type": "image", "source": {"type": "base64"}}], "messages[0].content[0].source"),
        ([{"type": "image", "source": {"type": "url", "url": 3}}], "messages[0].content[0].source.url"),
        ([{"type": "tool_use", "id": "c", "name": "t", "input": []}], "messages[0].content[0].input"),
        ([{"type": "tool_result"}], "messages[0].content[0].tool_use_id"),
        (
            [{"type": "tool_result", "tool_use_id": "c", "content": [{"type": "text", "text": 1}]}],
            "messages[0].content[0].content[0].text",
        ),
    ],
)
def test_wrong_blocks_are_named_when_they_are_translated(content, param):
    inbound = parse({**REQUEST, "messages": [{"role": "user", "content": content}]})
    with pytest.raises(ApiError) as caught:
        inbound.canonical()
    assert (caught.value.status, caught.value.param) == (400, param)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'{"a":NaN}', b"[" * 99999])
def test_rubbish_is_a_400(body):
    with pytest.raises(ApiError) as caught:
        ANTHROPIC.parse(Endpoint.MESSAGES, body)
    assert caught.value.status == 400


# --- answers -------------------------------------------------------------------------------------------------------

CITATION = Citation(text="cited", url="https://example.org", title="T")
PARTS = (
    Reasoning(text="hm", signature="sig"),
    Reasoning(redacted="blob"),
    Text("Paris."),
    ToolCall("c1", "weather", '{"city": "Paris"}', signature="g-sig"),
    ToolCall("c2", "now", "{}"),
)
# 100 in, of which 60 read from and 30 written to the cache: 10 are counted as plain input.
USAGE = Usage(
    input_tokens=100,
    output_tokens=20,
    cache_read_tokens=60,
    cache_write_tokens=30,
    cache_write_1h_tokens=5,
    reasoning_tokens=7,
    units={"search": 2},
)
RESPONSE = ChatResponse(id="x-1", model="some-model", choices=(Choice(parts=PARTS, finish="tool_calls"),), usage=USAGE)


def test_an_answer_is_one_that_the_sdk_reads_and_keeps_everything():
    body = ANTHROPIC.render(INBOUND, RESPONSE)
    message = SDKMessage.model_validate_json(body)
    assert message.stop_reason == "tool_use"
    assert [block.type for block in message.content] == [
        "thinking",
        "redacted_thinking",
        "text",
        "thinking",
        "tool_use",
        "tool_use",
    ]
    assert (message.usage.input_tokens, message.usage.output_tokens) == (10, 20)
    back = AnthropicAdapter().parse_response(CANONICAL, body)
    assert isinstance(back, ChatResponse)
    assert back.usage == USAGE


def test_a_calls_signature_comes_back_with_the_call():
    content = json.loads(ANTHROPIC.render(INBOUND, RESPONSE))["content"]
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": content}]
    request = parse({"model": "m", "max_tokens": 1, "messages": messages}).canonical()
    assert isinstance(request, ChatRequest)
    assert request.messages[1].parts == PARTS


@pytest.mark.parametrize(
    ("finish", "reason"),
    [
        ("stop", "end_turn"),
        ("length", "max_tokens"),
        ("tool_calls", "tool_use"),
        ("content_filter", "refusal"),
        ("refusal", "refusal"),
        ("stop_sequence", "stop_sequence"),
        ("pause", "pause_turn"),
        ("error", "max_tokens"),
        ("", "end_turn"),
    ],
)
def test_every_finish_has_a_stop_reason(finish, reason):
    response = ChatResponse(id="", model="", choices=(Choice(parts=(Text("x"),), finish=finish),), usage=None)
    message = SDKMessage.model_validate_json(ANTHROPIC.render(INBOUND, response))
    assert message.stop_reason == reason
    assert message.model == "route"
    assert message.id.startswith("msg_")


def test_refusals_and_foreign_citations_are_shown_in_anthropics_way():
    parts = (Text("It says so.", citations=(CITATION,)), Refusal("I will not."))
    response = ChatResponse(id="i", model="m", choices=(Choice(parts=parts),), usage=Usage())
    message = SDKMessage.model_validate_json(ANTHROPIC.render(INBOUND, response))
    assert message.stop_reason == "refusal"
    assert message.stop_details is not None
    assert message.stop_details.explanation == "I will not."
    assert message.content[0].citations[0].url == "https://example.org"  # type: ignore[union-attr,index]


EVENTS = [
    Started(id="x-1", model="some-model"),
    ReasoningDelta(text="h"),
    ReasoningDelta(text="m"),
    ReasoningDelta(signature="sig"),
    ReasoningDelta(redacted="blob"),
    TextDelta("Par"),
    TextDelta("is."),
    ToolStarted(0, "c1", "weather"),
    ToolDelta(0, '{"city": '),
    ToolDelta(0, '"Paris"}'),
    ToolStarted(1, "c2", "now"),
    ToolDelta(1, "{}"),
    Finished("tool_calls"),
    UsageSeen(USAGE),
    Ended(),
]


def sse_events(stream: bytes) -> list[dict[str, Any]]:
    found = []
    for frame in stream.split(b"\n\n")[:-1]:
        name, data = frame.split(b"\n")
        body = json.loads(data.removeprefix(b"data: "))
        assert name == b"event: " + body["type"].encode()
        found.append(body)
    return found


def test_a_stream_is_exactly_anthropics_sequence_and_says_what_the_whole_answer_says():
    renderer = ANTHROPIC.stream(INBOUND, "req-1")
    stream = b"".join(renderer.feed([event]) for event in EVENTS)
    assert stream == ANTHROPIC.stream(INBOUND, "req-1").feed(EVENTS)
    events = sse_events(stream)
    adapter = TypeAdapter(RawMessageStreamEvent)
    for event in events:
        adapter.validate_python(event)
    words = [event["type"].removeprefix("content_block_") for event in events]
    block = ["start", "delta", "delta", "stop"]
    assert words == [
        "message_start",
        *("start", "delta", "delta", "delta", "stop"),  # thinking and its signature
        *("start", "stop"),  # redacted
        *block,  # text
        *block,  # first call
        *("start", "delta", "stop"),  # second call
        "message_delta",
        "message_stop",
    ]
    assert [event["index"] for event in events if event["type"] == "content_block_start"] == [0, 1, 2, 3, 4]
    assert events[-2]["usage"]["input_tokens"] == 10
    assert events[-2]["usage"]["output_tokens"] == 20
    answer = assemble(parse_in_pieces(AnthropicAdapter().stream_parser(CANONICAL), stream, 11))
    unsigned = ToolCall("c1", "weather", '{"city": "Paris"}')
    assert answer.choices == (Choice(parts=(*PARTS[:3], unsigned, PARTS[4]), finish="tool_calls"),)
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (100, 20)


INTERLEAVED = [
    Started("i", "m"),
    ToolStarted(0, "c0", "weather"),
    ToolStarted(1, "c1", "weather"),
    ToolStarted(2, "c2", "now"),
    ToolDelta(0, '{"ci'),
    ToolDelta(1, '{"city":'),
    ToolDelta(0, 'ty":"P{}"}'),
    ToolDelta(1, '"R"}'),
]


@pytest.mark.parametrize("after", [[], [TextDelta("Well.")], [UsageSeen(USAGE)]], ids=["end", "text", "usage"])
@pytest.mark.parametrize("last", [[], [ToolDelta(2, "{}")]], ids=["bare", "braces"])
def test_calls_whose_arguments_come_interleaved_are_blocks_one_after_another(after, last):
    events = [*INTERLEAVED, *last, *after, Finished("tool_calls"), Ended()]
    found = sse_events(ANTHROPIC.stream(INBOUND, "r").feed(events))
    running: int | None = None
    written: dict[str, str] = {}
    for event in found:
        if event["type"] == "content_block_start":
            assert running is None
            running, name = event["index"], event["content_block"].get("id", "text")
            written[name] = ""
        elif event["type"] == "content_block_delta":
            assert event["index"] == running
            written[name] += event["delta"].get("partial_json", "")
        elif event["type"] == "content_block_stop":
            assert event["index"] == running
            running = None
    calls = {name: text for name, text in written.items() if name != "text"}
    assert calls == {"c0": '{"city":"P{}"}', "c1": '{"city":"R"}', "c2": "{}" if last else ""}


def test_an_answer_that_failed_without_a_word_is_an_error_whole_and_streamed():
    for parts in ((), (Reasoning(text="Hm."), Text(""))):
        response = ChatResponse(id="", model="", choices=(Choice(parts=parts, finish="error"),), usage=None)
        with pytest.raises(ApiError) as caught:
            ANTHROPIC.render(INBOUND, response)
        assert (caught.value.status, caught.value.code) == (502, "upstream_invalid_response")
    sent = [Started("i", "m"), TextDelta("Par"), Finished("error"), UsageSeen(USAGE), Ended()]
    *_, last = sse_events(ANTHROPIC.stream(INBOUND, "r").feed(sent))
    assert (last["type"], last["error"]["type"]) == ("error", "api_error")


def test_usage_that_comes_after_the_finish_is_still_told_and_refusals_are_explained():
    events = [
        Started("i", "m"),
        RefusalDelta("I will "),
        RefusalDelta("not."),
        Finished("stop"),
        UsageSeen(USAGE),
        Ended(),
    ]
    last = sse_events(ANTHROPIC.stream(INBOUND, "r").feed(events))[-2]
    assert last["delta"]["stop_reason"] == "refusal"
    assert last["delta"]["stop_details"]["explanation"] == "I will not."
    assert last["usage"]["output_tokens"] == 20


def test_a_broken_stream_ends_with_an_error_event_and_no_end_marker():
    renderer = ANTHROPIC.stream(INBOUND, "req-1")
    sent = renderer.feed(EVENTS[:7])
    sent += renderer.broken(errors.internal("req-1"))
    assert b"message_stop" not in sent
    last = sse_events(sent)[-1]
    assert last["type"] == "error"
    assert last["error"]["type"] == "api_error"
    assert last["request_id"] == "req-1"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (errors.bad_key(), "authentication_error"),
        (errors.model_not_allowed("m"), "permission_error"),
        (errors.model_not_found("m"), "not_found_error"),
        (errors.invalid_json("x"), "invalid_request_error"),
        (errors.method_not_allowed("PUT"), "invalid_request_error"),
        (errors.rate_limited("x", 1), "rate_limit_error"),
        (errors.budget_exceeded("x"), "rate_limit_error"),
        (errors.budget_unavailable(), "overloaded_error"),
        (errors.internal("r"), "api_error"),
        (ApiError(502, "api_error", "upstream_invalid_response", "x"), "api_error"),
        (ApiError(504, "api_error", "upstream_timeout", "x"), "timeout_error"),
    ],
)
def test_errors_have_anthropics_words(error, kind):
    body = ANTHROPIC.error(error, "req-1")
    ErrorResponse.model_validate_json(body)
    expected = {"type": "error", "error": {"type": kind, "message": error.message}, "request_id": "req-1"}
    assert json.loads(body) == expected


def test_a_body_that_is_too_large_has_anthropics_word_for_it():
    assert json.loads(ANTHROPIC.error(errors.too_large(5), "r"))["error"]["type"] == "request_too_large"


def test_models_are_listed_in_anthropics_shape():
    body = json.loads(ANTHROPIC.models([ModelEntry(name="a"), ModelEntry(name="b", created=1_700_000_000)]))
    assert (body["first_id"], body["last_id"], body["has_more"]) == ("a", "b", False)
    for model in body["data"]:
        ModelInfo.model_validate(model)
    assert json.loads(ANTHROPIC.models([]))["first_id"] is None
    assert ModelInfo.model_validate_json(ANTHROPIC.model(ModelEntry(name="a", context_window=9))).max_input_tokens == 9


def test_tokens_are_counted_over_system_messages_and_tools():
    def count(body: dict[str, Any]) -> int:
        request = ANTHROPIC.parse_count(json.dumps(body).encode()).canonical()
        assert isinstance(request, ChatRequest)
        return prompt_tokens(request)

    small = {"model": "m", "messages": [{"role": "user", "content": "Hello there"}]}
    # 3 that prime the answer, 4 that frame the turn and ceil(11 bytes / 4) = 3
    assert count(small) == 10
    assert count({**small, "system": "Be kind."}) == 10 + 4 + 2
    assert count({**small, "tools": REQUEST["tools"]}) > 10
    assert ANTHROPIC.render_count(7) == b'{"input_tokens":7}'
    with pytest.raises(ApiError):
        ANTHROPIC.parse_count(b'{"model":"m"}')
