"""Holds: the worst case of each attempt, taken from leases before it is sent. One worker's memory; no I/O to place one.

A slice (keys/slices.py) is what this worker borrowed of a budget's period. Where it does not suffice the request waits
in the slice's queue while `run` asks the database, which asks other workers for what they do not use. Refused at once
is what can never fit; what only holds in flight stand in the way of waits, first come first served, up to `wait_ms`.
"""

from __future__ import annotations

import asyncio
import time
from bisect import insort
from collections.abc import Callable, Iterable, Sequence
from uuid import UUID

from keys.entries import BudgetEntry
from keys.leases import Account, Bank, BankAway, Demand
from keys.slices import NEVER, QUIET_TICKS, Hold, Request, Slice, Waiter, amount, runs_alone

PAUSE = 0.05  # seconds between two looks at the database while something waits
RECALL_EVERY = 0.2
RECALL_LASTS = 1.0
FRESH = 0.25  # an account this young refuses without asking again: what is left only grows when a limit changes
IDLE_TICKS = 60
DEMANDS = 1000  # periods of one exchange


class Refused(Exception):
    """Why a hold could not be had: `reason` is "exceeded", "busy" or "unavailable"."""

    def __init__(self, reason: str, at: Slice | None = None, nanos: int = 0) -> None:
        super().__init__(reason)
        self.reason, self.slice, self.nanos = reason, at, nanos


