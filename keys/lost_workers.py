"""Leases of workers that never return. A worker that ends on a node that lives is closed by that node's shipper, once
all it wrote is in the ledger; this is for nodes whose disk, and so whose journal, nobody can read any more.

A release gives back what the worker may still have spent: requests that were in flight there, and records that lie in
its journal. Should the node return after all, its records still settle; budgets may then be above their limits by that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connection, transaction
from django.db.models import F, Max
from django.db.models.functions import Now

from conduit.access import permissions
from conduit.core import audit
from conduit.core.actor import Actor
from conduit.core.errors import Conflict, NotFound
from conduit.core.money import format_usd
from keys import leases
from keys.models import Lease, Worker

RESOURCE = "leases"
SILENT = timedelta(seconds=90)  # a shipper that works has closed a dead worker by then
TOGETHER = timedelta(minutes=1)  # workers that live are seen within this of each other

_LOCK_WORKER = """
SELECT node, pid, stopped_at, ceil(extract(epoch FROM clock_timestamp() - seen_at))::bigint
  FROM keys_worker WHERE id = %s FOR NO KEY UPDATE
"""


@dataclass(frozen=True, slots=True)
class Released:
    """`periods` budget periods got `nanos` back, together."""

    worker: UUID
    node: str
    pid: int
    periods: int
    nanos: int


def release(worker: UUID, *, actor: Actor) -> Released:
    """Closes the worker's leases for good: what was open of them is free for everybody at once.

    Raises NotFound; Conflict when it was seen within 90 seconds (it says how long to wait) or has stopped before; and
    Forbidden for actors of single teams, because every team's budgets are among the leases.
    """
    permissions.demand(actor, RESOURCE)
    with transaction.atomic(), connection.cursor() as cursor:
        audit.lock()
        cursor.execute(_LOCK_WORKER, [worker])
        found = cursor.fetchone()
        if found is None:
            raise NotFound(f"There is no worker {worker}.")
        node, pid, stopped_at, silent = found
        check_lost(node, pid, stopped_at, silent)
        periods = Lease.objects.filter(worker=worker, granted_nanos__gt=F("spent_nanos")).count()
        released = Released(worker, node, pid, periods, leases.close(worker))
        audit.record(
            actor=actor,
            action="worker.release",
            kind="worker",
            id=worker,
            name=f"{node} {pid}",
            after={"released_usd": format_usd(released.nanos), "periods": released.periods, "silent_seconds": silent},
        )
    return released


def check_lost(node: str, pid: int, stopped_at: datetime | None, silent: int) -> None:
    """Raises Conflict for a worker that has stopped, or was seen `silent` seconds ago and that is not long enough."""
    if stopped_at is not None:
        raise Conflict(
            f"Worker {pid} of node {node} has stopped and its leases are closed; nothing is left to release."
        )
    wait = int(SILENT.total_seconds()) - silent
    if wait >= 0:
        raise Conflict(
            f"Worker {pid} of node {node} was seen {max(silent, 0)} s ago and may still be serving. "
            f"Stop it, or wait {wait + 1} s more and try again."
        )


def lost(after: timedelta) -> Sequence[Worker]:
    """Workers that were not seen for `after` while others were, longest first.

    Compared with the worker that was seen last, not with the clock alone: while the database or the whole installation
    was away nobody could be seen, and that makes nobody lost.
    """
    running = Worker.objects.filter(stopped_at=None)
    newest: datetime | None = running.aggregate(newest=Max("seen_at"))["newest"]
    if newest is None:
        return []
    silent: Any = Now() - after
    return list(running.filter(seen_at__lt=silent).filter(seen_at__lt=newest + TOGETHER - after).order_by("seen_at"))
