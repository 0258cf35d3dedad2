"""`conduit routes list|add`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from conduit.cli.main import django_ready
from conduit.cli.output import Json, emit
from conduit.core.actor import COMMAND_LINE

app = typer.Typer(help="The names callers use as model.", no_args_is_help=True)


def _line(body: dict[str, Any]) -> str:
    targets = ", ".join(f"{target['provider']}={target['model']}" for target in body["targets"])
    return f"{body['name']:<32} {body['strategy']:<9} {targets}{'' if body['enabled'] else ' (disabled)'}"


@app.command("list")
def show(as_json: Json = False) -> None:
    """List routes with their targets."""
    django_ready()
    from providers.models import Route  # noqa: PLC0415 (after django_ready, here and below)
    from providers.representations import route_body  # noqa: PLC0415

    found = [route_body(row) for row in Route.objects.order_by("name").prefetch_related("targets__provider")]
    emit(found, [_line(body) for body in found], as_json=as_json)


@app.command()
def add(
    name: Annotated[
        str, typer.Argument(help="The name callers use as model, or a pattern such as claude-* or openai/*.")
    ],
    target: Annotated[
        list[str],
        typer.Option(
            help="PROVIDER=MODEL[,weight=N][,priority=N]; repeat for more. MODEL * asks for the caller's own name."
        ),
    ],
    strategy: Annotated[str, typer.Option(help="priority or weighted")] = "priority",
    timeout: Annotated[int | None, typer.Option(help="Seconds for the whole answer.")] = None,
    as_json: Json = False,
) -> None:
    """Add a route."""
    targets = [_target(text) for text in target]
    django_ready()
    from providers.representations import route_body  # noqa: PLC0415
    from providers.routes import add_route  # noqa: PLC0415

    row = add_route(actor=COMMAND_LINE, name=name, targets=targets, strategy=strategy, timeout=timeout)
    body = route_body(row)
    emit(body, [_line(body)], as_json=as_json)


def _target(text: str) -> dict[str, Any]:
    aim, *rest = text.split(",")
    provider, equals, model = aim.partition("=")
    parsed: dict[str, Any] = {"provider": provider, "model": model}
    for part in rest:
        name, _, number = part.partition("=")
        if name not in ("weight", "priority") or not number.isascii() or not number.isdigit():
            raise typer.BadParameter(f"{part!r} must be weight=N or priority=N", param_hint="--target")
        parsed[name] = int(number)
    if not equals or not provider or not model:
        raise typer.BadParameter("must be PROVIDER=MODEL", param_hint="--target")
    return parsed
