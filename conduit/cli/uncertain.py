"""`conduit uncertain`: attempts whose cost nobody reported, and saying what they cost."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal, cast
from uuid import UUID

import typer

from conduit.cli.main import django_ready
from conduit.cli.output import Json, emit
from conduit.core.errors import InvalidInput
from conduit.core.money import MoneyError, format_usd, parse_usd

app = typer.Typer(no_args_is_help=True, help="Attempts that may have been billed and whose cost nobody reported.")


@app.command("list")
def list_attempts(
    state: Annotated[str, typer.Option(help="open, resolved or all.")] = "open",
    node: Annotated[str | None, typer.Option(help="Of this node's workers.")] = None,
    limit: Annotated[int, typer.Option(help="At most this many.", min=1)] = 1000,
    as_json: Json = False,
) -> None:
    """List them, newest first, with the hold that each keeps in its budgets."""
    django_ready()
    from conduit.core.actor import COMMAND_LINE  # noqa: PLC0415 (needs Django)
    from usage import uncertain  # noqa: PLC0415

    found = uncertain.open_attempts(COMMAND_LINE, {"state": state, **({"node": node} if node else {})})
    rows = [uncertain.body(one) for one in uncertain.shown(uncertain.newest(found, limit), COMMAND_LINE)]
    whole = uncertain.sums(found)
    lines = [_line(row) for row in rows]
    lines.append(f"{whole.attempts} attempts, ${format_usd(whole.held_nanos)} held")
    emit({"data": rows, "attempts": whole.attempts, "held_usd": format_usd(whole.held_nanos)}, lines, as_json=as_json)


def _line(row: dict[str, Any]) -> str:
    end = f"${row['held_usd']} held" if row["cost_usd"] is None else f"resolved to ${row['cost_usd']}"
    names = " ".join(str(row[name]) for name in ("provider_name", "model", "key_name") if row[name])
    return f"{row['id']}  {row['time']}  {end}  {names}  {row['reason']}  node {row['node']}"


@app.command()
def resolve(  # noqa: PLR0913 (one parameter per option of the command)
    attempt: Annotated[str | None, typer.Argument(help="Id of one attempt; else --node or --older-than.")] = None,
    outcome: Annotated[str, typer.Option("--as", help="unbilled, held (its whole hold) or billed.")] = "",
    cost: Annotated[str | None, typer.Option(help="With --as billed: US dollars, such as 0.0125.")] = None,
    from_invoice: Annotated[bool, typer.Option(help="The provider's invoice says so: exact from now on.")] = False,
    node: Annotated[str | None, typer.Option(help="All open attempts of this node.")] = None,
    older_than: Annotated[int | None, typer.Option(help="All that are older than so many hours.", min=0)] = None,
    as_json: Json = False,
) -> None:
    """Say what one attempt cost, or many at once. It stands: a resolution cannot be changed."""
    many = node is not None or older_than is not None
    if (attempt is not None) == many:
        raise InvalidInput("ATTEMPT", "Name one attempt, or choose many by --node and --older-than.", "required")
    if many:
        if outcome not in ("unbilled", "held") or cost is not None or from_invoice:
            raise InvalidInput("--as", "Many are resolved as unbilled or held, without a cost.", "invalid_choice")
        age = None if older_than is None else timedelta(hours=older_than)
        _resolve_many(node or "", age, cast(Literal["unbilled", "held"], outcome), as_json)
        return
    _resolve_one(_id(attempt or ""), outcome, _nanos(outcome, cost), from_invoice, as_json)


def _id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise InvalidInput("ATTEMPT", "Is not an id; `conduit uncertain list` shows them.", "invalid_id") from None


def _nanos(outcome: str, cost: str | None) -> int | None:
    """The cost that was given; None where the outcome says it all."""
    if outcome not in ("unbilled", "held", "billed"):
        raise InvalidInput("--as", "Must be unbilled, held or billed.", "invalid_choice")
    if (outcome == "billed") != (cost is not None):
        raise InvalidInput("--cost", "Goes with --as billed, and only with it.", "invalid_combination")
    if cost is None:
        return None
    try:
        return parse_usd(cost)
    except MoneyError as error:
        raise InvalidInput("--cost", f"The amount {error}.", "invalid_amount") from None


def _resolve_one(attempt: UUID, outcome: str, nanos: int | None, from_invoice: bool, as_json: bool) -> None:
    django_ready()
    from conduit.core.actor import COMMAND_LINE  # noqa: PLC0415 (needs Django)
    from usage import uncertain  # noqa: PLC0415

    row = uncertain.find_attempt(attempt, COMMAND_LINE)
    if nanos is None:
        nanos = row.held_nanos if outcome == "held" else 0
    done = uncertain.resolve(attempt, actor=COMMAND_LINE, cost_nanos=nanos, from_invoice=from_invoice)
    value = uncertain.body(uncertain.shown([done], COMMAND_LINE)[0])
    line = f"${value['cost_usd']} settled, ${value['held_usd']} no longer held"
    emit(value, [line], as_json=as_json)


def _resolve_many(node: str, age: timedelta | None, outcome: Literal["unbilled", "held"], as_json: bool) -> None:
    django_ready()
    from conduit.core.actor import COMMAND_LINE  # noqa: PLC0415 (needs Django)
    from usage import uncertain  # noqa: PLC0415

    done = uncertain.resolve_all(actor=COMMAND_LINE, node=node, older_than=age, as_=outcome)
    value = {
        "attempts": done.attempts,
        "cost_usd": format_usd(done.cost_nanos),
        "held_usd": format_usd(done.held_nanos),
        "left": done.left,
    }
    line = f"{done.attempts} attempts: ${value['cost_usd']} settled, ${value['held_usd']} no longer held"
    emit(value, [line], as_json=as_json)
