"""Streams of OpenAI's Responses API, translated and relayed: alike however they are cut, never whole when broken."""

from __future__ import annotations

import json
from typing import Any

import pytest

from providers.adapters.base import Head, Numbered
from providers.adapters.events import TextDelta
from providers.adapters.openai import OpenAIAdapter
from providers.adapters.openai_responses_relay import ResponsesRelay
from providers.adapters.types import Endpoint, Image, Opaque, Reasoning, Refusal, Text, ToolCall
from providers.errors import InvalidResponse, UpstreamCut, UpstreamError, UpstreamRefusal
from tests.providers.adapters.assembly import assemble
from tests.providers.adapters.responses_wire import (
    ADAPTER,
    FAILED,
    SPENT,
    asked,
    events_of,
    parse,
    relayed,
    stream_of,
    whole,
    wire,
)


def test_a_stream_says_what_the_whole_answer_says() -> None:
    streamed, answer = assemble(parse(stream_of(events_of(wire())))), whole(wire())
    one, other = streamed.choices[0], answer.choices[0]

    def alike(parts: Any) -> list[Any]:
        texts = [part.text for part in parts if isinstance(part, Text)]
        thoughts = [(part.text, part.signature, part.redacted) for part in parts if isinstance(part, Reasoning)]
        rest = [part for part in parts if isinstance(part, ToolCall | Refusal | Image | Opaque)]
        return ["".join(texts), thoughts, sorted(rest, key=repr)]

    assert alike(one.parts) == alike(other.parts)
    assert (one.finish, streamed.usage) == (other.finish, answer.usage)
    told = [event.logprobs for event in parse(stream_of(events_of(wire()))) if isinstance(event, TextDelta)]
    assert told[0] == other.logprobs
    assert (streamed.id, streamed.model, streamed.created) == (answer.id, answer.model, answer.created)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1021])
def test_how_a_stream_is_cut_changes_nothing(size: int) -> None:
    data = stream_of(events_of(wire()))
    assert parse(data, size) == parse(data)
    assert parse(data.replace(b"\n", b"\r\n"), size) == parse(data)
    out, relay = relayed(data, size)
    assert (out, relay.usage, relay.ended) == (data, SPENT, True)
    assert (relay.frames, relay.text_bytes) == (relayed(data)[1].frames, relayed(data)[1].text_bytes)


def test_a_relay_counts_what_was_generated() -> None:
    _, relay = relayed(stream_of(events_of(wire())))
    # Text, refusal, arguments of both tools, one image; the summary is a retelling.
    assert relay.frames == 2 + 1 + 2 + 1 + 1
    said = "Grüße 🙂nosayfirstsecond"
    assert relay.text_bytes == len(said.encode()) + len('{\\"a\\":\\"\\\\\\"\\"}')


def test_calls_whose_arguments_come_only_at_the_end_are_whole() -> None:
    told = [event for event in events_of(wire()) if not event["type"].endswith(("arguments.delta", "item.added"))]
    calls = [part for part in assemble(parse(stream_of(told))).choices[0].parts if isinstance(part, ToolCall)]
    assert [call.arguments for call in calls] == ['{"a":"\\""}', '{"input":"say"}']


BROKEN: dict[str, tuple[bytes, type[UpstreamError]]] = {
    "error event": (
        b'event: error\ndata: {"type":"error","code":"rate_limit_exceeded","message":"slow down","param":null}\n\n',
        UpstreamRefusal,
    ),
    "nested error": (
        b'data: {"type":"error","error":{"code":"rate_limit_exceeded","message":"slow down"}}\n\n',
        UpstreamRefusal,
    ),
    "error of another server": (
        b'data: {"error":{"code":"rate_limit_exceeded","message":"slow down"}}\n\n',
        UpstreamRefusal,
    ),
    "failed": (
        stream_of([{"type": "response.failed", "response": wire(status="failed", error=FAILED, output=[])}]),
        UpstreamRefusal,
    ),
    "torn": (b'data: {"type":"response.output_te\n\n', InvalidResponse),
    "cut": (b"", UpstreamCut),
}


