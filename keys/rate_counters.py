"""The shared counters of the rate limits: scripts that run inside Valkey, and what calls them.

A counter is one hash, rolled on from minute to minute by Valkey's own clock, so nodes need not agree about the time.
Tokens that were used beyond the limit are owed: they count in the minutes that follow.

Workers hold slices of a counter. When a loan is refused although the limit is not used up by what the counter knows
(which includes what other workers hold and have not used), every worker is told once a second over a channel; each
gives back what it holds and confirms. From then on, until the minute is over, loans are exact: no new slice is handed
out, and what comes free goes back at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

SLOT_SECONDS = 10
VALKEY_DEADLINE = 0.25
AWAY_SECONDS = 1.0
RECALL_SECONDS = 0.25  # how long a refusal waits for the other workers' answers
RELISTEN_SECONDS = 1.0
PARALLEL = "par:"  # names of parallel slots; the others are counters of a minute
log = structlog.get_logger("conduit.limits")

# Asks all workers for what they hold, at most once a second, and says whether some have yet to answer.
_RECALL = """
local function clock()
  local at = redis.call('TIME')
  return at[1] * 1000 + math.floor(at[2] / 1000)
end
local function recall(key, now, channel, name, patience)
  local row = redis.call('HMGET', key, 'asked', 'answers', 'asked_of')
  local asked, answers, of = tonumber(row[1] or 0), tonumber(row[2] or 0), tonumber(row[3] or 0)
  if now - asked >= 1000 then
    asked, answers = now, 0
    of = redis.call('PUBLISH', channel, name .. ' ' .. string.format('%d', now))
    redis.call('HSET', key, 'asked', string.format('%d', now), 'answers', 0, 'asked_of', of)
  end
  if answers < of and now - asked < patience then return 1 end
  return 0
end
-- Tokens used beyond the limit are owed by the minutes that follow.
local function roll(key, minute, limit)
  local row = redis.call('HMGET', key, 'minute', 'used')
  local was, used = tonumber(row[1] or minute), tonumber(row[2] or 0)
  if was < minute then
    used = math.max(0, used - limit * (minute - was))
    redis.call('HDEL', key, 'asked', 'answers', 'asked_of')
  end
  return used
end
local function keep(key, minute, used, limit, window)
  redis.call('HSET', key, 'minute', string.format('%d', minute), 'used', string.format('%d', used))
  local owed = limit > 0 and math.min(1440, math.floor(used / limit)) or 0
  redis.call('PEXPIRE', key, string.format('%d', window * (owed + 2)))
end
local function answered(key, round)
  if round ~= '0' and redis.call('HGET', key, 'asked') == round then redis.call('HINCRBY', key, 'answers', 1) end
end
"""
# KEYS: counter; ARGV: needed, limit, given back, minute of that, milliseconds of a window, exactly, channel, name,
# patience. Answers {granted, free afterwards, minute, milliseconds left, dry, wait}.
_BORROW = (
    _RECALL
    + """
local key, needed, limit, back = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local window, now = tonumber(ARGV[5]), clock()
local minute = math.floor(now / window)
local used = roll(key, minute, limit)
local dry = ARGV[6] == '1' or redis.call('HEXISTS', key, 'asked') == 1
if back < 0 or tonumber(ARGV[4]) == minute then used = math.max(0, used - back) end
local free, give, wait = limit - used, 0, 0
if free >= needed then
  give = needed
  if not dry then give = math.min(free, math.max(needed, math.floor(free / 16))) end
elseif needed <= limit then
  dry = true
  wait = recall(key, now, ARGV[7], ARGV[8], tonumber(ARGV[9]))
end
used = used + give
keep(key, minute, used, limit, window)
return {give, limit - used, minute, (minute + 1) * window - now, dry and 1 or 0, wait}
"""
)
# KEYS: counter; ARGV: given back (negative: owed), minute of that, milliseconds of a window, limit, the recall that is
# answered or 0.
_GIVE = (
    _RECALL
    + """
local back, window, limit = tonumber(ARGV[1]), tonumber(ARGV[3]), tonumber(ARGV[4])
if back ~= 0 then
  local minute = math.floor(clock() / window)
  local used = roll(KEYS[1], minute, limit)
  if back < 0 or tonumber(ARGV[2]) == minute then used = math.max(0, used - back) end
  keep(KEYS[1], minute, used, limit, window)
end
answered(KEYS[1], ARGV[5])
return 1
"""
)
# KEYS: hash worker → "slots expiry", hash of the recall; ARGV: worker, slots needed in all, slots wanted, limit,
# lifetime, exactly, channel, name, patience, the recall that is answered or 0. Answers {slots now held, dry, wait}.
_SLOTS = (
    _RECALL
    + """
local worker, needed, limit, now = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[4]), clock()
local others = 0
local held = redis.call('HGETALL', KEYS[1])
for i = 1, #held, 2 do
  local slots, expiry = string.match(held[i + 1], '(%d+) (%d+)')
  if tonumber(expiry) < now then redis.call('HDEL', KEYS[1], held[i])
  elseif held[i] ~= worker then others = others + tonumber(slots) end
end
local dry = ARGV[6] == '1' or now - tonumber(redis.call('HGET', KEYS[2], 'asked') or 0) < 2000
local free, wait = math.max(0, limit - others), 0
if free < needed and needed <= limit then
  dry = true
  wait = recall(KEYS[2], now, ARGV[7], ARGV[8], tonumber(ARGV[9]))
