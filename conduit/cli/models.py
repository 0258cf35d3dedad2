"""`conduit models list`: the catalogue."""

from __future__ import annotations

from typing import Annotated

import typer

from conduit.cli.main import django_ready
from conduit.cli.output import Json, emit

app = typer.Typer(help="The catalogue of vendors' models.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """The catalogue of vendors' models."""


@app.command("list")
def show(
    vendor: Annotated[str, typer.Option(help="Only of this vendor, such as openai.")] = "",
    name: Annotated[str, typer.Option(help="Only names that contain this.")] = "",
    as_json: Json = False,
) -> None:
    """List models with vendor, context window and whether they are deprecated."""
    django_ready()
    from providers.models import CatalogueModel  # noqa: PLC0415 (after django_ready)
    from providers.representations import model_body  # noqa: PLC0415

    rows = CatalogueModel.objects.order_by("vendor", "name").filter(name__icontains=name)
    if vendor:
        rows = rows.filter(vendor=vendor)
    lines = (
        f"{row.vendor:<16} {row.name:<48} {row.context_window or '-':>9}{' deprecated' if row.deprecated else ''}"
        for row in rows
    )
    emit([model_body(row) for row in rows], lines, as_json=as_json)
