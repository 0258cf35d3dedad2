"""pytest plugin (`-p tests.harness.plugin`): real engines for every run, and a migrated database for every worker.

A plugin rather than a conftest, because pytest-django imports the settings before any conftest is read, and the
settings read the engines' addresses from the environment.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from conduit.engines.home import Home
from tests.harness import engines as harness

FOLDER = "CONDUIT_TEST_ENGINES"  # set by the process that started the engines, inherited by its xdist workers
_started: list[harness.Engines] = []


def _worker() -> str:
    return os.environ.get("PYTEST_XDIST_WORKER", "main")


def database_name() -> str:
    return f"conduit_{_worker()}"


def folder() -> Path:
    return Path(os.environ[FOLDER])


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Iterator[None]:
    if "PYTEST_XDIST_WORKER" not in os.environ:
        engines = harness.Engines()
        _started.append(engines)
        os.environ[FOLDER] = str(engines.folder)
        engines.start()
        harness.make_template(engines)
    _settle_environment()
    return (yield)


def _settle_environment() -> None:
    """Points this process at its own database, its own Valkey number and its own CONDUIT_HOME."""
    number = int(re.sub(r"\D", "", _worker()) or 14) % 15 + 1
    home = Home(folder() / _worker())
    home.create()
    home.generate_secrets({})
    for name in [name for name in os.environ if name.startswith(("CONDUIT_KEK_", "CONDUIT_EGRESS"))]:
        del os.environ[name]
    os.environ.update(
        {
            "CONDUIT_HOME": str(home.root),
            "DATABASE_URL": harness.database_url(folder() / "pg", database_name()),
            "VALKEY_URL": harness.valkey_url(folder(), number),
            "DJANGO_SETTINGS_MODULE": "conduit.settings",
        }
    )
    harness.recreate(folder() / "pg", database_name())


def pytest_unconfigure(config: pytest.Config) -> None:
    while _started:
        _started.pop().stop()


@pytest.fixture(scope="session")
def django_db_setup() -> None:
    """Replaces pytest-django's: the database is there and migrated. A transactional test leaves its traces by being
    cloned anew instead of flushed, which keeps rows that migrations made and respects append-only triggers."""
    from django.test import TransactionTestCase

    TransactionTestCase._fixture_teardown = lambda self: renew()  # type: ignore[method-assign]


def renew() -> None:
    """This worker's database as the migrations leave it, and nothing in memory that belongs to the former one."""
    from asgiref.sync import SyncToAsync
    from django.db import connections

    from conduit.core import keyring

    # The thread that asynchronous tests call the ORM in keeps a connection too, and it would outlive its database.
    SyncToAsync.single_thread_executor.submit(connections.close_all).result(10)
    for connection in connections.all(initialized_only=True):
        connection.close()
        connection.close_pool()
    harness.recreate(folder() / "pg", database_name())
    keyring.reset()


@pytest.fixture
def own_database(request: pytest.FixtureRequest) -> Iterator[str]:
    """URL of a migrated database for this test alone: for tests that start Conduit's own processes."""
    name = f"{database_name()}_own"
    harness.recreate(folder() / "pg", name)
    yield harness.database_url(folder() / "pg", name)
    harness.drop(folder() / "pg", name)
