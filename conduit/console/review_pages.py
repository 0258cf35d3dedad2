"""Pages of the stale-access review: the table, the proposed cuts side by side, and applying them."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from conduit.access.pages import go, page
from conduit.access.permissions import in_scope, may
from conduit.core import wording
from conduit.core.actor import Actor
from conduit.core.errors import Conflict, InvalidInput
from conduit.core.money import parse_usd
from keys.models import VirtualKey
from usage import key_review
from usage.key_review import Proposal, Reviewed

PAGE = 50
SPANS = (7, 30, 90)
WORDS = {
    "never_used": ("warn", "Never used"),
    "unused": ("warn", "Unused"),
    "expiring": ("note", "Expires soon"),
    "expired": ("off", "Expired"),
    "broad_models": ("warn", "Too many models"),
    "broad_endpoints": ("note", "Too many endpoints"),
    "loose_budget": ("note", "Loose budget"),
    "owner_gone": ("bad", "Owner gone"),
    "no_owner": ("warn", "Nobody's"),
}


def _days(given: str) -> int:
    try:
        return key_review.parse_days(given)
    except InvalidInput:
        return key_review.DAYS


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


@page("keys")
def key_review_page(request: HttpRequest, actor: Actor) -> HttpResponse:
    days, before = _days(request.GET.get("days", "")), _uuid(request.GET.get("before", ""))
    found = key_review.review(actor, days=days, before=before, limit=PAGE)
    context = {
        "crumbs": [{"title": "Keys", "url": reverse("keys")}, {"title": "Review"}],
        "rows": [_row(actor, row) for row in found.rows],
        "days": days,
        "spans": [{"days": span, "current": span == days} for span in SPANS],
        "may_change": may(actor, "keys", write=True),
        "first": before is None,
        "older": found.cursor,
    }
    return render(request, "keys/review.html", context)


def _row(actor: Actor, row: Reviewed) -> dict[str, Any]:
    return {
        "reviewed": row,
        "remarks": [(*WORDS[remark.code], remark.detail) for remark in row.remarks],
        "selectable": row.shrinkable and may(actor, "keys", write=True) and in_scope(actor, row.key.team_id),
    }


@page("keys", write=True, methods=("POST",))
def key_shrink(request: HttpRequest, actor: Actor) -> HttpResponse:
    """The chosen keys' cuts to look at; sent again with `apply`, they are made, each key by itself."""
    days, with_budgets = _days(request.POST.get("days", "")), request.POST.get("budgets") == "1"
    keys = _chosen(request, actor)
    if not keys:
        raise Conflict("No key was chosen. Choose keys in the review first.")
    if request.POST.get("apply") == "1":
        return _applied(request, actor, keys, days, with_budgets)
    rows = [_proposed(key, days, with_budgets) for key in keys]
    context = {
        "crumbs": [{"title": "Keys", "url": reverse("keys")}, {"title": "Shrink"}],
        "rows": rows,
        "changing": [row for row in rows if row["cuts"]],
        "days": days,
        "with_budgets": with_budgets,
    }
    return render(request, "keys/shrink.html", context)


def _chosen(request: HttpRequest, actor: Actor) -> list[VirtualKey]:
    ids = [ident for text in request.POST.getlist("key")[:PAGE] if (ident := _uuid(text))]
    rows = VirtualKey.objects.select_related("team").filter(id__in=ids).order_by("-id")
    return [key for key in rows if in_scope(actor, key.team_id)]


def _proposed(key: VirtualKey, days: int, with_budgets: bool) -> dict[str, Any]:
    try:
        found = key_review.proposal(key, days=days, with_budgets=with_budgets)
    except Conflict as error:
        return {"key": key, "cuts": [], "why": str(error)}
    return {"key": key, "cuts": _cuts(found), "why": "It may already do only what it did."}


def _cuts(found: Proposal) -> list[dict[str, Any]]:
    """Field by field: what goes, what stays. A list that was empty allowed everything."""
    cuts = []
    for name, after in found.after.items():
        before = _texts(found.before[name])
        kept = _texts(after)
        cuts.append(
            {
                "title": name.capitalize(),
                "gone": [text for text in before if text not in kept] or ([] if before else ["everything else"]),
                "new": [text for text in kept if text not in before],
                "kept": [text for text in kept if text in before],
            }
        )
    return cuts


def _texts(value: list[Any]) -> list[str]:
    return [
        f"{wording.usd(parse_usd(one['limit_usd']), 2)} / {one['window']}" if isinstance(one, dict) else str(one)
        for one in value
    ]


def _applied(request: HttpRequest, actor: Actor, keys: list[VirtualKey], days: int, with_budgets: bool) -> HttpResponse:
    done, refused = [], []
    for key in keys:
        try:
            shrunk = key_review.shrink(key, actor=actor, days=days, with_budgets=with_budgets)
        except Conflict as error:
            refused.append(f"{key.name}: {error}")
            continue
        if shrunk.after:
            done.append(key.name)
    said = f"{wording.plural(len(done), 'key')} shrunk to what was used" + (f": {', '.join(done)}." if done else ".")
    messages.success(request, " ".join([said, *refused]))
    return go(request, f"{reverse('key-review')}?days={days}")
