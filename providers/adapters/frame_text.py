"""How much text a relayed frame carries, without decoding it."""

from __future__ import annotations

# How a frame with a whole JSON object ends. Any other frame is a comment or torn, and must be read.
JSON_ENDS = (b"}\n\n", b"}\r\n\r\n")


def string_size(frame: bytes, name: bytes) -> int:
    """Bytes of the JSON string that follows the quoted member `name`; -1 when there is none.

    Escapes count as they are written: a little too much, never too little. A quotation mark inside JSON text is
    escaped, so `name` with its quotation marks can only be a member (or a word standing alone in a list).
    """
    at = frame.find(name)
    if at < 0:
        return -1
    begin = frame.find(b'"', at + len(name)) + 1
    end = frame.find(b'"', begin)
    while end > 0 and frame[end - 1] == 92:  # an escaped quotation mark
        end = frame.find(b'"', end + 1)
    return max(0, end - begin)
