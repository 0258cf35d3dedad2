"""Token estimates for providers that report no usage. Never for admission: worst cases are bounded elsewhere.

tokens = max(ceil(ASCII bytes / 4) + other code points, words), at least 1 for any text that is not empty.

Four bytes a token is the usual figure for English prose with byte-pair encoders; scripts outside ASCII take about one
token a character; and such encoders never join words over white space, so the number of words is a floor.
"""

from __future__ import annotations

BYTES_PER_TOKEN = 4


def tokens_in(text: str | bytes) -> int:
    """Estimated tokens of generated or prompted text; 0 for empty text only."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    if not text:
        return 0
    ascii_bytes = len(text) if text.isascii() else len(text.encode("ascii", "ignore"))
    return max(-(-ascii_bytes // BYTES_PER_TOKEN) + len(text) - ascii_bytes, len(text.split()), 1)


def tokens_in_bytes(count: int) -> int:
    """Estimate where only the number of UTF-8 bytes is known: four bytes a token, rounded up."""
    return -(-count // BYTES_PER_TOKEN)
