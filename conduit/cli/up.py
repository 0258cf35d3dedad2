"""`conduit up`: becomes the supervisor, so that nothing of the command line stays in its memory."""

from __future__ import annotations

import os
import sys

import typer

app = typer.Typer()


@app.command()
def up() -> None:
    """Start everything in the foreground: engines, web, jobs, sandbox provider. Ctrl-C stops it."""
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-P", "-m", "conduit.engines"])  # noqa: S606 (no shell is wanted)
