"""The genai-prices data set and the sandbox's price list, compiled into our rates. Reads data, touches no table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import ROUND_CEILING, Decimal

from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ConditionalPrice, ModelInfo, ModelPrice, StartDateConstraint, TieredPrices

from conduit.core.money import RATE_UNITS
from providers.sandbox.prices import PRICES as SANDBOX
from usage.rates import StoredRates

ALWAYS = datetime(1970, 1, 1, tzinfo=UTC)

# Price key → our unit and how many dollars a million units cost at a price of one dollar. Keys not named here price
# what Conduit does not meter (documents, messages, video).
_KEYS: dict[str, tuple[str, Decimal]] = {
    "input_mtok": ("input", Decimal(1)),
    "output_mtok": ("output", Decimal(1)),
    "cache_read_mtok": ("cache_read", Decimal(1)),
    "cache_write_mtok": ("cache_write_5m", Decimal(1)),
    "cache_write_5m_mtok": ("cache_write_5m", Decimal(1)),
    "cache_write_1h_mtok": ("cache_write_1h", Decimal(1)),
    "input_audio_mtok": ("audio_input", Decimal(1)),
    "output_audio_mtok": ("audio_output", Decimal(1)),
    "input_image_mtok": ("image_input", Decimal(1)),
    "output_image_mtok": ("image_output", Decimal(1)),
    "input_mchars": ("character", Decimal(1)),
    "requests_kcount": ("request", Decimal(1000)),
    "web_searches_kcount": ("search", Decimal(1000)),
    "rerank_searches_kcount": ("search", Decimal(1000)),
    "audio_hours": ("second", Decimal(RATE_UNITS) / 3600),
    "input_audio_hours": ("second", Decimal(RATE_UNITS) / 3600),
}


@dataclass(frozen=True, slots=True)
class Listed:
    """One price as the data has it: in force from `effective_from` until the model's next one."""

    vendor: str
    model: str
    effective_from: datetime
    rates: StoredRates


def listed() -> Iterator[Listed]:
    """Every priced model of the data set and of the sandbox, oldest price of a model first."""
    for vendor in get_snapshot().providers:
        for model in vendor.models:
            for start, rates in _dated(model):
                yield Listed(vendor.id, model.id, start, rates)
    for name, price in SANDBOX.items():
        single = {unit: [[0, nanos * RATE_UNITS]] for unit, nanos in price["per"].items()}
        yield Listed("sandbox", name, ALWAYS, {unit: [[0, rate]] for unit, rate in price["rates"].items()} | single)


def _dated(model: ModelInfo) -> Iterator[tuple[datetime, StoredRates]]:
    prices = model.prices if isinstance(model.prices, list) else [ConditionalPrice(prices=model.prices)]
    if not prices:
        return
    starts = {p.constraint.start_date for p in prices if isinstance(p.constraint, StartDateConstraint)}
    for day in sorted({ALWAYS.date(), *starts}):
        rates = _dearest([_compile(price) for price in _in_force(prices, day)])
        if rates:
            yield datetime.combine(day, time(), UTC), rates


def _in_force(prices: list[ConditionalPrice], day: date) -> list[ModelPrice]:
    """What may apply at some hour of `day`: the last price in force by date, and those for hours that go before it."""
    hours: list[ModelPrice] = []
    for price in reversed(prices):
        if price.constraint is None:
            return [*hours, price.prices]
        if not isinstance(price.constraint, StartDateConstraint):
            hours.append(price.prices)
        elif price.constraint.start_date <= day:
            return [*hours, price.prices]
    return [*hours, prices[0].prices]


def _compile(price: ModelPrice) -> StoredRates:
    rates: StoredRates = {}
    for key, value in vars(price).items():
        if value is None or key not in _KEYS:
            continue
        unit, factor = _KEYS[key]
        if isinstance(value, TieredPrices):
            # The data's tiers apply above `start`, ours from `from_units` on.
            rates[unit] = [[0, _nanos(value.base, factor)]]
            rates[unit] += [[tier.start + 1, _nanos(tier.price, factor)] for tier in value.tiers]
        else:
            rates[unit] = [[0, _nanos(value, factor)]]
    return rates


def _nanos(dollars: Decimal, factor: Decimal) -> int:
    """Nano-dollars per million units, rounded up. Beyond 12 decimals the data carries the noise of binary floats."""
    clean = (dollars * factor).quantize(Decimal("1e-12"))
    return int(clean.scaleb(9).to_integral_value(ROUND_CEILING))


def _dearest(candidates: list[StoredRates]) -> StoredRates:
    """One rate card for the whole day: prices by the hour are taken at their dearest, as a hard limit must."""
    if len(candidates) == 1:
        return candidates[0]
    return {
        unit: _merge([rates[unit] for rates in candidates if unit in rates])
        for unit in sorted({unit for rates in candidates for unit in rates})
    }


def _merge(cards: list[list[list[int]]]) -> list[list[int]]:
    starts = sorted({start for card in cards for start, _ in card})

    def at(card: list[list[int]], start: int) -> int:
        return [rate for begin, rate in card if begin <= start][-1]

    return [[start, max(at(card, start) for card in cards)] for start in starts]
