"""Exactly one output cap leaves for the provider, and it is the smallest that anybody asked for (L3).

Each body is either refused with the field's name or sent on with one cap, to providers of every wire format, whether
its bytes are passed through or built anew, and also where only the gateway sets a cap.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conduit.proxy.dialects.base import Inbound
from conduit.proxy.dialects.registry import DIALECTS
from conduit.proxy.errors import ApiError
from providers.adapters.base import Upstream
from providers.adapters.registry import adapter_for
from providers.adapters.types import ChatRequest, Dialect, Endpoint

KINDS = [
    ("openai", {}),
    ("custom", {}),
    ("custom", {"max_tokens_field": "max_completion_tokens"}),
    ("custom", {"dialect": "anthropic"}),
    ("anthropic", {}),
    ("gemini", {}),
    *(("sandbox", {"dialect": dialect}) for dialect in ("openai", "anthropic", "gemini")),
]
CAPS = {"maxtokens", "maxcompletiontokens", "maxoutputtokens", "maxnewtokens", "npredict", "numpredict"}
ENDPOINTS = {
    Dialect.OPENAI: Endpoint.CHAT,
    Dialect.ANTHROPIC: Endpoint.MESSAGES,
    Dialect.GEMINI: Endpoint.GENERATE,
}


def body(dialect: Dialect, caps: str) -> bytes:
    """A request with `caps` spliced into it as they stand; those of Gemini into its generationConfig."""
    said = '[{"role":"user","content":"x"}]'
    text = {
        Dialect.OPENAI: f'{{"model":"m","messages":{said}{"," if caps else ""}{caps}}}',
        Dialect.ANTHROPIC: f'{{"model":"m","messages":{said}{"," if caps else ""}{caps}}}',
        Dialect.GEMINI: f'{{"contents":[{{"parts":[{{"text":"x"}}]}}],"generationConfig":{{{caps}}}}}',
    }
    return text[dialect].encode()


def parse(dialect: Dialect, raw: bytes) -> Inbound:
    return DIALECTS[dialect].parse(ENDPOINTS[dialect], raw, model="m")


def sent(inbound: Inbound, kind: str, options: dict[str, str], cap: int | None) -> tuple[Any, tuple[str, ...]]:
    """The body as the provider gets it, and what was dropped."""
    adapter = adapter_for(kind, options)
    upstream = Upstream(
        base_url="https://x", model="up", secrets={"api_key": "k"}, options=options, max_output_tokens=cap
    )
    if adapter.wire is inbound.dialect:
        request = adapter.pass_through(inbound.body, inbound.head, upstream)
    else:
        canonical = inbound.canonical()
        assert isinstance(canonical, ChatRequest)
        request = adapter.build_request(canonical, upstream)
    return json.loads(request.body), request.dropped


def caps_in(value: Any) -> list[Any]:
    """Every cap anywhere in the body but in what applications own."""
    if isinstance(value, list):
        return [cap for item in value for cap in caps_in(item)]
    if not isinstance(value, dict):
        return []
    own = [item for name, item in value.items() if name.replace("_", "").casefold() in CAPS]
    return own + [cap for name, item in value.items() if name != "reasoning" for cap in caps_in(item)]


NORMALISED = [
    (Dialect.OPENAI, '"max_tokens":50', 50),
    (Dialect.OPENAI, '"max_completion_tokens":50', 50),
    (Dialect.OPENAI, '"max_tokens":50,"max_completion_tokens":40', 40),
    (Dialect.OPENAI, '"max_tokens":40,"max_completion_tokens":50', 40),
    (Dialect.OPENAI, '"max_tokens":null,"max_completion_tokens":40', 40),
    (Dialect.OPENAI, '"max_tokens":50,"n_predict":100000', 50),
    (Dialect.OPENAI, '"n_predict":20,"max_tokens":50', 20),
    (Dialect.OPENAI, '"max_output_tokens":30,"max_new_tokens":20,"num_predict":25', 20),
    (Dialect.OPENAI, '"max\\u005ftokens":50', 50),
    (Dialect.ANTHROPIC, '"max_tokens":50', 50),
    (Dialect.GEMINI, '"maxOutputTokens":50', 50),
    (Dialect.GEMINI, '"max_output_tokens":50', 50),
    (Dialect.GEMINI, '"max\\u005foutput\\u005ftokens":50', 50),
    (Dialect.GEMINI, '"m\\u0061xOutputTokens":50', 50),
]


@pytest.mark.parametrize(("dialect", "caps", "least"), NORMALISED)
@pytest.mark.parametrize(("kind", "options"), KINDS)
@pytest.mark.parametrize("limit", [None, 10, 10_000])
def test_of_several_caps_the_smallest_leaves_alone(
    dialect: Dialect, caps: str, least: int, kind: str, options: dict[str, str], limit: int | None
) -> None:
    inbound = parse(dialect, body(dialect, caps))
    assert inbound.head.max_output_tokens == least
    cap = min(least, limit or least)
    upstream, _ = sent(inbound, kind, options, cap)
    assert caps_in(upstream) == [cap]


@pytest.mark.parametrize("dialect", [Dialect.OPENAI, Dialect.GEMINI])
@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_the_gateways_own_cap_leaves_where_the_client_gave_none(
    dialect: Dialect, kind: str, options: dict[str, str]
) -> None:
    for raw in (body(dialect, ""), b'{"contents":[{"parts":[{"text":"x"}]}]}'):
        if (dialect is Dialect.GEMINI) is (b"contents" in raw):
            upstream, _ = sent(parse(dialect, raw), kind, options, 64)
            assert caps_in(upstream) == [64]


@pytest.mark.parametrize(
    ("kind", "options", "name"),
    [
        ("openai", {}, "max_completion_tokens"),
        ("custom", {}, "max_tokens"),
        ("sandbox", {"dialect": "openai"}, "max_tokens"),
        ("custom", {"max_tokens_field": "max_completion_tokens"}, "max_completion_tokens"),
    ],
)
def test_the_kind_says_which_name_the_cap_has(kind: str, options: dict[str, str], name: str) -> None:
    for caps in ("", '"max_tokens":99', '"max_completion_tokens":99', '"n_predict":99'):
        upstream, _ = sent(parse(Dialect.OPENAI, body(Dialect.OPENAI, caps)), kind, options, 64)
        assert upstream[name] == 64


WRONG = ['"1e3"', "1e3", "1.5", "true", "-1", str(2**31), str(2**63), str(10**30), "[5]", '{"a":5}']
NAMES = {Dialect.OPENAI: "max_tokens", Dialect.ANTHROPIC: "max_tokens", Dialect.GEMINI: "maxOutputTokens"}
REFUSED = [
    *((dialect, f'"{name}":{value}', name) for dialect, name in NAMES.items() for value in WRONG),
    *((Dialect.OPENAI, f'"{name}":0', name) for name in ("max_tokens", "max_completion_tokens", "n_predict")),
    (Dialect.GEMINI, '"maxOutputTokens":0', "maxOutputTokens"),
    (Dialect.GEMINI, '"max_output_tokens":-1', "maxOutputTokens"),
    (Dialect.ANTHROPIC, '"max_tokens":null', "max_tokens"),
    (Dialect.ANTHROPIC, "", "max_tokens"),
    *((Dialect.OPENAI, f'"n":{value}', "n") for value in ("0", "129", "1.5", "true", '"2"', str(2**63))),
    *((Dialect.GEMINI, f'"candidateCount":{value}', "candidateCount") for value in ("0", "129", "true", str(2**63))),
    (Dialect.OPENAI, '"max_tokens":5,"max_tokens":500000', "max_tokens"),
    (Dialect.OPENAI, '"max_tokens":5,"max\\u005ftokens":500000', "max_tokens"),
    (Dialect.OPENAI, '"max_tokens":5,"MAX_TOKENS":500000', "MAX_TOKENS"),
    (Dialect.OPENAI, '"max_to\u212aens":500000', "max_to\u212aens"),  # KELVIN SIGN, which Go takes for a k
    (Dialect.OPENAI, '"n":1,"N":50', "N"),
    (Dialect.OPENAI, '"n":1,"n":50', "n"),
    (Dialect.ANTHROPIC, '"max_tokens":5,"max_tokens":500000', "max_tokens"),
    (Dialect.ANTHROPIC, '"max_tokens":5,"Max_Tokens":500000', "Max_Tokens"),
    (Dialect.GEMINI, '"maxOutputTokens":5,"maxOutputTokens":500000', "maxOutputTokens"),
    (Dialect.GEMINI, '"maxOutputTokens":5,"max_output_tokens":500000', "maxOutputTokens"),
    (Dialect.GEMINI, '"maxOutputTokens":5,"max\\u005foutput\\u005ftokens":500000', "maxOutputTokens"),
    (Dialect.GEMINI, '"max_output_tokens":5,"max_output_tokens":500000', "max_output_tokens"),
    (Dialect.GEMINI, '"candidateCount":1,"candidateCount":50', "candidateCount"),
    (Dialect.GEMINI, '"candidateCount":1,"candidate\\u0043ount":50', "candidateCount"),
]


@pytest.mark.parametrize(("dialect", "caps", "name"), REFUSED)
def test_what_is_no_cap_or_one_too_many_is_refused_by_name(dialect: Dialect, caps: str, name: str) -> None:
    with pytest.raises(ApiError) as refused:
        parse(dialect, body(dialect, caps))
    place = "generationConfig." if dialect is Dialect.GEMINI else ""
    assert (refused.value.status, refused.value.param) == (400, place + name)
    assert name in refused.value.message


def test_a_configuration_given_twice_is_refused() -> None:
    for second in ("generationConfig", "generation_config", "generation\\u005fconfig", "GenerationConfig"):
        raw = body(Dialect.GEMINI, '"maxOutputTokens":5')[:-1] + f',"{second}":{{"candidateCount":50}}}}'.encode()
        with pytest.raises(ApiError) as refused:
            parse(Dialect.GEMINI, raw)
        assert refused.value.status == 400


@given(
    st.sampled_from(list(NAMES)),
    st.integers(1, 10**6),
    st.integers(1, 10**6),
    st.sampled_from(KINDS),
    st.booleans(),
)
def test_no_cap_leaves_above_what_was_held_for(
    dialect: Dialect, asked: int, limit: int, kind: tuple[str, dict[str, str]], stream: bool
) -> None:
    text = f'"{NAMES[dialect]}":{asked}' + (',"stream":true' if stream and dialect is not Dialect.GEMINI else "")
    upstream, _ = sent(parse(dialect, body(dialect, text)), *kind, min(asked, limit))
    assert caps_in(upstream) == [min(asked, limit)]


# --- thinking --------------------------------------------------------------------------------------------------------


def budgets_in(value: Any) -> list[int]:
    names = ("budget_tokens", "thinkingBudget", "thinking_budget")
    if isinstance(value, dict):
        own = [item for name, item in value.items() if name in names]
        reasoning = value.get("reasoning")
        own += [reasoning["max_tokens"]] if isinstance(reasoning, dict) and "max_tokens" in reasoning else []
        return own + [found for item in value.values() for found in budgets_in(item)]
    return [found for item in value for found in budgets_in(item)] if isinstance(value, list) else []


THINKING = [
    (Dialect.OPENAI, '"reasoning":{"max_tokens":9000}'),
    (Dialect.ANTHROPIC, '"max_tokens":10000,"thinking":{"type":"enabled","budget_tokens":9000}'),
    (Dialect.GEMINI, '"thinkingConfig":{"thinkingBudget":9000}'),
    (Dialect.GEMINI, '"thinking_config":{"thinking_budget":9000}'),
]


@pytest.mark.parametrize(("dialect", "thinking"), THINKING)
@pytest.mark.parametrize(("kind", "options"), KINDS)
@pytest.mark.parametrize("cap", [9_500, 9_000, 2_000, 40])
def test_a_thinking_budget_stays_below_the_cap(
    dialect: Dialect, thinking: str, kind: str, options: dict[str, str], cap: int
) -> None:
    upstream, dropped = sent(parse(dialect, body(dialect, thinking)), kind, options, cap)
    budgets = budgets_in(upstream)
    speaks = adapter_for(kind, options).wire
    if kind == "openai" and dialect is Dialect.OPENAI:
        return  # OpenAI itself knows no budget, and refuses the field
    if speaks is Dialect.OPENAI and dialect is not Dialect.OPENAI:
        assert budgets == []  # a word stands for it there
    elif cap == 40:
        assert budgets == []
        assert dropped
    else:
        assert budgets == [min(9_000, cap - 1)]


def test_a_dynamic_or_absent_thinking_budget_is_left_alone() -> None:
    for thinking in ('"thinkingConfig":{"thinkingBudget":-1}', '"thinkingConfig":{"thinkingBudget":0}', ""):
        upstream, dropped = sent(parse(Dialect.GEMINI, body(Dialect.GEMINI, thinking)), "gemini", {}, 40)
        given_back = upstream["generationConfig"].get("thinkingConfig")
        assert given_back == (json.loads(f"{{{thinking}}}")["thinkingConfig"] if thinking else None)
        assert dropped == ()
    raw = body(Dialect.ANTHROPIC, '"max_tokens":2000,"thinking":{"type":"enabled","budget_tokens":5000}')
    unchanged, dropped = sent(parse(Dialect.ANTHROPIC, raw), "anthropic", {}, 2_000)
    assert unchanged["thinking"]["budget_tokens"] == 5_000, (
        "a contradiction of the client's own is the provider's to tell"
    )
