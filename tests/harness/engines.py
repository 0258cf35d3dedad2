"""One PostgreSQL and one Valkey for a test run, and a database of its own for each pytest worker.

Also `python -m tests.harness.engines COMMAND…`: runs a command with empty throw-away engines.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql

from conduit.engines.home import Home
from conduit.engines.postgres import Postgres
from conduit.engines.valkey import Valkey

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = "conduit_template"
# Nothing here survives a power cut, and nothing has to.
FAST = {
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "wal_level": "minimal",
    "max_wal_senders": "0",
}


class Engines:
    """Both engines in a short private directory, gone with `stop` (or with the process that started them)."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="cdt-"))
        self.home = Home(self.folder / "home")
        self.home.create()
        self.home.generate_secrets({})
        atexit.register(self.stop)
        self.postgres = Postgres(self.home.postgres, self.folder, self.folder / "postgres.log", FAST)
        self.valkey = Valkey(self.folder, self.folder / "valkey.log")

    def start(self) -> None:
        self.postgres.start()
        self.valkey.start()

    def stop(self) -> None:
        self.valkey.stop()
        self.postgres.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def database_url(sockets: Path, name: str) -> str:
    return f"postgresql://conduit@/{name}?host={quote(str(sockets), safe='')}"


def valkey_url(folder: Path, number: int) -> str:
    return f"unix://{folder}/valkey.sock?db={number}"


def make_template(engines: Engines) -> None:
    """Runs every migration once, into the database that all others are cloned from."""
    recreate(engines.postgres.sockets, TEMPLATE, "template0")
    migrate = [sys.executable, "-W", "ignore", "manage.py", "migrate", "--no-input", "--verbosity", "0"]
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "conduit.settings",
        "CONDUIT_HOME": str(engines.home.root),
        "DATABASE_URL": database_url(engines.postgres.sockets, TEMPLATE),
        "VALKEY_URL": engines.valkey.url,
    }
    subprocess.run(migrate, check=True, cwd=ROOT, env=environment)


def recreate(sockets: Path, name: str, template: str = TEMPLATE) -> None:
    """Makes database `name` anew as a copy of the template, whoever is still connected to it."""
    with psycopg.connect(database_url(sockets, "postgres"), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
        command = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        connection.execute(command.format(sql.Identifier(name), sql.Identifier(template)))


def drop(sockets: Path, name: str) -> None:
    with psycopg.connect(database_url(sockets, "postgres"), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


@contextmanager
def running() -> Iterator[Engines]:
    engines = Engines()
    try:
        engines.start()
        yield engines
    finally:
        engines.stop()


def main(command: list[str]) -> int:
    with running() as engines:
        environment = {
            **os.environ,
            "CONDUIT_HOME": str(engines.home.root),
            "DATABASE_URL": engines.postgres.url,
            "VALKEY_URL": engines.valkey.url,
        }
        return subprocess.run(command, cwd=ROOT, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
