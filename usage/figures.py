"""What the console's pages show of usage: totals and series from the hourly rollups, single requests from the events.

Everything is scoped to the actor's teams. Amounts are nano-dollars, durations microseconds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import QuerySet, Sum

from conduit.access.permissions import scope
from conduit.core.actor import Actor
from usage.models import UsageEvent, UsageHour
from usage.sums import MEASURES, Sums

Where = Mapping[str, Any]


_SUMS = {f"{name}_": Sum(name) for name in MEASURES}


def _hours(actor: Actor, since: datetime, where: Where) -> QuerySet[UsageHour]:
    return scope(UsageHour.objects.filter(hour__gte=since, **where), actor)


def _total(row: Mapping[str, Any]) -> Sums:
    return Sums(**{name: int(row[f"{name}_"] or 0) for name in MEASURES})


def total(actor: Actor, since: datetime, **where: Any) -> Sums:
    """Everything from the hour of `since` on."""
    return _total(_hours(actor, since, where).aggregate(**_SUMS))


def uncertain(actor: Actor, since: datetime) -> int:
    """Attempts from the hour of `since` on whose answer was lost: holds stay until somebody says what they cost."""
    return _hours(actor, since, {}).aggregate(number=Sum("uncertain"))["number"] or 0


def totals_by(actor: Actor, dimension: str, since: datetime, **where: Any) -> dict[Any, Sums]:
    """`total` for each value of a rollup dimension, such as `key_id` or `provider_id`."""
    rows = _hours(actor, since, where).order_by().values(dimension).annotate(**_SUMS)
    return {row[dimension]: _total(row) for row in rows}


def series(actor: Actor, since: datetime, starts: Sequence[datetime], **where: Any) -> dict[str, list[int]]:
    """Spend per model in buckets that begin at `starts` (ascending). Models that spent nothing are left out."""
    rows = _hours(actor, since, where).order_by().values("model", "hour").annotate(cost=Sum("cost_nanos"))
    found: dict[str, list[int]] = defaultdict(lambda: [0] * len(starts))
    for row in rows:
        if row["cost"]:
            found[row["model"] or "no model"][_bucket(starts, row["hour"])] += row["cost"]
    return dict(found)


def _bucket(starts: Sequence[datetime], at: datetime) -> int:
    return max((index for index, start in enumerate(starts) if start <= at), default=0)


def outcomes(actor: Actor, since: datetime, starts: Sequence[datetime], where: Where) -> dict[str, list[int]]:
    """Requests per bucket of hours or days, by what became of them."""
    rows = (
        _hours(actor, since, where)
        .order_by()
        .values("hour")
        .annotate(asked=Sum("requests"), failed=Sum("errors"), stopped=Sum("refused"))
    )
    found: dict[str, list[int]] = {name: [0] * len(starts) for name in ("Served", "Error", "Refused")}
    for row in rows:
        index = _bucket(starts, row["hour"])
        found["Served"][index] += row["asked"] - row["failed"] - row["stopped"]
        found["Error"][index] += row["failed"]
        found["Refused"][index] += row["stopped"]
    return found


def minutes(at: datetime, providers: Iterable[UUID]) -> dict[UUID, list[dict[str, int]]]:
    """The last sixty minutes of each provider, oldest first: attempts and failed ones.

    Not scoped to teams: it tells how a provider is, and nothing about who called it.
    """
    first = at.replace(second=0, microsecond=0) - timedelta(minutes=59)
    found = {provider: [{"requests": 0, "errors": 0} for _ in range(60)] for provider in providers}
    rows = UsageEvent.objects.filter(time__gte=first, provider_id__in=list(found), attempt__gt=0)
    for provider, time, outcome in rows.values_list("provider_id", "time", "outcome").iterator(chunk_size=5_000):
        if provider is None:
            continue
        minute = found[provider][min(int((time - first).total_seconds() // 60), 59)]
        minute["requests"] += 1
        minute["errors"] += outcome == "error"
    return found


def day_starts(since: datetime, until: datetime) -> list[datetime]:
    """Midnights (UTC) from the day of `since` to the day of `until`."""
    first = since.replace(hour=0, minute=0, second=0, microsecond=0)
    return [first + timedelta(days=n) for n in range((until - first).days + 1)]


def hour_starts(since: datetime, until: datetime) -> list[datetime]:
    first = since.replace(minute=0, second=0, microsecond=0)
    return [first + timedelta(hours=n) for n in range(int((until - first).total_seconds() // 3600) + 1)]
