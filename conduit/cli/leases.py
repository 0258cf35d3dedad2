"""`conduit leases`: what workers hold of budgets, and giving back what lost ones hold."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import typer

from conduit.cli.main import django_ready
from conduit.cli.output import Json, emit
from conduit.core.errors import InvalidInput
from conduit.core.money import format_usd

app = typer.Typer(no_args_is_help=True, help="What workers hold of budgets.")


@app.command("list")
def list_leases(
    node: Annotated[str | None, typer.Option(help="Of this node's workers.")] = None,
    limit: Annotated[int, typer.Option(help="At most this many.", min=1)] = 1000,
    as_json: Json = False,
) -> None:
    """List workers and their leases, largest first."""
    django_ready()
    from conduit.core.actor import COMMAND_LINE  # noqa: PLC0415 (needs Django)
    from keys import live_leases  # noqa: PLC0415
    from keys.models import Worker  # noqa: PLC0415

    running, found = Worker.objects.filter(stopped_at=None), live_leases.live(COMMAND_LINE)
    if node:
        running, found = running.filter(node=node), found.filter(worker__node=node)
    workers = live_leases.worker_bodies(list(running.order_by("node", "pid")), COMMAND_LINE)
    leases = live_leases.lease_bodies(live_leases.largest(found, limit), COMMAND_LINE)
    lines = [
        f"worker {row['id']}  node {row['node']} {row['pid']}  {row['state']}  seen {row['seen_at']}"
        f"  ${row['open_usd']} open, ${row['held_usd']} held"
        for row in workers
    ]
    lines += [
        f"lease {row['owner']['kind']} {row['owner']['name']} per {row['window']}  node {row['node']} {row['pid']}"
        f"  ${row['open_usd']} open, ${row['held_usd']} held  {row['age_seconds']} s"
        for row in leases
    ]
    whole = live_leases.totals(found)
    lines.append(f"{whole.leases} leases, ${format_usd(whole.open_nanos)} open, ${format_usd(whole.held_nanos)} held")
    emit({"workers": workers, "data": leases}, lines, as_json=as_json)


@app.command()
def release(
    worker: Annotated[str, typer.Argument(help="Id of a worker that was not seen for 90 seconds.")],
    as_json: Json = False,
) -> None:
    """Close the leases of a worker that never returns: what is open of them is free again."""
    try:
        ident = UUID(worker)
    except ValueError:
        raise InvalidInput("WORKER", "Is not an id; `conduit leases list` shows them.", "invalid_id") from None
    django_ready()
    from conduit.core.actor import COMMAND_LINE  # noqa: PLC0415 (needs Django)
    from keys import lost_workers  # noqa: PLC0415

    done = lost_workers.release(ident, actor=COMMAND_LINE)
    value = {
        "worker": str(done.worker),
        "node": done.node,
        "pid": done.pid,
        "periods": done.periods,
        "released_usd": format_usd(done.nanos),
    }
    emit(value, [f"${value['released_usd']} released in {done.periods} budget periods"], as_json=as_json)
