"""Management API: what workers hold of budgets, and giving back what lost ones hold."""

from __future__ import annotations

from typing import Any, ClassVar
from uuid import UUID

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from conduit.core.api import ResourceView, RFC3339Field, actor_of, described, page, parsed
from conduit.core.errors import InvalidInput
from conduit.core.money import format_usd
from keys import live_leases
from keys.lost_workers import release
from keys.models import Worker
from keys.serializers import Nothing

STATES = ("running", "stopped", "all")


class OwnerOutput(serializers.Serializer[Any]):
    kind = serializers.CharField()
    id = serializers.CharField()
    name = serializers.CharField()


class PeriodOutput(serializers.Serializer[Any]):
    budget = serializers.UUIDField()
    owner = OwnerOutput()
    window = serializers.CharField()
    period_start = RFC3339Field()


class LeaseOutput(PeriodOutput):
    id = serializers.CharField()
    worker = serializers.UUIDField()
    node = serializers.CharField()
    pid = serializers.IntegerField()
    seen_at = RFC3339Field(help_text="when the worker was last seen")
    open_usd = serializers.CharField(help_text="what it may still spend without asking")
    held_usd = serializers.CharField(help_text="of it, held by requests in flight at its last renewal")
    granted_at = RFC3339Field()
    age_seconds = serializers.IntegerField()


class WorkerOutput(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    node = serializers.CharField()
    pid = serializers.IntegerField()
    state = serializers.ChoiceField(["serving", "silent", "lost", "stopped"])
    started_at = RFC3339Field()
    seen_at = RFC3339Field()
    stopped_at = RFC3339Field(allow_null=True)
    leases = serializers.IntegerField()
    open_usd = serializers.CharField()
    held_usd = serializers.CharField()


class ReleasedOutput(serializers.Serializer[Any]):
    worker = serializers.UUIDField()
    node = serializers.CharField()
    pid = serializers.IntegerField()
    periods = serializers.IntegerField(help_text="budget periods that got something back")
    released_usd = serializers.CharField()


def _id(request: Request, name: str) -> UUID | None:
    text = request.query_params.get(name)
    if not text:
        return None
    try:
        return UUID(text)
    except ValueError:
        raise InvalidInput(name, "Is not an id.", "invalid_id") from None


class Leases(ResourceView):
    resource = "leases"
    query: ClassVar[frozenset[str]] = frozenset({"worker", "node", "budget"})

    @described(
        "List what workers hold of budgets now, newest lease first",
        response=LeaseOutput,
        many=True,
        query={"worker": "id of the worker", "node": "of this node", "budget": "id of the budget"},
    )
    def get(self, request: Request) -> Response:
        actor = actor_of(request)
        rows = live_leases.live(actor)
        if (worker := _id(request, "worker")) is not None:
            rows = rows.filter(worker_id=worker)
        if (budget := _id(request, "budget")) is not None:
            rows = live_leases.of_budget(rows, budget)
        if node := request.query_params.get("node"):
            rows = rows.filter(worker__node=node)
        return page(request, rows, serialize_all=lambda found: live_leases.lease_bodies(found, actor))


class Workers(ResourceView):
    resource = "leases"
    query: ClassVar[frozenset[str]] = frozenset({"node", "state"})

    @described(
        "List web workers, newest first",
        response=WorkerOutput,
        many=True,
        query={"node": "of this node", "state": "running (the default), stopped or all"},
    )
    def get(self, request: Request) -> Response:
        actor = actor_of(request)
        wanted = request.query_params.get("state", "running")
        if wanted not in STATES:
            raise InvalidInput("state", "Must be running, stopped or all.", "invalid_choice")
        rows = Worker.objects.all()
        if wanted != "all":
            rows = rows.filter(stopped_at__isnull=wanted == "running")
        if node := request.query_params.get("node"):
            rows = rows.filter(node=node)
        return page(
            request,
            rows,
            serialize_all=lambda found: live_leases.worker_bodies(found, actor),
            key=("-started_at", "-id"),
        )


class ReleaseWorker(ResourceView):
    resource = "leases"

    @described("Close the leases of a worker that never returns", request=Nothing, response=ReleasedOutput)
    def post(self, request: Request, worker_id: UUID) -> Response:
        parsed(Nothing, request)
        done = release(worker_id, actor=actor_of(request))
        return Response(
            {
                "worker": str(done.worker),
                "node": done.node,
                "pid": done.pid,
                "periods": done.periods,
                "released_usd": format_usd(done.nanos),
            }
        )
