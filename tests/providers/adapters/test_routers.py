"""OpenRouter and Hugging Face: their extras, what they say they charged, and whose error it was."""

from __future__ import annotations

import json
from typing import Any

import pytest

from providers.adapters.base import Head, Upstream
from providers.adapters.events import ReasoningDelta, TextDelta, UsageSeen
from providers.adapters.registry import KINDS, adapter_for
from providers.adapters.types import (
    ChatRequest,
    Dialect,
    EmbeddingRequest,
    Endpoint,
    Message,
    Reasoning,
    ReasoningSettings,
    Text,
    Usage,
)
from providers.errors import Overloaded, RateLimited, UpstreamError

OPENROUTER, HUGGINGFACE = adapter_for("openrouter", {}), adapter_for("huggingface", {})
HELLO = (Message("user", (Text("Hello"),)),)
HEAD = Head(endpoint=Endpoint.CHAT, model="r", stream=True, include_usage=True)


def target(kind: str, **more: Any) -> Upstream:
    return Upstream(
        base_url=KINDS[kind].base_url, model="anthropic/claude-sonnet-4.5", secrets={"api_key": "k"}, **more
    )


def built(upstream: Upstream, **given: Any) -> dict[str, Any]:
    made = OPENROUTER.build_request(ChatRequest(**{"model": "r", "messages": HELLO, **given}), upstream)
    body: dict[str, Any] = json.loads(made.body)
    return body


def test_the_cost_is_asked_for_whichever_way_a_request_goes() -> None:
    assert built(target("openrouter"))["usage"] == {"include": True}
    sent = b'{"model":"r","messages":[],"stream":true,"usage":{"include":false}}'
    passed = json.loads(OPENROUTER.pass_through(sent, HEAD, target("openrouter")).body)
    assert (passed["usage"], passed["stream_options"]) == ({"include": True}, {"include_usage": True})


def test_its_own_fields_reach_it_as_they_are() -> None:
    extras = {"provider": {"order": ["x"]}, "models": ["a/b"], "transforms": [], "plugins": [{"id": "web"}]}
    body = built(target("openrouter"), extra=extras, extra_dialect=Dialect.OPENAI)
    assert {name: body[name] for name in extras} == extras
    sent = json.dumps({"model": "r", "messages": [], **extras}).encode()
    passed = json.loads(OPENROUTER.pass_through(sent, HEAD, target("openrouter")).body)
    assert {name: passed[name] for name in extras} == extras


HELD = {"input": ((0, 3_000_000_000), (200_001, 6_000_000_000)), "output": ((0, 15_000_000_000),), "search": ((0, 1),)}


def test_no_vendor_answers_who_asks_more_than_what_a_hard_budget_holds() -> None:
    """By any dialect, in dollars per million; nothing is said where nothing is held."""
    held = target("openrouter", held_at=HELD)
    most = {"max_price": {"prompt": 3, "completion": 15}}
    assert built(held)["provider"] == most
    for sent in (b'{"model":"r","messages":[]}', b'{"model":"r","messages":[],"provider":null}'):
        assert json.loads(OPENROUTER.pass_through(sent, HEAD, held).body)["provider"] == most
    raw = OPENROUTER.pass_through(b'{"model":"r","messages":[]}', HEAD, target("openrouter")).body
    assert "provider" not in json.loads(raw)
    assert "provider" not in built(target("openrouter"))
    free = {"input": ((0, 0),), "output": ((0, 1),)}
    body = OPENROUTER.pass_through(b'{"model":"r","messages":[]}', HEAD, target("openrouter", held_at=free)).body
    assert b'"max_price":{"prompt":0.000000000,"completion":0.000000001}' in body


def test_vendors_of_embeddings_are_held_to_their_price_too() -> None:
    held = target("openrouter", held_at={"input": ((0, 20_000_000),)})
    head = Head(endpoint=Endpoint.EMBEDDINGS, model="r")
    sent = json.loads(OPENROUTER.pass_through(b'{"model":"r","input":"x"}', head, held).body)
    assert (sent["provider"], "usage" in sent) == ({"max_price": {"prompt": 0.02}}, False)
    made = OPENROUTER.build_request(EmbeddingRequest(model="r", inputs=("x",)), held)
    assert json.loads(made.body)["provider"] == {"max_price": {"prompt": 0.02}}


def test_a_callers_own_wishes_for_vendors_stay_beside_the_highest_price() -> None:
    sent = b'{"model":"r","messages":[],"provider":{"order":["a"]}}'
    body = json.loads(OPENROUTER.pass_through(sent, HEAD, target("openrouter", held_at=HELD)).body)
    assert body["provider"] == {"max_price": {"prompt": 3, "completion": 15}, "order": ["a"]}


