"""The shipper process: `python -m usage.shipper`, one per node, started by `conduit up`. SIGTERM drains, then exits."""

from __future__ import annotations

import os
import signal
import sys

import django

from conduit.core import logs


def main() -> int:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "conduit.settings")
    logs.configure()
    django.setup()
    # Models cannot be imported before the set-up.
    from django.conf import settings  # noqa: PLC0415

    from usage.node import node_id  # noqa: PLC0415
    from usage.shipping import Shipper  # noqa: PLC0415

    os.nice(5)  # requests go first
    directory = settings.JOURNAL_DIR
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    shipper = Shipper(directory, node_id(), status_file=settings.CONDUIT_HOME / "run" / "shipper.json")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, shipper.stop)
    return shipper.run()


if __name__ == "__main__":
    sys.exit(main())
