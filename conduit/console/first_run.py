"""The page that leads to the first request and watches it land."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from conduit.access.pages import page
from conduit.console import snippets
from conduit.core import clock
from conduit.core.actor import Actor
from conduit.core.errors import NotFound
from keys.models import KeyState, VirtualKey
from providers.adapters.registry import KINDS
from providers.models import Credential, Provider
from providers.providers import SANDBOX
from providers.routes import callable_names
from usage import log

WATCHED = timedelta(minutes=10)
SHOWN = 3


@page("keys", write=True)
def first_run(request: HttpRequest, actor: Actor) -> HttpResponse:
    """Provider, test, key, call: each step is done when the database says so."""
    model = _model()
    steps = _steps(actor)
    # The call itself tests the credential too, so the test holds nobody up.
    next_step = next((step for step in (steps[0], steps[2]) if not step["done"]), None)
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
    names = callable_names()
    return snippets.FIRST_MODEL if snippets.FIRST_MODEL in names else next(iter(names), "MODEL")


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
    ready = provider is not None and key is not None
    current = next((step for step in (steps[3:] if ready else steps) if not step["done"]), None)
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
