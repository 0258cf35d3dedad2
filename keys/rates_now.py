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
    minute = int(time.time() // 60)
    try:
        answers = _ask(scopes, minute)
    except (RedisError, OSError) as error:
        log.warning("rates_unknown", reason=str(error) or type(error).__name__)
        return [RateNow(scope) for scope in scopes]
    at = time.time()
    return [
        RateNow(scope, _number(answers[i]), _number(answers[i + 1]), _slots(answers[i + 2], at))
        for i, scope in zip(range(0, len(answers), 3), scopes, strict=True)
    ]


def _ask(scopes: Sequence[RateScope], minute: int) -> list[Any]:
    client = Redis.from_url(
        settings.VALKEY_URL or "redis://127.0.0.1:1", socket_timeout=DEADLINE, socket_connect_timeout=DEADLINE
    )
    with client, client.pipeline(transaction=False) as pipe:
        for scope in scopes:
            pipe.get(f"conduit:rpm:{scope.id}:{minute}")
            pipe.get(f"conduit:tpm:{scope.id}:{minute}")
            pipe.hvals(f"conduit:par:{scope.id}")
        return list(pipe.execute())


def _number(answer: bytes | None) -> int:
    return max(0, int(answer or 0))


def _slots(held: list[bytes], at: float) -> int:
    """Each is "slots expiry"; those of a worker that died have expired."""
    pairs = [value.split() for value in held]
    return sum(int(slots) for slots, expiry in pairs if float(expiry) >= at)
