"""How commands print: one line per thing for people, one JSON document with `--json`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def emit(value: Any, lines: Iterable[str], *, as_json: bool) -> None:
    """Prints `value` as one JSON document, or `lines`."""
    if as_json:
        typer.echo(json.dumps(value, indent=2, default=str))
        return
    for line in lines:
        typer.echo(line)
