"""Server-sent events without I/O (https://html.spec.whatwg.org/multipage/server-sent-events.html, "parsing").

SSEReader      bytes in any pieces -> events       for streams that are translated
FrameSplitter  bytes in any pieces -> whole frames for streams that are relayed as they are

Both accept LF, CRLF and CR, mixed, and bound what they keep: a line or frame above the limit is InvalidResponse.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from providers.errors import InvalidResponse

LINE_LIMIT = 1024 * 1024  # bytes; wire formats whose lines carry whole media pass a larger one
_BOM = b"\xef\xbb\xbf"
# Two line ends in a row. A CR counts only when the byte after it is known not to be the LF of the same line end.
_BLANK = re.compile(rb"(?:\r\n|\n|\r(?=[^\n])){2}")


class Event(NamedTuple):
    """`event` is "message" when the stream names none. `data` joins the event's data lines with LF."""

    event: str
    data: bytes


class SSEReader:
    """Raises InvalidResponse when a line, or the data of one event, is longer than `limit` bytes."""

    def __init__(self, limit: int = LINE_LIMIT) -> None:
        self._limit = limit
        self._pieces: list[bytes] = []  # of the line that has not ended yet
        self._kept = 0  # bytes in _pieces
        self._data: list[bytes] = []
        self._data_size = 0
        self._event = ""
        self._after_cr = False  # the last byte was a CR: an LF that follows belongs to it
        self._at_start = True  # a byte order mark may still come

    def feed(self, data: bytes) -> list[Event]:
        """Events that became complete with `data`."""
        if (alone := self._alone(data)) is not None:
            return [Event("message", alone)]
        if self._at_start and not (data := self._without_mark(data)):
            return []
        if self._after_cr and data:
            self._after_cr = False
            if data[0] == 10:
                data = data[1:]
        if b"\r" in data:
            self._after_cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines = data.split(b"\n")
        rest = lines.pop()
        if not lines:
            self._keep(rest)
            return []
        if self._pieces:
            self._keep(lines[0])
            lines[0] = b"".join(self._pieces)
            self._pieces.clear()
            self._kept = 0
        events: list[Event] = []
        for line in lines:
            self._line(line, events)
        if rest:
            self._keep(rest)
        return events

    def close(self) -> list[Event]:
        """The end of the stream. A last event without its blank line counts: some servers leave it out."""
        events: list[Event] = []
        if self._pieces:
            line = b"".join(self._pieces)
            self._pieces.clear()
            self._line(line, events)
        self._line(b"", events)
        return events

    def _alone(self, data: bytes) -> bytes | None:
        """The data of an event that comes by itself and in one line, as nearly all do; None for anything else."""
        size = len(data)
        if self._at_start or self._after_cr or self._pieces or self._data or self._event or size > self._limit:
            return None
        if not data.startswith(b"data: "):
            return None
        line = data.find(b"\n")
        if line == size - 2 and data[-1] == 10 and b"\r" not in data:
            return data[6:-2]
        if line == size - 3 and data.find(b"\r") == size - 4 and data.endswith(b"\r\n"):
            return data[6:-4]
        return None

    def _without_mark(self, data: bytes) -> bytes:
        """The first bytes without their byte order mark; nothing while it cannot be told yet."""
        data = b"".join(self._pieces) + data
        self._pieces.clear()
        self._kept = 0
        if len(data) < len(_BOM) and _BOM.startswith(data):
            if data:
                self._keep(data)
            return b""
        self._at_start = False
        return data.removeprefix(_BOM)

    def _keep(self, piece: bytes) -> None:
        self._kept += len(piece)
        if self._kept > self._limit:
            raise InvalidResponse(f"The provider's stream has a line longer than {self._limit} bytes (line too long).")
        self._pieces.append(piece)

    def _line(self, line: bytes, events: list[Event]) -> None:
        if not line:
            if self._data:
                events.append(Event(self._event or "message", b"\n".join(self._data)))
                self._data = []
                self._data_size = 0
            self._event = ""
            return
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data_size += len(line)
            if self._data_size > self._limit:
                raise InvalidResponse(f"The provider's stream has an event over {self._limit} bytes (line too long).")
            self._data.append(value[1:] if value[:1] == b" " else value)
        elif name == b"event":
            self._event = (value[1:] if value[:1] == b" " else value).decode("utf-8", "replace")


class FrameSplitter:
    """Cuts a stream into frames: everything up to and including a blank line, byte for byte as it came."""

    def __init__(self, limit: int = LINE_LIMIT) -> None:
        self._limit = limit
        self._tail = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Whole frames. A chunk that is exactly one frame comes back as the same object."""
        if self._tail:
            start = max(0, len(self._tail) - 4)  # a blank line may have begun in what was kept
            self._tail += data
            if not _BLANK.search(self._tail, start):
                self._check(len(self._tail))
                return []
            data = bytes(self._tail)
            self._tail.clear()
            return self._cut(data)
        blank = data.find(b"\n\n")
        if blank >= 0:
            alone = blank == len(data) - 2 and b"\r" not in data
        else:
            alone = data.endswith(b"\r\n\r\n") and data.find(b"\r") == len(data) - 4
        return [data] if alone else self._cut(data)

    def close(self) -> bytes:
        """What is left after the last blank line."""
        rest = bytes(self._tail)
        self._tail.clear()
        return rest

    def _cut(self, data: bytes) -> list[bytes]:
        if b"\r" in data:
            frames, begin = [], 0
            for blank in _BLANK.finditer(data):
                frames.append(data[begin : blank.end()])
                begin = blank.end()
            rest = data[begin:]
        else:
            *whole, rest = data.split(b"\n\n")
            frames = [frame + b"\n\n" for frame in whole]
        if rest:
            self._check(len(rest))
            self._tail += rest
        return frames

    def _check(self, size: int) -> None:
        if size > self._limit:
            raise InvalidResponse(f"The provider's stream has a frame over {self._limit} bytes (line too long).")
