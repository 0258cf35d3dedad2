"""Pages of routes: list, form, delete."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.db.models import Prefetch
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import render
from django.urls import reverse

from conduit.access.pages import go, page
from conduit.core import clock
from conduit.core.actor import Actor
from conduit.core.errors import Conflict, InvalidInput, NameTaken, NotFound
from providers.models import Provider, Route, Target
from providers.routes import add_route, delete_route, describe, update_route

BOTH = ("GET", "HEAD", "POST")
MOST_ROWS = 32
TARGET_PLACES = {"provider": "provider", "model": "model", "priority": "place", "weight": "weight"}


@page("routes")
def route_list(request: HttpRequest, actor: Actor) -> HttpResponse:
    ordered = Target.objects.select_related("provider").order_by("priority", "position")
    routes = Route.objects.prefetch_related(Prefetch("targets", queryset=ordered, to_attr="ordered")).order_by("name")
    return render(request, "providers/routes.html", {"crumbs": [{"title": "Routes"}], "routes": list(routes[:500])})


def blank_target(number: int, **given: str) -> dict[str, str]:
    return {"id": str(number), "provider": "", "model": "", "priority": "0", "weight": "100"} | given


def _rows(post: QueryDict) -> list[dict[str, str]]:
    """The rows as typed; one without a model is one that was taken away."""
    columns = [post.getlist(f"target_{name}")[:MOST_ROWS] for name in TARGET_PLACES]
    rows = [
        blank_target(
            number, provider=provider[:64], model=model.strip()[:400], priority=place.strip(), weight=weight.strip()
        )
        for number, (provider, model, place, weight) in enumerate(zip(*columns, strict=False))
    ]
    return [row | {"id": str(number)} for number, row in enumerate(r for r in rows if r["model"])]


def _whole(where: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 12):
        raise InvalidInput(where, "Must be a whole number.")
    return int(text)


def _body(values: Mapping[str, str], rows: list[dict[str, str]]) -> dict[str, Any]:
    """The form as the API's fields. Raises InvalidInput."""
    return {
        "targets": [
            {
                "provider": row["provider"],
                "model": row["model"],
                "priority": _whole(f"targets.{n}.priority", row["priority"]),
                "weight": _whole(f"targets.{n}.weight", row["weight"]),
            }
            for n, row in enumerate(rows)
        ],
        "strategy": values["strategy"],
        "strict": values["strict"] == "on",
        "enabled": values["enabled"] == "on",
        "timeout": _whole("timeout", values["timeout"]) if values["timeout"] else None,
    }


def _typed(post: QueryDict) -> dict[str, str]:
    return {name: post.get(name, "").strip()[:400] for name in ("name", "strategy", "strict", "enabled", "timeout")}


def _errors(error: InvalidInput | Conflict | None) -> dict[str, str]:
    if error is None:
        return {}
    if isinstance(error, InvalidInput):
        return {_place(error): error.detail}
    return {"name" if isinstance(error, NameTaken) else "": str(error)}


def _place(error: InvalidInput) -> str:
    """`targets.1.model` is the field `model-1` of the page."""
    parts = error.field.split(".")
    if parts[0] != "targets":
        return error.field
    if len(parts) < 3:
        return "model-0"
    return f"{TARGET_PLACES.get(parts[2], 'model')}-{parts[1]}"


@page("routes", write=True, methods=BOTH)
def route_create(request: HttpRequest, actor: Actor) -> HttpResponse:
    if request.method == "POST":
        values, rows = _typed(request.POST), _rows(request.POST)
        try:
            route = add_route(actor=actor, name=values["name"], **_body(values, rows))
        except (InvalidInput, Conflict) as error:
            return _form(request, None, values, rows, error)
        messages.success(request, f"Route {route.name} is in effect.")
        return go(request, reverse("routes"))
    values = {"name": request.GET.get("name", "")[:200], "strategy": "priority", "enabled": "on"}
    rows = [blank_target(0, provider=request.GET.get("provider", "")[:64])]
    return _form(request, None, values, rows)


def _find(route_id: UUID) -> Route:
    route = Route.objects.filter(id=route_id).first()
    if route is None:
        raise NotFound("")
    return route


