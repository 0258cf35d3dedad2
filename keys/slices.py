"""One worker's part of one budget's period: what it was granted, what it has spent of it, what requests hold."""

from __future__ import annotations

import asyncio
import math
from datetime import UTC, datetime
from uuid import UUID

import msgspec

from keys.entries import BudgetEntry
from keys.leases import Account, Demand

SHARE = 4  # a request that named no cap of its own holds at most a fourth of what is left
QUIET_TICKS = 2
NEVER = float("-inf")


class Slice:
    """Amounts are nano-dollars; `start` and `end` Unix seconds.

    free = granted - spent - held is what can be promised without asking. `spent` counts what this worker settled here
    (and what it keeps for uncertain attempts), `shipped` how much of that the ledger knows; `base` is what everybody
    else spent, so base + spent is gone from the limit.
    """

    __slots__ = (
        "allowed",
        "base",
        "certain",
        "elsewhere",
        "end",
        "ended_at",
        "entry",
        "granted",
        "held",
        "idle",
        "pace",
        "period",
        "placed",
        "queue",
        "recall_sent",
        "recalled_until",
        "shipped",
        "spent",
        "start",
        "starts_at",
        "told",
    )

    def __init__(self, entry: BudgetEntry, at: float) -> None:
        self.entry = entry
        self.starts_at, self.ended_at = entry.bounds(datetime.fromtimestamp(at, UTC))
        self.start = self.starts_at.timestamp()
        self.end = self.ended_at.timestamp() if self.ended_at else math.inf
        self.period = 0  # the row's id, once it is known
        self.granted = self.spent = self.held = self.shipped = 0
        self.allowed, self.base, self.elsewhere = entry.limit_nanos, 0, 0
        self.told = NEVER  # monotonic time of the last account
        self.certain = True  # False from a question to its answer: what the database granted may be more than `granted`
        self.queue: list[Waiter] = []
        self.placed = self.pace = self.idle = 0
        self.recall_sent = self.recalled_until = NEVER

    @property
    def hard(self) -> bool:
        return self.entry.hard

    @property
    def free(self) -> int:
        return self.granted - self.spent - self.held

    @property
    def remaining(self) -> int:
        """Of the limit, as far as this worker knows; below zero where a soft budget was overspent."""
        return self.allowed - self.base - self.spent

    @property
    def settled(self) -> int:
        return self.base + self.spent

    @property
    def in_step(self) -> bool:
        """Whether the database knows everything that happened here."""
        return self.held == 0 and self.spent == self.shipped

    @property
    def done(self) -> bool:
        """Nothing of it is here any more: whatever was lent is settled or given back, and the database knows."""
        return self.certain and self.in_step and self.free <= 0

    def told_by(self, account: Account, at: float) -> bool:
        """Takes what the database says; True when the limit fell and what was lent too much has to go back."""
        if self.told == NEVER and self.in_step:
            self.spent = account.spent  # an earlier slice of this worker was dropped when all of it was settled
        fell = self.told != NEVER and account.allowed < self.allowed
        self.granted, self.shipped, self.allowed = account.granted, account.spent, account.allowed
        self.base = account.settled + account.uncertain - account.spent
        self.elsewhere = account.leased - account.open
        self.told, self.certain = at, True
        return fell or account.settled + account.leased + account.uncertain > account.allowed

    def demand(self) -> Demand:
        """Gives everything back and asks for what its queue needs: all in one step, so nothing is lost by it."""
        back = max(0, self.free)
        left = self.free - back
        head = self.queue[0].amount_of(self)
        wanted = sum(waiter.amount_of(self) for waiter in self.queue)
        ahead = max(self.pace, self.placed + wanted)  # before the first renewal what was placed so far is all it knows
        return Demand(self.period, back, self.held, head - left, wanted - left, ahead)

    def renewal(self, at: float) -> Demand:
        """Each second: what it used last second is what it should have for the next one; an idle slice goes back."""
        self.pace = max(self.placed, self.pace // 2)
        self.idle = 0 if self.placed else self.idle + 1
        self.placed = 0
        demand = Demand(self.period, held=self.held)
        if not self.hard:
            return demand
        if at >= self.end or self.idle >= QUIET_TICKS:
            demand.back = max(0, self.free)
        elif self.free < self.pace // 2:
            demand.ahead = self.pace - self.free
        elif self.free > 4 * self.pace:
            demand.back = self.free - 2 * self.pace
        return demand


class Hold:
    """What one attempt may cost, taken from each budget's slice. Ended once, by `Holds.settle` or `Holds.keep`.

    `periods` are the slices' rows; 0 for a soft budget's whose row was not known yet: the ledger finds that by itself.
    """

    __slots__ = ("nanos", "open", "periods", "slices", "taken")

    def __init__(self, slices: list[Slice], taken: list[int], nanos: int) -> None:
        self.slices, self.taken, self.nanos = slices, taken, nanos
        self.periods = [one.period if one.told != NEVER else 0 for one in slices]
        self.open = True

    def end(self, spent: int) -> None:
        """What was taken is free again, less what is gone for good."""
        self.open = False
        for one, taken, period in zip(self.slices, self.taken, self.periods, strict=True):
            one.held -= taken
            one.spent += spent if period else 0

    @property
    def budgets(self) -> list[UUID]:
        return [one.entry.id for one in self.slices]

    @property
    def limited(self) -> bool:
        return any(one.hard for one in self.slices)


class Request(msgspec.Struct, frozen=True):
    """What is to be held: `most`, or less down to `least` where budgets are tight (the same when the caller named its
    cap). `unbounded`: the cost has no bound; it takes all that is left of a budget with the policy `exclusive` and runs
    there alone, and what it can get of one with `soft`. (`deny` has refused it before.)
    """

    least: int
    most: int
    unbounded: bool = False


class Waiter:
    """A request that no slice could carry at once."""

    __slots__ = ("arrived", "future", "hard", "hold", "number", "request", "slices")

    def __init__(self, slices: list[Slice], request: Request, arrived: float, number: int) -> None:
        self.slices, self.request, self.arrived, self.number = slices, request, arrived, number
        self.hard = [one for one in slices if one.hard]
        self.future: asyncio.Future[Hold] = asyncio.get_running_loop().create_future()
        self.hold: Hold | None = None

    def least_of(self, one: Slice) -> int:
        """What that slice's budget must have left for it; below any figure where its policy lets it pass."""
        if self.request.unbounded and one.entry.unbounded == "soft":
            return -(2**63)
        return max(1, self.request.least)

    def amount_of(self, one: Slice) -> int:
        """What it would hold there now."""
        if runs_alone(self.request, one):
            return max(1, self.request.least, one.remaining - one.elsewhere)
        return amount(self.request, self.hard)

    def lacks(self) -> Slice | None:
        """The first of its slices that cannot carry it now."""
        wanted = amount(self.request, self.hard)
        for one in self.hard:
            if one.period == 0 or one.told == NEVER:
                return one
            if self.request.unbounded and one.entry.unbounded == "soft":
                continue
            if runs_alone(self.request, one):
                if one.held or one.elsewhere or one.free < max(1, self.request.least, one.remaining):
                    return one
            elif one.free < wanted:
                return one
        return None


def runs_alone(request: Request, one: Slice) -> bool:
    return request.unbounded and one.entry.unbounded == "exclusive"


def amount(request: Request, hard: list[Slice]) -> int:
    """Between `least` and `most`: a caller that named no cap leaves room for others."""
    if request.least == request.most:
        return request.most
    share = min(one.remaining for one in hard) // SHARE
    return max(request.least, min(request.most, share))
