"""The command palette: pages and actions by word, keys by name or ending, requests by id.

Asked by POST, because somebody may paste a whole key: it must not end up in an address, a history or a log. A pasted
key is looked up by the public id in it, after its checksum; it is never shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from conduit.access.pages import page
from conduit.access.permissions import may, names_only, scope
from conduit.console import navigation
from conduit.console.key_pages import masked
from conduit.core import raw_keys
from conduit.core.actor import Actor
from keys.models import VirtualKey
from usage import log

MOST_KEYS = 6


@dataclass(frozen=True, slots=True)
class Action:
    title: str
    name: str
    icon: str
    resource: str


ACTIONS = (
    Action("Create key", "key-create", "plus", "keys"),
    Action("Leaked key?", "key-leak", "shield-lock", "keys"),
    Action("Review stale keys", "key-review", "filter", "keys"),
    Action("Add provider", "provider-create", "plus", "providers"),
    Action("Add credential", "credential-create", "plus", "credentials"),
    Action("Rotate a credential", "credentials", "rotate", "credentials"),
    Action("Create route", "route-create", "plus", "routes"),
    Action("Raise a budget for a while", "budget-raise", "arrow-up", "budgets"),
)
Option = dict[str, Any]


def _option(title: str, url: str, icon: str, detail: str = "") -> Option:
    return {"title": title, "url": url, "icon": icon, "detail": detail}


@page("usage", methods=("POST",))
def palette(request: HttpRequest, actor: Actor) -> HttpResponse:
    text = request.POST.get("q", "").strip()[:200]
    found = [
        ("Requests", _requests(actor, text)),
        ("Keys", _keys(actor, text)),
        ("Actions", _actions(actor, text)),
        ("Pages", _pages(actor, text)),
    ]
    groups, number = [], 0
    for title, options in found:
        for option in options:
            number += 1
            option["number"] = number
        if options:
            groups.append({"title": title, "options": options})
    return render(request, "console/palette.html", {"groups": groups})


def _requests(actor: Actor, text: str) -> list[Option]:
    if len(text) < 8 or not may(actor, "requests", write=False) or not log.exists(actor, text):
        return []
    return [_option("Request", reverse("request-detail", args=[text]), "list-details", text)]


def _keys(actor: Actor, text: str) -> list[Option]:
    if not text or not may(actor, "keys", write=False):
        return []
    public_id = raw_keys.public_id(raw_keys.VIRTUAL_KEY, text)
    if public_id:
        wanted = Q(secrets__public_id=public_id)
    else:
        wanted = Q(name__icontains=text) | Q(secrets__last_four=text) | Q(secrets__public_id=text)
    keys = scope(VirtualKey.objects.prefetch_related("secrets"), actor).filter(wanted).distinct().order_by("-id")
    return [
        _option(
            key.name,
            reverse("key-detail", args=[key.id]),
            "key",
            "" if names_only(actor) else masked(list(key.secrets.all())),
        )
        for key in keys[:MOST_KEYS]
    ]


def _actions(actor: Actor, text: str) -> list[Option]:
    return [
        _option(action.title, reverse(action.name), action.icon)
        for action in ACTIONS
        if text.lower() in action.title.lower() and may(actor, action.resource, write=True)
    ]


def _pages(actor: Actor, text: str) -> list[Option]:
    return [
        _option(entry.title, entry.url, entry.icon)
        for group in navigation.shown(actor, "")
        for entry in group.entries
        if text.lower() in entry.title.lower()
    ]