class Holds:
    """Used by the event loop's thread only."""

    def __init__(self, bank: Bank) -> None:
        self._bank = bank
        self._slices: dict[UUID, Slice] = {}
        self._former: list[Slice] = []  # of periods that ended or budgets that began anew, until all is settled
        self._waiting: dict[Waiter, Slice] = {}
        self._number = 0
        self._doubted: dict[Slice, None] = {}  # in the order they came
        self._stirred = asyncio.Event()
        self._asking = asyncio.Lock()

    @property
    def waiting(self) -> int:
        """Requests that wait for money."""
        return len(self._waiting)

    # --- what a request calls

    def slices(self, budgets: Sequence[BudgetEntry], at: float) -> list[Slice]:
        """The running period's slice of each budget. `at`: Unix seconds."""
        found = []
        for entry in budgets:
            one = self._slices.get(entry.id)
            if one is None or not one.start <= at < one.end or (one.entry is not entry and one.entry != entry):
                one = self._slice(entry, one, at)
            found.append(one)
        return found

    def _slice(self, entry: BudgetEntry, old: Slice | None, at: float) -> Slice:
        fresh = Slice(entry, at)
        if old is not None and old.start == fresh.start:
            old.entry = entry
            return old
        if old is not None:
            self._former.append(old)
        # A request that came before a reset may ask by the former entry after it: one period never has two slices.
        for one in self._former:
            if one.entry.id == entry.id and one.start == fresh.start:
                self._former.remove(one)
                one.entry, fresh = entry, one
                break
        self._slices[entry.id] = fresh
        return fresh

    def place(self, slices: list[Slice], request: Request) -> Hold | None:
        """Holds without waiting, or None. All slices or none."""
        hard = [one for one in slices if one.hard]
        if not hard:
            self._doubt(one for one in slices if one.told == NEVER)
            return _take(slices, [0] * len(slices), request.most)
        if request.unbounded or any(one.queue or one.told == NEVER for one in hard):
            return None
        nanos = amount(request, hard)
        if any(one.granted - one.spent - one.held < nanos for one in hard):
            return None
        return _take(slices, [nanos] * len(slices), nanos)

    async def obtain(self, slices: list[Slice], request: Request) -> Hold:
        """Holds, waiting where it must. Raises Refused. A caller that is cancelled holds nothing."""
        hold = self.place(slices, request)
        if hold is not None:
            return hold
        self._number += 1
        waiter = Waiter(slices, request, time.monotonic(), self._number)
        for one in waiter.hard:
            if one.told > waiter.arrived - FRESH and waiter.least_of(one) > one.remaining:
                raise Refused("exceeded", one, waiter.least_of(one))
        queued = next((one for one in waiter.hard if one.queue), waiter.hard[0])
        self._enqueue(waiter, waiter.lacks() or queued)
        self._stirred.set()
        try:
            return await waiter.future
        except asyncio.CancelledError:
            if waiter.hold is not None:
                self.settle(waiter.hold, 0)
            raise
        finally:
            self._dequeue(waiter)

    def settle(self, hold: Hold, cost: int) -> None:
        """The attempt ended and cost this; what it held more is free again. A second call changes nothing."""
        if not hold.open:
            return
        hold.end(cost)
        self._freed(hold)

    def keep(self, hold: Hold) -> None:
        """Nobody knows what the attempt cost: what it held is gone until that is resolved."""
        if not hold.open:
            return
        hold.end(hold.nanos)
        self._freed(hold)

    def _freed(self, hold: Hold) -> None:
        for one in hold.slices:
            if one.queue:
                self._serve(one)
            elif one.recalled_until != NEVER:
                self._stirred.set()

    # --- queues

    def _enqueue(self, waiter: Waiter, at: Slice) -> None:
        insort(at.queue, waiter, key=lambda other: other.number)
        self._waiting[waiter] = at

    def _dequeue(self, waiter: Waiter) -> None:
        at = self._waiting.pop(waiter, None)
        if at is not None:
            at.queue.remove(waiter)
            if at.queue:
                self._serve(at)

    def _serve(self, one: Slice) -> None:
        """Grants from the head of the queue on; a waiter whom another slice lacks moves to that one's queue."""
        while one.queue:
            waiter = one.queue[0]
            if waiter.future.done():
                self._waiting.pop(waiter, None)
                one.queue.pop(0)
                continue
            lack = waiter.lacks()
            if lack is one:
                return
            one.queue.pop(0)
            del self._waiting[waiter]
            if lack is not None:
                self._enqueue(waiter, lack)
                if lack.queue[0] is waiter:
                    self._stirred.set()
                continue
            waiter.hold = _grant(waiter)
            waiter.future.set_result(waiter.hold)

    def _refuse(self, waiter: Waiter, error: Refused) -> None:
        if not waiter.future.done():
            waiter.future.set_exception(error)
        self._dequeue(waiter)

    # --- the conversation with the database

    async def run(self) -> None:
        """For ever; ends by cancellation. Works only while somebody waits or something has to go back."""
        while True:
            await self._stirred.wait()
            self._stirred.clear()
            while (lacking := self._lacking()) or self._doubted or self._owed():
                await self._ask(lacking)
                if self._waiting or self._doubted or self._owed():
                    await self._pause()

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(PAUSE):
                await self._stirred.wait()
        except TimeoutError:
            return
        self._stirred.clear()

    def _lacking(self) -> list[Slice]:
        return list(dict.fromkeys(self._waiting.values()))

    def _owed(self) -> list[Slice]:
        at, owed = time.monotonic(), []
        for one in self._all():
            if one.recalled_until == NEVER:
                continue
            if at > one.recalled_until:
                one.recalled_until = NEVER
            elif one.free > 0 and not one.queue:
                owed.append(one)
        return owed

    async def _ask(self, lacking: list[Slice]) -> None:
        at = time.monotonic()
        doubted, self._doubted = self._doubted, {}
        try:
            await self._exchange(lambda: self._demands(lacking, doubted, at))
        except BankAway:
            self._doubted |= doubted
            for waiter in list(self._waiting):
                self._refuse(waiter, Refused("unavailable"))
            return
        for one in lacking:
            self._serve(one)
        self._give_up()

    def _demands(self, lacking: Iterable[Slice], doubted: Iterable[Slice], at: float) -> dict[Slice, Demand]:
        demands = {}
        for one in lacking:
            if one.queue:
                demands[one] = one.demand()
                if at - one.recall_sent > RECALL_EVERY:
                    demands[one].recall, one.recall_sent = True, at
        for one in self._owed():
            demands.setdefault(one, Demand(one.period, one.free, one.held))
        for one in doubted:
            demands.setdefault(one, Demand(one.period, held=one.held))
        return demands

    def _give_up(self) -> None:
        """Refuses what can never fit now, and what has waited long enough."""
        at = time.monotonic()
        for waiter, one in list(self._waiting.items()):
            needed = waiter.least_of(one)
            if one.told > waiter.arrived - FRESH and needed > one.remaining:
                self._refuse(waiter, Refused("exceeded", one, needed))
            elif at - waiter.arrived >= one.entry.wait_ms / 1000:
                self._refuse(waiter, Refused("busy", one, needed))

    async def _exchange(self, wanted: Callable[[], dict[Slice, Demand]]) -> None:
        """One conversation at a time. `back` leaves the slice before anything is waited for: nobody can be promised it
        meanwhile; when the answer is lost, the slice is in doubt until the next one tells what really happened."""
        async with self._asking:
            demands = wanted()
            for one, demand in demands.items():
                one.granted -= demand.back
                one.certain = False
            await self._open([one for one in demands if one.period == 0])
            told = {}
            for one, demand in demands.items():
                demand.period = one.period
                if one.period:
                    told[one.period] = one
                else:
                    one.certain = True  # its budget is gone, and never lent anything
            rows = [demand for demand in demands.values() if demand.period]
            for start in range(0, max(1, len(rows)), DEMANDS):
                accounts = await self._bank.exchange(rows[start : start + DEMANDS])
                self._told(told, accounts)

    async def _open(self, slices: Sequence[Slice]) -> None:
        if not slices:
            return
        ids = await self._bank.open([(one.entry.id, one.starts_at, one.ended_at) for one in slices])
        for one in slices:
            one.period = ids.get((one.entry.id, one.starts_at), 0)

    def _told(self, slices: dict[int, Slice], accounts: Iterable[Account]) -> None:
        at = time.monotonic()
        for account in accounts:
            one = slices[account.period]
            if one.told_by(account, at):
                self._recall(one)

    # --- what others cause

    async def follow(self, budgets: Sequence[BudgetEntry], at: float) -> None:
        """Makes budgets known that a key just brought, so that its requests find figures. Raises BankAway."""
        await self.look([one for one in self.slices(budgets, at) if one.told == NEVER])

    async def look(self, slices: Sequence[Slice]) -> None:
        """Asks what is left of them now; borrows and returns nothing. Raises BankAway."""
        if slices:
            await self._exchange(lambda: {one: Demand(one.period, held=one.held) for one in slices})

    def recalled(self, period: int) -> None:
        """Another worker lacks money of this period."""
        for one in self._all():
            if one.period == period:
                self._recall(one)

    def _recall(self, one: Slice) -> None:
        one.recalled_until = time.monotonic() + RECALL_LASTS
        self._stirred.set()

    def doubt(self, budget: UUID | None = None) -> None:
        """A limit may have changed, of one budget or of any: asked again at once."""
        self._doubt(one for one in self._slices.values() if budget in (None, one.entry.id))

    def _doubt(self, slices: Iterable[Slice]) -> None:
        before = len(self._doubted)
        self._doubted.update(dict.fromkeys(slices))
        if len(self._doubted) > before:
            self._stirred.set()

    async def tick(self, at: float) -> None:
        """Each second, whether anything is lent or not: renews, returns what is idle, and says that the worker lives.

        Raises BankAway. `at`: Unix seconds.
        """
        for one in [one for one in self._slices.values() if at >= one.end and not one.queue]:
            del self._slices[one.entry.id]
            self._former.append(one)
        await self._exchange(lambda: {one: one.renewal(at) for one in self._all() if not one.queue and _matters(one)})
        wanted = {one for waiter in self._waiting for one in waiter.slices}
        self._former = [one for one in self._former if one in wanted or not one.done]
        for one in [one for one in self._slices.values() if one.idle > IDLE_TICKS and one.done]:
            if one not in wanted:
                del self._slices[one.entry.id]

    async def give_back(self) -> None:
        """Everything that nothing in flight holds: before the worker ends. Raises BankAway."""
        await self._exchange(lambda: {one: Demand(one.period, max(0, one.free), one.held) for one in self._all()})

    def known(self, entry: BudgetEntry, at: float) -> Slice:
        """For what is shown: the running period's slice, without following a budget that nobody asked for yet."""
        one = self._slices.get(entry.id)
        return one if one is not None and at < one.end else Slice(entry, at)

    def _all(self) -> list[Slice]:
        return [*self._slices.values(), *self._former]


def _take(slices: list[Slice], taken: list[int], nanos: int) -> Hold:
    for index, one in enumerate(slices):
        if not one.hard:
            taken[index] = 0
        one.held += taken[index]
        one.placed += taken[index] or nanos
    return Hold(slices, taken, nanos)


def _grant(waiter: Waiter) -> Hold:
    """What `lacks` has just found to fit."""
    alone = [one.free for one in waiter.hard if runs_alone(waiter.request, one)]
    nanos = min(alone) if alone else amount(waiter.request, waiter.hard)
    return _take(waiter.slices, [min(nanos, max(0, one.free)) for one in waiter.slices], nanos)


def _matters(one: Slice) -> bool:
    """Whether a renewal would tell anybody anything."""
    return one.placed > 0 or one.pace > 0 or one.idle < QUIET_TICKS or not one.done
