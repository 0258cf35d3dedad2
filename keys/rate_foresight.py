"""Whether a request would be within the rate limits, without taking anything of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import msgspec

from keys.entries import RateScope
from keys.rates_now import RateNow

Unused = Callable[[RateScope], tuple[int, int, int]]


class RateProspect(msgspec.Struct, frozen=True):
    """One limit of one scope. `used` of `limit` are gone and `asked` are wanted; None: nobody could tell.

    `wait`: seconds until there may be more; nobody knows when a place comes free, so that says one.
    """

    scope: RateScope
    what: str  # "requests" | "tokens" | "parallel requests", as in keys.limits.OverLimit
    limit: int
    used: int | None
    asked: int
    wait: float

    @property
    def ok(self) -> bool:
        """Where the counters cannot be asked each worker enforces the limit by itself; a fresh one has it all left."""
        return (self.used or 0) + self.asked <= self.limit


def _nothing(scope: RateScope) -> tuple[int, int, int]:
    return 0, 0, 0


def foresee(now: Sequence[RateNow], tokens: int, unused: Unused = _nothing) -> list[RateProspect]:
    """In the order of the real checks. `unused`: what the asking worker itself has borrowed and not used."""
    found = []
    minute = 60 - time.time() % 60
    for one in now:
        scope = one.scope
        own = unused(scope)
        rows = (
            ("requests", scope.rpm, one.requests, own[0], 1, minute),
            ("tokens", scope.tpm, one.tokens, own[1], tokens, minute),
            ("parallel requests", scope.max_parallel, one.parallel, own[2], 1, 1.0),
        )
        for what, limit, used, mine, asked, wait in rows:
            if limit is not None:
                known = None if used is None else max(0, used - mine)
                found.append(RateProspect(scope, what, limit, known, asked, wait))
    return found
