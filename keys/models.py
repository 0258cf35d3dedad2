"""Teams, virtual keys with their secrets, customers, budgets and budget periods."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.db import models

from conduit.core.ids import uuid7


class Limits(models.Model):
    """Admission limits shared by teams and keys. null: no limit of its own. Lists empty: everything."""

    allowed_models = models.JSONField(default=list, blank=True, help_text="model name patterns (fnmatch)")
    allowed_endpoints = models.JSONField(default=list, blank=True)
    rpm = models.BigIntegerField(null=True, blank=True, help_text="requests per minute")
    tpm = models.BigIntegerField(null=True, blank=True, help_text="tokens per minute")
    max_parallel = models.IntegerField(null=True, blank=True)

    class Meta:
        abstract = True


class Team(Limits):
    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    name = models.CharField(max_length=120, unique=True)
    parent = models.ForeignKey("self", null=True, blank=True, on_delete=models.PROTECT, related_name="children")
    tags = models.JSONField(default=list, blank=True)
    metadata = models.JSONField(default=dict, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    def __str__(self) -> str:
        return self.name


class TeamMember(models.Model):
    """Narrows an operator or analyst to these teams and their subtrees; none: all teams."""

    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="members")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="team_memberships")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["team", "user"], name="team_member_once")]

    def __str__(self) -> str:
        return f"{self.team_id} {self.user_id}"


class KeyState(models.TextChoices):
    ACTIVE = "active"
    DISABLED = "disabled"
    REVOKED = "revoked"


class VirtualKey(Limits):
    """The identity of a caller; its secrets come and go, budgets and history stay."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    name = models.CharField(max_length=120)
    team = models.ForeignKey(Team, null=True, blank=True, on_delete=models.PROTECT, related_name="keys")
    owner = models.CharField(max_length=254, blank=True)
    state = models.CharField(max_length=10, choices=KeyState.choices, default=KeyState.ACTIVE)
    max_output_tokens = models.IntegerField(null=True, blank=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    ip_allowlist = models.JSONField(default=list, blank=True, help_text="addresses and networks, IPv4 and IPv6")
    tags = models.JSONField(default=list, blank=True)
    metadata = models.JSONField(default=dict, blank=True)
    created_by = models.CharField(max_length=254, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return self.name


class KeySecret(models.Model):
    """A live or past secret of a key: HMAC-SHA256 of the raw key under a versioned pepper."""

    key = models.ForeignKey(VirtualKey, on_delete=models.CASCADE, related_name="secrets")
    public_id = models.CharField(max_length=10, unique=True)
    digest = models.BinaryField()
    pepper_version = models.PositiveIntegerField()
    last_four = models.CharField(max_length=4)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(null=True, blank=True, help_text="set when rotated: end of the overlap")

    def __str__(self) -> str:
        return self.public_id


class Customer(models.Model):
    """An end user of an application, named by the request's `user` field, within a team."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    team = models.ForeignKey(Team, null=True, blank=True, on_delete=models.CASCADE, related_name="customers")
    name = models.CharField(max_length=254)
    rpm = models.BigIntegerField(null=True, blank=True)
    tpm = models.BigIntegerField(null=True, blank=True)
    blocked = models.BooleanField(default=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["team", "name"], name="customer_name"),
            models.UniqueConstraint(fields=["name"], condition=models.Q(team=None), name="customer_name_without_team"),
        ]

    def __str__(self) -> str:
        return self.name


class OwnerKind(models.TextChoices):
    KEY = "key"
    TEAM = "team"
    CUSTOMER = "customer"
    PROVIDER = "provider"


class Window(models.TextChoices):
    LIFETIME = "lifetime"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


class Budget(models.Model):
    """A dollar limit of an owner for a window. 0 blocks; no row means no limit."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    owner_kind = models.CharField(max_length=10, choices=OwnerKind.choices)
    owner_id = models.UUIDField()
    limit_nanos = models.BigIntegerField()
    window = models.CharField(max_length=10, choices=Window.choices, default=Window.LIFETIME)
    timezone = models.CharField(max_length=64, default="UTC")
    kind = models.CharField(max_length=4, default="hard", help_text="hard | soft")
    unbounded = models.CharField(max_length=10, default="deny", help_text="deny | exclusive | soft")
    wait_ms = models.PositiveIntegerField(default=2000)
    epoch_at = models.DateTimeField(null=True, blank=True, help_text="a reset: the running period begins here")
    created_at = models.DateTimeField(auto_now_add=True)
    removed_at = models.DateTimeField(null=True, blank=True, help_text="kept for history, no longer in force")

    class Meta:
        indexes = [models.Index(fields=["owner_kind", "owner_id"], name="budget_owner")]
        constraints = [models.CheckConstraint(condition=models.Q(limit_nanos__gte=0), name="budget_limit_not_negative")]

    def __str__(self) -> str:
        return f"{self.owner_kind} {self.window}"


class BudgetPeriod(models.Model):
    """One window of a budget. Never reset: the next window is the next row. Invariant: sums match usage events."""

    budget = models.ForeignKey(Budget, on_delete=models.CASCADE, related_name="periods")
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField(null=True, blank=True)
    settled_nanos = models.BigIntegerField(default=0)
    leased_nanos = models.BigIntegerField(default=0)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["budget", "starts_at"], name="budget_period_start")]
        ordering: ClassVar[list[str]] = ["-starts_at"]

    def __str__(self) -> str:
        return f"{self.budget_id} {self.starts_at:%Y-%m-%d}"
