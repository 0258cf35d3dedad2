"""The page of budgets, and raising one for a while. Ending a raise is in keys/views.py."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.db.models import Count, Min, Sum
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from conduit.access.pages import go, page
from conduit.access.permissions import in_scope, scope
from conduit.console import budget_tree, raise_form
from conduit.console.budget_rows import Meter, meter_of
from conduit.console.spans import month_name, month_start, today
from conduit.core import clock, wording
from conduit.core.actor import Actor
from conduit.core.errors import Conflict, InvalidInput
from keys import raises
from keys.budget_owners import find, may_raise, owner_names, team_of, visible
from keys.budgets import current, states_of
from keys.models import Budget, OwnerKind, Team, UncertainAttempt
from usage import figures

VIEWS = (("teams", "Teams and keys"), ("customers", "Customers"), ("providers", "Providers"))
MOST_OFFERED = 300


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


@page("budgets")
def budget_list(request: HttpRequest, actor: Actor) -> HttpResponse:
    at = clock.now()
    shown = request.GET.get("of", "")
    shown = shown if shown in dict(VIEWS) else "teams"
    rows, more, older = _rows(actor, at, shown, _uuid(request.GET.get("before", "")))
    spent, near = budget_tree.tightness(rows)
    context = {
        "crumbs": [{"title": "Budgets"}],
        "shown": shown,
        "views": VIEWS,
        "rows": rows,
        "more": more,
        "older": older,
        "digits": budget_tree.digits(rows),
        "spent": spent,
        "near": near,
        "month": month_name(at),
        "month_total": figures.total(actor, month_start(at)),
        "today": figures.total(actor, today(at)),
        "uncertain": _uncertain(actor),
        "raised": _raised(actor, at),
        "may_raise": may_raise(actor, OwnerKind.TEAM),
        "may_raise_these": may_raise(actor, OwnerKind.PROVIDER if shown == "providers" else OwnerKind.TEAM),
    }
    return render(request, "keys/budgets.html", context)


def _rows(
    actor: Actor, at: datetime, shown: str, before: UUID | None
) -> tuple[list[budget_tree.Row], bool, UUID | None]:
    """(rows, whether keys were left out, where older customers begin)."""
    if shown == "customers":
        rows, older = budget_tree.of_customers(actor, at, before)
        return rows, False, older
    if shown == "providers":
        return budget_tree.of_providers(actor, at), False, None
    rows, more = budget_tree.of_teams(actor, at)
    return rows, more, None


def _uncertain(actor: Actor) -> dict[str, Any]:
    """What is held until somebody says what became of it."""
    waiting = scope(UncertainAttempt.objects.filter(resolved_at=None), actor)
    return waiting.aggregate(held=Sum("held_nanos"), number=Count("id"), oldest=Min("created_at"))


def _raised(actor: Actor, at: datetime) -> list[dict[str, Any]]:
    found = raises.in_force(actor)
    rows = list({row.budget_id: row.budget for row in found}.values())
    names, limits = owner_names(rows), {state.id: state.limit_nanos for state in states_of(rows, at)}
    return [
        {
            "raise": row,
            "name": names.get((row.budget.owner_kind, row.budget.owner_id), wording.DASH),
            "window": row.budget.window,
            "before": limits[row.budget_id] - row.extra_nanos,
            "after": limits[row.budget_id],
            "may_end": may_raise(actor, row.budget.owner_kind),
        }
        for row in found
    ]


# --- raise for a while -----------------------------------------------------------------------------------------------


@page("budgets", write=True, methods=("GET", "HEAD", "POST"))
def budget_raise(request: HttpRequest, actor: Actor) -> HttpResponse:
    """The form; sent, a page that says what it would allow and until when; confirmed there, done."""
    form = raise_form.read(request.POST if request.method == "POST" else request.GET)
    context: dict[str, Any] = {
        "crumbs": [{"title": "Budgets", "url": reverse("budgets")}, {"title": "Raise for a while"}],
        "labels": raise_form.LABELS,
        "choices": raise_form.CHOICES,
        "values": form.values,
        "errors": form.errors,
    }
    if request.method == "POST":
        answer = _asked(request, actor, form, context)
        if answer is not None:
            return answer
    chosen = _uuid(form.values["budget"])
    context["offered"] = _offered(actor, chosen)
    return render(request, "keys/raise.html", context, status=422 if form.errors else 200)


def _asked(
    request: HttpRequest, actor: Actor, form: raise_form.RaiseForm, context: dict[str, Any]
) -> HttpResponse | None:
    """The confirmation, or the deed when it is confirmed. None: something is wrong and stands in the form's errors."""
    at, chosen = clock.now(), _uuid(form.values["budget"])
    if chosen is None:
        form.errors["budget"] = "Choose a budget."
        return None
    row = find(actor, chosen)
    state = states_of([row], at)[0]
    try:
        extra, until = form.wanted(state, at)
        raises.check(extra, until, at)
        if request.POST.get("confirm") == "yes":
            return _do(request, actor, row, extra, until, state.limit_nanos)
    except InvalidInput as error:
        form.errors[error.field] = error.detail
        return None
    name = owner_names([row]).get((row.owner_kind, row.owner_id), "")
    meter = meter_of(state, name)
    context |= {
        "meter": meter,
        "extra": wording.usd(extra),
        "extra_usd": form.values["extra_usd"],
        "until": until,
        "until_text": clock.rfc3339(until),
        "after": meter.limit + extra,
        "free_after": meter.left + extra,
        "short": max(0, -(meter.left + extra)),
        "past_window": bool(meter.resets_at and until > meter.resets_at),
        "above": _above(actor, row, at),
    }
    return render(request, "keys/raise_confirm.html", context)


