"""How providers, credentials, routes and models look in the management API: inputs, outputs, and their description."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from conduit.core import budgeting
from conduit.core.actor import Actor
from conduit.core.api import Choice, Flag, Parsed, RFC3339Field, Strict, Text, WholeNumber
from conduit.core.budgeting import BudgetOutput, BudgetsField
from conduit.core.clock import rfc3339
from conduit.core.errors import InvalidInput
from providers import catalogue_overrides, credentials, routes
from providers.adapters.registry import KINDS, ProviderKind
from providers.models import CatalogueModel, Credential, Provider, Route
from providers.providers import LIMITS, MAX_LIMIT, OWNER, PARALLEL_MAX
from providers.rotation_shapes import RotationOutput, rotation_body
from providers.versions import under_way

NEVER_SHOWN = "The secret is verified by a real call first. It is never returned."

# --- inputs --------------------------------------------------------------------------------------------------------


@extend_schema_field({"type": "object", "additionalProperties": True})
class PlainObject(Parsed):
    """A JSON object whose members the noun's own functions check."""

    def parse(self, value: object) -> Mapping[str, Any]:
        if not isinstance(value, Mapping):
            raise InvalidInput("", "Must be an object.", "invalid_type")
        return value


@extend_schema_field({"type": "string", "format": "password", "writeOnly": True})
class SecretText(Parsed):
    """A text that no answer repeats."""

    def parse(self, value: object) -> str:
        if not isinstance(value, str) or not value.strip():
            raise InvalidInput("", "Must be a text that is not empty.", "invalid_text")
        return value


class TargetShape(serializers.Serializer[Any]):
    provider = serializers.CharField(help_text="name or id")
    model = serializers.CharField(help_text="the provider's own name of the model")
    weight = serializers.IntegerField(required=False, default=100)
    priority = serializers.IntegerField(required=False, default=0)
    region = serializers.CharField(required=False, allow_blank=True)


@extend_schema_field(TargetShape(many=True))
class Targets(Parsed):
    def parse(self, value: object) -> Sequence[Any]:
        if not isinstance(value, list):
            raise InvalidInput("", "Must be a list.", "invalid_type")
        return value


class LimitFields(Strict):
    rpm = WholeNumber(low=1, high=MAX_LIMIT, required=False, allow_null=True)
    tpm = WholeNumber(low=1, high=MAX_LIMIT, required=False, allow_null=True)
    max_parallel = WholeNumber(low=1, high=PARALLEL_MAX, required=False, allow_null=True)


class ProviderChanges(LimitFields):
    name = Text(longest=120, shortest=1)
    base_url = Text(longest=500, required=False)
    region = Text(longest=64, required=False)
    options = PlainObject(required=False)
    enabled = Flag(required=False)
    budgets = BudgetsField(required=False)


class ProviderInput(ProviderChanges):
    kind = Choice(choices=list(KINDS))


class CredentialChanges(LimitFields):
    name = Text(longest=120, shortest=1)
    weight = WholeNumber(low=0, high=credentials.MAX_WEIGHT, required=False)
    account = Text(longest=120, required=False)
    expires_at = RFC3339Field(required=False, allow_null=True)
    enabled = Flag(required=False)


class CredentialInput(LimitFields):
    name = Text(longest=120, shortest=1)
    secret = SecretText(required=False)
    fields = PlainObject(  # type: ignore[assignment]  # the contract's name
        required=False,
        help_text='by name: a text, or {"from": REFERENCE} with env:CONDUIT_SECRET_…, file:/…, vault:MOUNT/PATH#FIELD '
        "or aws-sm:NAME#KEY",
    )
    weight = WholeNumber(low=0, high=credentials.MAX_WEIGHT, required=False)
    account = Text(longest=120, required=False)
    expires_at = RFC3339Field(required=False, allow_null=True)
    verify = Flag(required=False)


class RouteInput(Strict):
    name = Text(longest=200, shortest=1)
    targets = Targets()
    strategy = Choice(choices=list(routes.STRATEGIES), required=False)
    strict = Flag(required=False)
    timeout = WholeNumber(low=1, high=routes.MAX_SECONDS, required=False, allow_null=True)
    enabled = Flag(required=False)


@extend_schema_field({"type": "object", "additionalProperties": {"type": "boolean"}})
class Capabilities(Parsed):
    def parse(self, value: object) -> dict[str, bool]:
        return catalogue_overrides.parse_capabilities(value)


