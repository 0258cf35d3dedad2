"""Acts on keys and raises from their pages. The pages themselves join them with usage and are in conduit/console."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from conduit.access.pages import go, page
from conduit.access.permissions import demand_scope
from conduit.core.actor import Actor
from conduit.core.errors import Conflict, InvalidInput, NotFound
from keys.issuing import delete_key, disable_key, enable_key, expire_key, revoke_key, update_key
from keys.models import BudgetRaise, VirtualKey
from keys.raises import end_raise
from keys.rotation import extend_rotation, finish_rotation

Act = Callable[..., VirtualKey]


def _find(actor: Actor, key_id: UUID) -> VirtualKey:
    """Raises NotFound for another team's key too, before anything is said about it."""
    key = VirtualKey.objects.filter(id=key_id).first()
    if key is None:
        raise NotFound("")
    demand_scope(actor, key.team_id)
    return key


def _act(request: HttpRequest, actor: Actor, key_id: UUID, act: Act, said: str) -> HttpResponse:
    key = _find(actor, key_id)
    try:
        act(key, actor=actor)
    except InvalidInput as error:
        raise Conflict(f"{error.detail} Nothing was changed.") from None
    messages.success(request, said.format(key.name))
    return go(request, reverse("key-detail", args=[key.id]))


@page("keys", write=True, methods=("POST",))
def key_disable(request: HttpRequest, actor: Actor, key_id: UUID) -> HttpResponse:
    return _act(request, actor, key_id, disable_key, "{} is disabled: its callers get 401 until you enable it again.")


@page("keys", write=True, methods=("POST",))
def key_enable(request: HttpRequest, actor: Actor, key_id: UUID) -> HttpResponse:
    return _act(request, actor, key_id, enable_key, "{} is enabled.")


@page("keys", write=True, methods=("POST",))
def key_revoke(request: HttpRequest, actor: Actor, key_id: UUID) -> HttpResponse:
    _confirmed(request, actor, key_id)
    return _act(request, actor, key_id, revoke_key, "{} is revoked. Its callers get 401 from now on.")


@page("keys", write=True, methods=("POST",))
def key_delete(request: HttpRequest, actor: Actor, key_id: UUID) -> HttpResponse:
    key = _confirmed(request, actor, key_id)
    delete_key(key, actor=actor)
    messages.success(request, f"{key.name} is deleted. Its callers get 401 from now on.")
    return go(request, reverse("keys"))


def _confirmed(request: HttpRequest, actor: Actor, key_id: UUID) -> VirtualKey:
    """What cannot be undone wants the key's name typed. Raises Conflict."""
    key = _find(actor, key_id)
    if request.POST.get("confirm") != key.name:
        raise Conflict(f"Type {key.name} to confirm. Nothing was changed.")
    return key


@page("keys", write=True, methods=("POST",))
def key_finish(request: HttpRequest, actor: Actor, key_id: UUID) -> HttpResponse:
    return _act(request, actor, key_id, finish_rotation, "The old secret of {} has ended: who calls with it gets 401.")


@page("keys", write=True, methods=("POST",))
def key_extend(request: HttpRequest, actor: Actor, key_id: UUID) -> HttpResponse:
    """`overlap_seconds` from now on."""
    typed = request.POST.get("overlap_seconds", "")
    seconds = int(typed) if typed.isascii() and typed.isdigit() and len(typed) < 10 else -1
    act = partial(extend_rotation, overlap_seconds=seconds)
    return _act(request, actor, key_id, act, "The old secret of {} works longer.")


@page("keys", write=True, methods=("POST",))
def key_expire(request: HttpRequest, actor: Actor, key_id: UUID) -> HttpResponse:
    """`when`: `now`, `never`, or `day` with `expires_on`, which ends the key at 00:00 UTC of that day."""
    when, day = request.POST.get("when", ""), request.POST.get("expires_on", "")
    if when == "now":
        return _act(request, actor, key_id, expire_key, "{} has expired. Set a later end to make it work again.")
    end = None if when == "never" else f"{day}T00:00:00Z"
    act = partial(update_key, changes={"expires_at": end})
    return _act(request, actor, key_id, act, "{} " + ("has no end." if end is None else f"ends at {day} 00:00 UTC."))


@page("budgets", write=True, methods=("POST",))
def raise_end(request: HttpRequest, actor: Actor, raise_id: int) -> HttpResponse:
    """Back to the limit as it was, now."""
    raised = BudgetRaise.objects.filter(pk=raise_id).first()
    if raised is None:
        raise NotFound("")
    end_raise(raised, actor=actor)
    messages.success(request, "The raise has ended: its budget's limit is as before.")
    return go(request, reverse("budgets"))
