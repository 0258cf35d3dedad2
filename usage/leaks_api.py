"""Management API: leak response. Which key is it, what could be done with it, and a fresh secret for it."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, ClassVar
from uuid import UUID

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from conduit.access.errors import CountingUnavailable
from conduit.access.pace import demand_pace
from conduit.core.api import MoneyField, Parsed, ResourceView, RFC3339Field, Strict, actor_of, described, parsed
from conduit.core.budgeting import BudgetOutput
from conduit.core.errors import InvalidInput
from conduit.core.fields import parse_time
from keys import representation
from keys.api import find_key
from keys.rotation import replace_secret
from keys.serializers import KeyCreated, ReplaceInput
from usage import blast_radius, leaks

PACE = "30/m"


@extend_schema_field({"type": "string", "maxLength": leaks.LONGEST})
class Pasted(Parsed):
    """Several lines as they were found; how long it may be is said by `leaks.identify`."""

    def parse(self, value: object) -> str:
        if not isinstance(value, str):
            raise InvalidInput("", "Must be a text.", "invalid_text")
        return value


class IdentifyInput(Strict):
    text = Pasted(help_text="a key, or any text that holds keys")


class LeakOwner(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    name = serializers.CharField()
    state = serializers.CharField(allow_null=True, help_text="null for who sees no more of keys than their names")
    team = serializers.CharField(allow_null=True)
    version = serializers.IntegerField(allow_null=True, help_text="which secret of the key, which version")
    provider = serializers.CharField(allow_null=True)


class LeakFound(serializers.Serializer[Any]):
    kind = serializers.ChoiceField(["virtual_key", "management_token", "provider_secret"])
    hint = serializers.CharField(help_text="what may be shown of it")
    public_id = serializers.CharField(allow_null=True)
    well_formed = serializers.BooleanField(help_text="its checksum is right")
    ours = serializers.BooleanField()
    live = serializers.BooleanField(allow_null=True, help_text="it works now; null: only its vendor can tell")
    detail = serializers.CharField()
    object = LeakOwner(allow_null=True, help_text="null too where it is not the caller's to see")


class LeakAnswer(serializers.Serializer[Any]):
    data = LeakFound(many=True)  # type: ignore[assignment]  # a serializer's own name, not used on output


class UsedModel(serializers.Serializer[Any]):
    model = serializers.CharField()
    requests = serializers.IntegerField()
    spend_usd = MoneyField()


class RadiusUse(serializers.Serializer[Any]):
    requests = serializers.IntegerField()
    refused = serializers.IntegerField()
    errors = serializers.IntegerField()  # type: ignore[assignment]  # a serializer's own name, not used on output
    spend_usd = MoneyField()
    models = UsedModel(many=True)
    refused_from = serializers.ListField(
        child=serializers.CharField(), help_text="addresses outside ip_allowlist that tried"
    )

    def get_fields(self) -> dict[str, Any]:
        return {"from": RFC3339Field(), **super().get_fields()}


class ChildKey(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    name = serializers.CharField()


class BlastRadiusOutput(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    name = serializers.CharField()
    usable = serializers.BooleanField(help_text="the key is active and one of its secrets is alive")
    models = serializers.ListField(child=serializers.CharField())
    endpoints = serializers.ListField(child=serializers.CharField())
    providers = serializers.ListField(child=serializers.CharField(), allow_null=True)
    ip_allowlist = serializers.ListField(
        child=serializers.CharField(), allow_null=True, help_text="null: every address; empty: none"
    )
    children = ChildKey(many=True, help_text="live keys delegated from it; a new secret does not touch theirs")
    budgets = BudgetOutput(many=True)
    left_usd = MoneyField(allow_null=True, help_text="what its hard budgets still allow; null: nothing bounds it")
    last_24h = RadiusUse()
    since = RadiusUse(allow_null=True)


class Identify(ResourceView):
    """Changes nothing but the audit log, so whoever may read keys may ask."""

    resource = "keys"
    reads = frozenset({"POST"})

    @described("Tell which keys and secrets a text holds", request=IdentifyInput, response=LeakAnswer)
    def post(self, request: Request) -> Response:
        actor = actor_of(request)
        with suppress(CountingUnavailable):  # a leak is answered although Valkey is away: the caller is known
            demand_pace(request._request, group="identify", value=actor.reference, rate=PACE)
        found = leaks.identify(parsed(IdentifyInput, request)["text"], actor=actor)
        return Response({"data": [one.outward() for one in found]})


class BlastRadius(ResourceView):
    resource = "keys"
    query: ClassVar[frozenset[str]] = frozenset({"since"})

    @described(
        "Tell what a key opens and what was done with it",
        response=BlastRadiusOutput,
        query={"since": "use from this time on, beside that of the last 24 hours"},
    )
    def get(self, request: Request, key_id: UUID) -> Response:
        actor, asked = actor_of(request), request.query_params.get("since")
        try:
            since = parse_time(asked) if asked else None
        except InvalidInput as error:
            raise InvalidInput("since", error.detail, error.code) from None
        found = blast_radius.blast_radius(find_key(actor, key_id), actor=actor, since=since)
        return Response(blast_radius.outward(found))


class ReplaceKey(ResourceView):
    """Idempotency-Key makes a lost reply repeatable: the same secret is told again."""

    resource = "keys"

    @described("Replace a key's secret at once; the old one is refused", request=ReplaceInput, response=KeyCreated)
    def post(self, request: Request, key_id: UUID) -> Response:
        actor = actor_of(request)
        key, raw = replace_secret(find_key(actor, key_id), actor=actor, **parsed(ReplaceInput, request))
        body = representation.keys([key], actor)[0]
        return self.one({**body, "key": raw.reveal()}, version=representation.version(body))
