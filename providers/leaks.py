"""Which stored credential a text is the secret of: what leak response asks. No secret leaves here.

Only versions whose visible hint fits are opened. What is compared are keyed digests under a key of this one call, so
the time of a comparison tells nothing about a stored secret.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from conduit.core.secret import Secret
from providers import vault
from providers.adapters.registry import KINDS
from providers.models import CredentialField, CredentialVersion
from providers.vault import Unreadable

SHORTEST = 16  # Secret.hint() shows nothing of what is shorter


@dataclass(frozen=True, slots=True)
class KnownSecret:
    """`field` is which of the version's fields it is."""

    version: CredentialVersion
    field: str


def whose(candidates: Sequence[Secret]) -> list[KnownSecret | None]:
    """For each candidate the newest version that holds it as a secret field. Versions that do not open are left out."""
    hints = {candidate.hint()[:32] for candidate in candidates if len(candidate.reveal()) >= SHORTEST}
    if not hints:
        return [None] * len(candidates)
    fitting = CredentialField.objects.filter(hint__in=hints).values("version_id")
    versions = (
        CredentialVersion.objects.filter(id__in=fitting)
        .select_related("credential__provider")
        .prefetch_related("fields")
        .order_by("id")
    )
    key = secrets.token_bytes(32)
    known: dict[bytes, KnownSecret] = {}
    for version in versions:
        known |= _fields(version, key)
    return [known.get(_digest(key, candidate)) for candidate in candidates]


def _fields(version: CredentialVersion, key: bytes) -> dict[bytes, KnownSecret]:
    try:
        plain = vault.open_version(version)
    except Unreadable:
        return {}
    kind = KINDS.get(version.credential.provider.kind)
    public = {spec.name for spec in kind.fields if not spec.secret} if kind else set()
    return {
        _digest(key, secret): KnownSecret(version, name)
        for name, secret in plain.items()
        if name not in public and len(secret.reveal()) >= SHORTEST
    }


def _digest(key: bytes, secret: Secret) -> bytes:
    return hmac.digest(key, secret.reveal().encode(), "sha256")
