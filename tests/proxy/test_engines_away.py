"""A database that hangs, as seen by a request: served from memory or refused, within a bounded time.

The hang is real: another connection holds the tables under an exclusive lock.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from conduit.core import raw_keys
from conduit.proxy.snapshot import ANSWER_SECONDS
from tests.harness.gateway import RunningGateway, wait_for
from tests.harness.speakers import client

TABLES = "core_epoch, keys_virtualkey, keys_keysecret, keys_budget, keys_budgetperiod"


@pytest.fixture
def locked(gateway: RunningGateway, database_url: str) -> Iterator[None]:
    gateway.refresh()  # no change is on its way that would make the gateway forget its keys
    assert gateway.chat().status_code == 200  # its key is known from here on
    with psycopg.connect(database_url) as holder:
        wait_for(lambda: _held(holder))
        yield
        holder.rollback()
    wait_for(lambda: gateway.app.gateway.database_away() == 0)


def _held(holder: psycopg.Connection[Any]) -> bool:
    """All at once or none: who waits for one table while it holds another is in a deadlock with whoever writes both."""
    try:
        holder.execute(f"LOCK TABLE {TABLES} IN ACCESS EXCLUSIVE MODE NOWAIT")
    except psycopg.errors.LockNotAvailable:
        holder.rollback()
        return False
    return True


def test_an_unknown_key_is_refused_in_time_while_the_database_hangs(gateway: RunningGateway, locked: None) -> None:
    stranger = raw_keys.mint(raw_keys.VIRTUAL_KEY).raw.reveal()
    began = time.monotonic()
    answer = client().get(f"{gateway.url}/v1/key", headers={"x-api-key": stranger})
    assert answer.status_code == 503
    assert time.monotonic() - began < ANSWER_SECONDS + 2


def test_known_keys_are_served_and_figures_flow_while_the_database_hangs(gateway: RunningGateway, locked: None) -> None:
    before = _figure(gateway, "conduit_requests_total")
    assert gateway.chat().status_code == 200
    wait_for(lambda: _figure(gateway, "conduit_requests_total") > before)
    wait_for(lambda: _figure(gateway, "conduit_database_away_seconds") > 0)


def _figure(gateway: RunningGateway, name: str) -> float:
    lines = client().get(f"{gateway.url}/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))
