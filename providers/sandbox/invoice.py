"""The sandbox's own append-only invoice: JSON lines, written with one `write` each before what they bill leaves.

A line: `time` (RFC 3339 UTC), `attempt` (the caller's attempt id or null), `request` (our id), `model`, `dialect`,
`endpoint`, `input_tokens` (cached ones included), `cached_tokens`, `output_tokens`, `units` (object), `stream`, `nanos`
and `final`. Counts and nanos are cumulative for the request, so its last line is what it cost; `final` says that
nothing more will be billed for it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import orjson

from providers.sandbox.prices import cost


class Invoice:
    """One open file. The kernel has each line when `append` returns, so it outlives `kill -9` of this process."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def append(self, line: dict[str, object]) -> None:
        """Raises OSError when the line could not be written whole; the caller then sends nothing."""
        record = orjson.dumps(line) + b"\n"
        if os.write(self._file, record) != len(record):
            raise OSError("the invoice took only part of a line")

    def close(self) -> None:
        os.close(self._file)


@dataclass(slots=True)
class Bill:
    """What one accepted request costs so far."""

    invoice: Invoice
    attempt: str | None
    request: str
    model: str
    dialect: str
    endpoint: str
    stream: bool
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    units: dict[str, int] = field(default_factory=dict)
    accepted: bool = False
    closed: bool = False

    def step(self, output_tokens: int | None = None, *, final: bool = False) -> None:
        """Writes one line; `output_tokens` is the cumulative count including what is about to leave."""
        if self.closed:
            return
        if output_tokens is not None:
            self.output_tokens = output_tokens
        self.accepted = True
        self.closed = final
        nanos = cost(
            self.model,
            input_tokens=self.input_tokens,
            cached_tokens=self.cached_tokens,
            output_tokens=self.output_tokens,
            units=self.units,
        )
        self.invoice.append(
            {
                "time": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
                "attempt": self.attempt,
                "request": self.request,
                "model": self.model,
                "dialect": self.dialect,
                "endpoint": self.endpoint,
                "input_tokens": self.input_tokens,
                "cached_tokens": self.cached_tokens,
                "output_tokens": self.output_tokens,
                "units": self.units,
                "stream": self.stream,
                "nanos": nanos,
                "final": final,
            }
        )
