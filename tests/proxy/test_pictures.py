"""What one snapshot takes over from the one before: models and prices, for as long as nothing changed them."""

from __future__ import annotations

import re
from collections.abc import Callable
from uuid import UUID

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from conduit.core.actor import SYSTEM
from conduit.core.models import Epoch
from conduit.proxy.snapshot import Pictures
from providers.models import CatalogueModel, CatalogueVendor, Route
from usage.models import Price
from usage.overrides import set_price

pytestmark = pytest.mark.django_db
TABLE = re.compile(r'FROM "(\w+)"')
KEPT = {"usage_price", "providers_cataloguemodel", "providers_cataloguevendor"}


def drawn(pictures: Pictures) -> set[str]:
    """The tables that were read for it."""
    with CaptureQueriesContext(connection) as queries:
        pictures.load()
    return {table for query in queries.captured_queries for table in TABLE.findall(query["sql"])}


def add_model() -> None:
    CatalogueModel.objects.create(vendor="acme", name="acme-1", match={"equals": "acme-1"})


def add_vendor() -> None:
    CatalogueVendor.objects.create(name="acme", fallbacks=["openai"])


def add_price() -> None:
    set_price("acme-1", actor=SYSTEM, rates={"input": "1"})


@pytest.mark.parametrize("change", [add_model, add_vendor, add_price])
def test_models_and_prices_are_read_again_when_one_of_them_changed(change: Callable[[], None]) -> None:
    pictures = Pictures()
    assert drawn(pictures) >= KEPT
    assert drawn(pictures) & KEPT == set()
    change()
    assert drawn(pictures) >= KEPT
    assert drawn(pictures) & KEPT == set()


def test_a_changed_route_is_read_without_them() -> None:
    pictures = Pictures()
    pictures.load()
    Route.objects.create(name="acme-chat")
    pictures.load()
    before = Epoch.objects.get()
    Route.objects.update(strict=True)
    assert pictures.load().routing.routes["acme-chat"].strict
    assert "providers_route" in (read := drawn(pictures))
    assert read & KEPT == set()
    after = Epoch.objects.get()
    assert (after.catalogue, after.snapshot) == (before.catalogue, before.snapshot + 1)


def test_every_change_of_what_is_kept_moves_its_epoch() -> None:
    """By the database itself, whoever changes it and however."""
    before = Epoch.objects.get().catalogue
    add_model()
    add_vendor()
    add_price()
    assert Epoch.objects.get().catalogue == before + 3
    CatalogueModel.objects.filter(name="acme-1").update(context_window=7)
    CatalogueVendor.objects.filter(name="acme").update(fallbacks=[])
    Price.objects.filter(model="acme-1").update(provider_id=UUID(int=1))
    assert Epoch.objects.get().catalogue == before + 6
    for model in (CatalogueModel, CatalogueVendor, Price):
        model.objects.all()._raw_delete("default")
    assert Epoch.objects.get().catalogue == before + 9
