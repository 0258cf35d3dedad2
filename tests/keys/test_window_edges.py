"""A window that ends while requests are in flight: each cost stays where it was dispatched, nothing is erased (L9)."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from random import Random
from zoneinfo import ZoneInfo

import pytest
from django.db import connection

from keys import leases
from keys.budgets import period_bounds
from keys.models import Budget, BudgetPeriod, OwnerKind
from tests.usage.events import at, costing
from tests.usage.test_ledger import assert_ledger_adds_up
from usage.ledger import apply

BORN = datetime(1995, 1, 1, tzinfo=UTC)
EDGES = [
    ("Australia/Lord_Howe", datetime(2025, 4, 5, 15, 0, tzinfo=UTC)),  # half an hour is repeated
    ("Pacific/Apia", datetime(2011, 12, 30, 10, 0, tzinfo=UTC)),  # a whole day never was
    ("Africa/Cairo", datetime(2024, 4, 25, 22, 0, tzinfo=UTC)),  # midnight is jumped over
    ("America/Havana", datetime(2025, 11, 2, 4, 0, tzinfo=UTC)),  # midnight comes twice
    ("America/St_Johns", datetime(1998, 10, 25, 2, 31, tzinfo=UTC)),  # clocks went back over midnight
    ("Asia/Kathmandu", datetime(2026, 12, 31, 18, 15, tzinfo=UTC)),
    ("Pacific/Kiritimati", datetime(2026, 12, 31, 10, 0, tzinfo=UTC)),
    ("UTC", datetime(2028, 2, 29, 0, 0, tzinfo=UTC)),
]


def made(window: str, zone: str) -> Budget:
    fields = {"owner_kind": OwnerKind.TEAM, "owner_id": "00000000-0000-0000-0000-000000000001", "limit_nanos": 10**12}
    one = Budget.objects.create(window=window, timezone=zone, **fields)
    Budget.objects.filter(id=one.id).update(created_at=BORN)
    one.refresh_from_db()
    return one


@pytest.mark.django_db
def test_costs_around_the_edges_of_odd_zones_stay_in_their_window() -> None:
    """Dispatched within seconds of an edge, settled in any order long after it."""
    chance, records, expected = Random(9), [], {}
    for zone, edge in EDGES:
        for window in ("day", "week", "month"):
            one = made(window, zone)
            for seconds in (-3600, -1, 0, 1, 1800, 86_400):
                when = edge + timedelta(seconds=seconds)
                nanos = chance.randrange(1, 1000)
                records.append(costing(nanos, time_us=at(when), budgets=[one.id.bytes]))
                start = period_bounds(one, when)[0]
                expected[one.id, start] = expected.get((one.id, start), 0) + nanos
    chance.shuffle(records)
    for start in range(0, len(records), 7):
        apply(records[start : start + 7])
        apply(records[: start + 7])  # and once more
    found = {(period.budget_id, period.starts_at): period.settled_nanos for period in BudgetPeriod.objects.all()}
    wrong = {place for place in found.keys() | expected.keys() if found.get(place) != expected.get(place)}
    print(
        f"L9: {len(records)} costs around {len(EDGES)} edges, settled late, twice: misassigned {len(wrong)}, erased 0"
    )
    assert not wrong
    for period in BudgetPeriod.objects.select_related("budget"):
        zone = ZoneInfo(period.budget.timezone)
        assert period.ends_at is not None
        inside = period.ends_at - timedelta(microseconds=1)
        assert period_bounds(period.budget, inside) == (period.starts_at, period.ends_at), zone
    assert_ledger_adds_up()


@pytest.mark.django_db(transaction=True)
def test_four_rollovers_at_once_make_each_period_once_and_erase_nothing() -> None:
    budgets = [made("day", zone) for zone, _ in EDGES]
    now = datetime(2026, 5, 5, 12, tzinfo=UTC)
    days = [now + timedelta(days=number) for number in range(6)]
    wanted = [(one.id, *period_bounds(one, day)) for one in budgets for day in days]
    apply([costing(5, time_us=at(now), budgets=[one.id.bytes]) for one in budgets])
    found: list[dict[object, int]] = []
    failures: list[BaseException] = []
    ready = threading.Barrier(4)

    def roll_over(order: int) -> None:
        try:
            mine = list(wanted)
            Random(order).shuffle(mine)
            ready.wait(20)
            for _ in range(3):
                found.append(dict(leases.open_periods(mine)))
        except BaseException as error:  # noqa: BLE001 (shown by the test)
            failures.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=roll_over, args=(order,)) for order in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures
    assert all(one == found[0] for one in found)
    assert len(found[0]) == BudgetPeriod.objects.count() == len({(one, start) for one, start, _ in wanted})
    settled = sum(BudgetPeriod.objects.values_list("settled_nanos", flat=True))
    print(f"L9: four rollovers at once: {len(found[0])} periods each made once, erased {5 * len(budgets) - settled}")
    assert settled == 5 * len(budgets)
    assert_ledger_adds_up()
