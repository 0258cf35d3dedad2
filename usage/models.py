"""Prices, usage events (partitioned by month), rollups by hour and by day, journal cursors.

Money columns are BIGINT nano-dollars; rates are nano-dollars per million units.
"""

from __future__ import annotations

import uuid
from typing import ClassVar

from django.contrib.postgres.fields import ArrayField
from django.db import models

from conduit.core.ids import uuid7

NIL = uuid.UUID(int=0)


class Price(models.Model):
    """A dated price of a model. Never overwritten: a change is a new row with a later effective_from."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    vendor = models.CharField(max_length=64, blank=True, help_text="price data's provider id; empty for overrides")
    model = models.CharField(max_length=200)
    provider_id = models.UUIDField(default=NIL, help_text="an override for this provider only; NIL: every provider")
    effective_from = models.DateTimeField()
    source = models.CharField(max_length=12, default="override", help_text="override | catalogue")
    rates = models.JSONField(help_text="unit → [[from_units, nano-dollars per million units], …], ascending")
    created_by = models.CharField(max_length=254, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes = [models.Index(fields=["model", "effective_from"], name="price_model")]
        constraints = [
            models.UniqueConstraint(
                fields=["vendor", "model", "provider_id", "effective_from", "source"],
                name="price_once",
            )
        ]

    def __str__(self) -> str:
        return f"{self.model} from {self.effective_from:%Y-%m-%d}"


class Outcome(models.TextChoices):
    OK = "ok"
    ERROR = "error"
    CANCELLED = "cancelled"


class Exactness(models.TextChoices):
    EXACT = "exact"
    ESTIMATED = "estimated"
    UNCERTAIN = "uncertain"


class UsageEvent(models.Model):
    """One upstream attempt, or one refused request (attempt 0, no provider). Append-only; partitioned by `time`."""

    id = models.UUIDField(primary_key=True, help_text="our attempt id")
    time = models.DateTimeField(help_text="when it was dispatched or refused")
    request_id = models.CharField(max_length=128)
    attempt = models.SmallIntegerField()
    final = models.BooleanField(help_text="the attempt whose answer the client got")
    key_id = models.UUIDField(null=True)
    team_id = models.UUIDField(null=True)
    customer = models.CharField(max_length=254, default="")
    provider_id = models.UUIDField(null=True)
    credential_id = models.UUIDField(null=True)
    credential_version = models.IntegerField(null=True)
    route = models.CharField(max_length=200, default="")
    model = models.CharField(max_length=200, default="", help_text="the upstream's name")
    dialect = models.CharField(max_length=16)
    endpoint = models.CharField(max_length=16)
    stream = models.BooleanField()
    status = models.SmallIntegerField(help_text="HTTP status the client got")
    outcome = models.CharField(max_length=9, choices=Outcome.choices)
    exactness = models.CharField(max_length=9, choices=Exactness.choices)
    input_tokens = models.BigIntegerField(default=0)
    output_tokens = models.BigIntegerField(default=0)
    cache_read_tokens = models.BigIntegerField(default=0)
    cache_write_tokens = models.BigIntegerField(default=0)
    reasoning_tokens = models.BigIntegerField(default=0)
    units = models.JSONField(default=dict, help_text="other units, unit → count")
    cost_nanos = models.BigIntegerField(default=0)
    held_nanos = models.BigIntegerField(default=0, help_text="worst case held at dispatch")
    price_id = models.UUIDField(null=True)
    arithmetic = models.JSONField(default=list, help_text="[[unit, count, nano-dollars per million, nano-dollars], …]")
    budgets = ArrayField(models.UUIDField(), default=list, help_text="budgets this cost counts against")
    periods = ArrayField(models.BigIntegerField(), default=list, help_text="the budget periods it counts in")
    latency_us = models.BigIntegerField(default=0)
    ttft_us = models.BigIntegerField(null=True)
    overhead_us = models.BigIntegerField(null=True)
    tags = ArrayField(models.CharField(max_length=64), default=list)
    flags = ArrayField(models.CharField(max_length=32), default=list)
    error_code = models.CharField(max_length=64, default="")
    error_message = models.CharField(max_length=500, default="")
    trace = models.JSONField(default=list, help_text="the checks as decided: [{check, ok, …numbers}]")

    class Meta:
        managed = False  # the partitioned table is made by SQL in the first migration
        db_table = "usage_event"

    def __str__(self) -> str:
        return str(self.id)


class UsageSums(models.Model):
    """What an hour or a day adds up to. Every dimension is NOT NULL; nothing is NIL or empty text."""

    key_id = models.UUIDField(default=NIL)
    team_id = models.UUIDField(default=NIL)
    provider_id = models.UUIDField(default=NIL)
    credential_id = models.UUIDField(default=NIL)
    customer = models.CharField(max_length=254, default="")
    route = models.CharField(max_length=200, default="")
    model = models.CharField(max_length=200, default="")
    endpoint = models.CharField(max_length=16)
    requests = models.BigIntegerField(default=0, help_text="final attempts and refusals")
    attempts = models.BigIntegerField(default=0, help_text="upstream attempts")
    errors = models.BigIntegerField(default=0, help_text="final attempts that failed upstream")
    refused = models.BigIntegerField(default=0, help_text="refused by us")
    cancelled = models.BigIntegerField(default=0)
    estimated = models.BigIntegerField(default=0)
    uncertain = models.BigIntegerField(default=0)
    input_tokens = models.BigIntegerField(default=0)
    output_tokens = models.BigIntegerField(default=0)
    cache_read_tokens = models.BigIntegerField(default=0)
    cache_write_tokens = models.BigIntegerField(default=0)
    reasoning_tokens = models.BigIntegerField(default=0)
    cost_nanos = models.BigIntegerField(default=0)
    latency_us = models.BigIntegerField(default=0, help_text="sum over requests")
    ttft_us = models.BigIntegerField(default=0)
    ttft_count = models.BigIntegerField(default=0)

    class Meta:
        abstract = True


_DIMENSIONS = ["key_id", "team_id", "provider_id", "credential_id", "customer", "route", "model", "endpoint"]


class UsageHour(UsageSums):
    """Rollup written in the settling transaction."""

    hour = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["hour", *_DIMENSIONS], name="usage_hour_dimensions")]

    def __str__(self) -> str:
        return f"{self.hour:%Y-%m-%d %H}"


class UsageDay(UsageSums):
    """The same by day (UTC)."""

    day = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["day", *_DIMENSIONS], name="usage_day_dimensions")]

    def __str__(self) -> str:
        return f"{self.day:%Y-%m-%d}"


class UsageTagSums(models.Model):
    """By tag. An event with two tags counts under both, so these rows do not add up to the total."""

    tag = models.CharField(max_length=64)
    team_id = models.UUIDField(default=NIL)
    key_id = models.UUIDField(default=NIL)
    requests = models.BigIntegerField(default=0)
    errors = models.BigIntegerField(default=0)
    refused = models.BigIntegerField(default=0)
    input_tokens = models.BigIntegerField(default=0)
    output_tokens = models.BigIntegerField(default=0)
    cost_nanos = models.BigIntegerField(default=0)

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return self.tag


class UsageTagHour(UsageTagSums):
    hour = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["hour", "tag", "team_id", "key_id"], name="usage_tag_hour_dimensions")
        ]


class UsageTagDay(UsageTagSums):
    day = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["day", "tag", "team_id", "key_id"], name="usage_tag_day_dimensions")
        ]


class JournalCursor(models.Model):
    """How far the shipper has applied one journal segment; moves in the transaction that applies the records."""

    segment = models.CharField(max_length=120, primary_key=True, help_text="file name, unique over nodes")
    node = models.CharField(max_length=64)
    position = models.BigIntegerField(default=0, help_text="bytes applied")
    closed = models.BooleanField(default=False, help_text="nothing is left to apply")
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering: ClassVar[list[str]] = ["segment"]

    def __str__(self) -> str:
        return self.segment


class StoredResponse(models.Model):
    """An answer of /v1/responses that its caller may fetch, continue or delete (usage/stored_responses.py).

    `tenant` is the calling key's team, or the key itself where it has none. `worker` makes an answer in the background.
    """

    id = models.UUIDField(primary_key=True)
    tenant = models.UUIDField()
    previous = models.UUIDField(null=True, help_text="the response that it continues")
    state = models.CharField(max_length=12, help_text="queued, in_progress, completed, incomplete, failed or cancelled")
    worker = models.UUIDField(null=True)
    content = models.BinaryField(help_text="input items and the answer, sealed")
    key_version = models.IntegerField(help_text="of the purpose key responses")
    created_at = models.DateTimeField()
    used_at = models.DateTimeField(help_text="when it was made, or last continued by a later one")

    class Meta:
        indexes = [models.Index(fields=["used_at"], name="stored_response_age")]

    def __str__(self) -> str:
        return f"resp_{self.id.hex}"
