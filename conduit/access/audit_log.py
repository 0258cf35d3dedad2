"""Reading the audit log: filters, bodies in the contract's names, and how the last verification went."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Q, QuerySet

from conduit.access.permissions import demand
from conduit.core import audit, audit_chain, audit_export
from conduit.core.actor import Actor
from conduit.core.audit_chain import Verification
from conduit.core.clock import now, rfc3339
from conduit.core.errors import Conflict, InvalidInput
from conduit.core.fields import parse_time
from conduit.core.models import AuditEntry

WALKED_WHOLE = 20_000  # entries that are walked anew in a request
_LOCK = 0x61756474  # of PostgreSQL's advisory locks: one verification that somebody waits for at a time
FILTERS = {
    "actor": "id or name of the user or token; system for Conduit itself",
    "action": "such as key.create; key.* for all of keys",
    "kind": "of the object, such as key",
    "object": "id of the object",
    "team": "id of the object's team",
    "request_id": "of the management request",
    "from": "RFC 3339, included",
    "to": "RFC 3339, not included",
}
_PLAIN = {"kind": "object_kind", "object": "object_id", "request_id": "request_id"}
_TIMES = {"from": "time__gte", "to": "time__lt"}


def entries(given: Mapping[str, str]) -> QuerySet[AuditEntry]:
    """Newest first, where every filter holds. Raises InvalidInput naming the filter."""
    rows = AuditEntry.objects.order_by("-id")
    for name, field in _PLAIN.items():
        if name in given:
            rows = rows.filter(**{field: given[name]})
    for name, lookup in _TIMES.items():
        if name in given:
            rows = rows.filter(**{lookup: instant(name, given[name])})
    if "team" in given:
        try:
            rows = rows.filter(team_id=UUID(given["team"]))
        except ValueError:
            raise InvalidInput("team", "Must be an id.", "invalid_id") from None
    if "actor" in given:
        rows = rows.filter(Q(actor_id=given["actor"]) | Q(actor_name=given["actor"]))
    if action := given.get("action"):
        every = action.removesuffix("*")
        rows = rows.filter(action=action) if every == action else rows.filter(action__startswith=every)
    return rows


def instant(name: str, text: str) -> datetime:
    """Raises InvalidInput."""
    try:
        return parse_time(text)
    except InvalidInput as error:
        raise InvalidInput(name, error.detail, error.code) from None


def body(row: AuditEntry) -> dict[str, Any]:
    """The entry without the chain's own fields."""
    shown = audit_export.chained(row)
    del shown["key_version"], shown["mac"]
    return {"id": str(row.id), **shown}


# --- verifying -----------------------------------------------------------------------------------------------------


def verification_body(found: Verification) -> dict[str, Any]:
    fault = found.fault
    return {
        "ok": found.intact,
        "entries": found.entries,
        "total": found.total,
        "head": found.head.hex(),
        "fault": {"number": fault.number, "kind": fault.kind, "detail": fault.detail} if fault else None,
        "checkpoints": found.checkpoints,
        "anchored_at": found.anchored_at or None,
        "notes": list(found.notes),
        "first": found.first,
    }


def verify_and_keep() -> Verification:
    """Verifies the whole log and leaves the outcome in CONDUIT_HOME/run/audit.json for the console."""
    found = audit_chain.verify()
    _keep(found)
    return found


def verify_in_turn(*, whole: bool = False) -> tuple[dict[str, Any], bool]:
    """For whoever waits for the answer: (body with `time` and `whole_at`, whether it was made now).

    One at a time, whatever process asks; while one is under way the last outcome that this node kept is the answer.
    Of a log that was intact beyond WALKED_WHOLE entries only what came since is walked, unless `whole`. Raises
    Conflict when one is under way and none is kept.
    """
    with _turn() as mine:
        if mine:
            return _keep(audit_chain.verify(None if whole else _intact_so_far())), True
    kept = last_verification()
    if kept is None:
        raise Conflict("A verification is under way, and this node has kept none before. Ask again when it is done.")
    return kept[0], False


@contextmanager
def _turn() -> Iterator[bool]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [_LOCK])
        mine = bool(cursor.fetchone()[0])
    try:
        yield mine
    finally:
        if mine:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [_LOCK])


def _intact_so_far() -> tuple[int, bytes] | None:
    """The last entry that was intact, where there are so many that walking them all takes long."""
    kept = last_verification()
    if kept is None or kept[0].get("ok") is not True or not kept[0].get("whole_at"):
        return None
    try:
        number, mac = int(kept[0]["entries"]), bytes.fromhex(kept[0]["head"])
    except (ValueError, KeyError, TypeError):
        return None
    return (number, mac) if number >= WALKED_WHOLE else None


def _keep(found: Verification) -> dict[str, Any]:
    """Aside and then in its place: the job, the API, the console and commands may all be at it."""
    at, before = rfc3339(now()), last_verification()
    whole_at = at if found.first == 1 else before[0].get("whole_at") if before else None
    told = {**verification_body(found), "time": at, "whole_at": whole_at}
    path = _kept()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    owner = path.parent.stat()
    with NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, prefix=".audit.", delete=False) as file:
        aside = Path(file.name)
        try:
            if os.geteuid() == 0:
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)  # the processes that read it run as its owner
            json.dump(told, file)
            file.flush()
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
    return told


def last_verification() -> tuple[dict[str, Any], datetime] | None:
    """(body, when) of this node's last one; None when there was none."""
    try:
        told: dict[str, Any] = json.loads(_kept().read_text())
        at = datetime.fromisoformat(told["time"]).astimezone(UTC)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return told, at


def _kept() -> Path:
    return Path(settings.CONDUIT_HOME) / "run" / "audit.json"


# --- exporting -----------------------------------------------------------------------------------------------------


def export(actor: Actor, start: datetime | None = None, end: datetime | None = None) -> Iterator[str]:
    """Lines of the proof-carrying file of the entries of a time span, all by default. That somebody took it is an entry
    itself. Raises Forbidden, and InvalidInput when there is nothing in the span."""
    demand(actor, "audit", write=False)
    after = {"from": rfc3339(start) if start else None, "to": rfc3339(end) if end else None}
    with transaction.atomic():
        audit.record(actor=actor, action="audit.export", kind="audit", id="log", name="audit log", after=after)
    first = _number_at(start) if start else 1
    last = _number_at(end) - 1 if end else None
    return audit_export.lines(audit_export.part(first, last))


def _number_at(at: datetime) -> int:
    """Of the first entry from then on. Numbers and times go the same way but for a clock that was set back."""
    found = AuditEntry.objects.filter(time__gte=at).order_by("time", "id").values_list("id", flat=True).first()
    if found is not None:
        return found
    return (AuditEntry.objects.order_by("-id").values_list("id", flat=True).first() or 0) + 1
