"""`conduit prices`: the catalogue's prices and the ones set by hand."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from conduit.cli.main import django_ready
from conduit.cli.output import Json, emit
from conduit.core.errors import InvalidInput

app = typer.Typer(no_args_is_help=True, help="Prices of models.")
Pairs = Annotated[list[str] | None, typer.Option(help="UNIT=DOLLARS; may be given several times.")]


@app.command()
def sync(as_json: Json = False) -> None:
    """Bring the catalogue's prices up to the installed price data."""
    _synced(dry_run=False, as_json=as_json)


@app.command()
def diff(as_json: Json = False) -> None:
    """Show what `sync` would change."""
    _synced(dry_run=True, as_json=as_json)


def _synced(*, dry_run: bool, as_json: bool) -> None:
    django_ready()
    from conduit.core.actor import COMMAND_LINE  # noqa: PLC0415 (needs Django)
    from conduit.core.clock import rfc3339  # noqa: PLC0415
    from usage.price_sync import sync_prices  # noqa: PLC0415

    done = sync_prices(actor=COMMAND_LINE, dry_run=dry_run)
    changes = [
        {
            "vendor": change.vendor,
            "model": change.model,
            "effective_from": rfc3339(change.effective_from),
            "before": change.before,
            "after": change.after,
        }
        for change in done.changes
    ]
    lines = [
        f"{change['vendor']}/{change['model']} from {change['effective_from']}"
        for change in (changes if dry_run else [])
    ]
    lines.append(f"{done.models} models, {len(changes)} {'to change' if dry_run else 'changed'}")
    emit({"models": done.models, "changes": changes}, lines, as_json=as_json)


@app.command("list")
def list_prices(
    model: Annotated[str | None, typer.Argument(help="Of this model only.")] = None, as_json: Json = False
) -> None:
    """List prices by model, newest first."""
    django_ready()
    from usage import overrides  # noqa: PLC0415 (needs Django)
    from usage.models import Price  # noqa: PLC0415

    found = Price.objects.filter(**({"model": model} if model else {})).order_by("model", "-effective_from")
    bodies = [overrides.outward(price) for price in found]
    emit(bodies, [_line(body) for body in bodies], as_json=as_json)


@app.command("set")
def set_price(  # noqa: PLR0913 (one parameter per option of the command)
    model: Annotated[str, typer.Argument(help="The upstream's model name.")],
    rate: Pairs = None,
    per: Pairs = None,
    provider: Annotated[str | None, typer.Option(help="For this provider only, by name or id.")] = None,
    effective_from: Annotated[str | None, typer.Option(help='Such as "2030-01-31T00:00:00Z"; now by default.')] = None,
    as_json: Json = False,
) -> None:
    """Set a price: --rate input=0.15 --rate output=0.60 per million units, --per image=0.01 for one unit."""
    django_ready()
    from conduit.core.actor import COMMAND_LINE  # noqa: PLC0415 (needs Django)
    from usage import overrides  # noqa: PLC0415

    price = overrides.set_price(
        model,
        actor=COMMAND_LINE,
        provider=provider,
        effective_from=effective_from,
        rates=_pairs("rate", rate),
        per=_pairs("per", per),
    )
    body = overrides.outward(price)
    emit(body, [_line(body)], as_json=as_json)


def _pairs(option: str, given: list[str] | None) -> dict[str, str]:
    pairs = {}
    for text in given or []:
        unit, sign, dollars = text.partition("=")
        if not sign:
            raise InvalidInput(option, f"{text!r} is not UNIT=DOLLARS.", "invalid")
        pairs[unit] = dollars
    return pairs


def _line(body: dict[str, Any]) -> str:
    rates = [f"{unit} {rate}" for unit, rate in body["rates"].items()]
    rates += [f"{unit} {rate} each" for unit, rate in body["per"].items()]
    return f"{body['model']}  {body['effective_from']}  {body['source']}  {', '.join(rates)}"
