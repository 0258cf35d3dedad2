"""Requests to Bedrock's Converse: schemas, reasoning, sampling, and what each family of models can do."""

from __future__ import annotations

import json
from typing import Any

import pytest

from providers.adapters.converse_families import FAMILIES, family_of
from providers.adapters.types import (
    Citation,
    Dialect,
    Document,
    Image,
    Media,
    ReasoningSettings,
    ResponseFormat,
    Text,
    ToolChoice,
)
from providers.errors import CannotCarry
from tests.conformance.wires.converse import operation
from tests.providers.adapters.converse_asked import (
    CLAUDE,
    COHERE,
    LATER_CLAUDE,
    LLAMA,
    NOVA,
    NOVA_2,
    OLDER_CLAUDE,
    PDF,
    PNG,
    R1,
    TITAN,
    WEATHER,
    ask,
    built,
    said,
)

# --- structured answers ---------------------------------------------------------------------------------------------

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FORMAT = ResponseFormat("json_schema", name="place", schema=SCHEMA, description="A place")


def test_a_schema_is_asked_for_where_the_model_follows_one() -> None:
    body, dropped = built(ask(response_format=FORMAT))
    wanted = body["outputConfig"]["textFormat"]["structure"]["jsonSchema"]
    assert (json.loads(wanted["schema"]), wanted["name"], wanted["description"]) == (SCHEMA, "place", "A place")
    assert dropped == ()


def test_a_schema_becomes_the_tool_that_must_be_called_where_it_does_not() -> None:
    alone, _ = built(ask(response_format=FORMAT), NOVA)
    (tool,) = alone["toolConfig"]["tools"]
    assert tool["toolSpec"]["inputSchema"]["json"] == SCHEMA
    assert alone["toolConfig"]["toolChoice"] == {"tool": {"name": tool["toolSpec"]["name"]}}
    beside, _ = built(ask(response_format=FORMAT, tools=(WEATHER,)), NOVA)
    assert [one["toolSpec"]["name"] for one in beside["toolConfig"]["tools"]] == ["weather", "give_answer"]
    assert beside["toolConfig"]["toolChoice"] == {"any": {}}
    demanded, _ = built(ask(response_format=FORMAT, tools=(WEATHER,), tool_choice=ToolChoice("tool", "weather")), NOVA)
    assert len(demanded["toolConfig"]["tools"]) == 1


def test_no_schema_is_promised_for_a_model_that_keeps_none() -> None:
    with pytest.raises(CannotCarry, match="response_format"):
        built(ask(response_format=FORMAT), LLAMA)
    _, dropped = built(ask(response_format=ResponseFormat("json")))
    assert dropped == ("response_format",)
    assert built(ask(response_format=ResponseFormat("text")))[1] == ()


def thinks(budget: int) -> dict[str, Any]:
    return {"thinking": {"type": "enabled", "budget_tokens": budget}}


def nova(effort: str) -> dict[str, Any]:
    return {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": effort}}


# --- reasoning and sampling -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "settings", "fields", "effort", "dropped"),
    [
        (OLDER_CLAUDE, ReasoningSettings(budget_tokens=2000), thinks(2000), None, ()),
        (OLDER_CLAUDE, ReasoningSettings(effort="low"), thinks(2048), None, ()),
        (OLDER_CLAUDE, ReasoningSettings(budget_tokens=9000), thinks(4095), None, ()),
        (OLDER_CLAUDE, ReasoningSettings(adaptive=True), None, None, ("reasoning",)),
        (OLDER_CLAUDE, ReasoningSettings(off=True), {"thinking": {"type": "disabled"}}, None, ()),
        (LATER_CLAUDE, ReasoningSettings(effort="xhigh"), {"thinking": {"type": "adaptive"}}, "xhigh", ()),
        (
            LATER_CLAUDE,
            ReasoningSettings(adaptive=True, show=True),
            {"thinking": {"type": "adaptive", "display": "summarized"}},
            None,
            (),
        ),
        (NOVA_2, ReasoningSettings(effort="low"), nova("low"), None, ()),
        (NOVA_2, ReasoningSettings(effort="high"), nova("medium"), None, ("reasoning.effort",)),
        (
            NOVA_2,
            ReasoningSettings(effort="xhigh", budget_tokens=9000),
            nova("medium"),
            None,
            ("reasoning.effort", "reasoning.budget_tokens"),
        ),
        (
            NOVA_2,
            ReasoningSettings(budget_tokens=2000),
            nova("medium"),
            None,
            ("reasoning.budget_tokens",),
        ),
        (NOVA_2, ReasoningSettings(off=True), {"reasoningConfig": {"type": "disabled"}}, None, ()),
        ("us.openai.gpt-oss-20b-1:0", ReasoningSettings(effort="minimal"), {"reasoning_effort": "low"}, None, ()),
        ("us.openai.gpt-oss-20b-1:0", ReasoningSettings(off=True), None, None, ("reasoning.off",)),
        (NOVA, ReasoningSettings(effort="low"), None, None, ("reasoning",)),
        (LLAMA, ReasoningSettings(effort="none"), None, None, ()),
    ],
)
def test_reasoning_is_asked_for_in_the_models_own_words(
    model: str, settings: ReasoningSettings, fields: Any, effort: str | None, dropped: tuple[str, ...]
) -> None:
    body, named = built(ask(reasoning=settings), model, cap=4096)
    assert body.get("additionalModelRequestFields") == fields
    assert body.get("outputConfig", {}).get("effort") == effort
    assert named == dropped


