"""Amazon's binary event stream without I/O (content type application/vnd.amazon.eventstream).

    total length (4) | headers' length (4) | CRC-32 of these eight (4) | headers | payload | CRC-32 of all before it (4)

Numbers are big-endian. A header is: length of its name (1), name, type of its value (1), value; texts and byte strings
carry their length (2) before them. https://smithy.io/2.0/aws/amazon-eventstream.html; botocore.eventstream reads the
same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from struct import Struct
from typing import NamedTuple
from zlib import crc32

from providers.errors import InvalidResponse

FRAME_LIMIT = 16 * 1024 * 1024  # bytes of one frame; the service's own limit for a payload
_PRELUDE, _CRC, _LENGTH = Struct(">III"), Struct(">I"), Struct(">H")
_AROUND = _PRELUDE.size + _CRC.size  # bytes of a frame beside its headers and payload
_SIZES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}  # bytes of a header's value by its type
_BYTES, _TEXT = 6, 7


class Frame(NamedTuple):
    """`headers` holds those whose values are texts; the service sends no others that matter."""

    headers: Mapping[str, str]
    payload: bytes


class EventStreamReader:
    """Bytes in any pieces -> whole frames, one after another: those before a broken one are still given.

    Raises InvalidResponse for what is no frame, has a wrong checksum, or is longer than `limit` bytes.
    """

    def __init__(self, limit: int = FRAME_LIMIT) -> None:
        self._limit = limit
        self._kept = bytearray()
        self._wanted = 0  # bytes of the frame that has begun; 0 while its prelude is not there

    def feed(self, data: bytes) -> Iterator[Frame]:
        self._kept += data
        return iter(self._next, None)

    def close(self) -> list[Frame]:
        """Frames tell their length: the end of the stream makes none whole."""
        return []

    @property
    def torn(self) -> bool:
        """Part of a frame came and the rest did not."""
        return bool(self._kept)

    def _next(self) -> Frame | None:
        if not self._wanted:
            self._wanted = self._length()
        if not self._wanted or len(self._kept) < self._wanted:
            return None
        whole = bytes(self._kept[: self._wanted])
        del self._kept[: self._wanted]
        self._wanted = 0
        return _frame(whole)

    def _length(self) -> int:
        """Bytes of the frame at the front, checked before any of it is waited for; 0 while that is not known."""
        if len(self._kept) < _PRELUDE.size:
            return 0
        total, headers, checksum = _PRELUDE.unpack_from(self._kept)
        if crc32(self._kept[:8]) != checksum:
            raise InvalidResponse("The provider's stream is no event stream: a frame's prelude has a wrong checksum.")
        if total > self._limit:
            raise InvalidResponse(f"The provider's stream has a frame over {self._limit} bytes (frame too long).")
        if headers + _AROUND > total:
            raise InvalidResponse("The provider's stream has a frame whose headers are longer than itself.")
        return int(total)


def _frame(whole: bytes) -> Frame:
    (checksum,) = _CRC.unpack_from(whole, len(whole) - _CRC.size)
    if crc32(whole[: -_CRC.size]) != checksum:
        raise InvalidResponse("The provider's stream has a frame with a wrong checksum.")
    _, length, _ = _PRELUDE.unpack_from(whole)
    end = _PRELUDE.size + length
    try:
        headers = _headers(whole[_PRELUDE.size : end])
    except (IndexError, KeyError, UnicodeDecodeError) as error:
        raise InvalidResponse("The provider's stream has a frame whose headers cannot be read.") from error
    return Frame(headers, whole[end : -_CRC.size])


def _headers(block: bytes) -> dict[str, str]:
    """Raises IndexError, KeyError or UnicodeDecodeError for what are no headers."""
    found: dict[str, str] = {}
    at = 0
    while at < len(block):
        name_ends = at + 1 + block[at]
        name, kind = block[at + 1 : name_ends].decode(), block[name_ends]
        at = name_ends + 1
        if kind in (_BYTES, _TEXT):
            size = block[at] << 8 | block[at + 1]
            at += _LENGTH.size
        else:
            size = _SIZES[kind]
        if at + size > len(block):
            raise IndexError(name)
        if kind == _TEXT:
            found[name] = block[at : at + size].decode()
        at += size
    return found
