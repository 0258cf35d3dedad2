"""Recurring work on the ledger: partitions, prices, its own checks, canaries by its figures; what is kept a while."""

from __future__ import annotations

import logging
import time
from datetime import timedelta

from celery import shared_task
from django.conf import settings

from conduit.core import clock
from conduit.core.models import IdempotentCall, IdempotentReply
from usage import partitions, price_sync, representations, rotation_watch, status, stored_responses
from usage.verification import verify

logger = logging.getLogger("conduit.usage")
VERIFIED = timedelta(hours=48)
REPLIES_KEPT = timedelta(hours=24)


@shared_task(name="usage.tasks.ensure_partitions")  # type: ignore[untyped-decorator]  # Celery has no types
def ensure_partitions() -> None:
    """This month's and the next month's partition of usage_event. Safe to repeat."""
    for name in partitions.ensure_ahead():
        logger.info("partition %s made", name)


@shared_task(name="usage.tasks.sync_prices")  # type: ignore[untyped-decorator]  # Celery has no types
def sync_prices() -> None:
    """Brings catalogue prices up to the installed price data. Safe to repeat."""
    done = price_sync.sync_prices()
    logger.info("prices: %d models, %d changed", done.models, len(done.changes))


@shared_task(name="usage.tasks.verify_ledger")  # type: ignore[untyped-decorator]  # Celery has no types
def verify_ledger() -> None:
    """Checks the last two days and leaves the result in CONDUIT_HOME/run/ledger.json. Changes nothing."""
    found = verify(since=clock.now() - VERIFIED)
    for check in found.checks:
        if not check.ok:
            logger.error("ledger check %s: %d wrong, such as %s", check.name, check.wrong, check.examples[:1])
    path = settings.CONDUIT_HOME / "run" / "ledger.json"
    status.replace(path, {**representations.verification_body(found), "time": time.time()})


@shared_task(name="usage.tasks.drop_old_replies")  # type: ignore[untyped-decorator]  # Celery has no types
def drop_old_replies() -> None:
    """Idempotency-Key holds for a day."""
    before = clock.now() - REPLIES_KEPT
    dropped = sum(rows.objects.filter(created_at__lt=before).delete()[0] for rows in (IdempotentReply, IdempotentCall))
    if dropped:
        logger.info("%d idempotent replies dropped", dropped)


@shared_task(name="usage.tasks.drop_old_responses")  # type: ignore[untyped-decorator]  # Celery has no types
def drop_old_responses() -> None:
    """Stored answers of /v1/responses that are past CONDUIT_RESPONSES_RETENTION_DAYS. Safe to repeat."""
    if dropped := stored_responses.drop_old(settings.RESPONSES_RETENTION_DAYS):
        logger.info("%d stored responses dropped", dropped)


@shared_task(name="usage.tasks.watch_rotations")  # type: ignore[untyped-decorator]  # Celery has no types
def watch_rotations() -> None:
    """Moves automatic canaries on or back. One short query where there is none; safe to repeat."""
    rotation_watch.watch()