def _do(request: HttpRequest, actor: Actor, row: Budget, extra: int, until: datetime, limit: int) -> HttpResponse:
    if request.POST.get("limit") != str(limit):
        raise Conflict("The limit has changed since this was shown. Nothing was raised; look again and repeat it.")
    raises.raise_budget(row, actor=actor, extra_nanos=extra, until=until)
    name = owner_names([row]).get((row.owner_kind, row.owner_id), "")
    limits = f"{wording.usd(limit + extra)} until {wording.minute(until)}, then {wording.usd(limit)} again"
    messages.success(request, f"The limit of {name} is {limits}.")
    return go(request, reverse("budgets") + ("" if row.owner_kind in ("team", "key") else f"?of={row.owner_kind}s"))


def _above(actor: Actor, row: Budget, at: datetime) -> list[Meter]:
    """Budgets that stay in the way: those of the team that the owner belongs to and of the teams above it."""
    team_id = team_of(row)
    found: list[Meter] = []
    team = Team.objects.filter(id=team_id).first() if team_id else None
    if row.owner_kind == OwnerKind.TEAM and team is not None:
        team = team.parent
    for _ in range(32):
        if team is None or not in_scope(actor, team.id):
            break
        found += [meter_of(state, team.name) for state in current(OwnerKind.TEAM, team.id, at)]
        team = team.parent
    return found


def _offered(actor: Actor, chosen: UUID | None) -> list[dict[str, Any]]:
    """What the form lets choose: the newest budgets that this actor may raise, and the chosen one in any case."""
    rows = [row for row in visible(actor).order_by("-id")[:MOST_OFFERED] if may_raise(actor, row.owner_kind)]
    if chosen and chosen not in {row.id for row in rows}:
        rows.insert(0, find(actor, chosen))
    names = owner_names(rows)
    meters = [meter_of(state, names.get((state.owner_kind, state.owner_id), "")) for state in states_of(rows)]
    offered = [{"meter": meter, "chosen": meter.id == chosen} for meter in meters]
    return sorted(offered, key=lambda one: (one["meter"].owner, one["meter"].window))
