"""What workers hold of budgets now, for people and scripts: workers, their leases, and budget periods by name.

Actors of single teams see the leases of their own budgets only, and of a worker the sum of those.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import BigIntegerField, Count, F, Q, QuerySet, Sum
from django.db.models.functions import Coalesce, Greatest

from conduit.core.actor import Actor
from conduit.core.clock import now, rfc3339
from conduit.core.money import format_usd
from keys.budget_owners import owner_names, visible
from keys.lost_workers import SILENT
from keys.models import Budget, BudgetPeriod, Lease, Worker

LATE = 15.0  # seconds; a worker that serves is seen each second
_OPEN = Greatest(F("granted_nanos") - F("spent_nanos"), 0, output_field=BigIntegerField())


@dataclass(frozen=True, slots=True)
class PeriodName:
    """A budget period as people call it: whose, which window, since when."""

    budget: UUID
    owner_kind: str
    owner_id: UUID
    owner: str
    window: str
    starts_at: datetime

    def outward(self) -> dict[str, Any]:
        return {
            "budget": str(self.budget),
            "owner": {"kind": self.owner_kind, "id": str(self.owner_id), "name": self.owner},
            "window": self.window,
            "period_start": rfc3339(self.starts_at),
        }


def period_names(ids: Iterable[int], actor: Actor) -> dict[int, PeriodName]:
    """By the period's id, in a few queries; periods of budgets that are not the actor's are left out."""
    periods = BudgetPeriod.objects.filter(id__in=set(ids)).select_related("budget")
    if actor.teams is not None:
        periods = periods.filter(budget__in=visible(actor).values("id"))
    found = list(periods)
    names = owner_names([period.budget for period in found])
    return {
        period.id: PeriodName(
            period.budget_id,
            period.budget.owner_kind,
            period.budget.owner_id,
            names.get((period.budget.owner_kind, period.budget.owner_id), ""),
            period.budget.window,
            period.starts_at,
        )
        for period in found
    }


def live(actor: Actor) -> QuerySet[Lease]:
    """Leases that are open or hold something."""
    rows = Lease.objects.filter(Q(granted_nanos__gt=F("spent_nanos")) | Q(held_nanos__gt=0)).select_related("worker")
    return rows if actor.teams is None else rows.filter(period__budget__in=visible(actor).values("id"))


@dataclass(frozen=True, slots=True)
class Totals:
    """Nano-dollars over many leases. `held_nanos` of them belongs to requests in flight at the last renewal."""

    leases: int
    open_nanos: int
    held_nanos: int

    @property
    def spare_nanos(self) -> int:
        return max(self.open_nanos - self.held_nanos, 0)


def totals(rows: QuerySet[Lease]) -> Totals:
    found = rows.order_by().aggregate(
        leases=Count("id"), opened=Coalesce(Sum(_OPEN), 0), held=Coalesce(Sum("held_nanos"), 0)
    )
    return Totals(found["leases"], int(found["opened"]), int(found["held"]))


def largest(rows: QuerySet[Lease], limit: int) -> list[Lease]:
    return list(rows.annotate(opened=_OPEN).order_by("-opened", "id")[:limit])


def state(worker: Worker, at: datetime) -> str:
    """stopped | serving | silent | lost; only a lost worker's leases can be released."""
    if worker.stopped_at is not None:
        return "stopped"
    if at - worker.seen_at >= SILENT:
        return "lost"
    return "serving" if (at - worker.seen_at).total_seconds() < LATE else "silent"


def of_workers(rows: Sequence[Worker], actor: Actor) -> dict[UUID, Totals]:
    """Every worker asked for has an entry."""
    held = (
        live(actor)
        .filter(worker__in=[row.id for row in rows])
        .order_by()
        .values("worker")
        .annotate(leases=Count("id"), opened=Sum(_OPEN), held=Sum("held_nanos"))
    )
    sums = {row["worker"]: Totals(row["leases"], int(row["opened"]), int(row["held"])) for row in held}
    return {row.id: sums.get(row.id, Totals(0, 0, 0)) for row in rows}


def worker_bodies(rows: Sequence[Worker], actor: Actor) -> list[dict[str, Any]]:
    at, sums = now(), of_workers(rows, actor)
    return [
        {
            "id": str(row.id),
            "node": row.node,
            "pid": row.pid,
            "state": state(row, at),
            "started_at": rfc3339(row.started_at),
            "seen_at": rfc3339(row.seen_at),
            "stopped_at": rfc3339(row.stopped_at) if row.stopped_at else None,
            "leases": sums[row.id].leases,
            "open_usd": format_usd(sums[row.id].open_nanos),
            "held_usd": format_usd(sums[row.id].held_nanos),
        }
        for row in rows
    ]


def lease_bodies(rows: Sequence[Lease], actor: Actor) -> list[dict[str, Any]]:
    names, at = period_names([row.period_id for row in rows], actor), now()
    found = []
    for row in rows:
        name = names.get(row.period_id)
        if name is not None:
            found.append(
                {
                    "id": str(row.pk),
                    "worker": str(row.worker_id),
                    "node": row.worker.node,
                    "pid": row.worker.pid,
                    "seen_at": rfc3339(row.worker.seen_at),
                    **name.outward(),
                    "open_usd": format_usd(row.open_nanos),
                    "held_usd": format_usd(row.held_nanos),
                    "granted_at": rfc3339(row.granted_at),
                    "age_seconds": max(int((at - row.granted_at).total_seconds()), 0),
                }
            )
    return found


def of_budget(rows: QuerySet[Lease], budget: UUID) -> QuerySet[Lease]:
    return rows.filter(period__budget__in=Budget.objects.filter(id=budget))
