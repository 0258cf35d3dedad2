"""The arithmetic of a price, worked out by hand, against exact fractions and against the price data's own engine."""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from uuid import UUID

import genai_prices
import pytest
from genai_prices.data_snapshot import get_snapshot
from hypothesis import given
from hypothesis import strategies as st

from conduit.core.money import RATE_UNITS
from providers.adapters.types import Usage
from usage import price_data
from usage.rates import PriceRow, compile_rates, cost, unpriced, worst_case

NIL = UUID(int=0)


def row(rates: Mapping[str, int | list[list[int]]]) -> PriceRow:
    """Plain numbers are one step from 0."""
    stored = {unit: rate if isinstance(rate, list) else [[0, rate]] for unit, rate in rates.items()}
    return PriceRow(NIL, "openai", "m", NIL, datetime(1970, 1, 1, tzinfo=UTC), "catalogue", compile_rates(stored))


GPT_4O = row({"input": 2_500_000_000, "cache_read": 1_250_000_000, "output": 10_000_000_000})
SONNET = row(
    {
        "input": [[0, 3_000_000_000], [200_001, 6_000_000_000]],
        "cache_read": [[0, 300_000_000], [200_001, 600_000_000]],
        "cache_write_5m": [[0, 3_750_000_000], [200_001, 7_500_000_000]],
        "cache_write_1h": [[0, 6_000_000_000], [200_001, 12_000_000_000]],
        "output": [[0, 15_000_000_000], [200_001, 22_500_000_000]],
    }
)


def test_plain_input_and_output() -> None:
    # 1,000 x $2.50/M = $0.0025; 500 x $10/M = $0.005
    result = cost(Usage(input_tokens=1_000, output_tokens=500), GPT_4O)
    assert result.lines == [
        ("input", 1_000, 2_500_000_000, 2_500_000),
        ("output", 500, 10_000_000_000, 5_000_000),
    ]
    assert (result.nanos, result.flags) == (7_500_000, [])


def test_cached_tokens_are_taken_out_of_the_plain_ones() -> None:
    # 1,000 in all: 400 cached x $1.25/M = $0.0005, 600 plain x $2.50/M = $0.0015
    result = cost(Usage(input_tokens=1_000, cache_read_tokens=400), GPT_4O)
    assert result.nanos == 500_000 + 1_500_000
    assert ("input", 600, 2_500_000_000, 1_500_000) in result.lines


def test_both_lifetimes_of_cache_writes_have_their_own_rate() -> None:
    # 10,000 in all: 2,000 read x $0.30/M = $0.0006; 3,000 five-minute x $3.75/M = $0.01125;
    # 1,000 one-hour x $6/M = $0.006; 4,000 plain x $3/M = $0.012; 100 out x $15/M = $0.0015
    usage = Usage(
        input_tokens=10_000,
        cache_read_tokens=2_000,
        cache_write_tokens=4_000,
        cache_write_1h_tokens=1_000,
        output_tokens=100,
    )
    assert cost(usage, SONNET).nanos == 600_000 + 11_250_000 + 6_000_000 + 12_000_000 + 1_500_000


@pytest.mark.parametrize(
    ("total", "input_rate", "output_rate"),
    [(200_000, 3_000_000_000, 15_000_000_000), (200_001, 6_000_000_000, 22_500_000_000)],
)
def test_a_tier_is_a_cliff_over_the_whole_request(total: int, input_rate: int, output_rate: int) -> None:
    result = cost(Usage(input_tokens=total, output_tokens=10), SONNET)
    assert result.nanos == total * input_rate // RATE_UNITS + 10 * output_rate // RATE_UNITS


def test_cached_tokens_count_towards_the_tier() -> None:
    # 150,000 cached + 60,000 plain = 210,000 > 200,000: $0.60/M and $6/M
    result = cost(Usage(input_tokens=210_000, cache_read_tokens=150_000), SONNET)
    assert result.nanos == 90_000_000 + 360_000_000


