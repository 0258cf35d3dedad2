"""The Celery application and the one list of what runs when. A task lives in its app's `tasks` module."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "conduit.settings")

from celery import Celery  # noqa: E402 (Django's settings module must be named first)
from celery.schedules import crontab  # noqa: E402
from celery.signals import (  # noqa: E402
    setup_logging,
    worker_process_init,
    worker_process_shutdown,
    worker_ready,
    worker_shutdown,
)
from django.conf import settings  # noqa: E402

from conduit.core.logs import configure  # noqa: E402

_reports: list[Callable[[], None]] = []

# {"name": {"task": "usage.tasks.f", "schedule": seconds or crontab(...)}}; any number of beats is safe (redbeat locks).
SCHEDULE: dict[str, dict[str, Any]] = {
    "verify-credentials": {"task": "providers.tasks.verify_credentials", "schedule": crontab(hour="4", minute="17")},
    "sync-catalogue": {"task": "providers.tasks.sync_catalogue", "schedule": crontab(hour="4", minute="47")},
    "finish-rotations": {"task": "providers.tasks.finish_rotations", "schedule": 60.0},
    "remind": {"task": "providers.tasks.remind", "schedule": crontab(hour="5", minute="7")},
    "watch-rotations": {"task": "usage.tasks.watch_rotations", "schedule": 5.0},
    "ensure-partitions": {"task": "usage.tasks.ensure_partitions", "schedule": crontab(hour="0", minute="7")},
    "sync-prices": {"task": "usage.tasks.sync_prices", "schedule": crontab(hour="4", minute="52")},
    "verify-ledger": {"task": "usage.tasks.verify_ledger", "schedule": crontab(minute="23")},
    "release-lost-workers": {"task": "keys.tasks.release_lost_workers", "schedule": crontab(minute="*/10")},
    "verify-audit": {"task": "conduit.access.tasks.verify_audit", "schedule": crontab(minute="11")},
    "end-overlaps": {"task": "keys.tasks.end_overlaps", "schedule": crontab()},
    "rewrap-keys": {"task": "core.tasks.rewrap_keys", "schedule": 60.0},
    "drop-old-responses": {"task": "usage.tasks.drop_old_responses", "schedule": crontab(minute="53")},
    "drop-old-replies": {"task": "usage.tasks.drop_old_replies", "schedule": crontab(minute="41")},
}


def broker_url(url: str) -> str:
    """VALKEY_URL as Celery spells it: redis-py says unix://PATH?db=N, Celery redis+socket://PATH?virtual_host=N."""
    if not url.startswith("unix://"):
        return url
    return url.replace("unix://", "redis+socket://", 1).replace("?db=", "?virtual_host=", 1)


app = Celery("conduit")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.conf.update(
    broker_url=broker_url(settings.VALKEY_URL),
    beat_scheduler="redbeat.RedBeatScheduler",
    beat_schedule=SCHEDULE,
    beat_max_loop_interval=10,
    redbeat_lock_timeout=60,  # a killed beat is replaced within a minute
    redbeat_redis_url=settings.VALKEY_URL,  # under a namespace redbeat misses the setting
    redbeat_key_prefix="conduit:beat:",
    task_default_queue="conduit",
    timezone="UTC",
)
app.autodiscover_tasks(["conduit.core", "conduit.access", "providers", "keys", "usage", "conduit.console"])


@setup_logging.connect  # type: ignore[untyped-decorator]
def _logging(**_: object) -> None:
    """Celery leaves logging alone when this is connected."""
    configure()


@worker_process_init.connect  # type: ignore[untyped-decorator]
def _report(**_: object) -> None:
    """Each process that runs tasks says which key-encryption keys it holds."""
    from conduit.core import live  # noqa: PLC0415 (models: after Django's setup)
    from usage.node import node_id  # noqa: PLC0415

    _reports.append(live.keep_reporting("jobs", node_id()))


@worker_ready.connect  # type: ignore[untyped-decorator]
def _report_alone(sender: Any, **_: object) -> None:
    """A worker whose tasks run in threads of its own process. One that forks has none: a fork would inherit it."""
    if "prefork" not in type(sender.pool).__module__:
        _report()


@worker_process_shutdown.connect  # type: ignore[untyped-decorator]
@worker_shutdown.connect  # type: ignore[untyped-decorator]
def _leave(**_: object) -> None:
    while _reports:
        _reports.pop()()
