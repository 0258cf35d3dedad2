"""A seed's life: who asks for what, what goes wrong and when, what is changed meanwhile; then peace, and the count."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from typing import Any
from uuid import UUID

from keys.entries import BudgetEntry
from keys.holds import Refused
from keys.slices import Request
from tests.keys.books import Books, MemoryBooks
from tests.keys.simulator import EPOCH, Fate, Violated, Worker, World
from tests.keys.virtual_time import VirtualLoop, virtual_time

MISHAPS = {
    "question": ("lost", "late", "crash"),
    "answer": ("lost", "crash"),
    "open": ("lost", "crash"),
    "opened": ("lost", "crash"),
    "held": ("crash",),
    "sent": ("crash",),
}
Make = Callable[[Callable[[], datetime]], Books]


@dataclass(frozen=True)
class Terms:
    """`mishaps`: chance of each step. `overruns`: costs above their hold. `changes`: limits, raises and resets."""

    seconds: float = 6.0
    requests: int = 60
    mishaps: float = 0.02
    overruns: bool = False
    changes: bool = False


def entry(number: int, limit: int, **given: object) -> BudgetEntry:
    fields: dict[str, object] = {
        "id": UUID(int=number),
        "owner_kind": "team",
        "owner_name": f"budget {number}",
        "limit_nanos": limit,
        "window": "lifetime",
        "timezone": "UTC",
        "created_at": datetime.fromtimestamp(EPOCH - 3600, UTC),
        "epoch_at": None,
        "hard": True,
        "unbounded": "deny",
        "wait_ms": 2000,
    }
    return BudgetEntry(**{**fields, **given})  # type: ignore[arg-type]


def by_chance(chance: Random, rate: float) -> Fate:
    def fate(step: int, kind: str) -> str:
        return chance.choice(MISHAPS[kind]) if kind in MISHAPS and chance.random() < rate else ""

    return fate


class Life:
    """One run. `fate` replaces the seed's own mishaps."""

    def __init__(self, loop: VirtualLoop, seed: int, terms: Terms, make: Make, fate: Fate | None) -> None:
        self.chance, self.terms = Random(seed), terms
        books = make(lambda: datetime.fromtimestamp(EPOCH + loop.time(), UTC))
        self.world = World(loop, books, fate or by_chance(Random(seed + 1), terms.mishaps), self.chance)
        self.peace = False
        self.highest: dict[UUID, int] = {}
        self.raised: Counter[UUID] = Counter()
        self.current: list[BudgetEntry] = []
        for _ in range(self.chance.randint(1, 3)):
            self._add()
        for _ in range(self.chance.randint(1, 4)):
            self._start(self.world.join())

    def _add(self) -> None:
        chance, number = self.chance, len(self.current) + 1
        limit = chance.choice([0, 900, 5_000, 5_000, 40_000, 40_000, 1_000_000])
        window = chance.choice(["lifetime", "lifetime", "day", "week"])
        hard = chance.random() < 0.85
        unbounded = chance.choice(["exclusive", "soft"])
        wait = chance.choice([0, 300, 2000])
        made = entry(number, limit, window=window, hard=hard, unbounded=unbounded, wait_ms=wait)
        self.current.append(made)
        self.world.books.enter(made)
        self.highest[made.id] = limit
        if not hard:
            self.world.soft.add(made.id)

    def _start(self, worker: Worker) -> None:
        worker.spawn(worker.tick_forever())

    # --- what happens

    async def live(self) -> None:
        tasks = [self._watched(self._ledger())]
        if self.terms.changes:
            tasks.append(self._watched(self._changes()))
        for _ in range(self.terms.requests):
            await asyncio.sleep(self.chance.random() * 2 * self.terms.seconds / self.terms.requests)
            self._raise_failures()
            if not self.world.alive:
                self._start(self.world.join())
            if self.chance.random() < 0.1:
                self._add()  # a budget that workers meet in the midst of everything
            worker = self.chance.choice(self.world.alive)
            worker.spawn(self._request(worker, list(self.current)))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._rest()

    def _watched(self, what: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """What it finds wrong is not lost with it."""

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                self.world.failures.append(error)

        task = asyncio.create_task(what)
        task.add_done_callback(ended)
        return task

    async def _request(self, worker: Worker, known: list[BudgetEntry]) -> None:
        """One attempt, sometimes a second, by the budgets as they were known when the request came."""
        chance, world = self.chance, self.world
        budgets = [one for one in known if chance.random() < 2 / len(known)]
        for _ in range(chance.choice([1, 1, 1, 2])):
            most = chance.randint(0, 1200)
            least = chance.choice([most, most, most // 4])
            request = Request(least, most, unbounded=chance.random() < 0.05)
            patience = chance.choice([None, None, None, 0.1])
            try:
                async with asyncio.timeout(patience):
                    attempt = await worker.obtain(budgets, request)
            except Refused as error:
                world.counts[f"refused: {error.reason}"] += 1
                return
            except TimeoutError:
                world.counts["left"] += 1
                return
            world.counts["served"] += 1
            await world.step(worker, "held")
            await asyncio.sleep(chance.choice([0.01, 0.1, 0.5, 3.0]) * chance.random())
            await world.step(worker, "sent")
            over = 3 if self.terms.overruns and chance.random() < 0.2 else 1
            worker.end(attempt, chance.randint(0, attempt.nanos * over), uncertain=chance.random() < 0.05)
            world.check()

    async def _ledger(self) -> None:
        """The shipper, some of it, twice at times; questions that come late; new workers for those that died."""
        chance, world = self.chance, self.world
        while True:
            await asyncio.sleep(chance.random() * 0.6)
            self._raise_failures()
            for worker in list(world.workers):
                world.ship(worker, chance.randint(worker.shipped, len(worker.journal)))
                if chance.random() < 0.2:
                    world.apply(worker, worker.journal[: worker.shipped])
                if not worker.alive:
                    world.adopt(worker)
                    self._start(world.join())
            if chance.random() < 0.5:
                world.stragglers()

    async def _changes(self) -> None:
        chance, world = self.chance, self.world
        while True:
            await asyncio.sleep(chance.random() * 2)
            place = chance.randrange(len(self.current))
            one = self.current[place]
            what = chance.choice(["limit", "raise", "raise", "reset", "raise ends"])
            if what == "reset":
                self.current[place] = replace_epoch(one, world.now())
                world.books.enter(self.current[place])
            elif what == "limit":
                limit = chance.choice([0, one.limit_nanos // 2, one.limit_nanos * 2])
                self.current[place] = with_limit(one, limit)
                world.books.limit(one.id, limit)
            else:
                self.raised[one.id] = chance.randint(1, 5_000) if what == "raise" else 0
                world.books.raise_by(one.id, self.raised[one.id])
            now = self.current[place]
            self.highest[now.id] = max(self.highest[now.id], now.limit_nanos + self.raised[now.id])
            world.counts[what] += 1
            world.check()
            if chance.random() < 0.8:
                world.changed(one.id)

    # --- peace

    async def _rest(self) -> None:
        """No mishap any more: every request ends, every record is applied, and every lease comes back."""
        world = self.world
        world.fate = lambda step, kind: ""
        world.stragglers()
        await asyncio.sleep(8)  # longer than any request waits and runs
        self._raise_failures()
        for worker in list(world.workers):
            world.ship(worker)
            if not worker.alive:
                world.adopt(worker)
        await asyncio.sleep(12)
        for worker in world.alive:
            if worker.dispatched or worker.holds._waiting:
                raise world.violated(f"{len(worker.dispatched)} attempts and {len(worker.holds._waiting)} never ended")
        self._count()

    def _count(self) -> None:
        world = self.world
        excess = Counter(world.departed)
        for worker in world.workers:
            excess.update(worker.excess)
        for period, one in world.books.look().items():
            if one.leased:
                raise world.violated(f"period {period}: {one.leased} still leased, nobody uses it")
            spent = one.settled + one.uncertain
            if one.budget not in world.soft and spent > self.highest[one.budget] + excess[period]:
                raise world.violated(f"period {period}: {spent} spent of {self.highest[one.budget]}")

    def _raise_failures(self) -> None:
        if self.world.failures:
            raise self.world.failures[0]


def with_limit(one: BudgetEntry, limit: int) -> BudgetEntry:
    return entry(one.id.int, limit, **_rest_of(one))


def replace_epoch(one: BudgetEntry, at: float) -> BudgetEntry:
    return entry(one.id.int, one.limit_nanos, **(_rest_of(one) | {"epoch_at": datetime.fromtimestamp(at, UTC)}))


def _rest_of(one: BudgetEntry) -> dict[str, object]:
    kept = ("window", "hard", "unbounded", "wait_ms", "epoch_at")
    return {name: getattr(one, name) for name in kept}


def run(seed: int, terms: Terms | None = None, make: Make = MemoryBooks, fate: Fate | None = None) -> World:
    """Raises Violated, with what is needed to run it again."""
    with virtual_time() as loop:
        life = Life(loop, seed, terms or Terms(), make, fate)
        try:
            loop.run_until_complete(life.live())
        except Violated as error:
            raise Violated(f"seed {seed}, {terms}: {error}") from error
        return life.world
