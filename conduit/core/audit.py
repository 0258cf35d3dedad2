"""The audit log. An entry is written in the transaction of the change: what cannot be logged does not happen."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import datetime
from typing import Any, TypedDict, Unpack
from uuid import UUID

from django.db import transaction

from conduit.core.actor import Actor
from conduit.core.clock import rfc3339
from conduit.core.models import AuditEntry

request_id: ContextVar[str] = ContextVar("conduit_request_id", default="")


class Details(TypedDict, total=False):
    """`before` and `after` hold only what changed, JSON values plus UUID and datetime; never a secret."""

    name: str
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None
    team_id: UUID | None
    request_id: str


def record(*, actor: Actor, action: str, kind: str, id: object, **details: Unpack[Details]) -> None:  # noqa: A002
    """Writes one entry. Raises RuntimeError outside a transaction, TypeError for what is not plain (a Secret)."""
    if not transaction.get_connection().in_atomic_block:
        raise RuntimeError(f"audit entry {action} outside the transaction of its change")
    AuditEntry.objects.create(
        actor_kind=actor.kind,
        actor_id=actor.id,
        actor_name=actor.name,
        action=action,
        object_kind=kind,
        object_id=str(id),
        object_name=details.get("name", ""),
        team_id=details.get("team_id"),
        before=_plain(details.get("before")),
        after=_plain(details.get("after")),
        request_id=details.get("request_id") or request_id.get(),
    )


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parts of two descriptions of one object that differ."""
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return {name: before.get(name) for name in names}, {name: after.get(name) for name in names}


def _plain(value: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if value is None:
        return None
    plain: dict[str, Any] = json.loads(json.dumps(dict(value), default=_text, allow_nan=False))
    return plain


def _text(value: object) -> str:
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, UUID):
        return str(value)
    # A Secret ends here on purpose: the change fails instead of leaking into the log.
    raise TypeError(f"a {type(value).__name__} does not belong into the audit log")
