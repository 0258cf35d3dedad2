"""Management API: attempts whose cost nobody knows, and what they are resolved to."""

from __future__ import annotations

from typing import Any, ClassVar
from uuid import UUID

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from conduit.core.api import (
    Choice,
    Flag,
    MoneyField,
    ResourceView,
    RFC3339Field,
    Strict,
    actor_of,
    described,
    page,
    parsed,
)
from conduit.core.errors import InvalidInput
from keys.leases_api import PeriodOutput
from keys.models import UncertainAttempt
from usage import uncertain


class UncertainOutput(serializers.Serializer[Any]):
    id = serializers.CharField(help_text="the attempt's id, which its usage event has too")
    time = RFC3339Field(help_text="when it was dispatched")
    request_id = serializers.CharField(allow_null=True)
    attempt = serializers.IntegerField(allow_null=True)
    team = serializers.CharField(allow_null=True)
    key = serializers.CharField(allow_null=True)
    key_name = serializers.CharField(allow_null=True)
    provider = serializers.CharField(allow_null=True)
    provider_name = serializers.CharField(allow_null=True)
    model = serializers.CharField(allow_null=True)
    held_usd = serializers.CharField(help_text="the worst case, held until it is resolved")
    reason = serializers.CharField()
    message = serializers.CharField()
    node = serializers.CharField()
    periods = PeriodOutput(many=True)
    resolved_at = RFC3339Field(allow_null=True)
    resolved_by = serializers.CharField(allow_null=True)
    cost_usd = serializers.CharField(allow_null=True)


class ResolveInput(Strict):
    """`billed` without `cost_usd` costs the whole hold. `from_invoice`: the provider's invoice says so."""

    outcome = Choice(choices=["unbilled", "billed"])
    cost_usd = MoneyField(required=False, allow_null=True)
    from_invoice = Flag(required=False)


class Uncertain(ResourceView):
    resource = uncertain.RESOURCE
    query: ClassVar[frozenset[str]] = frozenset(uncertain.FILTERS)

    @described(
        "List uncertain attempts, newest first",
        response=UncertainOutput,
        many=True,
        query={
            "state": "open (the default), resolved or all",
            "key": "id of the key",
            "team": "id of the team",
            "provider": "name or id",
            "model": "the upstream's name",
            "node": "of this node's workers",
            "reason": "such as uncertain",
            "from": "dispatched not before this time",
            "to": "dispatched before this time",
        },
    )
    def get(self, request: Request) -> Response:
        actor = actor_of(request)
        filters = {name: request.query_params[name] for name in uncertain.FILTERS if request.query_params.get(name)}
        return page(
            request,
            uncertain.open_attempts(actor, filters),
            serialize_all=lambda found: [uncertain.body(one) for one in uncertain.shown(found, actor)],
            key=uncertain.NEWEST_FIRST,
        )


class ResolveAttempt(ResourceView):
    resource = uncertain.RESOURCE

    @described("Say what an uncertain attempt cost", request=ResolveInput, response=UncertainOutput)
    def post(self, request: Request, attempt_id: UUID) -> Response:
        actor, given = actor_of(request), parsed(ResolveInput, request)
        row = uncertain.find_attempt(attempt_id, actor)
        done = uncertain.resolve(
            row.id,
            actor=actor,
            cost_nanos=cost_of(row, given["outcome"], given.get("cost_usd")),
            from_invoice=given.get("from_invoice", False),
        )
        return Response(uncertain.body(uncertain.shown([done], actor)[0]))


def cost_of(row: UncertainAttempt, outcome: str, cost: int | None) -> int:
    """Nano-dollars of the asked outcome. Raises InvalidInput where an unbilled attempt is given a cost."""
    if outcome == "billed":
        return row.held_nanos if cost is None else cost
    if cost:
        raise InvalidInput("cost_usd", "An unbilled attempt costs nothing: leave it out.", "invalid_combination")
    return 0
