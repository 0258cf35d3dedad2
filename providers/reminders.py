"""What is due soon: secrets that expire, and secrets that are older than they should get.

reminders(at)      everything within 30 days, soonest first
remind(at)         logs each once per threshold; how many were logged
"""

from __future__ import annotations

import logging
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from django.conf import settings

from conduit.core.clock import rfc3339
from providers.credentials import active
from providers.models import Credential

THRESHOLDS = (0, 1, 7, 30)  # days before the end
logger = logging.getLogger("conduit.providers")


@dataclass(frozen=True, slots=True)
class Reminder:
    """`days`: the threshold that is reached, 0 when the end has passed. `ends`: of the secret, or of its proper age."""

    credential: Credential
    what: Literal["expires", "old"]
    days: int
    ends: datetime

    @property
    def key(self) -> str:
        return f"{self.what}:{self.days}:{self.ends:%Y-%m-%d}"


def reminders(at: datetime) -> list[Reminder]:
    """Of enabled credentials that have an active version, soonest end first."""
    rows = Credential.objects.filter(enabled=True, provider__enabled=True).select_related("provider")
    found = [reminder for row in rows.prefetch_related("versions") for reminder in _of(row, at)]
    return sorted(found, key=lambda reminder: (reminder.ends, reminder.credential.name))


def _of(credential: Credential, at: datetime) -> list[Reminder]:
    version = active(credential)
    if version is None:
        return []
    found = []
    if credential.expires_at is not None and (days := _threshold(credential.expires_at - at)) is not None:
        found.append(Reminder(credential, "expires", days, credential.expires_at))
    if settings.CREDENTIAL_MAX_AGE_DAYS:
        since = version.activated_at or version.created_at
        ends = since + timedelta(days=settings.CREDENTIAL_MAX_AGE_DAYS)
        if (days := _threshold(ends - at)) is not None:
            found.append(Reminder(credential, "old", days, ends))
    return found


def _threshold(left: timedelta) -> int | None:
    return next((days for days in THRESHOLDS if left <= timedelta(days=days)), None)


def remind(at: datetime) -> int:
    """Logs `credential_expires` and `credential_old` once for each threshold and end. Safe to run twice at once."""
    due: dict[Credential, list[Reminder]] = defaultdict(list)
    for reminder in reminders(at):
        due[reminder.credential].append(reminder)
    logged = 0
    for credential, found in due.items():
        known = credential.last_reminder
        keys = " ".join(reminder.key for reminder in found)
        # Whoever writes them first logs them.
        if keys == known or not Credential.objects.filter(pk=credential.pk, last_reminder=known).update(
            last_reminder=keys
        ):
            continue
        for reminder in found:
            if reminder.key not in known.split():
                _log(reminder)
                logged += 1
    return logged


def _log(reminder: Reminder) -> None:
    credential = reminder.credential
    words = {
        "credential": credential.name,
        "provider": credential.provider.name,
        "days": reminder.days,
        "ends": rfc3339(reminder.ends),
    }
    logger.warning("credential_%s", reminder.what, extra=words)
