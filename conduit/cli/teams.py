"""`conduit teams`: the tree that keys and budgets hang on."""

from __future__ import annotations

from typing import Annotated

import typer

from conduit.cli.main import django_ready
from conduit.cli.output import Json, emit

app = typer.Typer(no_args_is_help=True, help="Teams.")


@app.command()
def create(
    name: Annotated[str, typer.Option(help="Unique name.")],
    parent: Annotated[str | None, typer.Option(help="The team above, by id or name.")] = None,
    budget: Annotated[str | None, typer.Option(help="Hard limit in US dollars.")] = None,
    window: Annotated[str, typer.Option(help="lifetime, day, week or month.")] = "lifetime",
    as_json: Json = False,
) -> None:
    """Create a team and print its id."""
    django_ready()
    from conduit.core.actor import COMMAND_LINE  # noqa: PLC0415 (needs Django)
    from keys import representation, teams  # noqa: PLC0415

    specs = [] if budget is None else [{"limit_usd": budget, "window": window}]
    above = teams.find_team(parent, "parent")
    team = teams.create_team(actor=COMMAND_LINE, name=name, parent=above, budgets=specs)
    emit(representation.teams([team], COMMAND_LINE)[0], [str(team.id)], as_json=as_json)


@app.command("list")
def list_teams(as_json: Json = False) -> None:
    """List every team."""
    django_ready()
    from conduit.core.actor import COMMAND_LINE  # noqa: PLC0415 (needs Django)
    from keys import representation  # noqa: PLC0415
    from keys.models import Team  # noqa: PLC0415

    rows = representation.teams(list(Team.objects.order_by("name")), COMMAND_LINE)
    emit({"data": rows}, [f"{row['id']}  {row['name']}" for row in rows], as_json=as_json)
