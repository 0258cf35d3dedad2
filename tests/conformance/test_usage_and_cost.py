"""Each provider's real usage shapes: exact counts, and exact nano-dollars against sums worked out by hand beside them.

Prices are pinned, so that no update of the price data changes a sum; $1 per million tokens is 1,000 nano-dollars each.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from providers.adapters.base import Adapter, Head
from providers.adapters.events import UsageSeen
from providers.adapters.registry import KINDS, adapter_for
from providers.adapters.types import ChatRequest, ChatResponse, Dialect, Endpoint, Message, Text, Usage
from tests.conformance import cells
from tests.conformance.facts import TOLD
from usage.rates import PriceRow, compile_rates, cost

REQUEST = ChatRequest(model="m", messages=(Message(role="user", parts=(Text("x"),)),))
NIL = UUID(int=0)
# Where an answer has its usage, and which of its own dialects' endpoints pass it through.
PLACES = {
    Dialect.OPENAI: ("usage", Endpoint.CHAT),
    Dialect.RESPONSES: ("usage", Endpoint.RESPONSES),
    Dialect.ANTHROPIC: ("usage", Endpoint.MESSAGES),
    Dialect.GEMINI: ("usageMetadata", Endpoint.GENERATE),
    Dialect.COHERE: ("usage", None),
    Dialect.CONVERSE: ("usage", None),
}
GPT_4O = {"input": 2_500, "cache_read": 1_250, "output": 10_000}
SPEECH = {"input": 2_500, "audio_input": 40_000, "output": 10_000, "audio_output": 80_000}
SONNET = {"input": 3_000, "cache_read": 300, "cache_write_5m": 3_750, "cache_write_1h": 6_000, "output": 15_000}
FLASH = {"input": 300, "cache_read": 30, "audio_input": 1_000, "output": 2_500, "image_output": 30_000}


@dataclass(frozen=True)
class Shape:
    """`rates` are nano-dollars for one unit; `dialect` chooses the wire format where the kind has several."""

    name: str
    kind: str
    raw: Mapping[str, Any]
    usage: Usage
    rates: Mapping[str, int]
    nanos: int
    dialect: str = ""
    flags: tuple[str, ...] = field(default=())

    @property
    def adapter(self) -> Adapter:
        return adapter_for(self.kind, {"dialect": self.dialect} if self.dialect else {})


SHAPES = [
    # 86 plain x 2,500 = 215,000; 1,920 cached x 1,250 = 2,400,000; 300 out, 192 of them thoughts, x 10,000 = 3,000,000
    Shape(
        "cached and reasoning",
        "openai",
        {
            "prompt_tokens": 2006,
            "completion_tokens": 300,
            "total_tokens": 2306,
            "prompt_tokens_details": {"cached_tokens": 1920, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 192,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        },
        Usage(input_tokens=2006, output_tokens=300, cache_read_tokens=1920, reasoning_tokens=192),
        GPT_4O,
        5_615_000,
    ),
    # 40 text x 2,500 = 100,000; 60 heard x 40,000 = 2,400,000; 10 text x 10,000 = 100,000; 40 spoken x 80,000 =
    # 3,200,000
    Shape(
        "sound in and out",
        "openai",
        {
            "prompt_tokens": 100,
            "completion_tokens": 50,
            "total_tokens": 150,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 60, "text_tokens": 40, "image_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 40, "text_tokens": 10},
        },
        Usage(input_tokens=100, output_tokens=50, audio_input_tokens=60, audio_output_tokens=40),
        SPEECH,
        5_800_000,
    ),
    # The same sums as the first one: both APIs of OpenAI bill alike
    Shape(
        "the same through responses",
        "openai",
        {
            "input_tokens": 2006,
            "input_tokens_details": {"cached_tokens": 1920},
            "output_tokens": 300,
            "output_tokens_details": {"reasoning_tokens": 192},
            "total_tokens": 2306,
        },
        Usage(input_tokens=2006, output_tokens=300, cache_read_tokens=1920, reasoning_tokens=192),
        GPT_4O,
        5_615_000,
        dialect="responses",
    ),
    # Azure's filter results stand beside the usage and change nothing: 9 x 2,500 = 22,500; 12 x 10,000 = 120,000
    Shape(
        "plain",
        "azure_openai",
        {"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21},
        Usage(input_tokens=9, output_tokens=12),
        GPT_4O,
        142_500,
    ),
    # Beside the cache: 50 x 3,000 = 150,000; 2,000 read x 300 = 600,000; 1,000 written for 5 minutes x 3,750 =
    # 3,750,000; 500 for an hour x 6,000 = 3,000,000; 400 out x 15,000 = 6,000,000. In all 50 + 2,000 + 1,500 came in.
    Shape(
        "both lifetimes of the cache",
        "anthropic",
        {
            "input_tokens": 50,
            "cache_read_input_tokens": 2000,
            "cache_creation_input_tokens": 1500,
            "cache_creation": {"ephemeral_5m_input_tokens": 1000, "ephemeral_1h_input_tokens": 500},
            "output_tokens": 400,
            "service_tier": "standard",
            "inference_geo": "not_available",
        },
        Usage(
            input_tokens=3550,
            output_tokens=400,
            cache_read_tokens=2000,
            cache_write_tokens=1500,
            cache_write_1h_tokens=500,
        ),
        SONNET,
        13_500_000,
    ),
    # Written without saying for how long is for 5 minutes: 10 x 3,000 + 100 x 3,750 + 1 x 15,000
    Shape(
        "a write of no said lifetime",
        "anthropic",
        {
            "input_tokens": 10,
            "cache_read_input_tokens": None,
            "cache_creation_input_tokens": 100,
            "output_tokens": 1,
        },
        Usage(input_tokens=110, output_tokens=1, cache_write_tokens=100),
        SONNET,
        420_000,
    ),
    # Three searches at $10 a thousand are 30,000,000; 100 x 3,000 = 300,000; 200 out, 150 of them thoughts, = 3,000,000
    Shape(
        "searches and thoughts",
        "anthropic",
        {
            "input_tokens": 100,
            "cache_read_input_tokens": 0,
            "cache_creation_input_tokens": 0,
            "output_tokens": 200,
            "output_tokens_details": {"thinking_tokens": 150},
            "server_tool_use": {"web_search_requests": 3, "web_fetch_requests": 1},
            "service_tier": "priority",
        },
        Usage(input_tokens=100, output_tokens=200, reasoning_tokens=150, units={"search": 3}),
        {**SONNET, "search": 10_000_000},
        33_300_000,
    ),
    # What tools were told counts as input: 1,000 + 50, of which 600 cached: 450 x 300 = 135,000; 600 x 30 = 18,000.
    # Thoughts are counted beside the candidates: 100 + 200 = 300 x 2,500 = 750,000
    Shape(
        "cached, thoughts, tools",
        "gemini",
        {
            "promptTokenCount": 1000,
            "cachedContentTokenCount": 600,
            "toolUsePromptTokenCount": 50,
            "candidatesTokenCount": 100,
            "thoughtsTokenCount": 200,
            "totalTokenCount": 1350,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 1000}],
            "cacheTokensDetails": [{"modality": "TEXT", "tokenCount": 600}],
        },
        Usage(input_tokens=1050, output_tokens=300, cache_read_tokens=600, reasoning_tokens=200),
        FLASH,
        903_000,
    ),
    # 20 text x 300 = 6,000; 300 heard x 1,000 = 300,000; 10 x 2,500 = 25,000
    Shape(
        "sound in",
        "gemini",
        {
            "promptTokenCount": 320,
            "candidatesTokenCount": 10,
            "totalTokenCount": 330,
            "promptTokensDetails": [
                {"modality": "TEXT", "tokenCount": 20},
                {"modality": "AUDIO", "tokenCount": 300},
            ],
        },
        Usage(input_tokens=320, output_tokens=10, audio_input_tokens=300),
        FLASH,
        331_000,
    ),
    # 10 x 300 = 3,000; of 1,300 out 1,290 are a picture x 30,000 = 38,700,000; the other 10 x 2,500 = 25,000
    Shape(
        "a picture",
        "gemini",
        {
            "promptTokenCount": 10,
            "candidatesTokenCount": 1300,
            "totalTokenCount": 1310,
            "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 1290}],
        },
        Usage(input_tokens=10, output_tokens=1300, image_output_tokens=1290),
        FLASH,
        38_728_000,
    ),
    # Vertex says how it was served as well: 7 x 300 = 2,100; 3 x 2,500 = 7,500
    Shape(
        "with its kind of traffic",
        "vertex",
        {"promptTokenCount": 7, "candidatesTokenCount": 3, "totalTokenCount": 10, "trafficType": "ON_DEMAND"},
        Usage(input_tokens=7, output_tokens=3),
        FLASH,
        9_600,
        dialect="gemini",
    ),
    # 232 missed the cache x 280 = 64,960; 768 hit it x 28 = 21,504; 100 out, 60 of them thoughts, x 420 = 42,000
    Shape(
        "cache hits and misses",
        "deepseek",
        {
            "prompt_tokens": 1000,
            "completion_tokens": 100,
            "total_tokens": 1100,
            "prompt_cache_hit_tokens": 768,
            "prompt_cache_miss_tokens": 232,
            "completion_tokens_details": {"reasoning_tokens": 60},
        },
        Usage(input_tokens=1000, output_tokens=100, cache_read_tokens=768, reasoning_tokens=60),
        {"input": 280, "cache_read": 28, "output": 420},
        128_464,
    ),
    # xAI counts thoughts beside the completion: the total of 130 is 20 + 10 + 100. 20 x 3,000 + 110 x 15,000
    Shape(
        "thoughts beside the completion",
        "xai",
        {
            "prompt_tokens": 20,
            "completion_tokens": 10,
            "total_tokens": 130,
            "completion_tokens_details": {"reasoning_tokens": 100},
            "num_sources_used": 0,
        },
        Usage(input_tokens=20, output_tokens=110, reasoning_tokens=100),
        {"input": 3_000, "output": 15_000},
        1_710_000,
    ),
    # 14 x 1,000 + 86 x 1,000, and two searches at $5 a thousand
    Shape(
        "searches",
        "perplexity",
        {
            "prompt_tokens": 14,
            "completion_tokens": 86,
            "total_tokens": 100,
            "search_context_size": "low",
            "num_search_queries": 2,
        },
        Usage(input_tokens=14, output_tokens=86, units={"search": 2}),
        {"input": 1_000, "output": 1_000, "search": 5_000_000},
        10_100_000,
    ),
    # Times stand among the counts: 18 x 50 = 900; 556 x 80 = 44,480
    Shape(
        "times among the counts",
        "groq",
        {
            "queue_time": 0.037493756,
            "prompt_tokens": 18,
            "prompt_time": 0.000680594,
            "completion_tokens": 556,
            "completion_time": 0.463333333,
            "total_tokens": 574,
            "total_time": 0.464013927,
        },
        Usage(input_tokens=18, output_tokens=556),
        {"input": 50, "output": 80},
        45_380,
    ),
    # What OpenRouter says it charged is what it charged, rounded up to a nano-dollar: $0.0001234567891 is 123,457
    Shape(
        "the cost itself",
        "openrouter" if "openrouter" in KINDS else "custom",
        {
            "prompt_tokens": 194,
            "completion_tokens": 2,
            "total_tokens": 196,
            "cost": 0.0001234567891,
            "is_byok": False,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "cost_details": {"upstream_inference_cost": None},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
        Usage(input_tokens=194, output_tokens=2, reported_cost=123_457),
        {"input": 1_000_000, "output": 1_000_000},
        123_457,
        flags=("reported",),
    ),
    # Cohere bills what it calls billed, not what it adds itself: 20 x 2,500 = 50,000; 30 x 10,000 = 300,000
    Shape(
        "billed units",
        "cohere",
        {
            "billed_units": {"input_tokens": 20.0, "output_tokens": 30.0},
            "tokens": {"input_tokens": 213.0, "output_tokens": 32.0},
        },
        Usage(input_tokens=20, output_tokens=30),
        {"input": 2_500, "output": 10_000},
        350_000,
    ),
    # Converse counts the cache beside the input: 50 + 2,000 + 1,500; the same sums as Anthropic's own
    Shape(
        "both lifetimes of the cache",
        "bedrock",
        {
            "inputTokens": 50,
            "outputTokens": 400,
            "totalTokens": 3950,
            "cacheReadInputTokens": 2000,
            "cacheWriteInputTokens": 1500,
            "cacheDetails": [{"ttl": "5m", "inputTokens": 1000}, {"ttl": "1h", "inputTokens": 500}],
        },
        Usage(
            input_tokens=3550,
            output_tokens=400,
            cache_read_tokens=2000,
            cache_write_tokens=1500,
            cache_write_1h_tokens=500,
        ),
        SONNET,
        13_500_000,
    ),
    # What one hosts oneself may be given the price 0: 26 x 0 + 298 x 0
    Shape(
        "at no price",
        "vllm",
        {"prompt_tokens": 26, "completion_tokens": 298, "total_tokens": 324, "prompt_tokens_details": None},
        Usage(input_tokens=26, output_tokens=298),
        {"input": 0, "output": 0},
        0,
    ),
]
EVERY_SHAPE = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape.kind}: {shape.name}")


def _whole(shape: Shape) -> bytes:
    place, _ = PLACES[shape.adapter.wire]
    body = json.loads(cells.wire_module(shape.kind, shape.adapter.wire).whole(TOLD))
    assert place in body
    return json.dumps({**body, place: shape.raw}).encode()


@EVERY_SHAPE
def test_a_whole_answers_usage_is_exact(shape: Shape) -> None:
    answer = shape.adapter.parse_response(REQUEST, _whole(shape))
    assert isinstance(answer, ChatResponse)
    assert answer.usage == shape.usage
    endpoint = PLACES[shape.adapter.wire][1]
    if (shape.adapter.wire, endpoint) in shape.adapter.native:
        assert endpoint is not None
        assert shape.adapter.read_usage(endpoint, _whole(shape)) == shape.usage


IN_EVENTS = [shape for shape in SHAPES if shape.adapter.wire is not Dialect.CONVERSE]


@pytest.mark.parametrize("shape", IN_EVENTS, ids=lambda shape: f"{shape.kind}: {shape.name}")
def test_a_streams_usage_is_the_same(shape: Shape) -> None:
    place, endpoint = PLACES[shape.adapter.wire]
    stream = cells.wire_module(shape.kind, shape.adapter.wire).stream(TOLD).decode()

    def rewritten(line: re.Match[str]) -> str:
        return "data: " + json.dumps(_replaced(json.loads(line[1]), place, shape.raw))

    told = re.sub(r"(?m)^data: (\{.*\})\r?$", rewritten, stream).encode()
    assert told != stream.encode()
    parser = shape.adapter.stream_parser(REQUEST)
    seen = [event.usage for event in parser.feed(told) + parser.close() if isinstance(event, UsageSeen)]
    assert seen[-1] == shape.usage
    if (shape.adapter.wire, endpoint) in shape.adapter.native:
        assert endpoint is not None
        relay = shape.adapter.relay(Head(endpoint=endpoint, model="m", stream=True, include_usage=True))
        relay.feed(told)
        relay.close()
        assert relay.usage == shape.usage


def _replaced(value: Any, name: str, by: Mapping[str, Any]) -> Any:
    """The same with `by` in place of each object called `name`."""
    if isinstance(value, list):
        return [_replaced(item, name, by) for item in value]
    if not isinstance(value, dict):
        return value
    return {k: by if k == name and isinstance(v, dict) else _replaced(v, name, by) for k, v in value.items()}


@EVERY_SHAPE
def test_its_cost_is_the_sum_worked_out_by_hand(shape: Shape) -> None:
    stored = {unit: [[0, rate * 1_000_000]] for unit, rate in shape.rates.items()}  # nano-dollars a million
    row = PriceRow(NIL, shape.kind, "m", NIL, datetime(1970, 1, 1, tzinfo=UTC), "catalogue", compile_rates(stored))
    result = cost(shape.usage, row)
    assert result.nanos == shape.nanos
    assert tuple(result.flags) == shape.flags


def test_the_shapes_cover_each_wire_format_but_ollamas() -> None:
    """Its usage is two plain counts at the top of the last line: test_streams.py and test_conformance.py read them."""
    chat = {line.adapter.wire for line in cells.lines() if Endpoint.CHAT in line.row.endpoints}
    assert {shape.adapter.wire for shape in SHAPES} == chat - {Dialect.OLLAMA}
