"""`conduit kek`: key-encryption keys, changed while everything runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from conduit.cli.main import django_ready
from conduit.cli.output import Json, emit

app = typer.Typer(no_args_is_help=True, help="Key-encryption keys: what encrypts every stored secret.")
PATIENCE_SECONDS = 10.0


@app.command()
def status(as_json: Json = False) -> None:
    """Show each key, what lies under it and which processes hold it."""
    django_ready()
    from conduit.access.keks_api import progress_body, ring_body  # noqa: PLC0415 (needs Django)
    from conduit.core import keks  # noqa: PLC0415

    body = {**ring_body(), "progress": progress_body(keks.progress())}
    emit(body, _lines(body), as_json=as_json)


def _lines(body: dict[str, Any]) -> Iterator[str]:
    yield f"keys from {body['source']}"
    for row in body["data"]:
        word = "primary" if row["primary"] else "held" if row["kind"] else "MISSING"
        needed = ", ".join(f"{number} in {table}" for table, number in row["rows"].items()) or "nothing under it"
        yield f"{row['id']}  {word}  {row['kind'] or 'not set here'}  {needed}"
        if row["lacking"] and row["kind"]:
            yield f"    not held by {', '.join(row['lacking'])}"
        if row["encrypting"] and not row["primary"]:
            yield f"    still encrypts: {', '.join(row['encrypting'])}"
    for row in body["purposes"]:
        used = "" if row["rows"] is None else f"  {row['rows']} rows"
        yield f"purpose {row['purpose']} version {row['version']}  under {row['kek']}{used}"
    left = body["progress"]["left"]
    if left:
        yield f"{left} wrapped keys are not under {body['progress']['to']} yet: conduit kek rotate"


@app.command()
def add(
    kek_id: Annotated[str, typer.Argument(metavar="[ID]", help="Its name; K2, K3 … by default.")] = "",
    as_json: Json = False,
) -> None:
    """Generate a key. Into the key file; or, where keys come from the environment, print the line to set."""
    django_ready()
    from conduit.core import keks, keyring  # noqa: PLC0415 (needs Django)
    from conduit.core.actor import COMMAND_LINE  # noqa: PLC0415

    if keyring.ring().file:
        added = keks.add(actor=COMMAND_LINE, kek_id=kek_id)
        emit({"id": added, "source": keks.source()}, [added], as_json=as_json)
        return
    line = keks.line(kek_id)
    name, _, value = line.partition("=")
    emit({"variable": name, "value": value}, [line], as_json=as_json)
    typer.echo("Set it on every node, restart them one after another, then: conduit kek status", err=True)


@app.command()
def rotate(
    kek_id: Annotated[str, typer.Argument(metavar="[ID]", help="The key to change to; by default the newest.")] = "",
    as_json: Json = False,
) -> None:
    """Make a key primary and move everything under it; may be interrupted and run again."""
    django_ready()
    from conduit.access.keks_api import rotated_body  # noqa: PLC0415 (needs Django)
    from conduit.core import keks  # noqa: PLC0415
    from conduit.core.actor import COMMAND_LINE  # noqa: PLC0415
    from conduit.core.rewrap import Progress  # noqa: PLC0415

    def tell(progress: Progress) -> None:
        typer.echo(f"{progress.done} of {progress.total} under {progress.to}", err=True)

    done = keks.rotate(actor=COMMAND_LINE, to=kek_id, patience=PATIENCE_SECONDS, tell=None if as_json else tell)
    body = rotated_body(done)
    lines = [f"{body['done']} of {body['total']} wrapped keys lie under {body['to']}"]
    lines += [f"does not open: {row['table']} {row['id']}: {row['reason']}" for row in body["unopened"]]
    if body["behind"]:
        lines.append(f"still encrypts with another key: {', '.join(body['behind'])}; a job moves what it writes")
    emit(body, lines, as_json=as_json)
    if body["left"]:
        raise typer.Exit(1)


@app.command()
def retire(
    kek_id: Annotated[str, typer.Argument(metavar="ID", help="A key that nothing needs any more.")],
    as_json: Json = False,
) -> None:
    """Take a key away, after a check that everything opens without it."""
    django_ready()
    from conduit.core import keks  # noqa: PLC0415 (needs Django)
    from conduit.core.actor import COMMAND_LINE  # noqa: PLC0415

    detail = keks.retire(kek_id, actor=COMMAND_LINE)
    emit({"detail": detail}, [detail], as_json=as_json)


@app.command("rotate-purpose")
def rotate_purpose(
    purpose: Annotated[str, typer.Argument(help="pepper, token-pepper, audit …")],
    as_json: Json = False,
) -> None:
    """Make a new version of a purpose's own key; what older versions sealed still opens."""
    django_ready()
    from conduit.core import keks  # noqa: PLC0415 (needs Django)
    from conduit.core.actor import COMMAND_LINE  # noqa: PLC0415

    version = keks.rotate_purpose(purpose, actor=COMMAND_LINE)
    emit({"purpose": purpose, "version": version}, [f"{purpose} version {version}"], as_json=as_json)
