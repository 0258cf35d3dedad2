"""What OpenAI clients may send, and the 400 that names the field when they send something else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conduit.proxy.dialects.json_body import DEPTH_LIMIT
from conduit.proxy.dialects.openai import OPENAI
from conduit.proxy.errors import ApiError
from providers.adapters.base import Head
from providers.adapters.types import (
    EmbeddingRequest,
    Endpoint,
)

WHOLE = b'{"model":"m","messages":[{"role":"user","content":"a"}]}'
HELLO = [{"role": "user", "content": "Hello"}]


def refused(body: bytes, endpoint: Endpoint = Endpoint.CHAT) -> ApiError:
    with pytest.raises(ApiError) as caught:
        OPENAI.parse(endpoint, body)
    assert (caught.value.status, caught.value.type) == (400, "invalid_request_error")
    return caught.value


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b" \n", id="white space"),
        pytest.param(b'{"model":"m",', id="cut"),
        pytest.param(WHOLE[:-1] + b',"temperature":NaN}', id="NaN"),
        pytest.param(WHOLE[:-1] + b',"temperature":-Infinity}', id="Infinity"),
        pytest.param(b'{"model":"m\xff","messages":[]}', id="UTF-8 in a field"),
        pytest.param(b'{"model":"m","messages":[{"role":"user","content":"a"}],"x":"\xff"}', id="UTF-8 elsewhere"),
        pytest.param(b'{"model":"\\ud800","messages":[]}', id="half a surrogate pair"),
        pytest.param(b"\xef\xbb\xbf{}", id="byte order mark"),
        pytest.param(WHOLE + b" {}", id="two objects"),
        pytest.param(b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", id="very deep"),
    ],
)
def test_what_is_not_json_is_told_so(body: bytes) -> None:
    assert refused(body).code == "invalid_json"


def nested(levels: int, text: str = "") -> bytes:
    """`levels` of nesting in all, in a field nobody knows; brackets in texts do not count."""
    deep = "[" * (levels - 1) + json.dumps(text) + "]" * (levels - 1)
    return b'{"model":"m","messages":[{"role":"user","content":"a"}],"deep":' + deep.encode() + b"}"


@pytest.mark.parametrize("text", ["", '[[[[ "{{{{" \\', "[" * 200, '\\"' * 3 + "]" * 99])
def test_depth_is_limited_exactly(text: str) -> None:
    OPENAI.parse(Endpoint.CHAT, nested(DEPTH_LIMIT, text))
    error = refused(nested(DEPTH_LIMIT + 1, text))
    assert (error.code, str(DEPTH_LIMIT) in error.message) == ("invalid_json", True)


def test_width_is_not_depth() -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": 'a "[quoted]" {text} \\'}]}] * 200
    OPENAI.parse(Endpoint.CHAT, json.dumps({"model": "m", "messages": messages}).encode())


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": None}, "model"),
        ({"model": ""}, "model"),
        ({"model": 7}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": "Hello"}, "messages"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "boss", "content": "x"}]}, "messages[0].role"),
        ({"messages": [*HELLO, {"role": 1, "content": "x"}]}, "messages[1].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0].image_url"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"type": "function"}]}]}, "messages[0].tool_calls[0].id"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": "1e3"}, "max_tokens"),
        ({"max_tokens": 1e3}, "max_tokens"),
        ({"max_tokens": 2**63}, "max_tokens"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"n": 0}, "n"),
        ({"n": True}, "n"),
        ({"n": 10**30}, "n"),
        ({"stream": "yes"}, "stream"),
        ({"stream": 1}, "stream"),
        ({"stream_options": {"include_usage": "no"}}, "stream_options.include_usage"),
        ({"temperature": "hot"}, "temperature"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "function", "function": {"name": ""}}]}, "tools[0].function.name"),
        ({"tool_choice": "maybe"}, "tool_choice"),
        ({"tool_choice": {"type": "function"}}, "tool_choice.function"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"user": 5}, "user"),
        ({"stop": [1]}, "stop[0]"),
    ],
)
def test_a_wrong_value_names_its_field(fields: dict[str, Any], param: str) -> None:
    error = refused(json.dumps({"model": "m", "messages": HELLO, **fields}).encode())
    assert (error.code, error.param) == ("invalid_value", param)
    assert error.message.startswith(f"{param}: ")


@pytest.mark.parametrize("body", [b"[1]", b"null", b'"text"', b"5"])
def test_a_body_that_is_no_object_is_a_wrong_value_without_field(body: bytes) -> None:
    error = refused(body)
    assert (error.code, error.param) == ("invalid_value", None)


@pytest.mark.parametrize("missing", ["model", "messages"])
def test_a_missing_field_is_named(missing: str) -> None:
    body = {name: value for name, value in {"model": "m", "messages": HELLO}.items() if name != missing}
    error = refused(json.dumps(body).encode())
    assert (error.param, error.message) == (missing, f"{missing}: this field is required.")


@pytest.mark.parametrize("number", [b"9" * 5000, b"1e999"])
def test_numbers_beyond_all_bounds(number: bytes) -> None:
    body = b'{"model":"m","messages":[{"role":"user","content":"a"}],"%b":%b}'
    assert refused(body % (b"temperature", number)).param == "temperature"
    inbound = OPENAI.parse(Endpoint.CHAT, body % (b"unknown", number))
    with pytest.raises(ApiError) as caught:  # only the canonical form has to read it
        inbound.canonical()
    assert (caught.value.status, caught.value.code) == (400, "invalid_value")


@pytest.mark.parametrize(
    "caps",
    [
        b'"max_tokens":5,"max_tokens":500000',
        b'"max_tokens": 5, "max_tokens": 500000',
        b'"max_tokens":5,"max\\u005ftokens":500000',
        b'  "max_tokens"  :5 ,\n"max_tokens" : 500000',
    ],
)
def test_a_field_given_twice_is_refused(caps: bytes) -> None:
    error = refused(b'{"model":"m","messages":[{"role":"user","content":"a"}],' + caps + b"}")
    assert (error.code, error.param) == ("invalid_value", "max_tokens")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ["model", "messages", "tools", "tool_choice", "n", "stop", "stream_options", "response_format", "audio", "x"]


@given(st.dictionaries(st.sampled_from(FIELDS), JSON), st.sampled_from([Endpoint.CHAT, Endpoint.EMBEDDINGS]))
def test_no_body_is_anything_but_read_or_400(fields: dict[str, Any], endpoint: Endpoint) -> None:
    body = json.dumps({"model": "m", "messages": HELLO, "input": "a", **fields}).encode()
    try:
        OPENAI.parse(endpoint, body).canonical()
    except ApiError as error:
        assert error.status == 400  # noqa: PT017


@given(st.binary(max_size=60))
def test_no_bytes_are_anything_but_400(body: bytes) -> None:
    refused(body)


# --- the head -------------------------------------------------------------------------------------------------------


def head(**fields: Any) -> Head:
    return OPENAI.parse(Endpoint.CHAT, json.dumps({"model": "m", "messages": HELLO, **fields}).encode()).head


def test_the_head_of_the_smallest_request() -> None:
    assert head() == Head(endpoint=Endpoint.CHAT, model="m")


def test_the_head_knows_what_admission_needs() -> None:
    assert head(stream=True, stream_options={"include_usage": True}, max_tokens=9, n=3, user="u") == Head(
        endpoint=Endpoint.CHAT, model="m", stream=True, include_usage=True, max_output_tokens=9, n=3, user="u"
    )
    assert head(n=None, stream=None, stream_options=None, max_tokens=None, user=None) == head()


@pytest.mark.parametrize(("first", "second"), [(5, 500), (500, 5)])
def test_of_two_caps_the_smaller_one_counts(first: int, second: int) -> None:
    assert head(max_tokens=first, max_completion_tokens=second).max_output_tokens == 5


# --- embeddings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_", "inputs"),
    [("a", ("a",)), (["a", "b"], ("a", "b")), ([1, 2], ((1, 2),)), ([[1, 2], [3]], ((1, 2), (3,)))],
)
def test_inputs_of_embeddings(given_: Any, inputs: tuple[Any, ...]) -> None:
    body = {"model": "m", "input": given_, "dimensions": 8, "encoding_format": "base64", "user": "u"}
    inbound = OPENAI.parse(Endpoint.EMBEDDINGS, json.dumps(body).encode())
    assert inbound.head == Head(endpoint=Endpoint.EMBEDDINGS, model="m", user="u", inputs=len(inputs))
    assert inbound.canonical() == EmbeddingRequest(model="m", inputs=inputs, dimensions=8, encoding="base64", user="u")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": []}, "input"),
        ({"input": 5}, "input"),
        ({"input": ["a", 5]}, "input[1]"),
        ({"input": [5, True]}, "input[1]"),
        ({"input": [-5]}, "input[0]"),
        ({"input": [[]]}, "input[0]"),
        ({"input": [[-5]]}, "input[0][0]"),
        ({"dimensions": 0}, "dimensions"),
        ({"encoding_format": "hex"}, "encoding_format"),
    ],
)
def test_wrong_embeddings_name_their_field(fields: dict[str, Any], param: str) -> None:
    body = {"model": "m", "input": "a", **fields}
    assert refused(json.dumps(body).encode(), Endpoint.EMBEDDINGS).param == param