def test_thinking_without_room_below_the_cap_is_left_out_by_name() -> None:
    body, dropped = built(ask(reasoning=ReasoningSettings(budget_tokens=2000)), cap=1000)
    assert "additionalModelRequestFields" not in body
    assert dropped == ("reasoning",)


ALL_SAMPLING: dict[str, Any] = {
    "temperature": 0.5,
    "top_p": 0.9,
    "top_k": 20,
    "seed": 7,
    "presence_penalty": 0.5,
    "frequency_penalty": 0.25,
}


@pytest.mark.parametrize(
    ("model", "fields", "dropped"),
    [
        (CLAUDE, {"top_k": 20}, ("seed", "presence_penalty", "frequency_penalty")),
        (NOVA, {"inferenceConfig": {"topK": 20}}, ("seed", "presence_penalty", "frequency_penalty")),
        (COHERE, {"k": 20, "seed": 7, "presence_penalty": 0.5, "frequency_penalty": 0.25}, ()),
        (
            "ai21.jamba-1-5-large-v1:0",
            {"presence_penalty": 0.5, "frequency_penalty": 0.25},
            ("top_k", "seed"),
        ),
        ("mistral.mixtral-8x7b-instruct-v0:1", {"top_k": 20}, ("seed", "presence_penalty", "frequency_penalty")),
        (LLAMA, None, ("top_k", "seed", "presence_penalty", "frequency_penalty")),
    ],
)
def test_sampling_goes_where_the_model_has_a_place_for_it(model: str, fields: Any, dropped: tuple[str, ...]) -> None:
    body, named = built(ask(**ALL_SAMPLING, stop=("END",)), model, cap=9)
    assert body["inferenceConfig"] == {"maxTokens": 9, "temperature": 0.5, "topP": 0.9, "stopSequences": ["END"]}
    assert body.get("additionalModelRequestFields") == fields
    assert named == dropped


@pytest.mark.parametrize(
    ("model", "more", "dropped"),
    [
        (CLAUDE, {"temperature": 1.5, "top_p": 0.9}, ("temperature",)),
        (
            CLAUDE,
            {"reasoning": ReasoningSettings(budget_tokens=1024), **ALL_SAMPLING},
            ("temperature", "top_p", "top_k"),
        ),
        (CLAUDE, {"reasoning": ReasoningSettings(budget_tokens=1024), "temperature": 1.0, "top_p": 0.95}, ()),
        (NOVA_2, {"reasoning": ReasoningSettings(effort="high"), "temperature": 0.5, "top_p": 0.9}, ()),
        (NOVA_2, {"reasoning": ReasoningSettings(effort="low"), "temperature": 0.5}, ()),
    ],
)
def test_sampling_that_the_model_refuses_is_named(model: str, more: dict[str, Any], dropped: tuple[str, ...]) -> None:
    _, named = built(ask(**more), model, cap=4096)
    assert tuple(name for name in named if name in ("temperature", "top_p", "top_k")) == dropped


def test_nova_thinks_its_hardest_only_without_a_cap_and_without_sampling() -> None:
    body, dropped = built(ask(reasoning=ReasoningSettings(effort="high"), **ALL_SAMPLING), NOVA_2)
    assert body["additionalModelRequestFields"] == nova("high")
    assert "inferenceConfig" not in body
    assert {"temperature", "top_p", "top_k"} <= set(dropped)
    assert "reasoning.effort" not in dropped
    for cap in ({"max_output_tokens": 50}, {}):
        body, _ = built(ask(reasoning=ReasoningSettings(effort="high"), **cap), NOVA_2, cap=None if cap else 50)
        assert body["inferenceConfig"] == {"maxTokens": 50}
        assert body["additionalModelRequestFields"] == nova("medium")


