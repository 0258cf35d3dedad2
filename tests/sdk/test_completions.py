"""OpenAI's SDK at `/v1/completions`: over a provider that serves it, and over chats in two other wire formats."""

from __future__ import annotations

import json

import httpx
import openai
import pytest

from tests.harness.gateway import RunningGateway, wait_for
from tests.harness.invoice import read_invoice
from tests.harness.speakers import PREFIXES

pytestmark = [pytest.mark.sdk, pytest.mark.usefixtures("module_books")]


@pytest.mark.parametrize("wire", list(PREFIXES))
def test_a_prompt_is_completed_and_counted(gateway: RunningGateway, gpt: openai.OpenAI, wire: str) -> None:
    model = f"{PREFIXES[wire]}sandbox-echo"
    raw = gpt.completions.with_raw_response.create(model=model, prompt="hello big wörld 🙂")
    whole = raw.parse()
    assert (whole.object, whole.choices[0].text, whole.choices[0].finish_reason) == (
        "text_completion",
        "hello big wörld 🙂",
        "stop",
    )
    assert whole.usage is not None
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (11, 4)
    (event,) = gateway.events(raw.headers["x-request-id"])
    assert (event.dialect, event.endpoint, event.exactness) == ("openai", "completions", "exact")
    assert event.cost_nanos == 11 * 150 + 4 * 600  # 11 in at $0.15, 4 out at $0.60 a million


@pytest.mark.parametrize("wire", list(PREFIXES))
def test_a_stream_says_the_same_and_ends_at_the_cap(gpt: openai.OpenAI, wire: str) -> None:
    model, options = f"{PREFIXES[wire]}sandbox-lorem", {"include_usage": True}
    stream = gpt.completions.create(model=model, prompt="words: 30", stream=True, stream_options=options, max_tokens=5)
    chunks = list(stream)
    said = "".join(choice.text for chunk in chunks for choice in chunk.choices)
    assert said == "lorem ipsum dolor sit amet"
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason] == ["length"]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 5
    assert gpt.completions.create(model=model, prompt="words: 30", max_tokens=5).choices[0].text == said


@pytest.mark.parametrize("wire", list(PREFIXES))
def test_sixteen_tokens_are_the_most_where_nobody_names_a_cap(gpt: openai.OpenAI, wire: str) -> None:
    answer = gpt.completions.create(model=f"{PREFIXES[wire]}sandbox-lorem", prompt="words: 90")
    assert len(answer.choices[0].text.split()) == 16


def test_several_prompts_and_choices_are_held_and_billed_together(gateway: RunningGateway, gpt: openai.OpenAI) -> None:
    raw = gpt.completions.with_raw_response.create(
        model="sandbox-echo", prompt=["one two", "three"], n=2, best_of=3, echo=True
    )
    texts = [choice.text for choice in raw.parse().choices]
    assert texts == ["one twoone two", "one twoone two", "threethree", "threethree"]
    (event,) = gateway.events(raw.headers["x-request-id"])
    # in: (3 + 4 + 2) + (3 + 4 + 1) = 17; out: (2 + 1) tokens x best of 3 = 9
    assert (event.input_tokens, event.output_tokens) == (17, 9)
    assert read_invoice(gateway.sandbox.invoice)[str(event.id)].nanos == event.cost_nanos


def test_tokens_are_for_a_provider_that_serves_the_endpoint(gpt: openai.OpenAI) -> None:
    assert gpt.completions.create(model="sandbox-echo", prompt=[1, 2]).choices[0].text == "t1 t2"
    for prompt in ([1, 2], ["one", "two"]):
        with pytest.raises(openai.BadRequestError) as refused:
            gpt.completions.create(model="anthropic/sandbox-echo", prompt=prompt)
        assert refused.value.param == "prompt"
        assert "sandbox-anthropic" in refused.value.message


def test_what_a_chat_cannot_say_is_named(gateway: RunningGateway) -> None:
    body = {"model": "anthropic/sandbox-echo", "prompt": "hi", "suffix": "end", "echo": True, "logprobs": 2}
    with gateway.client() as client:
        answer = client.post("/v1/completions", json=body)
    assert answer.status_code == 200
    assert {"suffix", "echo", "logprobs"} <= set(answer.headers["x-conduit-dropped-params"].replace(" ", "").split(","))


def test_usage_that_never_comes_is_estimated_for_prompts_no_chat_could_carry(gateway: RunningGateway) -> None:
    body = {"model": "sandbox-echo", "prompt": [[1, 2], [3]]}
    with gateway.client() as client:
        whole = client.post("/v1/completions", json=body, headers={"x-sandbox-usage": "missing"})
        cut = client.post("/v1/completions", json={**body, "stream": True}, headers={"x-sandbox-usage": "missing"})
    assert (whole.status_code, cut.status_code) == (200, 200)
    for answer in (whole, cut):
        assert gateway.event(answer).exactness == "estimated"


def test_a_hard_budget_holds_for_every_prompt_and_try(gateway: RunningGateway) -> None:
    # 8 prompts x best of 16 x 16 tokens at $0.60 a million = $0.0012288 and more than a thousandth of a dollar
    key = gateway.key(budgets=[{"limit_usd": "0.001"}])
    body = {"model": "sandbox-echo", "prompt": ["a"] * 8, "best_of": 16}
    with gateway.client(key) as client:
        refused = client.post("/v1/completions", json=body)
        served = client.post("/v1/completions", json={**body, "best_of": 2})
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "budget_exceeded")
    assert served.status_code == 200


def test_an_error_midway_has_the_dialects_shape(gateway: RunningGateway) -> None:
    body = {"model": "gemini/sandbox-lorem", "prompt": "words: 8", "stream": True}
    with gateway.client() as client:
        broken = client.post("/v1/completions", json=body, headers={"x-sandbox-cut-after-bytes": "400"})
    last = broken.text.strip().split("\n\n")[-1]
    assert broken.status_code == 200
    assert json.loads(last.removeprefix("data: "))["error"]["type"] == "api_error"
    assert "[DONE]" not in broken.text
    wait_for(lambda: isinstance(gateway.event(broken), object))


def test_a_key_may_be_kept_from_it(gateway: RunningGateway) -> None:
    key = gateway.key(endpoints=["chat"])
    with gateway.client(key) as client:
        answer: httpx.Response = client.post("/v1/completions", json={"model": "sandbox-echo", "prompt": "x"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "endpoint_not_allowed")
