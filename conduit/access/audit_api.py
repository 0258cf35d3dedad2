"""The management API's audit log: read, verify, export."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from itertools import islice
from typing import Any, ClassVar

from asgiref.sync import sync_to_async
from django.http import StreamingHttpResponse
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from conduit.access import audit_log
from conduit.access.errors import CountingUnavailable
from conduit.access.pace import demand_pace
from conduit.core.api import ResourceView, RFC3339Field, actor_of, described, page
from conduit.core.clock import now
from conduit.core.errors import InvalidInput

LINES = 500
PACE = "30/m"  # verifications of one caller


class AuditOutput(serializers.Serializer[Any]):
    id = serializers.CharField()
    number = serializers.IntegerField(help_text="1, 2, 3 … without a gap")
    time = RFC3339Field()
    actor = serializers.DictField(child=serializers.CharField())
    action = serializers.CharField()
    object = serializers.DictField(child=serializers.CharField())
    team = serializers.UUIDField(allow_null=True)
    before = serializers.DictField(allow_null=True)
    after = serializers.DictField(allow_null=True)
    request_id = serializers.CharField()
    address = serializers.CharField(help_text="from where; empty for commands and Conduit itself")


class AuditFault(serializers.Serializer[Any]):
    number = serializers.IntegerField(help_text="of the first entry that is wrong")
    kind = serializers.CharField(help_text="edited, missing, reordered, inserted, truncated, forged head or replaced")
    detail = serializers.CharField()


class AuditVerification(serializers.Serializer[Any]):
    ok = serializers.BooleanField()
    entries = serializers.IntegerField(help_text="intact from the first on")
    total = serializers.IntegerField()
    head = serializers.CharField(help_text="MAC of the last intact entry, hexadecimal")
    fault = AuditFault(allow_null=True)
    checkpoints = serializers.IntegerField(help_text="outside the database, that agree")
    anchored_at = RFC3339Field(allow_null=True)
    notes = serializers.ListField(child=serializers.CharField(), help_text="what could not be compared")
    first = serializers.IntegerField(help_text="of the walked entries; above 1, those before were intact at whole_at")
    time = RFC3339Field()
    whole_at = RFC3339Field(allow_null=True, help_text="when the whole log was last walked")


class Audit(ResourceView):
    resource = "audit"
    query = frozenset(audit_log.FILTERS)

    @described("Read the audit log, newest first", response=AuditOutput, many=True, query=audit_log.FILTERS)
    def get(self, request: Request) -> Response:
        rows = audit_log.entries(request.query_params)
        return page(request, rows, serialize=audit_log.body)


class Verify(ResourceView):
    resource = "audit"
    query: ClassVar[frozenset[str]] = frozenset({"full"})

    @described(
        "Verify the audit log's chain, head and checkpoints",
        response=AuditVerification,
        query={"full": "true walks a long log from its beginning; else only what came since the last time"},
    )
    def get(self, request: Request) -> Response:
        full = request.query_params.get("full", "false")
        if full not in ("true", "false"):
            raise InvalidInput("full", "Must be true or false.", "invalid")
        with suppress(CountingUnavailable):  # one at a time in any case, and the caller is known
            demand_pace(request._request, group="audit-verify", value=actor_of(request).reference, rate=PACE)
        told, made_now = audit_log.verify_in_turn(whole=full == "true")
        if not made_now:
            told = {**told, "notes": [*told["notes"], f"Another verification is under way: this is of {told['time']}."]}
        return Response(told)


class Export(ResourceView):
    resource = "audit"
    query: ClassVar[frozenset[str]] = frozenset({"from", "to"})

    @described(  # type: ignore[type-var]  # not DRF's Response
        "Export the audit log with proof, oldest first",
        query={name: audit_log.FILTERS[name] for name in ("from", "to")},
    )
    def get(self, request: Request) -> StreamingHttpResponse:
        span = [
            audit_log.instant(name, request.query_params[name]) if name in request.query_params else None
            for name in ("from", "to")
        ]
        return download(audit_log.export(actor_of(request), *span))


def download(lines: Iterator[str]) -> StreamingHttpResponse:
    """The file as an answer, made while it is taken."""

    async def body() -> AsyncIterator[str]:
        while text := await sync_to_async(_some)(lines):
            yield text

    name = f"conduit-audit-{now():%Y%m%d-%H%M%S}.jsonl"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingHttpResponse(body(), content_type="application/jsonl", headers=headers)


def _some(lines: Iterator[str]) -> str:
    return "".join(islice(lines, LINES))
