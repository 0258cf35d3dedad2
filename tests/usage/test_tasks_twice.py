"""Recurring tasks of two beats at once, a rebuild among them, while batches arrive twice: no rollup drifts (J6)."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from django.db import connection

from keys.models import VirtualKey
from tests.usage.events import budget, costing
from tests.usage.test_ledger import assert_ledger_adds_up
from usage import tasks
from usage.ledger import apply
from usage.models import UsageHour
from usage.records import Ended
from usage.verification import rebuild

BATCHES, SIZE = 30, 20


@pytest.mark.django_db(transaction=True)
def test_tasks_of_two_beats_and_a_rebuild_drift_nothing() -> None:
    own = budget(VirtualKey.objects.create(name="twice"))
    batches: list[list[Ended]] = [
        [costing(7, budgets=[own.id.bytes], tags=["a", "b"]) for _ in range(SIZE)] for _ in range(BATCHES)
    ]
    failures: list[BaseException] = []

    def ship() -> None:
        for batch in batches:
            apply(batch)

    def beat() -> None:
        for _ in range(3):
            tasks.ensure_partitions()
            tasks.verify_ledger()
            rebuild()

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 (shown by the test)
            failures.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=guarded, args=(work,)) for work in (ship, ship, beat, beat)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    assert not failures
    total = sum(UsageHour.objects.values_list("cost_nanos", flat=True))
    drift = total - 7 * BATCHES * SIZE
    print(f"J6: {BATCHES * SIZE} attempts shipped twice, tasks of two beats, 6 rebuilds: rollup drift {drift}")
    assert drift == 0
    assert_ledger_adds_up()
