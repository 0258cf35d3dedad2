"""Recurring work of the kernel: what a change of key-encryption keys has left."""

from __future__ import annotations

import logging
import time

from celery import shared_task
from django.db import connection

from conduit.core import keks

WORK_SECONDS = 45.0  # of the minute between two runs; the next one goes on
_LOCK = 0x72657772  # of PostgreSQL's advisory locks: one run at a time
logger = logging.getLogger("conduit.core")


@shared_task(name="core.tasks.rewrap_keys")  # type: ignore[untyped-decorator]  # Celery has no types
def rewrap_keys() -> None:
    """Goes on with a rotation that was interrupted, and takes what a process a step behind wrote. Safe to repeat."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [_LOCK])
        if not cursor.fetchone()[0]:
            return  # the run before, perhaps on another node, is at it still
        try:
            done = keks.resume(until=time.monotonic() + WORK_SECONDS)
        finally:
            cursor.execute("SELECT pg_advisory_unlock(%s)", [_LOCK])
    if done is None:
        return
    logger.info("%d wrapped keys lie under %s, %d do not yet", done.progress.done, done.progress.to, done.progress.left)
    for row in done.unopened[:10]:
        logger.error("%s %s does not open: %s", row.table, row.id, row.reason)
