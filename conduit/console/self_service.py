"""The page of a key's holder: its limits, spend, latest requests and how to call. Read-only, without an account.

The key is sent in a form, never in an address, and kept nowhere: a signed cookie of this page alone names the secret's
row for half an hour, and every look checks that the secret still works. It opens nothing of the console.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.core import signing
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_protect

from conduit.access.errors import CountingUnavailable
from conduit.access.pace import demand_pace
from conduit.console import rate_rows, snippets
from conduit.console.budget_rows import Meter, meter_of
from conduit.core import clock
from conduit.core.actor import SYSTEM
from conduit.core.problems import TooMany
from conduit.core.secret import Secret
from keys import budgets, entries, holding
from keys.holding import Holder
from keys.models import Budget
from providers.models import Route
from providers.patterns import is_pattern
from usage import charts, log, summaries
from usage.summaries import Question, Span

COOKIE, SALT = "conduit_holder", "conduit.self-service"
HELD_SECONDS = 30 * 60
LONGEST = 200
PACE = "10/5m"
DAYS, LATEST, MOST_MODELS = 30, 20, 200
# One answer for every key that does not open the page: which of the reasons it is, is not told.
REFUSED = "This key opens nothing from here"
REASONS = "It may be mistyped, expired, disabled, revoked, or not for your address. Ask whoever gave it to you."


@never_cache
@csrf_protect
def self_service(request: HttpRequest) -> HttpResponse:
    """GET shows the form or the key's page; POST takes a key, or ends the visit (`leave`)."""
    if request.method not in ("GET", "HEAD", "POST"):
        return HttpResponseNotAllowed(["GET", "POST"])
    if request.method == "POST":
        return _left() if "leave" in request.POST else _entered(request)
    holder = _held(request)
    if holder is not None:
        return render(request, "self/key.html", _page(request, holder))
    return render(request, "self/enter.html", {"host": request.get_host()})


def _address(request: HttpRequest) -> str:
    return str(request.META.get("REMOTE_ADDR", ""))


def _entered(request: HttpRequest) -> HttpResponse:
    try:
        demand_pace(request, group="self-service", value=_address(request), rate=PACE)
    except TooMany as error:
        answer = _refused(request, "Too many tries", str(error), 429)
        answer["Retry-After"] = str(error.retry_after)
        return answer
    except CountingUnavailable as error:
        return _refused(request, "Not possible at the moment", str(error), 503)
    raw = Secret(request.POST.get("key", "").strip()[:LONGEST])
    holder = holding.holder_of(raw, _address(request))
    if holder is None:
        return _refused(request, REFUSED, REASONS, 422)
    answer = HttpResponseRedirect(reverse("self"), status=303)
    answer.set_cookie(
        COOKIE,
        signing.dumps(holder.secret.pk, salt=SALT),
        max_age=HELD_SECONDS,
        path=reverse("self"),
        secure=settings.SESSION_COOKIE_SECURE,
        httponly=True,
        samesite="Strict",
    )
    return answer


def _refused(request: HttpRequest, problem: str, way_out: str, status: int) -> HttpResponse:
    context = {"host": request.get_host(), "problem": problem, "way_out": way_out}
    return render(request, "self/enter.html", context, status=status)


def _left() -> HttpResponse:
    answer = HttpResponseRedirect(reverse("self"), status=303)
    answer.delete_cookie(COOKIE, path=reverse("self"), samesite="Strict")
    return answer


def _held(request: HttpRequest) -> Holder | None:
    try:
        secret_id = signing.loads(request.COOKIES.get(COOKIE, ""), salt=SALT, max_age=HELD_SECONDS)
    except signing.BadSignature:
        return None
    return holding.still_held(secret_id, _address(request))


def _page(request: HttpRequest, holder: Holder) -> dict[str, Any]:
    at, entry, key = clock.now(), holder.entry, holder.secret.key
    span = Span((at - timedelta(days=DAYS - 1)).replace(hour=0, minute=0, second=0, microsecond=0), at)
    question = Question(SYSTEM, span, {"key": [entry.id]})
    names = Route.objects.filter(enabled=True).order_by("name").values_list("name", flat=True)
    models = [name for name in names if (entry.may_use_some if is_pattern(name) else entry.may_use_model)(name)]
    own, above = _limits(holder, at)
    return {
        "key": key,
        "hint": f"cdt_vk_{holder.secret.public_id}…{holder.secret.last_four}",
        "holder": holder,
        "expires_at": key.expires_at,
        "models": models[:MOST_MODELS],
        "more_models": max(0, len(models) - MOST_MODELS),
        "endpoints": sorted(frozenset.intersection(*entry.endpoint_rules)) if entry.endpoint_rules else None,
        "networks": entries.allowed_networks(entry),
        "meters": own,
        "above": above,
        "rates_now": rate_rows.rows([scope for scope in entry.rates if scope.kind == "key"]),
        "days": DAYS,
        "total": summaries.total(question),
        "chart": _chart(question),
        "latest": log.page(SYSTEM, log.Filters(span.start, key=entry.id), limit=LATEST).rows,
        "snippets": snippets.without_secret(snippets.address(request), models[0] if models else "MODEL"),
    }


def _limits(holder: Holder, at: datetime) -> tuple[list[Meter], list[dict[str, Any]]]:
    """Its own budgets whole; of those above it what they leave, not what others spent of them."""
    rows = Budget.objects.filter(id__in=[budget.id for budget in holder.entry.budgets], removed_at=None).order_by("id")
    states = budgets.states_of(list(rows), at)
    own = [meter_of(state, "This key") for state in states if state.owner_id == holder.entry.id]
    above = [
        {"left": max(0, state.remaining_nanos), "window": state.window, "resets_at": state.resets_at}
        for state in states
        if state.owner_id != holder.entry.id and state.kind == "hard"
    ]
    return own, above


def _chart(question: Question) -> charts.Chart | None:
    """Spend per day by the name the holder asked for."""
    starts = [question.span.start + timedelta(days=number) for number in range(DAYS)]
    places = {start: place for place, start in enumerate(starts)}
    series: dict[str, list[int]] = {}
    for (route, day), sums in summaries.grouped(question, ["route", "day"]):
        if sums.cost_nanos:
            series.setdefault(route or "no model", [0] * DAYS)[places[day]] += sums.cost_nanos
    if not series:
        return None
    labels = [f"{start.day} {start:%b}" for start in starts]
    return charts.stacked("self-spend", "Spend per day by model", ("Day (UTC)", labels), charts.largest(series))
