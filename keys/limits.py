"""Rate limits: requests a minute, tokens a minute, parallel requests, exact over all workers.

A minute is a calendar minute; its counter lives in Valkey. A worker borrows slices of it (a sixteenth of what is free
at most, so that little can be stranded), decides in memory, and gives an idle slice back each second. Tokens are
estimated at admission and corrected when the request has ended. Parallel slots are leased by a heartbeat: those of a
dead worker come back after SLOT_SECONDS. Without Valkey each worker enforces the limit by itself.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from typing import Any

import msgspec
import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from keys.entries import RateScope

SLOT_SECONDS = 10
VALKEY_DEADLINE = 0.25
AWAY_SECONDS = 1.0
log = structlog.get_logger("conduit.limits")

# KEYS: counter; ARGV: needed, limit. Answers {granted, free afterwards}.
_BORROW = """
local used = tonumber(redis.call('GET', KEYS[1]) or '0')
local needed, limit = tonumber(ARGV[1]), tonumber(ARGV[2])
local free = limit - used
if free < needed then return {0, free} end
local give = math.min(free, math.max(needed, math.floor(free / 16)))
redis.call('INCRBY', KEYS[1], string.format('%d', give))
redis.call('EXPIRE', KEYS[1], 120)
return {give, free - give}
"""
# KEYS: hash worker → "slots expiry"; ARGV: worker, slots wanted in all, limit, now, lifetime. Answers slots now held.
_SLOTS = """
local worker, wanted, limit = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local others = 0
local held = redis.call('HGETALL', KEYS[1])
for i = 1, #held, 2 do
  local slots, expiry = string.match(held[i + 1], '(%d+) (%d+)')
  if tonumber(expiry) < tonumber(ARGV[4]) then redis.call('HDEL', KEYS[1], held[i])
  elseif held[i] ~= worker then others = others + tonumber(slots) end
