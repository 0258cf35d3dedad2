"""The overview: is it healthy, what does it cost, what needs somebody."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from conduit.access import audit_log
from conduit.access.pages import page
from conduit.access.permissions import may, scope
from conduit.console import provider_pages
from conduit.console.budget_rows import meter_of
from conduit.console.spans import month_name, month_start, today
from conduit.core import clock, wording
from conduit.core.actor import Actor
from keys.budgets import states
from keys.models import Budget, KeyState, OwnerKind, VirtualKey
from providers.models import Credential, VersionState
from providers.reminders import Reminder, reminders
from usage import charts, figures
from usage.models import NIL
from usage.sums import Sums

TOP = 5
MOST_ITEMS = 8
LOST = timedelta(days=30)


def _range(chosen: str, at: datetime) -> tuple[str, datetime, str]:
    """(value, since, words) of the chosen range; today unless another is known."""
    if chosen == "7d":
        return "7d", today(at) - timedelta(days=6), "in 7 days"
    if chosen == "month":
        return "month", month_start(at), f"in {month_name(at)}"
    return "today", today(at), "today"


@page("usage")
def overview(request: HttpRequest, actor: Actor) -> HttpResponse:
    at = clock.now()
    value, since, words = _range(request.GET.get("range", ""), at)
    all_of_it = figures.total(actor, since)
    top = _top_keys(actor, since, all_of_it)
    see_providers = may(actor, "providers", write=False)
    rows = provider_pages.rows(actor, at, since) if see_providers else []
    context = {
        "crumbs": [{"title": "Overview"}],
        "now": at,
        "range": value,
        "range_words": words,
        "ranges": [
            {"value": name, "title": title, "current": name == value}
            for name, title in (("today", "Today"), ("7d", "7 days"), ("month", month_name(at)))
        ],
        "total": all_of_it,
        "month": month_name(at),
        "month_total": figures.total(actor, month_start(at)),
        "bucket": "hour" if value == "today" else "day",
        "chart": _chart(actor, value, since, at),
        "attention": attention(actor, at),
        "top_keys": top,
        "top_cost": max((row["cost"] for row in top), default=0),
        "digits": wording.digits_for([all_of_it.cost, *(row.cost for row in rows)]),
        "see_providers": see_providers,
        "providers": rows,
    }
    return render(request, "console/overview.html", context)


def _chart(actor: Actor, value: str, since: datetime, at: datetime) -> charts.Chart | None:
    if value == "today":
        starts = [since + timedelta(hours=hour) for hour in range(24)]
        axis = ("Hour (UTC)", [f"{start:%H}:00" for start in starts])
    else:
        starts = figures.day_starts(since, at)
        axis = ("Day (UTC)", [f"{start.day} {start:%b}" for start in starts])
    spend = figures.series(actor, since, starts)
    if not spend:
        return None
    label = f"Spend per {'hour' if value == 'today' else 'day'} by model"
    return charts.stacked("ov-spend", label, axis, charts.largest(spend))


def _top_keys(actor: Actor, since: datetime, whole: Sums) -> list[dict[str, Any]]:
    """The five keys that spent most, and the others as one row; together the whole."""
    found = sorted(figures.totals_by(actor, "key_id", since).items(), key=lambda item: -item[1].cost)
    names = dict(VirtualKey.objects.filter(id__in=[key for key, _ in found[:TOP]]).values_list("id", "name"))
    rows = [
        {
            "name": names.get(key, "no key" if key == NIL else "deleted key"),
            "url": reverse("key-detail", args=[key]) if key in names else "",
            "cost": total.cost,
            "requests": total.requests,
        }
        for key, total in found[:TOP]
    ]
    if rest := found[TOP:]:
        cost, requests = sum(total.cost for _, total in rest), sum(total.requests for _, total in rest)
        rows.append({"name": wording.plural(len(rest), "other key"), "url": "", "cost": cost, "requests": requests})
    return rows


def attention(actor: Actor, at: datetime) -> list[dict[str, Any]]:
    """What somebody should look at: credentials that fail or end soon, limits that are nearly reached."""
    items = _credential_items(at) if may(actor, "credentials", write=False) else []
    return [*_audit_items(actor), *items, *_uncertain_items(actor, at), *_budget_items(actor, at)][:MOST_ITEMS]


def _audit_items(actor: Actor) -> list[dict[str, Any]]:
    kept = audit_log.last_verification() if may(actor, "audit", write=False) else None
    if kept is None or kept[0]["ok"]:
        return []
    fault = kept[0]["fault"]
    return [
        {
            "kind": "bad",
            "icon": "shield-check",
            "name": "The audit log",
            "url": reverse("audit"),
            "fact": f"is broken at entry {fault['number']:,}",
            "detail": fault["detail"],
        }
    ]


def _uncertain_items(actor: Actor, at: datetime) -> list[dict[str, Any]]:
    """Answers that were lost on their way: what they cost is unknown until somebody compares the provider's invoice."""
    number = figures.uncertain(actor, at - LOST)
    if not number:
        return []
    return [
        {
            "kind": "warn",
            "icon": "alert-triangle",
            "name": wording.plural(number, "uncertain attempt"),
            "url": f"{reverse('requests')}?range=30d&exactness=uncertain",
            "fact": "in 30 days",
            "detail": "the answer was lost; the hold stays until somebody says what it cost",
        }
    ]


