"""Provider secrets at rest (design 6): one random 256-bit data key per credential version, one ciphertext per field.

    seal_version(credential, fields, number=…)   writes a version and its sealed fields
    open_version(version)                        the plain fields again

A field's associated data is (format, credential id, version number, field name): a blob moved to another row,
version or field does not open. The data key is wrapped by the key ring under (format, credential id, version number,
all field names), so that a field taken away or added is noticed too, and a change of KEK rewrites only the wrapping.
Whatever does not open is reported with reason and fix, never skipped: callers show it red.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from uuid import UUID

from django.db import transaction

from conduit.core import keyring
from conduit.core.errors import ConduitError
from conduit.core.secret import Secret
from providers.models import Credential, CredentialField, CredentialVersion, VersionState

FORMAT = "conduit-credential-1"


class Unreadable(ConduitError):
    """A stored secret does not open: `reason` says why, `fix` what an operator does about it."""

    def __init__(self, reason: str, fix: str) -> None:
        super().__init__(f"{reason} {fix}")
        self.reason, self.fix = reason, fix


def _field_context(credential_id: UUID, number: int, name: str) -> bytes:
    return keyring.context(FORMAT, credential_id.bytes, number, name)


def _key_context(credential_id: UUID, number: int, names: Iterable[str]) -> bytes:
    return keyring.context(FORMAT, credential_id.bytes, number, "data-key", *sorted(names))


def seal_version(
    credential: Credential, fields: Mapping[str, Secret], *, number: int, state: VersionState = VersionState.PENDING
) -> CredentialVersion:
    """Writes version `number` of a saved credential. Raises ConfigurationError when the key ring is not set up.

    Belongs into the caller's transaction, beside the audit entry of what happened.
    """
    data_key = secrets.token_bytes(keyring.KEY_BYTES)
    kek_id, wrapped = keyring.ring().wrap(data_key, _key_context(credential.id, number, fields))
    with transaction.atomic():
        version = CredentialVersion.objects.create(
            credential=credential, number=number, state=state, kek_id=kek_id, wrapped_key=wrapped
        )
        CredentialField.objects.bulk_create(
            CredentialField(
                version=version,
                name=name,
                ciphertext=keyring.seal(
                    data_key, secret.reveal().encode(), _field_context(credential.id, number, name)
                ),
                hint=secret.hint()[:32],
            )
            for name, secret in fields.items()
        )
    return version


def open_version(version: CredentialVersion) -> dict[str, Secret]:
    """The fields by name. Uses prefetched `fields` where there are any. Raises Unreadable."""
    rows = list(version.fields.all())
    names = [row.name for row in rows]
    ring = keyring.ring()
    try:
        data_key = ring.unwrap(
            version.kek_id,
            bytes(version.wrapped_key),
            _key_context(version.credential_id, version.number, names),
        )
        return {
            row.name: Secret(
                keyring.open_sealed(
                    data_key,
                    bytes(row.ciphertext),
                    _field_context(version.credential_id, version.number, row.name),
                ).decode()
            )
            for row in rows
        }
    except keyring.KekMissing as missing:
        raise Unreadable(
            f"The key-encryption key {missing.kek_id} is not set.",
            f"Set CONDUIT_KEK_{missing.kek_id} to its base64 text and restart.",
        ) from None
    except (keyring.Tampered, UnicodeDecodeError):
        raise Unreadable(
            f"The stored secret does not open: altered, moved, or CONDUIT_KEK_{version.kek_id} is another key.",
            f"Set CONDUIT_KEK_{version.kek_id} to the right key, restore the row, or add the credential again.",
        ) from None
