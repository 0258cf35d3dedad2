"""N workers' real `Holds` against books of leases, on a clock of its own, with crashes and lost messages.

Everything that waits goes through `World.step`, the only place where something can go wrong: the `fate` given to the
world decides by the step's number and kind. Invariants are looked at after every commit of the books and every step.

What must hold of each period, whatever happens:
    a question that is answered never brings settled + leased + uncertain over the limit (where a lowered limit or a
    cost above its hold has put it there already, leased does not grow);
    leased is the sum of the open leases;
    what a worker holds, and has spent without the ledger knowing it, is covered by its lease.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import Any
from uuid import UUID

from keys.entries import BudgetEntry
from keys.holds import Holds
from keys.leases import Account, BankAway, Demand
from keys.slices import Hold, Request, Slice
from tests.keys.books import Books, Closed, Late
from tests.keys.virtual_time import VirtualLoop

EPOCH = datetime(2027, 2, 28, 23, 59, 57, tzinfo=UTC).timestamp()  # a moment before a day, a week and a month begin
Fate = Callable[[int, str], str]  # step's number and kind to "" or what happens there


class Violated(AssertionError):
    """An invariant does not hold."""


@dataclass
class Attempt:
    """`taken`: of each period; `nanos`: what is set aside of each when the cost stays unknown."""

    number: int
    hold: Hold
    taken: dict[int, int]

    @property
    def nanos(self) -> int:
        return self.hold.nanos


@dataclass
class Settled:
    number: int
    nanos: int
    uncertain: bool
    slices: list[Slice]


class Worker:
    """Its memory is gone with it; its journal stays."""

    def __init__(self, world: World, id: UUID) -> None:
        self.world, self.id = world, id
        self.alive = True
        self.line = Line(self)
        self.holds = Holds(self.line)
        self.journal: list[Settled] = []
        self.shipped = 0
        self.dispatched: dict[int, Attempt] = {}
        self.excess: Counter[int] = Counter()  # by period: what attempts cost beyond what was taken for them
        self._tasks: set[asyncio.Task[Any]] = set()
        self.spawn(self.holds.run())

    def spawn(self, what: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = self.world.loop.create_task(what)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and self.alive:
            self.world.failures.append(error)

    def crash(self) -> None:
        self.alive = False
        for task in self._tasks:
            task.cancel()

    # --- an attempt

    def dispatch(self, hold: Hold) -> Attempt:
        taken = {one.period: nanos for one, nanos in zip(hold.slices, hold.taken, strict=True) if one.hard}
        attempt = Attempt(self.world.next_number(), hold, taken)
        self.dispatched[attempt.number] = attempt
        return attempt

    def end(self, attempt: Attempt, nanos: int, *, uncertain: bool = False) -> None:
        """Journalled, then known to the memory, as settlement does it: nothing comes between."""
        if not self.alive:
            return
        nanos = attempt.nanos if uncertain else nanos
        self.journal.append(Settled(attempt.number, nanos, uncertain, attempt.hold.slices))
        del self.dispatched[attempt.number]
        for period, taken in attempt.taken.items():
            self.excess[period] += max(0, nanos - taken)
        if uncertain:
            self.holds.keep(attempt.hold)
        else:
            self.holds.settle(attempt.hold, nanos)

    async def obtain(self, budgets: Sequence[BudgetEntry], request: Request) -> Attempt:
        """As the gateway does it: again, when the window ended meanwhile. Raises Refused."""
        while True:
            hold = await self.holds.obtain(self.holds.slices(budgets, self.world.now()), request)
            at = self.world.now()
            if all(one.start <= at < one.end for one in hold.slices):
                return self.dispatch(hold)
            self.holds.settle(hold, 0)

    async def tick_forever(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            await self.tick()

    async def tick(self) -> None:
        try:
            await self.holds.tick(self.world.now())
        except BankAway:
            self.world.counts["ticks that failed"] += 1

    def unshipped(self) -> Counter[int]:
        """By period: what the ledger does not know yet."""
        found: Counter[int] = Counter()
        for one in self.journal[self.shipped :]:
            for where in one.slices:
                found[where.period] += one.nanos
        return found

    def held(self) -> Counter[int]:
        """By period: what its attempts in flight hold."""
        found: Counter[int] = Counter()
        for attempt in self.dispatched.values():
            found.update(attempt.taken)
        return found


class Line:
    """keys.leases.Bank: a connection on which questions and answers get lost, or arrive when nobody waits any more."""

    def __init__(self, worker: Worker) -> None:
        self._worker, self._number = worker, 0
        self.late: list[tuple[int, list[Demand]]] = []

    async def open(self, periods: Sequence[tuple[UUID, datetime, datetime | None]]) -> dict[tuple[UUID, datetime], int]:
        await self._worker.world.step(self._worker, "open")
        found = self._worker.world.books.open(periods)
        await self._worker.world.step(self._worker, "opened")
        return found

    async def exchange(self, demands: Sequence[Demand]) -> list[Account]:
        world, worker = self._worker.world, self._worker
        self._number += 1
        number, asked = self._number, [Demand(**{n: getattr(d, n) for n in d.__struct_fields__}) for d in demands]
        if await world.step(worker, "question") == "late":
            self.late.append((number, asked))
            raise BankAway("the question is still on its way")
        accounts = self.deliver(number, asked)
        await world.step(worker, "answer")
        return accounts

    def deliver(self, number: int, demands: Sequence[Demand]) -> list[Account]:
        world = self._worker.world
        before = {period: one.gone for period, one in world.books.look().items()}
        try:
            accounts = world.books.exchange(self._worker.id, number, demands)
        except Closed as error:
            raise BankAway("closed") from error
        world.after_exchange(before)
        for demand, account in zip(sorted(demands, key=lambda one: one.period), accounts, strict=True):
            if demand.recall and account.leased > account.open:
                world.recall(demand.period, self._worker)
        return accounts


@dataclass
class World:
    loop: VirtualLoop
    books: Books
    fate: Fate
    chance: Random
    workers: list[Worker] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[BaseException] = field(default_factory=list)
    real: Counter[int] = field(default_factory=Counter)  # by period: what attempts cost, or may have cost
    departed: Counter[int] = field(default_factory=Counter)  # by period: the excess of workers that are gone
    soft: set[UUID] = field(default_factory=set)
    steps: int = 0
    _applied: set[int] = field(default_factory=set)
    _numbers: int = 0

    def now(self) -> float:
        return EPOCH + self.loop.time()

    def next_number(self) -> int:
        self._numbers += 1
        return self._numbers

    def join(self) -> Worker:
        worker = Worker(self, UUID(int=self.chance.getrandbits(128), version=4))
        self.workers.append(worker)
        return worker

    @property
    def alive(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.alive]

    # --- where things go wrong

    async def step(self, worker: Worker, kind: str) -> str:
        """An await. Returns "late" where the caller has to see to it; other mishaps are raised."""
        self.steps += 1
        fate = self.fate(self.steps, kind)
        self.counts[fate] += bool(fate)
        await asyncio.sleep(self.chance.random() * (0.5 if self.chance.random() < 0.1 else 0.02))
        if fate == "crash" and worker.alive:
            worker.crash()
        if not worker.alive:
            raise asyncio.CancelledError
        if fate == "lost":
            raise BankAway("lost")
        if kind == "held":
            self.check()
        return fate

    def stragglers(self) -> None:
        """Questions that arrive after all."""
        for worker in self.workers:
            late, worker.line.late = worker.line.late, []
            for number, demands in late:
                try:
                    worker.line.deliver(number, demands)
                except (Late, BankAway):
                    self.counts["refused as late"] += 1
        self.check()

    def recall(self, period: int, by: Worker) -> None:
        """The notification to everybody else; one in ten gets lost."""
        for worker in self.alive:
            if worker is not by and self.chance.random() < 0.9:
                self.loop.call_later(self.chance.random() * 0.02, worker.holds.recalled, period)

    def changed(self, budget: UUID) -> None:
        for worker in self.alive:
            self.loop.call_later(self.chance.random() * 0.02, worker.holds.doubt, budget)

    # --- the ledger

    def ship(self, worker: Worker, until: int | None = None) -> None:
        """Applies what was journalled up to there; what was applied before counts nothing."""
        end = len(worker.journal) if until is None else until
        self.apply(worker, worker.journal[worker.shipped : end])
        worker.shipped = max(worker.shipped, end)
        self.check()

    def apply(self, worker: Worker, records: Sequence[Settled]) -> None:
        amounts: defaultdict[tuple[UUID, int], list[int]] = defaultdict(lambda: [0, 0])
        for record in records:
            if self.is_new(record):
                for period in self._periods(record.slices):
                    amounts[worker.id, period][record.uncertain] += record.nanos
                    self.real[period] += record.nanos
        self.books.settle({place: (cost, held) for place, (cost, held) in sorted(amounts.items(), key=str)})

    def _periods(self, slices: Sequence[Slice]) -> list[int]:
        """The ledger finds by its time what the worker could not name yet."""
        return [
            one.period or self.books.open([(one.entry.id, one.starts_at, one.ended_at)])[one.entry.id, one.starts_at]
            for one in slices
        ]

    def is_new(self, record: Settled) -> bool:
        if record.number in self._applied:
            return False
        self._applied.add(record.number)
        return True

    def adopt(self, worker: Worker) -> None:
        """What the shipper does for a worker that is gone."""
        self.ship(worker)
        lost = [Settled(a.number, a.nanos, True, a.hold.slices) for a in worker.dispatched.values()]
        for attempt in worker.dispatched.values():
            for period, taken in attempt.taken.items():
                worker.excess[period] += max(0, attempt.nanos - taken)
        self.books.close(worker.id)
        self.apply(worker, lost)
        worker.dispatched.clear()
        self.workers.remove(worker)
        self.departed.update(worker.excess)
        self.counts["adopted"] += 1
        self.check()

    # --- what must hold

    def after_exchange(self, before: dict[int, int]) -> None:
        for period, one in self.books.look().items():
            if one.gone > max(one.allowed, before.get(period, 0)):
                raise self.violated(f"period {period}: {one.gone} of {one.allowed} after a grant")
        self.check()

    def check(self) -> None:
        found = self.books.look()
        for period, one in found.items():
            lent = sum(lease.open for lease in one.lent.values())
            if one.leased != lent or min(one.leased, one.uncertain, one.settled) < 0:
                raise self.violated(f"period {period}: {one.leased} leased, {lent} in leases")
            if one.settled + one.uncertain != self.real[period]:
                raise self.violated(f"period {period}: {one.settled} + {one.uncertain} booked, {self.real[period]} due")
        for worker in self.workers:
            unshipped, held, granted = worker.unshipped(), worker.held(), {}
            for period, one in found.items():
                lease = one.lent.get(worker.id)
                if lease is not None:
                    granted[period] = lease.granted
                covered = (lease.granted - lease.spent if lease else 0) + worker.excess[period]
                needed = held[period] + unshipped[period]
                if needed > covered and one.budget not in self.soft:
                    raise self.violated(f"period {period}: a worker needs {needed}, its lease covers {covered}")
            if worker.alive:
                self._memory(worker, granted)

    def _memory(self, worker: Worker, granted: dict[int, int]) -> None:
        """No slice promises more than the database has granted, and no period has two."""
        slices: list[Slice] = [one for one in worker.holds._all() if one.period]
        for period, number in Counter(one.period for one in slices).items():
            if number > 1:
                raise self.violated(f"period {period}: a worker has {number} slices of it")
        for one in slices:
            if one.granted > granted.get(one.period, 0):
                raise self.violated(f"period {one.period}: {one.granted} in memory, {granted.get(one.period)} granted")

    def violated(self, what: str) -> Violated:
        return Violated(f"at step {self.steps}: {what}")