end
local mine = math.max(0, math.min(wanted, limit - others))
if mine == 0 then redis.call('HDEL', KEYS[1], worker)
else redis.call('HSET', KEYS[1], worker, mine .. ' ' .. (tonumber(ARGV[4]) + tonumber(ARGV[5]))) end
redis.call('EXPIRE', KEYS[1], 120)
return mine
"""


class OverLimit(msgspec.Struct, frozen=True):
    """Why not: `what` is "requests", "tokens" or "parallel requests"; `retry_after` in seconds."""

    scope: RateScope
    what: str
    limit: int
    retry_after: float


class Meter:
    """One worker's slice of one counter."""

    __slots__ = ("free", "left", "limit", "minute", "used_at")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.minute = -1
        self.left = 0  # may turn negative when tokens were underestimated
        self.free = limit  # in the counter after the last loan
        self.used_at = 0.0

    def remaining(self) -> int:
        if self.minute != int(time.time() // 60):
            return self.limit
        return max(0, min(self.limit, self.free + self.left))


class Taken(msgspec.Struct):
    """What one request took: to be corrected and given back."""

    meters: list[tuple[Meter, int]] = msgspec.field(default_factory=list)
    tokens: list[tuple[Meter, int]] = msgspec.field(default_factory=list)
    slots: list[Slots] = msgspec.field(default_factory=list)
    requests_meter: Meter | None = None
    tokens_meter: Meter | None = None


class Slots:
    """One worker's parallel slots of one scope."""

    __slots__ = ("busy", "held", "key", "leasing", "limit")

    def __init__(self, key: str, limit: int) -> None:
        self.key, self.limit = key, limit
        self.leasing = asyncio.Lock()
        self.busy = 0
        self.held = 0


class RateLimits:
    """Used by the event loop's thread only."""

    def __init__(self, valkey: Redis, worker: str) -> None:
        self._valkey, self._worker = valkey, worker
        self._meters: dict[str, Meter] = {}
        self._slots: dict[str, Slots] = {}
        self._borrow = valkey.register_script(_BORROW)
        self._lease = valkey.register_script(_SLOTS)
        self._reachable = True
        self._asked_again = 0.0  # monotonic seconds: an engine that hangs is not asked for every request

    async def admit(self, scopes: Sequence[RateScope], tokens: int) -> Taken | OverLimit:
        """Takes one request and `tokens` from every scope, or nothing at all."""
        taken = Taken()
        refused: OverLimit | None = None
        whole = False
        try:
            for scope in scopes:
                refused = await self._take(scope, tokens, taken)
                if refused is not None:
                    return refused
            whole = True
        finally:  # refused, or cancelled because the client left
            if not whole:
                for meter, count in taken.meters + taken.tokens:
                    meter.left += count
                self.release(taken, None)
        return taken

    async def _take(self, scope: RateScope, tokens: int, taken: Taken) -> OverLimit | None:
        if scope.rpm is not None:
            meter = await self._draw(f"rpm:{scope.id}", scope.rpm, 1)
            if meter is None:
                return OverLimit(scope, "requests", scope.rpm, _until_next_minute())
            taken.meters.append((meter, 1))
            taken.requests_meter = _tighter(taken.requests_meter, meter)
        if scope.tpm is not None:
            meter = await self._draw(f"tpm:{scope.id}", scope.tpm, tokens)
            if meter is None:
                return OverLimit(scope, "tokens", scope.tpm, _until_next_minute())
            taken.tokens.append((meter, tokens))
            taken.tokens_meter = _tighter(taken.tokens_meter, meter)
        if scope.max_parallel is not None:
            slots = await self._slot(f"par:{scope.id}", scope.max_parallel)
            if slots is None:
                return OverLimit(scope, "parallel requests", scope.max_parallel, 1.0)
            taken.slots.append(slots)
        return None

    def release(self, taken: Taken, tokens: int | None) -> None:
        """The request ended; `tokens` is what it really used, None when it was not admitted."""
        for slots in taken.slots:
            slots.busy -= 1
        taken.slots = []
        if tokens is not None:
            for meter, estimate in taken.tokens:
                meter.left += estimate - tokens
            taken.tokens = []

    async def _draw(self, name: str, limit: int, count: int) -> Meter | None:
        """Takes `count` from the slice, borrowing more when it is too small. None: the limit is reached."""
        meter = self._meters.get(name)
        if meter is None or meter.limit != limit:
            meter = self._meters[name] = Meter(limit)
        at = time.time()
        minute = int(at // 60)
        if meter.minute != minute:
            meter.minute, meter.left, meter.free = minute, min(0, meter.left), limit
        meter.used_at = at
        if meter.left < count:
            granted = await self._loan(f"{name}:{minute}", count - meter.left, meter)
            if meter.minute != minute:
                return await self._draw(name, limit, count)
            meter.left += granted
        if meter.left < count:
            return None
        meter.left -= count
        return meter

    async def _loan(self, key: str, needed: int, meter: Meter) -> int:
        try:
            self._check_away()
            granted, free = await self._borrow(keys=[f"conduit:{key}"], args=[needed, meter.limit])
        except (RedisError, OSError, TimeoutError) as error:
            self._away(error)
            granted = min(meter.free, max(needed, 1))
            free = meter.free - granted
        else:
            self._reachable = True
        meter.free = int(free)
        return int(granted)

    async def _slot(self, key: str, limit: int) -> Slots | None:
        slots = self._slots.get(key)
        if slots is None or slots.limit != limit:
            slots = self._slots[key] = Slots(key, limit)
        if slots.busy >= slots.held:
            async with slots.leasing:  # one by one: each must see what the one before it was given
                if slots.busy >= slots.held:
                    await self._lease_slots(slots, slots.busy + max(1, limit // 16))
                if slots.busy >= slots.held:
                    return None
                slots.busy += 1
                return slots
        slots.busy += 1
        return slots

    async def _lease_slots(self, slots: Slots, wanted: int) -> None:
        args: list[Any] = [self._worker, wanted, slots.limit, int(time.time()), SLOT_SECONDS]
        try:
            self._check_away()
            slots.held = int(await self._lease(keys=[f"conduit:{slots.key}"], args=args))
        except (RedisError, OSError, TimeoutError) as error:
            self._away(error)
            slots.held = slots.limit
        else:
            self._reachable = True

    def unused(self, scope: RateScope) -> tuple[int, int, int]:
        """Requests, tokens and parallel slots that this worker borrowed of a scope and could still give to callers."""
        minute, left = int(time.time() // 60), []
        for name in ("rpm", "tpm"):
            meter = self._meters.get(f"{name}:{scope.id}")
            left.append(meter.left if meter is not None and meter.minute == minute else 0)
        slots = self._slots.get(f"par:{scope.id}")
        return left[0], left[1], slots.held - slots.busy if slots is not None else 0

    def _check_away(self) -> None:
        """Raises TimeoutError for AWAY_SECONDS after a failure, but for the one request that tries again."""
        if not self._reachable and time.monotonic() < self._asked_again:
            raise TimeoutError
        self._asked_again = time.monotonic() + AWAY_SECONDS

    def _away(self, error: Exception) -> None:
        if self._reachable:
            log.warning("valkey_away", reason=str(error) or type(error).__name__)
        self._reachable = False

    async def tick(self) -> None:
        """Each second: gives idle slices back, keeps the leases of busy slots alive, drops what nobody uses."""
        at = time.time()
        minute = int(at // 60)
        for name, meter in list(self._meters.items()):
            if meter.minute == minute and meter.left > 0 and at - meter.used_at > 1.0:
                back, meter.left = meter.left, 0
                meter.free += back
                try:
                    self._check_away()
                    await self._valkey.decrby(f"conduit:{name}:{minute}", back)
                except (RedisError, OSError, TimeoutError) as error:
                    self._away(error)
            elif meter.minute < minute - 1:
                del self._meters[name]
        for key, slots in list(self._slots.items()):
            if slots.held or slots.busy:
                async with slots.leasing:
                    await self._lease_slots(slots, slots.busy)
            else:
                del self._slots[key]


def _tighter(left: Meter | None, right: Meter) -> Meter:
    return right if left is None or right.remaining() < left.remaining() else left


def _until_next_minute() -> float:
    return max(1.0, math.ceil(60 - time.time() % 60))


def seconds_to_reset() -> int:
    """Until the minute that runs now is over."""
    return int(_until_next_minute())
