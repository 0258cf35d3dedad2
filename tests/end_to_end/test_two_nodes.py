"""Two installations on one PostgreSQL and one Valkey, many keys under one team's budget (testing.md L2)."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import psycopg
import pytest

from tests.end_to_end.installation import Installation
from tests.harness.gateway import wait_for

BODY = {"model": "sandbox-dear", "max_tokens": 10, "messages": [{"role": "user", "content": "words: 10"}]}
NANOS = 1_000_000_000
KEYS = 8


@pytest.fixture
def nodes(own_database: str, valkey_url: str) -> Iterator[list[Installation]]:
    """With the same secrets, as nodes of one installation have them; each with a sandbox of its own."""
    shared = {"DATABASE_URL": own_database, "VALKEY_URL": valkey_url, "CONDUIT_SANDBOX": "1"}
    found = [Installation(Path(tempfile.mkdtemp(prefix="cdt-e2e-"))) for _ in range(2)]
    first, second = found
    try:
        for one in found:
            one.environment |= shared
        first.up()
        second.home.mkdir(mode=0o700)
        shutil.copytree(first.home / "secrets", second.home / "secrets")
        second.first, second.token = first.first, first.token  # only the first start of all prints them
        second.up()
        yield found
        for one in found:
            one.terminate()
        assert [one.ended() for one in found] == [0, 0]
    finally:
        for one in found:
            if one.process is not None:
                one.kill()
            shutil.rmtree(one.folder, ignore_errors=True)


async def _load(nodes: list[Installation], keys: list[str], seconds: float) -> Counter[tuple[int, str]]:
    """Every key asks both nodes, a few at a time, for so long."""
    counts: Counter[tuple[int, str]] = Counter()
    end = time.monotonic() + seconds

    async def client(session: aiohttp.ClientSession, url: str, key: str) -> None:
        headers = {"authorization": f"Bearer {key}"}
        while time.monotonic() < end:
            async with session.post(f"{url}/v1/chat/completions", json=BODY, headers=headers) as answer:
                told = await answer.json()
                code = told.get("error", {}).get("code", "")
                counts[answer.status, code] += 1
                await asyncio.sleep(0.2 if answer.status != 200 else 0)

    connector, patience = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(60)
    async with aiohttp.ClientSession(connector=connector, timeout=patience) as session:
        await asyncio.gather(*[client(session, one.url, key) for one in nodes for key in keys for _ in range(2)])
    return counts


def _run(nodes: list[Installation], database: str, seconds: float, limit: str) -> None:
    first = nodes[0]
    team = first.made("/teams", {"name": f"two-nodes-{limit}", "budgets": [{"limit_usd": limit}]})
    plenty = [{"limit_usd": "1000"}, {"limit_usd": "900", "window": "day"}]
    keys = [first.made("/keys", {"name": f"{n}", "team": team["id"], "budgets": plenty})["key"] for n in range(KEYS)]
    counts = asyncio.run(_load(nodes, keys, seconds))
    for one in nodes:
        one.settle(set())
    attempts = {event["id"] for event in first.events() if event["team"] == team["id"] and event["attempt"]}
    billed = [bill.nanos for one in nodes for name, bill in one.invoice().items() if name in attempts]
    most, spent = round(float(limit) * NANOS), sum(billed)
    with psycopg.connect(database) as session:
        deadlocks = _deadlocks(session)
    refused = {f"{status} {code}": number for (status, code), number in counts.items() if status != 200}
    print(
        f"L2: {KEYS} keys under a team's ${limit}, 2 nodes, {seconds:.0f} s: {counts[200, '']:,} served for"
        f" ${spent / NANOS:.9f}, {refused}, overspend ${max(0, spent - most) / NANOS:.9f}, deadlocks {deadlocks}"
    )
    assert spent <= most
    assert deadlocks == 0
    assert counts[200, ""] == len(billed) > 50
    assert {code for _, code in counts} <= {"", "budget_exceeded", "budget_busy"}
    first.verified()
    wait_for(lambda: _leased(database) == 0, 90)


def _deadlocks(session: psycopg.Connection[tuple[int]]) -> int:
    row = session.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()").fetchone()
    assert row is not None
    return row[0]


def _leased(database: str) -> int:
    with psycopg.connect(database) as session:
        row = session.execute("SELECT coalesce(sum(leased_nanos), 0) FROM keys_budgetperiod").fetchone()
        assert row is not None
        return int(row[0])


def test_many_keys_under_one_teams_budget_on_two_nodes(nodes: list[Installation], own_database: str) -> None:
    _run(nodes, own_database, 6, "0.1")


@pytest.mark.long
def test_many_keys_under_one_teams_budget_on_two_nodes_for_a_minute(
    nodes: list[Installation], own_database: str
) -> None:
    _run(nodes, own_database, 60, "2")
