"""Anthropic's answers: whole, streamed and relayed. The fixtures must please the official SDK's own types."""

from __future__ import annotations

import json
from typing import Any

import pytest
from anthropic.types import Message, RawMessageStreamEvent
from pydantic import TypeAdapter

from providers.adapters.anthropic import AnthropicAdapter
from providers.adapters.base import Head
from providers.adapters.types import (
    ChatRequest,
    ChatResponse,
    Choice,
    Citation,
    Dialect,
    Endpoint,
    Opaque,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    Usage,
)
from providers.errors import (
    AuthRejected,
    InvalidResponse,
    Overloaded,
    RateLimited,
    RequestRejected,
    UpstreamCut,
)
from tests.providers.adapters.assembly import assemble, parse_in_pieces

ADAPTER = AnthropicAdapter()
REQUEST = ChatRequest(model="claude", messages=())
HEAD = Head(endpoint=Endpoint.MESSAGES, model="claude", stream=True)

CITATION = {
    "type": "web_search_result_location",
    "cited_text": "Paris is the capital",
    "encrypted_index": "Eo8B",
    "title": "France",
    "url": "https://example.org/france",
}
SEARCH = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "capital"}}
MESSAGE: dict[str, Any] = {
    "id": "msg_01",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-5",
    "content": [
        {"type": "thinking", "thinking": "Let me see … ünïcode 🙂", "signature": "EqQB/+=="},
        {"type": "redacted_thinking", "data": "EmwKAhgB"},
        SEARCH,
        {"type": "text", "text": 'Paris, of "France".\n', "citations": [CITATION]},
        {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Paris"}},
        {"type": "tool_use", "id": "toolu_2", "name": "now", "input": {}},
    ],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": {
        "input_tokens": 100,
        "cache_creation_input_tokens": 30,
        "cache_read_input_tokens": 2000,
        "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20},
        "output_tokens": 55,
        "output_tokens_details": {"thinking_tokens": 21},
        "server_tool_use": {"web_search_requests": 1, "web_fetch_requests": 0},
        "service_tier": "standard",
    },
}
# 100 uncached + 2,000 read + 30 written = 2,130 in; of the 30 written 20 live an hour; 55 out, 21 of them thought.
USAGE = Usage(
    input_tokens=2130,
    output_tokens=55,
    cache_read_tokens=2000,
    cache_write_tokens=30,
    cache_write_1h_tokens=20,
    reasoning_tokens=21,
    units={"search": 1},
)
ANSWER = ChatResponse(
    id="msg_01",
    model="claude-sonnet-4-5",
    choices=(
        Choice(
            parts=(
                Reasoning(text="Let me see … ünïcode 🙂", signature="EqQB/+=="),
                Reasoning(redacted="EmwKAhgB"),
                Opaque(dialect=Dialect.ANTHROPIC, raw=SEARCH),
                Text(
                    text='Paris, of "France".\n',
                    citations=(
                        Citation(
                            text="Paris is the capital",
                            url="https://example.org/france",
                            title="France",
                            raw=CITATION,
                        ),
                    ),
                ),
                ToolCall(id="toolu_1", name="weather", arguments='{"city": "Paris"}'),
                ToolCall(id="toolu_2", name="now", arguments="{}"),
            ),
            finish="tool_calls",
        ),
    ),
    usage=USAGE,
    service_tier="standard",
)


