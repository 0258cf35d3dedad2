"""One of several processes that make requests under the same rate limits (test_rates_over_processes.py).

Says `ready`, then reads a line of JSON on standard input: valkey, window, worker, start (Unix seconds) and scopes, each
an object with rpm, tpm, max_parallel, id and attempts [[seconds after start, estimate, really used, duration], …].
Prints [[decided, admitted, window charged or null, released or null, estimate, used, duration], …] for each scope, in
monotonic seconds.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import uuid
from typing import Any

import django
import structlog

django.setup(set_prefix=False)
structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # standard output is for the answer

from redis.asyncio import Redis  # noqa: E402 (after setup)

from keys.entries import RateScope  # noqa: E402
from keys.limits import RateLimits, Taken  # noqa: E402

TICK_SECONDS = 1.0


class Worker:
    def __init__(self, plan: dict[str, Any], valkey: Redis) -> None:
        self.limits = RateLimits(valkey, plan["worker"], window=plan["window"])
        self.start, self.scopes = plan["start"], plan["scopes"]
        self.seen: list[list[list[Any]]] = [[] for _ in self.scopes]

    async def run(self) -> None:
        ticking = asyncio.create_task(self._tick())
        await asyncio.gather(*(self._visit(*pair) for pair in zip(self.scopes, self.seen, strict=True)))
        ticking.cancel()
        await asyncio.gather(ticking, return_exceptions=True)
        await self.limits.close()

    async def _visit(self, plan: dict[str, Any], seen: list[list[Any]]) -> None:
        scope = RateScope("key", uuid.UUID(plan["id"]), "one", plan["rpm"], plan["tpm"], plan["max_parallel"])
        running = []
        for after, *attempt in plan["attempts"]:
            await asyncio.sleep(max(0.0, self.start + after - time.time()))
            running.append(asyncio.create_task(self._attempt(scope, seen, *attempt)))
        await asyncio.gather(*running)

    async def _attempt(
        self, scope: RateScope, all_seen: list[list[Any]], estimate: int, tokens: int, duration: float
    ) -> None:
        taken = await self.limits.admit([scope], estimate)
        seen: list[Any] = [time.monotonic(), isinstance(taken, Taken), None, None, estimate, tokens, duration]
        all_seen.append(seen)
        if not isinstance(taken, Taken):
            return
        meters = taken.requests + taken.tokens
        seen[2] = meters[0][0].minute if meters else None
        await asyncio.sleep(duration)
        seen[3] = time.monotonic()
        self.limits.release(taken, tokens)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            await self.limits.tick()


async def main() -> None:
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    plan = json.loads(sys.stdin.readline())
    valkey = Redis.from_url(plan["valkey"], socket_timeout=30, socket_connect_timeout=30)
    worker = Worker(plan, valkey)
    await worker.run()
    await valkey.aclose()
    sys.stdout.write(json.dumps(worker.seen))


if __name__ == "__main__":
    asyncio.run(main())
