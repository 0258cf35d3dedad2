"""The most that a request to `/v1/responses` can cost: texts by their bytes, the rest by what is known of it (L3)."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conduit.proxy.dialects.registry import DIALECTS
from conduit.proxy.worst_case import PER_REQUEST, PER_TOOL, WITH_TOOLS, Bound, bound
from providers.adapters.base import Upstream
from providers.adapters.registry import adapter_for
from providers.adapters.types import ChatRequest, Dialect, Endpoint
from providers.routing import TargetEntry
from tests.proxy.byte_pairs import tokens
from tests.proxy.test_worst_case import MARKERS, SMALL, WINDOW, target, texts, wav


def of(given_input: Any, to: TargetEntry | None = None, **fields: Any) -> Bound:
    raw = json.dumps({"model": "m", "input": given_input, **fields}, ensure_ascii=False).encode()
    return bound(DIALECTS[Dialect.RESPONSES].parse(Endpoint.RESPONSES, raw), to or target("openai"), raw)


def user(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(parts)}]


VENDORS_OWN: list[tuple[dict[str, Any], str]] = [
    ({"web_search_options": {}}, "search any number of times"),
    ({"search_parameters": {"mode": "on"}}, "search any number of times"),
    ({"enable_search": True}, "search any number of times"),
    ({"plugins": [{"id": "web"}]}, "plugins"),
    ({"provider": {"order": ["dear"]}}, "dearer vendor"),
    ({"models": ["other"]}, "another model"),
    ({"enable_thinking": True}, "give a thinking_budget"),
    ({"thinking_budget": "much"}, "give a thinking_budget"),
    ({"chat_template": "{{ messages * 99 }}"}, "window is unknown"),
]


@pytest.mark.parametrize(("members", "words"), VENDORS_OWN)
def test_a_vendors_own_members_cost_the_same_as_in_chat(members: dict[str, Any], words: str) -> None:
    chat = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}], **members}).encode()
    asked = DIALECTS[Dialect.OPENAI].parse(Endpoint.CHAT, chat)
    for found in (of("x", target("xai"), **members), bound(asked, target("xai"), chat)):
        assert words in found.unbounded


def test_a_budget_of_thinking_comes_on_top_of_the_cap() -> None:
    found = of("x", target("groq"), max_output_tokens=50, thinking_budget=70)
    assert (found.output_tokens, found.beyond_cap, found.unbounded) == (120, 70, "")


def translated(kind: str, window: int | None = None) -> TargetEntry:
    """A target whose provider has no Responses API."""
    return msgspec.structs.replace(target(kind, window), native=frozenset())


ITEMS = st.one_of(
    st.builds(lambda text: {"role": "user", "content": text}, texts),
    st.builds(lambda text: {"role": "assistant", "content": [{"type": "output_text", "text": text}]}, texts),
    st.builds(lambda text: {"type": "function_call", "call_id": "c", "name": "f", "arguments": text}, texts),
    st.builds(lambda text: {"type": "function_call_output", "call_id": "c", "output": text}, texts),
    st.builds(lambda text: {"type": "custom_tool_call", "call_id": "d", "name": "g", "input": text}, texts),
    st.builds(lambda text: {"type": "reasoning", "summary": [{"type": "summary_text", "text": text}]}, texts),
)


@given(st.lists(ITEMS, min_size=1, max_size=6), texts)
def test_no_text_has_more_tokens_than_its_bound_here_or_translated(items: list[dict[str, Any]], first: str) -> None:
    raw = json.dumps({"model": "m", "input": items, "instructions": first}, ensure_ascii=False).encode()
    inbound = DIALECTS[Dialect.RESPONSES].parse(Endpoint.RESPONSES, raw)
    told = tokens(first) + MARKERS + sum(tokens(text) + MARKERS for item in items for text in _texts(item))
    found = bound(inbound, target("openai"), raw)
    assert (found.unbounded, told <= found.input_tokens) == ("", True)
    request = inbound.canonical()
    assert isinstance(request, ChatRequest)
    for kind in ("custom", "anthropic", "gemini"):
        upstream = Upstream(base_url="https://x", model="m", secrets={"api_key": "k"}, max_output_tokens=9)
        sent = json.loads(adapter_for(kind, {}).build_request(request, upstream).body)
        prompt = [sent.get(name) for name in ("system", "messages", "contents", "systemInstruction")]
        rendered = sum(tokens(text) for text in _texts(prompt)) + MARKERS * (len(items) + 1)
        assert rendered <= bound(inbound, translated(kind), raw).input_tokens


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for name, item in value.items() if name not in ("role", "type") for text in _texts(item)]
    return [text for item in value or () for text in _texts(item)] if isinstance(value, list) else []


def test_plain_text_costs_no_more_than_its_bytes() -> None:
    assert of("x" * 1000).input_tokens < 1000 + PER_REQUEST + 30
    tool = {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "number"}}}}
    found = of("x", tools=[tool])
    assert found.unbounded == ""
    assert found.input_tokens < PER_REQUEST + WITH_TOOLS + PER_TOOL + 200


def test_the_cap_is_its_own_member() -> None:
    assert of("x", max_output_tokens=30).output_tokens == 30
    assert of("x", target(most=20), max_output_tokens=30).output_tokens == 20
    assert of("x").output_tokens is None


@pytest.mark.parametrize(
    ("items", "most"),
    [
        (user({"type": "input_image", "image_url": f"data:image/png;base64,{SMALL}"}), 48_169),
        (
            [
                {
                    "type": "function_call_output",
                    "call_id": "c",
                    "output": [{"type": "input_image", "image_url": "https://e.org/a.png"}],
                }
            ],
            48_169,
        ),
        ([{"type": "image_generation_call", "id": "ig_1", "result": SMALL, "status": "completed"}], 48_169),
    ],
)
def test_pictures_count_wherever_they_stand(items: list[dict[str, Any]], most: int) -> None:
    found = of(items)
    assert found.unbounded == ""
    assert most < found.input_tokens < most + PER_REQUEST + 300


def test_a_recording_is_bounded_by_its_bytes() -> None:
    data = wav()
    found = of(user({"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}), target(window=10**6))
    assert len(data) < found.input_tokens < len(data) + PER_REQUEST + 200


@pytest.mark.parametrize(
    "items",
    [
        user({"type": "input_file", "file_data": "data:application/pdf;base64,AAAA"}),
        user({"type": "input_file", "file_url": "https://e.org/a.pdf"}),
        user({"type": "hologram"}),
        [{"type": "computer_call_output", "call_id": "c", "output": {"type": "computer_screenshot"}}],
        [{"type": "web_search_call", "id": "ws_1", "status": "completed"}],
        [{"type": "compaction", "encrypted_content": "x"}],
    ],
)
def test_what_has_no_bound_of_its_own_counts_as_the_whole_window(items: list[dict[str, Any]]) -> None:
    known = of(items, target(window=WINDOW))
    assert (known.input_tokens, known.unbounded) == (WINDOW, "")
    assert "window is unknown" in of(items).unbounded


UNBOUNDED: list[tuple[dict[str, Any], str]] = [
    ({"tools": [{"type": "web_search"}]}, "web_search without max_tool_calls"),
    ({"tools": [{"type": "web_search"}], "max_tool_calls": 10**6}, "web_search without max_tool_calls"),
    ({"tools": [{"type": "file_search", "vector_store_ids": []}], "max_tool_calls": 3}, "file_search"),
    ({"tools": [{"type": "code_interpreter", "container": {}}], "max_tool_calls": 3}, "code_interpreter"),
    ({"tools": [{"type": "image_generation"}], "max_tool_calls": 3}, "image_generation"),
    ({"tools": [{"type": "mcp", "server_label": "s"}], "max_tool_calls": 3}, "mcp"),
    ({"tools": [{"type": "of_tomorrow"}]}, "of_tomorrow"),
    ({"context_management": [{"type": "compaction"}]}, "context_management"),
    ({"models": ["other"]}, "another model"),
]


@pytest.mark.parametrize(("fields", "words"), UNBOUNDED)
def test_what_nothing_bounds_says_so_in_words(fields: dict[str, Any], words: str) -> None:
    assert words in of("x", target(window=WINDOW), **fields).unbounded
    alike = target("sandbox", WINDOW)  # the other kind that is relayed to
    assert words in of("x", alike, **fields).unbounded


@pytest.mark.parametrize(("fields", "words"), UNBOUNDED)
def test_a_provider_of_another_wire_format_is_not_sent_it(fields: dict[str, Any], words: str) -> None:
    assert of("x", translated("openai", WINDOW), **fields).unbounded == ""


def test_a_dearer_tier_is_dear_everywhere() -> None:
    for to in (target("openai"), translated("anthropic")):
        assert "priority" in of("x", to, service_tier="priority").unbounded


def test_searches_that_are_counted_bound_the_rounds() -> None:
    """Each search may fill the model's window anew, and each is sold by the piece."""
    found = of("x", target(window=WINDOW), tools=[{"type": "web_search"}], max_tool_calls=3, max_output_tokens=50)
    assert found.unbounded == ""
    assert (found.input_tokens, found.output_tokens, found.n) == (4 * WINDOW, 50, 4)
    assert found.units == {"search": 3}


def test_tools_that_the_caller_runs_cost_their_description() -> None:
    found = of("x", target(window=WINDOW), tools=[{"type": "local_shell"}, {"type": "apply_patch"}])
    assert (found.unbounded, found.n) == ("", 1)
    assert 2 * 2_048 < found.input_tokens < 2 * 2_048 + PER_REQUEST + WITH_TOOLS + 200
