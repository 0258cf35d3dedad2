from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conduit.core import wording

NOW = datetime(2026, 11, 20, 14, 32, 8, tzinfo=UTC)


@pytest.mark.parametrize(
    ("nanos", "digits", "text"),
    [
        (12_345_670_000_000, None, "$12,345.67"),
        (4_200_000, None, "$0.0042"),
        (0, None, "$0.00"),
        (99, None, "<$0.0001"),
        (99_999, 4, "<$0.0001"),
        (1_000_000, 2, "<$0.01"),
        (11_622_000, 9, "$0.011622000"),
        (-4_200_000_000, None, "\u2212$4.20"),
        (None, None, "–"),
    ],
)
def test_money_reads_as_the_guide_says(nanos: int | None, digits: int | None, text: str) -> None:
    assert wording.usd(nanos, digits) == text


@given(st.integers(-(2**63), 2**63 - 1))
def test_the_exact_form_loses_nothing(nanos: int) -> None:
    plain = wording.usd_exact(nanos).replace("$", "").replace(",", "").replace(".", "").replace("\u2212", "-")
    assert int(plain) == nanos


@given(st.lists(st.integers(0, 10**15), min_size=1))
def test_a_column_has_one_precision_and_hides_no_spend(amounts: list[int]) -> None:
    digits = wording.digits_for(amounts)
    for amount in amounts:
        text = wording.usd(amount, digits)
        assert len(text.partition(".")[2]) == digits
        assert (text.strip("$<0.,") == "") == (amount == 0) or text.startswith("<")


@pytest.mark.parametrize(
    ("ago", "text"),
    [
        (timedelta(seconds=1), "just now"),
        (timedelta(seconds=4), "4 s ago"),
        (timedelta(minutes=2), "2 min ago"),
        (timedelta(hours=9, minutes=27), "9 h 27 min ago"),
        (timedelta(days=1, hours=2), "19 Nov 12:32"),
        (timedelta(days=400), "16 Oct 2025 14:32"),
        (-timedelta(hours=9), "in 9 h"),
        (-timedelta(days=73), "in 73 days"),
    ],
)
def test_moments_are_relative_for_a_day(ago: timedelta, text: str) -> None:
    assert wording.relative(NOW - ago, NOW).replace("\u00a0", " ") == text


@pytest.mark.parametrize(
    ("us", "text"),
    [(0, "0 ms"), (320, "0.3 ms"), (38_000, "38 ms"), (4_280_000, "4.28 s"), (150_000_000, "2 min"), (None, "–")],
)
def test_durations_take_the_unit_that_fits(us: int | None, text: str) -> None:
    assert wording.microseconds(us).replace("\u00a0", " ") == text


def test_shares_never_read_full_before_they_are() -> None:
    assert wording.percent(999, 1000).replace("\u00a0", " ") == "99 %"
    assert wording.percent(1000, 1000).replace("\u00a0", " ") == "100 %"
    assert wording.percent(21, 10_000, 2).replace("\u00a0", " ") == "0.21 %"
    assert wording.percent(1, 0) == "–"
    assert wording.rate(3_000_000_000) == "$3.00"
    assert wording.rate(75_000_000) == "$0.075"
