"""Whatever a provider puts into its usage becomes sane, flagged, and never nothing where something was generated (U2).

Each shape is read four ways: from a whole answer and from a stream, passed through and translated. All four agree.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from providers.adapters.anthropic import AnthropicAdapter
from providers.adapters.base import Adapter, Head
from providers.adapters.events import StreamEvent, UsageSeen
from providers.adapters.gemini import GeminiAdapter
from providers.adapters.openai import OpenAIAdapter
from providers.adapters.types import ChatRequest, ChatResponse, Endpoint, Message, Text, Usage

REQUEST = ChatRequest(model="m", messages=(Message(role="user", parts=(Text("x"),)),))
SAID = "hello big world"


@dataclass(frozen=True)
class Wire:
    """`whole` and `stream` build an answer that says `SAID` (or nothing) around the usage objects given."""

    adapter: Adapter
    endpoint: Endpoint
    whole: Callable[[Any, str], bytes]
    stream: Callable[[list[Any], str], bytes]


def _openai_whole(usage: Any, said: str) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
    return json.dumps({"id": "c", "model": "m", "choices": [choice], "usage": usage}).encode()


def _openai_stream(usages: list[Any], said: str) -> bytes:
    frames = [{"choices": [{"index": 0, "delta": {"content": said}}], "usage": usage} for usage in usages[:-1]]
    if len(usages) == 1:
        frames.append({"choices": [{"index": 0, "delta": {"content": said}}], "usage": None})
    frames.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": None})
    frames.append({"choices": [], "usage": usages[-1]})
    return b"".join(b"data: " + json.dumps(frame).encode() + b"\n\n" for frame in frames) + b"data: [DONE]\n\n"


def _anthropic_whole(usage: Any, said: str) -> bytes:
    content = [{"type": "text", "text": said}] if said else []
    return json.dumps(
        {"id": "m", "type": "message", "model": "m", "content": content, "stop_reason": "end_turn", "usage": usage}
    ).encode()


def _anthropic_stream(usages: list[Any], said: str) -> bytes:
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"id": "m", "model": "m", "content": [], "usage": usages[0]}}
    ]
    if said:
        events += [
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": said}},
            {"type": "content_block_stop", "index": 0},
        ]
    events += [
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage}
        for usage in usages[1:] or [None]
    ]
    events.append({"type": "message_stop"})
    return b"".join(
        b"event: " + event["type"].encode() + b"\ndata: " + json.dumps(event).encode() + b"\n\n" for event in events
    )


def _gemini_chunk(usage: Any, said: str, **more: Any) -> dict[str, Any]:
    content = {"content": {"role": "model", "parts": [{"text": said}]}} if said else {}
    return {"candidates": [{"index": 0, **content, **more}], "usageMetadata": usage}


def _gemini_whole(usage: Any, said: str) -> bytes:
    return json.dumps(_gemini_chunk(usage, said, finishReason="STOP")).encode()


def _gemini_stream(usages: list[Any], said: str) -> bytes:
    chunks = [_gemini_chunk(usage, said) for usage in usages[:-1]]
    last = said if len(usages) == 1 else ""
    chunks.append(_gemini_chunk(usages[-1], last, finishReason="STOP"))
    return b"".join(b"data: " + json.dumps(chunk).encode() + b"\r\n\r\n" for chunk in chunks)


OPENAI = Wire(OpenAIAdapter(), Endpoint.CHAT, _openai_whole, _openai_stream)
ANTHROPIC = Wire(AnthropicAdapter(), Endpoint.MESSAGES, _anthropic_whole, _anthropic_stream)
GEMINI = Wire(GeminiAdapter(), Endpoint.GENERATE, _gemini_whole, _gemini_stream)


def _last(events: list[StreamEvent]) -> Usage | None:
    seen = [event.usage for event in events if isinstance(event, UsageSeen)]
    return seen[-1] if seen else None


def streamed(wire: Wire, usages: list[Any], said: str, size: int = 10**6) -> list[Usage | None]:
    """What the relay and the parser make of it."""
    raw = wire.stream(usages, said)
    pieces = [raw[at : at + size] for at in range(0, len(raw), size)]
    relay, parser = wire.adapter.relay(Head(endpoint=wire.endpoint, model="m")), wire.adapter.stream_parser(REQUEST)
    events: list[StreamEvent] = []
    for piece in pieces:
        relay.feed(piece)
        events += parser.feed(piece)
    relay.close()
    return [relay.usage, _last(events + parser.close())]


def whole(wire: Wire, usage: Any, said: str) -> list[Usage | None]:
    raw = wire.whole(usage, said)
    answer = wire.adapter.parse_response(REQUEST, raw)
    assert isinstance(answer, ChatResponse)
    return [wire.adapter.read_usage(wire.endpoint, raw), answer.usage]


def openai(given: Any, written: Any, **more: Any) -> dict[str, Any]:
    return {"prompt_tokens": given, "completion_tokens": written, **more}


def anthropic(given: Any, written: Any, **more: Any) -> dict[str, Any]:
    return {"input_tokens": given, "output_tokens": written, **more}


def gemini(given: Any, written: Any, **more: Any) -> dict[str, Any]:
    return {"promptTokenCount": given, "candidatesTokenCount": written, **more}


BUILDERS: list[tuple[Wire, Callable[..., dict[str, Any]]]] = [
    (OPENAI, openai),
    (ANTHROPIC, anthropic),
    (GEMINI, gemini),
]
IDS = ["openai", "anthropic", "gemini"]


@pytest.mark.parametrize(("wire", "usage"), BUILDERS, ids=IDS)
@pytest.mark.parametrize(
    ("value", "count", "flag"),
    [
        (12, 12, None),
        (12.0, 12, None),
        (0, 0, "zero"),
        (None, 0, "missing"),
        (-3, 0, "negative"),
        (2.5, 0, "not_integer"),
        (10**18, 0, "huge"),
        (1e18, 0, "huge"),
        ("12", 0, "text"),
        ("many", 0, "text"),
        (True, 0, "text"),
        ([12], 0, "text"),
        ({"a": 1}, 0, "text"),
    ],
)
@pytest.mark.parametrize("side", ["input", "output"])
def test_a_figure_that_is_none_is_flagged_and_the_other_stays(  # noqa: PLR0913 (the table's columns)
    wire: Wire, usage: Callable[..., dict[str, Any]], value: Any, count: int, flag: str | None, side: str
) -> None:
    told = usage(value, 7) if side == "input" else usage(7, value)
    expected = (count, 7) if side == "input" else (7, count)
    for found in (*whole(wire, told, SAID), *streamed(wire, [told], SAID), *streamed(wire, [told], SAID, 1)):
        assert found is not None
        assert (found.input_tokens, found.output_tokens) == expected
        assert found.flags == (() if flag is None else (flag,))


@pytest.mark.parametrize(("wire", "usage"), BUILDERS, ids=IDS)
def test_nothing_written_is_no_fault_where_nothing_was(wire: Wire, usage: Callable[..., dict[str, Any]]) -> None:
    told = usage(7, 0)
    for found in (*whole(wire, told, ""), *streamed(wire, [told, told], ""), *streamed(wire, [told, told], "", 1)):
        assert found == Usage(input_tokens=7)


@pytest.mark.parametrize(("wire", "usage"), BUILDERS, ids=IDS)
@pytest.mark.parametrize("told", [None, "lots", [], 5, True])
def test_a_usage_that_is_no_object_is_none_or_flagged(wire: Wire, usage: object, told: Any) -> None:
    for found in (*whole(wire, told, SAID), *streamed(wire, [told], SAID)):
        assert found is None or found.flags
        assert found is None or (found.input_tokens, found.output_tokens) == (0, 0)


@pytest.mark.parametrize(("wire", "usage"), BUILDERS, ids=IDS)
@pytest.mark.parametrize(
    ("outputs", "expected", "flags"),
    [
        ([1, 5, 12], 12, ()),
        ([12, 12], 12, ()),
        ([0, 12], 12, ()),
        ([12, 3], 12, ("decreasing",)),
        ([5, 12, 3], 12, ("decreasing",)),
        ([12, 0], 12, ("decreasing",)),
    ],
)
def test_of_totals_so_far_the_last_counts_and_none_shrinks(
    wire: Wire, usage: Callable[..., dict[str, Any]], outputs: list[int], expected: int, flags: tuple[str, ...]
) -> None:
    told = [usage(7, output) for output in outputs]
    for size in (1, 7, 10**6):
        for found in streamed(wire, told, SAID, size):
            assert found is not None
            assert (found.input_tokens, found.output_tokens, found.flags) == (7, expected, flags)


@pytest.mark.parametrize(("wire", "usage"), BUILDERS, ids=IDS)
@pytest.mark.parametrize("last", [-4, "many", 10**18, 2.5, True])
def test_a_last_figure_that_is_none_does_not_undo_a_good_one(
    wire: Wire, usage: Callable[..., dict[str, Any]], last: Any
) -> None:
    for found in streamed(wire, [usage(7, 12), usage(7, last)], SAID):
        assert found is not None
        assert (found.input_tokens, found.output_tokens) == (7, 12)
        assert found.flags


@pytest.mark.parametrize(("wire", "usage"), BUILDERS, ids=IDS)
def test_input_that_shrinks_is_not_believed(wire: Wire, usage: Callable[..., dict[str, Any]]) -> None:
    for found in streamed(wire, [usage(90, 3), usage(7, 12)], SAID):
        assert found is not None
        assert (found.input_tokens, found.output_tokens, found.flags) == (90, 12, ("decreasing",))


@pytest.mark.parametrize(
    ("wire", "name"), [(OPENAI, "usage"), (ANTHROPIC, "usage"), (GEMINI, "usageMetadata")], ids=IDS
)
def test_a_usage_given_twice_counts_once(wire: Wire, name: str) -> None:
    builder = dict(zip(IDS, (openai, anthropic, gemini), strict=True))[IDS[[OPENAI, ANTHROPIC, GEMINI].index(wire)]]
    raw = wire.whole(builder(7, 12), SAID)
    doubled = raw[:-1] + b"," + json.dumps({name: builder(7, 12)}).encode()[1:]
    assert wire.adapter.read_usage(wire.endpoint, doubled) == Usage(input_tokens=7, output_tokens=12)


KINDS: list[tuple[str, Wire, dict[str, Any], Usage]] = [
    (
        "OpenAI's cached tokens are a subset",
        OPENAI,
        openai(100, 20, prompt_tokens_details={"cached_tokens": 60, "audio_tokens": 10}),
        Usage(input_tokens=100, output_tokens=20, cache_read_tokens=60, audio_input_tokens=10),
    ),
    (
        "OpenAI's reasoning, audio and pictures are a subset",
        OPENAI,
        openai(9, 90, completion_tokens_details={"reasoning_tokens": 30, "audio_tokens": 20, "image_tokens": 10}),
        Usage(input_tokens=9, output_tokens=90, reasoning_tokens=30, audio_output_tokens=20, image_output_tokens=10),
    ),
    (
        "predictions that were not taken are in the total",
        OPENAI,
        openai(9, 90, completion_tokens_details={"rejected_prediction_tokens": 40, "accepted_prediction_tokens": 10}),
        Usage(input_tokens=9, output_tokens=90),
    ),
    (
        "Perplexity's searches",
        OPENAI,
        openai(9, 9, num_search_queries=3),
        _searched := Usage(input_tokens=9, output_tokens=9, units={"search": 3}),
    ),
    ("xAI's sources", OPENAI, openai(9, 9, num_sources_used=3), _searched),
    ("OpenRouter's searches", OPENAI, openai(9, 9, server_tool_use={"web_search_requests": 3}), _searched),
    (
        "details that are no objects",
        OPENAI,
        openai(9, 9, prompt_tokens_details="none", completion_tokens_details=[1], server_tool_use=4),
        Usage(input_tokens=9, output_tokens=9),
    ),
    (
        "a detail that is no count",
        OPENAI,
        openai(9, 9, prompt_tokens_details={"cached_tokens": "many"}),
        Usage(input_tokens=9, output_tokens=9, flags=("text",)),
    ),
    (
        "more cached than given",
        OPENAI,
        openai(9, 9, prompt_tokens_details={"cached_tokens": 90}),
        Usage(input_tokens=9, output_tokens=9, cache_read_tokens=9, flags=("inconsistent",)),
    ),
    (
        "Anthropic's cached tokens come on top",
        ANTHROPIC,
        anthropic(10, 20, cache_read_input_tokens=600, cache_creation_input_tokens=300),
        Usage(input_tokens=910, output_tokens=20, cache_read_tokens=600, cache_write_tokens=300),
    ),
    (
        "writes of five minutes and of an hour",
        ANTHROPIC,
        anthropic(
            10,
            20,
            cache_creation_input_tokens=300,
            cache_creation={"ephemeral_5m_input_tokens": 200, "ephemeral_1h_input_tokens": 100},
        ),
        Usage(input_tokens=310, output_tokens=20, cache_write_tokens=300, cache_write_1h_tokens=100),
    ),
    (
        "the split of the writes without their sum",
        ANTHROPIC,
        anthropic(10, 20, cache_creation={"ephemeral_5m_input_tokens": 200, "ephemeral_1h_input_tokens": 100}),
        Usage(input_tokens=310, output_tokens=20, cache_write_tokens=300, cache_write_1h_tokens=100),
    ),
    (
        "a prompt that was in the cache whole",
        ANTHROPIC,
        anthropic(0, 20, cache_read_input_tokens=600),
        Usage(input_tokens=600, output_tokens=20, cache_read_tokens=600),
    ),
    (
        "Anthropic's searches",
        ANTHROPIC,
        anthropic(10, 20, server_tool_use={"web_search_requests": 2, "web_fetch_requests": 5}),
        Usage(input_tokens=10, output_tokens=20, units={"search": 2}),
    ),
    (
        "thinking is part of the output",
        ANTHROPIC,
        anthropic(10, 20, output_tokens_details={"thinking_tokens": 15}),
        Usage(input_tokens=10, output_tokens=20, reasoning_tokens=15),
    ),
    (
        "a summary of the conversation is beside the totals",
        ANTHROPIC,
        anthropic(
            10,
            20,
            iterations=[
                {"type": "compaction", "input_tokens": 1000, "output_tokens": 300, "cache_read_input_tokens": 50},
                {"type": "message", "input_tokens": 10, "output_tokens": 20},
            ],
        ),
        Usage(input_tokens=1060, output_tokens=320),
    ),
    (
        "nested objects that are none",
        ANTHROPIC,
        anthropic(10, 20, cache_creation=[1], server_tool_use="two", output_tokens_details=None, iterations={"a": 1}),
        Usage(input_tokens=10, output_tokens=20),
    ),
    (
        "Gemini's thoughts and tools come on top, cached tokens do not",
        GEMINI,
        gemini(100, 20, thoughtsTokenCount=30, toolUsePromptTokenCount=40, cachedContentTokenCount=60),
        Usage(input_tokens=140, output_tokens=50, cache_read_tokens=60, reasoning_tokens=30),
    ),
    (
        "Gemini's sound and pictures",
        GEMINI,
        gemini(
            100,
            90,
            promptTokensDetails=[{"modality": "TEXT", "tokenCount": 60}, {"modality": "AUDIO", "tokenCount": 40}],
            candidatesTokensDetails=[{"modality": "IMAGE", "tokenCount": 70}, {"modality": "AUDIO", "tokenCount": 5}],
        ),
        Usage(
            input_tokens=100,
            output_tokens=90,
            audio_input_tokens=40,
            audio_output_tokens=5,
            image_output_tokens=70,
        ),
    ),
    (
        "an answer beside thoughts of which nothing is told",
        GEMINI,
        {"promptTokenCount": 9, "thoughtsTokenCount": 30},
        Usage(input_tokens=9, output_tokens=30, reasoning_tokens=30, flags=("missing",)),
    ),
    (
        "details that are none",
        GEMINI,
        gemini(9, 9, promptTokensDetails={"modality": "AUDIO"}, candidatesTokensDetails=["AUDIO"]),
        Usage(input_tokens=9, output_tokens=9),
    ),
]


@pytest.mark.parametrize(("wire", "told", "expected"), [case[1:] for case in KINDS], ids=[case[0] for case in KINDS])
def test_every_kind_of_unit_is_counted_once(wire: Wire, told: dict[str, Any], expected: Usage) -> None:
    for found in (*whole(wire, told, SAID), *streamed(wire, [told], SAID), *streamed(wire, [told], SAID, 1)):
        assert found == expected


def test_anthropics_parts_come_early_and_its_totals_late() -> None:
    start = anthropic(10, 1, cache_read_input_tokens=600, cache_creation={"ephemeral_1h_input_tokens": 100})
    for end in ({"output_tokens": 20}, {"output_tokens": 20, "cache_read_input_tokens": None}):
        for found in streamed(ANTHROPIC, [start, end], SAID):
            assert found == Usage(
                input_tokens=710,
                output_tokens=20,
                cache_read_tokens=600,
                cache_write_tokens=100,
                cache_write_1h_tokens=100,
            )


def test_searches_that_shrink_are_not_believed() -> None:
    told = [
        anthropic(10, 1, server_tool_use={"web_search_requests": 2}),
        {"server_tool_use": {"web_search_requests": 0}},
    ]
    for found in streamed(ANTHROPIC, told, SAID):
        assert found is not None
        assert (found.units, found.flags) == ({"search": 2}, ("decreasing",))


def test_geminis_searches_are_counted_wherever_in_the_stream_they_stand() -> None:
    grounded = _gemini_chunk(gemini(7, 5), SAID, groundingMetadata={"webSearchQueries": ["a", "b"]})
    last = _gemini_chunk(gemini(7, 9), "", finishReason="STOP")
    raw = b"".join(b"data: " + json.dumps(chunk).encode() + b"\r\n\r\n" for chunk in (grounded, last))
    relay, parser = (
        GEMINI.adapter.relay(Head(endpoint=Endpoint.GENERATE, model="m")),
        GEMINI.adapter.stream_parser(REQUEST),
    )
    relay.feed(raw)
    relay.close()
    events = parser.feed(raw) + parser.close()
    expected = Usage(input_tokens=7, output_tokens=9, units={"search": 2})
    assert [relay.usage, _last(events)] == [expected, expected]


def test_embeddings_of_no_tokens_are_not_believed() -> None:
    body = {"data": [{"embedding": [0.5], "index": 0}], "usage": {"prompt_tokens": 0}}
    found = OPENAI.adapter.read_usage(Endpoint.EMBEDDINGS, json.dumps(body).encode())
    assert found == Usage(flags=("zero",))
