"""What Cohere answers, whole and in streams; money is counted by hand from the documented shapes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from providers.adapters.cohere import CohereAdapter
from providers.adapters.events import TextDelta, UsageSeen
from providers.adapters.types import (
    ChatRequest,
    ChatResponse,
    EmbeddingRequest,
    EmbeddingResponse,
    Message,
    Reasoning,
    Text,
    TokenLogprob,
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
    UpstreamError,
)
from tests.conformance.wires import cohere
from tests.providers.adapters.assembly import assemble, parse_in_pieces
from usage.rates import PriceRow, compile_rates, cost

ADAPTER = CohereAdapter()
ASKED = ChatRequest(model="r", messages=(Message("user", (Text("Hi"),)),))
BILLED = {
    "billed_units": {"input_tokens": 40, "output_tokens": 12},
    "tokens": {"input_tokens": 537, "output_tokens": 14},
    "cached_tokens": 16,
}


def whole(message: dict[str, Any], **more: Any) -> ChatResponse:
    body = {"id": "c-1", "finish_reason": "COMPLETE", "message": {"role": "assistant", **message}, "usage": BILLED}
    answer = ADAPTER.parse_response(ASKED, json.dumps({**body, **more}).encode())
    assert isinstance(answer, ChatResponse)
    return answer


def frames(*events: dict[str, Any]) -> bytes:
    return b"".join(b"event: %b\ndata: %b\n\n" % (e["type"].encode(), json.dumps(e).encode()) for e in events)


START = {"type": "message-start", "id": "c-1", "delta": {"message": {"role": "assistant"}}}
SAID = {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": "Hel"}}}}
END = {"type": "message-end", "id": "c-1", "delta": {"finish_reason": "COMPLETE", "usage": BILLED}}

# --- usage --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "usage"),
    [
        # What is billed is metered; the 497 tokens of Cohere's own preamble and 2 end markers are not.
        (BILLED, Usage(input_tokens=40, output_tokens=12, cache_read_tokens=16)),
        # Of 512 cached tokens at most the 40 billed ones can be discounted.
        ({**BILLED, "cached_tokens": 512}, Usage(input_tokens=40, output_tokens=12, cache_read_tokens=40)),
        ({**BILLED, "cached_tokens": None}, Usage(input_tokens=40, output_tokens=12)),
        # Nothing billed is said: the counted tokens are the best there is.
        ({"tokens": {"input_tokens": 9.0, "output_tokens": 3.0}}, Usage(input_tokens=9, output_tokens=3)),
        (
            {"billed_units": {"input_tokens": 4, "output_tokens": 2, "search_units": 1}},
            Usage(input_tokens=4, output_tokens=2, units={"search": 1}),
        ),
        ({"billed_units": {"input_tokens": 4}}, Usage(input_tokens=4, flags=("missing",))),
        ({"billed_units": {"input_tokens": -1, "output_tokens": 2}}, Usage(output_tokens=2, flags=("negative",))),
        ({"billed_units": {"input_tokens": "4", "output_tokens": 2}}, Usage(output_tokens=2, flags=("text",))),
        ({}, Usage(flags=("missing",))),
        ("none", Usage(flags=("text",))),
        (None, None),
    ],
)
def test_billed_units_are_what_is_metered(raw: Any, usage: Usage | None) -> None:
    answer = whole({"content": [{"type": "text", "text": "Hello"}]}, usage=raw)
    assert answer.usage == usage
    last = {"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": raw}}
    parser = ADAPTER.stream_parser(ASKED)
    seen = [event.usage for event in parser.feed(frames(START, SAID, last)) if isinstance(event, UsageSeen)]
    assert seen == ([] if usage is None else [usage])


def test_what_an_answer_costs_is_what_is_billed(price: PriceRow) -> None:
    usage = whole({"content": [{"type": "text", "text": "Hello"}]}).usage
    assert usage is not None
    # command-a: $2.50 and $10 a million. 40 x 2,500 + 12 x 10,000 nano-dollars; there is no price for cached tokens.
    assert cost(usage, price).nanos == 40 * 2_500 + 12 * 10_000 == 220_000


@pytest.fixture
def price() -> PriceRow:

    rates = compile_rates({"input": [[0, 2_500_000_000]], "output": [[0, 10_000_000_000]]})
    return PriceRow(
        UUID(int=1), "cohere", "command-a", UUID(int=0), datetime(2025, 1, 1, tzinfo=UTC), "catalogue", rates
    )


# --- whole answers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("COMPLETE", "stop"),
        ("STOP_SEQUENCE", "stop_sequence"),
        ("MAX_TOKENS", "length"),
        ("TOOL_CALL", "tool_calls"),
        ("ERROR", "error"),
        ("TIMEOUT", "error"),
        ("SOMETHING_NEW", "stop"),
    ],
)
def test_why_it_ended_is_told(reason: str, finish: str) -> None:
    assert whole({"content": [{"type": "text", "text": "x"}]}, finish_reason=reason).choices[0].finish == finish


def test_a_plan_comes_before_the_calls_it_is_for() -> None:
    function = {"name": "weather", "arguments": '{"city":"Paris"}'}
    calls = [{"id": "c1", "type": "function", "function": function}, {"type": "function", "function": {"name": "f"}}]
    answer = whole({"tool_plan": "I will ask.", "tool_calls": calls}, finish_reason="TOOL_CALL")
    assert answer.choices[0].parts == (
        Reasoning("I will ask."),
        ToolCall("c1", "weather", '{"city":"Paris"}'),
        ToolCall("call_1", "f", "{}"),
    )


def test_citations_belong_to_the_text_they_are_of() -> None:
    sources = [{"type": "tool", "id": "t", "tool_output": {"x": 1}}, {"type": "document", "id": "d", "document": PAGE}]
    cited = {"start": 0, "end": 5, "text": "sunny", "sources": sources}
    content = [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    citations = [{**cited, "content_index": 2}, cited, {**cited, "type": "PLAN"}]
    hm, first, second = whole({"content": content, "citations": citations}).choices[0].parts
    assert hm == Reasoning("Hm.")
    for part in (first, second):
        assert isinstance(part, Text)
        (found,) = part.citations
        assert (found.text, found.url, found.title) == ("sunny", PAGE["url"], PAGE["title"])
    assert second.citations[0].raw == {**cited, "content_index": 2}  # type: ignore[union-attr]


PAGE = {"url": "https://example.org/paris", "title": "Paris"}


def test_a_piece_of_several_tokens_has_the_product_of_their_probabilities() -> None:
    logprobs = [
        {"text": "Hel", "token_ids": [1], "logprobs": [-0.5]},
        {"text": "lo!", "token_ids": [2, 3], "logprobs": [-0.25, -1.0]},
    ]
    answer = whole({"content": [{"type": "text", "text": "Hello!"}]}, logprobs=logprobs)
    assert answer.choices[0].logprobs == (TokenLogprob("Hel", -0.5), TokenLogprob("lo!", -1.25))


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"<html><title>Oops</title>", InvalidResponse),
        (b"", InvalidResponse),
        (b'{"id":"c-1"}', InvalidResponse),
        (b'{"id":"c-1","message":"something broke"}', Overloaded),
        (b'{"id":"c-1","message":{"content":5}}', InvalidResponse),
        (b"\xff\xfe", InvalidResponse),
        (b"[" * 100_000, InvalidResponse),
    ],
)
def test_what_is_no_answer_is_an_error(body: bytes, error: type[UpstreamError]) -> None:
    with pytest.raises(error):
        ADAPTER.parse_response(ASKED, body)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, RequestRejected),
        (401, AuthRejected),
        (403, AuthRejected),
        (404, RequestRejected),
        (422, RequestRejected),
        (429, RateLimited),
        (498, AuthRejected),  # Cohere's "invalid token"
        (500, Overloaded),
        (503, Overloaded),
    ],
)
def test_their_errors_keep_status_and_words(status: int, error: type[UpstreamError]) -> None:
    found = ADAPTER.parse_error(status, {"retry-after": "3"}, b'{"id":"e-1","message":"too many stop sequences"}')
    assert type(found) is error
    assert (found.message, found.retry_after) == ("too many stop sequences", 3.0)
    assert found.status == (401 if status == 498 else status)
    assert "web page" in ADAPTER.parse_error(status, {}, b"<html><h1>Bad</h1></html>").message


# --- streams ------------------------------------------------------------------------------------------------------

LONG = ChatResponse(
    id="c-1",
    model="",
    choices=whole(
        {
            "content": [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "Sünny 🙂"}],
            "citations": [
                {"start": 0, "end": 5, "text": "S", "sources": [], "content_index": 1, "type": "TEXT_CONTENT"}
            ],
        }
    ).choices,
    usage=Usage(input_tokens=40, output_tokens=12),
)
CALLING = ChatResponse(
    id="c-1",
    model="",
    choices=whole(
        {
            "tool_plan": "I will ask.",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"a":"ü"}'}},
                {"id": "c2", "type": "function", "function": {"name": "tides", "arguments": "{}"}},
            ],
        },
        finish_reason="TOOL_CALL",
    ).choices,
    usage=Usage(input_tokens=40, output_tokens=12),
)


@pytest.mark.parametrize("answer", [LONG, CALLING], ids=["said", "called"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 10**6])
def test_a_stream_cut_anywhere_is_the_whole_answer(answer: ChatResponse, size: int) -> None:
    streamed = assemble(parse_in_pieces(ADAPTER.stream_parser(ASKED), cohere.stream(answer), size))
    unstreamed = ADAPTER.parse_response(ASKED, cohere.whole(answer))
    assert isinstance(unstreamed, ChatResponse)
    assert streamed.usage == unstreamed.usage == answer.usage
    bare = [_bare(found) for found in (streamed, unstreamed)]
    assert bare[0] == bare[1]


def _bare(answer: ChatResponse) -> list[Any]:
    """Without what only one of the two knows: where in the text a citation stands."""
    parts = []
    for part in answer.choices[0].parts:
        cited = [(found.text, found.url) for found in part.citations] if isinstance(part, Text) else []
        parts.append((getattr(part, "text", part), cited))
    return [parts, answer.choices[0].finish, answer.id]


def test_a_stream_that_breaks_off_is_no_answer() -> None:
    parser = ADAPTER.stream_parser(ASKED)
    assert parser.feed(frames(START, SAID))[-1] == TextDelta("Hel")
    with pytest.raises(UpstreamCut):
        parser.close()


@pytest.mark.parametrize("together", [True, False])
def test_an_error_at_the_end_is_told_after_what_came_before_it(*, together: bool) -> None:
    failed = {"type": "message-end", "delta": {"finish_reason": "ERROR", "error": "model overloaded", "usage": BILLED}}
    parser = ADAPTER.stream_parser(ASKED)
    if together:
        events = parser.feed(frames(START, SAID, failed))
    else:
        events = parser.feed(frames(START, SAID)) + parser.feed(frames(failed))
    assert TextDelta("Hel") in events
    assert UsageSeen(Usage(input_tokens=40, output_tokens=12, cache_read_tokens=16)) in events
    with pytest.raises(Overloaded, match="model overloaded"):
        parser.close()


@pytest.mark.parametrize(
    ("event", "error"),
    [
        (b'data: {"id":"e","message":"internal error"}\n\n', Overloaded),
        (b"data: {not json}\n\n", InvalidResponse),
        (b'data: {"type":"content-delta","index":"x"}\n\n', InvalidResponse),
        (b"data: [DONE]\n\n", InvalidResponse),
    ],
)
def test_what_is_no_event_is_an_error(event: bytes, error: type[UpstreamError]) -> None:
    parser = ADAPTER.stream_parser(ASKED)
    parser.feed(frames(START))
    with pytest.raises(error):
        parser.feed(event)


def test_unknown_events_and_what_follows_the_end_do_no_harm() -> None:
    parser = ADAPTER.stream_parser(ASKED)
    events = parser.feed(frames(START, {"type": "debug", "prompt": "x"}, SAID, END) + b"data: [DONE]\n\n")
    assert assemble([*events, *parser.close()]).choices[0].parts == (Text("Hel"),)


# --- embeddings ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoding", "embeddings"),
    [("float", {"float": [[0.5, 1.0], [0.25, -1.0]]}), ("base64", {"base64": ["AAAAPwAAgD8=", "AACAPgAAgL8="]})],
)
def test_vectors_come_as_they_were_asked_for(encoding: Any, embeddings: dict[str, Any]) -> None:
    request = EmbeddingRequest(model="r", inputs=("a", "b"), encoding=encoding)
    body = {"id": "e", "embeddings": embeddings, "meta": {"billed_units": {"input_tokens": 6, "image_tokens": 2}}}
    answer = ADAPTER.parse_response(request, json.dumps(body).encode())
    assert isinstance(answer, EmbeddingResponse)
    assert list(answer.vectors) == [tuple(v) if encoding == "float" else v for v in embeddings[encoding]]
    assert answer.usage == Usage(input_tokens=8)  # 6 of text and 2 of images


@pytest.mark.parametrize(
    "embeddings", [{"float": [[0.5]]}, {"base64": ["AAAAPw==", "AAAAPw=="]}, {}, {"float": [["x"], [1]]}]
)
def test_vectors_that_are_not_those_asked_for_are_an_error(embeddings: dict[str, Any]) -> None:
    request = EmbeddingRequest(model="r", inputs=("a", "b"))
    with pytest.raises(InvalidResponse):
        ADAPTER.parse_response(request, json.dumps({"id": "e", "embeddings": embeddings}).encode())
