"""`conduit up` that can be killed, stopped and started again on the same data directory."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg

from tests.console.running import ROOT
from tests.harness.gateway import wait_for
from tests.harness.invoice import Billed, read_invoice
from tests.harness.ports import free_port

READY = 180.0  # seconds: longer than it waits itself before it says what is amiss


@dataclass
class Installation:
    """One CONDUIT_HOME. `first` has what the first start printed, by its label; `out` and `err` are of all starts."""

    folder: Path  # short: UNIX sockets end at 107 bytes
    workers: int = 2
    process: subprocess.Popen[bytes] | None = None
    first: dict[str, str] = field(default_factory=dict)
    token: str = ""

    def __post_init__(self) -> None:
        port, sandbox_port = free_port(), free_port()
        ours = ("CONDUIT_", "DATABASE_", "VALKEY_", "COV_")
        kept = {name: text for name, text in os.environ.items() if not name.startswith(ours)}
        self.url, self.sandbox = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{sandbox_port}"
        self.home, self.out, self.err = self.folder / "home", self.folder / "out", self.folder / "err"
        self.environment = kept | {
            "CONDUIT_HOME": str(self.home),
            "CONDUIT_PORT": str(port),
            "CONDUIT_SANDBOX_PORT": str(sandbox_port),
            "CONDUIT_WORKERS": str(self.workers),
            "CONDUIT_EGRESS_ALLOW": "127.0.0.1",
            "CONDUIT_METRICS_TOKEN": secrets.token_hex(16),
            "DJANGO_SETTINGS_MODULE": "conduit.settings",
            "PYTHONPATH": str(ROOT),
        }

    # --- life

    def up(self) -> None:
        """Starts it unless it runs, and returns when it serves."""
        if self.process is not None:
            return
        with self.out.open("ab") as out, self.err.open("ab") as err:
            command = [sys.executable, "-P", "-m", "conduit.cli", "up"]
            self.process = subprocess.Popen(
                command, cwd="/", env=self.environment, stdout=out, stderr=err, process_group=0
            )
        wait_for(self._ready, READY)
        if not self.first:
            wait_for(lambda: "curl " in self.out.read_text())
            lines = self.out.read_text().splitlines()
            self.first = dict(line.split(": ", 1) for line in lines if re.match(r"[a-z]+: ", line))
            self.token = self.command("tokens", "create", "--name", "tests", "--role", "owner").strip()

    def _ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.err.read_text()[-3000:]
        with suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/readyz", trust_env=False, verify=False).status_code == 200
        return False

    def processes(self) -> list[psutil.Process]:
        """The supervisor and everything below it."""
        assert self.process is not None
        own = psutil.Process(self.process.pid)
        return [own, *own.children(recursive=True)]

    def kill(self) -> None:
        """SIGKILL to every process of it at once: engines, web, shipper, jobs and sandbox."""
        assert self.process is not None
        found = self.processes()
        for one in found:
            with suppress(psutil.NoSuchProcess):
                one.suspend()  # nobody may react to another's death
        for one in found:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        self.process.wait(10)
        self.process = None
        _, alive = psutil.wait_procs(found, 10)
        assert not alive

    def terminate(self) -> None:
        """SIGTERM to the supervisor; does not wait."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)

    def ended(self, seconds: float = 60) -> int:
        """The exit status, once it has ended by itself."""
        assert self.process is not None
        status = self.process.wait(seconds)
        self.process = None
        return status

    # --- looking at it

    def run(self, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
        """A `conduit` command on this installation."""
        return subprocess.run(
            [sys.executable, "-P", "-m", "conduit.cli", *arguments],
            cwd=ROOT,
            env=self.environment,
            input=text,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def command(self, *arguments: str, text: str = "") -> str:
        done = self.run(*arguments, text=text)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    def api(self, method: str, path: str, body: Any = None) -> httpx.Response:
        return httpx.request(
            method,
            f"{self.url}/api/v1{path}",
            json=body,
            headers={"authorization": f"Bearer {self.token}"},
            timeout=60,
            trust_env=False,
            verify=False,
        )

    def made(self, path: str, body: Any) -> dict[str, Any]:
        answer = self.api("POST", path, body)
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made

    def events(self, query: str = "") -> list[dict[str, Any]]:
        """All usage events that the management API shows."""
        found: list[dict[str, Any]] = []
        cursor = ""
        while True:
            answer = self.api("GET", f"/usage/events?limit=200{query}{cursor}")
            assert answer.status_code == 200, answer.text
            found += answer.json()["data"]
            if not answer.json()["next"]:
                return found
            cursor = f"&cursor={answer.json()['next']}"

    def invoice(self) -> dict[str, Billed]:
        """What the sandbox billed, by our attempt id."""
        path = self.home / "sandbox" / "invoice.jsonl"
        return {name: billed for name, billed in read_invoice(path).items() if name is not None}

    def database(self) -> psycopg.Connection[Any]:
        """A connection of our own to the embedded PostgreSQL."""
        return psycopg.connect(json.loads((self.home / "run" / "engines.json").read_text())["database_url"])

    def know_all(self) -> None:
        """Returns once every web process serves by what was configured so far; each tells with its heartbeat."""
        current = """
            SELECT count(*) FILTER (WHERE process.snapshot >= epoch.snapshot)
            FROM core_liveprocess process, core_epoch epoch
            WHERE process.kind = 'web' AND process.seen_at > now() - interval '15 seconds'
        """

        def told() -> bool:
            with self.database() as session:
                row = session.execute(current).fetchone()
            return row is not None and row[0] >= self.workers

        wait_for(told, 60)

    def verified(self) -> None:
        done = self.run("ledger", "verify")
        assert done.returncode == 0, done.stdout + done.stderr

    def settle(self, request_ids: set[str]) -> list[dict[str, Any]]:
        """All events, once each of these requests and everything on the invoice has one."""
        found: list[dict[str, Any]] = []

        def there() -> bool:
            found[:] = self.events()
            missing = request_ids - {event["request_id"] for event in found}
            return not missing and not self.invoice().keys() - {event["id"] for event in found}

        deadline = time.monotonic() + 90  # after a start its shipper comes last
        while not there():
            missing = request_ids - {event["request_id"] for event in found}
            unknown = self.invoice().keys() - {event["id"] for event in found}
            assert time.monotonic() < deadline, f"no event for {sorted(missing)[:5]}, for billed {sorted(unknown)[:5]}"
            time.sleep(0.2)
        return found


@contextmanager
def installation(workers: int = 2) -> Iterator[Installation]:
    """A fresh one, running. Whatever a test did to it, nothing is left."""
    one = Installation(Path(tempfile.mkdtemp(prefix="cdt-e2e-")), workers)
    try:
        one.up()
        yield one
        if one.process is not None:
            one.terminate()
            assert one.ended() == 0, one.err.read_text()[-3000:]
    finally:
        if one.process is not None:
            one.kill()
        shutil.rmtree(one.folder, ignore_errors=True)
