"""One worker's journal as the shipper follows it: how far each segment is applied, which attempts are still open.

An attempt is open from its `dispatched` to its `settled`. When the worker is gone and everything it wrote is applied,
what is still open can never settle: it is recorded as uncertain.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from usage.journal import Damaged, JournalReader, Segment
from usage.ledger import Advance
from usage.records import Dispatched, Ended, Record


@dataclass(slots=True)
class Tail:
    """`positions` and `closed_at` change only when the database has committed; `open` may run ahead of it.

    That is safe: a batch that failed is read again from its old position and opens and closes the same attempts.
    """

    writer: str
    positions: dict[str, int] = field(default_factory=dict)
    closed_at: dict[str, float] = field(default_factory=dict)  # monotonic seconds
    open: dict[bytes, tuple[str, Dispatched]] = field(default_factory=dict)
    dead_passes: int = 0
    finished: bool = False

    @property
    def worker(self) -> UUID | None:
        """Whose leases end with this journal; None for a writer that is no worker."""
        name = self.writer.rpartition("-")[2]
        return UUID(name) if len(name) == 32 and all(letter in "0123456789abcdef" for letter in name) else None

    def resume(self, segment: Segment, position: int, closed_at: float | None) -> None:
        """Takes a cursor up: reads what is applied already once more, only to know which attempts it left open."""
        self.positions[segment.name] = position
        if closed_at is not None:
            self.closed_at[segment.name] = closed_at
        for reached, found in JournalReader(segment.path, 0):
            if reached > position:
                break
            if not isinstance(found, Damaged):
                self.see(segment.name, found)

    def see(self, segment: str, record: Record) -> None:
        if isinstance(record, Dispatched):
            self.open[record.attempt_id] = (segment, record)
        else:
            self.open.pop(record.attempt_id, None)

    def unread(self, segment: Segment) -> Iterator[tuple[int, Record | Damaged]]:
        """What was written since the last commit. A segment under way is peeked at first: reading it whole is dear."""
        position = self.positions.get(segment.name, 0)
        if segment.name in self.closed_at or not (segment.sealed or _written(segment.path, position)):
            return iter(())
        return iter(JournalReader(segment.path, position, complete=segment.sealed))

    def committed(self, advance: Advance, at: float) -> None:
        self.positions[advance.segment] = advance.position
        if advance.closed:
            self.closed_at[advance.segment] = at

    def is_read(self, segments: Iterable[Segment]) -> bool:
        return all(segment.name in self.closed_at for segment in segments)

    def deletable(self, segment: Segment, before: float) -> bool:
        """Applied to its end before `before`, and no open attempt needs it to be remembered after a restart."""
        closed_at = self.closed_at.get(segment.name)
        return closed_at is not None and closed_at <= before and not self._is_needed(segment.name)

    def _is_needed(self, segment: str) -> bool:
        return any(name == segment for name, _ in self.open.values())


def _written(path: Path, position: int) -> bool:
    """Whether anything but preallocated zeros follows."""
    file = os.open(path, os.O_RDONLY)
    try:
        return any(os.pread(file, 16, max(position, 16)))
    finally:
        os.close(file)


@dataclass(slots=True)
class Batch:
    """Records of several segments with how far each of them was read."""

    records: list[Ended] = field(default_factory=list)
    advances: dict[str, tuple[Tail, Advance]] = field(default_factory=dict)

    def add(self, record: Record) -> None:
        if not isinstance(record, Dispatched):
            self.records.append(record)

    def reach(self, tail: Tail, advance: Advance) -> None:
        self.advances[advance.segment] = (tail, advance)