def test_the_one_cap_is_the_gateways_else_the_callers() -> None:
    assert built(ask(max_output_tokens=50), cap=9)[0]["inferenceConfig"] == {"maxTokens": 9}
    assert built(ask(max_output_tokens=50))[0]["inferenceConfig"] == {"maxTokens": 50}
    assert "inferenceConfig" not in built(ask())[0]


# --- the account, and the rest --------------------------------------------------------------------------------------


def test_tier_metadata_guardrail_and_latency() -> None:
    options: dict[str, Any] = {
        "guardrail": "gr1",
        "guardrail_version": "3",
        "guardrail_trace": "enabled",
        "latency": "optimized",
    }
    body, dropped = built(ask(service_tier="flex", metadata={"team": "a b"}), **options)
    assert body["serviceTier"] == {"type": "flex"}
    assert body["requestMetadata"] == {"team": "a b"}
    wanted = {"guardrailIdentifier": "gr1", "guardrailVersion": "3", "trace": "enabled"}
    assert body["guardrailConfig"] == wanted
    assert body["performanceConfig"] == {"latency": "optimized"}
    assert dropped == ()
    _, dropped = built(ask(service_tier="scale", metadata={"team": "ünïcode"}))
    assert dropped == ("service_tier", "metadata")
    assert built(ask(service_tier="auto"))[1] == ()


def test_parameters_without_a_place_are_named() -> None:
    request = ask(
        n=2,
        logprobs=True,
        top_logprobs=3,
        logit_bias={"1": 1.0},
        verbosity="low",
        user="u",
        modalities=("text", "audio"),
        store=True,
        extra={"container": "c"},
        extra_dialect=Dialect.ANTHROPIC,
    )
    _, dropped = built(request)
    wanted = {"n", "logprobs", "top_logprobs", "logit_bias", "verbosity", "user", "modalities", "store", "container"}
    assert set(dropped) == wanted


# --- families -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("pattern", "family"), FAMILIES, ids=[pattern for pattern, _ in FAMILIES])
def test_each_family_gets_what_the_service_takes_and_is_spared_what_its_models_lack(pattern: str, family: Any) -> None:
    model = "us." + pattern.strip("*").replace("*", "x") + "-v1:0"
    assert family_of(model) == family
    request = ask(said(Text("Be kind"), role="system"), said(Text("Hello")), **ALL_SAMPLING)
    body, dropped = built(request, model, cap=100)
    assert ("system" in body) is family.system
    assert ("messages.system" in dropped) is not family.system
    if not family.system:
        assert body["messages"] == [{"role": "user", "content": [{"text": "Be kind"}, {"text": "Hello"}]}]
    wants = {
        "tools": ask(tools=(WEATHER,)),
        "images": ask(said(Image(Media(data=PNG)))),
        "documents": ask(said(Document(Media(data=PDF)))),
    }
    for name, wanted in wants.items():
        if getattr(family, name):
            built(wanted, model)
        else:
            with pytest.raises(CannotCarry, match=name.rstrip("s")):
                built(wanted, model)


def test_patterns_that_come_first_are_the_narrower_ones() -> None:
    assert [family_of(name) for name in (CLAUDE, LATER_CLAUDE)] != [family_of(OLDER_CLAUDE)] * 2
    assert family_of("arn:aws:bedrock:us-east-1::foundation-model/" + CLAUDE) == family_of(CLAUDE)
    assert family_of("US.Anthropic.Claude-3-7-Sonnet").thinking == "budget"
    assert not family_of(TITAN).tools
    assert not family_of(R1).tools


def test_a_profile_without_a_telling_name_is_told_what_is_behind_it() -> None:
    arn = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/a1b2c3"
    wanted = ask(reasoning=ReasoningSettings(budget_tokens=1024))
    assert built(wanted, arn)[1] == ("reasoning",)
    body, dropped = built(wanted, arn, profiles={arn: CLAUDE})
    assert body["additionalModelRequestFields"]["thinking"]["budget_tokens"] == 1024
    assert (body["modelId"], dropped) == (arn, ())


def test_citations_of_an_assistant_go_back_as_its_text() -> None:
    cited = Text("Sunny", citations=(Citation(text="sun", url="https://example.org"),))
    body, dropped = built(ask(said(Text("Go")), said(cited, role="assistant"), said(Text("More"))))
    assert body["messages"][1]["content"] == [{"text": "Sunny"}]
    assert dropped == ()


def test_both_operations_take_the_same_members() -> None:
    """What one is judged by holds for the other."""
    one, other = (operation(name).input_shape for name in ("Converse", "ConverseStream"))
    assert one is not None
    assert other is not None
    assert set(one.members) == set(other.members)
