"""Whose budgets they are: names of owners in any app, the team that an owner belongs to, and who may see which."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from django.apps import apps
from django.db.models import Q, QuerySet

from conduit.access import permissions
from conduit.core import audit
from conduit.core.actor import Actor
from conduit.core.budgeting import KINDS
from conduit.core.errors import InvalidInput, NotFound
from conduit.core.fields import parse_choice
from keys.models import Budget, Customer, OwnerKind, Team, VirtualKey, Window

CHOICES = {"owner_kind": OwnerKind.values, "window": Window.values, "kind": list(KINDS)}


def owner_models() -> dict[str, Any]:
    """Owner kind → model. A provider is an owner too, but lives in an app that keys must not import."""
    return {
        OwnerKind.KEY: VirtualKey,
        OwnerKind.TEAM: Team,
        OwnerKind.CUSTOMER: Customer,
        OwnerKind.PROVIDER: apps.get_model("providers", "Provider"),
    }


def owner_names(rows: Iterable[Budget]) -> dict[tuple[str, UUID], str]:
    """(kind, id) → name, one query per kind."""
    ids: dict[str, set[UUID]] = defaultdict(set)
    for row in rows:
        ids[row.owner_kind].add(row.owner_id)
    models, names = owner_models(), {}
    for kind, wanted in ids.items():
        for owner_id, name in models[kind].objects.filter(pk__in=wanted).values_list("id", "name"):
            names[kind, owner_id] = name
    return names


def team_of(budget: Budget) -> UUID | None:
    """The team whose people may change it; None for what belongs to no team."""
    if budget.owner_kind == OwnerKind.TEAM:
        return budget.owner_id
    if budget.owner_kind == OwnerKind.PROVIDER:
        return None
    found = owner_models()[budget.owner_kind].objects.filter(pk=budget.owner_id).values_list("team_id", flat=True)
    team: UUID | None = found.first()
    return team


def visible(actor: Actor) -> QuerySet[Budget]:
    """Budgets in force that the actor may see. Those of providers and of what has no team are for all teams' people."""
    rows = Budget.objects.filter(removed_at=None)
    if actor.teams is None:
        return rows
    keys = VirtualKey.objects.filter(team__in=actor.teams).values("id")
    customers = Customer.objects.filter(team__in=actor.teams).values("id")
    return rows.filter(
        Q(owner_kind=OwnerKind.TEAM, owner_id__in=actor.teams)
        | Q(owner_kind=OwnerKind.KEY, owner_id__in=keys)
        | Q(owner_kind=OwnerKind.CUSTOMER, owner_id__in=customers)
    )


def owned_by(reference: str) -> Q:
    """Budgets of the owners with this id or name, whatever their kind."""
    try:
        return Q(owner_id=UUID(reference))
    except ValueError:
        pass
    found = Q()
    for kind, model in owner_models().items():
        found |= Q(owner_kind=kind, owner_id__in=model.objects.filter(name=reference).values("id"))
    return found


def filtered(rows: QuerySet[Budget], asked: Mapping[str, str]) -> QuerySet[Budget]:
    """By `owner_kind`, `owner` (id or name), `window` and `kind`. Raises InvalidInput naming the parameter."""
    for name, choices in CHOICES.items():
        if name in asked:
            try:
                rows = rows.filter(**{name: parse_choice(asked[name], choices)})
            except InvalidInput as error:
                raise InvalidInput(name, error.detail, error.code) from None
    return rows.filter(owned_by(asked["owner"])) if "owner" in asked else rows


def find(actor: Actor, budget_id: UUID, *, lock: bool = False) -> Budget:
    """Raises NotFound for a budget that is not in force or not the actor's to see."""
    rows = visible(actor)
    if lock:
        audit.lock()
        rows = rows.select_for_update(no_key=True)
    row = rows.filter(pk=budget_id).first()
    if row is None:
        raise NotFound("There is no such budget, or not for this caller.")
    return row


def may_raise(actor: Actor, owner_kind: str) -> bool:
    """Whether the role allows it for budgets that the actor can see; a provider's also needs the right to change it."""
    if not permissions.may(actor, "budgets", write=True):
        return False
    return owner_kind != OwnerKind.PROVIDER or permissions.may(actor, "providers", write=True)
