"""Ports for processes that are told theirs, and may be started on them again.

Below the range that the system gives to connections (32768 and more on Linux): one of the thousands that tests open
would keep a process from listening if it got the port between the choice and the start.
"""

from __future__ import annotations

import os
import random
import re
import socket
from collections.abc import Iterator
from contextlib import suppress

FIRST, OF_EACH_WORKER, WORKERS = 20_000, 750, 16


def _ports() -> Iterator[int]:
    """This worker's, from a random one on, so that runs beside each other seldom meet."""
    worker = int(re.sub(r"\D", "", os.environ.get("PYTEST_XDIST_WORKER", "")) or WORKERS - 1) % WORKERS
    number = random.randrange(OF_EACH_WORKER)
    while True:
        number = (number + 1) % OF_EACH_WORKER
        yield FIRST + worker * OF_EACH_WORKER + number


_next = _ports()


def free_port() -> int:
    """A port that nothing listens on, and that this worker is not told again soon."""
    while True:
        with socket.socket() as probe, suppress(OSError):
            port = next(_next)
            probe.bind(("127.0.0.1", port))
            return port
