"""Between the pipeline and keys.limits: takes a call's rates, tells what is left, gives back what was not used."""

from __future__ import annotations

from conduit.proxy import answer_headers, errors
from conduit.proxy.call import Call
from conduit.proxy.errors import ApiError
from keys.limits import OverLimit, RateLimits

ASSUMED_ANSWER_TOKENS = 256  # for the token rate, when a request does not bound its answer; corrected afterwards


class RateGate:
    def __init__(self, limits: RateLimits) -> None:
        self.limits = limits

    async def admit(self, call: Call) -> None:
        """Raises ApiError 429."""
        if not call.rates:
            return
        taken = await self.limits.admit(call.rates, estimate(call))
        if isinstance(taken, OverLimit):
            scope = f"{taken.scope.kind} {taken.scope.name!r}"
            call.trace.append({"check": "rate", "ok": False, "scope": scope, "what": taken.what, "limit": taken.limit})
            raise refusal(taken)
        call.taken = taken
        for name, meter in ((b"requests", taken.requests_meter), (b"tokens", taken.tokens_meter)):
            if meter is not None:
                call.limit_headers += answer_headers.of_limit(call, name, meter)

    def release(self, call: Call) -> None:
        """When the answer has left, or the request failed."""
        if call.taken is not None:
            self.limits.release(call.taken, call.tokens)
            call.taken = None


def estimate(call: Call) -> int:
    """Tokens that the request asks for, for the token rate."""
    assert call.inbound is not None
    head = call.inbound.head
    return len(call.body) // 4 + (head.max_output_tokens or ASSUMED_ANSWER_TOKENS) * head.n


def refusal(over: OverLimit) -> ApiError:
    """In words for the client."""
    per = "at once" if over.what == "parallel requests" else "a minute"
    message = f"The {over.scope.kind} {over.scope.name!r} may make {over.limit} {over.what} {per}."
    return errors.rate_limited(message, over.retry_after)
