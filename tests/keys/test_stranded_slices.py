"""What one worker holds and another needs: requests that money was there for are hardly ever refused (L11).

Four workers on one budget of which nine tenths are used, on the virtual clock. A refusal is needless when the request's
hold would have fitted beside all holds in flight: the money was there, lent to the wrong worker. It is counted too how
many were refused although what they really cost would have fitted beside what the others really cost.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime
from random import Random

import pytest

from keys.holds import Holds, Refused
from keys.slices import Request
from tests.keys.books import MemoryBooks
from tests.keys.scenario import entry
from tests.keys.simulator import EPOCH, Worker, World
from tests.keys.virtual_time import virtual_time

LIMIT = 1_000_000_000
LEFT = LIMIT // 10
SIZES = (LEFT // 400, LEFT // 100, LEFT // 25, LEFT // 10)  # holds; the real cost is a tenth to nearly all of it


class Crowd:
    def __init__(self, world: World, seed: int, asked: int) -> None:
        self.world, self.chance, self.asked = world, Random(seed), asked
        self.budget = entry(1, LIMIT)
        self.counts: Counter[str] = Counter()
        self.held = self.spent = self.due = 0
        world.books.enter(self.budget)
        self.workers = [world.join() for _ in range(4)]
        for worker in self.workers:
            worker.spawn(worker.tick_forever())

    async def live(self) -> Counter[str]:
        first = await self.workers[0].obtain([self.budget], Request(LIMIT - LEFT, LIMIT - LEFT))
        self.workers[0].end(first, LIMIT - LEFT)
        tasks = []
        for _ in range(self.asked):
            await asyncio.sleep(self.chance.expovariate(8))
            tasks.append(self.chance.choice(self.workers).spawn(self._ask(self.chance.choice(self.workers))))
            for worker in self.workers:
                if self.chance.random() < 0.3:
                    self.world.ship(worker)
        await asyncio.gather(*tasks)
        return self.counts

    async def _ask(self, worker: Worker) -> None:
        hold = self.chance.choice(SIZES)
        cost = int(hold * self.chance.choice([0.05, 0.1, 0.2, 0.9]))
        self.counts["asked"] += 1
        try:
            attempt = await worker.obtain([self.budget], Request(hold, hold))
        except Refused:
            left = LEFT - self.spent
            self.counts["refused"] += 1
            self.counts["needless"] += hold <= left - self.held
            self.counts["would have fitted"] += cost <= left - self.due
            return
        self.held, self.due = self.held + hold, self.due + cost
        await asyncio.sleep(self.chance.choice([0.05, 0.3, 1.0]) * self.chance.random())
        worker.end(attempt, cost)
        self.held, self.due, self.spent = self.held - hold, self.due - cost, self.spent + cost


def crowds(seeds: range, asked: int) -> Counter[str]:
    counts: Counter[str] = Counter()
    for seed in seeds:
        with virtual_time() as loop:
            books = MemoryBooks(lambda: datetime.fromtimestamp(EPOCH, UTC))

            async def live(seed: int = seed, loop=loop, books=books) -> Counter[str]:  # type: ignore[no-untyped-def]
                return await Crowd(World(loop, books, lambda step, kind: "", Random(seed)), seed, asked).live()

            counts += loop.run_until_complete(live())
    return counts


def test_hardly_any_request_is_refused_that_money_was_there_for() -> None:
    counts = crowds(range(40), 70)
    needless, fitted = counts["needless"] / counts["asked"], counts["would have fitted"] / counts["asked"]
    print(
        f"L11: 4 workers, 90 % to about 98 % used: {counts['asked']:,} asked, {counts['refused']} refused, needlessly"
        f" {counts['needless']} ({needless:.1%}); {counts['would have fitted']} ({fitted:.1%}) by real cost"
    )
    assert needless <= 0.05
    assert fitted <= 0.05


def test_without_recalls_stranded_slices_refuse_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: nobody gives anything back when another lacks it, nor when it is idle."""

    monkeypatch.setattr(Holds, "recalled", lambda self, period: None)
    monkeypatch.setattr("keys.slices.QUIET_TICKS", 10**6)
    counts = crowds(range(8), 120)
    print(f"negative control: without recalls {counts['needless']} of {counts['asked']} are refused needlessly")
    assert counts["needless"] / counts["asked"] > 0.05
