"""The key ring: which key-encryption keys there are, what lies under each, and the steps of changing them."""

from __future__ import annotations

import time
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from conduit.access.keks_api import PATIENCE_SECONDS, WORK_SECONDS
from conduit.access.pages import go, page
from conduit.access.permissions import may
from conduit.core import keks, keyring, rewrap, wording
from conduit.core.actor import Actor
from conduit.core.errors import ConfigurationError, Conflict, NotFound
from conduit.core.keks import KekStatus
from conduit.core.sealing import KekUnavailable

BOTH = ("GET", "HEAD", "POST")
POST = ("POST",)
PURPOSES = {
    "pepper": "digests of virtual keys",
    "token-pepper": "digests of management tokens",
    "replies": "stored answers of repeated requests",
    "audit": "the chain of the audit log",
    "webhooks": "signatures of webhooks",
}


@page("keks")
def key_ring(request: HttpRequest, actor: Actor) -> HttpResponse:
    progress, found = keks.progress(), keks.status()
    context = {
        "crumbs": [*_crumbs()[:1], {"title": "Key ring"}],
        "keks": [_row(one) for one in found],
        "source": keks.source(),
        "from_file": keyring.ring().file,
        "progress": progress,
        "processes": max((len(one.holders) + len(one.lacking) for one in found), default=0),
        "purposes": [
            {
                "one": one,
                "what": PURPOSES.get(one.purpose, ""),
                "rotates": one.newest and one.purpose not in keks.FIXED,
            }
            for one in keks.purposes()
        ],
        "may_change": may(actor, "keks", write=True),
        "same_as": _same_as("", "conduit kek status"),
    }
    return render(request, "console/keks.html", context)


@page("keks", write=True, methods=POST)
def kek_add(request: HttpRequest, actor: Actor) -> HttpResponse:
    added = keks.add(actor=actor)
    messages.success(request, f"{added} is added. It encrypts nothing until you change to it.")
    return go(request, reverse("keks"))


@page("keks", write=True, methods=BOTH)
def kek_rotate(request: HttpRequest, actor: Actor, kek_id: str) -> HttpResponse:
    """First what it would move and who lacks the key; then the act."""
    one = _find(kek_id)
    context = {
        "crumbs": [*_crumbs(), {"title": f"Change to {kek_id}"}],
        "kek": one,
        "progress": rewrap.progress(kek_id),
        "primary": keyring.ring().primary,
        "settable": keyring.ring().file and not keyring.ring().chosen,
        "errors": {},
        "same_as": _same_as(f"/{kek_id}/rotate", f"conduit kek rotate {kek_id}"),
    }
    if request.method != "POST":
        return render(request, "console/kek_rotate.html", context)
    try:
        until = time.monotonic() + WORK_SECONDS + PATIENCE_SECONDS
        done = keks.rotate(actor=actor, to=kek_id, patience=PATIENCE_SECONDS, until=until)
    except (Conflict, KekUnavailable, ConfigurationError) as error:
        return _refused(request, "console/kek_rotate.html", context, {"": str(error)})
    moved = f"{wording.plural(done.progress.done, 'wrapped key')} of {done.progress.total:,} lie under {kek_id}"
    if done.unopened:
        messages.error(request, f"{moved}. {wording.plural(len(done.unopened), 'row')} did not open; see the log.")
    elif done.progress.left:
        messages.warning(request, f"{moved}. A job moves the rest within a minute.")
    else:
        messages.success(request, f"{moved}.")
    return go(request, reverse("keks"))


@page("keks", write=True, methods=BOTH)
def kek_retire(request: HttpRequest, actor: Actor, kek_id: str) -> HttpResponse:
    """Type the id. Whatever stands in the way is said before."""
    one = _find(kek_id)
    typed = request.POST.get("confirm", "").strip()[:64]
    context = {
        "crumbs": [*_crumbs(), {"title": f"Retire {kek_id}"}],
        "kek": one,
        "from_file": keyring.ring().file,
        "blocked": one.primary or one.needed or one.encrypting,
        "labels": {"confirm": "Id"},
        "errors": {},
        "same_as": _same_as(f"/{kek_id}/retire", f"conduit kek retire {kek_id}"),
    }
    if request.method != "POST":
        return render(request, "console/kek_retire.html", context)
    if typed != kek_id:
        return _refused(request, "console/kek_retire.html", context, {"confirm": f"Type {kek_id} to retire it."})
    try:
        detail = keks.retire(kek_id, actor=actor)
    except (Conflict, KekUnavailable) as error:
        return _refused(request, "console/kek_retire.html", context, {"": str(error)})
    messages.success(request, detail)
    return go(request, reverse("keks"))


@page("keks", write=True, methods=POST)
def purpose_rotate(request: HttpRequest, actor: Actor, purpose: str) -> HttpResponse:
    version = keks.rotate_purpose(purpose, actor=actor)
    messages.success(request, f"{purpose} has version {version}. What older versions made still opens.")
    return go(request, reverse("keks"))


def _find(kek_id: str) -> KekStatus:
    found = next((one for one in keks.status() if one.id == kek_id and one.kind), None)
    if found is None:
        raise NotFound("")
    return found


def _row(one: KekStatus) -> dict[str, Any]:
    kind, word = ("ok", "Primary") if one.primary else ("off", "Opens only") if one.kind else ("bad", "Missing")
    if one.encrypting and not one.primary:
        kind, word = "warn", "Still encrypts"
    return {
        "kek": one,
        "kind": kind,
        "word": word,
        "of": len(one.holders) + len(one.lacking),
        "free": bool(one.kind) and not one.primary and not one.needed,
    }


def _crumbs() -> list[dict[str, str]]:
    return [{"title": "System", "url": reverse("system")}, {"title": "Key ring", "url": reverse("keks")}]


def _refused(request: HttpRequest, template: str, context: dict[str, Any], errors: dict[str, str]) -> HttpResponse:
    context["errors"] = errors
    short = "parts/errors.html" if request.headers.get("HX-Request") else template
    return render(request, short, context, status=422 if "confirm" in errors else 409)


def _same_as(path: str, command: str) -> list[dict[str, str]]:
    act = " -X POST" if path else ""
    curl = f'curl{act} $CONDUIT_URL/api/v1/keks{path} -H "Authorization: Bearer $CONDUIT_TOKEN"'
    tabs = (("conduit", command), ("curl", curl))
    return [{"ident": str(number), "title": title, "text": text} for number, (title, text) in enumerate(tabs, 1)]
