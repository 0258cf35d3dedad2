"""The form of a provider's budgets and rate limits."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from conduit.access.pages import go, page
from conduit.console import budget_form
from conduit.core.actor import Actor
from conduit.core.errors import InvalidInput, NotFound
from keys.budgets import current
from keys.models import OwnerKind
from providers.models import Provider
from providers.providers import LIMITS, locked, update_provider

LABELS = {
    "rpm": "Requests / min",
    "tpm": "Tokens / min",
    "max_parallel": "Parallel",
    "budget-0": "Limit",
    "budget-1": "Second limit",
    "budget-2": "Third limit",
}


@page("providers", write=True, methods=("GET", "HEAD", "POST"))
def provider_limits(request: HttpRequest, actor: Actor, provider_id: UUID) -> HttpResponse:
    """Sent rightly it leads to the provider, sent wrongly it answers with itself (422) and nothing is saved."""
    provider = Provider.objects.filter(id=provider_id).first()
    if provider is None:
        raise NotFound("")
    present = current(OwnerKind.PROVIDER, provider.id)
    context: dict[str, Any] = {
        "crumbs": [
            {"title": "Providers", "url": reverse("providers")},
            {"title": provider.name, "url": reverse("provider-detail", args=[provider.id])},
            {"title": "Limits"},
        ],
        "provider": provider,
        "windows": budget_form.WINDOWS,
        "labels": LABELS,
        "errors": {},
        "values": {name: _text(getattr(provider, name)) for name in LIMITS},
        "budgets": [*budget_form.rows_of(present), budget_form.blank_row(len(present))],
    }
    if request.method != "POST":
        return render(request, "providers/limits.html", context)
    context["values"] = {name: request.POST.get(name, "").strip()[:40] for name in LIMITS}
    context["budgets"] = rows = budget_form.typed_rows(request.POST)
    try:
        with transaction.atomic():
            provider = locked(provider)  # what the form does not show is kept as it is now, not as it was shown
            read = budget_form.read(rows, current(OwnerKind.PROVIDER, provider.id))
            limits = {name: _number(name, text) for name, text in context["values"].items()}
            if not read.errors:
                update_provider(provider, actor=actor, changes={**limits, "budgets": read.items})
    except InvalidInput as error:
        context["errors"] = {error.field: error.detail}
        return render(request, "providers/limits.html", context, status=422)
    if read.errors:
        context["errors"] = read.errors
        return render(request, "providers/limits.html", context, status=422)
    messages.success(request, f"The limits of {provider.name} are in effect.")
    return go(request, reverse("provider-detail", args=[provider.id]))


def _text(limit: int | None) -> str:
    return "" if limit is None else str(limit)


def _number(name: str, text: str) -> int | None:
    """None for an empty field: no limit. Raises InvalidInput naming the field."""
    plain = budget_form.plain_amount(text)
    if not plain:
        return None
    if not plain.isascii() or not plain.isdigit() or len(plain) > 18:
        raise InvalidInput(name, "Must be a whole number.", "invalid_number")
    return int(plain)
