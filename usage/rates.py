"""What usage costs at given rates. Pure integers; nothing here knows a database, a clock or a vendor.

Rates are `unit → ((from_units, nano-dollars per million units), …)`, ascending by `from_units`. A tier is a cliff: the
total of input tokens picks one step, and the whole request is charged at it. Units priced singly (an image, a second)
use the same scale: $0.01 an image is 10_000_000 nano-dollars each, so 10_000_000_000_000 a million.

`input_tokens` includes cached and audio tokens and `output_tokens` includes reasoning, audio and images; each token is
charged once, under its own unit where that has a rate, else under the dearer plausible one, and flagged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from conduit.core.money import RATE_UNITS, cost_of
from providers.adapters.types import Usage
from usage.records import Line

Steps = tuple[tuple[int, int], ...]
Rates = Mapping[str, Steps]
StoredRates = dict[str, list[list[int]]]  # the same in JSON

TOKEN_UNITS = (
    "input",
    "output",
    "cache_read",
    "cache_write_5m",
    "cache_write_1h",
    "audio_input",
    "audio_output",
    "image_input",
    "image_output",
)
SINGLE_UNITS = ("request", "image", "second", "character", "search")
UNITS = TOKEN_UNITS + SINGLE_UNITS

_INPUT_UNITS = ("input", "cache_read", "cache_write_5m", "cache_write_1h", "audio_input", "image_input")
_OUTPUT_UNITS = ("output", "audio_output", "image_output")
# A one-hour cache write costs 2 x input and a five-minute one 1.25 x input where a vendor sells both: 8/5 apart.
_ONE_HOUR_NUM, _ONE_HOUR_DEN = 8, 5
# Each line is rounded up by less than one nano-dollar; a split of the same tokens over all units may add one for each.
_ROUNDING = len(TOKEN_UNITS)
# A model that draws finishes the picture it has begun, whatever the cap: output tokens of the largest one that is sold.
_WHOLE_IMAGE = 6_240


@dataclass(frozen=True, slots=True)
class PriceRow:
    """One dated price. `provider_id` NIL means every provider; `vendor` is empty for overrides."""

    id: UUID
    vendor: str
    model: str
    provider_id: UUID
    effective_from: datetime
    source: str
    rates: Rates


@dataclass(slots=True)
class Cost:
    """`nanos` is the sum of the lines; a line is (unit, count, nano-dollars per million, nano-dollars).

    Flags: `rate_fallback` (a unit had no rate of its own), `inconsistent` (parts exceed their total or are negative),
    `unpriced` (something that may cost has no rate at all), `reported` (the provider's own figure was taken).
    """

    nanos: int = 0
    lines: list[Line] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)

    def charge(self, unit: str, count: int, rate: int) -> None:
        nanos = cost_of(count, rate)
        self.nanos += nanos
        self.lines.append((unit, count, rate, nanos))

    def flag(self, name: str) -> None:
        if name not in self.flags:
            self.flags.append(name)


def compile_rates(stored: Mapping[str, Iterable[Iterable[int]]]) -> Rates:
    """The JSON of a Price row as Rates. Raises ValueError for anything that is not ascending steps of whole numbers."""
    rates: dict[str, Steps] = {}
    for unit, steps in stored.items():
        compiled = tuple((start, rate) for start, rate in steps)
        starts = [start for start, _ in compiled]
        whole = all(type(number) is int and number >= 0 for step in compiled for number in step)
        if not compiled or not whole or starts[0] != 0 or starts != sorted(set(starts)):
            raise ValueError(f"rates of {unit!r} are not ascending steps from 0")
        rates[unit] = compiled
    return rates


def rate_at(steps: Steps, input_tokens: int) -> int:
    """The rate of the highest step that the request's input tokens reach."""
    rate = steps[0][1]
    for start, step_rate in steps[1:]:
        if input_tokens < start:
            break
        rate = step_rate
    return rate


def cost(usage: Usage, row: PriceRow | None) -> Cost:
    """What the provider will bill for `usage`. Without a price: no lines, zero, flagged `unpriced`."""
    result = Cost()
    if usage.reported_cost is not None and usage.reported_cost > 0:
        result.charge("reported", 1, usage.reported_cost * RATE_UNITS)
        result.flag("reported")
        return result
    if row is None:
        result.flag("unpriced")
        return result
    _charge_tokens(result, usage, row.rates)
    _charge_singles(result, usage, row.rates)
    return result


def _charge_tokens(result: Cost, usage: Usage, rates: Rates) -> None:
    total = max(usage.input_tokens, 0)
    if not (usage.cache_read_tokens or usage.cache_write_tokens or usage.audio_input_tokens or usage.units):
        parts = [("input", total)]
    else:
        one_hour = min(usage.cache_write_1h_tokens, usage.cache_write_tokens)
        parts = [
            ("cache_read", usage.cache_read_tokens),
            ("cache_write_5m", usage.cache_write_tokens - one_hour),
            ("cache_write_1h", one_hour),
            ("audio_input", usage.audio_input_tokens),
            ("image_input", usage.units.get("image_input", 0)),
        ]
        parts.insert(0, ("input", _rest(result, usage.input_tokens, parts)))
    if usage.audio_output_tokens or usage.image_output_tokens:
        spoken = [("audio_output", usage.audio_output_tokens), ("image_output", usage.image_output_tokens)]
        parts.append(("output", _rest(result, usage.output_tokens, spoken)))
        parts += spoken
    else:
        parts.append(("output", usage.output_tokens))
    for unit, count in parts:
        if count > 0:
            rate = _token_rate(result, rates, unit, total)
            if rate is not None:
                result.charge(unit, count, rate)
            elif any(priced in rates for priced in TOKEN_UNITS):
                result.flag("unpriced")
        elif count < 0:
            result.flag("inconsistent")


def _rest(result: Cost, total: int, parts: list[tuple[str, int]]) -> int:
    """What is left of `total` for the plain unit; never negative, because each part is charged in full anyway."""
    rest = total - sum(max(count, 0) for _, count in parts)
    if rest < 0:
        result.flag("inconsistent")
        return 0
    return rest


def _token_rate(result: Cost, rates: Rates, unit: str, total: int) -> int | None:
    steps = rates.get(unit)
    if steps is not None:
        return rate_at(steps, total)
    rate = _fallback(rates, unit, total)
    if rate is not None:
        result.flag("rate_fallback")
    return rate


def _fallback(rates: Rates, unit: str, total: int) -> int | None:
    """The dearer plausible rate of a unit without one of its own; None where even the plain unit has none."""
    five_minutes = rates.get("cache_write_5m")
    if unit == "cache_write_1h" and five_minutes is not None:
        return -(-rate_at(five_minutes, total) * _ONE_HOUR_NUM // _ONE_HOUR_DEN)
    plain = rates.get("input" if unit in _INPUT_UNITS else "output")
    return None if plain is None else rate_at(plain, total)


def _charge_singles(result: Cost, usage: Usage, rates: Rates) -> None:
    counts = usage.units
    used = usage.input_tokens > 0 or usage.output_tokens > 0 or any(counts.values())
    if "request" in rates and used:  # an attempt without any usage did nothing to charge a fee for
        counts = {"request": 1, **counts}
    for unit, count in counts.items():
        if unit == "image_input" or count == 0:
            continue
        steps = rates.get(unit)
        if count < 0:
            result.flag("inconsistent")
        elif steps is not None:
            result.charge(unit, count, rate_at(steps, usage.input_tokens))
        elif unit == "search":  # sold on top of tokens; the others are another way of counting the same work
            result.flag("unpriced")
    if used and not result.lines:
        result.flag("unpriced")


def worst_case(
    row: PriceRow, *, input_tokens: int, output_tokens: int, n: int = 1, units: Mapping[str, int] | None = None
) -> int:
    """The most that `cost` can come to, in nano-dollars, for at most these counts.

    `output_tokens` is the cap of one choice, `n` the number of choices, `units` the most of each singly priced unit.
    The dearest unit and the dearest tier within reach are assumed for every token.
    """
    nanos = _ROUNDING
    nanos += cost_of(input_tokens, _dearest(row.rates, _INPUT_UNITS, input_tokens))
    if "image_output" in row.rates:
        output_tokens += _WHOLE_IMAGE
    nanos += cost_of(output_tokens * n, _dearest(row.rates, _OUTPUT_UNITS, input_tokens))
    for unit, count in {"request": 1, **(units or {})}.items():
        if unit in SINGLE_UNITS and unit in row.rates:
            nanos += cost_of(count, _highest(row.rates[unit], input_tokens))
    return nanos


def unpriced(row: PriceRow, *, output_tokens: int, units: Mapping[str, int] | None = None) -> tuple[str, ...]:
    """What a request within these bounds may use although the row has no rate for it: it would be counted as $0.

    Under a hard budget a request with any such unit is refused as one without a price.
    """
    needed = [unit for unit, count in (units or {}).items() if count]
    by_another_unit = any(unit in row.rates for unit in ("request", "image", "second", "character"))
    if not by_another_unit or any(unit in row.rates for unit in TOKEN_UNITS):
        needed = ["input", *(["output"] if output_tokens else []), *needed]
    return tuple(unit for unit in needed if unit not in row.rates)


def _dearest(rates: Rates, units: tuple[str, ...], input_tokens: int) -> int:
    rate = max((_highest(rates[unit], input_tokens) for unit in units if unit in rates), default=0)
    if "cache_write_1h" in units and "cache_write_1h" not in rates and "cache_write_5m" in rates:
        five_minutes = _highest(rates["cache_write_5m"], input_tokens)
        rate = max(rate, -(-five_minutes * _ONE_HOUR_NUM // _ONE_HOUR_DEN))
    return rate


def _highest(steps: Steps, input_tokens: int) -> int:
    return max(rate for start, rate in steps if start <= input_tokens)
