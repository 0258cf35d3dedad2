"""The supervisor of `conduit up`: starts everything in order, restarts what dies, stops everything in order.

One thread, no Django: it stays for the life of the installation. Order of start: engines, preparation (migrations,
static files, first run), web and sandbox until ready, then jobs and shipper. Order of stop: web drains first, so that
the shipper can ship all of it; the engines go last.
"""

from __future__ import annotations

import errno
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

from conduit import settings
from conduit.core.errors import ConfigurationError
from conduit.engines.home import Home
from conduit.engines.postgres import Postgres
from conduit.engines.processes import Child, Program, kill_group, spawn
from conduit.engines.valkey import Valkey

READY_SECONDS = 60.0
DRAIN_SECONDS = 30.0
Engine = Postgres | Valkey


class StopRequested(Exception):  # noqa: N818 (it is no error)
    """SIGTERM, SIGINT or SIGHUP came. Raised by `Supervisor.check_stop` alone: an exception out of a signal handler
    could fall into the middle of anything, such as subprocess holding the lock of a child."""


def _python(module: str, *arguments: str) -> list[str]:
    """-P: the directory that the command was given in never shadows a module."""
    return [sys.executable, "-P", "-m", module, *arguments]


def children(listener: int) -> list[list[Program]]:
    """The programs to supervise, in the order in which they are stopped; the programs of one row stop together.

    `listener` is the descriptor of the socket that all web processes accept from.
    """
    base = settings.BASE_DIR
    figures = {"PROMETHEUS_MULTIPROC_DIR": str(_empty(settings.CONDUIT_HOME / "run" / "metrics"))}
    serve = _python("conduit.engines.web", str(listener))
    web = [
        Program(f"web-{number}", serve, base, sockets=(listener,), environment=figures)
        for number in range(1, settings.CONDUIT_WORKERS + 1)
    ]
    rows = [
        web,
        [Program("jobs", _python("conduit.engines.jobs"), base, background=True)],
        [Program("shipper", _python("usage.shipper"), base, background=True)],
    ]
    if settings.CONDUIT_SANDBOX:
        invoice = settings.CONDUIT_HOME / "sandbox" / "invoice.jsonl"
        invoice.parent.mkdir(mode=0o700, exist_ok=True)
        argv = _python("providers.sandbox", "--port", str(settings.SANDBOX_PORT), "--invoice", str(invoice))
        rows.append([Program("sandbox", argv, base)])
    return rows


