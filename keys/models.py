"""Teams, virtual keys with their secrets, customers, budgets with their periods, and what workers hold of them."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
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


class KeyKind(models.TextChoices):
    SERVICE = "service"
    PERSONAL = "personal"


class VirtualKey(Limits):
    """The identity of a caller; its secrets come and go, budgets and history stay.

    A service key belongs to its team, a personal key to its user as well. Below a parent it can only narrow what the
    parent may do (keys/delegation.py).
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    name = models.CharField(max_length=120)
    team = models.ForeignKey(Team, null=True, blank=True, on_delete=models.PROTECT, related_name="keys")
    owner = models.CharField(max_length=254, blank=True)
    kind = models.CharField(max_length=8, choices=KeyKind, default=KeyKind.SERVICE)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.PROTECT, related_name="personal_keys"
    )
    parent = models.ForeignKey("self", null=True, blank=True, on_delete=models.PROTECT, related_name="children")
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
    last_used_at = models.DateTimeField(null=True, blank=True, help_text="right within a minute (keys/use.py)")

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=models.Q(kind="service", user=None) | models.Q(kind="personal", user__isnull=False),
                name="key_personal_has_user",
            ),
            models.CheckConstraint(
                condition=models.Q(parent=None) | ~models.Q(parent=models.F("id")), name="key_not_its_own_parent"
            ),
        ]

    def __str__(self) -> str:
        return self.name


class KeySecret(models.Model):
    """A live or past secret of a key: HMAC-SHA256 of the raw key under a versioned pepper.

    A past one keeps its row and its public id; its digest is empty, so nothing can match it.
    """

    key = models.ForeignKey(VirtualKey, on_delete=models.CASCADE, related_name="secrets")
    number = models.PositiveIntegerField(default=1, help_text="the version: v1, v2, …")
    public_id = models.CharField(max_length=10, unique=True)
    digest = models.BinaryField()
    pepper_version = models.PositiveIntegerField()
    last_four = models.CharField(max_length=4)
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.CharField(max_length=254, blank=True)
    expires_at = models.DateTimeField(null=True, blank=True, help_text="set when rotated: end of the overlap")
    destroyed_at = models.DateTimeField(null=True, blank=True, help_text="when its digest was emptied")
    last_used_at = models.DateTimeField(null=True, blank=True, help_text="right within a minute (keys/use.py)")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["key", "number"], name="key_secret_number")]

    def __str__(self) -> str:
        return self.public_id


class SecretUse(models.Model):
    """Who calls with a secret while its key has two, in slices of five minutes. An empty address: all others."""

    secret = models.ForeignKey(KeySecret, on_delete=models.CASCADE, related_name="uses")
    address = models.CharField(max_length=45, blank=True)
    slice_at = models.DateTimeField(help_text="the start of its five minutes")
    requests = models.BigIntegerField()
    last_used_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["secret", "address", "slice_at"], name="secret_use_once")]
        indexes = [models.Index(fields=["slice_at"], name="secret_use_age")]

    def __str__(self) -> str:
        return f"{self.secret_id} {self.address}"


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


class BudgetRaise(models.Model):
    """More money for a while: the budget's limit is `extra_nanos` higher until `until`, then as it was."""

    budget = models.ForeignKey(Budget, on_delete=models.CASCADE, related_name="raises")
    extra_nanos = models.BigIntegerField()
    until = models.DateTimeField()
    created_by = models.CharField(max_length=254, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.CheckConstraint(condition=models.Q(extra_nanos__gt=0), name="budget_raise_positive")]

    def __str__(self) -> str:
        return f"{self.budget_id} until {self.until:%Y-%m-%d %H:%M}"


class BudgetPeriod(models.Model):
    """One window of a budget. Never reset: the next window is the next row.

    Of a hard budget, at every commit: settled + leased + uncertain <= limit. `settled_nanos` is the sum of its usage
    events, `leased_nanos` the sum of its leases, `uncertain_nanos` the holds of its unresolved uncertain attempts.
    """

    budget = models.ForeignKey(Budget, on_delete=models.CASCADE, related_name="periods")
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField(null=True, blank=True)
    settled_nanos = models.BigIntegerField(default=0)
    leased_nanos = models.BigIntegerField(default=0)
    uncertain_nanos = models.BigIntegerField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["budget", "starts_at"], name="budget_period_start"),
            models.CheckConstraint(
                condition=models.Q(leased_nanos__gte=0, uncertain_nanos__gte=0), name="budget_period_not_negative"
            ),
        ]
        ordering: ClassVar[list[str]] = ["-starts_at"]

    def __str__(self) -> str:
        return f"{self.budget_id} {self.starts_at:%Y-%m-%d}"


class Worker(models.Model):
    """A web process that holds leases; its id is its journal's name, so the shipper knows whose leases to close."""

    id = models.UUIDField(primary_key=True)
    node = models.CharField(max_length=64)
    pid = models.IntegerField()
    started_at = models.DateTimeField(auto_now_add=True)
    seen_at = models.DateTimeField(auto_now_add=True, help_text="its last renewal")
    stopped_at = models.DateTimeField(null=True, blank=True, help_text="when its leases were closed")
    asked = models.BigIntegerField(
        default=0, db_default=0, help_text="the number of its last question that was answered"
    )

    def __str__(self) -> str:
        return f"{self.node} {self.pid}"


class Lease(models.Model):
    """What one worker may spend of one period without asking.

    `granted_nanos` is what it was granted less what it gave back, `spent_nanos` what of it the ledger has settled (or
    keeps for uncertain attempts); both only for this worker. Open is what lies between, never below zero.
    """

    worker = models.ForeignKey(Worker, on_delete=models.CASCADE, related_name="leases")
    period = models.ForeignKey(BudgetPeriod, on_delete=models.CASCADE, related_name="leases")
    granted_nanos = models.BigIntegerField(default=0)
    spent_nanos = models.BigIntegerField(default=0)
    held_nanos = models.BigIntegerField(default=0, help_text="held by requests in flight at the last renewal")
    granted_at = models.DateTimeField(auto_now_add=True, help_text="when the worker first asked")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["worker", "period"], name="lease_once")]

    def __str__(self) -> str:
        return f"{self.worker_id} {self.period_id}"

    @property
    def open_nanos(self) -> int:
        return max(0, self.granted_nanos - self.spent_nanos)


class UncertainAttempt(models.Model):
    """An attempt that may have been billed and whose cost nobody reported. Its hold stays until it is resolved."""

    id = models.UUIDField(primary_key=True, help_text="the attempt's id: its usage event has the same")
    time = models.DateTimeField(help_text="when it was dispatched: with the id the usage event's key")
    team_id = models.UUIDField(null=True)
    held_nanos = models.BigIntegerField()
    periods = ArrayField(models.BigIntegerField(), default=list, help_text="budget periods that it is held in")
    node = models.CharField(max_length=64)
    reason = models.CharField(max_length=64, help_text="the usage event's error code")
    created_at = models.DateTimeField(auto_now_add=True)
    resolved_at = models.DateTimeField(null=True, blank=True)
    resolved_by = models.CharField(max_length=254, blank=True)
    cost_nanos = models.BigIntegerField(null=True, blank=True, help_text="what it was resolved to")

    class Meta:
        indexes = [
            models.Index(fields=["created_at"], condition=models.Q(resolved_at=None), name="uncertain_open"),
        ]

    def __str__(self) -> str:
        return str(self.id)
