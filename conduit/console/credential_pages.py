"""Pages of credentials: the list, the settings of one, and its end. The rotation cockpit is in cockpit.py."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from conduit.access.pages import go, page
from conduit.access.permissions import may
from conduit.console import credential_rows, snippets
from conduit.console.credential_rows import Row
from conduit.console.spans import month_name
from conduit.core import clock, wording
from conduit.core.actor import Actor
from conduit.core.errors import Conflict, InvalidInput, NotFound
from providers import credentials
from providers.models import Credential
from providers.providers import LIMITS, kind_of
from providers.vault import Unreadable
from providers.verification import VerificationFailed
from providers.views import credential_settings, error_of, labels

BOTH = ("GET", "HEAD", "POST")
SHOWN = (("", "In use"), ("attention", "Needs attention"), ("disabled", "Disabled"))
SETTINGS = ("name", "weight", "account", "expires_at", *LIMITS)
TITLES = {
    "account": "Account",
    "expires_at": "Expires on",
    "rpm": "Requests / min",
    "tpm": "Tokens / min",
    "max_parallel": "Parallel",
}


def find_credential(credential_id: UUID) -> Credential:
    """With its versions and their fields. Raises NotFound."""
    found = Credential.objects.select_related("provider").prefetch_related("versions__fields")
    credential = found.filter(id=credential_id).first()
    if credential is None:
        raise NotFound("")
    return credential


def crumbs(credential: Credential, last: str = "") -> list[dict[str, str]]:
    own = [{"title": "Credentials", "url": reverse("credentials")}, {"title": credential.name}]
    if last:
        own[1]["url"] = reverse("credential", args=[credential.id])
        own.append({"title": last})
    return own


# --- the list ------------------------------------------------------------------------------------------------------


@page("credentials")
def credential_list(request: HttpRequest, actor: Actor) -> HttpResponse:
    at = clock.now()
    every = credential_rows.rows(actor, at)
    show = request.GET.get("show", "")
    q = request.GET.get("q", "").strip()[:200]
    kept = {value: [row for row in every if _belongs(row, value)] for value, _ in SHOWN}
    found = [row for row in kept.get(show, kept[""]) if _matches(row, q.lower())]
    context = {
        "crumbs": [{"title": "Credentials"}],
        "every": every,
        "rows": found,
        "groups": credential_rows.groups(found),
        "q": q,
        "show": show,
        "choices": [
            {"value": value, "title": title, "count": len(kept[value]), "current": value == show}
            for value, title in SHOWN
        ],
        "may_change": may(actor, "credentials", write=True),
        "month": month_name(at),
        "max_age": settings.CREDENTIAL_MAX_AGE_DAYS,
        "digits": wording.digits_for(row.use.cost for row in found),
        "total_cost": sum(row.use.cost for row in found),
        "total_rate": credential_rows.per_minute(sum(row.recent for row in found)),
        **credential_rows.sealed_under(every),
        **(figures := _figures(every)),
        "opened": len(every) - len(figures["unreadable"]),
    }
    return render(request, "providers/credentials.html", context)


def _belongs(row: Row, show: str) -> bool:
    if show == "attention":
        return row.needs_attention
    return row.credential.enabled is (show != "disabled")


def _matches(row: Row, text: str) -> bool:
    seen = (row.credential.name, row.credential.provider.name, row.hint, row.credential.account)
    return any(text in part.lower() for part in seen)


def _figures(every: list[Row]) -> dict[str, Any]:
    """The figures above the list, each with its rows, so that a single one can be named."""
    return {
        "unreadable": [row for row in every if row.health.word == "Unreadable"],
        "rotating": [row for row in every if row.rotation],
        "old": [row for row in every if row.old and row.credential.enabled],
        "expiring": [row for row in every if row.expires_soon or row.expired],
    }


# --- one credential's settings -------------------------------------------------------------------------------------


@page("credentials", write=True, methods=BOTH)
def credential_edit(request: HttpRequest, actor: Actor, credential_id: UUID) -> HttpResponse:
    """Sent rightly it leads to the credential, sent wrongly it answers with itself (422) and nothing is saved."""
    credential = find_credential(credential_id)
    row = kind_of(credential.provider)
    context: dict[str, Any] = {
        "crumbs": crumbs(credential, "Settings"),
        "credential": credential,
        "labels": labels(row) | TITLES,
        "errors": {},
        "values": {name: _text(credential, name) for name in SETTINGS},
        "enabled": credential.enabled,
        "routes": credentials.routes_that_need(credential),
    }
    if request.method != "POST":
        return render(request, "providers/credential_settings.html", context)
    context["values"] = {name: request.POST.get(name, "").strip()[:200] for name in SETTINGS}
    context["enabled"] = request.POST.get("enabled") == "yes"
    try:
        changes = _changes(credential, context["values"]) | {"enabled": context["enabled"]}
        credential = credentials.update_credential(credential, actor=actor, changes=changes)
    except (InvalidInput, Conflict) as error:
        context["errors"] = error_of(error, row.fields)
        return render(request, "providers/credential_settings.html", context, status=422)
    messages.success(request, f"{credential.name} is changed.")
    return go(request, reverse("credential", args=[credential.id]))


def _text(credential: Credential, name: str) -> str:
    value = getattr(credential, name)
    if name == "expires_at":
        return f"{value:%Y-%m-%d}" if value else ""
    return "" if value is None else str(value)


def _changes(credential: Credential, values: dict[str, str]) -> dict[str, Any]:
    """What the form changes. An end that still reads the same stays as exact as it is."""
    changes: dict[str, Any] = {"name": values["name"], "expires_at": None, **credential_settings(values)}
    if values["expires_at"] == _text(credential, "expires_at"):
        del changes["expires_at"]
    for name in LIMITS:
        text = values[name].replace(",", "")
        if text and not (text.isascii() and text.isdigit()):
            raise InvalidInput(name, "Must be a whole number.", "invalid_number")
        changes[name] = int(text[:20]) if text else None
    return changes


@page("credentials", write=True, methods=("POST",))
def credential_test(request: HttpRequest, actor: Actor, credential_id: UUID) -> HttpResponse:
    """One real call with the active version."""
    credential = find_credential(credential_id)
    try:
        verified = credentials.verify(credential, actor=actor)
    except VerificationFailed as refused:
        messages.error(request, f"{credential.name} failed its test: {refused.detail} {refused.guidance}".rstrip())
    except Unreadable as red:
        messages.error(request, f"{credential.name} cannot be opened: {red.reason} {red.fix}")
    else:
        messages.success(request, f"{credential.name}: accepted in {verified.latency_ms} ms.")
    return go(request, reverse("credential", args=[credential.id]))


@page("credentials", write=True, methods=BOTH)
def credential_delete(request: HttpRequest, actor: Actor, credential_id: UUID) -> HttpResponse:
    """Says first what would be gone; the name must be typed, because it cannot be undone."""
    credential = find_credential(credential_id)
    if request.method != "POST":
        at = clock.now()
        (row,) = [one for one in credential_rows.rows(actor, at) if one.credential.id == credential.id]
        context = {
            "crumbs": crumbs(credential, "Delete"),
            "row": row,
            "credential": credential,
            "routes": credentials.routes_that_need(credential),
            "versions": len(credential.versions.all()),
            "month": month_name(at),
            "command": f"curl -X DELETE {snippets.address(request)}/api/v1/credentials/{credential.id} \\\n"
            '  -H "Authorization: Bearer $CONDUIT_TOKEN"',
        }
        return render(request, "providers/credential_delete.html", context)
    if request.POST.get("confirm") != credential.name:
        raise Conflict(f"Type {credential.name} to confirm. Nothing was changed.")
    credentials.delete_credential(credential, actor=actor)
    messages.success(request, f"{credential.name} is deleted, its sealed versions with it. Revoke it at the provider.")
    return go(request, reverse("credentials"))
