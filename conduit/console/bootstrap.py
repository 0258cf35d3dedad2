"""What an empty installation is given on its first start. Runs once, before the web processes, which never load it:
the price data it reads takes tens of megabytes."""

from __future__ import annotations

import secrets

from django.conf import settings
from django.db import connection, transaction

from conduit.access.models import Role, User
from conduit.access.users import create_user
from conduit.console import snippets
from conduit.core import audit
from conduit.core.actor import SYSTEM
from conduit.core.secret import Secret
from keys.budget_specs import BudgetSpec
from keys.issuing import create_key
from providers import catalogue_sync
from providers.credentials import add_credential
from providers.models import Provider
from providers.providers import SANDBOX, add_provider
from providers.routes import add_route
from usage.price_sync import sync_prices

ADMINISTRATOR = "admin@conduit.local"
FIRST_KEY = "first-key"
DOLLAR = 1_000_000_000
MODELS = (
    "sandbox-echo",
    "sandbox-lorem",
    "sandbox-dear",
    "sandbox-tools",
    "sandbox-think",
    "sandbox-json",
    "sandbox-embed",
)


def bootstrap() -> list[str]:
    """Lines for `conduit up` to print; nothing but the console's address once somebody can sign in.

    All in one transaction: a start that was cut short leaves nothing, and the next one prints anew.
    """
    lines = [f"console: {_console_url()}"]
    with transaction.atomic():
        audit.lock()
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(hashtext('conduit first run'))")
        if User.objects.exists():
            _follow_sandbox()
            return lines
        catalogue_sync.sync_models()
        sync_prices()
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
    for model in MODELS:
        add_route(actor=SYSTEM, name=model, targets=[{"provider": provider.name, "model": model}])
    _, raw = create_key(actor=SYSTEM, name=FIRST_KEY, budgets=[BudgetSpec(DOLLAR, window="day")])
    call = snippets.curl(_console_url(), snippets.FIRST_MODEL, raw.reveal()).replace(" \\\n ", "")
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
