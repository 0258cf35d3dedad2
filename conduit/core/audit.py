"""The audit log. An entry is written in the transaction of the change: what cannot be logged does not happen.

    with transaction.atomic():
        audit.lock()          # before any row is locked or written
        …                     # the change
        audit.record(…)

Entries form one chain (audit_chain), so writers take turns: one row, that of the epoch, is locked until commit. The
triggers of keys, providers and prices raise that same row, so a change holds it from its first write on in any case.
Whoever locked some row of its own before it could wait in a circle with one who did it the other way round;
therefore every change that locks or writes more than its one row calls `lock` first. Then this row is the first lock
of everybody, and there is no circle. Traffic is no part of it: workers only read the epoch, leases and the ledger
never lock it. Nothing slow, a call to a provider above all, belongs between `lock` and commit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import datetime
from typing import Any, TypedDict, Unpack
from uuid import UUID

from django.db import transaction

from conduit.core import audit_chain
from conduit.core.actor import Actor
from conduit.core.clock import now, rfc3339
from conduit.core.models import AuditEntry

request_id: ContextVar[str] = ContextVar("conduit_request_id", default="")
address: ContextVar[str] = ContextVar("conduit_address", default="")


class Details(TypedDict, total=False):
    """`before` and `after` hold only what changed, JSON values plus UUID and datetime; never a secret."""

    name: str
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None
    team_id: UUID | None
    request_id: str


def lock() -> None:
    """Waits for its turn among the changes; held until commit. Doing it again costs one short query.

    Raises RuntimeError outside a transaction.
    """
    if not transaction.get_connection().in_atomic_block:
        raise RuntimeError("audit.lock outside a transaction holds nothing")
    audit_chain.lock()


def record(*, actor: Actor, action: str, kind: str, id: object, **details: Unpack[Details]) -> None:  # noqa: A002
    """Writes one entry. Raises RuntimeError outside a transaction, TypeError for what is not plain (a Secret)."""
    if not transaction.get_connection().in_atomic_block:
        raise RuntimeError(f"audit entry {action} outside the transaction of its change")
    entry = AuditEntry(
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
        address=address.get()[:64],
    )
    audit_chain.lock()
    entry.time = now()
    audit_chain.append(entry)


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parts of two descriptions of one object that differ."""
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return {name: before.get(name) for name in names}, {name: after.get(name) for name in names}


def _plain(value: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if value is None:
        return None
    text = json.dumps(dict(value), default=_text, allow_nan=False)
    plain: dict[str, Any] = json.loads(text, parse_float=_number)
    return plain


def _number(text: str) -> float | int:
    """As the database gives it back: it keeps 1e16 and 2.0 as whole numbers, and the chain covers what is read."""
    number = float(text)
    return int(number) if number.is_integer() else number


def _text(value: object) -> str:
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, UUID):
        return str(value)
    # A Secret ends here on purpose: the change fails instead of leaking into the log.
    raise TypeError(f"a {type(value).__name__} does not belong into the audit log")
