"""Records become rows, rollups and settled budget periods: each once, whatever happens in between."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import connection, transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conduit.core.ids import uuid7
from keys.models import Budget, BudgetPeriod, Team, VirtualKey
from tests.usage.events import at, budget, costing, dispatched, refused, settled
from usage import ledger, partitions, rollups
from usage.ledger import Advance, apply, uncertain
from usage.models import JournalCursor, UsageDay, UsageEvent, UsageHour, UsageTagDay, UsageTagHour
from usage.records import Ended
from usage.verification import rebuild, verify

pytestmark = pytest.mark.django_db


def assert_ledger_adds_up() -> None:
    found = verify()
    assert found.ok, [(check.name, check.examples) for check in found.checks if not check.ok]


def red() -> set[str]:
    return {check.name for check in verify().checks if not check.ok}


def rollup_rows() -> list[list[dict[str, Any]]]:
    """Every column of every rollup row but its number, in one order."""
    return [
        sorted(({n: v for n, v in row.items() if n != "id"} for row in table.objects.values()), key=str)
        for table in (UsageHour, UsageDay, UsageTagHour, UsageTagDay)
    ]


@pytest.fixture
def team() -> Team:
    return Team.objects.create(name="Weather")


@pytest.fixture
def key(team: Team) -> VirtualKey:
    return VirtualKey.objects.create(name="forecast", team=team)


def test_a_settled_record_becomes_a_row_with_every_column() -> None:
    price, own = uuid7(), uuid7()
    record = settled(
        team_id=own.bytes,
        customer="Alice",
        credential_version=3,
        stream=True,
        units={"image": 2},
        price_id=price.bytes,
        budgets=[own.bytes],
        ttft_us=77,
        tags=["prod", 'odd "tag" \\ {,}'],
        flags=["rate_fallback"],
        error_message="line\nbreak\ttab\\N",
        trace=[{"check": "key", "ok": True, "text": "tab\t\u00e9\U0001f600"}],
    )
    assert apply([record]).inserted == 1
    event = UsageEvent.objects.get()
    assert (event.id, event.time) == (UUID(bytes=record.attempt_id), ledger.instant(record.time_us))
    assert (event.team_id, event.key_id, event.price_id, event.budgets) == (own, None, price, [own])
    assert (event.customer, event.credential_version, event.stream, event.ttft_us) == ("Alice", 3, True, 77)
    assert (event.units, event.tags, event.flags) == ({"image": 2}, record.tags, ["rate_fallback"])
    assert event.arithmetic == [list(line) for line in record.arithmetic]
    assert (event.error_message, event.trace) == (record.error_message, record.trace)


def test_the_same_records_applied_twice_count_once(key: VirtualKey, team: Team) -> None:
    own = budget(key)
    records = [
        settled(key_id=key.id.bytes, team_id=team.id.bytes, budgets=[own.id.bytes], tags=["a"]) for _ in range(5)
    ]
    assert apply([*records, records[0]]).inserted == 5
    again = apply(records)
    assert (again.inserted, again.duplicates, again.cost_nanos) == (0, 5, 0)
    assert UsageEvent.objects.count() == 5
    assert UsageHour.objects.get().cost_nanos == 5 * 135_000
    assert UsageTagHour.objects.get().requests == 5
    assert BudgetPeriod.objects.get().settled_nanos == 5 * 135_000
    assert_ledger_adds_up()


def test_a_dispatched_record_alone_changes_nothing() -> None:
    assert apply([dispatched(settled())]).inserted == 0
    assert not UsageEvent.objects.exists()


def test_refusals_count_as_requests_but_not_as_attempts(key: VirtualKey) -> None:
    apply([refused(key_id=key.id.bytes), settled(key_id=key.id.bytes)])
    assert sum(hour.requests for hour in UsageHour.objects.all()) == 2
    assert sum(hour.refused for hour in UsageHour.objects.all()) == 1
    assert sum(hour.attempts for hour in UsageHour.objects.all()) == 1
    assert_ledger_adds_up()


def test_a_retried_request_is_one_request_of_two_attempts() -> None:
    apply([settled(attempt=1, final=False, outcome="error", status=503), settled(attempt=2)])
    hour = UsageHour.objects.get()
    assert (hour.requests, hour.attempts, hour.errors) == (1, 2, 0)


def test_a_cost_goes_to_the_period_its_attempt_was_dispatched_in(key: VirtualKey) -> None:
    """A month in Berlin begins at 23:00 or 22:00 UTC; one second decides."""
    own = budget(key, window="month", timezone="Europe/Berlin")
    Budget.objects.update(created_at=datetime(2026, 1, 1, tzinfo=UTC))
    edge = datetime(2026, 10, 31, 23, 0, tzinfo=UTC)
    before, after = edge - timedelta(seconds=1), edge
    apply(
        [costing(5, time_us=at(before), budgets=[own.id.bytes]), costing(7, time_us=at(after), budgets=[own.id.bytes])]
    )
    periods = {period.starts_at: period for period in BudgetPeriod.objects.all()}
    assert periods[edge].settled_nanos == 7
    assert periods[datetime(2026, 9, 30, 22, 0, tzinfo=UTC)].settled_nanos == 5
    assert periods[datetime(2026, 9, 30, 22, 0, tzinfo=UTC)].ends_at == edge
    assert_ledger_adds_up()


def test_what_settles_after_a_reset_counts_in_the_period_it_was_dispatched_in(key: VirtualKey) -> None:
    own = budget(key)
    moment = datetime.now(UTC)
    first, second = moment - timedelta(minutes=20), moment - timedelta(minutes=10)
    times = [first - timedelta(minutes=1), first + timedelta(minutes=1), second + timedelta(minutes=1)]
    apply([costing(1, time_us=at(times[0]), budgets=[own.id.bytes])])
    for reset in (first, second):
        Budget.objects.update(epoch_at=reset)
        BudgetPeriod.objects.create(budget=own, starts_at=reset)
    apply([costing(10 * 10**place, time_us=at(when), budgets=[own.id.bytes]) for place, when in enumerate(times)])
    assert [p.settled_nanos for p in BudgetPeriod.objects.order_by("starts_at")] == [11, 100, 1000]
    assert_ledger_adds_up()


def test_a_clock_that_runs_behind_does_not_split_a_lifetime(key: VirtualKey) -> None:
    own = budget(key)
    early = own.created_at - timedelta(seconds=30)
    apply([costing(3, time_us=at(early + timedelta(seconds=n)), budgets=[own.id.bytes]) for n in range(3)])
    assert BudgetPeriod.objects.get().settled_nanos == 9
    assert_ledger_adds_up()


def test_a_budget_that_is_gone_does_not_stop_the_ledger() -> None:
    apply([costing(3, budgets=[uuid7().bytes])])
    assert UsageEvent.objects.get().cost_nanos == 3


def test_months_get_their_partition_and_odd_clocks_do_not(key: VirtualKey) -> None:
    now = datetime.now(UTC)
    apply([settled(time_us=at(now)), settled(time_us=at(datetime(1999, 1, 1, tzinfo=UTC)))])
    assert partitions.table_name(now) in partitions.existing()
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM usage_event_default")
        assert cursor.fetchone() == (1,)
    assert UsageEvent.objects.count() == 2
    assert "usage_event_y1999m01" not in partitions.existing()


def test_rows_of_the_default_partition_move_when_their_month_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(partitions, "ensure", lambda months: [])
        apply([settled()])
    made = partitions.ensure_ahead()
    assert len(made) == 2
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM {made[0]}")
        assert cursor.fetchone() == (1,)
    assert UsageEvent.objects.count() == 1
    assert partitions.ensure_ahead() == []


def test_a_record_postgresql_cannot_store_is_set_aside_and_the_others_are_kept() -> None:
    good = [settled() for _ in range(6)]
    bad = settled(status=70_000)
    applied = apply([*good[:3], bad, *good[3:]], node="n", advances=[Advance("s", 40)])
    assert applied.inserted == 6
    assert [record.attempt_id for record, _ in applied.rejected] == [bad.attempt_id]
    assert JournalCursor.objects.get().position == 40
    assert_ledger_adds_up()


def test_nul_and_overlong_text_from_outside_do_not_stop_the_ledger() -> None:
    record = settled(customer="Bob\x00" * 200, error_message="x\x00" * 900, trace=[{"a\x00": ["\x00", "\\u0000"]}])
    assert apply([record]).inserted == 1
    event = UsageEvent.objects.get()
    assert "\x00" not in event.customer
    assert event.trace == [{"a": ["", "\\u0000"]}]


def test_an_attempt_of_a_dead_worker_keeps_its_hold_and_costs_nothing_yet() -> None:
    record = settled(held_nanos=777, tags=["a"])
    lost = uncertain(dispatched(record))
    apply([lost])
    event = UsageEvent.objects.get()
    assert (event.exactness, event.outcome, event.error_code) == ("uncertain", "error", "uncertain")
    assert (event.cost_nanos, event.held_nanos, event.tags) == (0, 777, ["a"])
    # The same attempt cannot settle on top of it.
    assert apply([record]).duplicates == 1
    assert_ledger_adds_up()


def test_a_crash_before_the_commit_loses_nothing_and_moves_nothing(key: VirtualKey) -> None:
    own = budget(key)
    records = [costing(5, budgets=[own.id.bytes]) for _ in range(3)]

    def crash() -> None:
        with transaction.atomic():
            apply(records, node="n", advances=[Advance("segment", 99)])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        crash()
    assert not UsageEvent.objects.exists()
    assert not JournalCursor.objects.exists()
    assert not BudgetPeriod.objects.exists()
    assert apply(records, node="n", advances=[Advance("segment", 99)]).inserted == 3
    assert JournalCursor.objects.get().position == 99
    assert_ledger_adds_up()


def test_a_cursor_never_goes_back() -> None:
    apply([], node="n", advances=[Advance("s", 99, closed=True)])
    apply([], node="n", advances=[Advance("s", 10)])
    cursor = JournalCursor.objects.get()
    assert (cursor.position, cursor.closed) == (99, True)


def test_rebuilt_rollups_are_identical(key: VirtualKey, team: Team) -> None:
    moment = datetime.now(UTC)
    for hours in (0, 1, 30):  # several batches of overlapping hours and days
        apply(
            [
                settled(key_id=key.id.bytes, team_id=team.id.bytes, tags=["a", "b", "a"], ttft_us=5),
                settled(time_us=at(moment - timedelta(hours=hours)), tags=["b"], outcome="cancelled", status=499),
                settled(exactness="estimated", customer="Charlie", final=False),
                refused(time_us=at(moment - timedelta(hours=hours)), tags=["a"]),
            ]
        )
    before = rollup_rows()
    for table in (UsageHour, UsageDay, UsageTagHour, UsageTagDay):
        table.objects.all().delete()
    assert red() == {"hours", "days", "tag-hours", "tag-days"}
    rebuild()
    assert rollup_rows() == before
    assert_ledger_adds_up()
    events, rows = UsageEvent.objects.count(), sum(map(len, before))
    print(f"J8: {rows} rollup rows of {events} events dropped and rebuilt, different 0")


@pytest.mark.django_db(transaction=True)
def test_the_same_records_from_two_shippers_at_once_count_once() -> None:
    key = VirtualKey.objects.create(name="forecast")
    budgets = [budget(key, window=window) for window in ("lifetime", "day", "month")]
    batches = [
        [costing(3, budgets=[one.id.bytes for one in budgets], tags=["a", "b"]) for _ in range(40)] for _ in range(6)
    ]
    failures: list[BaseException] = []

    def ship(mine: list[list[Ended]]) -> None:
        try:
            for batch in mine:
                apply(batch)
        except BaseException as error:  # noqa: BLE001 (shown by the test)
            failures.append(error)
        finally:
            connection.close()

    threads = [
        threading.Thread(target=ship, args=([list(b) for b in order],))
        for order in (batches, batches[::-1], batches[3:] + batches[:3])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not failures
    assert UsageEvent.objects.count() == 240
    assert {period.settled_nanos for period in BudgetPeriod.objects.all()} == {720}
    assert_ledger_adds_up()


record_strategy = st.builds(
    lambda number, nanos, hours, **given: (number, nanos, hours, given),
    st.integers(0, 30),
    st.integers(0, 10**12),
    st.integers(0, 50),
    customer=st.sampled_from(["", "Alice", "Bob\t\\N", "Charlie\n"]),
    tags=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=6), max_size=3),
    outcome=st.sampled_from(["ok", "error", "cancelled"]),
    final=st.booleans(),
    exactness=st.sampled_from(["exact", "estimated"]),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(record_strategy, max_size=12), max_size=5))
def test_any_batches_with_repeats_in_any_order_add_up(batches: list[list[Any]]) -> None:
    moment = datetime.now(UTC)
    with transaction.atomic():
        own = budget(VirtualKey.objects.create(name="any"), window="day", timezone="Asia/Kolkata")
        Budget.objects.update(created_at=moment - timedelta(days=9))
        known: dict[int, Ended] = {}
        for batch in batches:
            records = []
            for number, nanos, hours, given_fields in batch:
                record = costing(
                    nanos,
                    attempt_id=UUID(int=number + 1).bytes,
                    time_us=at(moment - timedelta(hours=hours)),
                    budgets=[own.id.bytes],
                    **given_fields,
                )
                records.append(known.setdefault(number, record))
            apply(records)
        assert UsageEvent.objects.count() == len(known)
        assert sum(p.settled_nanos for p in BudgetPeriod.objects.all()) == sum(r.cost_nanos for r in known.values())
        assert_ledger_adds_up()
        before = rollup_rows()
        rebuild()
        assert rollup_rows() == before
        transaction.set_rollback(True)


# --- negative controls: without the guard, the oracle must see it ---------------------------------------------------


def _counts_every_staged_row() -> str:
    """The INSERT with its guard off: rollups from what was staged instead of what was inserted."""
    return ledger._INSERT.replace(rollups.steps("inserted"), rollups.steps("usage_staging")).replace(
        "EXCEPT SELECT id FROM inserted", "WHERE false"
    )


def test_without_the_guard_on_inserted_rows_the_checks_turn_red(
    monkeypatch: pytest.MonkeyPatch, key: VirtualKey
) -> None:
    monkeypatch.setattr(ledger, "_INSERT", _counts_every_staged_row())
    own = budget(key)
    records = [costing(5, budgets=[own.id.bytes], tags=["a"])]
    apply(records)
    apply(records)
    assert red() == {"hours", "days", "tag-hours", "tag-days", "periods"}


def _doubled_event() -> None:
    record = settled()
    apply([record])
    record.time_us += 1
    apply([record])


def _wrong_line() -> None:
    apply([settled(arithmetic=[("input", 100, 150_000_000, 135_000)])])


def _lost_cost() -> None:
    apply([settled(cost_nanos=134_999)])


def _free_work() -> None:
    apply([settled(cost_nanos=0, arithmetic=[], price_id=uuid7().bytes)])


def _negative() -> None:
    apply([settled(input_tokens=-1)])


def _tampered_hour() -> None:
    apply([settled()])
    UsageHour.objects.update(cost_nanos=1)


def _lost_tag_row() -> None:
    apply([settled(tags=["a"])])
    UsageTagHour.objects.all().delete()


def _tampered_day() -> None:
    apply([settled()])
    UsageDay.objects.update(requests=2)


def _lost_tag_day() -> None:
    apply([settled(tags=["a"])])
    UsageTagDay.objects.all().delete()


def _tampered_period() -> None:
    own = budget(VirtualKey.objects.create(name="k"))
    apply([costing(5, budgets=[own.id.bytes])])
    BudgetPeriod.objects.update(settled_nanos=4)


def _team_budget_passed_over() -> None:
    parent = Team.objects.create(name="Parent")
    child = Team.objects.create(name="Child", parent=parent)
    Team.objects.update(updated_at=datetime.now(UTC) - timedelta(hours=2))
    budget(parent)
    apply([settled(team_id=child.id.bytes)])


@pytest.mark.parametrize(
    ("broken", "names"),
    [
        (_doubled_event, {"attempts-once"}),
        (_wrong_line, {"arithmetic"}),
        (_lost_cost, {"arithmetic"}),
        (_free_work, {"priced"}),
        (_negative, {"sane"}),
        (_tampered_hour, {"hours"}),
        (_lost_tag_row, {"tag-hours"}),
        (_tampered_day, {"days"}),
        (_lost_tag_day, {"tag-days"}),
        (_tampered_period, {"periods"}),
        (_team_budget_passed_over, {"budgets"}),
    ],
)
def test_each_check_sees_what_it_is_for(broken: Callable[[], None], names: set[str]) -> None:
    broken()
    assert red() == names
