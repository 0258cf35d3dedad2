"""The ledger shipper: journals in, PostgreSQL rows out. One process per node runs it (usage/shipper.py).

A pass reads what every worker of this node wrote since the last commit and applies it in batches (usage/ledger.py). It
adopts the journals of dead workers, deletes what is applied, keeps damaged bytes aside, and simply tries again from the
same place while PostgreSQL is away. SIGTERM: passes until nothing is left to read, then exit 0.
"""

from __future__ import annotations

import os
import time
import zlib
from pathlib import Path
from threading import Event
from types import FrameType

import structlog
from django.db import InterfaceError, OperationalError, connection, transaction

from conduit.core import clock
from keys import leases
from usage import records
from usage.journal import Damaged, Segment, segments
from usage.ledger import Advance, Applied, apply, uncertain
from usage.models import JournalCursor
from usage.records import Ended
from usage.status import Lag, Status, measure
from usage.tail import Batch, Tail

log = structlog.get_logger("usage.shipper")
BATCH = 2_000
INTERVAL = 0.75  # seconds between passes: each is a transaction, whatever little it brings
GRACE = 60.0  # seconds that an applied segment is kept
DRAIN = 15.0  # seconds that SIGTERM may take
LONGEST_BACKOFF = 5.0
_LOCK = 0x7368_6970  # advisory, with the node's number: one shipper per node
Away = (OperationalError, InterfaceError)


class Locked(Exception):
    """Another shipper works for this node."""


