"""Models of Amazon Bedrock behind every dialect: signed as botocore signs, metered and billed to the nano-dollar."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import botocore.session
import pytest
from botocore.config import Config

from conduit.core.actor import SYSTEM
from providers.adapters.types import ChatResponse, Choice, Text, ToolCall, Usage
from providers.credentials import add_credential
from providers.providers import add_provider
from tests.harness.bedrock_server import KEYS, Bedrock, running_bedrock
from tests.harness.gateway import RunningGateway
from tests.harness.speakers import SPEAKERS, Speaker
from usage.overrides import set_price

MODEL = "eu.anthropic.claude-sonnet-4-5-20250929-v1:0"
USAGE = Usage(input_tokens=100, output_tokens=20, cache_read_tokens=60, cache_write_tokens=10, cache_write_1h_tokens=4)
# Dollars per million tokens in a region: 3.30 in, 16.50 out, 0.33 read, 4.125 written for minutes, 6.60 for an hour.
# 100 - 60 - 10 = 30 plain, 10 - 4 = 6 for minutes, so in nano-dollars
# 30 × 3300 + 60 × 330 + 6 × 4125 + 4 × 6600 + 20 × 16500 = 99000 + 19800 + 24750 + 26400 + 330000
COST = 499_950
SAID = ChatResponse(id="", model="", choices=(Choice(parts=(Text("Hello, ünïcode 🙂"),)),), usage=USAGE)


@pytest.fixture(scope="module")
def served() -> Iterator[Bedrock]:
    with running_bedrock() as running:
        yield running


@pytest.fixture
def bedrock(served: Bedrock) -> Bedrock:
    served.answer, served.refusal_named, served.cut = SAID, None, None
    served.asked.clear()
    served.bodies.clear()
    return served


@pytest.fixture(scope="module")
def routed(gateway: RunningGateway, served: Bedrock) -> RunningGateway:
    provider = add_provider(actor=SYSTEM, name="bedrock", kind="bedrock", region="eu-west-1", base_url=served.url)
    add_credential(provider, actor=SYSTEM, name="main", fields=dict(KEYS), verify=False)
    gateway.route("claude", (provider, MODEL))
    other = add_provider(actor=SYSTEM, name="wrong", kind="bedrock", region="eu-west-1", base_url=served.url)
    wrong = {**KEYS, "secret_access_key": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLExxx"}
    add_credential(other, actor=SYSTEM, name="main", fields=wrong, verify=False)
    gateway.route("wrong", (other, MODEL))
    denied = add_provider(actor=SYSTEM, name="denied", kind="bedrock", region="eu-west-1", base_url=served.url)
    add_credential(denied, actor=SYSTEM, name="main", fields=dict(KEYS), verify=False)
    gateway.route("denied", (denied, MODEL))
    return gateway


def asked_of(speaker: Speaker, routed: RunningGateway, *, stream: bool) -> tuple[Any, str, tuple[int, int] | None]:
    """The answer, its text, and the tokens it tells."""
    if stream:
        answer, seen = speaker.stream(routed.url, routed.raw_key, model="claude", cap=50, **_with_usage(speaker))
        assert (answer.status_code, seen.error, seen.ended) == (200, None, True)
        return answer, seen.text, seen.usage
    answer = speaker.ask(routed.url, routed.raw_key, model="claude", cap=50)
    assert answer.status_code == 200, answer.text
    text, usage = speaker.read(answer.json())
    return answer, text, usage


def _with_usage(speaker: Speaker) -> dict[str, Any]:
    return {"stream_options": {"include_usage": True}} if speaker.name == "openai" else {}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("name", list(SPEAKERS))
def test_a_claude_of_bedrock_answers_every_dialect_and_costs_what_it_costs(
    routed: RunningGateway, bedrock: Bedrock, name: str, stream: bool
) -> None:
    answer, text, usage = asked_of(SPEAKERS[name], routed, stream=stream)
    assert (text, usage) == ("Hello, ünïcode 🙂", (100, 20))
    event = routed.event(answer)
    assert event.model == MODEL
    told = (event.input_tokens, event.output_tokens, event.cache_read_tokens, event.cache_write_tokens)
    assert told == (100, 20, 60, 10)
    assert (event.cost_nanos, event.exactness) == (COST, "exact")
    ((operation, parameters),) = bedrock.asked
    assert operation == ("ConverseStream" if stream else "Converse")
    assert parameters == {
        "modelId": MODEL,
        "messages": [{"role": "user", "content": [{"text": "hello big world"}]}],
        "inferenceConfig": {"maxTokens": 50},
    }


def test_botocores_own_client_sends_and_reads_the_same(routed: RunningGateway, bedrock: Bedrock) -> None:
    asked_of(SPEAKERS["openai"], routed, stream=False)
    asked_of(SPEAKERS["openai"], routed, stream=True)
    client = botocore.session.get_session().create_client(
        "bedrock-runtime",
        region_name="eu-west-1",
        endpoint_url=bedrock.url,
        aws_access_key_id=KEYS["access_key_id"],
        aws_secret_access_key=KEYS["secret_access_key"],
        config=Config(retries={"max_attempts": 0}, proxies={}),
    )
    theirs = client.converse(**bedrock.asked[0][1])
    assert theirs["output"]["message"]["content"] == [{"text": "Hello, ünïcode 🙂"}]
    events = list(client.converse_stream(**bedrock.asked[1][1])["stream"])
    pieces = [event["contentBlockDelta"]["delta"]["text"] for event in events if "contentBlockDelta" in event]
    assert "".join(pieces) == "Hello, ünïcode 🙂"
    ours, streamed, *botocores = map(json.loads, bedrock.bodies)
    assert [ours, streamed] == botocores


def test_tools_and_their_results_come_and_go(routed: RunningGateway, bedrock: Bedrock) -> None:
    call = ToolCall("tooluse_1", "weather", '{"city":"Paris"}')
    bedrock.answer = ChatResponse(id="", model="", choices=(Choice(parts=(call,), finish="tool_calls"),), usage=USAGE)
    tool = {"name": "weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}
    with routed.client() as client:
        asked: dict[str, Any] = {"model": "claude", "max_tokens": 50, "tools": [tool], "messages": []}
        asked["messages"].append({"role": "user", "content": "Weather in Paris?"})
        first = client.post("/v1/messages", json=asked).json()
        assert first["stop_reason"] == "tool_use"
        asked["messages"].append({"role": "assistant", "content": first["content"]})
        result = {"type": "tool_result", "tool_use_id": "tooluse_1", "content": "Sunny"}
        asked["messages"].append({"role": "user", "content": [result]})
        bedrock.answer = SAID
        assert client.post("/v1/messages", json=asked).status_code == 200
    turns = bedrock.asked[1][1]["messages"]
    assert turns[1]["content"][0]["toolUse"]["input"] == {"city": "Paris"}
    assert turns[2]["content"] == [{"toolResult": {"toolUseId": "tooluse_1", "content": [{"text": "Sunny"}]}}]


@pytest.mark.parametrize(
    ("name", "options"),
    [("guarded", {"guardrail": "gr-1", "guardrail_version": "1"}), ("hasty", {"latency": "optimized"})],
)
def test_what_an_option_costs_beyond_the_list_is_refused_until_it_has_a_price(
    routed: RunningGateway, bedrock: Bedrock, name: str, options: dict[str, str]
) -> None:
    provider = add_provider(
        actor=SYSTEM, name=name, kind="bedrock", region="eu-west-1", base_url=bedrock.url, options=options
    )
    add_credential(provider, actor=SYSTEM, name="main", fields=dict(KEYS), verify=False)
    routed.route(name, (provider, MODEL))
    key = routed.key(budgets=[{"limit_usd": "10"}])
    refused = routed.chat("hello", key=key, model=name)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "budget_exceeded")
    assert f"the option {next(iter(options))}" in refused.json()["error"]["message"]
    assert f"set a price for the provider '{name}'" in refused.json()["error"]["message"]
    assert routed.chat("hello", model=name).status_code == 200, "without a hard budget it passes"
    rates = {"input": "5", "output": "20", "cache_read": "1", "cache_write_5m": "6", "cache_write_1h": "9"}
    set_price(MODEL, actor=SYSTEM, provider=str(provider.id), rates=rates)
    routed.refresh()
    assert routed.chat("hello", key=key, model=name).status_code == 200


def test_a_request_signed_with_another_key_is_not_let_in(routed: RunningGateway, bedrock: Bedrock) -> None:
    refused = routed.chat(model="wrong")
    assert (refused.status_code, refused.json()["error"]["code"]) == (502, "upstream_auth_failed")
    assert "signature" in refused.json()["error"]["message"]


def test_a_missing_permission_is_named_to_the_client(routed: RunningGateway, bedrock: Bedrock) -> None:
    words = "User is not authorized to perform: bedrock:InvokeModelWithResponseStream on this resource"
    bedrock.refusal_named = (403, "AccessDeniedException", words)
    refused = routed.chat(model="denied", stream=True)
    assert (refused.status_code, refused.json()["error"]["code"]) == (502, "upstream_auth_failed")
    assert words in refused.json()["error"]["message"]
    bedrock.refusal_named = (400, "ValidationException", "The model returned the following errors: top_k")
    refused = routed.chat(model="claude")
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "upstream_rejected")
    assert refused.json()["error"]["message"] == "The model returned the following errors: top_k"


def test_what_the_model_cannot_take_is_refused_by_field_and_provider(routed: RunningGateway, bedrock: Bedrock) -> None:
    picture = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    with routed.client() as client:
        body = {"model": "claude", "messages": [{"role": "user", "content": [picture]}]}
        refused = client.post("/v1/chat/completions", json=body)
    assert refused.status_code == 400
    error = refused.json()["error"]
    assert error["param"] == "messages.image"
    assert "bedrock" in error["message"]
    assert bedrock.asked == []


def test_a_stream_that_breaks_off_ends_with_an_error_and_no_end_marker(
    routed: RunningGateway, bedrock: Bedrock
) -> None:
    bedrock.cut = 700  # bytes, some frames of the answer's text
    answer, seen = SPEAKERS["openai"].stream(routed.url, routed.raw_key, model="claude", cap=50)
    assert answer.status_code == 200
    assert "Hello, ünïcode 🙂".startswith(seen.text)
    assert seen.text
    assert seen.error is not None
    assert (seen.error.code, seen.ended) == ("upstream_invalid_response", False)