def test_reasoning_is_part_of_output_and_not_charged_twice() -> None:
    assert cost(Usage(output_tokens=500, reasoning_tokens=400), GPT_4O).nanos == 5_000_000


def test_a_fraction_of_a_nano_dollar_is_rounded_up_per_line() -> None:
    # 1 x 150 nano-dollars per million = 0.00015 nano-dollars
    assert cost(Usage(input_tokens=1, output_tokens=1), row({"input": 150, "output": 150})).nanos == 2


def test_audio_and_image_tokens_go_at_their_own_rates() -> None:
    # audio in 200 x $32/M = $0.0064; plain in 100 x $4/M = $0.0004; audio out 50 x $64/M = $0.0032;
    # image out 30 x $40/M = $0.0012; plain out 20 x $16/M = $0.00032
    price = row(
        {
            "input": 4_000_000_000,
            "audio_input": 32_000_000_000,
            "output": 16_000_000_000,
            "audio_output": 64_000_000_000,
            "image_output": 40_000_000_000,
        }
    )
    usage = Usage(
        input_tokens=300, audio_input_tokens=200, output_tokens=100, audio_output_tokens=50, image_output_tokens=30
    )
    assert cost(usage, price).nanos == 6_400_000 + 400_000 + 3_200_000 + 1_200_000 + 320_000


def test_units_priced_singly_and_a_fee_for_each_request() -> None:
    # 2 images x $0.01 + 1 request x $0.005
    price = row({"image": 10_000_000 * RATE_UNITS, "request": 5_000_000 * RATE_UNITS})
    assert cost(Usage(units={"image": 2}), price).nanos == 25_000_000


def test_a_unit_without_a_rate_takes_the_dearer_plausible_one_and_says_so() -> None:
    # one-hour writes where only five-minute ones are priced: 8/5 x $3.75 = $6/M; 1,000 of them $0.006
    price = row({"input": 3_000_000_000, "cache_write_5m": 3_750_000_000, "output": 15_000_000_000})
    result = cost(Usage(input_tokens=1_000, cache_write_tokens=1_000, cache_write_1h_tokens=1_000), price)
    assert (result.nanos, result.flags) == (6_000_000, ["rate_fallback"])
    # cached reads at the full input price: 1,000 x $3/M
    result = cost(Usage(input_tokens=1_000, cache_read_tokens=1_000), price)
    assert (result.nanos, result.flags) == (3_000_000, ["rate_fallback"])
    # spoken output at the output price: 10 x $15/M
    result = cost(Usage(output_tokens=10, audio_output_tokens=10), price)
    assert (result.nanos, result.flags) == (150_000, ["rate_fallback"])


def test_parts_that_exceed_their_total_are_charged_and_flagged_and_never_negative() -> None:
    result = cost(Usage(input_tokens=100, cache_read_tokens=500), GPT_4O)
    assert result.lines == [("cache_read", 500, 1_250_000_000, 625_000)]
    assert result.flags == ["inconsistent"]
    assert cost(Usage(input_tokens=-5, output_tokens=-7), GPT_4O).nanos == 0


def test_what_may_cost_but_has_no_rate_is_flagged() -> None:
    assert cost(Usage(input_tokens=10), None).flags == ["unpriced"]
    assert cost(Usage(input_tokens=10), row({"image": RATE_UNITS})).flags == ["unpriced"]
    assert cost(Usage(input_tokens=10, units={"search": 1}), GPT_4O).flags == ["unpriced"]
    assert cost(Usage(), GPT_4O).flags == []


def test_tokens_without_a_rate_beside_tokens_that_have_one_are_flagged() -> None:
    # An embedding model's price on a model that writes: 10 in at $3/M, and 5 out that nobody priced.
    result = cost(Usage(input_tokens=10, output_tokens=5), row({"input": 3_000_000_000}))
    assert (result.nanos, result.flags) == (30_000, ["unpriced"])
    # Sold by the second, or for a fee alone: tokens are another way of counting the same work.
    assert cost(Usage(input_tokens=10, units={"second": 2}), row({"second": RATE_UNITS})).flags == []
    fee = cost(Usage(input_tokens=10, output_tokens=5), row({"request": RATE_UNITS}))
    assert (fee.nanos, fee.flags) == (1, [])


