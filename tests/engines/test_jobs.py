"""The embedded Celery worker with beat in one process, against real engines."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import redis


def test_worker_and_beat_share_one_process_and_stop_cleanly_on_sigterm(own_database: str, valkey_url: str) -> None:
    environment = {**os.environ, "DATABASE_URL": own_database}
    with redis.Redis.from_url(valkey_url) as valkey:
        valkey.delete("conduit:beat::lock")  # of a beat that another test killed
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "conduit.engines.jobs"], env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        with redis.Redis.from_url(valkey_url) as valkey:
            deadline = time.monotonic() + 60
            while not valkey.exists("conduit:beat::lock"):
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < deadline, "beat never took its lock"
                time.sleep(0.1)
        assert psutil.Process(process.pid).children(recursive=True) == []
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)
        assert process.returncode == 0
        assert "Traceback" not in err
    finally:
        process.kill()
        process.wait(10)
