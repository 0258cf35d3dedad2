"""Recurring work on providers: are credentials still taken, which end, is the catalogue up to date."""

from __future__ import annotations

import logging

from celery import shared_task
from django.db.models import Q

from conduit.core.actor import SYSTEM
from conduit.core.clock import now
from conduit.core.errors import Conflict, NotFound
from providers import catalogue_sync, credentials, reminders, rotation, vault
from providers.models import Credential
from providers.verification import VerificationFailed

logger = logging.getLogger("conduit.providers")


@shared_task(name="providers.tasks.verify_credentials")  # type: ignore[untyped-decorator]  # Celery has no types
def verify_credentials() -> None:
    """Calls each provider once per enabled, unexpired credential and notes the outcome. Daily; safe to repeat."""
    due = Credential.objects.filter(Q(expires_at=None) | Q(expires_at__gt=now()), enabled=True, provider__enabled=True)
    for credential in due.select_related("provider").order_by("id"):
        try:
            credentials.verify(credential, actor=SYSTEM)
        except (VerificationFailed, vault.Unreadable) as trouble:
            logger.warning("credential %s of %s fails: %s", credential.name, credential.provider.name, trouble)
        except (Conflict, NotFound):
            continue  # deleted, or without an active version, since the list was read


@shared_task(name="providers.tasks.sync_catalogue")  # type: ignore[untyped-decorator]  # Celery has no types
def sync_catalogue() -> None:
    """Brings the catalogue up to the installed price data. Safe to repeat."""
    done = catalogue_sync.sync_models()
    logger.info("catalogue: %d models added, %d changed, %d retired", done.added, done.changed, done.retired)


@shared_task(name="providers.tasks.finish_rotations")  # type: ignore[untyped-decorator]  # Celery has no types
def finish_rotations() -> None:
    """Destroys old secrets whose overlap is over. Each minute; safe to repeat."""
    if done := rotation.retire_due():
        logger.info("%d rotations finished", done)


@shared_task(name="providers.tasks.remind")  # type: ignore[untyped-decorator]  # Celery has no types
def remind() -> None:
    """Logs what expires or grows old, once per threshold. Daily; safe to repeat."""
    reminders.remind(now())
