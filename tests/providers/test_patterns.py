"""What a pattern takes, what it asks for, and what may be one."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keys.entries import KeyEntry
from providers import patterns
from providers.models import Route
from providers.routes import callable_names, is_served


@pytest.mark.parametrize(
    ("pattern", "model", "name", "upstream"),
    [
        ("claude-*", "*", "claude-opus-4-5", "claude-opus-4-5"),
        ("claude-*", "anthropic/*", "claude-opus-4-5", "anthropic/claude-opus-4-5"),
        ("claude-*", "always-this-one", "claude-opus-4-5", "always-this-one"),
        ("openai/*", "*", "openai/gpt-5.2", "gpt-5.2"),
        ("openai/*", "gw/*", "openai/gpt-5.2", "gw/gpt-5.2"),
        ("*", "*", "openai/gpt-5.2", "openai/gpt-5.2"),
    ],
)
def test_what_the_provider_is_asked_for(pattern: str, model: str, name: str, upstream: str) -> None:
    assert patterns.matches(pattern, name)
    assert patterns.upstream_name(pattern, model, name) == upstream
    expected = name if "*" in model else None
    assert patterns.callers_name(pattern, model, upstream) == expected


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("claude-*", "claude-"),
        ("claude-*", "gpt-5"),
        ("openai/*", "openai/"),
        ("az/*", "az/.."),
        ("az/*", "az/.x"),
        ("az/*", "az/-x"),
        ("*", ".."),
    ],
)
def test_what_it_does_not_take(pattern: str, name: str) -> None:
    assert not patterns.matches(pattern, name)


@pytest.mark.parametrize("pattern", ["*", "claude-*", "openai/*", "a*", "anthropic.claude*"])
def test_a_pattern(pattern: str) -> None:
    assert patterns.is_valid(pattern)


@pytest.mark.parametrize(
    "pattern", ["**", "*-x", "a*b", "a*b*", "/*", "-*", "a//*", "../*", "a..*", "a b*", "é*", "a?*"]
)
def test_no_pattern(pattern: str) -> None:
    assert not patterns.is_valid(pattern)


@given(st.text(st.sampled_from("aZ09._:/@+-*?#% é\n\\"), max_size=12))
def test_a_name_can_lead_nowhere_else_in_an_address(name: str) -> None:
    if patterns.is_name(name):
        assert not set(name) & set("?#%\\ \n*é")
        assert ".." not in name
        assert "//" not in name
        assert name[0] not in "/."


# --- what a key reaches, and what exists


@pytest.mark.parametrize(
    ("rules", "pattern", "reached"),
    [
        ((), "claude-*", True),
        ((("claude-opus",),), "claude-*", True),
        ((("claude-*",), ("*-opus",)), "claude-*", True),
        ((("cl*",),), "claude-*", True),
        ((("gpt-*", "o1"),), "claude-*", False),
        ((("claude",),), "claude-*", False),
        ((("claude-*",), ("gpt-*",)), "claude-*", False),
    ],
)
def test_how_far_a_key_reaches_behind_a_pattern(rules: Any, pattern: str, reached: bool) -> None:
    known = KeyEntry(
        id=UUID(int=1),
        public_id="x",
        name="k",
        team_id=None,
        teams=(),
        digest=b"",
        pepper_version=1,
        expires_at=None,
        model_rules=rules,
        endpoint_rules=(),
        networks=(),
        max_output_tokens=None,
        rates=(),
        budgets=(),
        tags=(),
    )
    assert known.may_use_some(pattern) is reached


def test_a_name_is_served_by_its_own_route_or_by_a_pattern(db: None) -> None:
    for name, enabled in (
        ("claude-*", True),
        ("claude-old", False),
        ("plain", True),
        ("off-*", False),
        ("claude-off-*", False),
    ):
        Route.objects.create(name=name, enabled=enabled)
    served = ["claude-new", "plain"]
    for name in (*served, "claude-old", "off-x", "claude-off-x", "claude-*", "claude-", "other"):
        assert is_served(name) is (name in served), name
    assert callable_names() == ["plain"]
