"""PostgreSQL was restarted: every pooled connection is dead. In a module of its own, whose teardown renews them all."""

from __future__ import annotations

import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event
from typing import Any

import psycopg
import psycopg_pool.pool
import pytest
from django.conf import settings
from django.db import OperationalError, connection, connections
from psycopg_pool import ConnectionPool, PoolTimeout

from conduit.proxy import snapshot
from conduit.proxy.snapshot import ANSWER_SECONDS, Database
from tests.harness.gateway import RunningGateway, wait_for

_END_ALL = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


def end_all(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as other:
        other.execute(_END_ALL)
    connections["default"].close()


def fill_the_pool(size: int = 5) -> None:
    all_at_once = Barrier(size)

    def hold() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            all_at_once.wait(20)
        connections.close_all()

    with ThreadPoolExecutor(size) as threads:
        for one in [threads.submit(hold) for _ in range(size)]:
            one.result()


def test_a_key_is_found_although_the_database_ended_all_our_connections(
    gateway: RunningGateway, database_url: str
) -> None:
    key = gateway.key()
    end_all(database_url)
    assert gateway.chat(key=key).status_code == 200


def test_dead_connections_of_the_pool_cost_a_question_their_look_only(
    committed: None, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the pool's own check each costs a pause that doubles: five of them, and no question is answered."""
    pool, pauses = connections["default"].pool, []  # type: ignore[attr-defined]
    monkeypatch.setattr(psycopg_pool.pool, "sleep", pauses.append)
    # a gateway of the test before would hear of the end, and renew the pool before it is asked
    monkeypatch.setattr(snapshot, "renew_connections", lambda: None)
    fill_the_pool()
    before = pool.get_stats().get("returns_bad", 0)
    end_all(database_url)
    fill_the_pool()
    assert pool.get_stats().get("returns_bad", 0) - before >= 5
    assert not pauses


def test_the_pool_is_renewed_once_the_end_is_noticed(
    gateway: RunningGateway, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, noticed = connections["default"].pool, Event()  # type: ignore[attr-defined]
    renew = snapshot.renew_connections

    def renewed() -> None:
        renew()
        noticed.set()

    def dead() -> int:
        return int(pool.get_stats().get("returns_bad", 0))

    monkeypatch.setattr(snapshot, "renew_connections", renewed)
    wait_for(lambda: gateway.app.gateway._watcher._connected)
    fill_the_pool()
    end_all(database_url)
    assert noticed.wait(20)
    before = dead()
    fill_the_pool()
    assert gateway.chat(key=gateway.key()).status_code == 200
    assert dead() - before <= 1, "but for what was just being asked"


async def test_a_question_whose_connection_is_cut_is_asked_again(gateway: RunningGateway) -> None:
    asked = []

    def cut_once() -> str:
        asked.append(time.monotonic())
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())" if len(asked) == 1 else "SELECT 'there'")
            return str(cursor.fetchone()[0])

    def slow() -> None:
        asked.append(time.monotonic())
        time.sleep(ANSWER_SECONDS / 3 + 0.1)
        raise OperationalError("too late to ask again")

    database = Database()
    try:
        assert await database.read(cut_once) == "there"
        assert len(asked) == 2
        with pytest.raises(OperationalError):
            await database.read(slow)
        assert len(asked) == 3
    finally:
        database.close()


class Elsewhere:
    """Where a pool looks for PostgreSQL: at nothing, at a socket that says nothing, or at the real one."""

    def __init__(self, silent: bool) -> None:
        self.parameters = connections["default"].get_connection_params()
        self.path = Path(tempfile.mkdtemp(prefix="cdt-away-", dir="/tmp"))  # noqa: S108 (a socket's path is short)
        self.listener = socket.socket(socket.AF_UNIX)
        self.there = self.path / "there"
        if silent:
            (self.path / "silent").mkdir()
            self.listener.bind(str(self.path / "silent" / ".s.PGSQL.5432"))
            self.listener.listen()
            self.there.symlink_to(self.path / "silent")

    def comes_back(self) -> None:
        self.there.unlink(missing_ok=True)
        self.there.symlink_to(self.parameters["host"])

    def pool(self) -> ConnectionPool[Any]:
        wanted = {name: self.parameters[name] for name in ("user", "dbname", "connect_timeout")}
        options = settings.DATABASES["default"]["OPTIONS"]["pool"]
        return ConnectionPool(kwargs={**wanted, "host": str(self.there)}, open=True, **options)


@pytest.fixture(params=[False, True], ids=["refused", "silent"])
def elsewhere(request: pytest.FixtureRequest) -> Iterator[Elsewhere]:
    place = Elsewhere(request.param)
    yield place
    place.listener.close()
    shutil.rmtree(place.path)


def test_a_database_that_was_away_is_found_by_the_next_question(elsewhere: Elsewhere) -> None:
    """The pool's own pauses double: it would try again one, three, seven and fifteen seconds after the loss."""
    with elsewhere.pool() as pool:
        began = time.monotonic()
        while time.monotonic() < began + 7.5:
            with pytest.raises(PoolTimeout), pool.connection(timeout=0.3):
                pass
        elsewhere.comes_back()
        with pool.connection(timeout=ANSWER_SECONDS) as found:
            assert found.execute("SELECT 1").fetchone() == (1,)


def test_a_database_that_comes_back_is_found_by_the_question_that_waits(elsewhere: Elsewhere) -> None:
    """The pool gives an attempt up after a second, and makes another of its own for a newcomer only."""
    with elsewhere.pool() as pool, ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(pool.getconn, 30)
        time.sleep(3.5)
        elsewhere.comes_back()
        found = waiting.result()
        assert found.execute("SELECT 1").fetchone() == (1,)
        pool.putconn(found)


def test_a_reload_that_the_database_cuts_short_is_made_up_for(gateway: RunningGateway, database_url: str) -> None:
    from providers.models import Route

    with psycopg.connect(database_url, autocommit=True) as other:
        for number in range(5):
            Route.objects.create(name=f"cut-{number}")  # makes the gateway reload
            connections["default"].close()
            for _ in range(10):
                other.execute(_END_ALL)
                time.sleep(0.01)
    Route.objects.create(name="after-all")
    gateway.refresh()
    assert "after-all" in gateway.app.gateway.snapshot.routing.routes
