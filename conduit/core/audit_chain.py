"""The chain of the audit log: every entry's MAC covers the entry and the MAC before it, under a key of its own.

    mac(n)  = HMAC-SHA256(key, mac(n-1) ‖ every column of entry n)          mac(0) is 32 zero bytes
    seal    = HMAC-SHA256(key, number ‖ mac of the last entry)              of the head row

Numbers have no gaps, so what was edited, deleted, moved or added shows, and the sealed head shows a cut end. An old
head put back with its shorter log shows against the checkpoints outside the database (audit_checkpoints).

A head that does not verify is not built upon: the next entry follows RESTART instead of the head. Changes go on, and
the entry says for good that the chain was broken before it.
"""

from __future__ import annotations

import copy
import hashlib
import hmac
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

from django.db import connection, transaction

from conduit.core import audit_checkpoints, keyring
from conduit.core.clock import rfc3339
from conduit.core.models import AuditEntry, AuditHead, PurposeKey

PURPOSE = "audit"
START = bytes(32)
RESTART = hashlib.sha256(b"the head of the audit log did not verify").digest()
CHUNK = 2_000
CHECKPOINT_EVERY = 100
NOTES = 20
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"))
_ENDS = """
SELECT greatest((SELECT max(id) FROM core_auditentry), 0), number, mac, key_version, seal
  FROM (SELECT 1) AS one LEFT JOIN core_audithead ON true
"""
_PUT_HEAD = """
INSERT INTO core_audithead (id, number, mac, key_version, seal) VALUES (1, %s, %s, %s, %s)
ON CONFLICT (id) DO UPDATE
   SET number = excluded.number, mac = excluded.mac, key_version = excluded.key_version, seal = excluded.seal
"""
_PUT_MACS = """
UPDATE core_auditentry AS t SET mac = v.mac, key_version = %s
  FROM unnest(%s::bigint[], %s::bytea[]) AS v(id, mac) WHERE t.id = v.id
"""
Keys = Callable[[int], bytes]
Scan = Callable[[int], Iterable[AuditEntry]]
Stored = Callable[[list[int]], dict[int, bytes]]


# --- the MACs ------------------------------------------------------------------------------------------------------


def mac(key: bytes, previous: bytes, entry: AuditEntry) -> bytes:
    """32 bytes over the MAC before and every column but `mac` itself."""
    return _hmac(
        key,
        "audit-entry",
        previous,
        entry.id,
        entry.key_version or 0,
        rfc3339(entry.time),
        entry.actor_kind,
        entry.actor_id,
        entry.actor_name,
        entry.action,
        entry.object_kind,
        entry.object_id,
        entry.object_name,
        str(entry.team_id or ""),
        _canonical(entry.before),
        _canonical(entry.after),
        entry.request_id,
        entry.address,
    )


def seal(key: bytes, number: int, last: bytes, key_version: int) -> bytes:
    return _hmac(key, "audit-head", number, last, key_version)


def _hmac(key: bytes, *parts: str | int | bytes) -> bytes:
    return hmac.new(key, keyring.context(*parts), hashlib.sha256).digest()


def _canonical(value: Any) -> str:
    return _ENCODER.encode(value)


def key_of(version: int) -> bytes:
    """Raises LookupError when the database has no such version of the audit key."""
    return keyring.purpose_key(PURPOSE, version)[1]


# --- writing -------------------------------------------------------------------------------------------------------


