"""`conduit audit`: who changed what, whether the log is whole, and taking it along with its proof."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from conduit.cli.main import django_ready
from conduit.cli.output import Json, emit
from conduit.core.errors import InvalidInput

if TYPE_CHECKING:
    from conduit.core.audit_chain import Verification

app = typer.Typer(no_args_is_help=True, help="The audit log.")
Start = Annotated[str | None, typer.Option("--from", help='Such as "2030-01-31T00:00:00Z", included.')]
End = Annotated[str | None, typer.Option("--to", help="Not included; now by default.")]


@app.command("list")
def list_entries(  # noqa: PLR0913 (one parameter per option of the command)
    actor: Annotated[str | None, typer.Option(help="Id or name of the user or token.")] = None,
    action: Annotated[str | None, typer.Option(help='Such as key.create; "key.*" for all of keys.')] = None,
    kind: Annotated[str | None, typer.Option(help="Of the object, such as key.")] = None,
    object_: Annotated[str | None, typer.Option("--object", help="Id of the object.")] = None,
    team: Annotated[str | None, typer.Option(help="Id of the object's team.")] = None,
    request_id: Annotated[str | None, typer.Option(help="Of the management request.")] = None,
    start: Start = None,
    end: End = None,
    limit: Annotated[int, typer.Option(help="At most this many.", min=1)] = 50,
    as_json: Json = False,
) -> None:
    """List entries, newest first."""
    django_ready()
    from conduit.access import audit_log  # noqa: PLC0415 (needs Django)

    asked = {"actor": actor, "action": action, "kind": kind, "object": object_, "team": team, "request_id": request_id}
    given = {name: text for name, text in {**asked, "from": start, "to": end}.items() if text}
    bodies = [audit_log.body(row) for row in audit_log.entries(given)[:limit]]
    emit(bodies, [_line(body) for body in bodies], as_json=as_json)


def _line(body: dict[str, Any]) -> str:
    changed = [f"{word} {json.dumps(body[word])}" for word in ("before", "after") if body[word]]
    where = f" from {body['address']}" if body["address"] else ""
    what = body["object"]["name"] or body["object"]["id"]
    who = f"{body['actor']['name']} ({body['actor']['kind']}){where}"
    return "  ".join([str(body["number"]), body["time"], who, body["action"], what, *changed])


@app.command()
def verify(
    file: Annotated[Path | None, typer.Option(help="Verify this export instead; needs its key, no database.")] = None,
    as_json: Json = False,
) -> None:
    """Verify the chain, its head and its checkpoints. Exit code 1 when one does not hold."""
    django_ready(database=file is None)
    from conduit.access import audit_log  # noqa: PLC0415 (needs Django)
    from conduit.core import audit_export  # noqa: PLC0415

    found = audit_log.verify_and_keep() if file is None else audit_export.verify_file(file)
    emit(audit_log.verification_body(found), _told(found), as_json=as_json)
    if not found.intact:
        raise typer.Exit(1)


def _told(found: Verification) -> list[str]:
    if found.fault is not None:
        lines = [f"BROKEN at entry {found.fault.number}: {found.fault.kind}", f"  {found.fault.detail}"]
        lines.append(f"  {found.entries} of {found.total} entries before it are intact")
    else:
        lines = [f"intact: {found.entries} of {found.total} entries", f"  head {found.head.hex()}"]
        if found.checkpoints:
            last = f", the last of {found.anchored_at}" if found.anchored_at else ""
            lines.append(f"  {found.checkpoints} {'checkpoint agrees' if found.checkpoints == 1 else 'agree'}{last}")
    return [*lines, *(f"  note: {note}" for note in found.notes)]


@app.command()
def export(
    output: Annotated[Path | None, typer.Option(help="Into this new file instead of standard output.")] = None,
    start: Start = None,
    end: End = None,
) -> None:
    """Write the log as JSON lines with its proof: `conduit audit verify --file FILE` checks it."""
    django_ready()
    from conduit.access import audit_log  # noqa: PLC0415 (needs Django)
    from conduit.core.actor import COMMAND_LINE  # noqa: PLC0415

    span = [audit_log.instant(name, text) if text else None for name, text in (("from", start), ("to", end))]
    if output is None:
        sys.stdout.writelines(audit_log.export(COMMAND_LINE, *span))
        return
    try:
        with output.open("x", encoding="utf-8") as file:
            file.writelines(audit_log.export(COMMAND_LINE, *span))
    except FileExistsError:
        raise InvalidInput("output", f"{output} is there already. Name a new file.", "exists") from None
