"""Rate limits: requests a minute, tokens a minute, parallel requests, exact over all workers.

A minute is a calendar minute; its counter lives in Valkey (keys/rate_counters.py). A worker borrows slices of it (a
sixteenth of what is free at most, so that little can be stranded), decides in memory, and gives an idle slice back
each second, or at once when somebody would be refused for want of it. Tokens are estimated at admission and corrected
when the request has ended. Parallel slots are leased by a heartbeat: those of a dead worker come back after
SLOT_SECONDS. Without Valkey each worker enforces the limit by itself.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence

import msgspec
from redis.asyncio import Redis

from keys.entries import RateScope
from keys.rate_counters import PARALLEL, SLOT_SECONDS, VALKEY_DEADLINE, Counters, CountersAway, Loan

__all__ = ["SLOT_SECONDS", "VALKEY_DEADLINE", "Meter", "OverLimit", "RateLimits", "Taken"]
MINUTE = 60.0
IDLE_SECONDS = 1.0
RETRY_MARGIN = 0.1  # clocks are read at both ends of a round trip
POLL_FIRST, POLL_LAST = 0.003, 0.03


class OverLimit(msgspec.Struct, frozen=True):
    """Why not: `what` is "requests", "tokens" or "parallel requests". `retry_after` in seconds; None: never, because
    the request alone is more than the limit."""

    scope: RateScope
    what: str
    limit: int
    retry_after: float | None
    meter: Meter | None = None


class Meter:
    """One worker's slice of one counter."""

    __slots__ = (
        "borrowing",
        "dry",
        "ends",
        "epoch",
        "free",
        "lag",
        "left",
        "limit",
        "minute",
        "name",
        "recalled_at",
        "used_at",
    )

    def __init__(self, name: str, limit: int) -> None:
        self.name, self.limit = name, limit
        self.borrowing = asyncio.Lock()  # one by one: each may be served from the slice the one before it was given
        self.epoch = 0  # grows with each minute: what was taken in one minute is not given back in another
        self.minute = -1  # as Valkey counts them; -1: the slice is not Valkey's
        self.ends = 0.0  # monotonic seconds
        self.left = 0  # negative when tokens were underestimated
        self.free = limit  # in the counter after the last loan
        self.dry = False  # nothing may be kept: others would be refused for want of it
        self.recalled_at = 0.0
        self.lag = 0.0  # seconds by which `ends` may be early
        self.used_at = 0.0

    def turn(self, window: float) -> None:
        """A new minute, when the one of the slice is over."""
        if time.monotonic() >= self.ends:
            self._begin(-1, time.monotonic() + window - time.time() % window)

    def take_loan(self, loan: Loan, began: float) -> None:
        if loan.minute != self.minute:
            self._begin(loan.minute, loan.ends)
        self.ends, self.lag, self.free = loan.ends, loan.took, loan.free
        self.dry = loan.dry or self.recalled_at >= began
        self.left += loan.granted

    def _begin(self, minute: int, ends: float) -> None:
        self.minute, self.ends, self.left, self.free = minute, ends, min(0, self.left), self.limit
        self.epoch += 1
        self.dry = False

    def remaining(self, coming: int = 0) -> int:
        """Units, with those that are about to be given back (or owed, when negative), as far as this worker knows:
        others may have borrowed since its last loan."""
        if time.monotonic() >= self.ends:
            return self.limit
        return max(0, min(self.limit, self.free + self.left + coming))

    def resets_in(self, window: float = MINUTE) -> float:
        """Seconds until the minute is over."""
        left = self.ends - time.monotonic()
        return left if left > 0 else window - time.time() % window


class Slots:
    """One worker's parallel slots of one scope."""

    __slots__ = ("busy", "dry", "ends", "held", "leasing", "limit", "name", "recalled_at")

    def __init__(self, name: str, limit: int) -> None:
        self.name, self.limit = name, limit
        self.leasing = asyncio.Lock()
        self.busy = 0
        self.held = 0
        self.ends = 0.0  # monotonic seconds: until then the held slots are ours
        self.dry = False
        self.recalled_at = 0.0

    def open(self) -> bool:
        return self.busy < min(self.held, self.limit) and time.monotonic() < self.ends


class Taken(msgspec.Struct):
    """What one request took, to be corrected and given back: (meter, units, epoch)."""

    requests: list[tuple[Meter, int, int]] = msgspec.field(default_factory=list)
    tokens: list[tuple[Meter, int, int]] = msgspec.field(default_factory=list)
    slots: list[Slots] = msgspec.field(default_factory=list)


