"""Streams of one JSON object a line (newline-delimited JSON), without I/O.

splitter = LineSplitter()
splitter.feed(data)    whole lines, without their ends; blank ones are left out
splitter.close()       the last line, should its end be missing, else nothing
"""

from __future__ import annotations

from providers.adapters.sse import LINE_LIMIT
from providers.errors import InvalidResponse


class LineSplitter:
    """Raises InvalidResponse for a line longer than `limit` bytes."""

    def __init__(self, limit: int = LINE_LIMIT) -> None:
        self._limit = limit
        self._pieces: list[bytes] = []  # of the line that has not ended yet
        self._kept = 0  # bytes in _pieces

    def feed(self, data: bytes) -> list[bytes]:
        if b"\n" not in data:
            self._keep(data)
            return []
        first, *rest = data.split(b"\n")
        self._keep(first)
        lines = [b"".join(self._pieces), *rest[:-1]]
        self._pieces, self._kept = [], 0
        self._keep(rest[-1])
        return [line for line in lines if line.strip()]

    def close(self) -> list[bytes]:
        line = b"".join(self._pieces).strip()
        self._pieces, self._kept = [], 0
        return [line] if line else []

    def _keep(self, piece: bytes) -> None:
        if not piece:
            return
        self._kept += len(piece)
        if self._kept > self._limit:
            raise InvalidResponse(f"The provider's stream has a line longer than {self._limit} bytes (line too long).")
        self._pieces.append(piece)