def events_of_stream() -> list[dict[str, Any]]:
    content = MESSAGE["content"]
    start_usage = {**MESSAGE["usage"], "output_tokens": 3}
    del start_usage["output_tokens_details"]
    start = {**MESSAGE, "content": [], "stop_reason": None, "usage": start_usage}

    def block(index: int, opening: dict[str, Any], *deltas: dict[str, Any]) -> list[dict[str, Any]]:
        return [
            {"type": "content_block_start", "index": index, "content_block": opening},
            *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
            {"type": "content_block_stop", "index": index},
        ]

    return [
        {"type": "message_start", "message": start},
        *block(
            0,
            {"type": "thinking", "thinking": "", "signature": ""},
            {"type": "thinking_delta", "thinking": "Let me see "},
            {"type": "thinking_delta", "thinking": "… ünïcode 🙂"},
            {"type": "signature_delta", "signature": "EqQB/+=="},
        ),
        *block(1, content[1]),
        {"type": "ping"},
        *block(2, {**SEARCH, "input": {}}, {"type": "input_json_delta", "partial_json": '{"query": "capital"}'}),
        *block(
            3,
            {"type": "text", "text": ""},
            {"type": "text_delta", "text": "Paris, "},
            {"type": "text_delta", "text": 'of "France".\n'},
            {"type": "citations_delta", "citation": CITATION},
        ),
        *block(
            4,
            {**content[4], "input": {}},
            {"type": "input_json_delta", "partial_json": ""},
            {"type": "input_json_delta", "partial_json": '{"city": '},
            {"type": "input_json_delta", "partial_json": '"Paris"}'},
        ),
        *block(5, content[5]),
        {
            "type": "message_delta",
            "delta": {"stop_reason": "tool_use", "stop_sequence": None},
            "usage": {"output_tokens": 55, "output_tokens_details": {"thinking_tokens": 21}},
        },
        {"type": "message_stop"},
    ]


def sse(events: list[dict[str, Any]]) -> bytes:
    return b"".join(
        f"event: {event['type']}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n".encode() for event in events
    )


