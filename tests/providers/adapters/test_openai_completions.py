"""`/v1/completions` to a provider that serves it: passed through with one cap, metered from answers and streams."""

from __future__ import annotations

import json

import msgspec
import pytest

from providers.adapters.base import Head, Upstream
from providers.adapters.openai import CompatibleAdapter, OpenAIAdapter
from providers.adapters.registry import adapter_for
from providers.adapters.types import ChatRequest, ChatResponse, Dialect, Endpoint, Message, Text
from providers.errors import UpstreamCut

HEAD = Head(endpoint=Endpoint.COMPLETIONS, model="route", stream=True, max_output_tokens=16)
UPSTREAM = Upstream(base_url="https://api.openai.com/v1", model="davinci-002", secrets={"api_key": "k"})
TEXT = {"text": 'He said "hi"', "index": 0, "logprobs": None, "finish_reason": None}
# 7 prompt tokens of which 2 were cached, 3 written
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10, "prompt_tokens_details": {"cached_tokens": 2}}


def chunk(*choices: object, **more: object) -> bytes:
    body = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m", "choices": list(choices), **more}
    return b"data: " + json.dumps(body).encode() + b"\n\n"


STREAM = chunk(TEXT, usage=None) + chunk({**TEXT, "text": "", "finish_reason": "stop"}) + chunk(usage=USAGE)
STREAM += b"data: [DONE]\n\n"


@pytest.mark.parametrize("adapter", [OpenAIAdapter(), CompatibleAdapter()])
def test_one_cap_leaves_under_the_name_this_endpoint_has(adapter: OpenAIAdapter) -> None:
    assert (Dialect.OPENAI, Endpoint.COMPLETIONS) in adapter.native
    prompt = b"[ [1, 2],[3] ]"
    body = b'{"model":"route","prompt":' + prompt + b',"max_tokens":9,"n_predict":50,"max_completion_tokens":70}'
    built = adapter.pass_through(body, HEAD, msgspec.structs.replace(UPSTREAM, max_output_tokens=9))
    assert built.url == "https://api.openai.com/v1/completions"
    members = msgspec.json.decode(built.body, type=dict[str, msgspec.Raw])
    assert bytes(members.pop("prompt")) == prompt
    assert {name: bytes(value) for name, value in members.items()} == {
        "model": b'"davinci-002"',
        "max_tokens": b"9",
        "stream_options": b'{"include_usage":true}',
    }


def test_usage_is_read_from_a_whole_answer() -> None:
    body = json.dumps({"object": "text_completion", "choices": [TEXT], "usage": USAGE}).encode()
    usage = OpenAIAdapter().read_usage(Endpoint.COMPLETIONS, body)
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens, usage.cache_read_tokens, usage.flags) == (7, 3, 2, ())


def test_text_without_output_tokens_is_not_believed() -> None:
    body = json.dumps({"choices": [TEXT], "usage": {"prompt_tokens": 7, "completion_tokens": 0}}).encode()
    usage = OpenAIAdapter().read_usage(Endpoint.COMPLETIONS, body)
    assert usage is not None
    assert usage.flags == ("zero",)
    scored = json.dumps({"choices": [{**TEXT, "text": ""}], "usage": {"prompt_tokens": 7, "completion_tokens": 0}})
    usage = OpenAIAdapter().read_usage(Endpoint.COMPLETIONS, scored.encode())
    assert usage is not None
    assert usage.flags == ()


def test_the_text_of_an_answer_without_usage_can_be_measured() -> None:
    request = ChatRequest(model="m", messages=(Message("user", (Text("x"),)),))
    answer = OpenAIAdapter().parse_response(request, json.dumps({"choices": [TEXT]}).encode())
    assert isinstance(answer, ChatResponse)
    assert answer.choices[0].parts == (Text('He said "hi"'),)


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_a_stream_is_relayed_and_measured_however_it_is_cut(size: int) -> None:
    relay, out = OpenAIAdapter().relay(HEAD), b""
    for start in range(0, len(STREAM), size):
        out += relay.feed(STREAM[start : start + size])
    out += relay.close()
    assert out == STREAM.replace(chunk(usage=USAGE), b"")  # the client had not asked for usage
    assert relay.ended
    assert relay.usage is not None
    assert (relay.usage.input_tokens, relay.usage.output_tokens) == (7, 3)
    assert (relay.frames, relay.text_bytes) == (1, len(rb"He said \"hi\""))


def test_a_stream_without_its_end_is_broken() -> None:
    relay = OpenAIAdapter().relay(HEAD)
    relay.feed(chunk(TEXT))
    with pytest.raises(UpstreamCut):
        relay.close()


@pytest.mark.parametrize(
    ("kind", "gone"),
    [
        ("cerebras", {"n", "presence_penalty", "logit_bias"}),
        ("sambanova", {"presence_penalty", "logit_bias"}),
        ("lmstudio", {"n"}),
        ("ollama", {"n", "user", "logit_bias", "echo"}),
        ("vllm", set()),
    ],
)
def test_what_a_vendor_refuses_or_ignores_is_left_out_and_named(kind: str, gone: set[str]) -> None:
    given = {"n": 2, "presence_penalty": 0.5, "logit_bias": {"7": 1}, "user": "bob", "echo": True, "logprobs": 2}
    body = {"model": "route", "prompt": "Once", "max_tokens": 9, **given}
    adapter = adapter_for(kind, {"dialect": "openai"})
    built = adapter.pass_through(json.dumps(body).encode(), msgspec.structs.replace(HEAD, stream=False), UPSTREAM)
    kept = {name: value for name, value in body.items() if name not in gone}
    assert json.loads(built.body) == {**kept, "model": "davinci-002"}
    assert set(built.dropped) == gone


def test_what_changes_nothing_is_left_out_without_a_word() -> None:
    body = {"model": "route", "prompt": "Once", "n": 1, "presence_penalty": 0, "user": None}
    built = adapter_for("cerebras", {}).pass_through(json.dumps(body).encode(), HEAD, UPSTREAM)
    assert json.loads(built.body).keys() == {"model", "prompt", "user", "stream_options"}
    assert built.dropped == ()
