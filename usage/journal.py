"""The write-ahead journal: each worker appends what it dispatched and settled to its own segment files.

Layout of a segment `<node>-<worker>-<sequence>.seg`, preallocated so that a full disk is noticed before a request is
admitted and never while one settles:

    16 bytes  "CONDUIT-JOURNAL1"
    records   2 bytes magic | u32 length | u32 CRC-32C over length and payload | payload (usage/records.py)
    zeros     up to the preallocated size

A record is one pwrite; the page cache survives `kill -9`. Against power loss: fsync policy `always` (group commit,
awaited), `interval` (each second, default) or `never`. A worker holds a lock on `<node>-<worker>.lock` while it lives,
so the shipper knows which segments nobody will append to any more.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import google_crc32c
import msgspec
import structlog

from usage import records
from usage.errors import JournalFull

log = structlog.get_logger("usage.journal")
FILE_MAGIC = b"CONDUIT-JOURNAL1"
MAGIC = b"\xc5\x1d"
_HEAD = struct.Struct("<2sII")
_LENGTH = struct.Struct("<I")
SEGMENT_BYTES = 16 * 1024 * 1024
MAX_RECORD = 1024 * 1024
RESERVE = 512 * 1024  # room for what is in flight to settle once no next segment can be had


def frame(payload: bytes) -> bytes:
    """A record's bytes on disk."""
    length = _LENGTH.pack(len(payload))
    return _HEAD.pack(MAGIC, len(payload), google_crc32c.value(length + payload)) + payload