@page("routes")
def route_show(request: HttpRequest, actor: Actor, route_id: UUID) -> HttpResponse:
    route = _find(route_id)
    values = {
        "strategy": route.strategy,
        "strict": "on" if route.strict else "",
        "enabled": "on" if route.enabled else "",
        "timeout": str(route.timeout or ""),
    }
    rows = [
        blank_target(number, provider=str(t.provider_id), model=t.model, priority=str(t.priority), weight=str(t.weight))
        for number, t in enumerate(route.targets.all())
    ]
    return _form(request, route, values, rows)


@page("routes", write=True, methods=BOTH)
def _route_save(request: HttpRequest, actor: Actor, route_id: UUID) -> HttpResponse:
    route = _find(route_id)
    values, rows = _typed(request.POST), _rows(request.POST)
    try:
        update_route(route, actor=actor, changes=_body(values, rows))
    except (InvalidInput, Conflict) as error:
        return _form(request, route, values, rows, error)
    messages.success(request, f"Route {route.name} is saved and in effect within a second.")
    return go(request, reverse("route-edit", args=[route.id]))


def route_edit(request: HttpRequest, route_id: UUID) -> HttpResponse:
    """Reading and saving need different rights."""
    return (_route_save if request.method == "POST" else route_show)(request, route_id=route_id)


def _form(
    request: HttpRequest,
    route: Route | None,
    values: Mapping[str, str],
    rows: list[dict[str, str]],
    error: InvalidInput | Conflict | None = None,
) -> HttpResponse:
    title = route.name if route else "Create route"
    context = {
        "crumbs": [{"title": "Routes", "url": reverse("routes")}, {"title": title}],
        "route": route,
        "values": values,
        "targets": rows or [blank_target(0)],
        "providers": Provider.objects.order_by("name"),
        "errors": _errors(error),
        "labels": {"name": "Route", "timeout": "Whole answer within"} | _row_labels(rows),
        "action": reverse("route-edit", args=[route.id]) if route else reverse("route-create"),
        "same_as": _same_as(request, route),
    }
    return render(request, "providers/route_edit.html", context, status=422 if error else 200)


def _row_labels(rows: list[dict[str, str]]) -> dict[str, str]:
    places = {"provider": "Provider", "model": "Model", "place": "Place", "weight": "Weight"}
    return {f"{key}-{n}": f"{title} of target {n + 1}" for n in range(len(rows) or 1) for key, title in places.items()}


def _same_as(request: HttpRequest, route: Route | None) -> list[dict[str, str]]:
    base = f"{request.scheme}://{request.get_host()}/api/v1/routes"
    body = (
        describe(route)
        if route
        else {"name": "NAME", "targets": [{"provider": "PROVIDER", "model": "MODEL", "priority": 0, "weight": 100}]}
    )
    how = f"-X PATCH {base}/{route.name}" if route else base
    if route:
        body.pop("name")
    text = (
        f'curl {how} \\\n  -H "Authorization: Bearer $CONDUIT_TOKEN" \\\n'
        f'  -H "Content-Type: application/json" \\\n  -d {shlex.quote(json.dumps(body, indent=2, ensure_ascii=False))}'
    )
    return [{"ident": "1", "title": "curl", "text": text}]


@page("routes", write=True)
def target_row(request: HttpRequest, actor: Actor) -> HttpResponse:
    """One more row for the form; its number only has to be unlike the others'."""
    number = int(clock.now().timestamp() * 1000) % 10**9
    context = {"target": blank_target(number), "providers": Provider.objects.order_by("name")}
    return render(request, "providers/target_row.html", context)


@page("routes", write=True, methods=("POST",))
def route_delete(request: HttpRequest, actor: Actor, route_id: UUID) -> HttpResponse:
    """The name must be typed: it cannot be undone."""
    route = _find(route_id)
    if request.POST.get("confirm") != route.name:
        raise Conflict(f"Type {route.name} to confirm. Nothing was changed.")
    delete_route(route, actor=actor)
    messages.success(request, f"Route {route.name} is deleted.")
    return go(request, reverse("routes"))
