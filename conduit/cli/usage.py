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
    group_by: Annotated[str, typer.Option(help="key, model, provider, team, tag, day, hour; several with commas.")] = (
        "model"
    ),
    start: Annotated[str | None, typer.Option("--from", help='Such as "2030-01-31T00:00:00Z"; 30 days ago.')] = None,
    end: Annotated[str | None, typer.Option("--to", help="Now by default.")] = None,
    as_json: Json = False,
) -> None:
    """Sum usage by group, dearest first."""
    django_ready()
    from conduit.core.actor import COMMAND_LINE  # noqa: PLC0415 (needs Django)
    from usage import reports  # noqa: PLC0415

    groups = reports.parse_groups(group_by)
    given = {name: text for name, text in (("from", start), ("to", end)) if text}
    found = reports.summary(COMMAND_LINE, groups, reports.parse_range(given))
    names, lines = _names(groups, found["data"]), []
    for row in [*found["data"], *([found["total"]] if found["total"] else [])]:
        named = [names.get((group, row.get(group)), row.get(group)) or "-" for group in groups]
        name = " ".join(str(one) for one in named) if groups[0] in row else "total"
        tokens = f"{row['input_tokens']} in, {row['output_tokens']} out"
        lines.append(f"{name}  ${row['cost_usd']}  {row['requests']} requests  {tokens}")
    emit(found, lines, as_json=as_json)


def _names(groups: Sequence[str], rows: list[dict[str, Any]]) -> dict[tuple[str, Any], str]:
    """(group, id) to the name that people know it by, where the group has ids."""
    from keys.models import Team, VirtualKey  # noqa: PLC0415 (needs Django)
    from providers.models import Provider  # noqa: PLC0415

    tables: dict[str, Any] = {"key": VirtualKey, "team": Team, "provider": Provider}
    found = {}
    for group in tables.keys() & set(groups):
        known = tables[group].objects.filter(id__in=[row[group] for row in rows if row[group]])
        found.update({(group, str(id_)): name for id_, name in known.values_list("id", "name")})
    return found
