"""The management API's `POST /simulate`. It lies here because it asks the proxy's own checks."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from conduit.access.api import IdField
from conduit.core.api import Choice, Parsed, ResourceView, Strict, Text, WholeNumber, actor_of, described, parsed
from conduit.core.errors import InvalidInput
from conduit.proxy.admission import MAX_TAG_CHARACTERS, MAX_TAGS
from conduit.proxy.simulation import ENDPOINTS, Asked, simulate
from keys.api import find_key
from keys.constraints import OUTPUT_MAX, parse_list, parse_tag
from providers.adapters.types import Dialect, Endpoint


@extend_schema_field({"type": "object", "additionalProperties": True})
class ObjectField(Parsed):
    def parse(self, value: object) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise InvalidInput("", "Must be an object: the request's JSON.", "invalid_object")
        return value


@extend_schema_field({"type": "array", "items": {"type": "string", "maxLength": MAX_TAG_CHARACTERS}})
class TagsField(Parsed):
    def parse(self, value: object) -> tuple[str, ...]:
        return tuple(parse_list(value, parse_tag, longest=MAX_TAGS))


class SimulateInput(Strict):
    key = IdField(help_text="id of the key")
    model = Text(longest=200, shortest=1, help_text="the route's name; it replaces the body's")
    dialect = Choice(choices=[name.value for name in ENDPOINTS], required=False)
    endpoint = Choice(choices=["chat", "messages", "generate", "embeddings"], required=False)
    body = ObjectField(required=False, help_text="the request's JSON; left out: a short one")
    max_output_tokens = WholeNumber(low=1, high=OUTPUT_MAX, required=False)
    customer = Text(longest=254, required=False)
    tags = TagsField(required=False)
    address = Text(longest=64, required=False, help_text="where it comes from; left out: not looked at")


class SimulatedPrice(serializers.Serializer[Any]):
    id = serializers.CharField()
    model = serializers.CharField()
    source = serializers.CharField()  # type: ignore[assignment]  # a serializer's own name, not used on output
    effective_from = serializers.DateTimeField()
    rates = serializers.DictField(child=serializers.CharField())


class Figures(serializers.Serializer[Any]):
    decision = serializers.ChoiceField(["allowed", "refused"])
    code = serializers.CharField(allow_null=True)
    message = serializers.CharField(allow_null=True)
    provider = serializers.CharField(allow_null=True)
    model = serializers.CharField(allow_null=True)
    output_cap = serializers.IntegerField(allow_null=True)
    input_tokens_bound = serializers.IntegerField(allow_null=True)
    hold_usd = serializers.CharField(allow_null=True)
    estimated_cost_usd = serializers.CharField(allow_null=True)
    dropped_params = serializers.ListField(child=serializers.CharField())
    checks = serializers.ListField(child=serializers.DictField())


class SimulatedCandidate(Figures):
    priority = serializers.IntegerField()
    weight = serializers.IntegerField()
    credential = serializers.CharField()
    price = SimulatedPrice(allow_null=True)


class SimulatedHold(serializers.Serializer[Any]):
    budget = serializers.CharField(required=False)
    scope = serializers.CharField()
    window = serializers.CharField()
    hold_usd = serializers.CharField()


class SimulateOutput(Figures):
    status = serializers.IntegerField()
    waits = serializers.BooleanField()
    route = serializers.CharField(allow_null=True)
    holds = SimulatedHold(many=True)
    candidates = SimulatedCandidate(many=True)


class Simulate(ResourceView):
    """Who may issue a key may ask what it could do; nothing is changed."""

    resource = "keys"

    @described("Simulate a request: every check, the route, the hold", request=SimulateInput, response=SimulateOutput)
    def post(self, request: Request) -> Response:
        actor, given = actor_of(request), parsed(SimulateInput, request)
        key = find_key(actor, given.pop("key"))
        dialect = Dialect(given.pop("dialect", Dialect.OPENAI))
        endpoint = Endpoint(given.pop("endpoint")) if "endpoint" in given else None
        return Response(simulate(Asked(key=key, dialect=dialect, endpoint=endpoint, **given), actor=actor))
