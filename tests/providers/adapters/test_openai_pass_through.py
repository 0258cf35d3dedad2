"""Requests of OpenAI's own dialect to OpenAI's wire format: rewritten where they must be, else byte for byte."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from providers.adapters.base import Head, Upstream
from providers.adapters.openai import OpenAIAdapter
from providers.adapters.types import (
    Endpoint,
)

UPSTREAM = Upstream(base_url="https://api.openai.com/v1", model="gpt-4o-mini", secrets={"api_key": "sk-test"})


def passed(body: bytes, head: Head | None = None, **upstream: Any) -> dict[str, msgspec.Raw]:
    target = msgspec.structs.replace(UPSTREAM, **upstream)
    built = OpenAIAdapter().pass_through(body, head or Head(endpoint=Endpoint.CHAT, model="route"), target)
    return msgspec.json.decode(built.body, type=dict[str, msgspec.Raw])


def test_pass_through_changes_the_model_and_leaves_the_rest_byte_for_byte() -> None:
    messages = b'[ {"role": "user", "content": "h\\u00e9 \xc3\xa9", "odd": 1.50} ]'
    body = b'{ "model": "route", "messages": ' + messages + b', "temperature": 0.70, "new_field": {"a" : 1e2}}'
    members = passed(body)
    assert bytes(members["messages"]) == messages
    assert bytes(members["temperature"]) == b"0.70"
    assert bytes(members["new_field"]) == b'{"a" : 1e2}'
    assert bytes(members["model"]) == b'"gpt-4o-mini"'
    assert list(members) == ["model", "messages", "temperature", "new_field"]


@pytest.mark.parametrize(
    ("caps", "ours", "left"),
    [
        (b'"max_tokens":50', None, {"max_tokens": b"50"}),
        (b'"max_tokens":50,"max_completion_tokens":40', None, {"max_completion_tokens": b"40"}),
        (b'"max_tokens":50,"max_completion_tokens":40', 30, {"max_completion_tokens": b"30"}),
        (b'"max_tokens":50', 30, {"max_completion_tokens": b"30"}),
        (b'"user":"u"', 30, {"max_completion_tokens": b"30"}),
        (b'"user":"u"', None, {}),
    ],
)
def test_pass_through_leaves_one_cap(caps: bytes, ours: int | None, left: dict[str, bytes]) -> None:
    head = Head(endpoint=Endpoint.CHAT, model="route", max_output_tokens=40)
    members = passed(b'{"model":"route",' + caps + b"}", head, max_output_tokens=ours)
    assert {name: bytes(value) for name, value in members.items() if name.startswith("max_")} == left


@pytest.mark.parametrize("given", [b"", b',"stream_options":null', b',"stream_options":{"include_usage":false,"x":1}'])
def test_pass_through_asks_for_usage_in_streams(given: bytes) -> None:
    head = Head(endpoint=Endpoint.CHAT, model="route", stream=True)
    members = passed(b'{"model":"route","stream":true' + given + b"}", head)
    options = json.loads(bytes(members["stream_options"]))
    assert options.pop("include_usage") is True
    assert options == ({"x": 1} if b"x" in given else {})


def test_pass_through_of_embeddings_has_no_cap_and_its_own_path() -> None:
    head = Head(endpoint=Endpoint.EMBEDDINGS, model="route")
    upstream = msgspec.structs.replace(UPSTREAM, max_output_tokens=5)
    built = OpenAIAdapter().pass_through(b'{"model":"route","input":"a"}', head, upstream)
    assert built.url.endswith("/v1/embeddings")
    assert json.loads(built.body) == {"model": "gpt-4o-mini", "input": "a"}


def test_verification_lists_models_and_costs_nothing() -> None:
    built = OpenAIAdapter().verification(msgspec.structs.replace(UPSTREAM, model=""))
    assert (built.method, built.url, built.body) == ("GET", "https://api.openai.com/v1/models", b"")
    assert built.headers["authorization"] == "Bearer sk-test"
    body = b'{"object":"list","data":[{"id":"gpt-4o","object":"model"},{"id":"o3"}]}'
    assert OpenAIAdapter().parse_models(body) == ["gpt-4o", "o3"]
    assert OpenAIAdapter().parse_models(b'[{"id":"a"}]') == ["a"]
