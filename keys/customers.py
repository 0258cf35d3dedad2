"""Customers: the end users that applications name in their requests, with limits of their own within a team."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.db import transaction

from conduit.access import permissions
from conduit.core import audit
from conduit.core.actor import Actor
from conduit.core.errors import InvalidInput
from conduit.core.fields import parse_text
from keys import budget_specs, budgets, constraints
from keys.models import Customer, OwnerKind, Team

RESOURCE = "customers"


def put_customer(
    *,
    actor: Actor,
    name: str,
    team: Team | None = None,
    limits: Mapping[str, Any],
    specs: Sequence[budget_specs.BudgetSpec | Mapping[str, Any]] = (),
) -> tuple[Customer, bool]:
    """Makes the customer exactly this: what is left out has no limit. The flag says whether it is new.

    Raises InvalidInput naming the field, Forbidden, NotFound for another team.
    """
    permissions.demand(actor, RESOURCE)
    permissions.demand_scope(actor, team.id if team else None)
    try:
        name = parse_text(name, 254, shortest=1)
    except InvalidInput as error:
        raise InvalidInput("id", error.detail, error.code) from None
    wanted = budget_specs.parse_specs(list(specs))
    nothing = {"rpm": None, "tpm": None, "blocked": False}
    stored = constraints.clean({**nothing, **limits}, constraints.CUSTOMER_FIELDS)
    with transaction.atomic():
        audit.lock()
        customer, created = Customer.objects.select_for_update().get_or_create(team=team, name=name, defaults=stored)
        before = None if created else terms(customer)
        for field, value in stored.items():
            setattr(customer, field, value)
        old, new = audit.changes(before or {}, terms(customer))
        if new:
            customer.save()
            audit.record(
                actor=actor,
                action="customer.create" if created else "customer.update",
                kind="customer",
                id=customer.id,
                name=name,
                team_id=customer.team_id,
                before=None if created else old,
                after=new,
            )
        budgets.set_budgets(OwnerKind.CUSTOMER, customer.id, wanted, actor=actor)
    return customer, created


def terms(customer: Customer) -> dict[str, Any]:
    return constraints.outward(customer, constraints.CUSTOMER_FIELDS)
