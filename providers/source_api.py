"""Management API: reading the external sources of a credential's fields anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from conduit.core.api import ResourceView, actor_of, described, parsed
from providers import credentials, supply
from providers.representations import Nothing


class SourceOutcome(serializers.Serializer[Any]):
    field = serializers.CharField()
    source = serializers.CharField(  # type: ignore[assignment]  # the API's name
        help_text="the reference, such as vault:secret/openai#api_key"
    )
    ok = serializers.BooleanField()
    detail = serializers.CharField(help_text="why it could not be read, and what to do; empty when ok")


class SourcesOutput(serializers.Serializer[Any]):
    ok = serializers.BooleanField(help_text="all of them")
    sources = SourceOutcome(many=True)


def sources_body(found: Sequence[supply.Outcome]) -> dict[str, Any]:
    return {
        "ok": all(one.ok for one in found),
        "sources": [{"field": one.name, "source": one.source, "ok": one.ok, "detail": one.detail} for one in found],
    }


class Refresh(ResourceView):
    resource = "credentials"

    @described(
        "Read a credential's external sources now, in every worker", request=Nothing, response=SourcesOutput, status=200
    )
    def post(self, request: Request, id: str) -> Response:  # noqa: A002
        parsed(Nothing, request)
        return Response(sources_body(supply.refresh(credentials.find(id), actor=actor_of(request))))
