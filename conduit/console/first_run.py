"""The first start: what an empty installation is given, and the page that watches the first request land."""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from conduit.access.models import Role, User
from conduit.access.pages import page
from conduit.access.users import create_user
from conduit.console import snippets
from conduit.core import audit, clock
from conduit.core.actor import SYSTEM, Actor
from conduit.core.errors import NotFound
from conduit.core.secret import Secret
from keys.budgets import BudgetSpec
from keys.issuing import create_key
from keys.models import KeyState, VirtualKey
from providers import catalogue_sync
from providers.adapters.registry import KINDS
from providers.credentials import add_credential
from providers.models import Credential, Provider, Route
from providers.providers import SANDBOX, add_provider
from providers.routes import add_route
from providers.sandbox.prices import PRICES
from usage import log, pricing

ADMINISTRATOR = "admin@conduit.local"
FIRST_MODEL = "sandbox-echo"
FIRST_KEY = "first-key"
DOLLAR = 1_000_000_000
WATCHED = timedelta(minutes=10)
SHOWN = 3


def bootstrap() -> list[str]:
    """Lines for `conduit up` to print; nothing but the console's address once somebody can sign in.

    All in one transaction: a start that was cut short leaves nothing, and the next one prints anew.
    """
    lines = [f"console: {_console_url()}/"]
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(hashtext('conduit first run'))")
        if User.objects.exists():
            _follow_sandbox()
            return lines
        catalogue_sync.sync_models()
        pricing.sync_prices()
        user, password = create_user(actor=SYSTEM, email=ADMINISTRATOR, role=Role.OWNER, name="Administrator")
        lines += [f"administrator: {user.email}", f"password: {password.reveal()}"]
        if settings.CONDUIT_SANDBOX:
            lines += _sandbox()
    return lines


def _console_url() -> str:
    host = settings.CONDUIT_HOST
    reached = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{reached}:{settings.CONDUIT_PORT}"


def _sandbox() -> list[str]:
    """The sandbox provider with its routes and a key with a dollar a day. Not verified: it starts after this."""
    provider = add_provider(actor=SYSTEM, name=SANDBOX, kind=SANDBOX, base_url=f"{settings.SANDBOX_URL}/v1")
    secret = Secret(f"sk-sandbox-{secrets.token_urlsafe(24)}")
    add_credential(provider, actor=SYSTEM, name="main", fields={"api_key": secret}, verify=False)
    for model in PRICES:
        add_route(actor=SYSTEM, name=model, targets=[{"provider": provider.name, "model": model}])
    _, raw = create_key(actor=SYSTEM, name=FIRST_KEY, budgets=[BudgetSpec(DOLLAR, window="day")])
    call = snippets.curl(_console_url(), FIRST_MODEL, raw.reveal()).replace(" \\\n ", "")
    return [f"key: {raw.reveal()}", call]


def _follow_sandbox() -> None:
    """The sandbox's port may have changed with CONDUIT_PORT. Only its own made-up secret is ever sent there."""
    url = f"{settings.SANDBOX_URL}/v1"
    for provider in Provider.objects.filter(kind=SANDBOX).exclude(base_url=url):
        before, provider.base_url = provider.base_url, url
        provider.save(update_fields=["base_url", "updated_at"])
        audit.record(
            actor=SYSTEM,
            action="provider.update",
            kind="provider",
            id=provider.id,
            name=provider.name,
            before={"base_url": before},
            after={"base_url": url},
        )


@page("keys", write=True)
def first_run(request: HttpRequest, actor: Actor) -> HttpResponse:
    """Provider, test, key, call: each step is done when the database says so."""
    model = _model()
    steps = _steps(actor)
    next_step = next((step for step in steps[:3] if not step["done"]), None)
    context: dict[str, Any] = {
        "crumbs": [{"title": "First request"}],
        "sandbox": settings.CONDUIT_SANDBOX,
        "steps": steps,
        "snippets": snippets.without_secret(snippets.address(request), model) if next_step is None else [],
        "next": next_step,
        "since": str(int((clock.now() - WATCHED).timestamp())),
        "seen": _seen(actor, WATCHED),
        "kind_titles": ", ".join(row.title for row in KINDS.values() if row.kind != SANDBOX),
    }
    return render(request, "console/first_run.html", context)


def _model() -> str:
    names = Route.objects.filter(enabled=True).order_by("name").values_list("name", flat=True)
    return FIRST_MODEL if FIRST_MODEL in names else names.first() or "MODEL"


def _steps(actor: Actor) -> list[dict[str, Any]]:
    provider = Provider.objects.filter(enabled=True).order_by("created_at").first()
    tested = (
        Credential.objects.filter(enabled=True, last_verified_at__isnull=False).order_by("-last_verified_at").first()
    )
    key = VirtualKey.objects.filter(state=KeyState.ACTIVE).order_by("-id").first()
    called = any(row.outcome == "ok" for row in _seen(actor, WATCHED))
    steps: list[dict[str, Any]] = [
        {
            "title": "Provider",
            "done": provider is not None,
            "words": f"{provider.name}, ready" if provider else "whom Conduit shall call",
            "url": reverse("provider-create"),
            "button": "Add a provider",
        },
        {
            "title": "Test",
            "done": tested is not None or called,
            "words": "the credential was accepted" if tested or called else "one real call",
            "url": reverse("provider-detail", args=[provider.id]) if provider else reverse("provider-create"),
            "button": "Test the credential",
        },
        {
            "title": "Key",
            "done": key is not None,
            "words": key.name if key else "who calls, and how much",
            "url": reverse("key-create"),
            "button": "Create a key",
        },
        {"title": "Call", "done": called, "words": "it landed" if called else "paste and run", "url": "", "button": ""},
    ]
    current = next((step for step in steps if not step["done"]), None)
    for step in steps:
        step["current"] = step is current
    return steps


def _seen(actor: Actor, back: timedelta) -> list[log.Row]:
    return log.page(actor, log.Filters(clock.now() - back), limit=SHOWN).rows


@page("requests")
def watch(request: HttpRequest, actor: Actor) -> HttpResponse:
    """The newest requests since the page was opened, asked for every second."""
    since = request.GET.get("since", "")
    if not since.isdigit() or len(since) > 11:
        raise NotFound("")
    back = clock.now() - clock.now().fromtimestamp(int(since), tz=clock.now().tzinfo)
    return render(request, "console/watch.html", {"seen": _seen(actor, back)})
