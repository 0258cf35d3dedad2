"""Provider secrets at rest (design 6): one random 256-bit data key per credential version, one ciphertext per field.

    prepare(credential_id, names, number=…)      a wrapped data key, made before the transaction: a service may be slow
    seal_version(credential, fields, number=…)   writes a version and its sealed fields
    open_version(version)                        the plain fields again

A field's associated data is (format, credential id, version number, field name): a blob moved to another row,
version or field does not open. A field may be a reference to a secret that lives elsewhere (providers/references.py):
then that is what is sealed, marked in its associated data too, and the secret itself is never stored.

The data key is wrapped by the key ring under (format, credential id, version number, all field names), so that a field
taken away or added is noticed too, and a change of KEK rewrites only the wrapping.
Whatever does not open is reported with reason and fix, never skipped: callers show it red.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from uuid import UUID

from django.db import transaction
from django.db.models import Max

from conduit.core import keyring, sealed_columns
from conduit.core.errors import ConduitError
from conduit.core.secret import Secret
from providers.models import Credential, CredentialField, CredentialVersion, VersionState
from providers.references import Reference

FORMAT = "conduit-credential-1"


class Unreadable(ConduitError):
    """A stored secret does not open: `reason` says why, `fix` what an operator does about it."""

    def __init__(self, reason: str, fix: str) -> None:
        super().__init__(f"{reason} {fix}")
        self.reason, self.fix = reason, fix


def _field_context(credential_id: UUID, number: int, name: str, *, source: bool = False) -> bytes:
    mark = ("reference",) if source else ()
    return keyring.context(FORMAT, credential_id.bytes, number, name, *mark)


def _key_context(credential_id: UUID, number: int, names: Iterable[str]) -> bytes:
    return keyring.context(FORMAT, credential_id.bytes, number, "data-key", *sorted(names))


@dataclass(frozen=True, slots=True)
class DataKey:
    """A fresh data key, and as it is wrapped: bound to the credential, the number and the fields it was made for."""

    key: bytes = field(repr=False)
    kek_id: str
    wrapped: bytes
    bound: bytes


def prepare(credential_id: UUID, names: Iterable[str], *, number: int) -> DataKey:
    """Asks the service that keeps the primary key, where one does. Raises ConfigurationError, KekUnavailable."""
    key, bound = secrets.token_bytes(keyring.KEY_BYTES), _key_context(credential_id, number, names)
    kek_id, wrapped = keyring.ring().wrap(key, bound)
    return DataKey(key, kek_id, wrapped, bound)


def next_number(credential: Credential) -> int:
    return int(credential.versions.aggregate(highest=Max("number"))["highest"] or 0) + 1


def seal_version(
    credential: Credential,
    fields: Mapping[str, Secret],
    *,
    number: int,
    state: VersionState = VersionState.PENDING,
    data_key: DataKey | None = None,
) -> CredentialVersion:
    """Writes version `number` of a saved credential. Raises ConfigurationError when the key ring is not set up.

    Belongs into the caller's transaction, beside the audit entry of what happened. A `data_key` that was prepared
    before is used if it fits still: its number is free and its key-encryption key primary; else another one is made.
    """
    bound = _key_context(credential.id, number, fields)
    if data_key is None or data_key.bound != bound or data_key.kek_id != keyring.ring().primary:
        data_key = prepare(credential.id, fields, number=number)
    with transaction.atomic():
        version = CredentialVersion.objects.create(
            credential=credential, number=number, state=state, kek_id=data_key.kek_id, wrapped_key=data_key.wrapped
        )
        CredentialField.objects.bulk_create(
            CredentialField(
                version=version,
                name=name,
                source=isinstance(secret, Reference),
                ciphertext=keyring.seal(
                    data_key.key,
                    secret.reveal().encode(),
                    _field_context(credential.id, number, name, source=isinstance(secret, Reference)),
                ),
                hint=secret.hint(),
            )
            for name, secret in fields.items()
        )
    return version


def open_version(version: CredentialVersion) -> dict[str, Secret]:
    """The fields by name, as they are stored: a Reference is not resolved (providers.supply does that).

    Uses prefetched `fields` where there are any. Raises Unreadable.
    """
    rows = list(version.fields.all())
    names = [row.name for row in rows]
    ring = keyring.opening(version.kek_id)
    try:
        data_key = ring.unwrap(
            version.kek_id,
            bytes(version.wrapped_key),
            _key_context(version.credential_id, version.number, names),
        )
        return {row.name: _opened(data_key, version, row) for row in rows}
    except keyring.KekMissing as missing:
        raise Unreadable(
            f"The key-encryption key {missing.kek_id} is not set.",
            f"Set CONDUIT_KEK_{missing.kek_id} to its base64 text and restart.",
        ) from None
    except keyring.KekUnavailable as error:
        raise Unreadable(str(error), f"See that CONDUIT_KEK_{version.kek_id} can be asked.") from None
    except (keyring.Tampered, UnicodeDecodeError):
        raise Unreadable(
            f"The stored secret does not open: altered, moved, or CONDUIT_KEK_{version.kek_id} is another key.",
            f"Set CONDUIT_KEK_{version.kek_id} to the right key, restore the row, or add the credential again.",
        ) from None


def _opened(data_key: bytes, version: CredentialVersion, row: CredentialField) -> Secret:
    where = _field_context(version.credential_id, version.number, row.name, source=row.source)
    text = keyring.open_sealed(data_key, bytes(row.ciphertext), where).decode()
    return Reference(text, row.asked_at) if row.source else Secret(text)


def key_context(version: CredentialVersion) -> bytes:
    """The associated data of a version's wrapped key."""
    return _key_context(version.credential_id, version.number, (row.name for row in version.fields.all()))


sealed_columns.register(
    "providers.CredentialVersion",
    sealed_columns.Wrapped("wrapped_key", context=key_context, open=open_version, related=("fields",)),
)
