"""Whose a raw key is, live or not: what leak response asks. Also of keys and secrets that work no longer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from conduit.core import keyring, raw_keys
from conduit.core.secret import Secret
from conduit.core.stored_digests import NOBODY
from keys import entries
from keys.issuing import PEPPER
from keys.models import KeySecret, VirtualKey


@dataclass(frozen=True, slots=True)
class KnownKey:
    """`version` is the secret's number. `live`: a caller with this very secret is let in."""

    key: VirtualKey
    secret: KeySecret
    version: int
    live: bool


def whose(raws: Sequence[Secret]) -> list[KnownKey | None]:
    """For each text its key. Compared in constant time; a text of nobody costs the same work as one of ours."""
    ids = [raw_keys.public_id(raw_keys.VIRTUAL_KEY, raw.reveal()) for raw in raws]
    wanted = [public_id for public_id in ids if public_id]
    rows = {row.public_id: row for row in KeySecret.objects.select_related("key__team").filter(public_id__in=wanted)}
    return [
        _known(raw.reveal(), rows.get(public_id)) if public_id else None
        for raw, public_id in zip(raws, ids, strict=True)
    ]


def _known(raw: str, secret: KeySecret | None) -> KnownKey | None:
    _, pepper = keyring.purpose_key(PEPPER, secret.pepper_version if secret else None)
    digest = bytes(secret.digest) if secret else NOBODY
    genuine = raw_keys.same(raw_keys.digest(raw, pepper), digest)
    # Of a secret whose digest was destroyed when it ended, the public id is all that can still be compared.
    if secret is None or not (genuine or not digest):
        return None
    return KnownKey(secret.key, secret, secret.number, genuine and entries.load(secret.public_id) is not None)
