"""What the data plane tells about credentials, and asks about the versions it works with."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from uuid import UUID

from django.db.models import Q

from providers.models import Credential, CredentialVersion

NOTED_EVERY = timedelta(seconds=60)


def note(used: Mapping[UUID, float]) -> None:
    """When each credential was last used (id to Unix seconds). Written once a minute for each at most."""
    for credential, seconds in used.items():
        at = datetime.fromtimestamp(seconds, UTC)
        stale = Q(last_used_at=None) | Q(last_used_at__lt=at - NOTED_EVERY)
        Credential.objects.filter(stale, pk=credential).update(last_used_at=at)


def revoked(versions: set[UUID]) -> set[UUID]:
    """Those that were revoked in an emergency: what they serve is cut."""
    return set(CredentialVersion.objects.filter(pk__in=versions, cut_off=True).values_list("pk", flat=True))
