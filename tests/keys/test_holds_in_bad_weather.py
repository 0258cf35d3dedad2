"""A worker's memory while the database is away, and when its clock is set back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from keys.holds import Holds, Refused
from keys.leases import Account, BankAway, Demand
from keys.slices import Request
from tests.keys.scenario import entry
from tests.keys.simulator import EPOCH
from tests.keys.virtual_time import virtual_time

BUDGET = entry(1, 1_000_000, window="day")
EDGE = EPOCH + 3  # midnight


class AwayBank:
    """Refuses at once, as a closed port does."""

    def __init__(self) -> None:
        self.questions = 0

    async def open(self, periods: Sequence[tuple[UUID, datetime, datetime | None]]) -> dict[tuple[UUID, datetime], int]:
        self.questions += 1
        await asyncio.sleep(0)
        raise BankAway("refused")

    async def exchange(self, demands: Sequence[Demand]) -> list[Account]:
        self.questions += 1
        await asyncio.sleep(0)
        raise BankAway("refused")


def test_a_changed_limit_is_asked_for_again_and_again_but_not_without_a_pause() -> None:
    with virtual_time() as loop:
        bank = AwayBank()

        async def live() -> None:
            holds = Holds(bank)
            task = asyncio.create_task(holds.run())
            holds.slices([BUDGET], EPOCH)
            holds.doubt(BUDGET.id)
            await asyncio.sleep(2)
            task.cancel()

        loop.run_until_complete(live())
    assert 2 < bank.questions < 60


def test_a_request_that_needs_the_database_is_told_that_it_is_away() -> None:
    with virtual_time() as loop:

        async def live() -> str:
            holds = Holds(AwayBank())
            task = asyncio.create_task(holds.run())
            try:
                await holds.obtain(holds.slices([BUDGET], EPOCH), Request(5, 5))
            except Refused as error:
                return error.reason
            finally:
                task.cancel()
            return "held"

        assert loop.run_until_complete(live()) == "unavailable"


def test_a_clock_that_is_set_back_over_midnight_finds_the_former_day_again() -> None:
    """Else a hold would be of a window that has not begun, and its request would ask for ever."""
    holds = Holds(AwayBank())
    (today,) = holds.slices([BUDGET], EDGE - 1)
    (tomorrow,) = holds.slices([BUDGET], EDGE + 0.01)
    assert today.end == EDGE == tomorrow.start
    assert holds.slices([BUDGET], EDGE - 0.02) == [today]
    assert holds.slices([BUDGET], EDGE + 0.02) == [tomorrow]
    assert len(holds._all()) == 2


def test_a_request_from_before_a_reset_finds_the_former_periods_slice_again() -> None:
    holds = Holds(AwayBank())
    before = entry(2, 1_000)
    reset = entry(2, 1_000, epoch_at=before.created_at + timedelta(seconds=1))
    (old,), (new,) = holds.slices([before], EPOCH), holds.slices([reset], EPOCH)
    assert holds.slices([before], EPOCH) == [old]
    assert holds.slices([reset], EPOCH) == [new]
    assert len(holds._all()) == 2