class RateLimits:
    """Used by the event loop's thread only. `window` is the length of a minute in seconds."""

    def __init__(self, valkey: Redis, worker: str, window: float = MINUTE) -> None:
        self.window = window
        self._counters = Counters(valkey, worker, window, self._recalled)
        self._meters: dict[str, Meter] = {}
        self._slots: dict[str, Slots] = {}
        self._returning: dict[Meter | Slots, None] = {}
        self._returner: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Gives everything idle back. What is busy comes back by its expiry."""
        items: list[Meter | Slots] = [*self._meters.values(), *self._slots.values()]
        for item in items:
            await self._return(item)
        await self._counters.close()

    async def admit(self, scopes: Sequence[RateScope], tokens: int) -> Taken | OverLimit:
        """Takes one request and `tokens` from every scope, or nothing at all."""
        taken = Taken()
        whole = False
        try:
            for scope in scopes:
                refused = await self._take(scope, tokens, taken)
                if refused is not None:
                    return refused
            whole = True
        finally:  # refused, or cancelled because the client left
            if not whole:
                for drawn in taken.requests + taken.tokens:
                    self._put_back(*drawn)
                self.release(taken, None)
        return taken

    async def _take(self, scope: RateScope, tokens: int, taken: Taken) -> OverLimit | None:
        if scope.rpm is not None:
            meter = self._meter(f"rpm:{scope.id}", scope.rpm)
            if not await self._draw(meter, 1):
                return OverLimit(scope, "requests", scope.rpm, self._retry_after(meter, 1), meter)
            taken.requests.append((meter, 1, meter.epoch))
        if scope.tpm is not None:
            meter = self._meter(f"tpm:{scope.id}", scope.tpm)
            if not await self._draw(meter, tokens):
                return OverLimit(scope, "tokens", scope.tpm, self._retry_after(meter, tokens), meter)
            taken.tokens.append((meter, tokens, meter.epoch))
        if scope.max_parallel is not None:
            slots = await self._slot(f"{PARALLEL}{scope.id}", scope.max_parallel)
            if slots is None:
                return OverLimit(scope, "parallel requests", scope.max_parallel, 1.0 if scope.max_parallel else None)
            taken.slots.append(slots)
        return None

    def release(self, taken: Taken, tokens: int | None) -> None:
        """The request ended; `tokens` is what it really used, None when it was not admitted."""
        for slots in taken.slots:
            slots.busy -= 1
            if slots.dry:
                self._return_soon(slots)
        taken.slots = []
        if tokens is not None:
            for meter, estimate, epoch in taken.tokens:
                self._put_back(meter, estimate - tokens, epoch)
            taken.tokens = []

    # --- minutes

    def _meter(self, name: str, limit: int) -> Meter:
        meter = self._meters.get(name)
        if meter is None:
            meter = self._meters[name] = Meter(name, limit)
        elif meter.limit != limit:
            meter.limit = limit
            self._give_up(meter)  # borrowed under another limit
        return meter

    def _give_up(self, meter: Meter) -> None:
        meter.dry = True
        self._return_soon(meter)

    async def _draw(self, meter: Meter, count: int) -> bool:
        """Takes `count` from the slice, borrowing more when it is too small. False: the limit is reached."""
        meter.turn(self.window)
        meter.used_at = time.monotonic()
        if self._fits(meter, count):
            meter.left -= count
            return True
        async with meter.borrowing:
            pause = POLL_FIRST
            while True:
                meter.turn(self.window)
                if self._fits(meter, count):
                    meter.left -= count
                    return True
                loan = asyncio.ensure_future(self._loan(meter, count))
                try:
                    again = await asyncio.shield(loan)
                except asyncio.CancelledError:  # the client left; what is granted meanwhile is not lost
                    loan.add_done_callback(lambda done: self._undo(meter, count, done))
                    raise
                if again is None:
                    return True
                if not again:
                    return False
                await asyncio.sleep(pause)
                pause = min(2 * pause, POLL_LAST)

    def _fits(self, meter: Meter, count: int) -> bool:
        return meter.left >= count and not (self._returning and meter in self._returning)

    async def _loan(self, meter: Meter, count: int) -> bool | None:
        """None when `count` was borrowed and taken; else whether to ask again shortly."""
        began = time.monotonic()
        back, meter.left = meter.left, 0
        try:
            loan = await self._counters.borrow(meter.name, count, meter.limit, back=back, minute=meter.minute)
        except CountersAway:
            meter.free = min(meter.free + back, meter.limit)
            if meter.free < count:
                return False
            meter.free -= count
            return None
        meter.take_loan(loan, began)
        if not loan.granted and count:
            return loan.wait
        meter.left -= count
        if meter.dry and meter.left > 0:
            self._return_soon(meter)
        return None

    def _undo(self, meter: Meter, count: int, loan: asyncio.Future[bool | None]) -> None:
        if not loan.cancelled() and loan.exception() is None and loan.result() is None:
            self._put_back(meter, count, meter.epoch)

    def _put_back(self, meter: Meter, count: int, epoch: int) -> None:
        """Into the slice; what was taken in another minute is not given to this one. Negative: charged to this one."""
        meter.turn(self.window)
        if count > 0 and epoch != meter.epoch:
            return
        meter.left += count
        if meter.left < 0 or (meter.dry and meter.left > 0):
            self._return_soon(meter)

    def _retry_after(self, meter: Meter, count: int) -> float | None:
        """Seconds after which `count` fits, if nobody else comes: tokens that are owed take minutes to pay off."""
        if count > meter.limit:
            return None
        minutes = max(1, math.ceil((meter.limit - meter.free + count) / meter.limit) - 1) if meter.limit else 1
        return meter.resets_in(self.window) + (minutes - 1) * self.window + meter.lag + RETRY_MARGIN

    # --- parallel requests

    async def _slot(self, name: str, limit: int) -> Slots | None:
        slots = self._slots.get(name)
        if slots is None:
            slots = self._slots[name] = Slots(name, limit)
        slots.limit = limit
        if not slots.open():
            async with slots.leasing:
                pause = POLL_FIRST
                while not slots.open():
                    again = await self._lease(slots, slots.busy + 1, slots.busy + max(1, limit // 16))
                    if slots.open():
                        break
                    if not again:
                        return None
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, POLL_LAST)
                slots.busy += 1
                return slots
        slots.busy += 1
        return slots

    async def _lease(self, slots: Slots, needed: int, wanted: int, answering: str = "0") -> bool:
        """Whether it is worth while to ask again shortly."""
        began = time.monotonic()
        again = False
        slots.held = min(slots.held, needed)  # at least these stay ours while the answer is on its way
        try:
            slots.held, slots.dry, again = await self._counters.lease(
                slots.name, needed, wanted, slots.limit, answering
            )
        except CountersAway:
            slots.held, slots.dry = slots.limit, False
        slots.ends = began + SLOT_SECONDS
        if slots.recalled_at >= began and slots.held > needed:  # lent before the recall, and heard of after it
            slots.dry = True
            self._return_soon(slots)
        return again

    def unused(self, scope: RateScope) -> tuple[int, int, int]:
        """Requests, tokens and parallel slots that this worker borrowed of a scope and could still give to callers."""
        left = []
        for name in ("rpm", "tpm"):
            meter = self._meters.get(f"{name}:{scope.id}")
            if meter is not None:
                meter.turn(self.window)
            left.append(max(0, meter.left) if meter is not None else 0)
        slots = self._slots.get(f"par:{scope.id}")
        return left[0], left[1], slots.held - slots.busy if slots is not None else 0

    # --- giving back

    async def _recalled(self, name: str, number: str) -> None:
        """Somebody would be refused for want of what we hold."""
        meter, slots = self._meters.get(name), self._slots.get(name)
        try:
            if slots is not None:
                slots.dry, slots.recalled_at = True, time.monotonic()
                if slots.leasing.locked():  # somebody here wants a slot: there is none to spare
                    await self._counters.answer(name, number)
                else:
                    async with slots.leasing:
                        await self._lease(slots, slots.busy, slots.busy, number)
            elif meter is not None:
                back = 0
                meter.turn(self.window)
                meter.dry, meter.recalled_at = True, time.monotonic()
                if meter.left > 0:
                    back, meter.left = meter.left, 0
                    meter.free += back
                minute = meter.minute
                await self._counters.give(name, meter.limit, back=back, minute=minute, answering=number)
            else:
                await self._counters.answer(name, number)
        except CountersAway:
            return  # the tick gives it back

    def _return_soon(self, item: Meter | Slots) -> None:
        self._returning[item] = None
        if self._returner is None or self._returner.done():
            self._returner = asyncio.get_running_loop().create_task(self._return_all(), name="rate returns")

    async def _return_all(self) -> None:
        while self._returning:
            item = next(iter(self._returning))
            del self._returning[item]
            await self._return(item)

    async def _return(self, item: Meter | Slots) -> None:
        if isinstance(item, Slots):
            async with item.leasing:
                if item.held > item.busy:
                    await self._lease(item, item.busy, item.busy)
            return
        item.turn(self.window)
        back, item.left = item.left, 0
        if back == 0:
            return
        item.free += back
        try:
            await self._counters.give(item.name, item.limit, back=back, minute=item.minute)
        except CountersAway:
            item.left += back  # the next tick tries again
            item.free -= back

    async def tick(self) -> None:
        """Each second: gives idle slices back, keeps the leases of busy slots alive, drops what nobody uses."""
        at = time.monotonic()
        for name, meter in list(self._meters.items()):
            if meter.left < 0 or (meter.left > 0 and at - meter.used_at > IDLE_SECONDS):
                await self._return(meter)
            elif at > meter.ends + self.window and not meter.borrowing.locked():
                del self._meters[name]
        for name, slots in list(self._slots.items()):
            if slots.held or slots.busy:
                async with slots.leasing:
                    await self._lease(slots, slots.busy, slots.busy)
            elif not slots.leasing.locked():
                del self._slots[name]
