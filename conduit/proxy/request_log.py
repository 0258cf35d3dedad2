"""The request log: one JSON line per answered request, buffered and written by the event loop's tick.

Lines hold ids, names, figures and outcomes; never a body, a header or a secret. The file rotates at 64 MiB, one old
file is kept per worker; the durable record is the journal.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

ROTATE_BYTES = 64 * 1024 * 1024
FLUSH_BYTES = 64 * 1024


class RequestLog:
    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path = path
        self._file = path.open("ab", buffering=0)
        self._lines: list[bytes] = []
        self._size = 0

    def write(self, line: dict[str, Any]) -> None:
        text = orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
        self._lines.append(text)
        self._size += len(text)
        if self._size > FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        if not self._lines:
            return
        lines, self._lines, self._size = self._lines, [], 0
        if self._file.tell() > ROTATE_BYTES:
            self._file.close()
            self._path.replace(self._path.with_suffix(".1.jsonl"))
            self._file = self._path.open("ab", buffering=0)
        self._file.write(b"".join(lines))

    def close(self) -> None:
        self.flush()
        self._file.close()
