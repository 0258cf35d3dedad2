"""`conduit usage`: what was used and what it cost, by group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from conduit.cli.main import django_ready
from conduit.cli.output import Json, emit

app = typer.Typer(help="Usage and cost.")


@app.command()
def usage(
    group_by: Annotated[
        str,
        typer.Option(
            help="key, model, provider, team, tag, credential, customer, endpoint, route, day, hour; several with"
            " commas, tag with key, team, day and hour only."
        ),
    ] = "model",
    start: Annotated[str | None, typer.Option("--from", help='Such as "2030-01-31T00:00:00Z"; 30 days ago.')] = None,
    end: Annotated[str | None, typer.Option("--to", help="Now by default.")] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(help='Such as "model=gpt-5.1" or "key=ID": only this usage; repeatable, each name once.'),
    ] = None,
    as_json: Json = False,
) -> None:
    """Sum usage by group, dearest first."""
    django_ready()
    from conduit.core.actor import COMMAND_LINE  # noqa: PLC0415 (needs Django)
    from usage import reports, summaries  # noqa: PLC0415

    groups = summaries.parse_groups(group_by)
    given = {name: text for name, text in (("from", start), ("to", end)) if text}
    found = reports.summary(COMMAND_LINE, groups, reports.parse_span(given), _conditions(where or []))
    names, lines = _names(groups, found["data"]), []
    for row, name in [*((row, _name(groups, row, names)) for row in found["data"]), (found["total"], "total")]:
        tokens = f"{row['input_tokens']} in, {row['output_tokens']} out"
        lines.append(f"{name}  ${row['cost_usd']}  {row['requests']} requests  {tokens}")
    emit(found, lines, as_json=as_json)


def _conditions(where: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in where:
        name, equals, value = text.partition("=")
        if not equals or not value or name in found:
            raise typer.BadParameter(f'"{text}" is not NAME=VALUE, or its name is given twice.', param_hint="--where")
        found[name] = value
    return found


def _name(groups: Sequence[str], row: dict[str, Any], names: dict[tuple[str, Any], str]) -> str:
    return " ".join(str(names.get((group, row[group]), row[group]) or "-") for group in groups)


def _names(groups: Sequence[str], rows: list[dict[str, Any]]) -> dict[tuple[str, Any], str]:
    """(group, id) to the name that people know it by, where the group has ids."""
    from keys.models import Team, VirtualKey  # noqa: PLC0415 (needs Django)
    from providers.models import Credential, Provider  # noqa: PLC0415

    tables: dict[str, Any] = {"key": VirtualKey, "team": Team, "provider": Provider, "credential": Credential}
    found = {}
    for group in tables.keys() & set(groups):
        known = tables[group].objects.filter(id__in=[row[group] for row in rows if row[group]])
        found.update({(group, str(id_)): name for id_, name in known.values_list("id", "name")})
    return found
