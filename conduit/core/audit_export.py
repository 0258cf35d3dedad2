"""The audit log as a file that proves itself: JSON lines, the chain's own fields in each, a checkpoint at the end.

    {"export": "conduit audit log", "format": 1, "first": 1, "last": 1200, "previous": "<hex>", "keys": […], …}
    {"number": 1, "time": "…Z", "actor": {…}, …, "key_version": 1, "mac": "<hex>"}
    …
    {"checkpoint": {"number": 1200, "mac": "<hex>", "time": "…Z", "key_version": 1, "signature": "<hex>"}}

`keys` are the audit keys, each wrapped by its key-encryption key: whoever holds that key can verify the file without
the database, nobody else can read or make a MAC. The first line is signed too, so that a file of a part of the log
cannot pass for another part.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from conduit.core import audit_chain, audit_checkpoints, keyring
from conduit.core.audit_chain import Fault, Verification
from conduit.core.clock import now, rfc3339
from conduit.core.errors import InvalidInput
from conduit.core.models import AuditEntry, AuditHead, PurposeKey

TITLE, FORMAT = "conduit audit log", 1
_TEXTS = ("action", "request_id", "address")


# --- making it -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Part:
    """Entries `first` to `last`; `previous` is the MAC before the first."""

    first: int
    last: int
    previous: bytes


def part(first: int = 1, last: int | None = None) -> Part:
    """What of these numbers is there and chained. Raises InvalidInput when nothing is."""
    rows = AuditEntry.objects.filter(mac__isnull=False)
    newest = rows.order_by("-id").values_list("id", flat=True).first() or 0
    last = newest if last is None else min(last, newest)
    if last < first:
        raise InvalidInput("from", "There are no entries in this range.", "empty")
    before = rows.filter(id=first - 1).values_list("mac", flat=True).first()
    return Part(first, last, bytes(before) if before else audit_chain.START)


def lines(wanted: Part) -> Iterator[str]:
    """The file, line by line, and a checkpoint beside the database too when it goes to the end."""
    version, key = keyring.purpose_key(audit_chain.PURPOSE)
    at = rfc3339(now())
    signature = _sign_header(key, wanted, at, version)
    header = {
        "export": TITLE,
        "format": FORMAT,
        "first": wanted.first,
        "last": wanted.last,
        "previous": wanted.previous.hex(),
        "time": at,
        "keys": [
            {"version": row.version, "kek_id": row.kek_id, "wrapped": base64.b64encode(bytes(row.wrapped)).decode()}
            for row in PurposeKey.objects.filter(purpose=audit_chain.PURPOSE).order_by("version")
        ],
        "key_version": version,
        "signature": signature.hex(),
    }
    yield _line(header)
    rows = AuditEntry.objects.filter(id__gte=wanted.first, id__lte=wanted.last).order_by("id")
    last = wanted.previous
    # By keyset: a download that somebody stops must not leave a cursor open.
    after = wanted.first - 1
    while batch := list(rows.filter(id__gt=after)[: audit_chain.CHUNK]):
        for entry in batch:
            yield _line(chained(entry))
            after, last = entry.id, bytes(entry.mac or b"")
    head = AuditHead(number=wanted.last, mac=last, key_version=version)
    audit_checkpoints.write(head, key)
    yield _line({"checkpoint": audit_checkpoints.describe(head, key)})


def chained(entry: AuditEntry) -> dict[str, Any]:
    """The entry with everything that its MAC covers."""
    return {
        "number": entry.id,
        "time": rfc3339(entry.time),
        "actor": {"kind": entry.actor_kind, "id": entry.actor_id, "name": entry.actor_name},
        "action": entry.action,
        "object": {"kind": entry.object_kind, "id": entry.object_id, "name": entry.object_name},
        "team": str(entry.team_id) if entry.team_id else None,
        "before": entry.before,
        "after": entry.after,
        "request_id": entry.request_id,
        "address": entry.address,
        "key_version": entry.key_version,
        "mac": bytes(entry.mac or b"").hex(),
    }


def _line(value: dict[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":")) + "\n"


def _sign_header(key: bytes, wanted: Part, time: str, version: int) -> bytes:
    message = keyring.context("audit-export", wanted.first, wanted.last, wanted.previous, time, version)
    return hmac.new(key, message, hashlib.sha256).digest()


# --- verifying it --------------------------------------------------------------------------------------------------


@dataclass
class _File:
    path: Path
    keys: dict[int, bytes] = field(default_factory=dict)
    first: int = 1
    last: int = 0
    previous: bytes = audit_chain.START
    checkpoint: audit_checkpoints.Checkpoint | None = None

    def key(self, version: int) -> bytes:
        """Of the file's own, else the database's. Raises LookupError."""
        return self.keys[version] if version in self.keys else audit_chain.key_of(version)

    def scan(self, after: int) -> Iterable[AuditEntry]:
        """Its entries after that number; remembers the checkpoint when it comes by."""
        with self.path.open(encoding="utf-8") as file:
            next(file)
            expected = self.first
            for text in file:
                body = json.loads(text)
                if "checkpoint" in body:
                    self.checkpoint = audit_checkpoints.parse(json.dumps(body["checkpoint"]), 0)
                    continue
                entry = _entry(body, expected)
                expected += 1
                if after < self.first or entry.id > after:
                    yield entry


def verify_file(path: Path) -> Verification:
    """Checks an export by itself. Raises InvalidInput when the file is none, ConfigurationError without its key."""
    try:
        return _verify(path)
    except (ValueError, KeyError, TypeError, StopIteration, RecursionError) as error:
        raise InvalidInput("file", f"{path.name} is not an export of the audit log, or was cut.", "invalid") from error
    except OSError as error:
        raise InvalidInput("file", f"{path.name} cannot be read: {error.strerror}.", "unreadable") from error


def _verify(path: Path) -> Verification:
    with path.open(encoding="utf-8") as file:
        header = json.loads(next(file))
    if header["export"] != TITLE or header["format"] != FORMAT:
        raise ValueError("another format")
    read = _File(path)
    for row in header["keys"]:
        read.keys.update(_unwrapped(row))
    read.first, read.last, read.previous = header["first"], header["last"], bytes.fromhex(header["previous"])
    wanted = Part(read.first, read.last, read.previous)
    key = read.key(header["key_version"])
    signed = _sign_header(key, wanted, header["time"], header["key_version"])
    if not hmac.compare_digest(signed, bytes.fromhex(header["signature"])):
        detail = "The first line's signature is not genuine: it tells of another range."
        return Verification(0, 0, read.previous, Fault(wanted.first, "replaced", detail))
    head = AuditHead(number=read.last, mac=b"", key_version=header["key_version"])
    start = (read.first - 1, read.previous)
    walked = audit_chain.walk(read.scan, read.key, start)
    total = read.last - read.first + 1
    entries = walked.entries - read.first + 1
    fault = walked.fault or _fault_of_end(read, head, walked)
    return Verification(entries, total, walked.head, fault, checkpoints=int(fault is None))


def _fault_of_end(read: _File, head: AuditHead, walked: Verification) -> Fault | None:
    number = walked.entries
    if number < read.last:
        return Fault(number + 1, "truncated", f"Entries {number + 1} to {read.last} were cut off the end of the file.")
    point = read.checkpoint
    if point is None or not point.number:
        return Fault(number + 1, "truncated", "The checkpoint at the end of the file is missing.")
    genuine = audit_checkpoints.genuine(point, read.key(point.key_version))
    if not genuine or point.number != number or point.number != head.number or point.mac != walked.head:
        return Fault(number, "replaced", "The checkpoint at the end of the file belongs to other entries.")
    return None


def _unwrapped(row: dict[str, Any]) -> dict[int, bytes]:
    """The key, where the ring can open it: an older export may be under a key-encryption key that is retired."""
    version = int(row["version"])
    place = keyring.context("purpose-key", audit_chain.PURPOSE, version)
    try:
        return {version: keyring.ring().unwrap(row["kek_id"], base64.b64decode(row["wrapped"]), place)}
    except keyring.KeyRingError:
        return {}


def _entry(body: dict[str, Any], expected: int) -> AuditEntry:
    number = body["number"]
    if type(number) is not int:
        number = expected
    return AuditEntry(
        id=number,
        time=datetime.fromisoformat(body["time"]),
        actor_kind=body["actor"]["kind"],
        actor_id=body["actor"]["id"],
        actor_name=body["actor"]["name"],
        object_kind=body["object"]["kind"],
        object_id=body["object"]["id"],
        object_name=body["object"]["name"],
        team_id=UUID(body["team"]) if body["team"] else None,
        before=body["before"],
        after=body["after"],
        key_version=body["key_version"],
        mac=bytes.fromhex(body["mac"]),
        **{name: body[name] for name in _TEXTS},
    )
