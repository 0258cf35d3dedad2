"""A provider together with its first credential: both are saved, or neither."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.db import transaction

from conduit.core.actor import Actor
from conduit.core.clock import now
from conduit.core.secret import Secret
from providers.credentials import add_credential, parse_fields
from providers.models import Provider
from providers.providers import add_provider, kind_of
from providers.verification import check


@dataclass(frozen=True, slots=True)
class NewCredential:
    """`verify` False saves without a call."""

    name: str
    fields: Mapping[str, Secret]
    verify: bool = True


def add_with_credential(*, actor: Actor, provider: Mapping[str, Any], credential: NewCredential) -> Provider:
    """`provider` holds name, kind and providers.Settings. The credential is proved by one real call.

    Raises InvalidInput, or VerificationFailed with the provider's own words; then nothing was saved.
    """
    with transaction.atomic():
        draft = add_provider(actor=actor, **provider)
        plain = parse_fields(kind_of(draft), fields=credential.fields)
        transaction.set_rollback(True)
    # The call is made outside of any transaction: one that hangs must not hold the configuration's locks.
    proven = None
    if credential.verify:
        check(draft, plain)
        proven = now()
    with transaction.atomic():
        saved = add_provider(actor=actor, **provider)
        add_credential(saved, actor=actor, name=credential.name, fields=plain, verify=False, proven=proven)
    return saved
