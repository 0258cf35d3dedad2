"""Keeps the catalogue's prices in step with the installed price data. For commands and jobs: the data is large."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any
from uuid import UUID

from django.db import transaction

from conduit.core import clock
from usage import price_data
from usage.models import Price
from usage.pricing import CATALOGUE, current


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