def test_the_application_is_named_where_the_options_name_it() -> None:
    options = {"referer": "https://app.example.org", "title": "App"}
    request = OPENROUTER.build_request(ChatRequest(model="r", messages=HELLO), target("openrouter", options=options))
    assert (request.headers["http-referer"], request.headers["x-title"]) == ("https://app.example.org", "App")
    request = OPENROUTER.build_request(ChatRequest(model="r", messages=HELLO), target("openrouter"))
    assert not {"http-referer", "x-title"} & set(request.headers)


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (ReasoningSettings(effort="high"), {"effort": "high"}),
        (ReasoningSettings(budget_tokens=300), {"max_tokens": 300}),
        (ReasoningSettings(budget_tokens=3000), {"max_tokens": 499}),  # below the cap of 500
        (ReasoningSettings(off=True), {"enabled": False}),
        (ReasoningSettings(adaptive=True, show=False), {"enabled": True, "exclude": True}),
    ],
)
def test_reasoning_is_asked_for_in_its_own_form(wanted: ReasoningSettings, told: dict[str, Any]) -> None:
    assert built(target("openrouter", max_output_tokens=500), reasoning=wanted)["reasoning"] == told


def test_signed_thoughts_come_and_go_back_whole() -> None:
    details = [{"type": "reasoning.text", "text": "Two and two.", "signature": "sig", "index": 0}]
    message = {"role": "assistant", "content": "4", "reasoning": "Two and two.", "reasoning_details": details}
    body = {"id": "g", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": SPENT}
    answer: Any = OPENROUTER.parse_response(ChatRequest(model="r", messages=HELLO), json.dumps(body).encode())
    thought = Reasoning(text="Two and two.", signature="sig")
    assert answer.choices[0].parts == (thought, Text("4"))
    back = built(target("openrouter"), messages=(*HELLO, Message("assistant", answer.choices[0].parts)))["messages"][1]
    assert back["reasoning"] == "Two and two."
    assert back["reasoning_details"] == [{"type": "reasoning.text", "text": "Two and two.", "signature": "sig"}]


SPENT = {
    "prompt_tokens": 194,
    "completion_tokens": 20,
    "total_tokens": 214,
    "prompt_tokens_details": {"cached_tokens": 100, "cache_write_tokens": 50, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 7},
    "cost": 0.00014725,
    "cost_details": {"upstream_inference_cost": 19},
    "is_byok": False,
}
SEEN = Usage(  # $0.00014725 are 147,250 nano-dollars
    input_tokens=194,
    output_tokens=20,
    cache_read_tokens=100,
    cache_write_tokens=50,
    reasoning_tokens=7,
    reported_cost=147_250,
)


@pytest.mark.parametrize(
    ("written", "nanos"),
    [
        ("0.00014725", 147_250),
        ("1.4725e-04", 147_250),
        ("0.000000001", 1),
        ("0.0000000001", 1),  # a tenth of a nano-dollar is rounded up
        ("123.456789012", 123_456_789_012),
        ("0.1", 100_000_000),
        ("3", 3_000_000_000),
        ("0", 0),
        ("-1", None),
        ('"0.5"', None),
        ("true", None),
    ],
)
def test_the_cost_is_exact_to_the_nano_dollar(written: str, nanos: int | None) -> None:
    usage = b'{"prompt_tokens":1,"completion_tokens":1,"cost":%b}' % written.encode()
    body = b'{"choices":[{"index":0,"message":{"content":"x"}}],"usage":%b}' % usage
    read = OPENROUTER.read_usage(Endpoint.CHAT, body)
    assert read is not None
    assert read.reported_cost == nanos


@pytest.mark.parametrize(
    ("told", "nanos"),
    [
        ({"cost": 0.0009, "cost_details": {"upstream_inference_cost": 0.018}}, 18_900_000),
        ({"cost": 0, "cost_details": {"upstream_inference_cost": 0.018}}, 18_000_000),
        ({"cost": 0.0009, "cost_details": {"upstream_inference_cost": None}}, None),
        (
            {"cost": 0.0009, "cost_details": {"upstream_inference_cost": 0}},
            None,
        ),  # better no figure than a wrong one
        ({"cost": 0.0009}, None),
        ({"cost_details": {"upstream_inference_cost": 0.018}}, None),
    ],
)
def test_with_a_key_of_ones_own_the_vendors_bill_comes_on_top_of_the_fee(
    told: dict[str, Any], nanos: int | None
) -> None:
    usage = {"prompt_tokens": 1000, "completion_tokens": 1000, "is_byok": True, **told}
    body = {"choices": [{"index": 0, "message": {"content": "x"}}], "usage": usage}
    read = OPENROUTER.read_usage(Endpoint.CHAT, json.dumps(body).encode())
    assert read is not None
    assert read.reported_cost == nanos


CHUNK = {"id": "g", "provider": "Anthropic", "model": "m", "choices": [{"index": 0, "delta": {"content": "Hi"}}]}
THOUGHT = {**CHUNK, "choices": [{"index": 0, "delta": {"reasoning": "Hm.", "content": ""}}]}
LAST = {**CHUNK, "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "stop"}], "usage": SPENT}
COMMENT = b": OPENROUTER PROCESSING\n\n"


def sse(*chunks: dict[str, Any]) -> bytes:
    return b"".join(b"data: %b\n\n" % json.dumps(chunk).encode() for chunk in chunks)


@pytest.mark.parametrize("size", [1, 5, 10**6])
def test_comments_in_streams_do_no_harm_and_the_last_usage_counts(size: int) -> None:
    stream = COMMENT + sse(THOUGHT) + COMMENT + sse(CHUNK, LAST) + COMMENT + b"data: [DONE]\n\n"
    relay, parser = OPENROUTER.relay(HEAD), OPENROUTER.stream_parser(ChatRequest(model="r", messages=HELLO))
    pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
    assert b"".join(relay.feed(piece) for piece in pieces) + relay.close() == stream
    assert (relay.usage, relay.ended) == (SEEN, True)
    events = [event for piece in pieces for event in parser.feed(piece)] + parser.close()
    assert [event.usage for event in events if isinstance(event, UsageSeen)] == [SEEN]
    assert [event.text for event in events if isinstance(event, TextDelta | ReasoningDelta)] == ["Hm.", "Hi"]


def test_an_error_in_a_stream_ends_it() -> None:
    broken = {"id": "g", "error": {"code": 502, "message": "Provider disconnected"}, "choices": [{"index": 0}]}
    relay, parser = OPENROUTER.relay(HEAD), OPENROUTER.stream_parser(ChatRequest(model="r", messages=HELLO))
    for reader in (relay, parser):
        reader.feed(sse(CHUNK))
        with pytest.raises(Overloaded, match="Provider disconnected"):
            reader.feed(sse(broken))


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"provider_name": "Anthropic", "raw": '{"error":{"message":"busy"}}'}, "Provider error (Anthropic: busy)"),
        ({"provider_name": "Anthropic", "raw": {"error": "busy"}}, "Provider error (Anthropic: busy)"),
        ({"raw": "upstream said no"}, "Provider error (upstream said no)"),
        ({"provider_name": "Anthropic"}, "Provider error (Anthropic)"),
        ({"reasons": ["x"]}, "Provider error"),
        (None, "Provider error"),
    ],
)
def test_an_error_tells_whose_it_was(metadata: Any, said: str) -> None:
    error = {"code": 429, "message": "Provider error", "metadata": metadata}
    found = OPENROUTER.parse_error(429, {"retry-after": "2"}, json.dumps({"error": error}).encode())
    assert isinstance(found, RateLimited)
    assert (found.message, found.retry_after) == (said, 2.0)