class Shipper:
    """`passes` are driven by `run`; tests call `once` themselves."""

    def __init__(self, directory: Path, node: str, *, grace: float = GRACE, status_file: Path | None = None) -> None:
        self.directory, self.node, self._grace = directory, node, grace
        self.status = Status(node=node)
        self._status_file = status_file
        self._tails: dict[str, Tail] = {}
        self._locked: object = None
        self._stop = Event()
        self._reported = 0.0

    # --- one pass

    def once(self) -> int:
        """Applies everything there is; returns how many steps forward were taken. Raises `Away` errors and Locked."""
        self._lock()
        found = self._segments()
        batch, steps = Batch(), 0
        for segment in found:
            tail = self._tail(segment, found)
            position = tail.positions.get(segment.name, 0)
            for position, item in tail.unread(segment):
                if isinstance(item, Damaged):
                    self._quarantine(segment, item)
                else:
                    tail.see(segment.name, item)
                    batch.add(item)
                steps += 1
                batch.reach(tail, Advance(segment.name, position))
                if len(batch.records) >= BATCH:
                    self._flush(batch)
                    batch = Batch()
            if segment.sealed and segment.name not in tail.closed_at:
                steps += 1
                batch.reach(tail, Advance(segment.name, position, closed=True))
        self._flush(batch)
        steps += self._finish(found)
        self._report(Lag())
        return steps

    def _segments(self) -> list[Segment]:
        """This node's. The node's name is all before the writer's last part; another node's may begin with ours."""
        return [segment for segment in segments(self.directory) if segment.writer.rpartition("-")[0] == self.node]

    def _tail(self, segment: Segment, found: list[Segment]) -> Tail:
        """Follows a writer from its cursors on, where it is met for the first time."""
        tail = self._tails.get(segment.writer)
        if tail is None:
            tail = Tail(segment.writer)
            own = [one for one in found if one.writer == segment.writer]
            cursors = {c.segment: c for c in JournalCursor.objects.filter(segment__in=[one.name for one in own])}
            for one in own:
                cursor = cursors.get(one.name)
                if cursor is not None:
                    tail.resume(one, cursor.position, clock.monotonic() if cursor.closed else None)
            self._tails[segment.writer] = tail
        return tail

    def _flush(self, batch: Batch) -> None:
        if not batch.advances:
            return
        advances = [advance for _, advance in batch.advances.values()]
        self._count(apply(batch.records, node=self.node, advances=advances))
        at = clock.monotonic()
        for tail, advance in batch.advances.values():
            tail.committed(advance, at)
        if at - self._reported >= 1.0:
            self._report(Lag())

    def _count(self, applied: Applied) -> None:
        status = self.status
        status.applied += applied.inserted
        status.duplicates += applied.duplicates
        status.rejected += len(applied.rejected)
        for record, reason in applied.rejected:
            self._set_aside(f"rejected-{record.attempt_id.hex()}", records.encode(record))
            log.error("record rejected by the database", attempt=record.attempt_id.hex(), reason=reason)

    # --- dead workers and applied segments

    def _finish(self, found: list[Segment]) -> int:
        steps = 0
        for writer, tail in list(self._tails.items()):
            own = [segment for segment in found if segment.writer == writer]
            if any(segment.writer_alive for segment in own) or not tail.is_read(own):
                tail.dead_passes = 0
            else:
                # Only a listing made after its death surely names all its segments, so the second pass decides.
                tail.dead_passes += 1
                if tail.dead_passes == 1 and not tail.finished:
                    steps += 1
                elif not tail.finished:
                    self._adopt(tail)
                    steps += 1
            kept = [segment for segment in own if not self._delete(segment, tail)]
            if tail.finished and not kept:
                self._forget(tail)
        return steps

    def _adopt(self, tail: Tail) -> None:
        """The worker is gone and everything it wrote is applied: what it left open is uncertain, and keeps its hold;
        the rest of its leases goes back."""
        lost: list[Ended] = [uncertain(dispatched) for _, dispatched in tail.open.values()]
        with transaction.atomic():
            # Locks all its periods in order before any of them is settled: others wait for one another in that order.
            returned = leases.close(tail.worker) if tail.worker else 0
            applied = apply(lost, node=self.node)
        self._count(applied)
        self.status.uncertain += applied.inserted
        if lost or returned:
            log.warning("a worker ended", writer=tail.writer, uncertain=len(lost), leased_nanos=returned)
        tail.open.clear()
        tail.finished = True

    def _delete(self, segment: Segment, tail: Tail) -> bool:
        """Removes an applied segment after its grace; its cursor goes last, so that no crash leaves a file without."""
        if segment.writer_alive or tail.finished:
            if not tail.deletable(segment, clock.monotonic() - self._grace):
                return False
            segment.path.unlink(missing_ok=True)
            JournalCursor.objects.filter(segment=segment.name).delete()
            tail.positions.pop(segment.name, None)
            return True
        return False

    def _forget(self, tail: Tail) -> None:
        """Clears what a dead worker leaves besides its segments: its lock and a segment it had prepared."""
        for path in (*self.directory.glob(f".{tail.writer}-*.new"), self.directory / f"{tail.writer}.lock"):
            path.unlink(missing_ok=True)
        del self._tails[tail.writer]

    # --- damage

    def _quarantine(self, segment: Segment, damaged: Damaged) -> None:
        name = f"{segment.name}-{damaged.position}"
        if self._set_aside(name, damaged.data):
            self.status.damaged += 1
            log.error("damaged journal record", segment=segment.name, position=damaged.position, length=damaged.length)

    def _set_aside(self, name: str, data: bytes) -> bool:
        """Keeps the bytes for a person to look at. False when they were there already: a batch that is read again."""
        folder = self.directory / "quarantine"
        folder.mkdir(mode=0o700, exist_ok=True)
        path = folder / f"{name}.bin"
        if path.exists():
            return False
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        return True

    # --- the loop

    def stop(self, *_: int | FrameType | None) -> None:
        self._stop.set()

    def run(self) -> int:
        """Until `stop`, then until all is drained or the time is up. Returns the exit status."""
        backoff = INTERVAL
        while not self._stop.is_set():
            pause = INTERVAL if self._try() else backoff
            backoff = INTERVAL if self.status.working else min(backoff * 2, LONGEST_BACKOFF)
            self._stop.wait(pause)
        deadline = clock.monotonic() + DRAIN
        while clock.monotonic() < deadline:
            if self._try() and self.status.steps == 0:
                log.info("journal drained", applied=self.status.applied)
                return 0
            time.sleep(0.1)
        log.warning("stopped before the journal was drained")
        return 0

    def _try(self) -> bool:
        """One pass; False when it could not be finished. Only a change of state is worth a line in the log."""
        status = self.status
        try:
            status.steps = self.once()
        except (*Away, Locked) as error:
            if status.working:
                log.warning("shipping stopped", reason=str(error).strip() or type(error).__name__)
            status.working = False
            self._locked = None
            connection.close()
            self._report(measure(self._segments(), {t.writer: t.positions for t in self._tails.values()}))
            return False
        if not status.working:
            log.info("shipping again", applied=status.applied)
        status.working = True
        status.passes += 1
        return True

    def _lock(self) -> None:
        """The lock lives in the database session, so a new session must take it anew.

        A session that lost its network must not hold it for hours, hence the keepalives on the server's side.
        """
        connection.ensure_connection()
        if self._locked is connection.connection:
            return
        with connection.cursor() as cursor:
            for name, value in (("idle", "10"), ("interval", "5"), ("count", "3")):
                cursor.execute("SELECT set_config(%s, %s, false)", [f"tcp_keepalives_{name}", value])
            number = zlib.crc32(self.node.encode()) - 2**31
            cursor.execute("SELECT pg_try_advisory_lock(%s, %s)", [_LOCK, number])
            (granted,) = cursor.fetchone() or (False,)
        if not granted:
            raise Locked(f"another shipper works for node {self.node}")
        self._locked = connection.connection

    def _report(self, lag: Lag) -> None:
        """Writes the status file, at most once a second."""
        at = clock.monotonic()
        if self._status_file is not None and at - self._reported >= 1.0:
            self._reported = at
            self.status.write(self._status_file, lag)
