"""Each guard of the money, switched off: the oracle or the model must turn red, or its tests prove nothing.

The switches are here and in the tests that they are for, never in the product: a method replaced, or a function of the
test's own database. More of them: tests/keys/test_lease_simulation.py (memory), tests/usage/test_ledger.py (rows).
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.db import connection, transaction

from keys import leases
from keys.holds import Holds
from keys.leases import Demand
from keys.models import Budget, BudgetPeriod, Lease, VirtualKey
from keys.slices import Hold, Request, Slice
from tests.harness import oracle
from tests.harness.gateway import RunningGateway
from tests.harness.invoice import Billed
from tests.keys.books import PostgresBooks
from tests.keys.scenario import Terms, run
from tests.keys.simulator import Violated
from tests.proxy.conftest import committed, gateway
from tests.usage.events import budget, costing, dispatched
from tests.usage.test_shipping import NODE, Worker, pass_until_idle
from usage import ledger
from usage.records import Settled
from usage.shipping import Shipper
from usage.verification import verify

__all__ = ["committed", "gateway"]


def red() -> set[str]:
    return {check.name for check in verify().checks if not check.ok}


@pytest.fixture
def undone() -> Iterator[None]:
    """The database's functions come back as they were."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


def rewrite(function: str, old: str, new: str) -> None:
    """A function of this test's database without its guard."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_get_functiondef(%s::regproc)", [function])
        (text,) = cursor.fetchone()
        assert old in text, f"{function} has no {old!r} any more: say anew how its guard is switched off"
        cursor.execute(text.replace(old, new).replace("%", "%%"))


def found_by_the_model(seeds: int = 60) -> str:
    """What the simulator says about PostgreSQL's functions as they are now; the first thing that it finds."""
    for seed in range(seeds):
        try:
            with transaction.atomic():
                try:
                    run(seed, Terms(seconds=3.0, requests=25, mishaps=0.06), make=lambda now: PostgresBooks())
                finally:
                    transaction.set_rollback(True)
        except Violated as found:
            return str(found)
    return ""


@pytest.mark.django_db
def test_with_every_guard_the_model_finds_nothing(undone: None) -> None:
    assert found_by_the_model(12) == ""


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("function", "old", "new"),
    [
        ("conduit_exchange", "room := allowed - p.settled_nanos", "room := 1000000000000 - p.settled_nanos"),
        ("conduit_exchange", "l.granted_nanos := l.granted_nanos - d.back;", ""),
        ("conduit_exchange", "AND w.asked < excluded.asked", ""),
        ("conduit_settle", "uncertain_nanos = uncertain_nanos + d.uncertain", "uncertain_nanos = uncertain_nanos"),
        ("conduit_settle", "leased_nanos = leased_nanos - freed", "leased_nanos = leased_nanos"),
        ("conduit_close", "SET leased_nanos = leased_nanos - gone.open", "SET leased_nanos = leased_nanos"),
    ],
    ids=["limit check", "what is given back", "order of questions", "uncertain kept", "settled from a lease", "close"],
)
def test_a_function_of_the_database_without_its_guard_is_found(undone: None, function: str, old: str, new: str) -> None:
    rewrite(function, old, new)
    found = found_by_the_model()
    print(f"negative control: {function} without {old!r}: {found}")
    assert found


# --- the hold check


