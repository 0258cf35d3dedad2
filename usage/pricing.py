"""Which price applies to a call. The table is kept by price_sync.py (from data) and overrides.py (by people).

The arithmetic is usage/rates.py; `cost`, `worst_case`, `Cost` and `PriceRow` are offered here for callers' convenience.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import datetime
from uuid import UUID

from usage.models import NIL, Price
from usage.rates import Cost, PriceRow, compile_rates, cost, worst_case

__all__ = ["Cost", "PriceBook", "PriceRow", "cost", "current", "load_book", "worst_case"]

CATALOGUE, OVERRIDE = "catalogue", "override"
Names = Callable[[str, str], tuple[str, str] | None]
_Key = tuple[UUID, str, str]  # provider or NIL, vendor or empty for overrides, model


def _no_names(vendor: str, model: str) -> tuple[str, str] | None:
    return None


class PriceBook:
    """All prices in memory, immutable after construction.

    `names(vendor, model)` maps an upstream's model name to the catalogue's (vendor, name), or None:
    `gpt-4o-2024-08-06` is `gpt-4o` there. Without it only exact names are found.
    """

    def __init__(self, rows: Iterable[PriceRow], names: Names = _no_names) -> None:
        self._names = names
        self._known: dict[tuple[str, str], tuple[str, str] | None] = {}
        dated: defaultdict[_Key, list[PriceRow]] = defaultdict(list)
        for row in rows:
            vendor = "" if row.source == OVERRIDE else row.vendor
            dated[row.provider_id, vendor, row.model].append(row)
        self._rows = {key: sorted(found, key=lambda row: row.effective_from) for key, found in dated.items()}
        self._starts = {key: [row.effective_from for row in found] for key, found in self._rows.items()}

    def find(self, *, vendor: str, model: str, known_as: str = "", provider_id: UUID, at: datetime) -> PriceRow | None:
        """The price in force at `at`: override for this provider, else for the model, else the catalogue's.

        In each of the first two the upstream's own name goes before the one it is `known_as`, and that before the
        catalogue's. None: no price is known.
        """
        known = known_as or model
        listed = self._listed(vendor, known)
        names = dict.fromkeys((model, known, listed[1] if listed else known))
        keys: list[_Key] = [(provider, "", name) for provider in (provider_id, NIL) for name in names]
        keys.append((NIL, vendor, known))
        if listed:
            keys.append((NIL, *listed))
        for key in keys:
            starts = self._starts.get(key)
            if starts:
                position = bisect_right(starts, at)
                if position:
                    return self._rows[key][position - 1]
        return None

    def _listed(self, vendor: str, model: str) -> tuple[str, str] | None:
        """Matching runs over patterns, so its answer is kept; callers choose the model, so the memory is bounded."""
        if (NIL, vendor, model) in self._rows:
            return vendor, model
        known = self._known
        if (vendor, model) not in known:
            if len(known) >= 10_000:
                known.clear()
            known[vendor, model] = self._names(vendor, model)
        return known[vendor, model]


def load_book(names: Names = _no_names) -> PriceBook:
    """One query over all prices, without model objects: they cost more than the rest of a reload. Raises ValueError
    when stored rates are malformed."""
    rows = Price.objects.values_list("id", "vendor", "model", "provider_id", "effective_from", "source", "rates")
    return PriceBook((PriceRow(*row[:-1], compile_rates(row[-1])) for row in rows.iterator()), names)


def current(prices: Iterable[Price], at: datetime) -> Price | None:
    """The latest of one model's prices that is in force at `at`."""
    return max((p for p in prices if p.effective_from <= at), key=lambda p: p.effective_from, default=None)
