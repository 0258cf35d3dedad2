"""The sandbox's price list, as data. Whole nano-dollars everywhere.

`rates` are nano-dollars per million units (tokens), `per` are nano-dollars for one unit. Each token
rate here is a whole number of nano-dollars for one token, so no cost is ever rounded.
"""

from __future__ import annotations

from typing import TypedDict


class Price(TypedDict):
    """`rates`: input, cache_read, output per million tokens. `per`: image, character, second, for one each."""

    rates: dict[str, int]
    per: dict[str, int]


def _text(times: int = 1) -> Price:
    rates = {"input": 150_000_000, "cache_read": 75_000_000, "output": 600_000_000}
    return {"rates": {unit: rate * times for unit, rate in rates.items()}, "per": {}}


PRICES: dict[str, Price] = {
    "sandbox-echo": _text(),
    "sandbox-lorem": _text(),
    "sandbox-dear": _text(50),
    "sandbox-tools": _text(),
    "sandbox-think": _text(),
    "sandbox-json": _text(),
    "sandbox-embed": {"rates": {"input": 20_000_000}, "per": {}},
    "sandbox-image": {"rates": {}, "per": {"image": 10_000_000}},
    "sandbox-speech": {"rates": {}, "per": {"character": 15_000}},
    "sandbox-transcribe": {"rates": {}, "per": {"second": 100_000}},
}


def cost(model: str, *, input_tokens: int, cached_tokens: int, output_tokens: int, units: dict[str, int]) -> int:
    """Nano-dollars. `input_tokens` includes the cached ones; `units` counts what `per` prices ({"image": 2}).

    Raises KeyError for a unit the model has no price for: the sandbox never sells what it cannot bill.
    """
    price = PRICES[model]
    rates = price["rates"]
    total = sum(count * price["per"][unit] for unit, count in units.items())
    parts = (("input", input_tokens - cached_tokens), ("cache_read", cached_tokens), ("output", output_tokens))
    for name, tokens in parts:
        if tokens:
            total += -(-tokens * rates[name] // 1_000_000)
    return total
