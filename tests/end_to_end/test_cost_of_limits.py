"""What hard budgets cost: the web process's own CPU time for a request with and without them, in one run."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Iterator

import aiohttp
import psutil
import pytest

from tests.end_to_end.installation import Installation, installation

ROUNDS, SECONDS, CONNECTIONS = 7, 3.0, 16
BODY = {"model": "sandbox-echo", "max_tokens": 8, "messages": [{"role": "user", "content": "hello"}]}

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def installed() -> Iterator[Installation]:
    with installation(workers=1) as one:
        yield one


async def load(url: str, key: str) -> int:
    """How many requests were answered in SECONDS."""
    done, until = 0, asyncio.get_running_loop().time() + SECONDS
    headers = {"authorization": f"Bearer {key}"}

    async def client(session: aiohttp.ClientSession) -> None:
        nonlocal done
        while asyncio.get_running_loop().time() < until:
            async with session.post(f"{url}/v1/chat/completions", json=BODY, headers=headers) as answer:
                assert answer.status == 200, await answer.text()
                await answer.read()
            done += 1

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*[client(session) for _ in range(CONNECTIONS)])
    return done


def cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def web_process(installed: Installation) -> psutil.Process:
    return max(
        (one for one in installed.processes() if "conduit.engines.web" in " ".join(one.cmdline())),
        key=lambda one: one.memory_info().rss,
    )


def test_three_hard_budgets_leave_nine_tenths_of_the_throughput(installed: Installation) -> None:
    plenty = [{"limit_usd": "1000"}]
    above = installed.made("/teams", {"name": "above", "budgets": plenty})
    team = installed.made("/teams", {"name": "within", "parent": above["id"], "budgets": plenty})
    keys = {
        "without": installed.made("/keys", {"name": "without"})["key"],
        "with": installed.made("/keys", {"name": "with", "team": team["id"], "budgets": plenty})["key"],
    }
    process = web_process(installed)
    costs: dict[str, list[float]] = {name: [] for name in keys}
    for _ in range(ROUNDS + 1):
        for name, key in keys.items():
            before = cpu(process)
            requests = asyncio.run(load(installed.url, key))
            costs[name].append((cpu(process) - before) / requests * 1e6)
    ratios = [plain / limited for plain, limited in zip(costs["without"][1:], costs["with"][1:], strict=True)]
    ratio = statistics.median(ratios)
    medians = {name: statistics.median(found[1:]) for name, found in costs.items()}
    print(
        f"COST: {medians['without']:.0f} us of CPU a request without budgets, {medians['with']:.0f} us under three:"
        f" {ratio:.0%} of the throughput (rounds {min(ratios):.0%} to {max(ratios):.0%})"
    )
    assert ratio >= 0.9
