"""Moves automatic canaries on: what the ledger says of a new version's requests against the rotation's own rules.

A share is held for `step_seconds`; then, if at most `max_error_percent` of the version's attempts failed on the
provider's side meanwhile, the next share, and after the last one the whole. Above the bound it goes back: at the first
look after ENOUGH attempts are in the ledger, with fewer at the end of the step; conduit/celery.py says how often it
looks. An authentication failure in the ledger goes back too, but the data plane does that itself on the first one.
Without a single attempt it waits QUIET times as long, then moves on: a credential that nobody uses must not stay in
between for ever.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Count, Q

from conduit.core.clock import now
from conduit.core.errors import Conflict, NotFound
from providers import rotation, versions
from providers.errors import AuthRejected
from providers.models import Rotation, RotationState
from usage.models import Outcome, UsageEvent

ENOUGH = 20
QUIET = 3
logger = logging.getLogger("conduit.usage")


@dataclass(frozen=True, slots=True)
class Figures:
    """Attempts with the new version since its present share began. `failed`: by the provider, not by the request."""

    attempts: int
    failed: int
    rejected: int

    def words(self, row: Rotation) -> str:
        if self.rejected:
            return f"{self.rejected} of {self.attempts} requests were rejected: the provider refuses the secret."
        share = 100 * self.failed / self.attempts if self.attempts else 0
        return f"{self.failed} of {self.attempts} requests failed ({share:.2f} %; at most {row.max_error_percent} %)."


def figures(row: Rotation, since: datetime) -> Figures:
    events = UsageEvent.objects.filter(
        time__gte=since, credential_id=row.credential_id, credential_version=row.new.number, attempt__gt=0
    )
    # 400 and the like are the request's own fault: they would fail with the old secret too.
    failed = Q(outcome=Outcome.ERROR) & (Q(status__gte=500) | Q(status=429))
    found = events.aggregate(
        attempts=Count("id"),
        failed=Count("id", filter=failed),
        rejected=Count("id", filter=Q(error_code=AuthRejected.code)),
    )
    return Figures(**found)


def verdict(row: Rotation, found: Figures, held: timedelta) -> str:
    """`back`, `on` or `wait`."""
    step = timedelta(seconds=row.step_seconds)
    above = found.failed * 100 > row.max_error_percent * found.attempts
    if found.rejected or (above and (found.attempts >= ENOUGH or held >= step)):
        return "back"
    if held < step or (not found.attempts and held < QUIET * step):
        return "wait"
    return "on"


def watch() -> int:
    """Looks at every automatic canary once; how many moved. Safe to run twice at once: each step is taken once."""
    rows = Rotation.objects.filter(ended_at=None, state=RotationState.CANARY, automatic=True)
    return sum(_watched(row) for row in rows.select_related("credential", "new").order_by("id"))


def _watched(row: Rotation) -> bool:
    since = row.share_since or row.started_at
    found = figures(row, since)
    decided = verdict(row, found, now() - since)
    try:
        if decided == "back":
            moved = versions.roll_back_canary(row, seen=row.share_since, problem=found.words(row))
        else:
            moved = decided == "on" and rotation.advance(row, seen=row.share_since)
    except (NotFound, Conflict):
        return False  # deleted, or moved by hand, since the list was read
    if moved:
        logger.info("canary of %s moved %s: %s", row.credential.name, decided, found.words(row))
    return moved