STREAM = sse(events_of_stream())
ERROR_EVENT = sse([{"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}])


def test_the_fixtures_are_what_the_sdk_expects():
    Message.model_validate(MESSAGE)
    event = TypeAdapter(RawMessageStreamEvent)
    for one in events_of_stream():
        if one["type"] != "ping":
            event.validate_python(one)


def test_a_whole_message_keeps_everything():
    assert ADAPTER.parse_response(REQUEST, json.dumps(MESSAGE).encode()) == ANSWER


@pytest.mark.parametrize("size", [1, 2, 7, 64, 10**6])
def test_a_stream_says_the_same_as_the_whole_message_however_it_is_cut(size):
    answer = assemble(parse_in_pieces(ADAPTER.stream_parser(REQUEST), STREAM, size))
    assert answer == ChatResponse(id="msg_01", model="claude-sonnet-4-5", choices=ANSWER.choices, usage=USAGE)


def test_a_stream_without_its_end_marker_is_cut():
    parser = ADAPTER.stream_parser(REQUEST)
    parser.feed(STREAM[: STREAM.index(b"event: message_stop")])
    with pytest.raises(UpstreamCut):
        parser.close()


@pytest.mark.parametrize("size", [1, 10**6])
def test_an_error_event_is_raised_after_what_came_before_it(size):
    parser = ADAPTER.stream_parser(REQUEST)
    stream = sse(events_of_stream()[:3]) + ERROR_EVENT
    seen = []

    def read_all() -> None:
        for at in range(0, len(stream), size):
            seen.extend(parser.feed(stream[at : at + size]))
        parser.close()

    with pytest.raises(Overloaded) as caught:
        read_all()
    assert caught.value.message == "Overloaded"
    assert caught.value.status == 529
    assert [type(event).__name__ for event in seen] == ["Started", "UsageSeen", "ReasoningDelta"]


def test_rubbish_in_a_stream_is_no_answer():
    with pytest.raises(InvalidResponse):
        ADAPTER.stream_parser(REQUEST).feed(b"data: <html>\n\n")


def test_later_totals_replace_earlier_ones_but_never_shrink():
    events = events_of_stream()
    events[-2]["usage"] = {"output_tokens": 2, "input_tokens": 140}
    answer = assemble(parse_in_pieces(ADAPTER.stream_parser(REQUEST), sse(events), 10**6))
    assert answer.usage is not None
    # message_start said 3 out; the final 2 is not believed. 140 + 2,000 + 30 in.
    assert answer.usage.output_tokens == 3
    assert answer.usage.input_tokens == 2170
    assert "decreasing" in answer.usage.flags


def test_nulls_of_compatible_vendors_are_absences():
    content = [{"type": "thinking", "thinking": "hm", "signature": None}, {"type": "text", "text": "a", "data": None}]
    body = json.dumps({**MESSAGE, "content": content}).encode()
    assert ADAPTER.parse_response(REQUEST, body).choices[0].parts == (Reasoning(text="hm"), Text("a"))


@pytest.mark.parametrize(
    ("stop_reason", "finish"),
    [
        ("end_turn", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("stop_sequence", "stop_sequence"),
        ("tool_use", "tool_calls"),
        ("pause_turn", "pause"),
        ("refusal", "refusal"),
        ("something_new", "stop"),
    ],
)
def test_stop_reasons_have_a_canonical_word(stop_reason, finish):
    body = json.dumps({**MESSAGE, "stop_reason": stop_reason, "stop_sequence": "END"}).encode()
    choice = ADAPTER.parse_response(REQUEST, body).choices[0]
    assert choice.finish == finish
    assert choice.stop_sequence == "END"


def test_a_refusals_explanation_is_kept_whole_and_streamed():
    details = {"type": "refusal", "category": "cyber", "explanation": "I will not."}
    whole = {**MESSAGE, "content": [], "stop_reason": "refusal", "stop_details": details}
    Message.model_validate(whole)
    parts = ADAPTER.parse_response(REQUEST, json.dumps(whole).encode()).choices[0].parts
    events = events_of_stream()
    delta = {"stop_reason": "refusal", "stop_sequence": None, "stop_details": details}
    stream = sse([events[0], {**events[-2], "delta": delta}, events[-1]])
    streamed = assemble(parse_in_pieces(ADAPTER.stream_parser(REQUEST), stream, 5)).choices[0].parts
    assert parts == streamed == (Refusal(text="I will not."),)


# --- usage ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"input_tokens": 10, "output_tokens": 5}, Usage(input_tokens=10, output_tokens=5)),
        # The lifetimes add up to more than the total: the larger figure is the one to bill.
        (
            {"input_tokens": 1, "output_tokens": 1, "cache_creation": {"ephemeral_1h_input_tokens": 9}},
            Usage(input_tokens=10, output_tokens=1, cache_write_tokens=9, cache_write_1h_tokens=9),
        ),
        ({"input_tokens": -3, "output_tokens": 5}, Usage(output_tokens=5, flags=("negative",))),
        ({"input_tokens": "12", "output_tokens": True}, Usage(flags=("text",))),
        ({"input_tokens": 10**18, "output_tokens": 1}, Usage(output_tokens=1, flags=("huge",))),
        ({"input_tokens": 4.0, "output_tokens": 1.5}, Usage(input_tokens=4, flags=("not_integer",))),
        ({"output_tokens": 7}, Usage(output_tokens=7, flags=("missing",))),
        (
            {"input_tokens": 1, "output_tokens": 2, "output_tokens_details": {"thinking_tokens": 9}},
            Usage(input_tokens=1, output_tokens=2, reasoning_tokens=2, flags=("inconsistent",)),
        ),
        (
            {"input_tokens": 1, "output_tokens": 2, "cache_creation": 3, "server_tool_use": "x"},
            Usage(input_tokens=1, output_tokens=2),
        ),
        (None, None),
        ("many", None),
    ],
)
def test_usage_is_sane_whatever_the_provider_says(usage, expected):
    body = json.dumps({**MESSAGE, "usage": usage}).encode()
    found = ADAPTER.read_usage(Endpoint.MESSAGES, body)
    if expected is not None:
        assert found is not None
        found.flags = tuple(sorted(set(found.flags)))
    assert found == expected


def test_pass_through_and_translation_read_the_same_usage():
    assert ADAPTER.read_usage(Endpoint.MESSAGES, json.dumps(MESSAGE).encode()) == USAGE


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"null", b"\xff", b'{"usage":{}}', b"[" * 100_000])
def test_an_answer_that_is_no_message_is_invalid(body):
    with pytest.raises(InvalidResponse):
        ADAPTER.read_usage(Endpoint.MESSAGES, body)
    with pytest.raises(InvalidResponse):
        ADAPTER.parse_response(REQUEST, body)


