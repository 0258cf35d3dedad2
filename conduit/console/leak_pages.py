"""Pages of leak response: what a pasted text holds, what the key in it opens, and a fresh secret with one button."""

from __future__ import annotations

from contextlib import suppress
from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from conduit.access.errors import CountingUnavailable
from conduit.access.pace import demand_pace
from conduit.access.pages import page
from conduit.access.permissions import demand_scope, in_scope, may, names_only
from conduit.console import snippets
from conduit.console.budget_rows import meter_of
from conduit.console.key_life import expected
from conduit.core import clock
from conduit.core.actor import Actor
from conduit.core.errors import InvalidInput, NotFound
from conduit.core.problems import TooMany
from keys.models import KeyState, VirtualKey
from keys.rotation import replace_secret
from usage import leaks
from usage.blast_radius import blast_radius
from usage.leaks import Found
from usage.leaks_api import PACE

MOST_SHOWN = 5
TITLES = {
    "virtual_key": "Virtual key",
    "management_token": "Management token",
    "provider_secret": "Provider secret",
}


@page("keys", methods=("GET", "HEAD", "POST"))
def key_leak(request: HttpRequest, actor: Actor) -> HttpResponse:
    """The pasted text comes by POST and never back: only public ids and hints are shown."""
    context: dict[str, Any] = {
        "crumbs": [{"title": "Keys", "url": reverse("keys")}, {"title": "Leaked key?"}],
        "same_as": _same_as(request),
    }
    if request.method != "POST":
        return render(request, "keys/leak.html", context)
    try:
        with suppress(CountingUnavailable):  # the person is known; a leak is answered although Valkey is away
            demand_pace(request, group="identify", value=actor.reference, rate=PACE)
        found = leaks.identify(request.POST.get("text", ""), actor=actor)
    except InvalidInput as error:
        return render(request, "keys/leak.html", {**context, "problem": error.detail}, status=422)
    except TooMany as error:
        answer = render(request, "keys/leak.html", {**context, "problem": str(error)}, status=429)
        answer["Retry-After"] = str(error.retry_after)
        return answer
    context |= {
        "asked": True,
        "found": [{"one": one, "title": TITLES[one.kind], "url": _url(actor, one)} for one in found],
        "radii": _radii(actor, found),
    }
    return render(request, "keys/leak.html", context)


def _url(actor: Actor, found: Found) -> str:
    if found.owner is None:
        return ""
    if found.kind == "virtual_key":
        return reverse("key-detail", args=[found.owner.id])
    if found.kind == "provider_secret" and may(actor, "credentials", write=False):
        return reverse("credentials")
    return ""


def _radii(actor: Actor, found: list[Found]) -> list[dict[str, Any]]:
    """Of the keys that may be seen whole, each once; the first few."""
    if names_only(actor):
        return []
    ids = list(dict.fromkeys(one.owner.id for one in found if one.kind == "virtual_key" and one.owner))[:MOST_SHOWN]
    keys = {str(key.id): key for key in VirtualKey.objects.select_related("team").filter(id__in=ids)}
    return [_radius(actor, keys[ident]) for ident in ids if ident in keys]


def _radius(actor: Actor, key: VirtualKey) -> dict[str, Any]:
    radius, at = blast_radius(key, actor=actor), clock.now()
    expired = bool(key.expires_at and key.expires_at <= at)
    changeable = may(actor, "keys", write=True) and in_scope(actor, key.team_id)
    return {
        "key": key,
        "radius": radius,
        "expired": expired,
        "meters": [meter_of(state, name) for name, state in radius.reach.budgets],
        "newest": key.secrets.order_by("-number").values_list("number", flat=True).first(),
        "may_replace": changeable and key.state != KeyState.REVOKED and not expired,
    }


@page("keys", write=True, methods=("POST",))
def key_replace(request: HttpRequest, actor: Actor, key_id: UUID) -> HttpResponse:
    """Answers with the one page that shows the new secret."""
    key = VirtualKey.objects.select_related("team").filter(id=key_id).first()
    if key is None:
        raise NotFound("")
    demand_scope(actor, key.team_id)
    key, raw = replace_secret(key, actor=actor, expected=expected(request))
    model = next((name for name in key.allowed_models if "*" not in name), "MODEL")
    context = {
        "crumbs": [{"title": "Keys", "url": reverse("keys")}, {"title": key.name}],
        "key": key,
        "raw": raw.reveal(),
        "snippets": snippets.with_secret(snippets.address(request), model, raw.reveal()),
    }
    return render(request, "keys/replaced.html", context)


def _same_as(request: HttpRequest) -> list[dict[str, str]]:
    curl = (
        f"curl {snippets.address(request)}/api/v1/keys/identify \\\n"
        '  -H "Authorization: Bearer $CONDUIT_TOKEN" \\\n'
        '  -H "Content-Type: application/json" \\\n'
        "  -d @found.json"
    )
    return [
        {"ident": "1", "title": "conduit", "text": "conduit keys identify < found.txt\nconduit secrets scan ."},
        {"ident": "2", "title": "curl", "text": curl},
    ]
