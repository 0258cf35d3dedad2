"""Usage as OpenAI and its imitators report it: sums by hand, and odd figures that never raise (testing.md U2)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.adapters.openai import OpenAIAdapter
from providers.adapters.types import Endpoint, Usage
from providers.errors import AuthRejected, InvalidResponse, Overloaded, RateLimited, RequestRejected, UpstreamError

ADAPTER = OpenAIAdapter()


def usage_of(usage: Any, endpoint: Endpoint = Endpoint.CHAT) -> Usage | None:
    content = "data" if endpoint is Endpoint.EMBEDDINGS else "choices"
    return ADAPTER.read_usage(endpoint, json.dumps({content: [], "usage": usage}).encode())


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        pytest.param(
            {"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21},
            Usage(input_tokens=9, output_tokens=12),
            id="plain",
        ),
        pytest.param(  # OpenAI: 2006 prompt tokens of which 1920 cached; 300 written of which 192 reasoning
            {
                "prompt_tokens": 2006,
                "completion_tokens": 300,
                "total_tokens": 2306,
                "prompt_tokens_details": {"cached_tokens": 1920, "audio_tokens": 6},
                "completion_tokens_details": {"reasoning_tokens": 192, "audio_tokens": 8},
            },
            Usage(
                input_tokens=2006,
                output_tokens=300,
                cache_read_tokens=1920,
                reasoning_tokens=192,
                audio_input_tokens=6,
                audio_output_tokens=8,
            ),
            id="cached, reasoning, audio",
        ),
        pytest.param(  # 1000 = 600 read + 300 written to the cache + 100 plain
            {
                "prompt_tokens": 1000,
                "completion_tokens": 1,
                "prompt_tokens_details": {"cached_tokens": 600, "cache_write_tokens": 300},
            },
            Usage(input_tokens=1000, output_tokens=1, cache_read_tokens=600, cache_write_tokens=300),
            id="cache writes",
        ),
        pytest.param(  # xAI: total 130 = 20 + 10 + 100 reasoning beside the completion, so output is 110
            {
                "prompt_tokens": 20,
                "completion_tokens": 10,
                "total_tokens": 130,
                "completion_tokens_details": {"reasoning_tokens": 100},
            },
            Usage(input_tokens=20, output_tokens=110, reasoning_tokens=100),
            id="reasoning beside the completion",
        ),
        pytest.param(
            {"prompt_tokens": 50, "completion_tokens": 1, "prompt_cache_hit_tokens": 40},
            Usage(input_tokens=50, output_tokens=1, cache_read_tokens=40),
            id="DeepSeek's cache hits",
        ),
        pytest.param(  # $0.00014 is 140,000 nano-dollars
            {"prompt_tokens": 1, "completion_tokens": 1, "cost": 0.00014},
            Usage(input_tokens=1, output_tokens=1, reported_cost=140_000),
            id="OpenRouter's cost",
        ),
        pytest.param(
            {
                "prompt_tokens": 3,
                "completion_tokens": 4,
                "prompt_tokens_details": None,
                "completion_tokens_details": {},
            },
            Usage(input_tokens=3, output_tokens=4),
            id="empty details",
        ),
        pytest.param({"prompt_tokens": 3.0, "completion_tokens": 4}, Usage(input_tokens=3, output_tokens=4), id="3.0"),
        pytest.param({}, Usage(flags=("missing",)), id="empty"),
        pytest.param({"prompt_tokens": 3}, Usage(input_tokens=3, flags=("missing",)), id="half"),
        pytest.param(
            {"prompt_tokens": -3, "completion_tokens": 4}, Usage(output_tokens=4, flags=("negative",)), id="negative"
        ),
        pytest.param(
            {"prompt_tokens": "3", "completion_tokens": 4}, Usage(output_tokens=4, flags=("text",)), id="text"
        ),
        pytest.param(
            {"prompt_tokens": True, "completion_tokens": 4}, Usage(output_tokens=4, flags=("text",)), id="bool"
        ),
        pytest.param(
            {"prompt_tokens": 1e18, "completion_tokens": 4}, Usage(output_tokens=4, flags=("huge",)), id="1e18"
        ),
        pytest.param(
            {"prompt_tokens": 2.5, "completion_tokens": 4}, Usage(output_tokens=4, flags=("not_integer",)), id="2.5"
        ),
        pytest.param(
            {"prompt_tokens": 5, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 9}},
            Usage(input_tokens=5, output_tokens=4, cache_read_tokens=5, flags=("inconsistent",)),
            id="more cached than given",
        ),
        pytest.param("lots", Usage(flags=("text",)), id="usage is a text"),
    ],
)
def test_usage_by_hand(raw: Any, expected: Usage) -> None:
    assert usage_of(raw) == expected


def test_a_number_that_fits_nowhere_is_flagged() -> None:
    body = b'{"choices":[],"usage":{"prompt_tokens":' + b"9" * 5000 + b',"completion_tokens":1}}'
    assert ADAPTER.read_usage(Endpoint.CHAT, body) == Usage(flags=("huge",))


def test_missing_usage_is_none() -> None:
    assert usage_of(None) is None
    assert ADAPTER.read_usage(Endpoint.CHAT, b'{"choices":[]}') is None


def test_embeddings_need_no_output_tokens() -> None:
    assert usage_of({"prompt_tokens": 8, "total_tokens": 8}, Endpoint.EMBEDDINGS) == Usage(input_tokens=8)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
NAMES = [
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "prompt_tokens_details",
    "completion_tokens_details",
    "cost",
]


@given(
    st.dictionaries(
        st.sampled_from(NAMES), JSON | st.fixed_dictionaries({"cached_tokens": JSON, "reasoning_tokens": JSON})
    )
)
def test_no_usage_whatever_raises_or_is_insane(raw: dict[str, Any]) -> None:
    usage = usage_of(raw)
    assert usage is not None
    assert 0 <= usage.cache_read_tokens + usage.cache_write_tokens <= usage.input_tokens <= 10**9
    assert 0 <= usage.reasoning_tokens <= usage.output_tokens <= 2 * 10**9
    assert usage.reported_cost is None or usage.reported_cost >= 0
    if not usage.flags:
        assert raw["prompt_tokens"] == usage.input_tokens


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><title>Bad gateway</title></html>",
        b'{"choices":',
        b"[]",
        b"null",
        b"{}",
        b'{"choices":{}}',
        b"\xff",
    ],
)
def test_a_body_that_is_no_answer_is_invalid(body: bytes) -> None:
    with pytest.raises(InvalidResponse):
        ADAPTER.read_usage(Endpoint.CHAT, body)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"message": "m", "type": "server_error"}, Overloaded),
        ({"message": "m", "code": 429}, RateLimited),
        ({"message": "m", "type": "insufficient_quota", "code": "insufficient_quota"}, RateLimited),
        ({"message": "m", "type": "invalid_request_error", "code": "invalid_api_key"}, AuthRejected),
        ({"message": "m", "type": "invalid_request_error", "code": "context_length_exceeded"}, RequestRejected),
        ("m", Overloaded),
    ],
)
def test_an_error_object_with_status_200_is_the_error_it_means(error: object, kind: type[UpstreamError]) -> None:
    with pytest.raises(kind) as caught:
        ADAPTER.read_usage(Endpoint.CHAT, json.dumps({"error": error}).encode())
    assert caught.value.message == "m"
