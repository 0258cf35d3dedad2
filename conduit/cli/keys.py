"""`conduit keys`: virtual keys, which applications call the proxy with."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from conduit.cli.main import django_ready
from conduit.cli.output import Json, emit

if TYPE_CHECKING:
    from keys.models import VirtualKey

app = typer.Typer(no_args_is_help=True, help="Virtual keys, for the proxy.")
Reference = Annotated[str, typer.Argument(help="Id of the key, or its name where no other has it.")]
Many = Annotated[list[str] | None, typer.Option(help="May be given several times.")]


@app.command()
def create(  # noqa: PLR0913 (one parameter per option of the command)
    name: Annotated[str, typer.Option(help="What it is for.")],
    team: Annotated[str | None, typer.Option(help="Team it belongs to, by id or name.")] = None,
    model: Many = None,
    endpoint: Many = None,
    budget: Annotated[str | None, typer.Option(help="Hard limit in US dollars.")] = None,
    window: Annotated[str, typer.Option(help="lifetime, day, week or month.")] = "lifetime",
    rpm: Annotated[int | None, typer.Option(help="Requests per minute.")] = None,
    tpm: Annotated[int | None, typer.Option(help="Tokens per minute.")] = None,
    expires_at: Annotated[str | None, typer.Option(help='Such as "2030-01-31T12:00:00Z".')] = None,
    tag: Many = None,
    as_json: Json = False,
) -> None:
    """Issue a key and print it: the only time it can be seen."""
    django_ready()
    from conduit.core.actor import COMMAND_LINE  # noqa: PLC0415 (needs Django)
    from keys import issuing, representation, teams  # noqa: PLC0415

    key, raw = issuing.create_key(
        actor=COMMAND_LINE,
        name=name,
        team=teams.find_team(team),
        models=model or [],
        endpoints=endpoint or [],
        budgets=[] if budget is None else [{"limit_usd": budget, "window": window}],
        rpm=rpm,
        tpm=tpm,
        expires_at=expires_at,
        tags=tag or [],
    )
    value = {**representation.keys([key], COMMAND_LINE)[0], "key": raw.reveal()}
    emit(value, [raw.reveal()], as_json=as_json)


@app.command("list")
def list_keys(as_json: Json = False) -> None:
    """List every key, newest first."""
    django_ready()
    from conduit.core.actor import COMMAND_LINE  # noqa: PLC0415 (needs Django)
    from keys import representation  # noqa: PLC0415
    from keys.models import VirtualKey  # noqa: PLC0415

    rows = representation.keys(list(VirtualKey.objects.select_related("team").order_by("-id")), COMMAND_LINE)
    lines = [f"{row['id']}  {row['state']:<8}  {row['hint']}  {row['name']}" for row in rows]
    emit({"data": rows}, lines, as_json=as_json)


@app.command()
def revoke(key: Reference, as_json: Json = False) -> None:
    """Refuse a key for good, on every worker within a second."""
    _step("revoke_key", key, as_json)


@app.command()
def disable(key: Reference, as_json: Json = False) -> None:
    """Refuse a key until it is enabled again."""
    _step("disable_key", key, as_json)


@app.command()
def enable(key: Reference, as_json: Json = False) -> None:
    """Let a disabled key work again."""
    _step("enable_key", key, as_json)


def _step(verb: str, reference: str, as_json: bool) -> None:
    django_ready()
    from conduit.core.actor import COMMAND_LINE  # noqa: PLC0415 (needs Django)
    from keys import issuing, representation  # noqa: PLC0415

    step: Callable[..., VirtualKey] = getattr(issuing, verb)
    row: dict[str, Any] = representation.keys([step(issuing.find_key(reference), actor=COMMAND_LINE)], COMMAND_LINE)[0]
    emit(row, [f"{row['name']}: {row['state']}"], as_json=as_json)
