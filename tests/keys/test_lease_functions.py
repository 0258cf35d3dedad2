"""The database's functions against one another, in sessions of their own."""

from __future__ import annotations

import threading
from uuid import UUID, uuid4

import psycopg
import pytest

from keys import leases
from keys.leases import Demand
from keys.models import BudgetPeriod, Lease, VirtualKey
from tests.usage.events import budget

pytestmark = pytest.mark.django_db(transaction=True)


def periods(count: int) -> list[int]:
    made = [budget(VirtualKey.objects.create(name=f"key {number}"), limit_nanos=1_000) for number in range(count)]
    found = leases.open_periods([(one.id, one.created_at, None) for one in made])
    return [found[one.id, one.created_at] for one in made]


def ask(session: psycopg.Connection[tuple[object, ...]], worker: UUID, number: int, *periods: int) -> None:
    demands = [Demand(period, least=10, wanted=10) for period in periods]
    session.execute(leases.EXCHANGE, leases.arguments(worker, "node", 1, number, demands))


def test_a_question_that_is_being_answered_makes_no_lease_behind_the_back_of_a_close(database_url: str) -> None:
    """A worker is killed in the middle of a question: the database answers it, whoever waits for that."""
    (first, second), worker = periods(2), uuid4()
    with psycopg.connect(database_url) as asking, psycopg.connect(database_url, autocommit=True) as closing:
        ask(asking, worker, 1, first)
        asking.commit()
        ask(asking, worker, 2, second)  # not committed yet
        thread = threading.Thread(target=closing.execute, args=("SELECT conduit_close(%s)", [worker]))
        thread.start()
        thread.join(1)
        assert thread.is_alive(), "closing waits for the question"
        asking.commit()
        thread.join(20)
        with pytest.raises(psycopg.errors.DatabaseError) as refused:
            ask(asking, worker, 3, first)
        assert refused.value.sqlstate == leases.CLOSED
    assert not Lease.objects.exists()
    assert {period.leased_nanos for period in BudgetPeriod.objects.all()} == {0}


def test_a_question_that_comes_after_a_later_one_is_not_answered(database_url: str) -> None:
    (period,), worker = periods(1), uuid4()
    with psycopg.connect(database_url, autocommit=True) as session:
        ask(session, worker, 1, period)
        ask(session, worker, 3, period)
        for late in (2, 3):
            with pytest.raises(psycopg.errors.DatabaseError) as refused:
                ask(session, worker, late, period)
            assert refused.value.sqlstate == leases.LATE
    assert Lease.objects.get().granted_nanos == BudgetPeriod.objects.get().leased_nanos == 20
