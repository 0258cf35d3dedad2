"""Which columns hold secrets, and under what: asked by the rewrap of a KEK rotation, by the open-check before a key is
retired, and by a system check that finds by introspection whatever nobody declared.

A model with a `kek_id` column is registered by its app, with the column of the wrapped key and its associated data:

    register("providers.CredentialVersion", Wrapped("wrapped_key", context=…, open=…, related=("fields",)))

Every other column of bytes has a line in BYTES that says under what it is sealed, or that it is no secret.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from django.apps import apps
from django.db.models import BinaryField, Model, QuerySet

BYTES = {
    "access.ManagementToken.digest": "HMAC under the purpose key token-pepper",
    "core.AuditEntry.mac": "HMAC under the purpose key audit",
    "core.AuditHead.mac": "HMAC under the purpose key audit",
    "core.AuditHead.seal": "HMAC under the purpose key audit",
    "core.IdempotentCall.reply": "sealed under the purpose key replies",
    "core.IdempotentCall.request": "HMAC under the purpose key replies",
    "core.IdempotentCall.scope": "HMAC under the purpose key replies",
    "core.IdempotentReply.body_digest": "HMAC under the purpose key replies",
    "core.IdempotentReply.reply": "sealed under the purpose key replies",
    "keys.KeySecret.digest": "HMAC under the purpose key pepper",
    "providers.CredentialField.ciphertext": "sealed under the data key of its version",
    "usage.StoredResponse.content": "sealed under the purpose key responses",
}
# Purpose → (model, column) of the rows that name a version of its key; such a version is needed as long as they do.
VERSIONED = {
    "pepper": ("keys.KeySecret", "pepper_version"),
    "responses": ("usage.StoredResponse", "key_version"),
    "token-pepper": ("access.ManagementToken", "pepper_version"),
}


@dataclass(frozen=True, slots=True)
class Wrapped:
    """Rows that keep a key wrapped by the KEK in `kek_id`.

    blob          the column, named as its field; empty in a row whose key was destroyed
    context(row)  the associated data of its wrapped key
    open(row)     opens all that the row protects; raises ConduitError
    related       what to prefetch for both
    """

    blob: str
    context: Callable[[Any], bytes]
    open: Callable[[Any], object]
    related: tuple[str, ...] = ()


_registered: dict[str, Wrapped] = {}


def register(label: str, wrapped: Wrapped) -> None:
    _registered[label] = wrapped


def models_with_keks() -> list[type[Model]]:
    """By introspection, registered or not."""
    return [model for model in apps.get_models() if any(field.name == "kek_id" for field in model._meta.fields)]


def registered() -> list[tuple[type[Model], Wrapped]]:
    """Those that a rotation rewraps; the system check says whether that is all of them."""
    return [(model, _registered[model._meta.label]) for model in models_with_keks() if model._meta.label in _registered]


def rows_with_a_key(model: type[Model]) -> QuerySet[Any]:
    """Rows whose key was not destroyed."""
    rows = model._base_manager.order_by()
    wrapped = _registered.get(model._meta.label)
    return rows.exclude(**{wrapped.blob: b""}) if wrapped else rows


def undeclared() -> Iterator[str]:
    """One sentence for each column that a rotation or a reader of this file would miss."""
    for model in apps.get_models():
        label = model._meta.label
        wrapped = _registered.get(label)
        if wrapped is None and any(field.name == "kek_id" for field in model._meta.fields):
            yield f"{label} has a kek_id but is not registered: a change of key-encryption keys would miss it."
        for field in model._meta.local_fields:
            known = f"{label}.{field.name}" in BYTES or (wrapped is not None and wrapped.blob == field.name)
            if isinstance(field, BinaryField) and not known:
                yield f"{label}.{field.name} holds bytes and BYTES does not say whether they are a secret."
