"""`conduit ledger`: does it add up, and recreating what is derived from it."""

from __future__ import annotations

import typer

from conduit.cli.main import django_ready
from conduit.cli.output import Json, emit

app = typer.Typer(no_args_is_help=True, help="The ledger of usage events.")


@app.command()
def verify(as_json: Json = False) -> None:
    """Check every invariant of the ledger. Exit code 1 when one does not hold."""
    django_ready()
    from usage import representations, verification  # noqa: PLC0415 (needs Django)

    found = verification.verify()
    body = representations.verification_body(found)
    lines = [f"{found.events} usage events, ${body['cost_usd']}"]
    for check in found.checks:
        lines.append(f"{'ok  ' if check.ok else 'FAIL'}  {check.name}: {check.statement}")
        if not check.ok:
            lines.append(f"      {check.wrong} wrong, such as")
            lines += [f"      {example}" for example in check.examples]
    emit(body, lines, as_json=as_json)
    if not found.ok:
        raise typer.Exit(1)


@app.command()
def rebuild(as_json: Json = False) -> None:
    """Recreate the rollups from the usage events."""
    django_ready()
    from usage import verification  # noqa: PLC0415 (needs Django)

    rows = verification.rebuild()
    emit({"hours": rows}, [f"{rows} hourly rows"], as_json=as_json)