def test_only_what_proves_a_key_is_asked_when_it_is_verified() -> None:
    for adapter, kind, url in (
        (OPENROUTER, "openrouter", "https://openrouter.ai/api/v1/models/user"),
        (HUGGINGFACE, "huggingface", "https://huggingface.co/api/whoami-v2"),
    ):
        request = adapter.verification(target(kind))
        assert (request.url, request.headers["authorization"]) == (url, "Bearer k")
    own = Upstream(base_url="https://llm.example.org/v1", model="", secrets={"api_key": "k"})
    assert HUGGINGFACE.verification(own).url == "https://llm.example.org/v1/models"
    assert HUGGINGFACE.parse_models(b'{"name":"alice","type":"user"}') == []
    assert HUGGINGFACE.parse_models(b'{"data":[{"id":"a/b"}]}') == ["a/b"]
    assert OPENROUTER.parse_models(b'{"data":[{"id":"a/b"}]}') == ["a/b"]


def test_hugging_face_is_told_who_pays_and_which_vendor_to_take() -> None:
    upstream = Upstream(
        base_url=KINDS["huggingface"].base_url,
        model="openai/gpt-oss-120b:fastest",
        secrets={"api_key": "k"},
        options={"bill_to": "my-org"},
    )
    request = HUGGINGFACE.build_request(ChatRequest(model="r", messages=HELLO), upstream)
    assert request.headers["x-hf-bill-to"] == "my-org"
    assert json.loads(request.body)["model"] == "openai/gpt-oss-120b:fastest"
    found: UpstreamError = HUGGINGFACE.parse_error(400, {}, b'{"error":"Model not supported by provider x"}')
    assert found.message == "Model not supported by provider x"
