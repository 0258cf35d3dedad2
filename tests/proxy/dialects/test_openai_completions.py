"""`/v1/completions`: what is understood, what is refused by its field's name, and answers the SDK's types accept."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types import Completion

from conduit.proxy.dialects.base import Inbound
from conduit.proxy.dialects.openai import OPENAI
from conduit.proxy.errors import ApiError
from conduit.proxy.worst_case import PER_REQUEST
from providers.adapters.base import Upstream
from providers.adapters.events import Ended, Finished, Started, StreamEvent, TextDelta, UsageSeen
from providers.adapters.registry import KINDS, adapter_for
from providers.adapters.types import (
    ChatRequest,
    ChatResponse,
    Choice,
    Dialect,
    Endpoint,
    Finish,
    Message,
    Reasoning,
    Refusal,
    Text,
    TokenLogprob,
    Usage,
)
from providers.errors import CannotCarry
from tests.proxy.test_worst_case import of, target

LOGPROB = TokenLogprob(token="Hi", logprob=-0.5, top=(TokenLogprob(token="Ho", logprob=-1.5),))


def parse(**fields: Any) -> Inbound:
    return OPENAI.parse(Endpoint.COMPLETIONS, json.dumps({"model": "m", "prompt": "Once", **fields}).encode())


def test_the_prompt_becomes_a_chats_one_message_and_the_cap_is_the_apis_own() -> None:
    request = parse(temperature=0.5, stop="END", logprobs=2, seed=7, n=2, user="bob").canonical()
    assert isinstance(request, ChatRequest)
    assert request.messages == (Message("user", (Text("Once"),)),)
    assert (request.max_output_tokens, request.n, request.seed, request.user) == (16, 2, 7, "bob")
    assert (request.temperature, request.stop, request.logprobs, request.top_logprobs) == (0.5, ("END",), True, 2)


@pytest.mark.parametrize("kind", ["sandbox", "anthropic", "gemini", "custom"])
def test_what_no_chat_has_is_dropped_by_name(kind: str) -> None:
    request = parse(suffix="the end", echo=True, best_of=3, min_p=0.1).canonical()
    upstream = Upstream(base_url="https://x", model="up", secrets={"api_key": "k"})
    built = adapter_for(kind, {}).build_request(request, upstream)
    assert {"suffix", "echo", "best_of", "min_p"} <= set(built.dropped)
    assert not {"suffix", "echo", "best_of", "min_p"} & json.loads(built.body).keys()


def test_what_changes_nothing_is_not_called_dropped() -> None:
    request = parse(suffix=None, echo=False, best_of=1).canonical()
    assert isinstance(request, ChatRequest)
    assert request.extra == {}


@pytest.mark.parametrize("prompt", [["one", "two"], [1, 2, 3], [[1], [2]], "", None])
def test_a_prompt_that_no_chat_can_be_asked_is_refused_by_name(prompt: Any) -> None:
    inbound = parse(prompt=prompt)  # the endpoint itself takes it
    with pytest.raises(CannotCarry) as refused:
        inbound.canonical()
    assert refused.value.field == "prompt"


def test_nothing_to_generate_is_for_the_endpoint_itself() -> None:
    with pytest.raises(CannotCarry) as refused:
        parse(max_tokens=0, echo=True).canonical()
    assert refused.value.field == "max_tokens"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt[1]"),
        ({"prompt": [1, -1]}, "prompt[1]"),
        ({"prompt": {"a": 1}}, "prompt"),
        ({"prompt": [[1, -1]]}, "prompt[0][1]"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": "16"}, "max_tokens"),
        ({"n": 0}, "n"),
        ({"n": 3, "best_of": 2}, "best_of"),
        ({"stream": True, "best_of": 2}, "best_of"),
        ({"logprobs": True}, "logprobs"),
        ({"Prompt": "x"}, "Prompt"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(ApiError) as refused:
        parse(**fields)
    assert (refused.value.status, refused.value.param) == (400, field)


def test_of_several_caps_the_smallest_holds() -> None:
    assert parse(max_tokens=30, n_predict=20).head.max_output_tokens == 20
    assert parse(max_tokens=None).head.max_output_tokens == 16


# --- what it may cost ------------------------------------------------------------------------------------------------


def bound(window: int | None = None, **fields: Any) -> Any:
    body = {"model": "m", "prompt": "Once", **fields}
    return of(Dialect.OPENAI, body, target(window=window), Endpoint.COMPLETIONS)


def test_each_prompt_is_answered_by_itself() -> None:
    # 3 prompts x 2 choices = 6 answers of 16 tokens
    assert (bound(prompt=["a", "b", "c"], n=2).n, bound(prompt=["a", "b", "c"], n=2).output_tokens) == (6, 16)
    # 3 prompts x the best of 5 = 15 answers, of which 6 are shown
    assert bound(prompt=["a", "b", "c"], n=2, best_of=5).n == 15
    assert bound(prompt=[1, 2, 3]).n == 1
    assert bound(prompt=[[1, 2], [3]], max_tokens=7).n == 2


def test_each_prompt_has_the_window_to_itself() -> None:
    long = "word " * 400
    one, three = bound(window=300, prompt=long), bound(window=300, prompt=[long] * 3)
    assert (one.input_tokens, three.input_tokens) == (300, 900)
    best = bound(window=300, prompt=[long] * 3, best_of=2)  # a body that is read part by part
    assert (best.input_tokens, best.n) == (900, 6)


def test_tokens_take_at_least_as_many_bytes_as_there_are() -> None:
    assert bound(prompt=[1] * 500).input_tokens >= 500 + PER_REQUEST


def test_a_prompt_that_is_repeated_may_take_frames_of_its_own() -> None:
    assert parse(echo=True, n=2).head.echoed == 8  # "Once" twice: at most one frame a byte
    assert parse(echo=True, prompt=[5, 6, 7]).head.echoed == 3
    assert parse().head.echoed == 0


# --- where it is passed through --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "served"),
    [
        ("gpt-3.5-turbo-instruct", True),
        ("gpt-3.5-turbo-instruct-0914", True),
        ("davinci-002", True),
        ("ft:babbage-002:acct:x:1", True),
        ("gpt-4o-mini", False),
        ("o3", False),
    ],
)
def test_only_models_that_openai_serves_there_are_passed_through(model: str, served: bool) -> None:
    assert KINDS["openai"].serves(Endpoint.COMPLETIONS, model) is served
    assert KINDS["openai"].serves(Endpoint.CHAT, model)


# --- answers ---------------------------------------------------------------------------------------------------------


def test_a_whole_answer_is_a_text_completion() -> None:
    choices = (
        Choice(index=0, parts=(Reasoning(text="hm"), Text("Hi"), Text(" you")), finish="stop", logprobs=(LOGPROB,)),
        Choice(index=1, parts=(Refusal(text="No."),), finish="refusal"),
    )
    spent = Usage(input_tokens=5, output_tokens=3, cache_read_tokens=2)
    response = ChatResponse(id="cmpl-1", model="m", choices=choices, usage=spent)
    seen = Completion.model_validate_json(OPENAI.render(parse(), response), strict=True)
    assert [choice.text for choice in seen.choices] == ["Hi you", "No."]
    assert [choice.finish_reason for choice in seen.choices] == ["stop", "content_filter"]
    told = seen.choices[0].logprobs
    assert told is not None
    assert (told.tokens, told.token_logprobs) == (["Hi"], [-0.5])
    assert (told.top_logprobs, told.text_offset) == ([{"Ho": -1.5}], [0])
    assert seen.usage is not None
    assert (seen.usage.prompt_tokens, seen.usage.completion_tokens, seen.usage.total_tokens) == (5, 3, 8)


@pytest.mark.parametrize(
    ("finish", "word"),
    [("stop", "stop"), ("stop_sequence", "stop"), ("length", "length"), ("pause", "stop"), ("error", "length")],
)
def test_each_way_to_end_has_a_word_that_the_sdk_knows(finish: Finish, word: str) -> None:
    response = ChatResponse(id="", model="m", choices=(Choice(parts=(Text("x"),), finish=finish),), usage=None)
    assert Completion.model_validate_json(OPENAI.render(parse(), response)).choices[0].finish_reason == word


def streamed(inbound: Inbound, events: list[StreamEvent]) -> list[Any]:
    renderer = OPENAI.stream(inbound, "r1")
    text = renderer.feed(events).decode()
    assert text.endswith("data: [DONE]\n\n")
    return [json.loads(line[6:]) for line in text.split("\n\n") if line.startswith("data: {")]


def test_a_stream_says_the_same_in_pieces() -> None:
    events: list[StreamEvent] = [
        Started("cmpl-7", "up", 1_700_000_000),
        TextDelta("Hi", logprobs=(LOGPROB,)),
        TextDelta(" you", logprobs=(TokenLogprob(token=" you", logprob=-0.1),)),
        Finished("length"),
        UsageSeen(Usage(input_tokens=5, output_tokens=2)),
        Ended(),
    ]
    chunks = streamed(parse(stream=True, stream_options={"include_usage": True}), events)
    for chunk in chunks[:-2]:  # the SDK's type asks for an end that a piece has not
        assert chunk["choices"][0]["finish_reason"] is None
        assert (chunk["id"], chunk["object"], chunk["created"]) == ("cmpl-7", "text_completion", 1_700_000_000)
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks[:-1]) == "Hi you"
    assert [chunk["choices"][0]["logprobs"]["text_offset"] for chunk in chunks[:2]] == [[0], [2]]
    assert Completion.model_validate(chunks[-2]).choices[0].finish_reason == "length"
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["total_tokens"] == 7
    assert not any("usage" in chunk for chunk in streamed(parse(stream=True), events))
