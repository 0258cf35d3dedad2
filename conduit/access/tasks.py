"""Recurring work on the audit log: is it whole, and a checkpoint outside the database."""

from __future__ import annotations

import logging

from celery import shared_task

from conduit.access import audit_log
from conduit.core import audit_chain

logger = logging.getLogger("conduit.audit")


@shared_task(name="conduit.access.tasks.verify_audit")  # type: ignore[untyped-decorator]  # Celery has no types
def verify_audit() -> None:
    """Verifies the whole log, keeps the outcome for the console, and writes a checkpoint when it is intact."""
    found = audit_log.verify_and_keep()
    for note in found.notes:
        logger.warning("audit log: %s", note)
    if found.fault is not None:
        logger.error("audit log broken at entry %d (%s): %s", found.fault.number, found.fault.kind, found.fault.detail)
        return
    audit_chain.checkpoint()
