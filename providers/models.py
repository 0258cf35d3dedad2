"""Providers, their credentials with versions, and the routes that lead to them."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar

from django.db import models
from django.db.models import Q

from conduit.core.ids import uuid7


class Provider(models.Model):
    """One vendor account endpoint. `kind` is a row of adapters/registry.py."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    name = models.CharField(max_length=120, unique=True)
    kind = models.CharField(max_length=32)
    base_url = models.CharField(max_length=500, blank=True, help_text="empty: the kind's own")
    region = models.CharField(max_length=64, blank=True)
    options = models.JSONField(default=dict, blank=True)
    enabled = models.BooleanField(default=True)
    rpm = models.BigIntegerField(null=True, blank=True)
    tpm = models.BigIntegerField(null=True, blank=True)
    max_parallel = models.IntegerField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    def __str__(self) -> str:
        return self.name


class Credential(models.Model):
    """A secret of a provider, by identity; the secret itself lives in its versions."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    provider = models.ForeignKey(Provider, on_delete=models.PROTECT, related_name="credentials")
    name = models.CharField(max_length=120)
    weight = models.PositiveIntegerField(default=100)
    account = models.CharField(max_length=120, blank=True, help_text="credentials of one account share a quota")
    rpm = models.BigIntegerField(null=True, blank=True)
    tpm = models.BigIntegerField(null=True, blank=True)
    max_parallel = models.IntegerField(null=True, blank=True)
    enabled = models.BooleanField(default=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    last_verified_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)
    last_error = models.CharField(max_length=500, blank=True, help_text="the provider's own words, masked")
    last_reminder = models.CharField(max_length=64, blank=True, help_text="of expiry or age: what, days, which end")
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["provider", "name"], name="credential_name")]

    def __str__(self) -> str:
        return self.name


class VersionState(models.TextChoices):
    PENDING = "pending"
    VERIFYING = "verifying"
    ACTIVE = "active"
    RETIRING = "retiring"
    RETIRED = "retired"
    REVOKED = "revoked"


class CredentialVersion(models.Model):
    """One sealed secret. `wrapped_key` is its data key, wrapped by the KEK named in `kek_id`."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    credential = models.ForeignKey(Credential, on_delete=models.CASCADE, related_name="versions")
    number = models.PositiveIntegerField()
    state = models.CharField(max_length=12, choices=VersionState.choices, default=VersionState.PENDING)
    kek_id = models.CharField(max_length=64)
    wrapped_key = models.BinaryField()
    share = models.PositiveSmallIntegerField(
        default=0, db_default=0, help_text="percent of the credential's requests while it is verifying: the canary"
    )
    account = models.CharField(max_length=200, blank=True, help_text="whose it is, where the provider tells")
    reason = models.CharField(max_length=200, blank=True, help_text="why it was added")
    created_by = models.CharField(max_length=254, blank=True)
    problem = models.CharField(max_length=500, blank=True, help_text="why it was refused or rolled back, masked")
    expires_at = models.DateTimeField(null=True, blank=True, help_text="becomes the credential's when it is promoted")
    verified_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    activated_at = models.DateTimeField(null=True, blank=True)
    retire_at = models.DateTimeField(null=True, blank=True, help_text="end of the overlap, while it is retiring")
    retired_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    cut_off = models.BooleanField(
        default=False, db_default=False, help_text="revoked in an emergency: streams that it serves are cut"
    )

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["credential", "number"], name="credential_version_number"),
            models.UniqueConstraint(
                fields=["credential"], condition=Q(state="active"), name="credential_one_active_version"
            ),
            models.UniqueConstraint(
                fields=["credential"],
                condition=Q(state__in=["pending", "verifying"]),
                name="credential_one_pending_version",
            ),
        ]
        ordering: ClassVar[list[str]] = ["-number"]

    def __str__(self) -> str:
        return f"{self.credential_id} v{self.number}"


class RotationState(models.TextChoices):
    CANARY = "canary"  # the new version is verifying and serves its share
    DRAINING = "draining"  # the new version is active, the old one retiring
    FINISHED = "finished"
    ROLLED_BACK = "rolled_back"