def _empty(folder: Path) -> Path:
    """Counters of an earlier start must not be added to this one's."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    return folder


@dataclass(frozen=True)
class Plan:
    """What a supervisor runs besides the engines: the module that prepares, and the programs for a listening socket."""

    preparation: str = "conduit.engines.preparation"
    programs: Callable[[int], list[list[Program]]] = children


class Supervisor:
    """One run of `conduit up` on one data directory."""

    def __init__(self, home: Home, plan: Plan) -> None:
        self.home, self.plan = home, plan
        self.engines: list[Engine] = []
        self.rows: list[list[Child]] = []
        self.listener: socket.socket | None = None
        self.wakeup = socket.socketpair()  # a signal writes, `watch` sleeps on the other end
        self.stop_requested = False

    def listen_to_signals(self) -> None:
        """From now on SIGTERM, SIGINT and SIGHUP ask for an orderly stop; they and SIGCHLD wake `watch`."""
        for side in self.wakeup:
            side.setblocking(False)
        signal.set_wakeup_fd(self.wakeup[1].fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._request_stop)

    def _request_stop(self, number: int, frame: FrameType | None) -> None:
        self.stop_requested = True

    def check_stop(self) -> None:
        if self.stop_requested:
            raise StopRequested

    def start(self) -> list[str]:
        """Brings everything up; returns the lines to print. Raises ConfigurationError."""
        self._take_ports()
        self._start_engines()
        lines = self._prepare()
        if self.listener is None:
            raise ConfigurationError("the listening socket is gone")
        self.rows = [[Child(program) for program in row] for row in self.plan.programs(self.listener.fileno())]
        # What a request needs goes first and has the processor to itself; the background work follows.
        for child in self._all():
            if not child.program.background:
                child.start()
        self._await_ready()
        for child in self._all():
            if child.program.background:
                child.start()
        return lines

    def _take_ports(self) -> None:
        self.listener = _listen(settings.CONDUIT_HOST, settings.CONDUIT_PORT, "CONDUIT_PORT")
        os.set_inheritable(self.listener.fileno(), False)
        if settings.CONDUIT_SANDBOX:
            if settings.SANDBOX_PORT == settings.CONDUIT_PORT:
                raise ConfigurationError(
                    "CONDUIT_PORT leaves no port for the sandbox provider. Set CONDUIT_SANDBOX_PORT."
                )
            _listen("127.0.0.1", settings.SANDBOX_PORT, "CONDUIT_SANDBOX_PORT").close()

    def _start_engines(self) -> None:
        self.home.forget_engines()
        sockets = self.home.socket_dir()
        # Written before the first engine starts, so that a killed start leaves a trace of its socket directory.
        urls: dict[str, str] = {}
        if settings.EMBEDDED_VALKEY:
            valkey = Valkey(sockets, self.home.logs / "valkey.log")
            urls["valkey_url"] = valkey.url
            self.engines.append(valkey)
        if settings.EMBEDDED_DATABASE:
            postgres = Postgres(self.home.postgres, sockets, self.home.logs / "postgres.log")
            urls["database_url"] = postgres.url
            self.engines.append(postgres)
        self.home.write_engines(urls, sockets)
        for engine in self.engines:
            self.check_stop()
            engine.start()

    def _prepare(self) -> list[str]:
        """Migrations, static files and the first run, in a process that is gone before the long-lived ones start."""
        argv = _python(self.plan.preparation)
        program = Program("preparation", argv, settings.BASE_DIR, stop=signal.SIGKILL)
        process = spawn(program, capture=True)
        with process:
            try:
                while process.poll() is None:  # its few lines fit into the pipe
                    self.check_stop()
                    time.sleep(0.02)
            except StopRequested:
                kill_group(process)
                raise
            if process.returncode or process.stdout is None:
                raise ConfigurationError("the preparation failed; its reason is above.")
            lines: list[str] = json.loads(process.stdout.read().splitlines()[-1])
            return lines

    def _await_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        host = "127.0.0.1" if settings.CONDUIT_HOST in ("0.0.0.0", "::") else settings.CONDUIT_HOST  # noqa: S104
        answer = "nothing"
        while time.monotonic() < deadline:
            self.check_stop()
            for child in self._all():
                if (status := child.exited()) is not None:
                    raise ConfigurationError(
                        f"{child.program.name} ended while starting (status {status}); its reason is above."
                    )
            answer = _readiness(host, settings.CONDUIT_PORT)
            if answer == "200":
                return
            time.sleep(0.03)
        raise ConfigurationError(
            f"not ready after {READY_SECONDS:.0f} seconds: /readyz answered {answer}. See the lines above."
        )

    def _all(self) -> list[Child]:
        return [child for row in self.rows for child in row]

    def watch(self) -> NoReturn:
        """Restarts what dies until StopRequested."""
        reader = self.wakeup[0]
        while True:
            self.check_stop()
            self._restart_engines()
            due = [self._mind(child) for child in self._all()]
            readable, _, _ = select.select([reader], [], [], min([5.0, *due]))
            if readable:
                reader.recv(4096)

    def _mind(self, child: Child) -> float:
        """Restarts the child when its time has come; returns seconds until it wants attention again."""
        if (status := child.exited()) is not None:
            delay = child.plan_restart()
            _say(f"{child.program.name} ended (status {status}); starting it again in {delay:.1f} s")
        if child.process is not None:
            return 5.0
        wait = child.due - time.monotonic()
        if wait <= 0:
            child.start()
            return 5.0
        return wait

    def _restart_engines(self) -> None:
        for engine in self.engines:
            if engine.process is not None and engine.process.poll() is not None:
                _say(f"{engine.name} ended (status {engine.process.returncode}); starting it again")
                engine.start()

    def stop(self) -> None:
        """Ends everything in order. Web processes get their drain time; the rest is quick."""
        if self.listener is not None:
            self.listener.close()  # with the web processes' copies gone, new connections are refused
        for position, row in enumerate(self.rows):
            _stop_together(
                [child for child in row if child.process is not None], DRAIN_SECONDS + 5 if position == 0 else 15.0
            )
        for engine in self.engines:
            engine.stop()
        self.home.forget_engines()


def _stop_together(row: Sequence[Child], seconds: float) -> None:
    running = [(child, child.process) for child in row if child.process is not None]
    for child, process in running:
        if process.poll() is None:
            process.send_signal(child.program.stop)
    deadline = time.monotonic() + seconds
    for child, process in running:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            _say(f"{child.program.name} did not end within {seconds:.0f} s; killed")
            kill_group(process)


def _listen(host: str, port: int, variable: str) -> socket.socket:
    """A listening socket. A killed run's processes may hold the port for a moment, so a busy port is tried for 1 s."""
    deadline = time.monotonic() + 1
    while True:
        try:
            return socket.create_server(
                (host, port), backlog=2048, family=socket.AF_INET6 if ":" in host else socket.AF_INET
            )
        except OSError as error:
            if time.monotonic() < deadline and error.errno == errno.EADDRINUSE:
                time.sleep(0.1)
                continue
            raise ConfigurationError(
                f"{host} port {port} cannot be used ({os.strerror(error.errno or 0)}). "
                f"Stop what listens there or set {variable}."
            ) from error


def _readiness(host: str, port: int) -> str:
    """The status code of GET /readyz, or what went wrong."""
    try:
        with socket.create_connection((host, port), timeout=2) as client:
            client.sendall(f"GET /readyz HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n".encode())
            return client.recv(64).split(b" ")[1].decode("ascii", "replace")
    except (OSError, IndexError) as error:
        return str(error) or type(error).__name__


def _say(text: str) -> None:
    sys.stderr.write(f"conduit up: {text}\n")
    sys.stderr.flush()


def main(plan: Plan = Plan()) -> int:  # noqa: B008 (frozen)
    """Runs until a signal. Returns 0 after an orderly stop, 1 when it could not start."""
    home = Home(Path(settings.CONDUIT_HOME))
    try:
        home.create()
        lock = home.lock()
    except ConfigurationError as error:
        _say(str(error))
        return 1
    supervisor = Supervisor(home, plan)
    supervisor.listen_to_signals()
    try:
        home.generate_secrets(os.environ)
        for line in supervisor.start():
            print(line, flush=True)  # noqa: T201 (the contract's lines on standard output)
        supervisor.watch()
    except StopRequested:
        return 0
    except ConfigurationError as error:
        _say(str(error))
        return 1
    finally:
        signal.set_wakeup_fd(-1)
        supervisor.stop()
        os.close(lock)
