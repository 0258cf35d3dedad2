"""Fields of credentials on the command line: typed, piped, or by reference."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

From = Annotated[
    list[str] | None,
    typer.Option(
        "--from", help="FIELD=REFERENCE: read it from env:CONDUIT_SECRET_…, file:/…, vault:…#FIELD or aws-sm:…."
    ),
]


def references(given: Sequence[str] | None) -> dict[str, Any]:
    """FIELD=REFERENCE as fields of a credential."""
    found: dict[str, Any] = {}
    for text in given or ():
        name, equals, reference = text.partition("=")
        if not equals or not name or not reference:
            raise typer.BadParameter("must be FIELD=REFERENCE", param_hint="--from")
        found[name] = {"from": reference}
    return found


def read_fields(names: Sequence[str], given: Sequence[str] | None) -> Mapping[str, Any]:
    """A credential's fields: those by reference, the others asked one by one on a terminal, else one text on standard
    input, or a JSON object for several."""
    found = references(given)
    missing = [name for name in names if name not in found]
    if sys.stdin.isatty():
        return found | {name: _hidden(name) for name in missing}
    text = sys.stdin.read().strip() if missing else ""
    if len(names) == 1 and missing:
        return {names[0]: text}
    if not text and found:
        return found
    try:
        typed = json.loads(text)
    except ValueError:
        typed = None
    if not isinstance(typed, dict):
        raise typer.BadParameter(f"standard input must be a JSON object with {', '.join(missing)}")
    if twice := sorted(found.keys() & typed.keys()):
        raise typer.BadParameter(f"{twice[0]} is on standard input too", param_hint="--from")
    return {**typed, **found}


def _hidden(label: str) -> str:
    text: str = typer.prompt(label, hide_input=True, default="", show_default=False, err=True)
    return text.strip()
