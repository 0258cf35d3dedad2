from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from keys.budgets import period_bounds
from keys.models import Budget

ZONES = sorted(available_timezones())
BORN = datetime(2020, 5, 6, 7, 8, 9, tzinfo=UTC)
instants = st.integers(63_072_000, 3_786_912_000).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
windows = st.sampled_from(["day", "week", "month"])
zones = st.sampled_from(ZONES)


def budget(window: str, zone: str = "UTC", epoch: datetime | None = None) -> Budget:
    return Budget(window=window, timezone=zone, created_at=BORN, epoch_at=epoch)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@settings(max_examples=600, deadline=None)
@given(windows, zones, instants)
@example("day", "America/St_Johns", datetime(1998, 10, 25, 2, 45, tzinfo=UTC))  # back from 00:01 to 23:01
@example("day", "Pacific/Apia", datetime(2011, 12, 30, 10, 0, tzinfo=UTC))  # 30 December never was
@example("day", "Africa/Cairo", datetime(2024, 4, 25, 22, 0, tzinfo=UTC))  # midnight is jumped over
@example("day", "America/Havana", datetime(2025, 11, 2, 5, 30, tzinfo=UTC))  # midnight comes twice
@example("week", "Australia/Lord_Howe", datetime(2025, 4, 6, 15, 0, tzinfo=UTC))  # half an hour
def test_windows_hold_their_instant_and_meet_without_gap_or_overlap(window: str, zone: str, at: datetime) -> None:
    row = budget(window, zone)
    start, end = period_bounds(row, at)
    assert end is not None
    assert start <= at < end
    assert start.utcoffset() == timedelta(0)
    # each instant of the window, to its very edges, gives the same window
    for inside in (start, start + (end - start) / 2, end - timedelta(microseconds=1)):
        assert period_bounds(row, inside) == (start, end)
    assert period_bounds(row, end)[0] == end
    assert period_bounds(row, start - timedelta(microseconds=1))[1] == start


@settings(max_examples=300, deadline=None)
@given(windows, zones, instants.filter(lambda at: at.year >= 1999))
def test_windows_begin_where_the_calendar_of_the_zone_says(window: str, zone: str, at: datetime) -> None:
    start, end = period_bounds(budget(window, zone), at)
    assert end is not None
    here, before = start.astimezone(ZoneInfo(zone)), (start - timedelta(seconds=1)).astimezone(ZoneInfo(zone))
    assert here.date() > before.date()
    longest = {"day": 25, "week": 7 * 24 + 1, "month": 31 * 24 + 1}[window]
    assert end - start <= timedelta(hours=longest + 23)  # a zone that moves over the date line adds a day
    if window == "week":
        assert here.weekday() == 0 or (here - timedelta(days=here.weekday())).date() <= before.date() + timedelta(
            days=1
        )
    if window == "month":
        assert here.month != before.month


def test_weeks_start_on_monday_and_months_on_the_first() -> None:
    sunday = utc("2027-01-03T23:59:59")
    assert period_bounds(budget("week"), sunday) == (utc("2026-12-28"), utc("2027-01-04"))
    assert period_bounds(budget("month"), utc("2028-02-29T12:00:00")) == (utc("2028-02-01"), utc("2028-03-01"))
    assert period_bounds(budget("month"), utc("2027-12-31T23:00:00")) == (utc("2027-12-01"), utc("2028-01-01"))


@pytest.mark.parametrize(
    ("zone", "at", "start", "hours"),
    [
        ("Europe/Berlin", "2027-03-28T12:00:00", "2027-03-27T23:00:00", 23),
        ("Europe/Berlin", "2027-10-31T12:00:00", "2027-10-30T22:00:00", 25),
        ("Asia/Kathmandu", "2027-01-01T18:14:59", "2026-12-31T18:15:00", 24),
        ("Pacific/Kiritimati", "2027-01-01T09:59:59", "2026-12-31T10:00:00", 24),
        ("America/Havana", "2025-11-02T06:00:00", "2025-11-02T04:00:00", 25),
    ],
)
def test_days_of_odd_zones(zone: str, at: str, start: str, hours: int) -> None:
    assert period_bounds(budget("day", zone), utc(at)) == (utc(start), utc(start) + timedelta(hours=hours))


def test_a_lifetime_has_one_period_from_the_beginning() -> None:
    row = budget("lifetime")
    for at in (BORN, BORN + timedelta(days=9000), BORN - timedelta(seconds=3)):
        assert period_bounds(row, at) == (BORN, None)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["lifetime", "day", "week", "month"]), zones, instants, instants)
def test_a_reset_cuts_its_window_and_no_other(window: str, zone: str, epoch: datetime, at: datetime) -> None:
    plain = period_bounds(budget(window, zone), at)
    start, end = period_bounds(budget(window, zone, epoch), at)
    inside = plain[0] <= epoch and (plain[1] is None or epoch < plain[1])
    if not inside:
        assert (start, end) == plain
    elif at >= epoch:
        assert (start, end) == (epoch, plain[1])
    else:
        assert (start, end) == (plain[0], epoch)
