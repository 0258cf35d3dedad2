"""Reads the sandbox's invoice: what each of our attempts cost by the provider's own word."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(slots=True)
class Billed:
    """Whole nano-dollars. `units`: input_tokens (cached included), cached_tokens, output_tokens, images and so on.

    `requests` counts the upstream requests under this attempt id; more than one is a dispatch too many. `final` is
    False while one of them is still running (or its provider died).
    """

    units: dict[str, int] = field(default_factory=dict)
    nanos: int = 0
    requests: int = 0
    final: bool = True


def read_lines(path: Path) -> list[dict[str, object]]:
    """All whole lines; the one being written at this moment is left out."""
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def read_invoice(path: Path) -> dict[str | None, Billed]:
    """By attempt id; None gathers what came without one. Lines are cumulative, so each request's last one counts."""
    last: dict[object, dict[str, object]] = {line["request"]: line for line in read_lines(path)}
    billed: dict[str | None, Billed] = {}
    for line in last.values():
        entry = billed.setdefault(line["attempt"], Billed())  # type: ignore[arg-type]
        counts = {name: line[name] for name in ("input_tokens", "cached_tokens", "output_tokens")} | dict(line["units"])  # type: ignore[call-overload]
        for name, number in counts.items():
            entry.units[name] = entry.units.get(name, 0) + number
        entry.nanos += line["nanos"]  # type: ignore[operator]
        entry.requests += 1
        entry.final = entry.final and bool(line["final"])
    return billed
