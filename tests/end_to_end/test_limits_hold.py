"""Hard budgets against a crowd, in real processes, by the provider's own invoice (testing.md L1)."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest

from tests.end_to_end.installation import Installation, installation

LIMIT = 1_000_000_000  # nano-dollars: $1
CROWD = 500
WORDS = 1_000  # a thousand tokens of the dear model: $0.03
BODY = {"model": "sandbox-dear", "max_tokens": WORDS, "messages": [{"role": "user", "content": f"words: {WORDS}"}]}


@pytest.fixture(scope="module", params=[1, 4], ids=["one process", "four processes"])
def installed(request: pytest.FixtureRequest) -> Iterator[Installation]:
    with installation(workers=request.param) as one:
        yield one


async def crowd(url: str, keys: list[str], number: int, body: dict[str, Any] = BODY) -> Counter[tuple[int, str]]:
    """`number` requests at once, over the keys in turn: how many got which status and error code."""

    async def ask(session: aiohttp.ClientSession, key: str) -> tuple[int, str]:
        headers = {"authorization": f"Bearer {key}"}
        async with session.post(f"{url}/v1/chat/completions", json=body, headers=headers) as answer:
            told = await answer.json()
            return answer.status, told.get("error", {}).get("code", "")

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(60)) as session:
        return Counter(await asyncio.gather(*[ask(session, keys[index % len(keys)]) for index in range(number)]))


def billed_for(installed: Installation, keys: set[str]) -> tuple[int, int]:
    """What the invoice says these keys cost, and the dearest of their requests, in nano-dollars."""
    attempts = {event["id"] for event in installed.events() if event["key"] in keys and event["attempt"]}
    amounts = [bill.nanos for name, bill in installed.invoice().items() if name in attempts]
    return sum(amounts), max(amounts, default=0)


def keys_under(installed: Installation, where: str) -> tuple[list[dict[str, Any]], str]:
    """Four keys in a team in a parent team, a dollar at `where` and plenty elsewhere; and that budget's id."""
    plenty, dollar = [{"limit_usd": "1000"}], [{"limit_usd": "1"}]
    name = f"{where}-{installed.workers}"
    parent = installed.made("/teams", {"name": f"above {name}", "budgets": dollar if where == "parent" else plenty})
    team = {"name": name, "parent": parent["id"], "budgets": dollar if where == "team" else plenty}
    team = installed.made("/teams", team)
    number = 1 if where == "key" else 4
    keys = [
        installed.made(
            "/keys", {"name": f"{name} {i}", "team": team["id"], "budgets": dollar if where == "key" else plenty}
        )
        for i in range(number)
    ]
    owner = {"key": keys[0], "team": team, "parent": parent}[where]
    return keys, owner["budgets"][0]["id"]


@pytest.mark.parametrize("where", ["key", "team", "parent"])
def test_five_hundred_at_once_on_a_dollar(installed: Installation, where: str) -> None:
    keys, _ = keys_under(installed, where)
    counts = asyncio.run(crowd(installed.url, [key["key"] for key in keys], CROWD))
    installed.settle(set())
    spent, dearest = billed_for(installed, {key["id"] for key in keys})
    fits = LIMIT // dearest
    served = counts[200, ""]
    refused = {code: number for (status, code), number in counts.items() if status != 200}
    print(
        f"L1: {CROWD} at once on $1 at the {where}, {installed.workers} processes: overspend"
        f" ${max(0, spent - LIMIT) / 1e9:.9f}, served {served} of {fits} that fit, {refused}"
    )
    assert spent <= LIMIT
    assert served >= 0.9 * fits
    assert refused.keys() <= {"budget_exceeded", "budget_busy"}
    installed.verified()
