"""Between the pipeline and keys.limits: takes a call's rates, and gives back what was not used.

`admit` concerns the caller (key, teams, customer), once a request. `next_open` concerns the provider and credential of
each attempt: a candidate at its limit is passed over, as one that cannot be reached is.
"""

from __future__ import annotations

import msgspec

from conduit.proxy import errors
from conduit.proxy.call import Call
from conduit.proxy.errors import ApiError
from keys.entries import RateScope
from keys.limits import OverLimit, RateLimits, Taken
from providers.candidates import Candidate, candidates

ASSUMED_ANSWER_TOKENS = 256  # for the token rate, when a request does not bound its answer; corrected afterwards


class AttemptTaken(msgspec.Struct):
    """What an attempt took of its provider's and credential's limits; `used` are the call's tokens before it."""

    taken: Taken | None = None
    used: int = 0


_UNLIMITED = AttemptTaken()


class RateGate:
    def __init__(self, limits: RateLimits) -> None:
        self.limits = limits

    async def admit(self, call: Call, *, tokens: int | None = None) -> None:
        """`tokens` are estimated from the request where they are not given. A call that came with what was taken for
        it takes no more. Raises ApiError 429."""
        if not call.rates or call.taken is not None:
            return
        taken = await self.limits.admit(call.rates, estimate(call) if tokens is None else tokens)
        if isinstance(taken, OverLimit):
            call.over = taken
            _note(call, taken)
            raise refusal(taken)
        call.taken = taken

    async def admit_attempt(self, call: Call, candidate: Candidate) -> AttemptTaken | None:
        """None: this candidate is at its provider's or credential's limit, and `call.retry_after` knows how long."""
        provider, credential = candidate.target.provider, candidate.credential
        if provider.limits is None and credential.limits is None:
            return _UNLIMITED
        taken = await self.limits.admit(scopes(candidate), estimate(call))
        if not isinstance(taken, OverLimit):
            return AttemptTaken(taken, call.tokens)
        _note(call, taken)
        call.limited = True
        if taken.retry_after is not None:
            call.retry_after = min(taken.retry_after, call.retry_after or taken.retry_after)
        return None

    def release_attempt(self, taken: AttemptTaken, tokens: int) -> None:
        """When the attempt has ended with so many tokens used."""
        if taken.taken is not None:
            self.limits.release(taken.taken, tokens)

    async def next_open(self, call: Call, drawn: candidates) -> Candidate | None:
        """The next candidate that is not at a limit of its own; what the call's attempt before took is given back."""
        self._end_attempt(call)
        for candidate in drawn:
            taken = None
            try:
                taken = await self.admit_attempt(call, candidate)
            finally:
                if taken is None:
                    drawn.give_back(candidate)
            if taken is not None:
                call.attempt_taken = taken
                return candidate
        return None

    def release(self, call: Call) -> None:
        """When the answer has left, or the request failed."""
        self._end_attempt(call)
        if call.taken is not None:
            self.limits.release(call.taken, call.tokens)

    def _end_attempt(self, call: Call) -> None:
        taken, call.attempt_taken = call.attempt_taken, None
        if taken is not None:
            self.release_attempt(taken, call.tokens - taken.used)


def estimate(call: Call) -> int:
    """Tokens that the request asks for, for the token rate."""
    assert call.inbound is not None
    head = call.inbound.head
    return len(call.body) // 4 + (head.max_output_tokens or ASSUMED_ANSWER_TOKENS) * head.n


def refusal(over: OverLimit) -> ApiError:
    """In words for the client."""
    per = "at once" if over.what == "parallel requests" else "a minute"
    message = f"The {over.scope.kind} {over.scope.name!r} may make {over.limit} {over.what} {per}."
    if over.retry_after is None and over.limit:
        message += " This request alone is more than that: send a shorter one, or bound its answer."
    return errors.rate_limited(message, over.retry_after)


def scopes(candidate: Candidate) -> list[RateScope]:
    """The provider's and the credential's own limits, where they have any."""
    found = []
    for kind, owner in (("provider", candidate.target.provider), ("credential", candidate.credential)):
        limits = owner.limits
        if limits is not None:
            found.append(RateScope(kind, owner.id, owner.name, limits.rpm, limits.tpm, limits.max_parallel))
    return found


def _note(call: Call, over: OverLimit) -> None:
    scope = f"{over.scope.kind} {over.scope.name!r}"
    call.trace.append({"check": "rate", "ok": False, "scope": scope, "what": over.what, "limit": over.limit})
