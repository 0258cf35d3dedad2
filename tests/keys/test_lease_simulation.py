"""Workers, their leases and the ledger through crashes and lost messages at every await (testing.md L10).

A seed that fails is named; `run(seed, terms)` with the same terms takes the same steps again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from uuid import UUID

import pytest
from django.db import transaction

from keys.entries import BudgetEntry
from keys.holds import Holds
from keys.leases import Account, Demand
from keys.slices import Hold, Request, Slice
from tests.keys.books import Lent, MemoryBooks, Place, PostgresBooks, Standing
from tests.keys.scenario import MISHAPS, Terms, run
from tests.keys.simulator import Violated, Worker, World

KINDS = {
    "calm": Terms(seconds=3.0, requests=25, mishaps=0.0),
    "stormy": Terms(seconds=3.0, requests=25, mishaps=0.06),
    "changing": Terms(seconds=3.0, requests=25, mishaps=0.03, changes=True),
    "overrunning": Terms(seconds=3.0, requests=25, mishaps=0.03, overruns=True, changes=True),
}


def many(seeds: Sequence[int], what: str) -> None:
    counts: Counter[str] = Counter()
    steps = 0
    for terms in KINDS.values():
        for seed in seeds:
            world = run(seed, terms)
            counts.update(world.counts)
            steps += world.steps
    served, crashes = counts["served"], counts["crash"]
    lost = counts["lost"] + counts["late"]
    print(
        f"L10: {what}: {len(seeds) * len(KINDS)} runs, {steps:,} steps, {served:,} holds,"
        f" {crashes} crashes, {lost} lost messages, violations 0"
    )
    assert min(served, crashes, lost, counts["reset"], counts["refused: busy"], counts["refused as late"]) > 0


def test_no_seed_breaks_what_must_hold() -> None:
    many(range(50), "simulator")


@pytest.mark.long
def test_no_seed_of_thousands_breaks_what_must_hold() -> None:
    many(range(1_000, 3_000), "simulator, long")


def mishaps_one_by_one(seed: int, terms: Terms) -> int:
    """Every mishap at every step of a run, one in each run; returns how many runs that were."""
    kinds: list[str] = []

    def note(step: int, kind: str) -> str:
        kinds.append(kind)
        return ""

    run(seed, terms, fate=note)
    runs = 0
    for at, kind in enumerate(list(kinds), 1):
        for mishap in MISHAPS[kind]:
            run(seed, terms, fate=lambda step, kind, at=at, mishap=mishap: mishap if step == at else "")  # type: ignore[misc]
            runs += 1
    return runs


def test_one_mishap_at_each_await() -> None:
    runs = sum(mishaps_one_by_one(seed, Terms(seconds=2.0, requests=10)) for seed in (1,))
    print(f"L10: simulator: each mishap at each await of a run: {runs} runs, violations 0")
    assert runs > 60


@pytest.mark.long
def test_one_mishap_at_each_await_of_many_runs() -> None:
    runs = sum(mishaps_one_by_one(seed, Terms(seconds=3.0, requests=25, changes=True)) for seed in range(10, 40))
    print(f"L10: simulator, long: each mishap at each await of 30 runs: {runs:,} runs, violations 0")


def test_a_seed_takes_the_same_steps_again() -> None:
    first, second = (run(7, KINDS["overrunning"]) for _ in range(2))
    assert (first.steps, first.counts) == (second.steps, second.counts)


# --- the simulator's books are PostgreSQL's


class BothBooks:
    """Every call goes to both, and both must answer alike. Their numbers of periods differ."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._one = MemoryBooks(lambda: datetime.now(UTC))
        self._other = PostgresBooks()
        self._there: dict[int, int] = {}

    def enter(self, entry: BudgetEntry) -> None:
        self._one.enter(entry)
        self._other.enter(entry)

    def open(self, wanted: Sequence[tuple[UUID, datetime, datetime | None]]) -> dict[tuple[UUID, datetime], int]:
        here, there = self._one.open(wanted), self._other.open(wanted)
        self._there |= {here[place]: there[place] for place in here}
        return here

    def exchange(self, worker: UUID, number: int, demands: Sequence[Demand]) -> list[Account]:
        here = self._one.exchange(worker, number, demands)
        moved = [Demand(**{n: getattr(d, n) for n in d.__struct_fields__}) for d in demands]
        for demand in moved:
            demand.period = self._there[demand.period]
        there = {account.period: account for account in self._other.exchange(worker, number, moved)}
        for account in here:
            expected = there[self._there[account.period]]
            expected.period = account.period
            assert account == expected
        return here

    def settle(self, amounts: Mapping[Place, tuple[int, int]]) -> None:
        self._one.settle(amounts)
        self._other.settle({(worker, self._there[period]): what for (worker, period), what in amounts.items()})

    def close(self, worker: UUID) -> int:
        freed = self._one.close(worker)
        assert freed == self._other.close(worker)
        return freed

    def limit(self, budget: UUID, nanos: int) -> None:
        self._one.limit(budget, nanos)
        self._other.limit(budget, nanos)

    def raise_by(self, budget: UUID, nanos: int) -> None:
        self._one.raise_by(budget, nanos)
        self._other.raise_by(budget, nanos)

    def look(self) -> dict[int, Standing]:
        return self._one.look()

    def compare(self) -> None:
        there = self._other.look()
        for number, one in self._one.look().items():
            assert _without_empty(one) == _without_empty(there[self._there[number]])


