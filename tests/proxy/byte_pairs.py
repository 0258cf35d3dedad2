"""A byte-level byte-pair encoder of our own: no vendor's vocabulary can be had offline.

It has the one property that the bound rests on: it starts from single bytes and only ever joins neighbours. What is
proved with it is that no text, however it is escaped, ordered or translated, has more tokens than the bound; not how
many tokens a vendor counts for a text, which is mostly a quarter of it.
"""

from __future__ import annotations

from collections import Counter
from functools import cache

CORPUS = (
    "the quick brown fox jumps over the lazy dog and then the other fox says hello to the whole wide world    \n\n\t"
    " def main(): return {'name': 'value', \"type\": \"object\"}  ñandú über café 漢字かな交じり文 你好世界 🙂🙂🚀 "
) * 3


@cache
def merges(count: int = 200) -> tuple[tuple[bytes, bytes], ...]:
    """The pairs joined, in order, learned from CORPUS."""
    pieces = [bytes([byte]) for byte in CORPUS.encode()]
    learned = []
    for _ in range(count):
        ((pair, times),) = Counter(zip(pieces, pieces[1:], strict=False)).most_common(1)
        if times < 2:
            break
        learned.append(pair)
        pieces = _joined(pieces, pair)
    return tuple(learned)


def tokens(text: str | bytes) -> int:
    """How many tokens the text has."""
    raw = text.encode("utf-8", "replace") if isinstance(text, str) else text
    pieces = [bytes([byte]) for byte in raw]
    present = set(zip(pieces, pieces[1:], strict=False))
    for pair in merges():
        if pair in present:
            pieces = _joined(pieces, pair)
            present = set(zip(pieces, pieces[1:], strict=False))
    return len(pieces)


def _joined(pieces: list[bytes], pair: tuple[bytes, bytes]) -> list[bytes]:
    out: list[bytes] = []
    at = 0
    while at < len(pieces):
        if tuple(pieces[at : at + 2]) == pair:
            out.append(pair[0] + pair[1])
            at += 2
        else:
            out.append(pieces[at])
            at += 1
    return out
