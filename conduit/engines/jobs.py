"""The one Celery worker of an embedded installation, with beat in a thread of the same process.

A scaled installation runs `celery -A conduit worker` and `celery -A conduit beat` instead, any number of each.
"""

from __future__ import annotations

import gc
import sys
import warnings

import django
from celery.beat import EmbeddedService
from celery.platforms import SecurityWarning
from celery.signals import worker_ready, worker_shutting_down

from conduit.celery import app
from conduit.core.errors import ConfigurationError
from conduit.core.logs import configure

CONCURRENCY = 2


def main() -> int:
    configure()
    # Its reason, unpickling foreign messages as root, does not apply: only JSON is accepted.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    try:
        django.setup()
    except ConfigurationError as error:
        sys.stderr.write(f"conduit: {error}\n")
        return 1
    # As a thread: Celery's own --beat would fork a second process of the same size.
    beat = EmbeddedService(app, thread=True, scheduler_cls=app.conf.beat_scheduler)

    @worker_ready.connect(weak=False)  # type: ignore[untyped-decorator]
    def _start(**_: object) -> None:
        beat.start()
        gc.collect()
        gc.freeze()

    @worker_shutting_down.connect(weak=False)  # type: ignore[untyped-decorator]
    def _stop(**_: object) -> None:
        if beat.is_alive():
            beat.stop()

    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    app.worker_main(["--quiet", "worker", "--pool=threads", f"--concurrency={CONCURRENCY}", *quiet])
    return 0


if __name__ == "__main__":
    sys.exit(main())
