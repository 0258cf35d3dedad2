"""How commands that ask models reach the gateway: its address, the virtual key, and its words for a failure."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from conduit.cli.providers import read_secret
from conduit.client import CallFailed, Model, connect
from conduit.core.errors import ConfigurationError

VARIABLE = "CONDUIT_KEY"
SECONDS = 300.0
AskForKey = Annotated[bool, typer.Option("--key", help=f"Ask for the virtual key even if {VARIABLE} is set.")]
Url = Annotated[str, typer.Option(help="The gateway, unless it is this machine's own.")]


def reach(model: str, *, key: bool, url: str) -> Model:
    """A route of the gateway. The virtual key: CONDUIT_KEY, standard input, or a prompt."""
    raw = "" if key else os.environ.get(VARIABLE, "").strip()
    raw = raw or read_secret("virtual key")
    if not raw:
        raise ConfigurationError(f"There is no virtual key: set {VARIABLE} or give it on standard input.")
    if not raw.isascii():
        raise ConfigurationError("The virtual key has characters that no key has: copy it again.")
    base_url = f"{(url or _own_url()).rstrip('/')}/v1"
    return connect(model, kind="custom", api_key=raw, base_url=base_url, timeout=SECONDS)


def _own_url() -> str:
    from conduit import settings  # noqa: PLC0415 (reads the environment; not needed with --url)

    host = settings.CONDUIT_HOST
    if host in ("0.0.0.0", "::"):  # noqa: S104 (compared, not bound)
        host = "127.0.0.1"
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.CONDUIT_PORT}"


def explained(error: CallFailed) -> CallFailed:
    """The gateway's own words, with its status and code; a gateway that is not there is named with what to do."""
    if not error.status and error.code == "upstream_unavailable":
        message = error.message.replace("The provider", "The gateway")
        return CallFailed(message, guidance="Start it with `make up`, or give --url.", code=error.code)
    told = f"{error.message} ({error.status} {error.code})" if error.status else error.message
    return CallFailed(told.replace("The provider", "The gateway"), status=error.status, code=error.code)
