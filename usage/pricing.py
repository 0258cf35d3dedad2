"""Which price applies to a call, and keeping the price table: synced from data, overridden by people.

The arithmetic is usage/rates.py; `cost`, `worst_case`, `Cost` and `PriceRow` are offered here for callers' convenience.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any
from uuid import UUID

from django.db import transaction

from conduit.core import clock
from usage import price_data
from usage.models import NIL, Price
from usage.rates import Cost, PriceRow, compile_rates, cost, worst_case

__all__ = ["Cost", "PriceBook", "PriceRow", "Synced", "cost", "current", "load_book", "sync_prices", "worst_case"]

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

    def find(self, *, vendor: str, model: str, provider_id: UUID, at: datetime) -> PriceRow | None:
        """The price in force at `at`: override for this provider, else for the model, else the catalogue's.

        In each of the first two the upstream's own name goes before the catalogue's. None: no price is known.
        """
        listed = self._listed(vendor, model)
        name = listed[1] if listed else model
        keys: list[_Key] = [(provider_id, "", model)]
        if name != model:
            keys += [(provider_id, "", name), (NIL, "", model), (NIL, "", name)]
        else:
            keys.append((NIL, "", model))
        keys.append((NIL, vendor, model))
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


def row_of(price: Price) -> PriceRow:
    """Raises ValueError when the stored rates are malformed."""
    return PriceRow(
        price.id,
        price.vendor,
        price.model,
        price.provider_id,
        price.effective_from,
        price.source,
        compile_rates(price.rates),
    )


def load_book(names: Names = _no_names) -> PriceBook:
    """One query over all prices."""
    return PriceBook((row_of(price) for price in Price.objects.order_by("effective_from").iterator()), names)


def current(prices: Iterable[Price], at: datetime) -> Price | None:
    """The latest of one model's prices that is in force at `at`."""
    return max((p for p in prices if p.effective_from <= at), key=lambda p: p.effective_from, default=None)


@dataclass(frozen=True, slots=True)
class Change:
    """A model whose listed price differs from ours. `before` is None for a model that was not priced."""

    vendor: str
    model: str
    effective_from: datetime
    before: dict[str, Any] | None
    after: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Synced:
    models: int
    changes: list[Change]


def sync_prices(*, dry_run: bool = False) -> Synced:
    """Brings the catalogue's prices up to the installed price data. Idempotent; overrides are never touched.

    A model without prices gets all its dated ones. A price that differs from ours is a new row from now: what was
    billed before stays explained by the row it was billed at. Announced prices are replaced until they come into force.
    """
    at = clock.now()
    ours: defaultdict[tuple[str, str], list[Price]] = defaultdict(list)
    with transaction.atomic():
        for price in Price.objects.filter(source=CATALOGUE).select_for_update():
            ours[price.vendor, price.model].append(price)
        new: list[Price] = []
        stale: list[UUID] = []
        changes: list[Change] = []
        seen: set[tuple[str, str]] = set()
        for key, group in groupby(price_data.listed(), key=lambda one: (one.vendor, one.model)):
            wanted = list(group)
            if key in seen:  # the data names a model twice: its first entry is the one that matching finds
                continue
            seen.add(key)
            known = ours[key]
            added, cancelled = _difference(known, wanted, at)
            new += added
            stale += [price.id for price in cancelled]
            before = current(known, at)
            changes += [
                Change(*key, price.effective_from, before.rates if before else None, price.rates) for price in added
            ]
        if not dry_run and (new or stale):
            Price.objects.filter(id__in=stale).delete()
            Price.objects.bulk_create(new, batch_size=5_000, ignore_conflicts=True)
    return Synced(len(seen), changes)


def _difference(known: list[Price], wanted: list[price_data.Listed], at: datetime) -> tuple[list[Price], list[Price]]:
    """Rows to add, and rows announced for later that are announced no more."""
    if not known:
        return [_row(one, one.effective_from) for one in wanted], []
    added: list[Price] = []
    ahead = {one.effective_from: one for one in wanted if one.effective_from > at}
    mine = {price.effective_from: price for price in known if price.effective_from > at}
    cancelled = [price for start, price in mine.items() if start not in ahead or ahead[start].rates != price.rates]
    kept = {price.effective_from for price in mine.values() if price not in cancelled}
    added += [_row(one, start) for start, one in ahead.items() if start not in kept]
    past = [one for one in wanted if one.effective_from <= at]
    before = current(known, at)
    if past and (before is None or before.rates != past[-1].rates):
        added.append(_row(past[-1], at))
    return added, cancelled


def _row(one: price_data.Listed, start: datetime) -> Price:
    return Price(vendor=one.vendor, model=one.model, effective_from=start, source=CATALOGUE, rates=one.rates)
