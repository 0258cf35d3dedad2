"""The page that changes an existing key: the form that creates one, filled with what the key is now."""

from __future__ import annotations

import json
import shlex
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from conduit.access.pages import go, page
from conduit.access.permissions import in_scope
from conduit.console import key_form, snippets
from conduit.console.key_form import KeyForm
from conduit.console.key_pages import SHOWN_ROUTES, form_context
from conduit.core.actor import Actor
from conduit.core.errors import Conflict, InvalidInput
from keys.api import find_key
from keys.issuing import check_live, terms, update_key
from keys.models import VirtualKey
from providers.models import Route

SHOWN_AS_CURL = (
    "name",
    "models",
    "endpoints",
    "rpm",
    "tpm",
    "max_parallel",
    "max_output_tokens",
    "ip_allowlist",
    "tags",
)


@page("keys", write=True, methods=("GET", "HEAD", "POST"))
def key_edit(request: HttpRequest, actor: Actor, key_id: UUID) -> HttpResponse:
    """Sent wrongly it answers with itself (422). What somebody else changed meanwhile is not overwritten (409)."""
    if request.method != "POST":
        key = find_key(actor, key_id)
        check_live(key)
        return render(request, "keys/edit.html", _context(request, actor, key, _shown(actor, key)))
    form = key_form.read(request.POST)
    with transaction.atomic():
        key = find_key(actor, key_id, lock=True)
        if request.POST.get("seen") != key.updated_at.isoformat():
            raise Conflict("Somebody changed this key meanwhile. Open the form again. Nothing was changed.")
        changes = key_form.changes(form, _shown(actor, key))
        try:
            if not form.errors:
                return _changed(request, actor, key, changes)
        except InvalidInput as error:
            form.errors[error.field.partition(".")[0]] = error.detail
    return render(request, "keys/edit.html", _context(request, actor, key, form), status=422)


def _changed(request: HttpRequest, actor: Actor, key: VirtualKey, changes: dict[str, Any]) -> HttpResponse:
    if changes:
        key = update_key(key, actor=actor, changes=key_form.with_places(changes, actor))
        messages.success(request, f"{key.name} is changed.")
    else:
        messages.success(request, f"Nothing was changed of {key.name}.")
    return go(request, reverse("key-detail", args=[key.id]))


def _shown(actor: Actor, key: VirtualKey) -> KeyForm:
    routes = Route.objects.order_by("name").values_list("name", flat=True)[:SHOWN_ROUTES]
    parent = ""
    if key.parent is not None:
        parent = key.parent.name if in_scope(actor, key.parent.team_id) else str(key.parent_id)
    return key_form.of_key(key, routes, parent=parent)


def _context(request: HttpRequest, actor: Actor, key: VirtualKey, form: KeyForm) -> dict[str, Any]:
    url = reverse("key-detail", args=[key.id])
    return {
        **form_context(actor, form),
        "crumbs": [{"title": "Keys", "url": reverse("keys")}, {"title": key.name, "url": url}, {"title": "Edit"}],
        "action": reverse("key-edit", args=[key.id]),
        "key": key,
        "seen": key.updated_at.isoformat(),
        "same_as": _same_as(request, key),
    }


def _same_as(request: HttpRequest, key: VirtualKey) -> list[dict[str, str]]:
    """With what the key is now, to be changed before it is sent."""
    body = {name: value for name, value in terms(key).items() if name in SHOWN_AS_CURL}
    curl = (
        f"curl -X PATCH {snippets.address(request)}/api/v1/keys/{key.id} \\\n"
        '  -H "Authorization: Bearer $CONDUIT_TOKEN" \\\n'
        '  -H "Content-Type: application/json" \\\n'
        f"  -d {shlex.quote(json.dumps(body, indent=2, ensure_ascii=False))}"
    )
    return [
        {"ident": "1", "title": "conduit", "text": f"conduit keys update {key.id} --rpm 300 --clear ip_allowlist"},
        {"ident": "2", "title": "curl", "text": curl},
    ]
