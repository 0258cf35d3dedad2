"""A key's holder in a browser: who proved to hold a key, and whether the secret still opens anything.

What is remembered of a holder is which secret it showed, never the secret; each look asks the database anew.
"""

from __future__ import annotations

from dataclasses import dataclass

from conduit.core.secret import Secret
from keys import entries, leaks
from keys.entries import KeyEntry
from keys.models import KeySecret


@dataclass(frozen=True, slots=True)
class Holder:
    """`newer`: the key has a newer secret, and this one ends when `secret.expires_at` says."""

    secret: KeySecret
    entry: KeyEntry
    newer: bool


def holder_of(raw: Secret, address: str) -> Holder | None:
    """None alike for unknown, malformed, disabled, expired and revoked keys, and for an address that is not allowed."""
    (known,) = leaks.whose([raw])
    return _live(known.secret, address) if known is not None and known.live else None


def still_held(secret_id: int, address: str) -> Holder | None:
    """The same by the secret's id, for one that was shown before."""
    secret = KeySecret.objects.select_related("key__team").filter(pk=secret_id).first()
    return _live(secret, address) if secret is not None else None


def _live(secret: KeySecret, address: str) -> Holder | None:
    entry = entries.load(secret.public_id)
    if entry is None or not entry.may_come_from(address):
        return None
    newer = KeySecret.objects.filter(key_id=secret.key_id, created_at__gt=secret.created_at).exists()
    return Holder(secret, entry, newer)
