"""`conduit models list|catalogue`: what the providers serve, and what is known of vendors' models."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from conduit.cli.main import django_ready
from conduit.cli.output import Json, emit

app = typer.Typer(help="Models: what the providers list, and the catalogue.", no_args_is_help=True)
Name = Annotated[str, typer.Option(help="Only names that contain this.")]


@app.command("list")
def show(
    provider: Annotated[str, typer.Option(help="Only of this provider, by name or id.")] = "",
    name: Name = "",
    as_json: Json = False,
) -> None:
    """Ask each provider for its models. One that fails does not hide the others; exit 1 when there was one."""
    django_ready()
    from providers.listing import listed_models  # noqa: PLC0415 (after django_ready, here and below)
    from providers.models import Provider  # noqa: PLC0415
    from providers.providers import find  # noqa: PLC0415

    asked = [find(provider)] if provider else list(Provider.objects.filter(enabled=True).order_by("name"))
    found = [
        {
            "provider": listed.provider.name,
            "kind": listed.provider.kind,
            "problem": listed.problem,
            "models": [model for model in listed.models if name.lower() in model.lower()],
        }
        for listed in listed_models(asked)
    ]
    emit(found, (line for group in found for line in _group(group)), as_json=as_json)
    if any(group["problem"] for group in found):
        raise typer.Exit(1)


def _group(group: dict[str, Any]) -> Iterator[str]:
    yield f"{group['provider']} ({group['kind']})"
    if group["problem"]:
        yield f"  failed: {group['problem']}"
    for model in group["models"]:
        yield f"  {model}"


@app.command()
def catalogue(
    vendor: Annotated[str, typer.Option(help="Only of this vendor, such as openai.")] = "",
    name: Name = "",
    as_json: Json = False,
) -> None:
    """List the catalogue's models with vendor, context window and whether they are deprecated."""
    django_ready()
    from providers.models import CatalogueModel  # noqa: PLC0415
    from providers.representations import model_body  # noqa: PLC0415

    rows = CatalogueModel.objects.order_by("vendor", "name").filter(name__icontains=name)
    if vendor:
        rows = rows.filter(vendor=vendor)
    lines = (
        f"{row.vendor:<16} {row.name:<48} {row.context_window or '-':>9}{' deprecated' if row.deprecated else ''}"
        for row in rows
    )
    emit([model_body(row) for row in rows], lines, as_json=as_json)
