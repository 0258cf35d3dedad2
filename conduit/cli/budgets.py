"""`conduit budgets`: what is settled, held and free of every limit, and more money for a while."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from conduit.cli.main import django_ready
from conduit.cli.output import Json, emit

if TYPE_CHECKING:
    from keys.models import Budget

app = typer.Typer(no_args_is_help=True, help="Budgets of keys, teams, customers and providers.")
Reference = Annotated[str, typer.Argument(help="Id of the budget, as `conduit budgets list` prints it.")]


@app.command("list")
def list_budgets(
    owner_kind: Annotated[str | None, typer.Option(help="key, team, customer or provider.")] = None,
    owner: Annotated[str | None, typer.Option(help="Only of this owner, by id or name.")] = None,
    window: Annotated[str | None, typer.Option(help="lifetime, day, week or month.")] = None,
    kind: Annotated[str | None, typer.Option(help="hard or soft.")] = None,
    as_json: Json = False,
) -> None:
    """List budgets in force, newest first."""
    django_ready()
    from conduit.core.actor import COMMAND_LINE  # noqa: PLC0415 (needs Django)
    from keys import representation  # noqa: PLC0415
    from keys.budget_owners import filtered, visible  # noqa: PLC0415

    given = {"owner_kind": owner_kind, "owner": owner, "window": window, "kind": kind}
    asked = {name: text for name, text in given.items() if text is not None}
    rows = representation.of_budgets(list(filtered(visible(COMMAND_LINE), asked).order_by("-id")))
    emit({"data": rows}, [_line(row) for row in rows], as_json=as_json)


@app.command()
def show(budget: Reference, as_json: Json = False) -> None:
    """Show one budget: its limit, what is settled, held and free, and its raises."""
    django_ready()
    from keys import representation  # noqa: PLC0415 (needs Django)

    row = representation.of_budgets([_found(budget)])[0]
    emit(row, [_line(row), *_raises(row)], as_json=as_json)


@app.command("raise")
def raise_for_a_while(
    budget: Reference,
    extra: Annotated[str, typer.Option(help="US dollars on top of the limit.")],
    until: Annotated[str, typer.Option(help='When it reverts, such as "2030-01-31T12:00:00Z".')],
    as_json: Json = False,
) -> None:
    """Raise a budget until a moment; then it is as before by itself."""
    django_ready()
    from conduit.core.actor import COMMAND_LINE  # noqa: PLC0415 (needs Django)
    from keys import raises, representation  # noqa: PLC0415

    row = _found(budget)
    nanos, end = raises.parse(extra, until)
    raises.raise_budget(row, actor=COMMAND_LINE, extra_nanos=nanos, until=end)
    value = representation.of_budgets([row])[0]
    emit(value, [_line(value), *_raises(value)], as_json=as_json)


def _found(reference: str) -> Budget:
    """Raises InvalidInput for what is no id, NotFound for a budget that is not in force."""
    from uuid import UUID  # noqa: PLC0415

    from conduit.core.actor import COMMAND_LINE  # noqa: PLC0415 (needs Django)
    from conduit.core.errors import InvalidInput  # noqa: PLC0415
    from keys.budget_owners import find  # noqa: PLC0415

    try:
        budget_id = UUID(reference)
    except ValueError:
        raise InvalidInput("budget", "Must be a budget's id; `conduit budgets list` prints them.") from None
    return find(COMMAND_LINE, budget_id)


def _line(row: dict[str, Any]) -> str:
    owner = f"{row['owner']['kind']} {row['owner']['name']}"
    amounts = f"${row['settled_usd']} settled  ${row['held_usd']} held  ${row['remaining_usd']} free"
    resets = f"  resets {row['resets_at']}" if row["resets_at"] else ""
    return f"{row['id']}  {owner}  {row['kind']}  ${row['limit_usd']} per {row['window']}  {amounts}{resets}"


def _raises(row: dict[str, Any]) -> list[str]:
    return [f"  raised by ${one['extra_usd']} until {one['until']}, then as before" for one in row["raises"]]
