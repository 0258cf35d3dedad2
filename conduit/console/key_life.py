"""The life of a key on its page: versions with who uses them, what stops it, what it may do now, and the dialogs'
consequences; and the one page that shows a rotated key's new secret. Acts without a page of their own: keys/views.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from conduit.access.pages import page
from conduit.access.permissions import demand_scope, in_scope, scope
from conduit.console import snippets
from conduit.console.budget_rows import Meter, meter_of
from conduit.core import clock
from conduit.core.actor import Actor
from conduit.core.errors import Conflict, InvalidInput, NotFound
from keys import entries, use
from keys.budgets import states
from keys.delegation import hindrance, line_of
from keys.held_now import Held
from keys.models import OwnerKind, VirtualKey
from keys.rotation import OVERLAP, describe, live_secrets, rotate_key
from providers.models import Route
from providers.patterns import is_pattern
from providers.routes import callable_names
from usage import log

HOUR, DAY = 3_600, 86_400
OVERLAPS = ((DAY, "24 hours"), (HOUR, "1 hour"), (7 * DAY, "7 days"), (30 * DAY, "30 days"), (0, "None: at once"))
LONGER = tuple((seconds, title) for seconds, title in OVERLAPS if seconds)
SHOWN_ROUTES = 12


def life(key: VirtualKey, actor: Actor, at: datetime, held: Iterable[Held]) -> dict[str, Any]:
    """The page's context about states, versions and parents."""
    line = line_of(key)
    versions, below = _versions(key, at), scope(key.children.all(), actor).count()
    return {
        "parents": [one for one in line[1:] if in_scope(actor, one.team_id)],
        "stopped": hindrance(line, at, actor),
        "versions": versions,
        "retiring": next((one for one in versions if one["state"] == "retiring"), None),
        "active_version": next((one for one in versions if one["state"] == "active"), None),
        "overlaps": OVERLAPS,
        "longer": LONGER,
        "in_flight_nanos": sum(one.in_flight_nanos for one in held),
        "below": below,
        "others_below": key.children.count() > below,
        "last_hour": log.count_of_key(key.id, at - timedelta(hours=1)),
    }


def parents_meters(parents: Iterable[VirtualKey], at: datetime) -> list[Meter]:
    rows = list(parents)
    own = states(OwnerKind.KEY, [key.id for key in rows], at)
    return [meter_of(state, f"Parent {key.name}") for key in rows for state in own[key.id]]


def effective(key: VirtualKey) -> dict[str, Any]:
    """What the key may do after everything above it has narrowed it: routes by name, and endpoints (empty: all)."""
    entry, _ = entries.of_key(key)
    names = list(Route.objects.order_by("name").values_list("name", flat=True))
    allowed = [name for name in names if (entry.may_use_some if is_pattern(name) else entry.may_use_model)(name)]
    endpoints = sorted(frozenset.intersection(*entry.endpoint_rules)) if entry.endpoint_rules else []
    return {
        "routes": allowed[:SHOWN_ROUTES],
        "more": max(0, len(allowed) - SHOWN_ROUTES),
        "count": len(allowed),
        "of": len(names),
        "endpoints": endpoints,
        "no_endpoint": bool(entry.endpoint_rules) and not endpoints,
    }


def _versions(key: VirtualKey, at: datetime) -> list[dict[str, Any]]:
    """The newest first; the last ten."""
    secrets = list(key.secrets.order_by("-number")[:10])
    uses = use.of_secrets(secrets, at)
    newest = secrets[0].number if secrets else 0
    found = []
    for secret in secrets:
        used = uses[secret.id]
        others = used.callers[use.SHOWN :]
        found.append(
            {
                **describe(secret, newest, at),
                "last_used_at": used.last_used_at,
                "last_hour": used.last_hour,
                "callers": [one for one in used.callers[: use.SHOWN] if one.address],
                "others": sum(one.requests for one in others)
                + sum(one.requests for one in used.callers[: use.SHOWN] if not one.address),
            }
        )
    return found


def _overlap(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise InvalidInput("overlap_seconds", "Choose how long the old secret works on.", "required")
    return int(text)


def expected(request: HttpRequest) -> int | None:
    """The number of the newest secret that the form was shown with; None where it says none."""
    text = request.POST.get("expected", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


@page("keys", write=True, methods=("POST",))
def key_rotate(request: HttpRequest, actor: Actor, key_id: UUID) -> HttpResponse:
    """Answers with the one page that shows the new secret. Out of step it is a page that names the state (409)."""
    key = VirtualKey.objects.filter(id=key_id).first()
    if key is None:
        raise NotFound("")
    demand_scope(actor, key.team_id)
    try:
        overlap, newest = _overlap(request.POST.get("overlap_seconds", str(OVERLAP))), expected(request)
        replace = request.POST.get("replace") == "yes"
        key, raw = rotate_key(key, actor=actor, overlap_seconds=overlap, replace=replace, expected=newest)
    except InvalidInput as error:
        raise Conflict(f"{error.detail} Nothing was changed.") from None
    live = live_secrets(key, clock.now())
    base, model = snippets.address(request), next((m for m in key.allowed_models if "*" not in m), "")
    model = model or next(iter(callable_names()), "MODEL")
    context = {
        "crumbs": [
            {"title": "Keys", "url": reverse("keys")},
            {"title": key.name, "url": reverse("key-detail", args=[key.id])},
            {"title": f"Secret v{live[0].number}"},
        ],
        "key": key,
        "raw": raw.reveal(),
        "snippets": snippets.with_secret(base, model, raw.reveal()),
        "new": live[0],
        "old": live[1] if len(live) > 1 else None,
    }
    response = render(request, "keys/rotated.html", context)
    response["Cache-Control"] = "no-store"
    return response
