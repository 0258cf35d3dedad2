"""Management API: the catalogue of models with their prices (contract 4). Here, because prices are this app's."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, ClassVar

from django.db import transaction
from django.db.models import Q
from rest_framework.request import Request
from rest_framework.response import Response

from conduit.core import clock
from conduit.core.api import ResourceView, actor_of, described, page, parsed
from providers import catalogue_overrides
from providers.models import CatalogueModel
from providers.representations import ModelChanges, ModelOutput, model_body
from usage import overrides
from usage.models import Price
from usage.pricing import OVERRIDE, current
from usage.representations import PriceOutput


class PricedModelOutput(ModelOutput):
    prices = PriceOutput(many=True)


def prices_in_force(models: Iterable[tuple[str, str]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """(vendor, name) to the prices in force now: overrides, for all providers or for one, before the price list's."""
    wanted = set(models)
    names = {name for _, name in wanted}
    rows = Price.objects.filter(Q(source=OVERRIDE) | Q(vendor__in={vendor for vendor, _ in wanted}), model__in=names)
    series: defaultdict[tuple[str, str, str, str], list[Price]] = defaultdict(list)
    for row in rows.order_by("-source", "provider_id", "effective_from"):
        series[row.source, row.vendor, str(row.provider_id), row.model].append(row)
    at = clock.now()
    found: dict[tuple[str, str], list[dict[str, Any]]] = {key: [] for key in wanted}
    for (source, vendor, _, model), dated in series.items():
        price = current(dated, at)
        if price is None:
            continue
        for key in [key for key in wanted if key[1] == model and (source == OVERRIDE or key[0] == vendor)]:
            found[key].append(overrides.outward(price))
    return found


def _priced(row: CatalogueModel) -> dict[str, Any]:
    key = (row.vendor, row.name)
    return {**model_body(row), "prices": prices_in_force([key])[key]}


class Models(ResourceView):
    resource = "models"
    query: ClassVar[frozenset[str]] = frozenset({"vendor", "name"})

    @described(
        "List the catalogue of models, each with its prices in force",
        response=PricedModelOutput,
        many=True,
        query={"vendor": "only of this vendor", "name": "only names that contain this"},
    )
    def get(self, request: Request) -> Response:
        rows = CatalogueModel.objects.all()
        if vendor := request.query_params.get("vendor"):
            rows = rows.filter(vendor=vendor)
        if name := request.query_params.get("name"):
            rows = rows.filter(name__icontains=name)
        answer = page(request, rows, serialize=model_body, key=("vendor", "name"))
        bodies = answer.data["data"]
        prices = prices_in_force([(body["vendor"], body["name"]) for body in bodies])
        for body in bodies:
            body["prices"] = prices[body["vendor"], body["name"]]
        return answer


class OneModel(ResourceView):
    resource = "models"

    @described("Read a model of the catalogue", response=PricedModelOutput)
    def get(self, request: Request, id: str) -> Response:  # noqa: A002  # the contract's name
        return self.one(_priced(catalogue_overrides.find(id)))

    @described(
        "Change what is known of a model; a sync leaves it alone until `source` is catalogue again",
        request=ModelChanges,
        response=PricedModelOutput,
    )
    def patch(self, request: Request, id: str) -> Response:  # noqa: A002
        changes = parsed(ModelChanges, request, partial=True)
        with transaction.atomic():
            row = catalogue_overrides.locked(catalogue_overrides.find(id))
            self.check_match(_priced(row))
            row = catalogue_overrides.update_model(row, actor=actor_of(request), changes=changes)
        return self.one(_priced(row))
