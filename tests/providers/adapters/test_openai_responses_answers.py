"""Whole answers of OpenAI's Responses API: what is read of them, and what their usage comes to."""

from __future__ import annotations

import json
from typing import Any

import pytest

from providers.adapters.openai import OpenAIAdapter
from providers.adapters.types import (
    ChatResponse,
    Citation,
    Dialect,
    Endpoint,
    Image,
    Media,
    Opaque,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
)
from providers.errors import InvalidResponse, UpstreamRefusal
from tests.providers.adapters.assembly import assemble
from tests.providers.adapters.responses_wire import (
    ADAPTER,
    FAILED,
    OUTPUT,
    SPENT,
    asked,
    events_of,
    parse,
    relayed,
    stream_of,
    whole,
    wire,
)


def test_a_whole_answer_is_read() -> None:
    answer = whole(wire())
    note = {k: v for k, v in OUTPUT[4]["content"][0]["annotations"][0].items() if k != "type"}
    (choice,) = answer.choices
    assert choice.parts == (
        Reasoning(text="first\n\nsecond", signature="sealed", id="rs_1"),
        Reasoning(redacted="blob", id="rs_2"),
        Opaque(Dialect.RESPONSES, OUTPUT[2]),
        Opaque(Dialect.RESPONSES, OUTPUT[3]),
        Text(
            "Grüße 🙂",
            citations=(Citation(url="https://e.org", title="E", raw={"type": "url_citation", "url_citation": note}),),
        ),
        Refusal("no"),
        Image(Media(mime="image/png", data="QQ==")),
        ToolCall("c1", "weather", '{"a":"\\""}'),
        ToolCall("c2", "script", '{"input":"say"}'),
    )
    assert choice.finish == "tool_calls"
    assert choice.logprobs is not None
    assert [token.token for token in choice.logprobs] == ["Gr"]
    assert (answer.id, answer.model, answer.created, answer.usage) == ("resp_1", "o3-pro-1", 5, SPENT)


@pytest.mark.parametrize(
    ("status", "reason", "finish"),
    [
        ("completed", None, "stop"),
        ("incomplete", "max_output_tokens", "length"),
        ("incomplete", "content_filter", "content_filter"),
    ],
)
def test_why_it_ended(status: str, reason: str | None, finish: str) -> None:
    body = wire(status=status, incomplete_details={"reason": reason} if reason else None, output=OUTPUT[:5])
    assert whole(body).choices[0].finish == finish
    parsed = parse(stream_of(events_of(body)))
    assert assemble(parsed).choices[0].finish == finish


def test_an_answer_that_failed_is_an_error_with_the_status_that_was_meant() -> None:
    body = json.dumps(wire(status="failed", error=FAILED, output=[])).encode()
    for read in (lambda: ADAPTER.parse_response(asked(), body), lambda: ADAPTER.read_usage(Endpoint.RESPONSES, body)):
        with pytest.raises(UpstreamRefusal) as caught:
            read()
        assert (caught.value.status, caught.value.code) == (429, "rate_limit_exceeded")


@pytest.mark.parametrize(
    "body", [b"<html>", b"[]", b"{}", b'{"object":"response","status":"completed"}', b'{"output":3}']
)
def test_what_is_no_answer_is_not_taken_for_one(body: bytes) -> None:
    for read in (lambda: ADAPTER.parse_response(asked(), body), lambda: ADAPTER.read_usage(Endpoint.RESPONSES, body)):
        with pytest.raises(InvalidResponse):
            read()


def test_an_answer_still_under_way_is_not_taken_for_one() -> None:
    with pytest.raises(InvalidResponse, match="queued"):
        whole(wire(status="queued", output=[]))


# --- usage


def test_a_relayed_answers_usage_is_exact() -> None:
    body = json.dumps(wire()).encode()
    assert OpenAIAdapter().read_usage(Endpoint.RESPONSES, body) == SPENT
    counted = {**wire(), "tool_usage": {"web_search": {"num_requests": 3}}}
    usage = OpenAIAdapter().read_usage(Endpoint.RESPONSES, json.dumps(counted).encode())
    assert usage is not None
    assert usage.units == {"search": 3}, "the vendor's own count, where it gives one"


@pytest.mark.parametrize(
    ("usage", "flag"),
    [
        ({"input_tokens": -1, "output_tokens": 2}, "negative"),
        ({"input_tokens": "many", "output_tokens": 2}, "text"),
        ({"input_tokens": 5}, "missing"),
        ({"input_tokens": 5, "output_tokens": 10**18}, "huge"),
        ({"input_tokens": 5, "output_tokens": 0}, "zero"),
        ({"input_tokens": 5, "output_tokens": 2, "input_tokens_details": {"cached_tokens": 9}}, "inconsistent"),
        ("lots", "text"),
    ],
)
def test_senseless_figures_are_flagged_and_never_raise(usage: Any, flag: str) -> None:
    body = {**wire(), "usage": usage}
    for read in (
        OpenAIAdapter().read_usage(Endpoint.RESPONSES, json.dumps(body).encode()),
        whole(body).usage,
        relayed(stream_of(events_of(body)))[1].usage,
        assemble(parse(stream_of(events_of(body)))).usage,
    ):
        assert read is not None
        assert flag in read.flags


def test_an_answer_without_usage_says_so() -> None:
    body = {**wire(), "usage": None}
    assert OpenAIAdapter().read_usage(Endpoint.RESPONSES, json.dumps(body).encode()) is None
    assert whole(body).usage is None


def test_an_answer_relayed_without_usage_can_be_measured() -> None:
    """The pipeline then reads the answer itself: its adapter must know it from a chat completion."""
    given = asked(extra_dialect=Dialect.RESPONSES)
    answer = OpenAIAdapter().parse_response(given, json.dumps(wire()).encode())
    assert isinstance(answer, ChatResponse)
    assert answer.choices == whole(wire()).choices