def test_without_the_hold_check_the_oracle_turns_red(gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same crowd twice: with the check the books are right, without it they are not."""
    _crowd(gateway)
    oracle.check(gateway)

    def place(self: Holds, slices: list[Slice], request: Request) -> Hold | None:
        for one in slices:
            one.held += request.most
        return Hold(slices, [request.most] * len(slices), request.most)

    with monkeypatch.context() as patched:
        patched.setattr(Holds, "place", place)
        assert _crowd(gateway) == 30
    gateway.ship()
    problems = oracle.limits()
    print(f"negative control: hold check: {problems}")
    assert problems


def _crowd(gateway: RunningGateway) -> int:
    """Thirty at once on a key that can pay for few: how many were served."""
    key = gateway.key(budgets=[{"limit_usd": "0.00002", "wait_ms": 300}])

    def ask(number: int) -> int:
        return gateway.chat("hello big world", key=key, max_tokens=3).status_code

    with ThreadPoolExecutor(10) as threads:
        return list(threads.map(ask, range(30))).count(200)


# --- records and adoption


def spent_by_a_dead_worker(folder: Path, *, recorded: bool = True) -> Settled:
    """A worker with a lease of 1,000 dies with one attempt of 100 in flight."""
    own = budget(VirtualKey.objects.create(name="dead"), limit_nanos=10_000)
    period = leases.open_periods([(own.id, own.created_at, None)])[own.id, own.created_at]
    worker = Worker(folder)
    id = UUID(worker.name)
    PostgresBooks().exchange(id, 1, [Demand(period, least=1_000, wanted=1_000)])
    lost = costing(100, budgets=[own.id.bytes], periods=[period], held_nanos=100, worker=id.bytes)
    if recorded:
        worker.journal.append(ledger_record(lost))
    worker.die()
    return lost


def ledger_record(lost: Settled) -> bytes:
    from usage import records

    return records.encode(records.Dispatched(**{name: getattr(lost, name) for name in _DISPATCHED}))


_DISPATCHED = (*dispatched(costing(1)).__struct_fields__,)


@pytest.mark.django_db
def test_a_dead_workers_leases_come_back_and_its_open_attempt_stays_held(tmp_path: Path) -> None:
    spent_by_a_dead_worker(tmp_path / "journal")
    pass_until_idle(Shipper(tmp_path / "journal", NODE))
    period = BudgetPeriod.objects.get()
    assert (period.settled_nanos, period.leased_nanos, period.uncertain_nanos) == (0, 0, 100)
    assert red() == set()
    assert oracle.limits() == []


@pytest.mark.django_db
def test_without_the_dispatched_record_the_invoice_shows_an_attempt_that_no_event_has(tmp_path: Path) -> None:
    for recorded in (True, False):
        Budget.objects.all().delete()
        lost = spent_by_a_dead_worker(tmp_path / str(recorded), recorded=recorded)
        pass_until_idle(Shipper(tmp_path / str(recorded), NODE))
        from usage.models import UsageEvent

        billed: dict[str | None, Billed] = {str(UUID(bytes=lost.attempt_id)): Billed(nanos=100, requests=1)}
        assert bool(oracle.covers(UsageEvent.objects.all(), billed)) is not recorded
        VirtualKey.objects.all().delete()


@pytest.mark.django_db
def test_without_adoption_the_leases_of_a_dead_worker_never_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def adopt(self: Shipper, tail: Any) -> None:
        tail.open.clear()
        tail.finished = True

    monkeypatch.setattr(Shipper, "_adopt", adopt)
    spent_by_a_dead_worker(tmp_path / "journal")
    pass_until_idle(Shipper(tmp_path / "journal", NODE))
    assert BudgetPeriod.objects.get().leased_nanos == 1_000
    assert Lease.objects.exists()


@pytest.mark.django_db
def test_without_the_row_of_an_uncertain_attempt_the_checks_turn_red(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "_UNCERTAIN", "SELECT %s, %s, %s, %s, %s, %s, %s, %s")
    spent_by_a_dead_worker(tmp_path / "journal")
    pass_until_idle(Shipper(tmp_path / "journal", NODE))
    assert red() == {"uncertain"}


@pytest.mark.django_db
def test_settling_the_same_batch_twice_without_the_guard_turns_the_checks_red(monkeypatch: pytest.MonkeyPatch) -> None:
    own = budget(VirtualKey.objects.create(name="twice"), limit_nanos=100)
    batch = [costing(60, budgets=[own.id.bytes], held_nanos=60)]
    ledger.apply(batch)
    ledger.apply(batch)
    assert (red(), oracle.limits()) == (set(), [])
    monkeypatch.setattr(ledger, "_first_of_each", lambda records, duplicates: records)
    ledger.apply(batch)
    assert red() == {"periods"}
    assert oracle.limits()
