"""What OpenAI-compatible vendors do their own way: data of their rows, heeded however a request goes there."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from providers.adapters.base import Head, Upstream
from providers.adapters.openai import CompatibleAdapter
from providers.adapters.openai_wire import usage_of
from providers.adapters.quirks import Quirks
from providers.adapters.registry import KINDS, adapter_for
from providers.adapters.types import (
    Audio,
    ChatRequest,
    Document,
    Endpoint,
    Image,
    Media,
    Message,
    Reasoning,
    ReasoningSettings,
    ResponseFormat,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from providers.errors import CannotCarry, UpstreamError

HELLO = (Message(role="user", parts=(Text(text="Hello"),), name="alice"),)
SAMPLING: dict[str, Any] = {
    "seed": 7,
    "presence_penalty": 0.5,
    "frequency_penalty": -0.5,
    "logit_bias": {"50256": -100.0},
    "logprobs": True,
    "top_logprobs": 2,
    "stop": ("END",),
    "n": 2,
    "user": "u-1",
    "metadata": {"a": "b"},
    "store": True,
    "service_tier": "auto",
}


def target(kind: str, model: str = "m", **more: Any) -> Upstream:
    base_url = KINDS[kind].address("", {"account": "acc"}) or "https://w.example.org/serving-endpoints"
    return Upstream(base_url=base_url, model=model, secrets={"api_key": "k"}, **more)


def built(kind: str, model: str = "m", **given: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    request = ChatRequest(**{"model": "r", "messages": HELLO, **given})
    made = adapter_for(kind, {}).build_request(request, target(kind, model))
    return json.loads(made.body), made.dropped


def passed(kind: str, body: dict[str, Any], model: str = "m", **more: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    head = Head(endpoint=Endpoint.CHAT, model="r", stream=bool(body.get("stream")))
    made = adapter_for(kind, {}).pass_through(json.dumps(body).encode(), head, target(kind, model, **more))
    return json.loads(made.body), made.dropped


QUIRKY = sorted(kind for kind, row in KINDS.items() if row.quirks is not None and row.quirks.drops)


@pytest.mark.parametrize("kind", QUIRKY)
def test_what_a_vendor_refuses_is_left_out_and_named_whichever_way_the_request_goes(kind: str) -> None:
    quirks = KINDS[kind].quirks
    assert quirks is not None
    body, dropped = built(kind, **SAMPLING)
    members = {**{name: value for name, value in SAMPLING.items() if name != "stop"}, "stop": ["END"]}
    relayed, named = passed(kind, {"model": "r", "messages": [], **members})
    for name in members:
        assert (name in body) is (name in relayed) is (name not in quirks.drops)
        assert (name in dropped) is (name in named) is (name in quirks.drops)
    assert ("messages.name" in dropped) is ("messages.name" in quirks.drops)
    assert ("name" in body["messages"][0]) is ("messages.name" not in quirks.drops)


LOGPROBS = "message.output_text.logprobs"
KEPT = ["reasoning.encrypted_content"]
BOTH = ("top_logprobs", f"include.{LOGPROBS}")


@pytest.mark.parametrize("kind", ["groq", "sambanova"])
@pytest.mark.parametrize(
    ("given", "left", "named"),
    [
        ({"include": [LOGPROBS], "top_logprobs": 2}, {}, BOTH),
        ({"include": [*KEPT, LOGPROBS], "top_logprobs": 0}, {"include": KEPT}, BOTH[1:]),
        ({"include": KEPT}, {"include": KEPT}, ()),
        ({"include": None, "top_logprobs": None}, {"include": None}, ()),
        ({}, {}, ()),
    ],
)
def test_a_relayed_response_is_not_asked_for_log_probabilities_where_they_are_refused(
    kind: str, given: dict[str, Any], left: dict[str, Any], named: tuple[str, ...]
) -> None:
    head = Head(endpoint=Endpoint.RESPONSES, model="r")
    body = json.dumps({"model": "r", "input": "Hello", **given}).encode()
    made = adapter_for(kind, {}).pass_through(body, head, target(kind))
    assert json.loads(made.body) == {"model": "m", "input": "Hello", **left}
    assert made.dropped == named
    able = adapter_for("fireworks", {}).pass_through(body, head, target("fireworks"))
    assert json.loads(able.body) == {"model": "m", "input": "Hello", **given}
    assert able.dropped == ()


@pytest.mark.parametrize(
    ("given", "left", "named"),
    [
        ({"effort": "low"}, None, ("reasoning.effort",)),
        ({"effort": "low", "summary": "auto"}, {"summary": "auto"}, ("reasoning.effort",)),
        ({"summary": "auto"}, {"summary": "auto"}, ()),
        ({"effort": None}, {"effort": None}, ()),
        (None, None, ()),
    ],
)
def test_a_relayed_response_asks_for_no_effort_where_the_model_takes_none(
    given: object, left: object, named: tuple[str, ...]
) -> None:
    head = Head(endpoint=Endpoint.RESPONSES, model="r")
    body = json.dumps({"model": "r", "input": "Hello", "reasoning": given}).encode()
    adapter = adapter_for("xai", {})
    made = adapter.pass_through(body, head, target("xai", "grok-4-0709"))
    assert json.loads(made.body).get("reasoning") == left
    assert made.dropped == named
    able = adapter.pass_through(body, head, target("xai", "grok-3-mini"))
    assert json.loads(able.body)["reasoning"] == given
    assert able.dropped == ()


@pytest.mark.parametrize("value", [1, None])
def test_one_choice_needs_no_name_where_several_are_refused(value: int | None) -> None:
    body, dropped = passed("groq", {"model": "r", "messages": [], "n": value, "logprobs": False, "logit_bias": {}})
    assert set(body) == {"model", "messages"}
    assert dropped == ()


@pytest.mark.parametrize(
    ("model", "gone"),
    [
        ("grok-3-mini", {"presence_penalty", "frequency_penalty", "stop"}),
        ("grok-3", {"reasoning_effort"}),
        ("grok-4-0709", {"presence_penalty", "frequency_penalty", "stop", "reasoning_effort"}),
        ("grok-4-fast-reasoning", {"presence_penalty", "frequency_penalty", "stop", "reasoning_effort"}),
        ("grok-4-fast-non-reasoning", {"reasoning_effort"}),
        ("grok-4.3", {"presence_penalty", "frequency_penalty", "stop"}),
        ("grok-2-vision-1212", set()),
    ],
)
def test_what_only_some_models_refuse_is_left_out_for_those(model: str, gone: set[str]) -> None:
    sent: dict[str, Any] = {"presence_penalty": 1, "frequency_penalty": 1, "stop": "x", "reasoning_effort": "low"}
    body, dropped = passed("xai", {"model": "r", "messages": [], **sent}, model)
    assert set(dropped) == gone
    assert set(body) == {"model", "messages", *sent} - gone


@pytest.mark.parametrize("kind", ["deepseek", "zai"])
def test_a_schema_is_refused_by_name_where_a_vendor_follows_none_and_plain_json_is_not(kind: str) -> None:
    wanted = ResponseFormat("json_schema", schema={"type": "object"})
    with pytest.raises(CannotCarry, match="response_format"):
        built(kind, response_format=wanted)
    with pytest.raises(CannotCarry, match="response_format"):
        passed(kind, {"model": "r", "messages": [], "response_format": {"type": "json_schema", "json_schema": {}}})
    body, dropped = built(kind, response_format=ResponseFormat("json"))
    assert body["response_format"] == {"type": "json_object"}
    assert dropped == (("messages.name",) if "messages.name" in KINDS[kind].quirks.drops else ())  # type: ignore[union-attr]


def test_tools_are_refused_where_a_vendor_has_none() -> None:
    with pytest.raises(CannotCarry, match="tools") as caught:
        built("perplexity", tools=(Tool(name="f"),), tool_choice=ToolChoice("auto"))
    assert caught.value.field == "tools"
    body, _ = passed("perplexity", {"model": "r", "messages": [], "tools": []})
    assert "tools" not in body
    for parts in ((ToolCall(id="c", name="f"),), (ToolResult("c", (Text("4"),)),)):
        role: Any = "assistant" if isinstance(parts[0], ToolCall) else "tool"
        with pytest.raises(CannotCarry, match="tool_calls"):
            built("perplexity", messages=(Message(role=role, parts=parts),))


@pytest.mark.parametrize(
    ("kind", "part", "field"),
    [
        ("deepseek", Image(Media(url="https://example.org/a.png")), "messages.image"),
        ("groq", Audio(Media(data="AAAA"), format="wav"), "messages.audio"),
        ("groq", Document(Media(data="AAAA", mime="application/pdf")), "messages.document"),
    ],
)
def test_media_that_a_vendor_does_not_take_is_refused_by_name(kind: str, part: Any, field: str) -> None:
    with pytest.raises(CannotCarry) as caught:
        built(kind, messages=(Message(role="user", parts=(Text("Look"), part)),))
    assert caught.value.field == field
    plain = Document(Media(), text="just text")
    body, dropped = built(kind, messages=(Message(role="user", parts=(plain,)),))
    assert (body["messages"][0]["content"], dropped) == ("just text", ())


def test_a_zero_says_nothing_as_a_penalty_and_something_as_a_seed() -> None:
    sent = {"model": "r", "messages": [], "presence_penalty": 0, "seed": 0}
    assert passed("perplexity", sent) == ({"model": "m", "messages": []}, ("seed",))
    for parallel, named in ((True, ()), (False, ("parallel_tool_calls",)), (None, ())):
        sent = {"model": "r", "messages": [], "parallel_tool_calls": parallel}
        assert passed("cerebras", sent) == ({"model": "m", "messages": []}, named)


# --- reasoning --------------------------------------------------------------------------------------------------------

TURNS = (
    Message(role="user", parts=(Text(text="2+2?"),)),
    Message(
        role="assistant",
        parts=(Reasoning(text="Two and two.", signature="sig"), ToolCall(id="c1", name="add", arguments="{}")),
    ),
)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [("deepseek", {"reasoning_content"}), ("groq", {"reasoning"}), ("cerebras", {"reasoning"}), ("github", set())],
)
def test_earlier_reasoning_goes_back_where_the_vendor_reads_it(kind: str, fields: set[str]) -> None:
    body, dropped = built(kind, messages=TURNS)
    told = {name: body["messages"][1].get(name) for name in ("reasoning", "reasoning_content", "reasoning_details")}
    assert {name for name, value in told.items() if value} == fields
    assert all(told[name] == "Two and two." for name in fields)
    assert ("messages.reasoning" in dropped) is (not fields)
    assert ("messages.reasoning.signature" in dropped) is bool(fields)


@pytest.mark.parametrize(
    ("wanted", "sent", "dropped"),
    [
        (ReasoningSettings(effort="high"), {"type": "enabled"}, ("reasoning.effort",)),
        (ReasoningSettings(budget_tokens=2048), {"type": "enabled"}, ("reasoning.budget_tokens",)),
        (ReasoningSettings(effort="none", off=True), {"type": "disabled"}, ()),
        (ReasoningSettings(off=True), {"type": "disabled"}, ()),
    ],
)
@pytest.mark.parametrize("kind", ["deepseek", "moonshot", "zai"])
def test_thinking_is_a_switch_for_some(
    kind: str, wanted: ReasoningSettings, sent: dict[str, Any], dropped: tuple[str, ...]
) -> None:
    body, named = built(kind, messages=HELLO[:0] + TURNS[:1], reasoning=wanted)
    assert body["thinking"] == sent
    assert "reasoning_effort" not in body
    assert named == dropped


# --- caps, streams, usage, lists of models ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", QUIRKY)
def test_the_cap_has_the_vendors_name_and_there_is_one(kind: str) -> None:
    quirks = KINDS[kind].quirks
    assert quirks is not None
    body, _ = passed(kind, {"model": "r", "max_tokens": 90, "max_completion_tokens": 80}, max_output_tokens=50)
    assert {name: body[name] for name in body if name.startswith("max_")} == {quirks.cap_field: 50}


@pytest.mark.parametrize(("kind", "field"), [("groq", "max_completion_tokens"), ("together", "max_tokens")])
def test_the_callers_own_cap_goes_by_the_vendors_name(kind: str, field: str) -> None:
    for name in ("max_tokens", "max_completion_tokens"):
        body, dropped = passed(kind, {"model": "r", "messages": [], name: 70})
        assert (body, dropped) == ({"model": "m", "messages": [], field: 70}, ())


def test_a_vendor_that_tells_usage_unasked_is_not_asked() -> None:
    adapter = CompatibleAdapter(Quirks(asks_usage=False))
    request = ChatRequest(model="r", messages=HELLO, stream=True)
    assert "stream_options" not in json.loads(adapter.build_request(request, target("groq")).body)
    head = Head(endpoint=Endpoint.CHAT, model="r", stream=True)
    sent = b'{"model":"r","stream":true,"stream_options":{"include_usage":true}}'
    assert "stream_options" not in json.loads(adapter.pass_through(sent, head, target("groq")).body)


@pytest.mark.parametrize(
    ("raw", "cached", "cost"),
    [
        ({"prompt_tokens_details": {"cached_tokens": 60}}, 60, None),  # OpenAI, xAI, Groq, Cerebras
        ({"prompt_tokens_details": None, "prompt_cache_hit_tokens": 64, "prompt_cache_miss_tokens": 36}, 64, None),
        ({"prompt_tokens_details": {"cached_tokens": None}, "cached_tokens": 33}, 33, None),  # Moonshot
        # Perplexity: 100 tokens in at $1 and 20 out at $1 a million = $0.00012, and $0.005 for the request
        ({"cost": {"input_tokens_cost": 0.0001, "request_cost": 0.005, "total_cost": 0.00512}}, 0, 5_120_000),
    ],
)
def test_cached_tokens_and_costs_are_read_where_each_vendor_tells_them(
    raw: dict[str, Any], cached: int, cost: int | None
) -> None:
    usage = usage_of({"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120, **raw})
    assert (usage.input_tokens, usage.cache_read_tokens, usage.output_tokens) == (100, cached, 20)
    assert usage.reported_cost == cost
    assert usage.flags == ()


@pytest.mark.parametrize(
    ("kind", "url", "body", "names"),
    [
        ("groq", "https://api.groq.com/openai/v1/models", {"data": [{"id": "a"}, {"id": "b"}]}, ["a", "b"]),
        ("github", "https://models.github.ai/catalog/models", [{"id": "openai/gpt-4.1"}], ["openai/gpt-4.1"]),
        (
            "cloudflare",
            "https://api.cloudflare.com/client/v4/accounts/acc/ai/models/search",
            {"success": True, "result": [{"id": "0-1", "name": "@cf/meta/llama-3.1-8b-instruct"}]},
            ["@cf/meta/llama-3.1-8b-instruct"],
        ),
        (
            "databricks",
            "https://w.example.org/api/2.0/serving-endpoints",
            {"endpoints": [{"name": "databricks-gpt-oss-20b"}]},
            ["databricks-gpt-oss-20b"],
        ),
        ("perplexity", "https://api.perplexity.ai/async/chat/completions", {"requests": []}, []),
    ],
)
def test_models_are_asked_for_and_read_where_the_vendor_lists_them(
    kind: str, url: str, body: Any, names: list[str]
) -> None:
    adapter = adapter_for(kind, {})
    request = adapter.verification(target(kind))
    assert (request.method, request.url) == ("GET", url)
    assert request.headers == {"authorization": "Bearer k"}
    assert adapter.parse_models(msgspec.json.encode(body)) == names


@pytest.mark.parametrize("kind", ["groq", "cloudflare", "perplexity"])
@pytest.mark.parametrize("body", [b"<html>", b"", b'{"error":{"message":"no"}}', b'{"data":[{"name":5}],"error":"x"}'])
def test_a_list_that_is_none_is_an_error(kind: str, body: bytes) -> None:
    with pytest.raises(UpstreamError):
        adapter_for(kind, {}).parse_models(body)