class JournalWriter:
    """One worker's journal. Not thread-safe: the event loop's thread appends, a helper thread only syncs."""

    def __init__(self, directory: Path, node: str, worker: str, policy: str = "interval") -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._directory, self._prefix, self._policy = directory, f"{node}-{worker}", policy
        self._lock = os.open(directory / f"{self._prefix}.lock", os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._sequence = 0
        self._retired: list[int] = []
        self._waiting: list[asyncio.Future[None]] = []
        self._committing = False
        self._failure: OSError | None = None
        self._stop = threading.Event()
        self._next: int | None = None
        self._file = self._open(0)
        self._position = len(FILE_MAGIC)
        self._dirty = False
        self._prepare_next()
        self._thread = threading.Thread(target=self._sync_forever, name="journal-sync", daemon=True)
        self._thread.start()

    # --- segments

    def _path(self, sequence: int) -> Path:
        return self._directory / f"{self._prefix}-{sequence:06d}.seg"

    def _open(self, sequence: int) -> int:
        """A preallocated segment under a temporary name, renamed when complete: a reader never sees half of it."""
        temporary = self._directory / f".{self._prefix}-{sequence:06d}.new"
        file = os.open(temporary, os.O_CREAT | os.O_RDWR | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(file, 0, SEGMENT_BYTES)
            os.pwrite(file, FILE_MAGIC, 0)
        except OSError:
            os.close(file)
            temporary.unlink(missing_ok=True)
            raise
        if sequence == self._sequence:
            temporary.rename(self._path(sequence))
        return file

    def _prepare_next(self) -> None:
        if self._next is None:
            try:
                self._next = self._open(self._sequence + 1)
            except OSError:
                self._next = None  # the disk is full: `accepting` turns false while there is still room to settle

    def _rotate(self) -> None:
        if self._next is None:
            self._prepare_next()
        if self._next is None:
            raise JournalFull("the journal's disk is full")
        self._retired.append(self._file)
        self._file, self._next = self._next, None
        self._sequence += 1
        (self._directory / f".{self._prefix}-{self._sequence:06d}.new").rename(self._path(self._sequence))
        self._position = len(FILE_MAGIC)
        self._prepare_next()

    # --- appending

    @property
    def accepting(self) -> bool:
        """False once there is only room left to settle what is in flight, or the disk has failed."""
        if self._failure is not None:
            return False
        if self._next is None and self._position > SEGMENT_BYTES - RESERVE:
            self._prepare_next()
            return self._next is not None
        return True

    def append(self, payload: bytes) -> None:
        """Hands one record to the kernel. Raises JournalFull or OSError; then the record is not in the journal."""
        record = frame(payload)
        if self._position + len(record) > SEGMENT_BYTES:
            self._rotate()
        if os.pwrite(self._file, record, self._position) != len(record):
            raise JournalFull("the journal's disk took only part of a record")
        self._position += len(record)
        self._dirty = True

    # --- durability

    async def durable(self) -> None:
        """Under policy `always` returns once everything appended so far is on the disk; else at once.

        Raises JournalFull when the disk fails.
        """
        if self._policy != "always":
            return
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        self._waiting.append(done)
        if not self._committing:
            self._committing = True
            try:
                while self._waiting:
                    batch, self._waiting = self._waiting, []
                    await loop.run_in_executor(None, self._try_sync)
                    for waiter in batch:
                        if not waiter.done():
                            waiter.set_result(None)
            finally:
                self._committing = False
        await done
        if self._failure is not None:
            raise JournalFull(f"the journal's disk failed: {self._failure}") from self._failure

    def _try_sync(self) -> None:
        """A disk that failed once may have dropped what it took: nothing is admitted any more, what comes is kept in
        the page cache, and a new process decides anew."""
        try:
            self._sync()
        except OSError as error:
            if self._failure is None:
                log.error("journal_disk_failed", journal=self._prefix, reason=str(error))
            self._failure = error

    def _sync(self) -> None:
        self._dirty = False
        retired, self._retired = self._retired, []
        for file in retired:
            os.fdatasync(file)
            os.close(file)
        os.fdatasync(self._file)

    def _sync_forever(self) -> None:
        while not self._stop.wait(1.0):
            if self._policy == "interval" and self._dirty:
                self._try_sync()

    def close(self) -> None:
        """Syncs and gives the lock up: from here on the shipper owns the segments."""
        self._stop.set()
        self._thread.join()
        if self._policy != "never":
            self._try_sync()
        os.close(self._file)
        if self._next is not None:
            os.close(self._next)
            (self._directory / f".{self._prefix}-{self._sequence + 1:06d}.new").unlink(missing_ok=True)
        os.close(self._lock)


# --- reading -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Damaged:
    """Bytes that are no valid record, `length` of them from `position` on."""

    position: int
    length: int
    data: bytes


class JournalReader:
    """Iterates `(next_position, Record | Damaged)` from `position` up to what is written at the time of the call.

    `complete` says that nobody appends any more: then bytes that do not check out are damage; otherwise the last
    record may just be under way, and the reader stops before it.
    """

    def __init__(self, path: Path, position: int = 0, *, complete: bool = False) -> None:
        self._path, self._complete = path, complete
        self.position = max(position, len(FILE_MAGIC))

    def __iter__(self) -> Iterator[tuple[int, records.Record | Damaged]]:
        with self._path.open("rb") as file:
            file.seek(self.position)
            data = file.read() if self._complete else _written(file)
        at, base = 0, self.position
        while True:
            payload = _record_at(data, at)
            if payload is not None:
                at += _HEAD.size + len(payload)
                found = _decode(payload)
                yield (
                    base + at,
                    found if found is not None else Damaged(base + at - len(payload), len(payload), payload),
                )
                continue
            end = _next_valid(data, at)
            if end is None:
                rest = data[at:].rstrip(b"\0") if self._complete else b""
                if rest:
                    yield base + at + len(rest), Damaged(base + at, len(rest), rest)
                return
            yield base + end, Damaged(base + at, end - at, data[at:end])
            at = end


def _written(file: BinaryIO) -> bytes:
    """Up to the first block of nothing but preallocated zeros; no record is long enough to hold a whole such block."""
    blocks = []
    while block := file.read(MAX_RECORD):
        blocks.append(block)
        if block == bytes(len(block)):
            break
    return b"".join(blocks)


def _record_at(data: bytes, at: int) -> bytes | None:
    if len(data) - at < _HEAD.size:
        return None
    magic, length, checksum = _HEAD.unpack_from(data, at)
    if magic != MAGIC or length > MAX_RECORD or at + _HEAD.size + length > len(data):
        return None
    payload = data[at + _HEAD.size : at + _HEAD.size + length]
    if google_crc32c.value(_LENGTH.pack(length) + payload) != checksum:
        return None
    return payload


def _next_valid(data: bytes, at: int) -> int | None:
    """Where the next valid record begins after a bad one; None when there is none."""
    at = data.find(MAGIC, at + 1)
    while at != -1:
        if _record_at(data, at) is not None:
            return at
        at = data.find(MAGIC, at + 1)
    return None


def _decode(payload: bytes) -> records.Record | None:
    try:
        return records.decode(payload)
    except msgspec.DecodeError:
        return None


@dataclass(frozen=True, slots=True)
class Segment:
    """`sealed`: nobody appends to it any more (a later segment exists, or its writer is gone)."""

    path: Path
    name: str
    writer: str
    writer_alive: bool
    sealed: bool


def _alive(lock: Path) -> bool:
    try:
        file = os.open(lock, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


def segments(directory: Path, node: str | None = None) -> list[Segment]:
    """All segments in order of writer and sequence; of one node where it is named."""
    paths = sorted(directory.glob(f"{node or '*'}-*.seg")) if directory.exists() else []
    writers = [path.name.rsplit("-", 1)[0] for path in paths]
    alive = {writer: _alive(directory / f"{writer}.lock") for writer in set(writers)}
    found = []
    for index, (path, writer) in enumerate(zip(paths, writers, strict=True)):
        last = index + 1 == len(paths) or writers[index + 1] != writer
        found.append(Segment(path, path.name, writer, alive[writer], not last or not alive[writer]))
    return found