def test_an_error_with_status_200_is_an_error():
    body = b'{"type":"error","error":{"type":"rate_limit_error","message":"Slow down"}}'
    with pytest.raises(RateLimited, match="Slow down"):
        ADAPTER.parse_response(REQUEST, body)
    with pytest.raises(RateLimited, match="Slow down"):
        ADAPTER.read_usage(Endpoint.MESSAGES, body)


# --- errors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind", "error", "code"),
    [
        (400, "invalid_request_error", RequestRejected, "invalid_request"),
        (401, "authentication_error", AuthRejected, "upstream_auth_failed"),
        (403, "permission_error", AuthRejected, "upstream_auth_failed"),
        (404, "not_found_error", RequestRejected, "not_found_error"),
        (413, "request_too_large", RequestRejected, "request_too_large"),
        (429, "rate_limit_error", RateLimited, "upstream_rate_limited"),
        (500, "api_error", Overloaded, "upstream_unavailable"),
        (529, "overloaded_error", Overloaded, "upstream_unavailable"),
    ],
)
def test_errors_keep_status_message_and_waiting_time(status, kind, error, code):
    body = json.dumps({"type": "error", "error": {"type": kind, "message": "Because."}}).encode()
    found = ADAPTER.parse_error(status, {"Retry-After": "7"}, body)
    assert type(found) is error
    assert (found.message, found.status, found.code, found.retry_after) == ("Because.", status, code, 7.0)


def test_a_prompt_that_is_too_long_has_the_code_that_clients_know():
    message = "prompt is too long: 213462 tokens > 200000 maximum"
    body = json.dumps({"type": "error", "error": {"type": "invalid_request_error", "message": message}}).encode()
    assert ADAPTER.parse_error(400, {}, body).code == "context_length_exceeded"


@pytest.mark.parametrize("body", [b"", b"<html><title>502 Bad Gateway</title>", b'{"error":null}', b"[1]", b"\xff"])
def test_odd_error_bodies_give_a_short_message(body):
    found = ADAPTER.parse_error(502, {}, body)
    assert isinstance(found, Overloaded)
    assert 0 < len(found.message) < 300
    assert "<" not in found.message


# --- relay ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 3, 50, 10**6])
def test_a_relay_passes_every_byte_and_knows_usage_and_end(size):
    relay = ADAPTER.relay(HEAD)
    out = b"".join(relay.feed(STREAM[at : at + size]) for at in range(0, len(STREAM), size)) + relay.close()
    assert out == STREAM
    assert relay.usage == USAGE
    assert relay.ended
    assert relay.frames == 7  # deltas with text: not signatures, citations and empty pieces
    # json.dumps escaped two quotation marks, one line feed, and the quotation marks of the calls' arguments.
    text = 'Let me see … ünïcode 🙂Paris, of "France".\n{"city": "Paris"}{"query": "capital"}'
    assert len(text.encode()) <= relay.text_bytes <= len(text.encode()) + 250


def test_a_relay_raises_an_error_event_after_what_came_before_and_never_relays_it():
    relay = ADAPTER.relay(HEAD)
    start = sse(events_of_stream()[:3])
    assert relay.feed(start + ERROR_EVENT) == start
    with pytest.raises(Overloaded):
        relay.feed(b"")
    with pytest.raises(Overloaded):
        relay.close()


def test_text_that_looks_like_an_event_is_text():
    delta = {"type": "text_delta", "text": 'say "message_stop" and {"type":"error"}'}
    frame = sse([{"type": "content_block_delta", "index": 0, "delta": delta}])
    relay = ADAPTER.relay(HEAD)
    assert relay.feed(frame) == frame
    assert not relay.ended


def test_a_relay_that_ends_early_is_cut_and_keeps_what_was_metered():
    relay = ADAPTER.relay(HEAD)
    relay.feed(STREAM[: len(STREAM) // 2])
    with pytest.raises(UpstreamCut):
        relay.close()
    assert relay.usage is not None
    assert relay.usage.input_tokens == 2130
