"""`conduit chat MODEL TEXT`: one question through the gateway, as any client application would ask it."""

from __future__ import annotations

import json
import os
import sys
from typing import Annotated, Any

import httpx
import typer

from conduit.cli.output import Json
from conduit.cli.providers import read_secret
from conduit.core.errors import ConduitError, ConfigurationError

app = typer.Typer(help="Ask a model through the gateway.")
VARIABLE = "CONDUIT_KEY"
SECONDS = 300.0


class ChatFailed(ConduitError):
    """The gateway refused, or could not be reached."""


@app.command()
def chat(
    model: Annotated[str, typer.Argument(help="A route, as in `conduit routes list`.")],
    text: Annotated[str, typer.Argument(help="What to ask.")],
    key: Annotated[bool, typer.Option("--key", help=f"Ask for the virtual key even if {VARIABLE} is set.")] = False,
    url: Annotated[str, typer.Option(help="The gateway, unless it is this machine's own.")] = "",
    as_json: Json = False,
) -> None:
    """Print the answer, and on standard error what it cost. The key: CONDUIT_KEY, standard input, or a prompt."""
    raw = "" if key else os.environ.get(VARIABLE, "").strip()
    raw = raw or read_secret("virtual key")
    if not raw:
        raise ConfigurationError(f"There is no virtual key: set {VARIABLE} or give it on standard input.")
    body: dict[str, object] = {"model": model, "messages": [{"role": "user", "content": text}]}
    answer = _post(f"{(url or _own_url()).rstrip('/')}/v1/chat/completions", raw, body)
    document = _read(answer)
    if as_json:
        typer.echo(json.dumps(document, indent=2))
        return
    typer.echo(document["choices"][0]["message"].get("content") or "")
    spent = answer.headers.get("x-conduit-cost-usd", "?")
    sys.stderr.write(f"[{answer.headers.get('x-conduit-provider', '?')}, ${spent}]\n")


def _own_url() -> str:
    from conduit import settings  # noqa: PLC0415 (reads the environment; not needed with --url)

    host = settings.CONDUIT_HOST
    if host in ("0.0.0.0", "::"):  # noqa: S104 (compared, not bound)
        host = "127.0.0.1"
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.CONDUIT_PORT}"


def _post(url: str, raw: str, body: dict[str, object]) -> httpx.Response:
    try:
        with httpx.Client(timeout=SECONDS, trust_env=False) as client:
            return client.post(url, json=body, headers={"authorization": f"Bearer {raw}"})
    except httpx.ConnectError:
        raise ChatFailed(f"The gateway cannot be reached at {url}. Start it with `make up`, or give --url.") from None
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeEncodeError) as error:
        raise ChatFailed(f"The gateway did not answer: {type(error).__name__}") from None


def _read(answer: httpx.Response) -> dict[str, Any]:
    """The answer's document. Raises ChatFailed with the gateway's own words for an error."""
    try:
        document = answer.json()
    except ValueError:
        raise ChatFailed(f"The gateway answered {answer.status_code} without JSON.") from None
    if answer.status_code >= 400:
        error = document.get("error", {}) if isinstance(document, dict) else {}
        raise ChatFailed(f"{error.get('message', 'refused')} ({answer.status_code} {error.get('code', '')})")
    if not isinstance(document, dict) or not document.get("choices"):
        raise ChatFailed("The gateway answered without a choice.")
    return document