def _without_empty(one: Standing) -> Standing:
    one.lent = {worker: lent for worker, lent in one.lent.items() if lent != Lent()}
    return one


@pytest.mark.django_db
@pytest.mark.parametrize("kind", ["stormy", "overrunning"])
def test_the_simulators_books_do_what_postgresql_does(kind: str) -> None:
    served = 0
    for seed in range(3):
        with transaction.atomic():
            world = run(seed, KINDS[kind], make=BothBooks)
            assert isinstance(world.books, BothBooks)
            world.books.compare()
            served += world.counts["served"]
            transaction.set_rollback(True)
    assert served > 10


# --- negative controls: each guard switched off must be seen within a few seeds


def _no_limit(patched: pytest.MonkeyPatch) -> None:
    patched.setattr(MemoryBooks, "room", lambda *_: 10**12)


def _answers_late_questions(patched: pytest.MonkeyPatch) -> None:
    patched.setattr(MemoryBooks, "arrive", lambda *_: None)


def _hold_check_off(patched: pytest.MonkeyPatch) -> None:
    def place(self: Holds, slices: list[Slice], request: Request) -> Hold | None:
        for one in slices:
            one.held += request.most
        return Hold(slices, [request.most] * len(slices), request.most)

    patched.setattr(Holds, "place", place)


def _two_slices_of_a_period(patched: pytest.MonkeyPatch) -> None:
    def fresh(self: Holds, entry: BudgetEntry, old: Slice | None, at: float) -> Slice:
        made = Slice(entry, at)
        if old is not None:
            self._former.append(old)
        self._slices[entry.id] = made
        return made

    patched.setattr(Holds, "_slice", fresh)


def _forgets_to_subtract_what_it_gives_back(patched: pytest.MonkeyPatch) -> None:
    async def exchange(self: Holds, wanted: Callable[[], dict[Slice, Demand]]) -> None:
        async with self._asking:
            demands = wanted()
            await self._open([one for one in demands if one.period == 0])
            for one, demand in demands.items():
                demand.period = one.period
            asked = {one.period: one for one in demands if one.period}
            accounts = await self._bank.exchange([demand for demand in demands.values() if demand.period])
            self._told(asked, accounts)

    patched.setattr(Holds, "_exchange", exchange)


def _forgets_lost_answers(patched: pytest.MonkeyPatch) -> None:
    patched.setattr(Slice, "done", property(lambda self: self.in_step and self.free <= 0))


def _refunds_what_is_uncertain(patched: pytest.MonkeyPatch) -> None:
    def keep(self: Holds, hold: Hold) -> None:
        self.settle(hold, 0)

    patched.setattr(Holds, "keep", keep)


def _dispatches_without_record(patched: pytest.MonkeyPatch) -> None:
    """A worker dies, and nobody knows what it had sent."""

    def crash(self: Worker) -> None:
        for attempt in self.dispatched.values():
            for period in attempt.taken:
                self.world.real[period] += attempt.nanos
        self.dispatched.clear()
        real(self)

    real = Worker.crash
    patched.setattr(Worker, "crash", crash)


def _never_adopts(patched: pytest.MonkeyPatch) -> None:
    def adopt(self: World, worker: Worker) -> None:
        self.ship(worker)
        self.workers.remove(worker)

    patched.setattr(World, "adopt", adopt)


def _closes_without_giving_back(patched: pytest.MonkeyPatch) -> None:
    def close(self: MemoryBooks, worker: UUID) -> int:
        leased = {number: period.leased for number, period in self._periods.items()}
        freed = real(self, worker)
        for number, nanos in leased.items():
            self._periods[number].leased = nanos
        return freed

    real = MemoryBooks.close
    patched.setattr(MemoryBooks, "close", close)


@pytest.mark.parametrize(
    "planted",
    [
        _no_limit,
        _answers_late_questions,
        _hold_check_off,
        _two_slices_of_a_period,
        _forgets_to_subtract_what_it_gives_back,
        _forgets_lost_answers,
        _refunds_what_is_uncertain,
        _dispatches_without_record,
        _never_adopts,
        _closes_without_giving_back,
    ],
)
def test_a_planted_fault_is_found(
    planted: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    planted(monkeypatch)
    for seed in range(400):
        for name, terms in KINDS.items():
            try:
                run(seed, terms)
            except Violated as found:
                print(f"L10: {planted.__name__.strip('_').replace('_', ' ')}: found by seed {seed}, {name}: {found}")
                return
    pytest.fail("no seed found it")
