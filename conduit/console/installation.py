"""What the installation is made of and how it does, as plain figures: for the system page and the support bundle.

Engines are asked with short deadlines, files of this node are read; nothing here holds or returns a secret. What cannot
be reached is told as such: a page about trouble must not fail with it.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import connection
from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry

from conduit.core import clock
from usage import status
from usage.node import node_id

DEADLINE = 1.0  # seconds that Valkey may take
QUIET = timedelta(seconds=15)  # the shipper reports each second while it lives
OVERDUE = timedelta(minutes=2)  # a task that is due is sent within seconds
_BEAT = "conduit:beat::"  # redbeat's keys, by the prefix in conduit/celery.py
_QUEUE, _TAKEN = "conduit", "unacked"


@dataclass(frozen=True, slots=True)
class Engine:
    """`version` is empty where it does not answer; then `detail` says what kind of error that was."""

    name: str
    version: str
    answers_us: int | None
    detail: str

    @property
    def ok(self) -> bool:
        return self.answers_us is not None


@dataclass(frozen=True, slots=True)
class Jobs:
    """Background jobs. `overdue`: how long the task that has been due longest waits; None where Valkey is away."""

    waiting: int
    taken: int
    scheduler: bool
    overdue: timedelta | None


@dataclass(frozen=True, slots=True)
class Shipping:
    """This node's shipper by its own report; `told` None: it has never reported. Counts since it started."""

    told: datetime | None
    working: bool
    waiting: int
    oldest: timedelta
    applied: int
    uncertain: int
    rejected: int
    damaged: int

    @property
    def silent(self) -> bool:
        return self.told is None or clock.now() - self.told > QUIET


@dataclass(frozen=True, slots=True)
class Journal:
    """This node's journal files. `quarantined` records were damaged or refused, and lie aside for a person."""

    segments: int
    bytes: int
    quarantined: int


@dataclass(frozen=True, slots=True)
class LedgerCheck:
    """The hourly job's last result on this node; `checked` None: none yet."""

    checked: datetime | None
    ok: bool
    events: int
    failed: tuple[str, ...]


def node() -> str:
    return node_id()


def postgres() -> Engine:
    with connection.cursor() as cursor:
        started = time.perf_counter_ns()
        cursor.execute("SELECT 1")
        took = (time.perf_counter_ns() - started) // 1000
        cursor.execute(
            "SELECT current_setting('server_version'),"
            " (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database())"
        )
        version, connections = cursor.fetchone() or ("", 0)
    return Engine("PostgreSQL", str(version).split(" ", 1)[0], took, f"{connections} connections")


def valkey() -> tuple[Engine, Jobs | None]:
    """The engine, and the jobs whose queue lies in it."""
    client = Redis.from_url(
        settings.VALKEY_URL or "redis://127.0.0.1:1",
        socket_timeout=DEADLINE,
        socket_connect_timeout=DEADLINE,
        retry=Retry(NoBackoff(), 0),
    )
    try:
        client.ping()  # the connection is made before the clock starts
        started = time.perf_counter_ns()
        client.ping()
        took = (time.perf_counter_ns() - started) // 1000
        told: dict[str, Any] = client.info()
        return _valkey(told, took), _jobs(client)
    except RedisError as error:
        # Only the kind: the text of the error may quote the address.
        return Engine("Valkey", "", None, f"does not answer ({type(error).__name__})"), None
    finally:
        client.close()


def _valkey(told: dict[str, Any], took: int) -> Engine:
    name = "Valkey" if "valkey_version" in told else "Redis"
    version = str(told.get("valkey_version") or told.get("redis_version", ""))
    evicted = int(told.get("evicted_keys", 0))
    evictions = f"{evicted:,} keys evicted" if evicted else "no evictions"
    return Engine(name, version, took, f"{int(told.get('used_memory', 0)) // 2**20} MB, {evictions}")


def _jobs(client: Redis) -> Jobs:
    with client.pipeline(transaction=False) as pipe:
        pipe.llen(_QUEUE)
        pipe.hlen(_TAKEN)
        pipe.exists(f"{_BEAT}lock")
        pipe.zrangebyscore(f"{_BEAT}schedule", 0, "+inf", start=0, num=1, withscores=True)
        waiting, taken, lock, due = pipe.execute()
    late = time.time() - float(due[0][1]) if due else 0.0
    return Jobs(int(waiting), int(taken), bool(lock), timedelta(seconds=max(late, 0.0)))


def shipping() -> Shipping:
    told = status.read(settings.CONDUIT_HOME / "run" / "shipper.json")
    if told is None:
        return Shipping(None, False, 0, timedelta(0), 0, 0, 0, 0)
    lag: dict[str, Any] = told.get("lag") or {}
    return Shipping(
        told=_instant(told.get("time")),
        working=bool(told.get("working")),
        waiting=int(lag.get("records", 0)),
        oldest=timedelta(seconds=float(lag.get("oldest_seconds", 0))),
        applied=int(told.get("applied", 0)),
        uncertain=int(told.get("uncertain", 0)),
        rejected=int(told.get("rejected", 0)),
        damaged=int(told.get("damaged", 0)),
    )


def journal() -> Journal:
    folder: Path = settings.JOURNAL_DIR
    # Listed by name only: usage.journal.segments also tries the writers' locks, which are not a page's to touch.
    found = list(folder.glob(f"{node_id()}-*.seg")) if folder.is_dir() else []
    aside = folder / "quarantine"
    quarantined = sum(1 for _ in aside.glob("*.bin")) if aside.is_dir() else 0
    return Journal(len(found), sum(map(_size, found)), quarantined)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0  # applied and deleted since it was listed


def ledger() -> LedgerCheck:
    try:
        told: dict[str, Any] = json.loads((settings.CONDUIT_HOME / "run" / "ledger.json").read_text())
    except (FileNotFoundError, ValueError):
        return LedgerCheck(None, False, 0, ())
    failed = tuple(str(check["name"]) for check in told.get("checks", ()) if not check.get("ok"))
    return LedgerCheck(_instant(told.get("time")), bool(told.get("ok")), int(told.get("events", 0)), failed)


def _instant(seconds: object) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if isinstance(seconds, int | float) else None