class Rotation(models.Model):
    """One change of a credential's version, with the rules it moves by. At most one of a credential is under way."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    credential = models.ForeignKey(Credential, on_delete=models.CASCADE, related_name="rotations")
    old = models.ForeignKey(CredentialVersion, null=True, on_delete=models.CASCADE, related_name="+")
    new = models.ForeignKey(CredentialVersion, on_delete=models.CASCADE, related_name="+")
    state = models.CharField(max_length=12, choices=RotationState.choices, default=RotationState.CANARY)
    automatic = models.BooleanField(default=False, help_text="moves on by rule; else only by hand")
    steps = models.JSONField(default=list, help_text="the canary's shares in percent, rising, without the last 100")
    step_seconds = models.PositiveIntegerField(default=600, help_text="how long each share is held")
    max_error_percent = models.DecimalField(max_digits=5, decimal_places=2, default=1)
    overlap_seconds = models.PositiveIntegerField(default=86_400, help_text="how long the old version is kept")
    share_since = models.DateTimeField(null=True, blank=True, help_text="when the present share began")
    started_by = models.CharField(max_length=254, blank=True)
    started_at = models.DateTimeField(auto_now_add=True)
    ended_at = models.DateTimeField(null=True, blank=True)
    problem = models.CharField(max_length=500, blank=True, help_text="why it was rolled back, masked")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["credential"], condition=Q(ended_at=None), name="credential_one_rotation_under_way"
            )
        ]

    def __str__(self) -> str:
        return f"{self.credential_id} to {self.new_id}"

    @property
    def overlap(self) -> timedelta:
        return timedelta(seconds=self.overlap_seconds)


class CredentialField(models.Model):
    """One field of a version (api_key, secret_access_key, …), encrypted by itself."""

    version = models.ForeignKey(CredentialVersion, on_delete=models.CASCADE, related_name="fields")
    name = models.CharField(max_length=64)
    ciphertext = models.BinaryField()
    source = models.BooleanField(default=False, db_default=False, help_text="a reference is sealed, not the secret")
    hint = models.CharField(max_length=300, blank=True, help_text="prefix and last four characters, or the reference")
    asked_at = models.DateTimeField(null=True, blank=True, help_text="when it was last wanted anew from its source")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["version", "name"], name="credential_field_name")]

    def __str__(self) -> str:
        return self.name


class Route(models.Model):
    """The name callers use as `model`. Several targets share or back each other up."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    name = models.CharField(max_length=200, unique=True)
    strategy = models.CharField(max_length=16, default="priority", help_text="priority | weighted")
    strict = models.BooleanField(default=False, help_text="refuse what a target cannot carry, instead of dropping it")
    enabled = models.BooleanField(default=True)
    timeout = models.PositiveIntegerField(null=True, blank=True, help_text="seconds for the whole answer")
    retry = models.JSONField(default=dict, blank=True)
    conditions = models.JSONField(default=list, blank=True)
    fallbacks = models.JSONField(default=list, blank=True)
    cache = models.JSONField(default=dict, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    def __str__(self) -> str:
        return self.name


class Target(models.Model):
    """Provider and upstream model of a route. A lower priority goes first; equal ones share by weight."""

    route = models.ForeignKey(Route, on_delete=models.CASCADE, related_name="targets")
    position = models.PositiveIntegerField()
    provider = models.ForeignKey(Provider, on_delete=models.PROTECT, related_name="targets")
    model = models.CharField(max_length=200)
    weight = models.PositiveIntegerField(default=100)
    priority = models.PositiveIntegerField(default=0)
    region = models.CharField(max_length=64, blank=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["route", "position"], name="target_position")]
        ordering: ClassVar[list[str]] = ["position"]

    def __str__(self) -> str:
        return f"{self.provider_id}/{self.model}"


class CatalogueModel(models.Model):
    """What is known of a vendor's model. Synced from data, but never over a row with source `override`."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    vendor = models.CharField(max_length=64, help_text="price data's provider id: openai, anthropic, google, sandbox")
    name = models.CharField(max_length=200)
    title = models.CharField(max_length=200, blank=True)
    match = models.JSONField(
        default=dict, help_text="how model names map here: {equals|starts_with|contains|regex|or|and}"
    )
    position = models.IntegerField(default=0, help_text="order of matching within the vendor")
    context_window = models.IntegerField(null=True, blank=True)
    max_output_tokens = models.IntegerField(null=True, blank=True)
    capabilities = models.JSONField(default=dict, blank=True)
    deprecated = models.BooleanField(default=False)
    source = models.CharField(max_length=12, default="catalogue")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["vendor", "name"], name="catalogue_model")]

    def __str__(self) -> str:
        return self.name


class CatalogueVendor(models.Model):
    """A vendor that serves other vendors' models too (a cloud): where to look when its own models have no match."""

    name = models.CharField(max_length=64, primary_key=True)
    fallbacks = models.JSONField(default=list)

    def __str__(self) -> str:
        return self.name
