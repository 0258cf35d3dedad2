"""What the shipper tells about itself in CONDUIT_HOME/run/shipper.json, for the system page and `conduit doctor`."""

from __future__ import annotations

import json
import os
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from usage.journal import Damaged, JournalReader, Segment
from usage.records import Dispatched

COUNTED = 100_000  # records; beyond that the exact lag helps nobody


@dataclass(frozen=True, slots=True)
class Lag:
    """Records that are written but not applied, and how long ago the oldest of them was dispatched, in seconds."""

    records: int = 0
    oldest_seconds: float = 0.0


@dataclass(slots=True)
class Status:
    """Counts since the process started. `working` is false while the database is away or another shipper works."""

    node: str
    working: bool = True
    passes: int = 0
    steps: int = 0
    applied: int = 0
    duplicates: int = 0
    uncertain: int = 0
    rejected: int = 0
    damaged: int = 0

    def write(self, path: Path, lag: Lag) -> None:
        replace(path, {**asdict(self), "lag": asdict(lag), "process": os.getpid(), "time": time.time()})


def replace(path: Path, told: dict[str, Any]) -> None:
    """Atomically, whoever else writes it too: a reader sees a former or the new file, never half of one."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with open(descriptor, "w") as file:
        json.dump(told, file)
    os.replace(temporary, path)


def read(path: Path) -> dict[str, Any] | None:
    """The last status, None when no shipper has written one. `time` (Unix seconds) tells how old it is."""
    try:
        told: dict[str, Any] = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
    return told


def measure(segments: list[Segment], positions: dict[str, dict[str, int]]) -> Lag:
    """Counts what waits. Reads the journals, so it is for when nothing else can be done."""
    waiting, oldest = 0, None
    for segment in segments:
        position = positions.get(segment.writer, {}).get(segment.name, 0)
        for _, item in JournalReader(segment.path, position, complete=segment.sealed):
            if isinstance(item, Damaged | Dispatched):
                continue
            waiting += 1
            oldest = item.time_us if oldest is None else min(oldest, item.time_us)
            if waiting >= COUNTED:
                break
    age = 0.0 if oldest is None else max(0.0, time.time() - oldest / 1e6)
    return Lag(waiting, round(age, 3))
