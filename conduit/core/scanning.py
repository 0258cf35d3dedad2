"""Looking for secrets in files: walking, decoding and counting lines. What a secret looks like the caller says.

Files are read in blocks, so that a file of any size needs little memory. A secret has no line break and at most
LONGEST characters, so it is found wherever the blocks divide.
"""

from __future__ import annotations

import codecs
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Generic, TypeVar

BLOCK = 1 << 20
LONGEST = 512
LOOKED_AT = 8192  # bytes that tell whether a file is text
VERSION_CONTROL = frozenset({".git", ".hg", ".svn"})
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))

Match = TypeVar("Match")
# What is found in a text, with the place (from 0) where each begins.
Find = Callable[[str], Iterable[tuple[int, Match]]]


@dataclass(frozen=True, slots=True)
class Place(Generic[Match]):
    """Line and column count from 1; a column is a character."""

    path: Path
    line: int
    column: int
    match: Match


def files(paths: Iterable[Path], *, everything: bool, refused: Callable[[OSError], None]) -> Iterator[Path]:
    """Files below the paths in a fixed order; links are not followed. Version control's own only with `everything`.

    `refused` is told of each folder and file that cannot be looked at; the walk goes on beside it.
    """
    for path in paths:
        if os.path.isdir(path):
            yield from _below(path, everything, refused)
        else:
            yield path


def _below(folder: Path, everything: bool, refused: Callable[[OSError], None]) -> Iterator[Path]:
    for here, folders, names in os.walk(folder, onerror=refused):
        folders[:] = sorted(name for name in folders if everything or name not in VERSION_CONTROL)
        for name in sorted(names):
            path = Path(here, name)
            try:
                plain = stat.S_ISREG(path.lstat().st_mode)
            except OSError as error:
                refused(error)
                continue
            if plain:
                yield path


def scan(path: Path, find: Find[Match], *, everything: bool) -> Iterator[Place[Match]]:
    """What is found in one file, in order. A binary file is looked at only with `everything`. Raises OSError."""
    with path.open("rb") as stream:
        head = stream.read(LOOKED_AT)
        encoding = next((name for mark, name in _MARKS if head.startswith(mark)), "utf-8")
        if b"\x00" in head and encoding != "utf-16" and not everything:
            return
        stream.seek(0)
        for line, column, match in scan_stream(stream, find, encoding):
            yield Place(path, line, column, match)


def scan_stream(stream: BinaryIO, find: Find[Match], encoding: str = "utf-8") -> Iterator[tuple[int, int, Match]]:
    """Line, column and match. What does not decode becomes a character that is part of no secret."""
    decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
    pending, line, column, done = "", 1, 1, 0
    while True:
        block = stream.read(BLOCK)
        pending += decoder.decode(block, final=not block)
        # What begins before `settled` is whole in what was read; the rest is looked at again with what follows.
        settled = len(pending) if not block else max(done, len(pending) - LONGEST)
        place = done
        for start, match in find(pending):
            if done <= start < settled:
                line, column = _moved(pending, place, start, line, column)
                place = start
                yield line, column, match
        line, column = _moved(pending, place, settled, line, column)
        if not block:
            return
        # Some of what lies before stays: a pattern may look back.
        kept = max(0, settled - LONGEST)
        pending, done = pending[kept:], settled - kept


def _moved(text: str, start: int, end: int, line: int, column: int) -> tuple[int, int]:
    """Line and column at `end`, from those at `start`."""
    breaks = text.count("\n", start, end)
    if not breaks:
        return line, column + end - start
    return line + breaks, end - text.rindex("\n", start, end)