def lock() -> None:
    """The one row that all writers wait for; see `audit` why it is this one."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM core_epoch WHERE id = 1 FOR UPDATE")


def append(entry: AuditEntry) -> None:
    """Numbers, chains and writes the entry. The caller holds `lock`, so what is read here is the last committed."""
    number, previous = _end()
    version, key = keyring.purpose_key(PURPOSE)
    entry.id, entry.key_version = number + 1, version
    entry.mac = own = mac(key, previous, entry)
    entry.save(force_insert=True)
    sealed = seal(key, entry.id, own, version)
    with connection.cursor() as cursor:
        cursor.execute(_PUT_HEAD, [entry.id, own, version, sealed])
    if entry.id == 1 or entry.id % CHECKPOINT_EVERY == 0:
        head = AuditHead(id=1, number=entry.id, mac=own, key_version=version, seal=sealed)
        transaction.on_commit(partial(audit_checkpoints.write, head, key), robust=True)


def checkpoint() -> bool:
    """A checkpoint of the head as it is, outside the database. False when there is none, or none is needed."""
    head = AuditHead.objects.first()
    return head is not None and _sealed(head, key_of) and audit_checkpoints.write(head, key_of(head.key_version))


def _end() -> tuple[int, bytes]:
    """(number, MAC) that the next entry follows."""
    last, head = _ends()
    if head is not None:
        if head.number == last and _sealed(head, key_of):
            return head.number, bytes(head.mac)
        return max(last, head.number), RESTART
    # Entries of the time before the chain are sealed once. Without a head but with its key there was a chain already.
    if last == 0 or not PurposeKey.objects.filter(purpose=PURPOSE).exists():
        return last, _seal_old()
    return last, RESTART


def _ends() -> tuple[int, AuditHead | None]:
    """(number of the last entry, 0 for none; the head). One statement sees one state: they belong together, whoever
    writes meanwhile."""
    with connection.cursor() as cursor:
        cursor.execute(_ENDS)
        last, number, head_mac, version, sealed = cursor.fetchone() or (0, None, b"", 0, b"")
    if number is None or version is None:
        return last, None
    return last, AuditHead(id=1, number=number, mac=head_mac, key_version=version, seal=sealed)


def _seal_old() -> bytes:
    """Chains the entries that have no MAC yet, in the order of their numbers. Returns the last MAC."""
    version, key = keyring.purpose_key(PURPOSE)
    previous = START
    entries = iter(_entries(0, None))
    with connection.cursor() as cursor:
        while batch := list(islice(entries, CHUNK)):
            macs = []
            for entry in batch:
                entry.key_version = version
                previous = mac(key, previous, entry)
                macs.append(previous)
            # Everybody waits meanwhile, so no expression per row: one statement of two arrays.
            cursor.execute(_PUT_MACS, [version, [entry.id for entry in batch], macs])
    return previous


def _sealed(head: AuditHead, keys: Keys) -> bool:
    try:
        key = keys(head.key_version)
    except LookupError:
        return False
    return hmac.compare_digest(seal(key, head.number, bytes(head.mac), head.key_version), bytes(head.seal))


# --- verifying -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fault:
    """The first fault. `kind`: edited, missing, reordered, inserted, truncated, forged head or replaced."""

    number: int
    kind: str
    detail: str


@dataclass(frozen=True, slots=True)
class Verification:
    """`entries` were intact one after the other, of `total`; `head` is the last one's MAC.

    `first` is where the walk began: above 1, what comes before was intact earlier and was not read again.
    `checkpoints` that agree, `anchored_at` the time of the last of them; `notes` say what could not be compared.
    """

    entries: int
    total: int
    head: bytes
    fault: Fault | None
    checkpoints: int = 0
    anchored_at: str = ""
    notes: tuple[str, ...] = ()
    first: int = 1

    @property
    def intact(self) -> bool:
        return self.fault is None


def verify(after: tuple[int, bytes] | None = None) -> Verification:
    """Walks the whole log and compares it with the head and the checkpoints. Reads a stream, in constant memory.

    `after`: number and MAC of an entry up to which the log was intact before. While that entry has that MAC only what
    follows it is walked; a change of what comes before shows in a whole walk alone.

    Entries that are written meanwhile are left out. Raises ConfigurationError when the audit key does not open.
    """
    last, head = _ends()
    if head is None and not PurposeKey.objects.filter(purpose=PURPOSE).exists():
        notes = ("The entries are not chained yet: that happens with the next change.",) if last else ()
        return compare(Verification(0, last, START, None, notes=notes), _stored)
    known = after is not None and _stored([after[0]]).get(after[0]) == after[1]
    start = after if after is not None and known else (0, START)
    return compare(examine(partial(_entries, last=last), head, key_of, start), _stored)


def _entries(after: int, last: int | None) -> Iterable[AuditEntry]:
    """In the order of their numbers. From the start also numbers below 1, which only a forger gives."""
    rows = AuditEntry.objects.order_by("id")
    if after:
        rows = rows.filter(id__gt=after)
    if last is not None:
        rows = rows.filter(id__lte=last)
    return rows.iterator(chunk_size=CHUNK)


def examine(scan: Scan, head: AuditHead | None, keys: Keys, start: tuple[int, bytes] = (0, START)) -> Verification:
    """Checks entries and head. `scan(n)` gives the entries after number n, in order; `scan(0)` all there are."""
    walked = walk(scan, keys, start)
    total = max(walked.total, head.number if head else 0)
    fault = walked.fault or _fault_of_head(head, walked.entries, walked.head, keys)
    return Verification(walked.entries, total, walked.head, fault, first=start[0] + 1)


def walk(scan: Scan, keys: Keys, start: tuple[int, bytes] = (0, START)) -> Verification:
    """The entries alone, as far as each follows from the one before; `entries` is the number of the last that does."""
    number, previous = start
    for entry in scan(number):
        fault = _fault_of(entry, number + 1, previous, keys)
        if fault is not None:
            fault = _moved(scan, fault, previous, keys) or fault
            return Verification(number, max(number, entry.id), previous, fault)
        number, previous = entry.id, bytes(entry.mac or b"")
    return Verification(number, number, previous, None)


def _fault_of(entry: AuditEntry, expected: int, previous: bytes, keys: Keys) -> Fault | None:
    if entry.id < expected:
        return Fault(entry.id, "inserted", f"Entry {entry.id} has a number that was never given.")
    if entry.id > expected:
        return Fault(expected, "missing", f"Entry {expected} is missing: {entry.id} follows {expected - 1}.")
    if entry.mac is None:
        return Fault(expected, "inserted", f"Entry {expected} was put in beside the chain: it has no MAC.")
    if _follows(entry, previous, keys):
        return None
    if _follows(entry, RESTART, keys):
        detail = f"Before entry {expected} was written the log or its head had been tampered with."
        return Fault(expected, "forged head", detail)
    return Fault(expected, "edited", f"Entry {expected} was edited, or what stood there was replaced.")


def _follows(entry: AuditEntry, previous: bytes, keys: Keys) -> bool:
    try:
        key = keys(entry.key_version or 0)
    except LookupError:
        return False
    return hmac.compare_digest(mac(key, previous, entry), bytes(entry.mac or b""))


def _moved(scan: Scan, fault: Fault, previous: bytes, keys: Keys) -> Fault | None:
    """The entry that belongs here may stand further down: then it is the order that was changed."""
    for entry in scan(fault.number):
        moved = copy.copy(entry)
        moved.id = fault.number
        if entry.mac is not None and _follows(moved, previous, keys):
            return Fault(fault.number, "reordered", f"Entry {fault.number} was moved: it stands as entry {entry.id}.")
    return None


def _fault_of_head(head: AuditHead | None, number: int, last: bytes, keys: Keys) -> Fault | None:
    if head is None:
        return Fault(number + 1, "forged head", "The log has no head: it was removed.")
    if not _sealed(head, keys):
        return Fault(number + 1, "forged head", "The head's seal is not genuine.")
    if head.number > number:
        gone = f"Entry {number + 1}" if head.number == number + 1 else f"Entries {number + 1} to {head.number}"
        return Fault(number + 1, "truncated", f"{gone} were cut off the end: the head counts {head.number}.")
    if head.number < number or not hmac.compare_digest(bytes(head.mac), last):
        return Fault(head.number + 1, "forged head", f"The head counts {head.number} entries and belongs to others.")
    return None


def compare(found: Verification, stored: Stored) -> Verification:
    """An intact chain against what was put outside the database. `stored` gives the MACs of entries by number."""
    if found.fault is not None:
        return found
    try:
        return _compare(found, stored)
    except OSError as error:
        note = (
            f"{audit_checkpoints.NAME} cannot be read ({error.strerror}), so nothing was compared. Correct its owner."
        )
        return replace(found, notes=(*found.notes, note))


def _compare(found: Verification, stored: Stored) -> Verification:
    checkpoints, notes, anchored_at, agreed = audit_checkpoints.read(), list(found.notes), "", 0
    if checkpoints is None:
        notes.append(f"There are no checkpoints in {audit_checkpoints.NAME} to compare with.")
    for batch in checkpoints or ():
        macs = stored([point.number for point in batch if point.number])
        for point in batch:
            fault = _fault_of_checkpoint(point, found.total, macs.get(point.number))
            if fault is not None:
                return replace(found, fault=fault, checkpoints=agreed, anchored_at=anchored_at)
            if point.number:
                agreed, anchored_at = agreed + 1, max(anchored_at, point.time)
            else:
                notes.append(f"Line {point.line} of {audit_checkpoints.NAME} cannot be read.")
    return replace(found, checkpoints=agreed, anchored_at=anchored_at, notes=tuple(notes[:NOTES]))


def _stored(numbers: list[int]) -> dict[int, bytes]:
    rows = AuditEntry.objects.filter(id__in=numbers).values_list("id", "mac")
    return {number: bytes(value or b"") for number, value in rows}


def _fault_of_checkpoint(point: audit_checkpoints.Checkpoint, total: int, stored: bytes | None) -> Fault | None:
    if not point.number:
        return None
    where = f"line {point.line} of {audit_checkpoints.NAME}"
    try:
        genuine = audit_checkpoints.genuine(point, key_of(point.key_version))
    except LookupError:
        genuine = False
    if not genuine:
        detail = f"The checkpoint of entry {point.number} ({where}) is not of this log's key: one of both was replaced."
        return Fault(point.number, "replaced", detail)
    if stored is None:
        detail = f"Entries {total + 1} to {point.number} are gone: {where} was written when they were there."
        return Fault(total + 1, "truncated", detail)
    if not hmac.compare_digest(bytes(stored), point.mac):
        return Fault(point.number, "replaced", f"Entry {point.number} is not the one that {where} was written for.")
    return None
