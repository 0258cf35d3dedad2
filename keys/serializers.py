"""Bodies of keys, teams, customers and budgets, in and out. Rules: constraints.py and budget_specs.py."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from conduit.core.api import Flag, MoneyField, Parsed, RFC3339Field, Strict, WholeNumber
from conduit.core.budgeting import BudgetOutput, BudgetsField
from conduit.core.clock import rfc3339
from conduit.core.errors import InvalidInput
from keys import constraints, delegation, teams
from keys.rotation import LONGEST_OVERLAP, OVERLAP


class Ruled(Parsed):
    """A field whose rule is the row of its own name in constraints.RULES."""

    def parse(self, value: object) -> Any:
        try:
            return constraints.parse_field(str(self.field_name), value)
        except InvalidInput as error:
            # `tags.3` is the field tags; the member stays
            _, dot, member = error.field.partition(".")
            raise InvalidInput(dot + member, error.detail, error.code) from None


def _list_of(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": item}


@extend_schema_field({"type": "string", "maxLength": 254})
class RuledText(Ruled):
    pass


@extend_schema_field(_list_of({"type": "string"}))
class RuledTexts(Ruled):
    pass


@extend_schema_field(_list_of({"type": "string", "enum": list(constraints.ENDPOINTS)}))
class RuledEndpoints(Ruled):
    pass


@extend_schema_field({"type": ["integer", "null"], "minimum": 1})
class RuledCount(Ruled):
    pass


@extend_schema_field({"type": ["string", "null"], "format": "date-time"})
class RuledTime(Ruled):
    def to_representation(self, value: Any) -> Any:
        return rfc3339(value) if value else None


@extend_schema_field({"type": "object", "additionalProperties": {"type": ["string", "number", "boolean", "null"]}})
class RuledObject(Ruled):
    pass


@extend_schema_field({"type": "boolean"})
class RuledFlag(Ruled):
    pass


@extend_schema_field({"type": ["string", "null"], "description": "id or name"})
class TeamField(Parsed):
    def parse(self, value: object) -> Any:
        return teams.find_team(value, "")


@extend_schema_field({"type": "string", "pattern": "^(service|personal)$"})
class RuledKind(Ruled):
    pass


@extend_schema_field({"type": ["string", "null"], "description": "of a personal key: e-mail address or id"})
class UserField(Parsed):
    def parse(self, value: object) -> Any:
        return delegation.find_user(value, self.context["actor"])


@extend_schema_field({"type": ["string", "null"], "description": "the key it is delegated from: id, or name"})
class ParentKeyField(Parsed):
    def parse(self, value: object) -> Any:
        return delegation.find_parent(value, self.context["actor"])


class TeamInput(Strict):
    name = RuledText()
    parent = TeamField(required=False, allow_null=True)  # type: ignore[assignment]  # DRF takes it off the class
    models = RuledTexts(required=False)
    endpoints = RuledEndpoints(required=False)
    budgets = BudgetsField(required=False)
    rpm = RuledCount(required=False, allow_null=True)
    tpm = RuledCount(required=False, allow_null=True)
    max_parallel = RuledCount(required=False, allow_null=True)
    tags = RuledTexts(required=False)
    metadata = RuledObject(required=False)


class KeyInput(Strict):
    name = RuledText()
    team = TeamField(required=False, allow_null=True)
    owner = RuledText(required=False)
    kind = RuledKind(required=False)
    user = UserField(required=False, allow_null=True)
    parent = ParentKeyField(required=False, allow_null=True)  # type: ignore[assignment]  # DRF takes it off the class
    models = RuledTexts(required=False)
    endpoints = RuledEndpoints(required=False)
    budgets = BudgetsField(required=False)
    rpm = RuledCount(required=False, allow_null=True)
    tpm = RuledCount(required=False, allow_null=True)
    max_parallel = RuledCount(required=False, allow_null=True)
    max_output_tokens = RuledCount(required=False, allow_null=True)
    expires_at = RuledTime(required=False, allow_null=True)
    ip_allowlist = RuledTexts(required=False)
    tags = RuledTexts(required=False)
    metadata = RuledObject(required=False)


class CustomerInput(Strict):
    team = TeamField(required=False, allow_null=True)
    budgets = BudgetsField(required=False)
    rpm = RuledCount(required=False, allow_null=True)
    tpm = RuledCount(required=False, allow_null=True)
    blocked = RuledFlag(required=False)


EXPECTED = "number of the newest secret as you saw it; 409 where it is another by now"


class Nothing(Strict):
    """A body that must be empty."""


class RotateInput(Strict):
    overlap_seconds = WholeNumber(
        high=LONGEST_OVERLAP, required=False, help_text=f"how long the old secret works on; {OVERLAP:,} unless given"
    )
    replace = Flag(required=False, help_text="another secret in place of the new one of the rotation under way")
    expected = WholeNumber(low=1, required=False, help_text=EXPECTED)


class ReplaceInput(Strict):
    expected = WholeNumber(low=1, required=False, help_text=EXPECTED)


class ExtendInput(Strict):
    overlap_seconds = WholeNumber(low=1, high=LONGEST_OVERLAP, help_text="from now on")


class RaiseInput(Strict):
    extra_usd = MoneyField(minimum=1, help_text="what the limit grows by")
    until = RFC3339Field(help_text="when the limit is as before again")


class TeamOutput(TeamInput):
    id = serializers.UUIDField()
    parent = serializers.UUIDField(allow_null=True)  # type: ignore[assignment]  # out as an id, in by id or name
    budgets = BudgetOutput(many=True)  # type: ignore[assignment]
    created_at = RFC3339Field()
    updated_at = RFC3339Field()


class KeyOutput(KeyInput):
    id = serializers.UUIDField()
    team = serializers.UUIDField(allow_null=True)  # type: ignore[assignment]  # out as an id, in by id or name
    team_name = serializers.CharField(allow_null=True)
    user = serializers.UUIDField(allow_null=True)  # type: ignore[assignment]  # out as an id
    user_email = serializers.CharField(allow_null=True)
    parent = serializers.UUIDField(allow_null=True)  # type: ignore[assignment]  # out as an id
    parent_name = serializers.CharField(allow_null=True, help_text="of a key that you may not see: another key")
    hint = serializers.CharField(help_text="the start and the last four characters of the raw key")
    state = serializers.CharField(help_text="active, disabled, revoked or expired")
    stopped = serializers.CharField(
        allow_null=True, help_text="why it cannot be used now, its parents and user included"
    )
    rotating_until = RFC3339Field(allow_null=True, help_text="when the old secret ends; null: one secret is alive")
    budgets = BudgetOutput(many=True)  # type: ignore[assignment]
    created_by = serializers.CharField()
    created_at = RFC3339Field()
    updated_at = RFC3339Field()
    revoked_at = RFC3339Field(allow_null=True)
    last_used_at = RFC3339Field(allow_null=True)


class KeyCreated(KeyOutput):
    key = serializers.CharField(help_text="the raw key; this is the only time it is shown")


class SecretCaller(serializers.Serializer[Any]):
    address = serializers.CharField(help_text="empty: all other addresses together")
    requests = serializers.IntegerField()
    last_used_at = RFC3339Field()


class SecretVersion(serializers.Serializer[Any]):
    number = serializers.IntegerField()
    state = serializers.CharField(help_text="active, retiring (in the overlap) or retired")
    hint = serializers.CharField()
    created_at = RFC3339Field()
    created_by = serializers.CharField()
    ends_at = RFC3339Field(allow_null=True)
    last_used_at = RFC3339Field(allow_null=True)
    requests_last_hour = serializers.IntegerField(allow_null=True, help_text="null: only counted in an overlap")
    callers = SecretCaller(many=True)


class SecretVersions(serializers.Serializer[Any]):
    data = SecretVersion(many=True)  # type: ignore[assignment]  # the name that lists have
    next = serializers.CharField(allow_null=True)


class CustomerOutput(serializers.Serializer[Any]):
    id = serializers.CharField(help_text="the request's `user`")
    team = serializers.UUIDField(allow_null=True)
    rpm = serializers.IntegerField(allow_null=True)
    tpm = serializers.IntegerField(allow_null=True)
    blocked = serializers.BooleanField()
    budgets = BudgetOutput(many=True)
