"""OpenAI's client and its responses: what it does beyond a plain conversation, over each provider's wire format.

tests/sdk/test_any_dialect.py holds the conversations themselves: text, tools in parallel, images, thoughts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import openai
import pydantic
import pytest

from tests.harness.gateway import RunningGateway, sandbox_provider
from tests.harness.speakers import PREFIXES
from tests.sdk.conversations import FINISH, Talker

pytestmark = [pytest.mark.sdk, pytest.mark.usefixtures("module_books")]
WIRES = {**PREFIXES, "responses": "responses/"}
HELLO = 10 * 150 + 3 * 600  # nano-dollars: "hello big world" is 10 tokens of prompt and 3 of answer


class Trip(pydantic.BaseModel):
    city: str
    days: int


@pytest.fixture(scope="module", autouse=True)
def _more(gateway: RunningGateway) -> None:
    """Routes `responses/…`: a provider whose own wire format is the Responses API."""
    sandbox_provider("sandbox-responses", gateway.sandbox, "responses", "responses/")
    gateway.refresh()


@pytest.fixture(params=list(WIRES))
def wire(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def test_an_answer_is_parsed_into_the_callers_own_type(gpt: openai.OpenAI, wire: str) -> None:
    model = f"{WIRES[wire]}sandbox-json"
    whole = gpt.responses.parse(model=model, input="plan", text_format=Trip)
    assert whole.output_parsed == Trip(city="text", days=1)
    with gpt.responses.stream(model=model, input="plan", text_format=Trip) as events:
        assert events.get_final_response().output_parsed == Trip(city="text", days=1)


def test_the_clients_own_helper_follows_a_stream(gpt: openai.OpenAI, wire: str) -> None:
    with gpt.responses.stream(model=f"{WIRES[wire]}sandbox-think", input="hello") as events:
        seen = list(events)
        final = events.get_final_response()
    deltas = [event.delta for event in seen if event.type == "response.output_text.delta"]
    thought = [event.delta for event in seen if event.type == "response.reasoning_summary_text.delta"]
    assert "".join(deltas) == final.output_text == "hello"
    assert final.output[0].type == "reasoning"
    assert "".join(thought) == final.output[0].summary[0].text
    assert [event.sequence_number for event in seen] == list(range(len(seen)))
    assert (seen[0].type, seen[-1].type) == ("response.created", "response.completed")


def test_a_cap_leaves_an_incomplete_answer(gpt: openai.OpenAI, wire: str) -> None:
    asked: dict[str, Any] = {"model": f"{WIRES[wire]}sandbox-lorem", "input": "words: 50", "max_output_tokens": 16}
    whole = gpt.responses.create(**asked)
    assert (whole.status, whole.incomplete_details and whole.incomplete_details.reason) == (
        "incomplete",
        "max_output_tokens",
    )
    assert whole.usage is not None
    assert whole.usage.output_tokens == 16
    last = list(gpt.responses.create(**asked, stream=True))[-1]
    assert last.type == "response.incomplete"
    assert last.response.output_text == whole.output_text


def test_a_free_text_tool_is_called_in_free_text(gateway: RunningGateway, gpt: openai.OpenAI) -> None:
    """A provider that only knows functions is given one; the caller sees nothing of that."""
    tool: dict[str, Any] = {"type": "custom", "name": "script", "description": "runs it"}
    asked: dict[str, Any] = {"model": "anthropic/sandbox-tools", "tools": [tool]}
    with gpt.responses.stream(**asked, input="run it") as events:
        (streamed,) = events.get_final_response().output
    (call,) = gpt.responses.create(**asked, input="run it").output
    assert call.type == streamed.type == "custom_tool_call"
    assert (call.name, call.input) == (streamed.name, streamed.input) == ("script", "text")
    told = {"type": "custom_tool_call_output", "call_id": call.call_id, "output": "done"}
    question = {"role": "user", "content": "run it"}
    after = gpt.responses.create(**asked, input=[question, call.model_dump(exclude_none=True), told])
    assert after.output_text == "done"


def test_it_costs_what_it_costs_in_any_dialect(gateway: RunningGateway, gpt: openai.OpenAI, wire: str) -> None:
    asked: dict[str, Any] = {"model": f"{WIRES[wire]}sandbox-echo", "input": "hello big world"}
    answer = gpt.responses.with_raw_response.create(**asked)
    (event,) = gateway.events(answer.headers["x-request-id"])
    assert (event.cost_nanos, event.exactness) == (HELLO, "exact")
    assert (event.dialect, event.endpoint) == ("responses", "responses")
    cached = {"x-sandbox-cached-tokens": "6"}
    counted = gpt.responses.create(**asked, extra_headers=cached).usage
    assert counted is not None
    assert (counted.input_tokens, counted.input_tokens_details.cached_tokens) == (10, 6)


def test_each_client_reaches_a_provider_of_this_format(talker: Talker, dialect: str, stream: bool) -> None:
    said = talker.ask("responses/sandbox-think", "hello", stream=stream)
    assert (said.text, said.finish) == ("hello", FINISH["stop"][dialect])
    assert said.thought.startswith("The user wrote")
    assert said.signature
    called = talker.ask("responses/sandbox-tools", "both in parallel", stream=stream, tools=("weather", "tides"))
    assert [name for name, _ in called.calls] == ["weather", "tides"]
    assert called.finish == FINISH["calls"][dialect]
    told = talker.results(called, "sunny", "high at nine")
    again = talker.ask("responses/sandbox-tools", "both", stream=stream, tools=("weather", "tides"), then=told)
    assert again.text.split("\n") == ["sunny", "high at nine"]


def test_a_stream_that_breaks_raises_in_the_client(gpt: openai.OpenAI, wire: str) -> None:
    broken = {"x-sandbox-error-200": "1", "x-sandbox-tokens": "10"}
    model = f"{WIRES[wire]}sandbox-echo"
    seen = list(gpt.responses.create(model=model, input="x", stream=True, extra_headers=broken))
    assert seen[-1].type == "error"
    assert seen[-1].code == "upstream_unavailable"
    assert not [event for event in seen if event.type in ("response.completed", "response.incomplete")]
    with (
        pytest.raises(RuntimeError),
        gpt.responses.stream(model=model, input="x", extra_headers=broken) as events,
    ):
        events.get_final_response()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"previous_response_id": "resp_of_another"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0].id"),
        ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0].text"),
    ],
)
def test_what_is_refused_names_its_place(gpt: openai.OpenAI, fields: Mapping[str, Any], param: str) -> None:
    """Nothing of a vendor's account is reachable by an id: its callers are several tenants."""
    with pytest.raises(openai.BadRequestError) as caught:
        gpt.responses.create(**{"model": "sandbox-echo", "input": "x", **fields})
    assert caught.value.param == param
    assert param in json.dumps(caught.value.body)
