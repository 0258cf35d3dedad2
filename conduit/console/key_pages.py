"""Pages of virtual keys: list, form, secret shown once, detail. Acts on a key are in keys/views.py."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import Count, Prefetch, Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from conduit.access.pages import page
from conduit.access.permissions import demand_scope, in_scope, may, names_only, scope
from conduit.console import budget_form, key_form, key_life, rate_rows, snippets
from conduit.console.budget_rows import Meter, level, meter_of
from conduit.console.spans import month_name, month_start, today
from conduit.core import clock, wording
from conduit.core.actor import Actor
from conduit.core.errors import InvalidInput, NotFound
from keys.budget_owners import may_raise
from keys.budgets import BudgetState, current, states
from keys.entries import DEEPEST_TEAM, RateScope
from keys.held_now import held_now
from keys.issuing import create_key
from keys.models import KeySecret, KeyState, OwnerKind, Team, VirtualKey
from keys.representation import newest_secrets
from providers.models import Route
from providers.routes import callable_names
from usage import charts, figures, log
from usage.sums import Sums

PAGE = 100
SHOWN_ROUTES = 200
STATES = (("", "All"), ("active", "Active"), ("disabled", "Disabled"), ("revoked", "Revoked"))
EXPIRY = ((30, "30 days"), (90, "90 days"), (365, "1 year"), (0, "Never"))


def masked(secrets: list[KeySecret]) -> str:
    newest = max(secrets, key=lambda row: row.number, default=None)
    return f"cdt_vk_{newest.public_id}…{newest.last_four}" if newest else wording.DASH


def _query(request: HttpRequest, **changes: str) -> str:
    query = request.GET.copy()
    for name, value in changes.items():
        query[name] = value
        if not value:
            del query[name]
    return query.urlencode()


def _matching(request: HttpRequest, actor: Actor) -> Any:
    rows = scope(
        VirtualKey.objects.select_related("team").prefetch_related(Prefetch("secrets", newest_secrets())), actor
    )
    if state := request.GET.get("state"):
        rows = rows.filter(state=state if state in KeyState.values else "none")
    if q := request.GET.get("q", "").strip()[:200]:
        rows = rows.filter(
            Q(name__icontains=q) | Q(secrets__public_id=q) | Q(secrets__last_four=q) | Q(owner__icontains=q)
        ).distinct()
    if team := _uuid(request.GET.get("team", "")):
        rows = rows.filter(team_id=team)
    return rows


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


@page("keys")
def key_list(request: HttpRequest, actor: Actor) -> HttpResponse:
    """Newest first, a hundred a page; the cursor is the last id (ids are in order of creation)."""
    found = _matching(request, actor)
    before = _uuid(request.GET.get("before", ""))
    keys = list((found.filter(id__lt=before) if before else found).order_by("-id")[: PAGE + 1])
    more, keys = len(keys) > PAGE, keys[:PAGE]
    at = clock.now()
    spent = figures.totals_by(actor, "key_id", month_start(at), key_id__in=[key.id for key in keys])
    limits = states(OwnerKind.KEY, [key.id for key in keys], at)
    used = log.last_used([key.id for key in keys])
    rows = [
        {**_row(key, limits[key.id], spent.get(key.id, Sums()), at), "last_used_at": used.get(key.id)} for key in keys
    ]
    context = {
        "crumbs": [{"title": "Keys"}],
        "rows": rows,
        "names_only": names_only(actor),
        "nothing_at_all": not rows and not request.GET,
        "q": request.GET.get("q", ""),
        "state": request.GET.get("state", ""),
        "states": [
            {
                "title": title,
                "query": _query(request, state=value, before=""),
                "current": value == request.GET.get("state", ""),
            }
            for value, title in STATES
        ],
        "teams": scope(Team.objects.order_by("name"), actor, "id"),
        "team_id": request.GET.get("team", ""),
        "month": month_name(at),
        "digits": wording.digits_for(row["cost"] for row in rows),
        "whole": not more and not before,
        "total_cost": sum(row["cost"] for row in rows),
        "total_requests": sum(row["requests"] for row in rows),
        "newer": _query(request, before="") or "page=1" if before else "",
        "older": _query(request, before=str(keys[-1].id)) if more else "",
    }
    return render(request, "keys/list.html", context)


def _row(key: VirtualKey, limits: list[BudgetState], spent: Sums, at: datetime) -> dict[str, Any]:
    meters = [meter_of(state, "Key") for state in limits]
    tightest = max(meters, key=lambda m: m.used / m.limit if m.limit else 1.0, default=None)
    return {
        "key": key,
        "masked": masked(list(key.secrets.all())),
        "budget": tightest,
        "level": level(meters),
        "cost": spent.cost,
        "requests": spent.requests,
        "expired": bool(key.expires_at and key.expires_at <= at),
    }


def form_context(actor: Actor, form: key_form.KeyForm) -> dict[str, Any]:
    """What the form needs, whether it creates a key or changes one."""
    return {
        "values": form.values,
        "errors": form.errors,
        "labels": key_form.LABELS,
        "budgets": form.budgets,
        "windows": budget_form.WINDOWS,
        "endpoints": key_form.ENDPOINTS,
        "chosen_routes": form.routes,
        "chosen_endpoints": form.endpoints,
        "routes": Route.objects.annotate(size=Count("targets")).order_by("name")[:SHOWN_ROUTES],
        "teams": scope(Team.objects.order_by("name"), actor, "id"),
        "team_free": actor.teams is None,
        "expiry_choices": EXPIRY,
    }


def _create_context(actor: Actor, form: key_form.KeyForm, request: HttpRequest) -> dict[str, Any]:
    return {
        **form_context(actor, form),
        "crumbs": [{"title": "Keys", "url": reverse("keys")}, {"title": "Create key"}],
        "action": reverse("key-create"),
        "preview": key_form.preview(form),
        "same_as": key_form.same_as(form, snippets.address(request)),
    }


@page("keys", write=True, methods=("GET", "HEAD", "POST"))
def key_create(request: HttpRequest, actor: Actor) -> HttpResponse:
    """The form; sent rightly it answers with the one page that shows the secret, sent wrongly with itself (422)."""
    if request.method != "POST":
        form = key_form.blank(request.GET.get("route", "")[:200])
        return render(request, "keys/create.html", _create_context(actor, form, request))
    form = key_form.read(request.POST)
    try:
        if not form.errors:
            return _created(request, actor, form)
    except InvalidInput as error:
        form.errors[error.field.partition(".")[0]] = error.detail
    return render(request, "keys/create.html", _create_context(actor, form, request), status=422)


def _created(request: HttpRequest, actor: Actor, form: key_form.KeyForm) -> HttpResponse:
    key, raw = create_key(actor=actor, **key_form.with_places(form.body, actor))
    base, model = snippets.address(request), next((m for m in key.allowed_models if "*" not in m), "")
    model = model or next(iter(callable_names()), "MODEL")
    context = {
        "crumbs": [{"title": "Keys", "url": reverse("keys")}, {"title": key.name}],
        "raw": raw.reveal(),
        "snippets": snippets.with_secret(base, model, raw.reveal()),
        **_limits(key),
    }
    response = render(request, "keys/created.html", context)
    response["Cache-Control"] = "no-store"
    return response


def _limits(key: VirtualKey) -> dict[str, Any]:
    own = [meter_of(state, "Key") for state in current(OwnerKind.KEY, key.id)]
    limits = {"rpm": key.rpm, "tpm": key.tpm, "max_parallel": key.max_parallel}
    return {"key": key, "budgets": own, "rates": key_form.rates(limits)}


def _teams(actor: Actor, key: VirtualKey) -> list[Team]:
    """The key's team and those above it, as far as they are the actor's to see."""
    found: list[Team] = []
    team = key.team
    while team is not None and len(found) < DEEPEST_TEAM and in_scope(actor, team.id):
        found.append(team)
        team = team.parent
    return found


def _above(teams: list[Team], at: datetime) -> list[Meter]:
    own = states(OwnerKind.TEAM, [team.id for team in teams], at)
    return [meter_of(state, f"Team {team.name}") for team in teams for state in own[team.id]]


def _rates(key: VirtualKey, parents: list[VirtualKey], teams: list[Team]) -> list[dict[str, Any]]:
    """What is used of each rate limit in force on the key, its own first."""
    scopes = [RateScope("key", key.id, "Key", key.rpm, key.tpm, key.max_parallel)]
    scopes += [RateScope("parent", one.id, f"Parent {one.name}", one.rpm, one.tpm, one.max_parallel) for one in parents]
    scopes += [RateScope("team", team.id, f"Team {team.name}", team.rpm, team.tpm, team.max_parallel) for team in teams]
    return rate_rows.rows(scopes)


@page("keys", write=True, methods=("POST",))
def key_preview(request: HttpRequest, actor: Actor) -> HttpResponse:
    form = key_form.read(request.POST)
    context = {"preview": key_form.preview(form), "same_as": key_form.same_as(form, snippets.address(request))}
    return render(request, "keys/preview.html", context)


@page("keys", write=True)
def key_budget_row(request: HttpRequest, actor: Actor) -> HttpResponse:
    """One more window for the form. The row's number only has to be unlike the others'."""
    number = int(clock.now().timestamp() * 1000) % 10**9
    row = budget_form.blank_row(number) | {"window": "day"}
    return render(request, "keys/budget_row.html", {"row": row, "windows": budget_form.WINDOWS})


def _find(actor: Actor, key_id: UUID) -> VirtualKey:
    key = VirtualKey.objects.select_related("team", "user").filter(id=key_id).first()
    if key is None:
        raise NotFound("")
    if actor.teams is not None:
        demand_scope(actor, key.team_id)
    return key


@page("usage")
def key_first_request(request: HttpRequest, actor: Actor, key_id: UUID) -> HttpResponse:
    key = _find(actor, key_id)
    return render(request, "keys/first_request.html", {"request_seen": log.last_of_key(key.id, key.created_at)})


@page("keys")
def key_detail(request: HttpRequest, actor: Actor, key_id: UUID) -> HttpResponse:
    key = _find(actor, key_id)
    at = clock.now()
    since = month_start(at)
    month, day = (figures.total(actor, start, key_id=key.id) for start in (since, today(at)))
    starts = figures.day_starts(since, at)
    spend = figures.series(actor, since, starts, key_id=key.id)
    own, teams = _limits(key), _teams(actor, key)
    seen = not names_only(actor)
    held = held_now(current(OwnerKind.KEY, key.id, at)) if seen else []
    life = key_life.life(key, actor, at, held)
    above = [*key_life.parents_meters(life["parents"], at), *_above(teams, at)]
    labels = [f"{start.day} {start:%b}" for start in starts]
    context = {
        "crumbs": [{"title": "Keys", "url": reverse("keys")}, {"title": key.name}],
        **own,
        **life,
        "effective": key_life.effective(key) if seen else None,
        "masked": masked(list(key.secrets.order_by("-number")[:1])),
        "names_only": not seen,
        "meters": [*own["budgets"], *above],
        "level": level([*own["budgets"], *above]),
        "held": held,
        "rates_now": _rates(key, life["parents"], teams) if seen else [],
        "expired": bool(key.expires_at and key.expires_at <= at),
        "may_change": may(actor, "keys", write=True) and in_scope(actor, key.team_id),
        "may_raise": may_raise(actor, OwnerKind.KEY) and in_scope(actor, key.team_id),
        "month": month_name(at),
        "month_total": month,
        "today": day,
        "per_thousand": month.cost * 1000 // month.served if month.served else None,
        "chart": charts.stacked("kd-spend", "Spend per day by model", ("Day (UTC)", labels), charts.largest(spend))
        if spend
        else None,
        "latest": [] if not seen else log.page(actor, log.Filters(since, key=key.id), limit=8).rows,
        "same_as": _same_as(request, key),
    }
    return render(request, "keys/detail.html", context)


def _same_as(request: HttpRequest, key: VirtualKey) -> list[dict[str, str]]:
    text = (
        f'curl \\\n  {snippets.address(request)}/api/v1/keys/{key.id} \\\n  -H "Authorization: Bearer $CONDUIT_TOKEN"'
    )
    return [{"ident": "1", "title": "curl", "text": text}]