class ModelChanges(Strict):
    title = Text(longest=200, shortest=1)
    context_window = WholeNumber(low=1, high=catalogue_overrides.MAX_TOKENS, required=False, allow_null=True)
    max_output_tokens = WholeNumber(low=1, high=catalogue_overrides.MAX_TOKENS, required=False, allow_null=True)
    capabilities = Capabilities(required=False)
    deprecated = Flag(required=False)
    source = Choice(choices=["catalogue", "override"], required=False)  # type: ignore[assignment]  # the column's name


class Nothing(Strict):
    """An empty object."""


# --- outputs -------------------------------------------------------------------------------------------------------


class ProviderOutput(serializers.Serializer[Any]):
    id = serializers.CharField()
    name = serializers.CharField()
    kind = serializers.CharField()
    base_url = serializers.CharField(help_text="empty: the kind's own")
    region = serializers.CharField()
    options = serializers.DictField()
    enabled = serializers.BooleanField()
    rpm = serializers.IntegerField(allow_null=True)
    tpm = serializers.IntegerField(allow_null=True)
    max_parallel = serializers.IntegerField(allow_null=True)
    budgets = BudgetOutput(many=True, required=False, help_text="not for those who are narrowed to teams")
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()


def provider_body(row: Provider) -> dict[str, Any]:
    return {
        "id": str(row.id),
        "name": row.name,
        "kind": row.kind,
        "base_url": row.base_url,
        "region": row.region,
        "options": row.options,
        "enabled": row.enabled,
        "rpm": row.rpm,
        "tpm": row.tpm,
        "max_parallel": row.max_parallel,
        "created_at": rfc3339(row.created_at),
        "updated_at": rfc3339(row.updated_at),
    }


def provider_bodies(rows: Sequence[Provider], actor: Actor) -> list[dict[str, Any]]:
    """With budgets, but not for those narrowed to teams: what all teams spend at a provider is not theirs to see."""
    if actor.teams is not None:
        return [provider_body(row) for row in rows]
    owned = budgeting.keeper().bodies(OWNER, {row.id: row.name for row in rows})
    return [{**provider_body(row), "budgets": owned[row.id]} for row in rows]


class FieldOutput(serializers.Serializer[Any]):
    name = serializers.CharField()
    secret = serializers.BooleanField()
    required = serializers.BooleanField()  # type: ignore[assignment]  # the contract's name
    help = serializers.CharField()
    shape = serializers.CharField(help_text="empty: a text; else the kind of JSON object that it is")


class KindOutput(serializers.Serializer[Any]):
    kind = serializers.CharField()
    title = serializers.CharField()
    base_url = serializers.CharField(help_text="empty: one must be given")
    key_hint = serializers.CharField()
    fields = FieldOutput(many=True)  # type: ignore[assignment]  # the contract's name
    options = FieldOutput(many=True)
    endpoints = serializers.ListField(child=serializers.CharField())
    capabilities = serializers.DictField(child=serializers.BooleanField())


class KindsOutput(serializers.Serializer[Any]):
    data = KindOutput(many=True)  # type: ignore[assignment]  # the contract's name


def kind_body(row: ProviderKind) -> dict[str, Any]:
    return {
        "kind": row.kind,
        "title": row.title,
        "base_url": row.base_url,
        "key_hint": row.key_hint,
        "fields": [asdict(spec) for spec in row.fields],
        "options": [asdict(spec) for spec in row.options],
        "endpoints": [str(endpoint) for endpoint in row.endpoints],
        "capabilities": asdict(row.capabilities),
    }


class OutcomeOutput(serializers.Serializer[Any]):
    credential = serializers.CharField(help_text="id")
    name = serializers.CharField()
    ok = serializers.BooleanField()
    detail = serializers.CharField(help_text="the provider's own words, secrets masked; empty when ok")
    guidance = serializers.CharField()
    models = serializers.IntegerField(help_text="how many models it lists")
    latency_ms = serializers.IntegerField()


class VerifiedAllOutput(serializers.Serializer[Any]):
    ok = serializers.BooleanField(help_text="all of them")
    results = OutcomeOutput(many=True)


def verified_body(outcomes: Sequence[credentials.Outcome]) -> dict[str, Any]:
    return {
        "ok": all(outcome.ok for outcome in outcomes),
        "results": [outcome_body(outcome) for outcome in outcomes],
    }


