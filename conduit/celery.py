"""The Celery application and the one list of what runs when. A task lives in its app's `tasks` module."""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "conduit.settings")

from celery import Celery  # noqa: E402 (Django's settings module must be named first)
from celery.schedules import crontab  # noqa: E402
from celery.signals import setup_logging  # noqa: E402
from django.conf import settings  # noqa: E402

from conduit.core.logs import configure  # noqa: E402

# {"name": {"task": "usage.tasks.f", "schedule": seconds or crontab(...)}}; any number of beats is safe (redbeat locks).
SCHEDULE: dict[str, dict[str, Any]] = {
    "verify-credentials": {"task": "providers.tasks.verify_credentials", "schedule": crontab(hour="4", minute="17")},
    "sync-catalogue": {"task": "providers.tasks.sync_catalogue", "schedule": crontab(hour="4", minute="47")},
    "ensure-partitions": {"task": "usage.tasks.ensure_partitions", "schedule": crontab(hour="0", minute="7")},
    "sync-prices": {"task": "usage.tasks.sync_prices", "schedule": crontab(hour="4", minute="52")},
    "verify-ledger": {"task": "usage.tasks.verify_ledger", "schedule": crontab(minute="23")},
    "release-lost-workers": {"task": "keys.tasks.release_lost_workers", "schedule": crontab(minute="*/10")},
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
