"""A million costs far below a cent, through the pricing and the ledger's sums, against exact fractions (L8)."""

from __future__ import annotations

from datetime import UTC, datetime
from fractions import Fraction
from math import ceil
from random import Random
from uuid import UUID

import pytest
from django.db.models import Sum

from conduit.core.ids import uuid7
from keys.models import BudgetPeriod, VirtualKey
from providers.adapters.types import Usage
from tests.usage.events import budget, costing
from tests.usage.test_ledger import assert_ledger_adds_up
from usage.ledger import apply
from usage.models import UsageEvent, UsageHour
from usage.rates import PriceRow, cost

MANY = 1_000_000
COUNTS = range(400)
TABLE = {"input": 1, "output": 7, "cache_read": 999_999}  # nano-dollars per million units


def test_a_million_tiny_costs_drift_by_nothing() -> None:
    """Each line is rounded up to a whole nano-dollar once, and whole numbers are summed: no error can grow."""
    rates = {unit: ((0, rate),) for unit, rate in TABLE.items()}
    row = PriceRow(uuid7(), "", "tiny", UUID(int=0), datetime(2026, 1, 1, tzinfo=UTC), "override", rates)
    whole = {(unit, count): ceil(Fraction(count * rate, 10**6)) for unit, rate in TABLE.items() for count in COUNTS}
    total, exact = 0, 0
    for number in range(MANY):
        cached, fresh, out = number % 200, 1 + number // 200 % 199, number // 997 % 300
        total += cost(Usage(input_tokens=cached + fresh, cache_read_tokens=cached, output_tokens=out), row).nanos
        exact += whole["input", fresh] + whole["cache_read", cached] + whole["output", out]
    drift = total - exact
    print(f"L8: {MANY:,} costs of {total / MANY:.1f} nano-dollars each: drift {drift}")
    assert drift == 0


@pytest.mark.django_db
def test_the_ledgers_sums_of_tiny_costs_drift_by_nothing() -> None:
    key = VirtualKey.objects.create(name="tiny")
    own = budget(key)
    chance = Random(9)
    costs = [chance.randrange(1, 4) for _ in range(6_000)]
    for start in range(0, len(costs), 2_000):
        apply([costing(nanos, key_id=key.id.bytes, budgets=[own.id.bytes]) for nanos in costs[start : start + 2_000]])
    sums = {
        "events": UsageEvent.objects.aggregate(sum=Sum("cost_nanos"))["sum"],
        "rollup": UsageHour.objects.aggregate(sum=Sum("cost_nanos"))["sum"],
        "period": BudgetPeriod.objects.get().settled_nanos,
    }
    print(f"L8: {len(costs):,} costs of 1 to 3 nano-dollars in the ledger: {sums}, exactly {sum(costs)}")
    assert set(sums.values()) == {sum(costs)}
    assert_ledger_adds_up()