end
local mine = math.min(free, dry and needed or tonumber(ARGV[3]))
if mine == 0 then redis.call('HDEL', KEYS[1], worker)
else redis.call('HSET', KEYS[1], worker, string.format('%d %d', mine, now + tonumber(ARGV[5]))) end
redis.call('EXPIRE', KEYS[1], 120)
answered(KEYS[2], ARGV[10])
redis.call('EXPIRE', KEYS[2], 120)
return {mine, dry and 1 or 0, wait}
"""
)


class CountersAway(Exception):
    """Valkey did not answer."""


class Loan(msgspec.Struct, frozen=True):
    """`free` units remain in the counter; `ends` is its minute's end (monotonic seconds), early by at
    most `took` seconds. `dry`: keep nothing. `wait`: refused, but other workers may still give something back."""

    granted: int
    free: int
    minute: int
    ends: float
    took: float
    dry: bool
    wait: bool


class Counters:
    """One worker's connection to the counters. Used by the event loop's thread only."""

    def __init__(
        self, valkey: Redis, worker: str, window: float, recalled: Callable[[str, str], Awaitable[None]]
    ) -> None:
        self._valkey, self._worker, self._window = valkey, worker, int(window * 1000)
        self._recalled = recalled
        # Channels are not part of a numbered database: two installations may share an engine.
        self._channel = f"conduit:recall:{valkey.connection_pool.connection_kwargs.get('db') or 0}"
        self._borrow = valkey.register_script(_BORROW)
        self._give = valkey.register_script(_GIVE)
        self._lease = valkey.register_script(_SLOTS)
        self._reachable = True
        self._asked_again = 0.0  # monotonic seconds: an engine that hangs is not asked for every request
        self._listener: asyncio.Task[None] | None = None
        self._listening = False

    async def borrow(self, name: str, needed: int, limit: int, *, back: int, minute: int) -> Loan:
        """Gives `back` (of `minute`; negative: tokens owed) and borrows at least `needed`, or nothing."""
        began = time.monotonic()
        args = [needed, limit, back, minute, self._window, self._exactly(), *self._asking(name)]
        granted, free, current, left, dry, wait = await self._run(self._borrow, [f"conduit:{name}"], args)
        took = time.monotonic() - began
        return Loan(granted, free, current, began + left / 1000, took, bool(dry), bool(wait))

    async def give(self, name: str, limit: int, *, back: int, minute: int, answering: str = "0") -> None:
        """Gives units of `minute` back; negative ones are owed and count whatever the minute."""
        await self._run(self._give, [f"conduit:{name}"], [back, minute, self._window, limit, answering])

    async def answer(self, name: str, number: str) -> None:
        """This worker holds nothing of the counter that is asked for."""
        key = f"conduit:{name}:recall" if name.startswith(PARALLEL) else f"conduit:{name}"
        await self._run(self._give, [key], [0, -1, self._window, 0, number])

    async def lease(
        self, name: str, needed: int, wanted: int, limit: int, answering: str = "0"
    ) -> tuple[int, bool, bool]:
        """(parallel slots now held, `dry`, `wait` as in Loan): up to `wanted`, or what there is."""
        lifetime = SLOT_SECONDS * 1000
        args = [self._worker, needed, wanted, limit, lifetime, self._exactly(), *self._asking(name), answering]
        held, dry, wait = await self._run(self._lease, [f"conduit:{name}", f"conduit:{name}:recall"], args)
        return held, bool(dry), bool(wait)

    async def close(self) -> None:
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.gather(self._listener, return_exceptions=True)

    def _asking(self, name: str) -> list[Any]:
        return [self._channel, name, int(RECALL_SECONDS * 1000)]

    def _exactly(self) -> int:
        """A worker that cannot be asked to give back gets no more than it needs."""
        if self._listener is None:
            self._listener = asyncio.get_running_loop().create_task(self._listen(), name="rate recalls")
        return 0 if self._listening else 1

    async def _run(self, script: Any, keys: list[str], args: list[Any]) -> Any:
        if not self._reachable and time.monotonic() < self._asked_again:
            raise CountersAway
        self._asked_again = time.monotonic() + AWAY_SECONDS  # all but the one that tries again find it away
        try:
            answer = await script(keys=keys, args=args)
        except (RedisError, OSError, TimeoutError) as error:
            if self._reachable:
                log.warning("valkey_away", reason=str(error) or type(error).__name__)
            self._reachable = False
            raise CountersAway from error
        self._reachable = True
        return answer

    async def _listen(self) -> None:
        """Until it is cancelled: other workers' recalls. The client may swallow a cancellation that comes while it
        connects, and a cancelled read of a closed client ends as an error: so the task is asked."""
        task = asyncio.current_task()
        assert task is not None
        while not task.cancelling():
            try:
                async with self._valkey.pubsub() as channel:
                    await channel.subscribe(self._channel)
                    while not task.cancelling():
                        message = await channel.get_message(timeout=5.0)
                        if message is None:
                            continue
                        if message["type"] == "subscribe":
                            self._listening = True
                        elif message["type"] == "message":
                            name, _, number = bytes(message["data"]).decode().partition(" ")
                            await self._recalled(name, number)
            except (RedisError, OSError, TimeoutError) as error:
                log.debug("recalls_unheard", reason=str(error))
            finally:
                self._listening = False
            if not task.cancelling():
                await asyncio.sleep(RELISTEN_SECONDS)
