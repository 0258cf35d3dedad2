"""Keeps the catalogue's prices in step with the installed price data. For commands and jobs: the data is large."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any
from uuid import UUID

from django.db import transaction

from conduit.core import audit, clock
from conduit.core.actor import SYSTEM, Actor
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


@dataclass(frozen=True, slots=True)
class _Plan:
    new: list[Price]
    stale: list[UUID]
    changes: list[Change]


def sync_prices(*, actor: Actor = SYSTEM, dry_run: bool = False) -> Synced:
    """Brings the catalogue's prices up to the installed price data. Idempotent; overrides are never touched.

    A model without prices gets all its dated ones. A price that differs from ours is a new row from now: what was
    billed before stays explained by the row it was billed at. Announced prices are replaced until they come into force.
    """
    at = clock.now()
    # Reading the data takes long, so it comes before the lock that all changes wait for; a dry run takes none.
    listed = _listed()
    plan = _planned(listed, at)
    if dry_run or not (plan.new or plan.stale):
        return Synced(len(listed), plan.changes)
    with transaction.atomic():
        audit.lock()
        plan = _planned(listed, at)
        Price.objects.filter(id__in=plan.stale).delete()
        Price.objects.bulk_create(plan.new, batch_size=5_000, ignore_conflicts=True)
        after = {"models": len(listed), "new_prices": len(plan.new), "cancelled_announcements": len(plan.stale)}
        audit.record(actor=actor, action="prices.sync", kind="price", id="catalogue", name="catalogue", after=after)
    return Synced(len(listed), plan.changes)


def _listed() -> dict[tuple[str, str], list[price_data.Listed]]:
    """The data's prices by vendor and model. It names some models twice: the first is the one that matching finds."""
    found: dict[tuple[str, str], list[price_data.Listed]] = {}
    for key, group in groupby(price_data.listed(), key=lambda one: (one.vendor, one.model)):
        wanted = list(group)
        found.setdefault(key, wanted)
    return found


def _planned(listed: dict[tuple[str, str], list[price_data.Listed]], at: datetime) -> _Plan:
    """What the table lacks. For writing, `audit.lock` is held: every change of a price waits for it."""
    ours: defaultdict[tuple[str, str], list[Price]] = defaultdict(list)
    for price in Price.objects.filter(source=CATALOGUE):
        ours[price.vendor, price.model].append(price)
    plan = _Plan([], [], [])
    for key, wanted in listed.items():
        known = ours[key]
        added, cancelled = _difference(known, wanted, at)
        plan.new.extend(added)
        plan.stale.extend(price.id for price in cancelled)
        before = current(known, at)
        rates = before.rates if before else None
        plan.changes.extend(Change(*key, price.effective_from, rates, price.rates) for price in added)
    return plan


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
