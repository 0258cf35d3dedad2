"""How soon a revocation bites: on every worker, without notifications, and after a partition (V6)."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import aiohttp
import psycopg
import pytest

from tests.end_to_end.installation import Installation
from tests.harness.chaos import ChaosProxy, Weather

WORKERS = 4
CALLERS = 8
REVOKED = 24
GRACE = 6
SILENT = """
CREATE OR REPLACE FUNCTION conduit_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_ARGV[0] = 'keys' THEN UPDATE core_epoch SET keys = keys + 1 WHERE id = 1;
  ELSE UPDATE core_epoch SET snapshot = snapshot + 1, catalogue = catalogue + 1 WHERE id = 1;
  END IF;
  RETURN NULL;
END $$;
"""


@contextmanager
def _installed(environment: dict[str, str], workers: int) -> Iterator[Installation]:
    one = Installation(Path(tempfile.mkdtemp(prefix="cdt-e2e-")), workers)
    one.environment |= {"CONDUIT_SANDBOX": "1", **environment}
    try:
        one.up()
        yield one
    finally:
        if one.process is not None:
            one.kill()
        shutil.rmtree(one.folder, ignore_errors=True)


async def _status(http: aiohttp.ClientSession, url: str, key: str) -> int:
    async with http.get(f"{url}/v1/models", headers={"x-api-key": key}) as answer:
        await answer.read()
        return answer.status


async def _committed(database: psycopg.AsyncConnection[Any], key: str) -> float:
    """When the change of this key was committed: its notification is heard at once. 0: there was none."""
    async for notice in database.notifies(timeout=1):
        if notice.payload.endswith(key):
            return time.monotonic()
    return 0.0


async def _latency(conduit: Installation, callers: list[aiohttp.ClientSession]) -> tuple[float, float]:
    """Seconds until the start of the last request that was served: from the commit, and from the revocation's answer.
    Where no notification tells of the commit, the answer counts for it."""
    made = await asyncio.to_thread(conduit.made, "/keys", {"name": f"key-{uuid4().hex[:8]}"})
    served = revoked = 0.0

    async def call(http: aiohttp.ClientSession) -> None:
        nonlocal served
        while not revoked or time.monotonic() < revoked + 1.0:
            began = time.monotonic()
            status = await _status(http, conduit.url, made["key"])
            if status == 200:
                served = max(served, began)
            else:
                assert status == 401
                if revoked and began > revoked + 0.3 and served < began - 0.3:
                    return
            await asyncio.sleep(0.02)

    url = conduit.environment["DATABASE_URL"]
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as database, asyncio.TaskGroup() as group:
        await database.execute("LISTEN conduit")
        for http in callers:
            group.create_task(call(http))
        await asyncio.sleep(0.3)
        heard = group.create_task(_committed(database, made["id"]))
        answer = await asyncio.to_thread(conduit.api, "POST", f"/keys/{made['id']}/revoke")
        assert answer.status_code == 200, answer.text
        revoked = time.monotonic()
    return max(0.0, served - (heard.result() or revoked)), max(0.0, served - revoked)


async def _latencies(conduit: Installation, number: int) -> list[tuple[float, float]]:
    callers = [aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) for _ in range(CALLERS)]
    try:
        return sorted([await _latency(conduit, callers) for _ in range(number)])
    finally:
        for http in callers:
            await http.close()


async def test_a_revocation_is_seen_by_four_workers(own_database: str, valkey_url: str) -> None:
    with _installed({"DATABASE_URL": own_database, "VALKEY_URL": valkey_url}, WORKERS) as conduit:
        told = await _latencies(conduit, REVOKED)
        with psycopg.connect(own_database) as database:
            database.execute(SILENT)
        polled = await _latencies(conduit, REVOKED // 2)
    after = max(seconds for _, seconds in told)
    without = max(seconds for _, seconds in polled)
    print(
        f"V6: revocation on {WORKERS} workers, {REVOKED} times: last served {told[len(told) // 2][0] * 1000:.0f} ms "
        f"(median), {told[-1][0] * 1000:.0f} ms (max) after the commit, {after * 1000:.0f} ms after the answer; every "
        f"notification dropped: {without * 1000:.0f} ms after the answer (max)"
    )
    assert told[len(told) // 2][1] < 0.5
    assert without < 5, "the poll alone must do"


@pytest.fixture
def sockets(own_database: str) -> tuple[str, str]:
    """(path of PostgreSQL's socket, name of the database)."""
    parts = urlsplit(own_database)
    (host,) = parse_qs(parts.query)["host"]
    return f"{host}/.s.PGSQL.5432", parts.path.lstrip("/")


async def test_a_worker_cut_off_from_the_database_serves_known_keys_for_the_grace_and_then_nobody(
    own_database: str, valkey_url: str, sockets: tuple[str, str]
) -> None:
    path, name = sockets
    async with ChaosProxy(path, seed=1) as proxy, aiohttp.ClientSession() as http:
        url = f"postgresql://conduit@127.0.0.1:{proxy.port}/{name}"
        environment = {"DATABASE_URL": url, "VALKEY_URL": valkey_url, "CONDUIT_DATABASE_GRACE": str(GRACE)}
        installed = _installed(environment, 1)
        conduit = await asyncio.to_thread(installed.__enter__)
        try:
            keys = [(await asyncio.to_thread(conduit.made, "/keys", {"name": f"k{n}"})) for n in range(3)]
            doomed, spared, unknown = (made["key"] for made in keys)
            assert [await _status(http, conduit.url, key) for key in (doomed, spared)] == [200, 200]
            proxy.weather = Weather(refuse=True)
            proxy.reset_all()
            cut = time.monotonic()
            stranger = await _status(http, conduit.url, unknown)
            seen: list[tuple[float, int]] = []
            while not seen or (seen[-1][1] == 200 and time.monotonic() < cut + GRACE + 30):
                seen.append((time.monotonic() - cut, await _status(http, conduit.url, doomed)))
                await asyncio.sleep(0.1)
            with psycopg.connect(own_database) as database:
                database.execute("UPDATE keys_virtualkey SET state = 'revoked' WHERE id = %s", [keys[0]["id"]])
            proxy.weather = Weather()
            healed = time.monotonic()
            while (status := await _status(http, conduit.url, spared)) == 503 and time.monotonic() < healed + 30:
                assert await _status(http, conduit.url, doomed) in (503, 401)
                await asyncio.sleep(0.02)
            back = time.monotonic() - healed
            assert (status, await _status(http, conduit.url, doomed)) == (200, 401)
        finally:
            await asyncio.to_thread(installed.__exit__, None, None, None)
    assert stranger == 503, "what was never looked up cannot be served"
    assert seen[-1][1] == 503
    assert seen[-1][0] >= GRACE - 1, "known keys go on within the grace"
    print(
        f"V6: cut off from the database: known keys served for {seen[-1][0]:.1f} s of a grace of {GRACE} s, then 503; "
        f"unknown keys 503; revoked meanwhile: refused from the first answer, {back * 1000:.0f} ms after it was back"
    )
    assert back < 10
