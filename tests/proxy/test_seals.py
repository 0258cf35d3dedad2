"""Sealed thoughts reach who sealed them and nobody else; what is not a seal stays as it was."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conduit.proxy.dialects.gemini_signatures import wrapped_signature
from conduit.proxy.seals import MARK, Seals
from providers.adapters.events import ReasoningDelta, TextDelta, ToolStarted
from providers.adapters.registry import KINDS, adapter_for
from providers.adapters.types import ChatRequest, ChatResponse, Choice, Dialect, Message, Reasoning, Text, ToolCall
from tests.proxy.test_worst_case import target

DIALECTS = (Dialect.OPENAI, Dialect.RESPONSES, Dialect.ANTHROPIC, Dialect.GEMINI)
MAKERS = ("anthropic", "google", "openai", "openrouter", "mistral")
seal = st.text(alphabet="ABCabc012+/=-_.", min_size=1, max_size=40)


def seals(dialect: Dialect, maker: str, model: str = "m") -> Seals:
    return Seals(dialect, msgspec.structs.replace(target("openai"), model=model, sealer=maker))


def given_back(parts: tuple[Any, ...], dialect: Dialect, first: str, second: str) -> tuple[tuple[Any, ...], Any]:
    """What `first` said, as `second` gets it in the next turn; and what is told to be left out."""
    told = seals(dialect, first).response(ChatResponse(id="r", model="m", choices=(Choice(parts=parts),), usage=None))
    asked = ChatRequest(model="m", messages=(Message(role="assistant", parts=told.choices[0].parts),))
    request, lost = seals(dialect, second).request(asked)
    assert isinstance(request, ChatRequest)
    return (request.messages[0].parts if request.messages else ()), lost


@given(sign=seal, dialect=st.sampled_from(DIALECTS), first=st.sampled_from(MAKERS), second=st.sampled_from(MAKERS))
def test_a_seal_comes_back_to_its_maker_and_reaches_nobody_else(
    sign: str, dialect: Dialect, first: str, second: str
) -> None:
    parts = (
        Reasoning(text="hm", signature=sign),
        Reasoning(redacted=sign),
        Text(text="yes"),
        ToolCall(id="c", name="f", signature=sign),
    )
    got, lost = given_back(parts, dialect, first, second)
    if first == second:
        assert (got, lost) == (parts, ())
    else:
        assert got == (Reasoning(text="hm"), Text(text="yes"), ToolCall(id="c", name="f"))
        assert lost == ("messages.reasoning.signature", "messages.tool_call.signature")


@pytest.mark.parametrize("dialect", DIALECTS)
def test_in_a_stream_the_same_is_marked_as_in_a_whole_answer(dialect: Dialect) -> None:
    events = [TextDelta(text="a"), ReasoningDelta(signature="s"), ReasoningDelta(redacted="r"), ReasoningDelta("t")]
    events.append(ToolStarted(index=0, id="c", name="f", signature="k"))
    found = seals(dialect, "mistral").events(list(events))
    assert found[0] == events[0]
    assert found[3] == events[3]
    assert [found[1].signature, found[2].redacted, found[4].signature] == [f"{MARK}mistral.{one}" for one in "srk"]


def test_a_vendors_own_dialect_shows_its_seals_as_they_are() -> None:
    thought = (Reasoning(text="hm", signature="s"),)
    for dialect, maker in (
        (Dialect.ANTHROPIC, "anthropic"),
        (Dialect.GEMINI, "google"),
        (Dialect.RESPONSES, "openai"),
    ):
        told = seals(dialect, maker).response(
            ChatResponse(id="r", model="m", choices=(Choice(parts=thought),), usage=None)
        )
        assert told.choices[0].parts == thought


BODIES: list[tuple[Dialect, Any, Any, tuple[str, ...]]] = [
    (
        Dialect.ANTHROPIC,
        [{"type": "thinking", "thinking": "hm", "signature": MARK + "google.s"}, {"type": "text", "text": "yes"}],
        [{"type": "text", "text": "yes"}],
        ("messages.reasoning.signature",),
    ),
    (
        Dialect.ANTHROPIC,
        [{"type": "thinking", "thinking": "", "signature": f"conduit-call-signature.{MARK}google.s"}],
        [],
        ("messages.reasoning.signature",),
    ),
    (
        Dialect.ANTHROPIC,
        [{"type": "redacted_thinking", "data": MARK + "bedrock.s"}],
        [],
        ("messages.reasoning.signature",),
    ),
    (Dialect.ANTHROPIC, [{"type": "thinking", "thinking": "hm", "signature": ""}], [], ("messages.reasoning",)),
    (
        Dialect.OPENAI,
        [{"id": "c", "extra_content": {"google": {"thought_signature": MARK + "mistral.s"}}}],
        [{"id": "c", "extra_content": {"google": {}}}],
        ("messages.tool_call.signature",),
    ),
    (
        Dialect.RESPONSES,
        [{"type": "reasoning", "summary": [], "encrypted_content": f"redacted:{MARK}anthropic.s"}, {"role": "user"}],
        [{"role": "user"}],
        ("messages.reasoning.signature",),
    ),
    (
        Dialect.GEMINI,
        [{"text": "hm", "thought": True, "thoughtSignature": wrapped_signature(MARK + "anthropic.s")}],
        [{"text": "hm", "thought": True}],
        ("messages.tool_call.signature",),
    ),
]
HOMES = {
    Dialect.OPENAI: "openrouter",
    Dialect.RESPONSES: "openai",
    Dialect.ANTHROPIC: "anthropic",
    Dialect.GEMINI: "google",
}


@pytest.mark.parametrize(("dialect", "content", "left", "lost"), BODIES)
def test_a_relayed_body_goes_without_the_seals_of_others(
    dialect: Dialect, content: Any, left: Any, lost: tuple[str, ...]
) -> None:
    body, told = seals(dialect, HOMES[dialect]).body(json.dumps({"messages": [{"content": content}]}).encode())
    assert json.loads(body) == {"messages": [{"content": left}]}
    assert told == lost


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_body_without_a_mark_is_relayed_byte_for_byte(dialect: Dialect) -> None:
    body = b'{"a" : 1.50, "messages":[{"content":[{"type":"thinking", "thinking":"x","signature":"real"}]}]}'
    same, lost = seals(dialect, HOMES[dialect]).body(body)
    assert same is body
    assert lost == ()


def test_words_that_only_speak_of_seals_stay() -> None:
    text = {"type": "document", "source": {"type": "text", "data": f"They write {MARK}google.s there."}}
    told = {"messages": [{"role": "user", "content": [f"What is {MARK}google.s?", text], "n": 12345678901234567890}]}
    body, lost = seals(Dialect.OPENAI, "openai").body(json.dumps(told).encode())
    assert (json.loads(body), lost) == (told, ())


@pytest.mark.parametrize(("model", "stands"), [("gemini-3-pro-preview", True), ("gemini-2.5-flash", False)])
def test_a_call_that_another_model_made_is_told_from_one_that_lost_its_signature(model: str, stands: bool) -> None:
    """From Gemini 3 on a call without a signature is refused; Google has a word for this case."""
    call = {"functionCall": {"name": "f", "args": {}}}
    sealed = {**call, "thoughtSignature": wrapped_signature(MARK + "anthropic.s")}
    body, _ = seals(Dialect.GEMINI, "google", model).body(json.dumps({"parts": [sealed]}).encode())
    expected = {**call, "thoughtSignature": "skip_thought_signature_validator"} if stands else call
    assert json.loads(body) == {"parts": [expected]}


@pytest.mark.parametrize(
    ("kind", "model", "maker"),
    [
        ("anthropic", "claude-sonnet-4-5", "anthropic"),
        ("bedrock", "eu.anthropic.claude-sonnet-4-5-20250929-v1:0", "anthropic"),
        ("bedrock", "amazon.nova-2-lite-v1:0", "bedrock-converse"),
        ("vertex", "claude-opus-4-5@20251101", "anthropic"),
        ("vertex", "google/gemini-3-pro-preview", "google"),
        ("vertex", "deepseek-ai/deepseek-v3", "vertex-openai"),
        ("gemini", "gemini-3-pro-preview", "google"),
        ("openrouter", "anthropic/claude-sonnet-4.5", "openrouter"),
    ],
)
def test_who_seals_is_known_by_kind_and_model(kind: str, model: str, maker: str) -> None:
    assert KINDS[kind].sealer(model, adapter_for(kind, {}, model).wire) == maker
