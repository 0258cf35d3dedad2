"""How much of their rate limits owners use at this moment, for a page. The counters are those of keys/limits.py.

What workers borrowed and have not used yet counts as used until they give it back, within about a second.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from django.conf import settings
from redis import Redis
from redis.exceptions import RedisError

from keys.entries import RateScope

DEADLINE = 0.25  # seconds: a page does not wait for an engine that hangs
log = structlog.get_logger("conduit.limits")


@dataclass(frozen=True, slots=True)
class RateNow:
    """In the calendar minute that runs now, and in parallel now. None: Valkey could not tell."""

    scope: RateScope
    requests: int | None = None
    tokens: int | None = None
    parallel: int | None = None


def rates_now(scopes: Sequence[RateScope]) -> list[RateNow]:
    """One for each scope, in one round trip. Counters exist only for limits that are set; others answer 0."""
    if not scopes:
        return []
    try:
        answers = _ask(scopes)
    except (RedisError, OSError) as error:
        log.warning("rates_unknown", reason=str(error) or type(error).__name__)
        return [RateNow(scope) for scope in scopes]
    at = time.time()
    return [
        RateNow(scope, _used(requests, scope.rpm, at), _used(tokens, scope.tpm, at), _slots(parallel, at))
        for scope, requests, tokens, parallel in zip(scopes, answers[::3], answers[1::3], answers[2::3], strict=True)
    ]


def _ask(scopes: Sequence[RateScope]) -> list[Any]:
    client = Redis.from_url(
        settings.VALKEY_URL or "redis://127.0.0.1:1", socket_timeout=DEADLINE, socket_connect_timeout=DEADLINE
    )
    with client, client.pipeline(transaction=False) as pipe:
        for scope in scopes:
            pipe.hmget(f"conduit:rpm:{scope.id}", "minute", "used")
            pipe.hmget(f"conduit:tpm:{scope.id}", "minute", "used")
            pipe.hvals(f"conduit:par:{scope.id}")
        return list(pipe.execute())


def _used(counter: Sequence[bytes | None], limit: int | None, at: float) -> int:
    """In this minute: what an earlier one used beyond its limit is owed by those that follow."""
    minute, used = (int(figure or 0) for figure in counter)
    passed = int(at // 60) - minute
    return max(0, used - (limit or 0) * passed) if passed > 0 else max(0, used)


def _slots(held: list[bytes], at: float) -> int:
    """Each is "slots expiry" in milliseconds; those of a worker that died have expired."""
    pairs = [value.split() for value in held]
    return sum(int(slots) for slots, expiry in pairs if int(expiry) >= at * 1000)
