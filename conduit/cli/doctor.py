"""`conduit doctor`: one line per check of the installation; exit 1 when one fails."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import typer

from conduit.cli.main import django_ready
from conduit.cli.output import Json, emit
from conduit.core.errors import ConfigurationError

app = typer.Typer()
Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """One checked thing. `detail` says what was found and, unless ok, how to fix it."""

    check: str
    status: Status
    detail: str


def permissions(home: Path) -> Finding:
    """The data directory and every generated secret are closed to others."""
    if not home.exists():
        return Finding("home", "warn", f"{home} does not exist yet; `make up` creates it")
    open_paths = [
        path for path in (home, *sorted((home / "secrets").glob("*"))) if stat.S_IMODE(path.stat().st_mode) & 0o077
    ]
    if open_paths:
        return Finding("home", "fail", f"open to other users: {', '.join(map(str, open_paths))}; run chmod go= on them")
    return Finding("home", "ok", f"{home} is private")


def key_encryption_key(home: Path) -> Finding:
    """Where the KEK comes from; beside the data it protects against a stolen database only."""
    named = sorted(name for name in os.environ if name.startswith("CONDUIT_KEK_") and name != "CONDUIT_KEK_PRIMARY")
    if named:
        return Finding("kek", "ok", f"from the environment: {', '.join(named)}")
    if (home / "secrets" / "kek").exists():
        return Finding(
            "kek", "warn", f"{home / 'secrets' / 'kek'} lies beside the data; in production set CONDUIT_KEK_<ID>"
        )
    if (home / "postgres").exists():
        return Finding("kek", "fail", f"{home / 'secrets' / 'kek'} is gone; put it back or set CONDUIT_KEK_<ID>")
    return Finding("kek", "warn", "none yet; `make up` generates one")


def valkey(url: str) -> Finding:
    """Valkey answers."""
    import redis  # noqa: PLC0415 (imported only when this check runs)

    if not url:
        return Finding("valkey", "fail", "not running; start `make up` or set VALKEY_URL")
    try:
        version = redis.Redis.from_url(url, socket_timeout=3, socket_connect_timeout=3).info("server")["redis_version"]
    except redis.RedisError as error:
        return Finding("valkey", "fail", f"{error}; start `make up` or check VALKEY_URL")
    return Finding("valkey", "ok", f"answers (protocol level {version})")


def database() -> Iterator[Finding]:
    """PostgreSQL answers, is new enough, and holds every migration."""
    try:
        django_ready()
    except ConfigurationError as error:
        yield Finding("database", "fail", str(error))
        return
    from django.db import DatabaseError, connection  # noqa: PLC0415 (Django is set up just above)
    from django.db.migrations.executor import MigrationExecutor  # noqa: PLC0415

    try:
        with connection.cursor() as cursor:
            cursor.execute("SHOW server_version_num")
            number = int(cursor.fetchone()[0])
        executor = MigrationExecutor(connection)
        missing = executor.migration_plan(executor.loader.graph.leaf_nodes())
    except DatabaseError as error:
        yield Finding(
            "database", "fail", f"{str(error).strip().splitlines()[0]}; start `make up` or check DATABASE_URL"
        )
        return
    new_enough = number >= 140_000
    yield Finding(
        "database",
        "ok" if new_enough else "fail",
        f"PostgreSQL {number // 10_000}" + ("" if new_enough else "; 14 is needed"),
    )
    if missing:
        yield Finding("migrations", "fail", f"{len(missing)} missing; restart `make up` or run manage.py migrate")
    else:
        yield Finding("migrations", "ok", "all applied")


def port(host: str, number: int) -> Finding:
    """Our own port: served by Conduit, free, or taken by another program."""
    try:
        with socket.create_connection((host, number), timeout=3) as client:
            client.sendall(f"GET /readyz HTTP/1.1\r\nHost: localhost:{number}\r\nConnection: close\r\n\r\n".encode())
            status = client.recv(64).split(b" ")[1:2]
    except OSError:
        return Finding("port", "ok", f"{host}:{number} is free; Conduit does not run")
    if status == [b"200"]:
        return Finding("port", "ok", f"Conduit is ready on {host}:{number}")
    said = status[0].decode("ascii", "replace") if status else "nothing"
    return Finding(
        "port", "warn", f"{host}:{number} answers {said} to /readyz; if that is another program, set CONDUIT_PORT"
    )


def examine() -> list[Finding]:
    from conduit import settings  # noqa: PLC0415 (a wrong setting is to be reported, not a traceback at import)

    home = settings.CONDUIT_HOME
    return [
        permissions(home),
        key_encryption_key(home),
        *database(),
        valkey(settings.VALKEY_URL),
        port(settings.CONDUIT_HOST, settings.CONDUIT_PORT),
    ]


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check the installation: permissions, keys, engines, migrations, port."""
    findings = examine()
    emit(
        [asdict(one) for one in findings],
        (f"{one.status:<4}  {one.check}: {one.detail}" for one in findings),
        as_json=as_json,
    )
    if any(one.status == "fail" for one in findings):
        raise typer.Exit(1)
