"""Reads the documentation: its pages, their code blocks and their tables."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
_FENCE = re.compile(r"^```(?P<kind>[a-z]*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
_CODE = re.compile(r"`([^`]+)`")


def read(path: str) -> str:
    return (ROOT / path).read_text()


def pages() -> list[Path]:
    """Every Markdown page that is ours."""
    own = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]
    return own + sorted(DOCS.rglob("*.md"))


def blocks(path: str, kind: str) -> list[str]:
    """The fenced blocks of one kind, in order."""
    return [found["text"] for found in _FENCE.finditer(read(path)) if found["kind"] == kind]


def without_blocks(text: str) -> str:
    return _FENCE.sub("", text)


def rows(text: str) -> list[list[str]]:
    """The cells of every table row below a table's head."""
    found, inside = [], False
    for line in text.splitlines():
        if not line.startswith("|"):
            inside = False
        elif set(line) <= set("|-: "):
            inside = True
        elif inside:
            found.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return found


def in_code(text: str) -> list[str]:
    """What stands between back quotes."""
    return _CODE.findall(text)
