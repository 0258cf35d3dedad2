"""One of several processes that make the same kind of requests under one rate limit (tests/keys/test_rates_over_processes).

Reads a JSON object on standard input: valkey, window, worker, scope {rpm, tpm, max_parallel, id}, start (Unix seconds)
and attempts [[seconds after start, estimate, tokens really used, duration], …]. Prints one line of JSON:
[[began, ended, admitted, window charged or null, released or null], …], monotonic seconds.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import uuid
from typing import Any

import django

django.setup(set_prefix=False)

from redis.asyncio import Redis  # noqa: E402 (after setup)

from keys.entries import RateScope  # noqa: E402
from keys.limits import RateLimits, Taken  # noqa: E402

TICK_SECONDS = 1.0


class Worker:
    def __init__(self, plan: dict[str, Any], valkey: Redis) -> None:
        self.limits = RateLimits(valkey, plan["worker"], window=plan["window"])
        limits = plan["scope"]
        self.scope = RateScope(
            "key", uuid.UUID(limits["id"]), "one", limits["rpm"], limits["tpm"], limits["max_parallel"]
        )
        self.start, self.attempts = plan["start"], plan["attempts"]
        self.seen: list[list[Any]] = []

    async def run(self) -> None:
        ticking = asyncio.create_task(self._tick())
        await asyncio.gather(*(self._attempt(*attempt) for attempt in self.attempts))
        ticking.cancel()
        await asyncio.gather(ticking, return_exceptions=True)
        await self.limits.close()

    async def _attempt(self, after: float, estimate: int, tokens: int, duration: float) -> None:
        await asyncio.sleep(max(0.0, self.start + after - time.time()))
        began = time.monotonic()
        taken = await self.limits.admit([self.scope], estimate)
        seen: list[Any] = [began, time.monotonic(), isinstance(taken, Taken), None, None]
        self.seen.append(seen)
        if not isinstance(taken, Taken):
            return
        meters = taken.requests + taken.tokens
        seen[3] = meters[0][0].minute if meters else None
        await asyncio.sleep(duration)
        seen[4] = time.monotonic()
        self.limits.release(taken, tokens)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            await self.limits.tick()


async def main() -> None:
    plan = json.loads(sys.stdin.read())
    valkey = Redis.from_url(plan["valkey"], socket_timeout=5, socket_connect_timeout=5)
    worker = Worker(plan, valkey)
    await worker.run()
    await valkey.aclose()
    sys.stdout.write(json.dumps(worker.seen))


if __name__ == "__main__":
    asyncio.run(main())