@pytest.mark.parametrize(
    ("rates", "output", "units", "missing"),
    [
        ({"input": 1, "output": 1}, 10, {}, ()),
        ({"input": 1}, 0, {}, ()),
        ({"input": 1}, 10, {}, ("output",)),
        ({"output": 1}, 10, {}, ("input",)),
        ({"cache_read": 1}, 10, {}, ("input", "output")),
        ({}, 10, {}, ("input", "output")),
        ({"input": 1, "output": 1}, 10, {"search": 2}, ("search",)),
        ({"input": 1, "output": 1}, 10, {"search": 0}, ()),
        ({"input": 1, "output": 1, "search": 1}, 10, {"search": 2}, ()),
        ({"request": 1}, 10, {}, ()),
        ({"second": 1}, 10, {}, ()),
        ({"input": 0, "output": 0}, 10, {}, ()),  # free by somebody's word is not unpriced
    ],
)
def test_what_a_price_says_nothing_of_is_named_before_it_is_spent(
    rates: dict[str, int], output: int, units: dict[str, int], missing: tuple[str, ...]
) -> None:
    assert unpriced(row(rates), output_tokens=output, units=units) == missing


@given(st.dictionaries(st.sampled_from(["input", "output", "search", "cache_read", "request"]), st.just(7)), st.data())
def test_whatever_is_not_named_as_unpriced_is_never_flagged_so_afterwards(
    rates: dict[str, int], data: st.DataObject
) -> None:
    used = Usage(
        input_tokens=data.draw(st.integers(1, 9)),
        output_tokens=data.draw(st.integers(0, 9)),
        units={"search": 2} if data.draw(st.booleans()) else {},
    )
    if not unpriced(row(rates), output_tokens=used.output_tokens, units=used.units):
        assert "unpriced" not in cost(used, row(rates)).flags


def test_the_providers_own_figure_is_taken_where_it_names_one() -> None:
    result = cost(Usage(input_tokens=1_000, reported_cost=123_456_789), GPT_4O)
    assert (result.nanos, result.flags) == (123_456_789, ["reported"])
    assert result.lines == [("reported", 1, 123_456_789 * RATE_UNITS, 123_456_789)]
    assert cost(Usage(input_tokens=1_000, reported_cost=0), GPT_4O).nanos == 2_500_000


def test_a_million_tiny_costs_add_up_without_drift() -> None:
    """Each line is the ceiling of the exact fraction, so the sum is known exactly; floats would be off by now."""
    chance = random.Random(8)
    total, exact = 0, 0
    for _ in range(1_000_000):
        tokens, cached = chance.randrange(1, 40), chance.randrange(0, 2)
        total += cost(Usage(input_tokens=tokens, cache_read_tokens=cached), GPT_4O).nanos
        exact += 2_500 * (tokens - cached) + 1_250 * cached
    assert total == exact


@given(st.integers(0, 10**9), st.integers(0, 10**13))
def test_a_line_is_the_ceiling_of_the_exact_fraction(count: int, rate: int) -> None:
    exact = Fraction(count * rate, RATE_UNITS)
    nanos = cost(Usage(input_tokens=count), row({"input": rate})).nanos
    assert exact <= nanos < exact + 1


token_rates = st.fixed_dictionaries(
    {},
    optional={
        unit: st.lists(st.tuples(st.integers(1, 500), st.integers(0, 10**11)), max_size=3).map(
            lambda tiers: [[0, 7], *[[start, rate] for start, rate in sorted(dict(tiers).items())]]
        )
        for unit in ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h", "audio_input", "audio_output")
    },
)


