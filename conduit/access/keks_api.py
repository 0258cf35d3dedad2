"""The management API of the key ring: who holds which key-encryption key, and the steps of changing it."""

from __future__ import annotations

import time
from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from conduit.core import idempotency, keks
from conduit.core.api import ResourceView, Strict, Text, actor_of, described, parsed
from conduit.core.keks import KekStatus, Rotated
from conduit.core.rewrap import Progress

WORK_SECONDS = 5.0  # a call rewraps for this long; the recurring job does the rest
PATIENCE_SECONDS = 5.0  # processes look at the key file each second and report each two


class KekInput(Strict):
    id = Text(longest=64, shortest=1, required=False)


class KekOutput(serializers.Serializer[Any]):
    id = serializers.CharField()
    kind = serializers.CharField(help_text="local, or the service that keeps it; empty: rows need it and it is not set")
    primary = serializers.BooleanField(help_text="whether it encrypts")
    needed = serializers.IntegerField(help_text="wrapped keys under it")
    rows = serializers.DictField(child=serializers.IntegerField(), help_text="the same by table")
    holders = serializers.ListField(child=serializers.CharField(), help_text="live processes that hold it")
    lacking = serializers.ListField(child=serializers.CharField(), help_text="live processes that do not")
    encrypting = serializers.ListField(child=serializers.CharField(), help_text="live processes that encrypt with it")


class PurposeKeyOutput(serializers.Serializer[Any]):
    purpose = serializers.CharField()
    version = serializers.IntegerField()
    kek = serializers.CharField()
    newest = serializers.BooleanField()
    rows = serializers.IntegerField(allow_null=True, help_text="rows that still name this version; null: none do")


class KeyRingOutput(serializers.Serializer[Any]):
    source = serializers.CharField(  # type: ignore[assignment]  # a field of the answer, not DRF's own attribute
        help_text="the key file, or the environment"
    )
    data = KekOutput(many=True)  # type: ignore[assignment]  # the name every list of the API has
    purposes = PurposeKeyOutput(many=True)


class KekProgress(serializers.Serializer[Any]):
    to = serializers.CharField()
    total = serializers.IntegerField()
    done = serializers.IntegerField()
    left = serializers.IntegerField()


class UnopenedRow(serializers.Serializer[Any]):
    table = serializers.CharField()
    id = serializers.CharField()
    reason = serializers.CharField()


class KekRotated(KekProgress):
    unopened = UnopenedRow(many=True)
    behind = serializers.ListField(child=serializers.CharField(), help_text="processes that encrypt with another key")


class KekRetired(serializers.Serializer[Any]):
    detail = serializers.CharField(help_text="what is left to do")


class PurposeRotated(serializers.Serializer[Any]):
    purpose = serializers.CharField()
    version = serializers.IntegerField()


def kek_body(one: KekStatus) -> dict[str, Any]:
    return {
        "id": one.id,
        "kind": one.kind,
        "primary": one.primary,
        "needed": one.needed,
        "rows": one.rows,
        "holders": one.holders,
        "lacking": one.lacking,
        "encrypting": one.encrypting,
    }


def ring_body() -> dict[str, Any]:
    purposes = [
        {"purpose": one.purpose, "version": one.version, "kek": one.kek_id, "newest": one.newest, "rows": one.rows}
        for one in keks.purposes()
    ]
    return {"source": keks.source(), "data": [kek_body(one) for one in keks.status()], "purposes": purposes}


def progress_body(one: Progress) -> dict[str, Any]:
    return {"to": one.to, "total": one.total, "done": one.done, "left": one.left}


def rotated_body(one: Rotated) -> dict[str, Any]:
    unopened = [{"table": row.table, "id": row.id, "reason": row.reason} for row in one.unopened]
    return {**progress_body(one.progress), "unopened": unopened, "behind": one.behind}


class Keks(ResourceView):
    resource = "keks"

    @described("Read the key ring", response=KeyRingOutput)
    def get(self, request: Request) -> Response:
        return Response(ring_body())

    @described("Add a key-encryption key to the key file", request=KekInput, response=KekOutput, status=201)
    def post(self, request: Request) -> Response:
        added = keks.add(actor=actor_of(request), kek_id=parsed(KekInput, request).get("id", ""))
        return Response(kek_body(next(one for one in keks.status() if one.id == added)), status=201)


class RotateKek(ResourceView):
    resource = "keks"

    @described("Make a key primary and move everything under it", response=KekRotated)
    def post(self, request: Request, kek_id: str) -> Response:
        parsed(Strict, request)
        # An answer that is kept for repeats is one transaction: the work is left to the job then.
        work = 0.0 if idempotency.HEADER in request.headers else WORK_SECONDS + PATIENCE_SECONDS
        until = time.monotonic() + work
        done = keks.rotate(actor=actor_of(request), to=kek_id, patience=PATIENCE_SECONDS, until=until)
        return Response(rotated_body(done))


class RetireKek(ResourceView):
    resource = "keks"

    @described("Take away a key that nothing needs", response=KekRetired)
    def post(self, request: Request, kek_id: str) -> Response:
        parsed(Strict, request)
        return Response({"detail": keks.retire(kek_id, actor=actor_of(request))})


class KeksProgress(ResourceView):
    resource = "keks"

    @described("Read how much lies under the primary key", response=KekProgress)
    def get(self, request: Request) -> Response:
        return Response(progress_body(keks.progress()))


class RotatePurpose(ResourceView):
    resource = "keks"

    @described("Make a new version of a purpose's own key", response=PurposeRotated)
    def post(self, request: Request, purpose: str) -> Response:
        parsed(Strict, request)
        return Response({"purpose": purpose, "version": keks.rotate_purpose(purpose, actor=actor_of(request))})
