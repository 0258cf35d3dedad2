"""Token estimates: documented arithmetic, and never nothing for something."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.adapters.estimate import tokens_in, tokens_in_bytes


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        (" ", 1),
        ("abcd", 1),
        ("abcde", 2),  # ceil(5 / 4)
        ("a b c d e f", 6),  # six words; ceil(11 / 4) would be 3
        ("日本語", 3),  # one each
        ("日本語 abc", 4),  # 3 + ceil(4 / 4)
        ("日本語".encode(), 3),
        (b"\xff\xfe", 2),  # each broken byte becomes one code point
    ],
)
def test_estimates_by_hand(text: str | bytes, tokens: int) -> None:
    assert tokens_in(text) == tokens


@given(st.text(min_size=1))
def test_any_text_is_at_least_one_token_and_at_most_its_bytes(text: str) -> None:
    coded = text.encode("utf-8", "replace")
    assert 1 <= tokens_in(coded) <= len(coded)


def test_bytes_alone_are_rounded_up() -> None:
    assert [tokens_in_bytes(count) for count in (0, 1, 4, 5)] == [0, 1, 1, 2]
