"""Brings the model catalogue up to the installed price data. Apart from catalogue.py, because the data is large: web
processes never import it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from django.db import transaction
from genai_prices import data as price_data
from genai_prices import types as price_types

from conduit.core import audit
from conduit.core.actor import SYSTEM, Actor
from providers.catalogue import CATALOGUE, OVERRIDE
from providers.models import CatalogueModel, CatalogueVendor
from providers.sandbox.prices import PRICES as SANDBOX_MODELS

SANDBOX_VENDOR = "sandbox"
SANDBOX_CONTEXT = 128_000
_COLUMNS = ("title", "match", "position", "context_window", "deprecated")


@dataclass(frozen=True, slots=True)
class Synced:
    """How many rows a sync added, changed, and marked deprecated because the data no longer has them."""

    added: int
    changed: int
    retired: int


@dataclass(frozen=True, slots=True)
class _Known:
    """One model as the data has it: the columns that a sync writes."""

    title: str
    match: dict[str, Any] = field(default_factory=dict)
    position: int = 0
    context_window: int | None = None
    deprecated: bool = False


def _expression(clause: Any) -> dict[str, Any]:
    """A match clause of the price data as plain JSON."""
    if isinstance(clause, price_types.ClauseOr):
        return {"or": [_expression(part) for part in clause.or_]}
    if isinstance(clause, price_types.ClauseAnd):
        return {"and": [_expression(part) for part in clause.and_]}
    return asdict(clause)


def _from_data() -> dict[tuple[str, str], _Known]:
    known = {
        (vendor.id, model.id): _Known(
            title=(model.name or model.id)[:200],
            match=_expression(model.match),
            position=position,
            context_window=model.context_window,
            deprecated=bool(model.deprecated),
        )
        for vendor in price_data.providers
        for position, model in enumerate(vendor.models)
    }
    for position, name in enumerate(SANDBOX_MODELS):
        known[SANDBOX_VENDOR, name] = _Known(name, {"equals": name}, position, SANDBOX_CONTEXT)
    return known


def _sync_vendors() -> None:
    known = {vendor.id: list(vendor.fallback_model_providers or ()) for vendor in price_data.providers}
    known = {name: fallbacks for name, fallbacks in known.items() if fallbacks}
    if known == {row.name: row.fallbacks for row in CatalogueVendor.objects.all()}:
        return
    CatalogueVendor.objects.all().delete()
    CatalogueVendor.objects.bulk_create(CatalogueVendor(name=name, fallbacks=known[name]) for name in known)


def sync_models(*, actor: Actor = SYSTEM) -> Synced:
    """Brings the catalogue up to the installed data, in one transaction. Writes nothing when nothing differs."""
    known = _from_data()
    with transaction.atomic():
        audit.lock()
        _sync_vendors()
        rows = {(row.vendor, row.name): row for row in CatalogueModel.objects.select_for_update()}
        fresh = [
            CatalogueModel(vendor=vendor, name=name, source=CATALOGUE, **asdict(entry))
            for (vendor, name), entry in known.items()
            if (vendor, name) not in rows
        ]
        changed, retired = [], []
        for key, row in rows.items():
            if row.source == OVERRIDE:
                continue
            entry = known.get(key)
            if entry is None and not row.deprecated:
                row.deprecated = True
                retired.append(row)
            elif entry is not None and any(getattr(row, name) != getattr(entry, name) for name in _COLUMNS):
                for name in _COLUMNS:
                    setattr(row, name, getattr(entry, name))
                changed.append(row)
        result = Synced(len(fresh), len(changed), len(retired))
        if fresh:
            CatalogueModel.objects.bulk_create(fresh, batch_size=1000, ignore_conflicts=True)
        if changed or retired:
            CatalogueModel.objects.bulk_update([*changed, *retired], _COLUMNS, batch_size=500)
        if any(asdict(result).values()):
            audit.record(actor=actor, action="catalogue.sync", kind="catalogue", id="models", after=asdict(result))
    return result
