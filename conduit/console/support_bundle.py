"""The support bundle: what somebody who helps needs to know about an installation, and nothing that must stay here.

It is put together from named figures only, never by copying rows, files or the environment: what is not listed here
cannot slip in. No address, no name of a person, no text of requests or errors, no secret in any form.
"""

from __future__ import annotations

import platform
import sys
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder
from django.db.models import Count

from conduit.console import installation
from conduit.console.context import VERSION
from conduit.core.actor import Actor
from conduit.core.clock import now, rfc3339
from conduit.core.money import format_usd
from keys import live_leases
from keys.models import Team, VirtualKey, Worker
from providers.models import Credential, Provider, Route
from usage import uncertain

MOST = 1_000
# Settings that say how it runs and not where or by which secret.
TOLD = (
    "CONDUIT_WORKERS",
    "CONDUIT_DATABASE_GRACE",
    "JOURNAL_FSYNC",
    "MAX_BODY_BYTES",
    "LOST_NODE",
    "LOST_NODE_AFTER",
    "EMBEDDED_DATABASE",
    "EMBEDDED_VALKEY",
    "CONDUIT_SANDBOX",
    "LOG_LEVEL",
    "DEBUG",
)


def bundle(actor: Actor) -> dict[str, Any]:
    """JSON values only. Leases and uncertain attempts are those that the actor may see."""
    valkey, jobs = installation.valkey()
    workers = list(Worker.objects.order_by("-seen_at")[:MOST])
    found = live_leases.live(actor)
    attempts = uncertain.open_attempts(actor)
    sums = uncertain.sums(attempts)
    leases = live_leases.lease_bodies(live_leases.largest(found, MOST), actor)
    for lease in leases:
        lease["owner"].pop("name")  # names are people's own words: a customer's may be somebody's address
    body = {
        "made_at": now(),
        "conduit": {
            "version": VERSION,
            "python": platform.python_version(),
            "system": f"{sys.platform} {platform.machine()}",
        },
        "settings": {name.lower(): getattr(settings, name) for name in TOLD},
        "node": installation.node(),
        "engines": [asdict(installation.postgres()), asdict(valkey)],
        "migrations": _migrations(),
        "jobs": asdict(jobs) if jobs else None,
        "journal": asdict(installation.journal()),
        "shipper": asdict(installation.shipping()),
        "ledger": asdict(installation.ledger()),
        "workers": live_leases.worker_bodies(workers, actor),
        "leases": leases,
        "uncertain": {
            "attempts": sums.attempts,
            "held_usd": format_usd(sums.held_nanos),
            "newest": [_attempt(row) for row in uncertain.newest(attempts, MOST)],
        },
        "rows": _rows(),
    }
    plain: dict[str, Any] = _plain(body)
    return plain


def _attempt(row: Any) -> dict[str, Any]:
    return {
        "id": str(row.id),
        "time": rfc3339(row.time),
        "held_usd": format_usd(row.held_nanos),
        "reason": row.reason,
        "node": row.node,
    }


def _migrations() -> dict[str, str]:
    """App → the last migration that was applied."""
    ours = ("core", "access", "providers", "keys", "usage")
    rows = MigrationRecorder(connection).migration_qs.filter(app__in=ours).order_by("name")
    return dict(rows.values_list("app", "name"))


def _rows() -> dict[str, Any]:
    kinds = Provider.objects.order_by("kind").values_list("kind").annotate(number=Count("id"))
    states = VirtualKey.objects.order_by("state").values_list("state").annotate(number=Count("id"))
    return {
        "providers": dict(kinds),
        "keys": dict(states),
        "credentials": Credential.objects.count(),
        "routes": Route.objects.count(),
        "teams": Team.objects.count(),
    }


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _plain(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(member) for member in value]
    if isinstance(value, datetime):
        return rfc3339(value)
    return value.total_seconds() if isinstance(value, timedelta) else value
