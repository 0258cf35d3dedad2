"""How versions and rotations of a credential look in the management API and on the command line."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from rest_framework import serializers

from conduit.core.clock import rfc3339
from providers.models import CredentialVersion, Rotation, RotationState, VersionState


class RotationOutput(serializers.Serializer[Any]):
    id = serializers.CharField()
    credential = serializers.CharField(help_text="id")
    state = serializers.ChoiceField(RotationState.values)
    old = serializers.IntegerField(allow_null=True, help_text="number of the version that served before")
    new = serializers.IntegerField(help_text="number of the version that takes over")
    share = serializers.IntegerField(help_text="percent of the requests that the new version gets")
    share_since = serializers.DateTimeField(allow_null=True)
    retire_at = serializers.DateTimeField(allow_null=True, help_text="end of the overlap, once the new one is active")
    automatic = serializers.BooleanField()
    steps = serializers.ListField(child=serializers.IntegerField())
    step_seconds = serializers.IntegerField()
    max_error_percent = serializers.CharField()
    overlap_seconds = serializers.IntegerField()
    problem = serializers.CharField()
    started_by = serializers.CharField()
    started_at = serializers.DateTimeField()
    ended_at = serializers.DateTimeField(allow_null=True)


def rotation_body(row: Rotation) -> dict[str, Any]:
    active = row.new.state in (VersionState.ACTIVE, VersionState.RETIRING)
    return {
        "id": str(row.id),
        "credential": str(row.credential_id),
        "state": str(row.state),
        "old": row.old.number if row.old else None,
        "new": row.new.number,
        "share": 100 if active else row.new.share,
        "share_since": _time(row.share_since),
        "retire_at": _time(row.old.retire_at) if row.old else None,
        "automatic": row.automatic,
        "steps": row.steps,
        "step_seconds": row.step_seconds,
        "max_error_percent": f"{row.max_error_percent:.2f}",
        "overlap_seconds": row.overlap_seconds,
        "problem": row.problem,
        "started_by": row.started_by,
        "started_at": rfc3339(row.started_at),
        "ended_at": _time(row.ended_at),
    }


class VersionOutput(serializers.Serializer[Any]):
    number = serializers.IntegerField()
    state = serializers.ChoiceField(VersionState.values)
    share = serializers.IntegerField(help_text="percent of the requests while it is verifying")
    kek_id = serializers.CharField()
    hints = serializers.DictField(
        child=serializers.CharField(), help_text="none once it is retired or revoked: the secret is destroyed"
    )
    account = serializers.CharField(help_text="whose it is, where the provider tells")
    reason = serializers.CharField()
    problem = serializers.CharField(help_text="why it was refused or rolled back, secrets masked")
    created_by = serializers.CharField()
    verified_at = serializers.DateTimeField(allow_null=True)
    created_at = serializers.DateTimeField()
    activated_at = serializers.DateTimeField(allow_null=True)
    expires_at = serializers.DateTimeField(allow_null=True)
    retire_at = serializers.DateTimeField(allow_null=True)
    retired_at = serializers.DateTimeField(allow_null=True)
    revoked_at = serializers.DateTimeField(allow_null=True)


TIMES = ("verified_at", "activated_at", "expires_at", "retire_at", "retired_at", "revoked_at")


def version_body(row: CredentialVersion) -> dict[str, Any]:
    """Prefetch `fields` where many are rendered."""
    return {
        "number": row.number,
        "state": str(row.state),
        "share": row.share,
        "kek_id": row.kek_id,
        "hints": {part.name: part.hint for part in row.fields.all()},
        "account": row.account,
        "reason": row.reason,
        "problem": row.problem,
        "created_by": row.created_by,
        "created_at": rfc3339(row.created_at),
        **{name: _time(getattr(row, name)) for name in TIMES},
    }


def _time(at: datetime | None) -> str | None:
    return rfc3339(at) if at else None
