"""`conduit tokens`: management tokens."""

from __future__ import annotations

from typing import Annotated

import typer

from conduit.cli.main import django_ready
from conduit.cli.output import Json, emit

app = typer.Typer(no_args_is_help=True, help="Management tokens, for /api/v1.")


@app.callback()
def tokens() -> None:
    """Management tokens, for /api/v1."""


@app.command()
def create(
    name: Annotated[str, typer.Option(help="What it is for.")],
    role: Annotated[str, typer.Option(help="owner, admin, operator, analyst or auditor.")],
    team: Annotated[str | None, typer.Option(help="Narrow an operator or analyst to this team, by id or name.")] = None,
    as_json: Json = False,
) -> None:
    """Issue a token and print it: the only time it can be seen."""
    django_ready()
    from conduit.access.tokens import create_token  # noqa: PLC0415 (needs Django)
    from conduit.core.actor import COMMAND_LINE  # noqa: PLC0415
    from keys.teams import find_team  # noqa: PLC0415

    found = find_team(team)
    token, raw = create_token(actor=COMMAND_LINE, name=name, role=role, team=found.id if found else None)
    value = {"id": str(token.id), "name": token.name, "role": token.role, "token": raw.reveal()}
    emit(value, [raw.reveal()], as_json=as_json)
