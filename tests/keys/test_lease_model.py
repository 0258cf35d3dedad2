"""A stateful model over PostgreSQL's real functions and the workers' real memory (testing.md L10).

Hypothesis chooses who asks, settles, keeps, ticks, dies, is adopted, what is lost and which limit changes; the world's
invariants (tests/keys/simulator.py) are looked at after each step, and at the end everything must have come back.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine
from contextlib import ExitStack
from random import Random
from typing import Any

import pytest
from django.db import transaction
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from keys.entries import BudgetEntry
from keys.holds import Refused
from keys.slices import Request
from tests.keys.books import PostgresBooks
from tests.keys.scenario import entry, replace_epoch, with_limit
from tests.keys.simulator import Attempt, Worker, World
from tests.keys.virtual_time import virtual_time

places = st.integers(0, 9)
limits = st.sampled_from([20_000, 1_000, 100, 0])
DONE: Counter[str] = Counter()


class Leases(RuleBasedStateMachine):
    """`attempts` are in flight; `mishap` happens to the next question."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.stack.enter_context(transaction.atomic())
        self.stack.callback(transaction.set_rollback, True)
        self.loop = self.stack.enter_context(virtual_time())
        self.world = World(self.loop, PostgresBooks(), self.fate, Random(1))
        self.mishap = ""
        self.attempts: list[tuple[Worker, Attempt]] = []
        self.budgets: list[BudgetEntry] = []
        self.highest: dict[object, int] = {}
        self.raised: Counter[object] = Counter()

    def fate(self, step: int, kind: str) -> str:
        if (kind, self.mishap) in {("question", "lost"), ("question", "late"), ("answer", "lost answer")}:
            fate, self.mishap = self.mishap.split()[0], ""
            return fate
        return ""

    def run(self, what: Coroutine[Any, Any, Any]) -> Any:
        async def whole() -> Any:
            return await what

        return self.loop.run_until_complete(whole())

    @initialize(workers=st.integers(1, 3), chosen=st.lists(st.sampled_from([20_000, 1_000]), min_size=1, max_size=3))
    def begin(self, workers: int, chosen: list[int]) -> None:
        for number, limit in enumerate(chosen, 1):
            made = entry(number, limit, wait_ms=400)
            self.budgets.append(made)
            self.world.books.enter(made)
            self.highest[made.id] = limit
        for _ in range(workers):
            self.run(self._join())

    async def _join(self) -> None:
        self.world.join()

    def worker(self, place: int) -> Worker:
        return self.world.alive[place % len(self.world.alive)]

    # --- requests

    @rule(place=places, mask=st.integers(1, 7), asked=st.lists(st.integers(1, 500), min_size=1, max_size=4))
    def place(self, place: int, mask: int, asked: list[int]) -> None:
        for nanos in asked:
            self._place(place, mask, nanos)
            place += 1

    def _place(self, place: int, mask: int, most: int) -> None:
        chosen = [one for index, one in enumerate(self.budgets) if mask >> index & 1] or self.budgets[:1]
        worker = self.worker(place)

        async def ask() -> None:
            try:
                attempt = await worker.obtain(chosen, Request(most // (1 + most % 2), most))
                self.attempts.append((worker, attempt))  # now: a crash makes a new list meanwhile
                DONE["held"] += 1
            except Refused as error:
                DONE[f"refused: {error.reason}"] += 1

        async def begin() -> None:
            worker.spawn(ask())
            await asyncio.sleep(0.15)

        self.run(begin())

    @precondition(lambda self: self.attempts)
    @rule(place=places, share=st.sampled_from([0.0, 0.3, 1.0, 1.7]))
    def settle(self, place: int, share: float) -> None:
        worker, attempt = self.attempts.pop(place % len(self.attempts))
        worker.end(attempt, int(attempt.nanos * share))
        DONE["settled"] += 1

    @precondition(lambda self: self.attempts)
    @rule(place=places)
    def keep(self, place: int) -> None:
        worker, attempt = self.attempts.pop(place % len(self.attempts))
        worker.end(attempt, 0, uncertain=True)
        DONE["kept"] += 1

    # --- time, messages

    @rule(place=places)
    def tick(self, place: int) -> None:
        self.run(self.worker(place).tick())

    @rule(seconds=st.sampled_from([0.05, 0.5, 2.0]))
    def wait(self, seconds: float) -> None:
        self.run(asyncio.sleep(seconds))

    @precondition(lambda self: not self.mishap)
    @rule(what=st.sampled_from(["lost", "late", "lost answer"]))
    def next_message_fails(self, what: str) -> None:
        self.mishap = what
        DONE[what] += 1

    @precondition(lambda self: any(worker.line.late for worker in self.world.workers))
    @rule()
    def late_questions_arrive(self) -> None:
        self.run(self._stragglers())

    async def _stragglers(self) -> None:
        self.world.stragglers()

    # --- the ledger, deaths

    @rule(place=places, share=st.sampled_from([0.5, 1.0]), twice=st.booleans())
    def ship(self, place: int, share: float, twice: bool) -> None:
        worker = self.world.workers[place % len(self.world.workers)]
        self.world.ship(worker, worker.shipped + int((len(worker.journal) - worker.shipped) * share))
        if twice:
            self.world.apply(worker, worker.journal[: worker.shipped])

    @precondition(lambda self: self.attempts)
    @rule(place=places)
    def crash(self, place: int) -> None:
        worker = self.worker(place)
        worker.crash()
        self.attempts = [(one, attempt) for one, attempt in self.attempts if one is not worker]
        self.run(self._join())
        DONE["crashed"] += 1

    @precondition(lambda self: len(self.world.alive) < len(self.world.workers))
    @rule()
    def adopt(self) -> None:
        for worker in [worker for worker in self.world.workers if not worker.alive]:
            self.world.adopt(worker)
            DONE["adopted"] += 1

    # --- what operators do

    def _noted(self, place: int, *, told: bool) -> None:
        one = self.budgets[place]
        self.highest[one.id] = max(self.highest[one.id], one.limit_nanos + self.raised[one.id])
        if told:
            self.run(self._changed(one))

    async def _changed(self, one: BudgetEntry) -> None:
        self.world.changed(one.id)
        await asyncio.sleep(0.1)

    @precondition(lambda self: self.attempts)
    @rule(place=places, limit=limits, told=st.booleans())
    def set_limit(self, place: int, limit: int, told: bool) -> None:
        place %= len(self.budgets)
        self.budgets[place] = with_limit(self.budgets[place], limit)
        self.world.books.limit(self.budgets[place].id, limit)
        self._noted(place, told=told)

    @rule(place=places, nanos=st.sampled_from([0, 0, 500, 3_000]), told=st.booleans())
    def raise_or_end_it(self, place: int, nanos: int, told: bool) -> None:
        place %= len(self.budgets)
        self.raised[self.budgets[place].id] = nanos
        self.world.books.raise_by(self.budgets[place].id, nanos)
        self._noted(place, told=told)

    @precondition(lambda self: self.attempts)
    @rule(place=places)
    def reset(self, place: int) -> None:
        place %= len(self.budgets)
        self.budgets[place] = replace_epoch(self.budgets[place], self.world.now())
        self.world.books.enter(self.budgets[place])
        DONE["reset"] += 1

    # --- what must hold

    @invariant()
    def holds(self) -> None:
        DONE["steps"] += 1
        self.world.check()
        assert not self.world.failures

    def teardown(self) -> None:
        try:
            if self.world.workers:
                self.run(self._peace())
        finally:
            self.stack.close()

    async def _peace(self) -> None:
        """All that is in flight ends; after that nothing may be leased, and nothing overspent."""
        world, self.mishap = self.world, ""
        world.stragglers()
        await asyncio.sleep(5)  # longer than a question may take to be given up, so that whoever waits has been told
        excess = Counter(world.departed)
        for worker, attempt in self.attempts:
            worker.end(attempt, attempt.nanos)
        for worker in list(world.workers):
            world.ship(worker)
            if not worker.alive:
                excess.update(worker.excess)
                world.adopt(worker)
        for _ in range(12):
            for worker in world.alive:
                await worker.tick()
            await asyncio.sleep(0.6)
        for worker in world.alive:
            excess.update(worker.excess)
        world.check()
        for period, one in world.books.look().items():
            assert one.leased == 0, f"{one.leased} of period {period} never came back"
            assert one.settled + one.uncertain <= self.highest[one.budget] + excess[period]


def explore(examples: int, steps: int, what: str, *, same: bool = False) -> None:
    """`same`: the same examples in every run."""
    DONE.clear()
    quiet = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    run_state_machine_as_test(
        Leases,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=quiet,
            database=None,
            derandomize=same,
        ),
    )
    print(f"L10: {what}: {DONE['steps']:,} steps, {dict(sorted(DONE.items()))}, violations 0")
    assert min(DONE[name] for name in ("held", "settled", "kept", "adopted", "lost", "late", "lost answer")) > 0


@pytest.mark.django_db
def test_leases_hold_whatever_happens() -> None:
    explore(40, 40, "model on PostgreSQL", same=True)


@pytest.mark.long
@pytest.mark.django_db
def test_leases_hold_whatever_happens_for_long() -> None:
    explore(600, 60, "model on PostgreSQL, long")
