"""PostgreSQL was restarted: every pooled connection is dead. In a module of its own, whose teardown renews them all."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event

import psycopg
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


def test_no_question_meets_a_dead_connection_once_the_end_is_noticed(
    gateway: RunningGateway, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each would cost a pause that doubles: with five of them look-ups failed for seconds."""
    pool, noticed = connections["default"].pool, Event()  # type: ignore[attr-defined]
    renew = snapshot.renew_connections

    def renewed() -> None:
        renew()
        noticed.set()

    def lost() -> int:
        return int(pool.get_stats().get("connections_lost", 0))

    monkeypatch.setattr(snapshot, "renew_connections", renewed)
    wait_for(lambda: gateway.app.gateway._watcher._connected)
    fill_the_pool()
    end_all(database_url)
    assert noticed.wait(20)
    before = lost()
    fill_the_pool()
    assert gateway.chat(key=gateway.key()).status_code == 200
    assert lost() - before <= 1, "but for what was just being asked"


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


def test_a_database_that_was_away_is_found_by_the_next_question() -> None:
    """The pool's own pauses double: it would try again one, three, seven and fifteen seconds after the loss."""
    parameters = connections["default"].get_connection_params()
    there = Path("/tmp", f"cdt-away-{os.getpid()}")  # noqa: S108 (a socket's path is short)
    wanted = {name: parameters[name] for name in ("user", "dbname", "port") if parameters.get(name)}
    options = settings.DATABASES["default"]["OPTIONS"]["pool"]
    with ConnectionPool(kwargs={**wanted, "host": str(there)}, open=True, **options) as pool:
        began = time.monotonic()
        while time.monotonic() < began + 7.5:
            with pytest.raises(PoolTimeout), pool.connection(timeout=0.3):
                pass
        there.symlink_to(parameters["host"])
        try:
            with pool.connection(timeout=ANSWER_SECONDS) as found:
                assert found.execute("SELECT 1").fetchone() == (1,)
        finally:
            there.unlink()


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
