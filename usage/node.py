"""Which node this is: a random name made once per data directory, so that journals of several nodes never mix."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from functools import cache
from pathlib import Path

from django.conf import settings


@cache
def node_id() -> str:
    """Twelve hexadecimal digits, kept in CONDUIT_HOME/node."""
    path: Path = settings.CONDUIT_HOME / "node"
    if not path.exists():
        own = path.with_name(f"node.{os.getpid()}")
        own.write_text(secrets.token_hex(6))
        with suppress(FileExistsError):
            os.link(own, path)  # whole or not at all: whoever comes second takes the first one's name
        own.unlink()
    return path.read_text().strip()
