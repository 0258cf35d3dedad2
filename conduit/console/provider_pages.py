"""Pages that join providers with usage: the list and one provider. Forms and acts are in providers/views.py."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from conduit.access.pages import page
from conduit.console import rate_rows, target_rows
from conduit.console.budget_rows import Meter, meter_of
from conduit.console.spans import month_name, month_start, today
from conduit.core import clock, wording
from conduit.core.actor import Actor
from conduit.core.errors import NotFound
from keys.budgets import current
from keys.entries import RateScope
from keys.models import OwnerKind
from providers import catalogue, credentials, patterns
from providers.adapters.registry import KINDS
from providers.models import Credential, Provider, Target
from providers.views import credential_rows
from usage import figures, log, pricing
from usage.rates import Rates
from usage.sums import Sums


@dataclass(frozen=True, slots=True)
class Row:
    """One provider with its last hour. `cost` belongs to the page's range."""

    provider: Provider
    kind_title: str
    host: str
    state: str
    minutes: list[dict[str, int]]
    attempts: int
    errors: int
    cost: int
    month_cost: int
    credentials: int
    targets: int

    @property
    def per_minute(self) -> str:
        return f"{self.attempts / 60:.1f}"

    @property
    def words(self) -> str:
        return f"{wording.plural(self.attempts, 'attempt')}, {self.errors:,} failed in the last 60 minutes"


def state_of(provider: Provider, own: list[Credential]) -> str:
    """off | none | unreadable | failing | ok: whether the provider can be called at all."""
    enabled = [credential for credential in own if credential.enabled]
    if not provider.enabled:
        return "off"
    if not enabled:
        return "none"
    health = {credentials.health(credential) for credential in enabled}
    if "unreadable" in health:
        return "unreadable"
    return "failing" if health <= {"failing", "expired", "disabled", "revoked"} else "ok"


def rows(actor: Actor, at: datetime, since: datetime) -> list[Row]:
    """Every provider by name."""
    found = list(Provider.objects.prefetch_related("credentials__versions__fields", "targets").order_by("name"))
    minutes = figures.minutes(at, [provider.id for provider in found])
    spent = figures.totals_by(actor, "provider_id", since)
    month = figures.totals_by(actor, "provider_id", month_start(at))
    none = Sums()
    return [
        Row(
            provider=provider,
            kind_title=KINDS[provider.kind].title if provider.kind in KINDS else provider.kind,
            host=_host(provider),
            state=state_of(provider, _with_provider(provider)),
            minutes=minutes[provider.id],
            attempts=sum(minute["requests"] for minute in minutes[provider.id]),
            errors=sum(minute["errors"] for minute in minutes[provider.id]),
            cost=spent.get(provider.id, none).cost,
            month_cost=month.get(provider.id, none).cost,
            credentials=len(provider.credentials.all()),
            targets=len(provider.targets.all()),
        )
        for provider in found
    ]


def _with_provider(provider: Provider) -> list[Credential]:
    own = list(provider.credentials.all())
    for credential in own:
        credential.provider = provider
    return own


def _host(provider: Provider) -> str:
    url = provider.base_url or (KINDS[provider.kind].base_url if provider.kind in KINDS else "")
    return urlsplit(url).netloc


@page("providers")
def provider_list(request: HttpRequest, actor: Actor) -> HttpResponse:
    at = clock.now()
    found = rows(actor, at, month_start(at))
    context = {
        "crumbs": [{"title": "Providers"}],
        "rows": found,
        "month": month_name(at),
        "digits": wording.digits_for(row.month_cost for row in found),
        "total_cost": sum(row.month_cost for row in found),
    }
    return render(request, "providers/list.html", context)


@page("providers")
def provider_detail(request: HttpRequest, actor: Actor, provider_id: UUID) -> HttpResponse:
    at = clock.now()
    row = next((row for row in rows(actor, at, today(at)) if row.provider.id == provider_id), None)
    if row is None:
        raise NotFound("")
    own = credential_rows(_with_provider(row.provider), at)
    context = {
        "crumbs": [{"title": "Providers", "url": reverse("providers")}, {"title": row.provider.name}],
        "provider": row.provider,
        "row": row,
        "month": month_name(at),
        "today": figures.total(actor, today(at), provider_id=provider_id),
        "month_total": figures.total(actor, month_start(at), provider_id=provider_id),
        "targets": _targets(row.provider, at),
        "credentials": own,
        "sees_budgets": actor.teams is None,
        "budgets": _meters(actor, row.provider, at),
        "rates_now": rate_rows.rows([rate_scope(row.provider)]),
        "problems": [
            {"title": f"Credential {one['credential'].name} cannot be opened", "detail": one["unreadable"]}
            for one in own
            if one["unreadable"]
        ]
        + target_rows.problems(provider_id),
        "latest": log.page(actor, log.Filters(at - timedelta(days=31), provider=provider_id), limit=8).rows,
    }
    return render(request, "providers/detail.html", context)


def _meters(actor: Actor, provider: Provider, at: datetime) -> list[Meter]:
    """Nothing for those narrowed to teams: it is what all teams spend."""
    if actor.teams is not None:
        return []
    return [meter_of(state, provider.name) for state in current(OwnerKind.PROVIDER, provider.id, at)]


def rate_scope(provider: Provider) -> RateScope:
    return RateScope("provider", provider.id, provider.name, provider.rpm, provider.tpm, provider.max_parallel)


PER_MILLION = {"input": "in", "output": "out", "cache_read": "cached"}


def _price_words(rates: Rates) -> str:
    """`$0.15 in, $0.60 out per 1M`, `$0.01 per image`: what is charged at the lowest tier."""
    tokens = [f"{wording.rate(rates[unit][0][1])} {word}" for unit, word in PER_MILLION.items() if unit in rates]
    single = [
        f"{wording.rate(tiers[0][1] // 1_000_000)} per {unit}"
        for unit, tiers in rates.items()
        if unit in ("request", "image", "second", "character", "search")
    ]
    return ", ".join([f"{', '.join(tokens)} per 1M tokens", *single] if tokens else single)


def _targets(provider: Provider, at: datetime) -> list[dict[str, Any]]:
    """The provider's places in routes, with the price in force."""
    targets = list(Target.objects.filter(provider=provider).select_related("route").order_by("route__name", "position"))
    if not targets:
        return []
    book = pricing.load_book(catalogue.matcher().names)
    kind = KINDS.get(provider.kind)
    found = []
    for target in targets:
        price = book.find(
            vendor=kind.price_provider if kind else "",
            model=target.model,
            known_as=kind.known_as(target.model, provider.options) if kind else "",
            provider_id=provider.id,
            at=at,
        )
        found.append(
            {
                "model": target.model,
                "route": target.route,
                "priority": target.priority,
                "weight": target.weight,
                "by_model": patterns.is_pattern(target.model),
                "price": _price_words(price.rates) if price else "",
            }
        )
    return found
