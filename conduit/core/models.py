"""Tables of the kernel: the epoch that workers poll, who is alive, the audit log, purpose keys, idempotent replies and
calls."""

from __future__ import annotations

from django.db import models

from conduit.core.ids import uuid7


class Epoch(models.Model):
    """One row. Triggers raise the counters in the changing transaction; every worker polls them (design 2)."""

    id = models.SmallIntegerField(primary_key=True, default=1)
    snapshot = models.BigIntegerField(default=0, help_text="providers, credentials, routes, prices")
    catalogue = models.BigIntegerField(
        default=0, db_default=0, help_text="models and prices: the part of the snapshot that is dear to read"
    )
    keys = models.BigIntegerField(default=0, help_text="virtual keys, teams, budgets")

    def __str__(self) -> str:
        return f"snapshot {self.snapshot}, catalogue {self.catalogue}, keys {self.keys}"


class LiveProcess(models.Model):
    """A process that opens stored secrets and what it knows, renewed every two seconds (core/live.py)."""

    id = models.UUIDField(primary_key=True)
    kind = models.CharField(max_length=8, help_text="web | jobs")
    node = models.CharField(max_length=64)
    pid = models.IntegerField()
    started_at = models.DateTimeField(auto_now_add=True)
    seen_at = models.DateTimeField()
    snapshot = models.BigIntegerField(default=0, help_text="the epoch of the configuration it works from")
    keks = models.JSONField(default=dict, help_text="id of each key-encryption key it holds: its check value")
    primary = models.CharField(max_length=64, blank=True, help_text="the one it encrypts with")
    versions = models.JSONField(
        default=dict, help_text="credential version id: {open: requests under way, last: Unix seconds, tripped, why}"
    )

    targets = models.JSONField(
        default=list,
        db_default=[],
        help_text="what it leaves alone because it fails: {provider, model, failures, until, why}",
    )

    def __str__(self) -> str:
        return f"{self.node} {self.pid}"


class AuditEntry(models.Model):
    """Who changed what, written in the changing transaction. `before` and `after` never hold a secret.

    Written by core/audit.py alone; a trigger refuses to change, delete or truncate what is there.
    """

    id = models.BigIntegerField(primary_key=True, help_text="its number: 1, 2, 3 … without a gap")
    time = models.DateTimeField()
    actor_kind = models.CharField(max_length=16, help_text="user | token | system")
    actor_id = models.CharField(max_length=64, blank=True)
    actor_name = models.CharField(max_length=254)
    action = models.CharField(max_length=64, help_text="key.create, credential.revoke, …")
    object_kind = models.CharField(max_length=32)
    object_id = models.CharField(max_length=128)
    object_name = models.CharField(max_length=254, blank=True)
    team_id = models.UUIDField(null=True)
    before = models.JSONField(null=True)
    after = models.JSONField(null=True)
    request_id = models.CharField(max_length=128, blank=True)
    address = models.CharField(max_length=64, blank=True, default="", help_text="from where, for people and tokens")
    key_version = models.PositiveIntegerField(null=True, help_text="of the audit key")
    mac = models.BinaryField(
        null=True, help_text="covers this entry and the mac before; null only before the chain began"
    )

    class Meta:
        indexes = [
            models.Index(fields=["object_kind", "object_id", "-id"], name="audit_object"),
            models.Index(fields=["-time"], name="audit_time"),
        ]

    def __str__(self) -> str:
        return f"{self.action} {self.object_name}"


class AuditHead(models.Model):
    """One row: how many entries the audit log has and the last one's MAC, sealed."""

    id = models.SmallIntegerField(primary_key=True, default=1)
    number = models.BigIntegerField()
    mac = models.BinaryField()
    key_version = models.PositiveIntegerField()
    seal = models.BinaryField()

    def __str__(self) -> str:
        return f"{self.number} entries"


class PurposeKey(models.Model):
    """A random 256-bit key for one purpose (pepper, replies, …), wrapped by a key-encryption key."""

    purpose = models.CharField(max_length=32)
    version = models.PositiveIntegerField()
    kek_id = models.CharField(max_length=64)
    wrapped = models.BinaryField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["purpose", "version"], name="purpose_key_version")]

    def __str__(self) -> str:
        return f"{self.purpose} v{self.version}"


class IdempotentReply(models.Model):
    """The answer to a management POST that carried Idempotency-Key, encrypted: it may hold a raw key."""

    id = models.UUIDField(primary_key=True, default=uuid7)
    actor = models.CharField(max_length=96)
    key = models.CharField(max_length=255)
    path = models.CharField(max_length=255)
    body_digest = models.BinaryField()
    status = models.SmallIntegerField(null=True, help_text="null while the first request is under way")
    reply = models.BinaryField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["actor", "key"], name="idempotent_reply_once")]

    def __str__(self) -> str:
        return self.key


class IdempotentCall(models.Model):
    """A proxied request that carried `idempotency-key`: one row for each key of each virtual key, by digest.

    While `status` is null the request is under way, and `run` names who makes it; its worker moves `alive_until` on,
    so that the row of a worker that died can be taken over.
    """

    scope = models.BinaryField(primary_key=True, help_text="digest of the virtual key's id and the idempotency key")
    request = models.BinaryField(help_text="digest of what was asked: path and body")
    run = models.UUIDField()
    alive_until = models.DateTimeField()
    status = models.SmallIntegerField(null=True)
    reply = models.BinaryField(null=True, help_text="headers and body, sealed")
    created_at = models.DateTimeField()

    class Meta:
        indexes = [models.Index(fields=["created_at"], name="idempotent_call_age")]

    def __str__(self) -> str:
        return bytes(self.scope).hex()[:12]
