"""Whether a request would be within the rate limits, without taking anything of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from keys.entries import RateScope
from keys.rates_now import RateNow

Unused = Callable[[RateScope], tuple[int, int, int]]


class RateProspect(msgspec.Struct, frozen=True):
    """One limit of one scope. `used` of `limit` are gone and `asked` are wanted; None: nobody could tell."""

    scope: RateScope
    what: str  # "requests" | "tokens" | "parallel requests", as in keys.limits.OverLimit
    limit: int
    used: int | None
    asked: int

    @property
    def ok(self) -> bool:
        """Where the counters cannot be asked each worker enforces the limit by itself; a fresh one has it all left."""
        return (self.used or 0) + self.asked <= self.limit


def _nothing(scope: RateScope) -> tuple[int, int, int]:
    return 0, 0, 0


def foresee(now: Sequence[RateNow], tokens: int, unused: Unused = _nothing) -> list[RateProspect]:
    """In the order of the real checks. `unused`: what the asking worker itself has borrowed and not used."""
    found = []
    for one in now:
        scope = one.scope
        own = unused(scope)
        rows = (
            ("requests", scope.rpm, one.requests, own[0], 1),
            ("tokens", scope.tpm, one.tokens, own[1], tokens),
            ("parallel requests", scope.max_parallel, one.parallel, own[2], 1),
        )
        for what, limit, used, mine, asked in rows:
            if limit is not None:
                known = None if used is None else max(0, used - mine)
                found.append(RateProspect(scope, what, limit, known, asked))
    return found
