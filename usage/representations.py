"""Shapes of the usage API: what is accepted, and what the schema documents."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from conduit.core.api import RFC3339Field, Strict, Text
from conduit.core.money import format_usd
from usage.verification import Verification


class PriceInput(Strict):
    """`rates`: dollars per million units; `per`: dollars for one unit; decimal strings."""

    model = Text(longest=200, shortest=1)
    provider = Text(longest=120, shortest=1, required=False, allow_null=True)
    effective_from = RFC3339Field(required=False, allow_null=True)
    rates = serializers.DictField(required=False, child=serializers.JSONField())
    per = serializers.DictField(required=False, child=serializers.JSONField())


class TierOutput(serializers.Serializer[Any]):
    from_units = serializers.IntegerField()
    rate = serializers.CharField()


class PriceOutput(serializers.Serializer[Any]):
    id = serializers.CharField()
    model = serializers.CharField()
    vendor = serializers.CharField(allow_null=True)
    provider = serializers.CharField(allow_null=True)
    effective_from = serializers.DateTimeField()
    source = serializers.ChoiceField(["catalogue", "override"])  # type: ignore[assignment]  # a field's own name
    rates = serializers.DictField(child=serializers.CharField())
    per = serializers.DictField(child=serializers.CharField())
    tiers = serializers.DictField(child=TierOutput(many=True))


class EventOutput(serializers.Serializer[Any]):
    id = serializers.CharField()
    request_id = serializers.CharField()
    attempt = serializers.IntegerField()
    time = serializers.DateTimeField()
    key = serializers.CharField(allow_null=True)
    team = serializers.CharField(allow_null=True)
    customer = serializers.CharField(allow_null=True)
    provider = serializers.CharField(allow_null=True)
    credential = serializers.CharField(allow_null=True)
    route = serializers.CharField()
    model = serializers.CharField()
    dialect = serializers.CharField()
    endpoint = serializers.CharField()
    stream = serializers.BooleanField()
    status = serializers.IntegerField()
    outcome = serializers.ChoiceField(["ok", "error", "cancelled"])
    exactness = serializers.ChoiceField(["exact", "estimated", "uncertain"])
    input_tokens = serializers.IntegerField()
    output_tokens = serializers.IntegerField()
    cache_read_tokens = serializers.IntegerField()
    cache_write_tokens = serializers.IntegerField()
    reasoning_tokens = serializers.IntegerField()
    units = serializers.DictField(child=serializers.IntegerField())
    cost_usd = serializers.CharField()
    price = serializers.CharField(allow_null=True)
    latency_ms = serializers.FloatField()
    ttft_ms = serializers.FloatField(allow_null=True)
    tags = serializers.ListField(child=serializers.CharField())
    error_code = serializers.CharField(allow_null=True)


class LineOutput(serializers.Serializer[Any]):
    unit = serializers.CharField()
    count = serializers.IntegerField()
    rate_usd_per_million = serializers.CharField()
    cost_usd = serializers.CharField()


class PeriodOwnerOutput(serializers.Serializer[Any]):
    kind = serializers.CharField()
    name = serializers.CharField(allow_null=True)


class AttemptPeriodOutput(serializers.Serializer[Any]):
    id = serializers.CharField()
    budget = serializers.CharField()
    owner = PeriodOwnerOutput()
    window = serializers.CharField()
    starts_at = serializers.DateTimeField()
    ends_at = serializers.DateTimeField(allow_null=True)


class PriceRowOutput(serializers.Serializer[Any]):
    """`rates` by unit: steps of {from_units, rate_usd_per_million}."""

    id = serializers.CharField()
    model = serializers.CharField()
    vendor = serializers.CharField(allow_null=True)
    source = serializers.CharField()  # type: ignore[assignment]  # a serializer's own name, not used on output
    effective_from = serializers.DateTimeField()
    rates = serializers.DictField(child=serializers.ListField(child=serializers.DictField()))


class UncertainHoldOutput(serializers.Serializer[Any]):
    held_usd = serializers.CharField()
    reason = serializers.CharField()
    resolved_at = serializers.DateTimeField(allow_null=True)
    cost_usd = serializers.CharField(allow_null=True)


class StandingOutput(serializers.Serializer[Any]):
    passes = serializers.BooleanField(allow_null=True)
    found = serializers.CharField()


class RefusedOutput(serializers.Serializer[Any]):
    by = serializers.DictField()
    would_let_it_pass = serializers.CharField(allow_null=True)
    now = StandingOutput(allow_null=True)


class AttemptOutput(EventOutput):
    final = serializers.BooleanField()
    held_usd = serializers.CharField()
    released_usd = serializers.CharField()
    periods = AttemptPeriodOutput(many=True)
    price_row = PriceRowOutput(allow_null=True)
    settlement = serializers.CharField(allow_null=True)
    uncertain = UncertainHoldOutput(allow_null=True)
    overhead_ms = serializers.FloatField(allow_null=True)
    credential_version = serializers.IntegerField(allow_null=True)
    budgets = serializers.ListField(child=serializers.CharField())
    arithmetic = LineOutput(many=True)
    flags = serializers.ListField(child=serializers.CharField())
    error_message = serializers.CharField(allow_null=True)
    trace = serializers.ListField(child=serializers.DictField())


class RequestOutput(serializers.Serializer[Any]):
    request_id = serializers.CharField()
    cost_usd = serializers.CharField()
    trace = serializers.ListField(child=serializers.DictField())
    refused = RefusedOutput(allow_null=True)
    attempts = AttemptOutput(many=True)


class GroupOutput(serializers.Serializer[Any]):
    """The dimensions of `group_by`, then sums."""

    key = serializers.CharField(required=False, allow_null=True)
    model = serializers.CharField(required=False)
    provider = serializers.CharField(required=False, allow_null=True)
    team = serializers.CharField(required=False, allow_null=True)
    tag = serializers.CharField(required=False)
    credential = serializers.CharField(required=False, allow_null=True)
    customer = serializers.CharField(required=False)
    endpoint = serializers.CharField(required=False)
    route = serializers.CharField(required=False)
    day = serializers.DateTimeField(required=False)
    hour = serializers.DateTimeField(required=False)
    requests = serializers.IntegerField()
    attempts = serializers.IntegerField(required=False)
    errors = serializers.IntegerField()  # type: ignore[assignment]  # a serializer's own name, not used on output
    refused = serializers.IntegerField()
    cancelled = serializers.IntegerField(required=False)
    estimated = serializers.IntegerField(required=False)
    uncertain = serializers.IntegerField(required=False)
    input_tokens = serializers.IntegerField()
    output_tokens = serializers.IntegerField()
    cache_read_tokens = serializers.IntegerField(required=False)
    cache_write_tokens = serializers.IntegerField(required=False)
    reasoning_tokens = serializers.IntegerField(required=False)
    cost_usd = serializers.CharField()


_Summary = {
    "from": serializers.DateTimeField(),
    "to": serializers.DateTimeField(),
    "data": GroupOutput(many=True),
    "total": GroupOutput(allow_null=True),
    "next": serializers.CharField(allow_null=True),
}
# `from` is no name for an attribute in a class body.
SummaryOutput = type("SummaryOutput", (serializers.Serializer,), _Summary)


class CheckOutput(serializers.Serializer[Any]):
    name = serializers.CharField()
    ok = serializers.BooleanField()
    statement = serializers.CharField()
    wrong = serializers.IntegerField()
    examples = serializers.ListField(child=serializers.DictField())


class VerificationOutput(serializers.Serializer[Any]):
    ok = serializers.BooleanField()
    events = serializers.IntegerField()
    cost_usd = serializers.CharField()
    checks = CheckOutput(many=True)


def verification_body(found: Verification) -> dict[str, Any]:
    """`conduit ledger verify --json` prints the same."""
    return {
        "ok": found.ok,
        "events": found.events,
        "cost_usd": format_usd(found.cost_nanos),
        "checks": [
            {
                "name": check.name,
                "ok": check.ok,
                "statement": check.statement,
                "wrong": check.wrong,
                "examples": check.examples,
            }
            for check in found.checks
        ],
    }