def _credential_items(at: datetime) -> list[dict[str, Any]]:
    enabled = Credential.objects.filter(enabled=True).select_related("provider").order_by("name")
    failing = enabled.exclude(last_error="")
    empty = enabled.exclude(versions__state=VersionState.ACTIVE)
    items = [
        _credential_item(row, "bad", "ban", "has no active version", f"of {row.provider.name}: rotate it")
        for row in empty[:200]
    ]
    items += [_credential_item(row, "bad", "circle-x", "failed its last test", row.last_error) for row in failing[:200]]
    return items + [_reminder_item(reminder, at) for reminder in reminders(at)]


def _reminder_item(reminder: Reminder, at: datetime) -> dict[str, Any]:
    credential = reminder.credential
    detail = f"of {credential.provider.name}"
    if reminder.what == "expires" and not reminder.days:
        return _credential_item(credential, "bad", "hourglass", "has expired", detail)
    if reminder.what == "expires":
        left = wording.span(reminder.ends - at)
        return _credential_item(credential, "warn", "hourglass", f"expires in {left}", detail)
    due = f"in {wording.span(reminder.ends - at)}" if reminder.days else "now"
    age = f"its secret should be rotated after {settings.CREDENTIAL_MAX_AGE_DAYS} days; {detail}"
    return _credential_item(credential, "warn", "hourglass", f"is due for rotation {due}", age)


def _credential_item(credential: Credential, kind: str, icon: str, fact: str, detail: str) -> dict[str, Any]:
    url = reverse("credential", args=[credential.id])
    return {"kind": kind, "icon": icon, "name": credential.name, "url": url, "fact": fact, "detail": detail}


def _budget_items(actor: Actor, at: datetime) -> list[dict[str, Any]]:
    """Hard budgets of active keys from 80 % on, fullest first."""
    limited = Budget.objects.filter(owner_kind=OwnerKind.KEY, removed_at=None, kind="hard").values("owner_id")
    keys = scope(VirtualKey.objects.filter(state=KeyState.ACTIVE, id__in=limited), actor).order_by("-id")[:2000]
    names = {key.id: key.name for key in keys}
    meters = [
        (owner, meter_of(state, names[owner]))
        for owner, found in states(OwnerKind.KEY, names, at).items()
        for state in found
        if state.kind == "hard"
    ]
    near = [(owner, m) for owner, m in meters if m.used * 100 >= m.limit * 80]
    near.sort(key=lambda item: item[1].free)
    items = []
    for owner, m in near[:MOST_ITEMS]:
        reached = m.used * 100 >= m.limit * 98
        resets = f"; resets in {wording.span(m.resets_at - at)}" if m.resets_at else ""
        window = "in all" if m.window == "lifetime" else f"per {m.window}"
        items.append(
            {
                "kind": "bad" if reached else "warn",
                "icon": "ban" if reached else "gauge",
                "name": m.owner,
                "url": reverse("key-detail", args=[owner]),
                "fact": "reached its limit" if reached else f"is at {wording.percent(m.used, m.limit)}",
                "detail": f"of {wording.usd(m.limit)} {window}{resets}",
            }
        )
    return items