def outcome_body(outcome: credentials.Outcome) -> dict[str, Any]:
    return {
        "credential": str(outcome.credential.id),
        "name": outcome.credential.name,
        "ok": outcome.ok,
        "detail": outcome.detail,
        "guidance": outcome.guidance,
        "models": len(outcome.models),
        "latency_ms": outcome.latency_ms,
    }


class ListedModel(serializers.Serializer[Any]):
    id = serializers.CharField()


class ListedModels(serializers.Serializer[Any]):
    data = ListedModel(many=True)  # type: ignore[assignment]  # the contract's name


class ProblemOutput(serializers.Serializer[Any]):
    reason = serializers.CharField()
    fix = serializers.CharField()


PREFETCH = ("versions__fields", "rotations__old", "rotations__new")


class CredentialOutput(serializers.Serializer[Any]):
    id = serializers.CharField()
    provider = serializers.CharField(help_text="name")
    provider_id = serializers.CharField()
    name = serializers.CharField()
    hint = serializers.CharField(help_text="prefix and last four characters; the secret itself is never returned")
    health = serializers.ChoiceField(["ok", "unverified", "failing", "expired", "disabled", "unreadable", "revoked"])
    problem = ProblemOutput(allow_null=True, help_text="why the stored secret does not open")
    version = serializers.IntegerField(allow_null=True, help_text="number of the active version")
    rotation = RotationOutput(allow_null=True, help_text="the one under way")
    sources = serializers.DictField(
        child=serializers.CharField(), help_text="field to reference, for those that are read from elsewhere"
    )
    weight = serializers.IntegerField()
    account = serializers.CharField()
    enabled = serializers.BooleanField()
    rpm = serializers.IntegerField(allow_null=True)
    tpm = serializers.IntegerField(allow_null=True)
    max_parallel = serializers.IntegerField(allow_null=True)
    expires_at = serializers.DateTimeField(allow_null=True)
    last_verified_at = serializers.DateTimeField(allow_null=True)
    last_used_at = serializers.DateTimeField(allow_null=True)
    last_error = serializers.CharField()
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()


def credential_body(row: Credential) -> dict[str, Any]:
    """Prefetch PREFETCH and select `provider` where many are rendered."""
    version, red, turning = credentials.active(row), credentials.problem(row), under_way(row)
    times = {name: getattr(row, name) for name in ("expires_at", "last_verified_at", "last_used_at")}
    return {
        "id": str(row.id),
        "provider": row.provider.name,
        "provider_id": str(row.provider_id),
        "name": row.name,
        "hint": credentials.hint(row),
        "health": credentials.health(row),
        "problem": {"reason": red.reason, "fix": red.fix} if red else None,
        "version": version.number if version else None,
        "rotation": rotation_body(turning) if turning else None,
        "sources": {part.name: part.hint for part in version.fields.all() if part.source} if version else {},
        "weight": row.weight,
        "account": row.account,
        "enabled": row.enabled,
        **{name: getattr(row, name) for name in LIMITS},
        **{name: rfc3339(at) if at else None for name, at in times.items()},
        "last_error": row.last_error,
        "created_at": rfc3339(row.created_at),
        "updated_at": rfc3339(row.updated_at),
    }


class RouteOutput(serializers.Serializer[Any]):
    id = serializers.CharField()
    name = serializers.CharField()
    strategy = serializers.CharField()
    strict = serializers.BooleanField()
    timeout = serializers.IntegerField(allow_null=True)
    enabled = serializers.BooleanField()
    targets = TargetShape(many=True)
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()


def route_body(row: Route) -> dict[str, Any]:
    times = {"created_at": rfc3339(row.created_at), "updated_at": rfc3339(row.updated_at)}
    return {"id": str(row.id), **routes.describe(row), **times}


class ModelOutput(serializers.Serializer[Any]):
    id = serializers.CharField()
    vendor = serializers.CharField()
    name = serializers.CharField()
    title = serializers.CharField()
    context_window = serializers.IntegerField(allow_null=True)
    max_output_tokens = serializers.IntegerField(allow_null=True)
    capabilities = serializers.DictField()
    deprecated = serializers.BooleanField()
    source = serializers.CharField()  # type: ignore[assignment]  # the column's name


def model_body(row: CatalogueModel) -> dict[str, Any]:
    names = ("vendor", "name", "title", "context_window", "max_output_tokens", "capabilities", "deprecated", "source")
    return {"id": str(row.id), **{name: getattr(row, name) for name in names}}
