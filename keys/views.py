"""Acts on keys and raises from their pages. The pages themselves join them with usage and are in conduit/console."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from conduit.access.pages import go, page
from conduit.core.actor import Actor
from conduit.core.errors import Conflict, NotFound
from keys.issuing import disable_key, enable_key, revoke_key
from keys.models import BudgetRaise, VirtualKey
from keys.raises import end_raise

Act = Callable[..., VirtualKey]


def _act(request: HttpRequest, actor: Actor, key_id: UUID, act: Act, said: str) -> HttpResponse:
    key = VirtualKey.objects.filter(id=key_id).first()
    if key is None:
        raise NotFound("")
    act(key, actor=actor)
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
    """The name must be typed: it cannot be undone."""
    name = VirtualKey.objects.filter(id=key_id).values_list("name", flat=True).first()
    if name is not None and request.POST.get("confirm") != name:
        raise Conflict(f"Type {name} to confirm. Nothing was changed.")
    return _act(request, actor, key_id, revoke_key, "{} is revoked. Its callers get 401 from now on.")


@page("budgets", write=True, methods=("POST",))
def raise_end(request: HttpRequest, actor: Actor, raise_id: int) -> HttpResponse:
    """Back to the limit as it was, now."""
    raised = BudgetRaise.objects.filter(pk=raise_id).first()
    if raised is None:
        raise NotFound("")
    end_raise(raised, actor=actor)
    messages.success(request, "The raise has ended: its budget's limit is as before.")
    return go(request, reverse("budgets"))