@given(token_rates, st.data())
def test_no_usage_within_the_bounds_costs_more_than_the_worst_case(
    rates: dict[str, list[list[int]]], data: st.DataObject
) -> None:
    bound_in, bound_out, n = (
        data.draw(st.integers(0, 600)),
        data.draw(st.integers(0, 600)),
        data.draw(st.integers(1, 3)),
    )
    left = data.draw(st.integers(0, bound_in))
    total_in = left
    parts = []
    for _ in range(3):
        part = data.draw(st.integers(0, left))
        left -= part
        parts.append(part)
    output = data.draw(st.integers(0, bound_out * n))
    usage = Usage(
        input_tokens=total_in,
        cache_read_tokens=parts[0],
        cache_write_tokens=parts[1],
        cache_write_1h_tokens=data.draw(st.integers(0, parts[1])),
        audio_input_tokens=parts[2],
        output_tokens=output,
        audio_output_tokens=data.draw(st.integers(0, output)),
    )
    price = row(rates)
    assert cost(usage, price).nanos <= worst_case(price, input_tokens=bound_in, output_tokens=bound_out, n=n)


def test_the_worst_case_counts_choices_and_single_units() -> None:
    price = row({"input": 1_000_000, "output": 2_000_000, "image": 5 * RATE_UNITS, "request": 3 * RATE_UNITS})
    # 100 in x 1 + 10 out x 2 choices x 2 + 3 + 4 images x 5, and nine nano-dollars for rounding
    bound = worst_case(price, input_tokens=100, output_tokens=10, n=2, units={"image": 4})
    assert bound == 100 + 40 + 3 + 20 + 9


def test_a_picture_once_begun_is_finished_whatever_the_cap() -> None:
    price = row({"input": 1_000_000, "output": 1_000_000, "image_output": 2_000_000})
    drawn = Usage(output_tokens=6_240, image_output_tokens=6_240)
    assert cost(drawn, price).nanos <= worst_case(price, input_tokens=0, output_tokens=1)
    assert worst_case(GPT_4O, input_tokens=0, output_tokens=1) == 10_000 + 9


@pytest.mark.parametrize(
    "stored",
    [{"input": []}, {"input": [[5, 1]]}, {"input": [[0, -1]]}, {"input": [[0, 1.5]]}, {"input": [[0, 1], [0, 2]]}],
)
def test_malformed_rates_are_refused(stored: dict[str, list[list[int]]]) -> None:
    with pytest.raises(ValueError, match="ascending steps"):
        compile_rates(stored)


def _listed_at(at: datetime) -> dict[tuple[str, str], PriceRow]:
    found = {}
    for one in price_data.listed():
        if one.effective_from <= at:
            found[one.vendor, one.model] = PriceRow(
                NIL, one.vendor, one.model, NIL, one.effective_from, "catalogue", compile_rates(one.rates)
            )
    return found


@pytest.mark.parametrize("input_tokens", [1_000, 150_000, 260_000])
def test_costs_agree_with_the_price_datas_own_engine(input_tokens: int) -> None:
    """At 17:00 UTC no vendor's dearer hours are on, so models priced by the hour are left out of the comparison."""
    at = datetime(2026, 11, 20, 17, 0, tzinfo=UTC)
    book, compared = _listed_at(at), 0
    for vendor in get_snapshot().providers:
        if vendor.id not in ("openai", "anthropic", "google", "mistral", "groq", "x-ai", "cohere"):
            continue
        for model in vendor.models:
            price = book.get((vendor.id, model.id))
            rates = price.rates if price else {}
            if (
                price is None
                or "input" not in rates
                or "output" not in rates
                or model.get_prices(at).calc_price(genai_prices.Usage())["total_price"]
            ):
                continue
            cached = input_tokens // 3 if "cache_read" in rates else 0
            ours = cost(Usage(input_tokens=input_tokens, cache_read_tokens=cached, output_tokens=777), price)
            theirs = model.calc_price(
                genai_prices.Usage(input_tokens=input_tokens, cache_read_tokens=cached, output_tokens=777),
                vendor,
                genai_request_timestamp=at,
            ).total_price
            exact = theirs * Decimal(10**9)
            assert exact <= ours.nanos < exact + len(ours.lines), (vendor.id, model.id)
            compared += 1
    assert compared > 150
