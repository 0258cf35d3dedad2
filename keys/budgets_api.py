"""The management API's budgets: read them, and raise one for a while. They are set on their owners."""

from __future__ import annotations

from typing import ClassVar
from uuid import UUID

from rest_framework.request import Request
from rest_framework.response import Response

from conduit.core.api import ResourceView, actor_of, described, page, parsed
from conduit.core.budgeting import KINDS, BudgetOutput
from conduit.core.errors import NotFound
from keys import budget_owners, budgets, raises, representation
from keys.api import find_key
from keys.models import BudgetRaise, OwnerKind, Window
from keys.serializers import RaiseInput


class Budgets(ResourceView):
    resource = "budgets"
    query: ClassVar[frozenset[str]] = frozenset({*budget_owners.CHOICES, "owner"})

    @described(
        "List budgets",
        response=BudgetOutput,
        many=True,
        query={
            "owner_kind": ", ".join(OwnerKind.values),
            "owner": "id or name",
            "window": ", ".join(Window.values),
            "kind": ", ".join(KINDS),
        },
    )
    def get(self, request: Request) -> Response:
        rows = budget_owners.filtered(budget_owners.visible(actor_of(request)), request.query_params.dict())
        return page(request, rows, serialize_all=representation.of_budgets)


class OneBudget(ResourceView):
    resource = "budgets"

    @described("Read a budget", response=BudgetOutput)
    def get(self, request: Request, budget_id: UUID) -> Response:
        return self.one(representation.of_budgets([budget_owners.find(actor_of(request), budget_id)])[0])


class RaiseBudget(ResourceView):
    resource = "budgets"

    @described("Raise a budget for a while", request=RaiseInput, response=BudgetOutput, status=201)
    def post(self, request: Request, budget_id: UUID) -> Response:
        actor, body = actor_of(request), parsed(RaiseInput, request)
        row = budget_owners.find(actor, budget_id)
        raises.raise_budget(row, actor=actor, extra_nanos=body["extra_usd"], until=body["until"])
        return self.one(representation.of_budgets([row])[0], status=201)


class OneRaise(ResourceView):
    resource = "budgets"

    @described("End a raise before its time", status=204)
    def delete(self, request: Request, budget_id: UUID, raise_id: int) -> Response:
        row = BudgetRaise.objects.filter(pk=raise_id, budget=budget_id).first()
        if row is None:
            raise NotFound("")
        raises.end_raise(row, actor=actor_of(request))
        return Response(status=204)


class KeyBudgets(ResourceView):
    resource = "budgets"

    @described("Read a key's budgets", response=BudgetOutput, many=True)
    def get(self, request: Request, key_id: UUID) -> Response:
        key = find_key(actor_of(request), key_id)
        states = budgets.current(OwnerKind.KEY, key.id)
        return Response({"data": [representation.owned(state, key.name) for state in states], "next": None})
