"""Recurring work: secrets whose overlap is over, and what nodes that never return hold of budgets."""

from __future__ import annotations

import logging
from datetime import timedelta

from celery import shared_task
from django.conf import settings

from conduit.core.actor import SYSTEM
from conduit.core.errors import Conflict, NotFound
from conduit.core.money import format_usd
from keys import lost_workers, rotation, use

logger = logging.getLogger("conduit.keys")


@shared_task(name="keys.tasks.release_lost_workers")  # type: ignore[untyped-decorator]  # Celery has no types
def release_lost_workers() -> None:
    """Where CONDUIT_LOST_NODE is `release`: closes the leases of workers that were not seen for
    CONDUIT_LOST_NODE_AFTER hours while others were. Safe to repeat."""
    if settings.LOST_NODE != "release":
        return
    for worker in lost_workers.lost(timedelta(hours=settings.LOST_NODE_AFTER)):
        try:
            done = lost_workers.release(worker.id, actor=SYSTEM)
        except (Conflict, NotFound):
            continue  # seen again, or closed, since the list was read
        logger.warning(
            "worker %d of node %s is lost: $%s of its leases released", done.pid, done.node, format_usd(done.nanos)
        )


@shared_task(name="keys.tasks.end_overlaps")  # type: ignore[untyped-decorator]  # Celery has no types
def end_overlaps() -> None:
    """Destroys secrets whose overlap is over (they are refused from that moment on, with or without this) and forgets
    counts older than a day. Safe to repeat."""
    done = rotation.destroy_ended()
    use.forget_old()
    if done:
        logger.info("destroyed %d secrets of keys whose overlap is over", done)
