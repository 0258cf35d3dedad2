"""Looks at a running installation from outside, while it works and at its end: what Valkey is told and keeps, what
PostgreSQL announces and executes, what the list of processes shows, what the tables hold."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import redis

from conduit.engines.postgres import binaries
from tests.end_to_end.installation import Installation

EVERY = 0.1  # seconds
DATABASES = 16


class Watcher:
    """Collects from its own threads until it is closed: kinds of places by name, for the search."""

    def __init__(self, conduit: Installation) -> None:
        self.conduit = conduit
        self.commands = bytearray()
        self.announced: list[str] = []
        self.statements: set[str] = set()
        self.processes: dict[str, bytes] = {}
        self.environments: dict[str, bytes] = {}
        self.cores: dict[str, str] = {}
        self._ended = threading.Event()
        self._listening = threading.Barrier(3)  # Valkey's and PostgreSQL's, and who starts them
        self._threads = [threading.Thread(target=one) for one in (self._valkey, self._postgres, self._tree)]

    def start(self) -> None:
        """Nothing that happens from here on is missed."""
        for thread in self._threads:
            thread.start()
        self._listening.wait(20)

    def close(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()

    def _valkey(self) -> None:
        """MONITOR tells every command of every client with its arguments: counters, queue, schedule, results."""
        path = _engines(self.conduit)["valkey_url"].removeprefix("unix://").partition("?")[0]
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            client.sendall(b"MONITOR\r\n")
            self.commands += client.recv(1 << 20)  # it says that it begins
            self._listening.wait(20)
            client.settimeout(EVERY)
            while not self._ended.is_set():
                with suppress(TimeoutError):
                    self.commands += client.recv(1 << 20)

    def _postgres(self) -> None:
        with self.conduit.database() as connection:
            connection.autocommit = True
            connection.execute("LISTEN conduit")
            self._listening.wait(20)
            while not self._ended.is_set():
                self.announced += [notice.payload for notice in connection.notifies(timeout=EVERY)]
                self.statements |= {row[0] for row in connection.execute("SELECT query FROM pg_stat_activity")}

    def _tree(self) -> None:
        while not self._ended.wait(5 * EVERY):
            for one in self.conduit.processes():
                # gone before its limits are opened, or before they are read
                with suppress(psutil.NoSuchProcess, psutil.AccessDenied, FileNotFoundError, ProcessLookupError):
                    name = f"{one.pid} {one.name()}"
                    self.processes[name] = " ".join(one.cmdline()).encode()
                    self.environments[name] = json.dumps(one.environ()).encode()
                    self.cores[name] = _largest_core(one.pid)


def _largest_core(pid: int) -> str:
    """The soft limit of a core file's size, as the kernel tells it of any process, whoever's it is."""
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("Max core file size")]
    return line.removeprefix("Max core file size").split()[0]


@contextmanager
def watched(conduit: Installation) -> Iterator[Watcher]:
    watcher = Watcher(conduit)
    try:
        watcher.start()
        yield watcher
    finally:
        watcher.close()


def _engines(conduit: Installation) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((conduit.home / "run" / "engines.json").read_text())
    return told


def tables(conduit: Installation) -> dict[str, bytes]:
    """Every table of the database as text, `bytea` in hexadecimal."""
    named = "SELECT quote_ident(schemaname) || '.' || quote_ident(tablename) FROM pg_tables WHERE schemaname = 'public'"
    with conduit.database() as connection, connection.cursor() as cursor:
        names = [name for (name,) in cursor.execute(named).fetchall()]
        rows = {}
        for name in names:
            with cursor.copy(f"COPY (SELECT * FROM {name}) TO STDOUT") as copy:  # type: ignore[call-overload]
                rows[name] = b"".join(bytes(piece) for piece in copy)
        return rows


def database_dump(conduit: Installation) -> bytes:
    """What a backup holds: databases, roles, functions, triggers, settings."""
    url = _engines(conduit)["database_url"]
    done = subprocess.run([f"{binaries()}/pg_dumpall", f"--dbname={url}"], capture_output=True, check=True, timeout=60)
    return done.stdout


def valkey_dump(conduit: Installation) -> dict[str, bytes]:
    """Every key of every database of Valkey as a dump file has it, uncompressed."""
    found = {}
    url = _engines(conduit)["valkey_url"].partition("?")[0]
    with redis.Redis.from_url(f"{url}?db=0") as server:
        before = server.config_get("rdbcompression")
        server.config_set("rdbcompression", "no")
    for number in range(DATABASES):
        with redis.Redis.from_url(f"{url}?db={number}") as one:
            for name in one.scan_iter(count=1000):
                found[f"{number} {name!r}"] = name + b"\n" + (one.dump(name) or b"")
    with redis.Redis.from_url(f"{url}?db=0") as server:
        server.config_set("rdbcompression", before["rdbcompression"])
    return found
