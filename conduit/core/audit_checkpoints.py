"""Checkpoints of the audit log outside the database: one signed line of JSON each, in CONDUIT_HOME/audit.

    {"number": 1200, "mac": "<hex>", "time": "…Z", "key_version": 1, "signature": "<hex>"}

A line says how far the log went and what its last MAC was. Whoever can put an old database back, head and all, cannot
take these lines along; a copy on another machine holds even against one who can write here. Each line goes to the log
too (`audit checkpoint`), so that collected logs are such a copy.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings

from conduit.core import keyring
from conduit.core.clock import now, rfc3339
from conduit.core.models import AuditHead

logger = logging.getLogger("conduit.audit")
NAME = "audit/checkpoints.jsonl"
BATCH = 500
_TAIL = 4096


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """`number` 0: the line cannot be read, as after a power cut in the middle of it."""

    line: int
    number: int
    mac: bytes = b""
    time: str = ""
    key_version: int = 0
    signature: bytes = b""


def path() -> Path:
    return Path(settings.CONDUIT_HOME) / NAME


def describe(head: AuditHead, key: bytes) -> dict[str, Any]:
    """The line's members for this head, signed now."""
    at = rfc3339(now())
    mac = bytes(head.mac)
    signature = _sign(key, head.number, mac, at, head.key_version)
    return {
        "number": head.number,
        "mac": mac.hex(),
        "time": at,
        "key_version": head.key_version,
        "signature": signature.hex(),
    }


def write(head: AuditHead, key: bytes) -> bool:
    """Appends a checkpoint and waits until the disk has it. False when the last line says the same already, and when
    the file cannot be written: that is in the log, and what the checkpoint is about goes on."""
    body = describe(head, key)
    try:
        if not _append(head, body):
            return False
    except OSError as error:
        logger.error("no checkpoint in %s: %s. Correct the owner of the file and its folder.", path(), error.strerror)  # noqa: TRY400
        return False
    logger.info("audit checkpoint: entry %d mac %s signature %s", body["number"], body["mac"], body["signature"])
    return True


def _append(head: AuditHead, body: dict[str, Any]) -> bool:
    place = path()
    if not place.parent.exists():
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _give(place.parent, place.parent.parent.stat())
    descriptor = os.open(place, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        _give(descriptor, place.parent.stat())
        size = os.fstat(descriptor).st_size
        tail = os.pread(descriptor, _TAIL, max(size - _TAIL, 0))
        last = parse(tail.rstrip(b"\n").rpartition(b"\n")[2], 0) if tail else None
        if last is not None and (last.number, last.mac) == (head.number, bytes(head.mac)):
            return False
        # A line that a power cut tore ends here; this one must not continue it.
        torn = b"\n" if tail and not tail.endswith(b"\n") else b""
        os.write(descriptor, torn + json.dumps(body).encode() + b"\n")
        os.fsync(descriptor)
        return True
    finally:
        os.close(descriptor)


def _give(made: int | Path, folder: os.stat_result) -> None:
    """What root makes goes to the folder's owner: the processes that read it run as that."""
    if os.geteuid() == 0:
        os.chown(made, folder.st_uid, folder.st_gid)


def read() -> Iterator[list[Checkpoint]] | None:
    """The file's checkpoints in batches; None when there is no file."""
    if not path().exists():
        return None
    return _batches()


def _batches() -> Iterator[list[Checkpoint]]:
    batch: list[Checkpoint] = []
    with path().open("rb") as file:
        for line, text in enumerate(file, 1):
            if text.strip():
                batch.append(parse(text, line))
            if len(batch) == BATCH:
                yield batch
                batch = []
    yield batch


def parse(text: bytes | str, line: int) -> Checkpoint:
    """One line; number 0 when it is none of ours."""
    try:
        body = json.loads(text)
        number, version = body["number"], body["key_version"]
        if not (type(number) is int and type(version) is int and 0 < number < 2**63 and 0 < version < 2**31):
            return Checkpoint(line, 0)
        mac, signature = bytes.fromhex(body["mac"]), bytes.fromhex(body["signature"])
        return Checkpoint(line, number, mac, str(body["time"]), version, signature)
    except (ValueError, TypeError, KeyError, RecursionError):
        return Checkpoint(line, 0)


def genuine(point: Checkpoint, key: bytes) -> bool:
    return hmac.compare_digest(_sign(key, point.number, point.mac, point.time, point.key_version), point.signature)


def _sign(key: bytes, number: int, mac: bytes, time: str, key_version: int) -> bytes:
    message = keyring.context("audit-checkpoint", number, mac, time, key_version)
    return hmac.new(key, message, hashlib.sha256).digest()
