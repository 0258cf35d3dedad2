"""`conduit secrets`: keys that lie about in files."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from conduit.cli.key_leaks import TITLES, whose
from conduit.cli.main import django_ready
from conduit.cli.output import Json, emit
from conduit.core import raw_keys, scanning
from conduit.core.errors import ConfigurationError, InvalidInput
from conduit.core.raw_keys import Occurrence
from conduit.core.scanning import Place
from providers.secret_shapes import Lookalike, lookalikes

app = typer.Typer(no_args_is_help=True, help="Keys that lie about in files.")
Match = Occurrence | Lookalike
Paths = Annotated[list[Path], typer.Argument(help="Files and folders; - reads standard input.")]


@app.callback()
def root() -> None:
    """Keeps `scan` a command of the group."""


@app.command()
def scan(
    paths: Paths,
    everything: Annotated[bool, typer.Option("--all", help="Binary files and .git too.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Do not ask the database which keys are ours.")] = False,
    as_json: Json = False,
) -> None:
    """Find virtual keys, management tokens and texts of vendors' shapes. Exit status 1 when there is one.

    A key is named by its public id, never whole. Without a database only the checksum is looked at.
    """
    for path in paths:
        if str(path) != "-" and not os.path.lexists(path):
            raise InvalidInput("PATH", f"There is no file or folder {path}.", "not_found")
    known = None if offline else _ask()
    rows, unread = [], 0
    for place in _places(paths, everything):
        if isinstance(place, str):
            sys.stderr.write(f"conduit: {place}\n")
            unread += 1
            continue
        rows.append(_row(place, known))
        if not as_json:
            emit(rows[-1], [_line(rows[-1])], as_json=False)
    summary = f"{len(rows)} found" + (f", {unread} not readable" if unread else "")
    if as_json:
        emit({"data": rows, "unreadable": unread}, [], as_json=True)
    else:
        sys.stderr.write(f"{summary}\n")
    if rows or unread:
        raise typer.Exit(1)


def _find(text: str) -> Iterator[tuple[int, Match]]:
    """Ours with a right checksum, so that nothing else is taken for one; then what vendors' secrets look like."""
    found: list[tuple[int, Match]] = [(one.start, one) for one in raw_keys.occurrences(text) if one.well_formed]
    found += [(one.start, one) for one in lookalikes(text)]
    yield from sorted(found, key=lambda item: item[0])


def _places(paths: list[Path], everything: bool) -> Iterator[Place[Match] | str]:
    """What was found, and a sentence for each file and folder that cannot be read."""
    if any(str(path) == "-" for path in paths):
        for line, column, match in scanning.scan_stream(sys.stdin.buffer, _find):
            yield Place(Path("-"), line, column, match)
    refused: list[OSError] = []
    below = [path for path in paths if str(path) != "-"]
    for path in scanning.files(below, everything=everything, refused=refused.append):
        yield from _told(refused)
        try:
            yield from scanning.scan(path, _find, everything=everything)
        except OSError as error:
            yield f"{path} cannot be read: {error.strerror}"
    yield from _told(refused)


def _told(refused: list[OSError]) -> Iterator[str]:
    """A sentence for each, once."""
    while refused:
        error = refused.pop(0)
        yield f"{error.filename} cannot be read: {error.strerror}"


class _Known:
    """Asks the installation about findings, as far as it can be reached: `conduit secrets scan` needs none."""

    def __init__(self) -> None:
        from usage import leaks  # noqa: PLC0415 (needs Django)

        self._leaks = leaks
        self._away = False

    def owner(self, match: Match) -> dict[str, Any] | None:
        """{"ours", "live", "object"}; None when nobody can tell."""
        from django.db import DatabaseError, InterfaceError  # noqa: PLC0415

        if self._away:
            return None
        try:
            found = self._leaks.of_match(match)
        except (DatabaseError, InterfaceError, ConfigurationError):
            self._away = True
            return None
        body = found.outward()
        return {name: body[name] for name in ("ours", "live", "object")}


def _ask() -> _Known | None:
    try:
        django_ready()
    except ConfigurationError:
        return None
    return _Known()


def _row(place: Place[Match], known: _Known | None) -> dict[str, Any]:
    match = place.match
    if isinstance(match, Occurrence):
        kind = "virtual_key" if match.kind == raw_keys.VIRTUAL_KEY else "management_token"
        what = {"kind": kind, "looks_like": None, "hint": match.hint}
    else:
        what = {"kind": "provider_secret", "looks_like": match.title, "hint": match.secret.hint()}
    unknown = {"ours": None, "live": None, "object": None}
    told = known.owner(match) if known else None
    return {"path": str(place.path), "line": place.line, "column": place.column, **what, **(told or unknown)}


def _line(row: dict[str, Any]) -> str:
    what = f"looks like {row['looks_like']}" if row["looks_like"] else TITLES[row["kind"]]
    return f"{row['path']}:{row['line']}:{row['column']}: {what} {row['hint']}{whose(row)}"