@pytest.mark.parametrize("size", [None, 1])
@pytest.mark.parametrize("how", BROKEN)
def test_a_stream_that_breaks_is_never_taken_for_whole(how: str, size: int | None) -> None:
    tail, raised = BROKEN[how]
    good = stream_of(events_of(wire())[:30])
    for read in (parse, relayed):
        with pytest.raises(raised) as caught:
            read(good + tail, size)
        if isinstance(caught.value, UpstreamRefusal):
            assert (caught.value.status, str(caught.value)) == (429, "slow down")


def test_what_comes_before_an_error_still_counts() -> None:
    good, error = stream_of(events_of(wire())[:30]), BROKEN["error event"][0]
    relay = OpenAIAdapter().relay(Head(endpoint=Endpoint.RESPONSES, model="m", stream=True))
    assert relay.feed(good + error) == good
    with pytest.raises(UpstreamRefusal):
        relay.feed(b": more\n\n")
    parser = ADAPTER.stream_parser(asked())
    assert parser.feed(good + error)
    with pytest.raises(UpstreamRefusal):
        parser.close()


def test_words_of_an_end_in_a_text_are_no_end() -> None:
    said = 'event: response.completed\ndata: {"type":"response.completed"} "error"'
    told = {"type": "response.output_text.delta", "delta": said, "item_id": "m", "output_index": 0}
    data = stream_of([events_of(wire())[0], told])
    relay = OpenAIAdapter().relay(Head(endpoint=Endpoint.RESPONSES, model="m", stream=True))
    assert relay.feed(data) == data
    assert not relay.ended
    with pytest.raises(UpstreamCut):
        relay.close()


def test_comments_pass_and_nothing_passes_after_the_end() -> None:
    data = b": ping\n\n" + stream_of(events_of(wire()))
    assert relayed(data + b"data: [DONE]\n\n")[0] == data
    assert parse(data + b"data: [DONE]\n\n") == parse(data)


def test_a_page_in_place_of_a_stream_is_no_answer() -> None:
    for read in (parse, relayed):
        with pytest.raises((InvalidResponse, UpstreamCut)):
            read(b"<html><title>Busy</title></html>", None)


def test_a_failed_answer_tells_what_it_used() -> None:
    failed = {"status": "failed", "output": [], "error": {"code": "server_error", "message": "late"}}
    for usage, found in (({"input_tokens": 7, "output_tokens": 3}, (7, 3)), (None, None)):
        event = {"type": "response.failed", "response": {**failed, "usage": usage}}
        relay, told = ResponsesRelay(), b"data: " + json.dumps(event).encode() + b"\n\n"
        with pytest.raises(UpstreamError) as passed_on:
            relay.feed(told)
        with pytest.raises(UpstreamError) as translated:
            parse(told)
        for error in (passed_on.value, translated.value):
            assert (error.usage and (error.usage.input_tokens, error.usage.output_tokens)) == found
            assert error.billed == ("maybe" if found else "no")
        assert (relay.usage and (relay.usage.input_tokens, relay.usage.output_tokens)) == found


def test_a_relay_knows_the_number_of_the_event_that_comes_next() -> None:
    events = events_of(wire())
    relay = OpenAIAdapter().relay(Head(endpoint=Endpoint.RESPONSES, model="m", stream=True))
    assert isinstance(relay, Numbered)
    assert relay.next_number() == 0
    for event in events[:-1]:
        relay.feed(stream_of([event]) + b": a comment\n\n")
        assert relay.next_number() == event["sequence_number"] + 1
    relay.feed(b'data: {"type":"response.odd","text":"\\"sequence_number\\":77"}\n\n')
    assert relay.next_number() == 0  # a provider that numbers nothing
