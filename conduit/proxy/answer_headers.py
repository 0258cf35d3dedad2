"""What an answer says about itself in its headers (contract 3)."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING

from conduit.core import clock
from conduit.core.money import format_usd
from conduit.proxy.call import EVENTS, JSON, Call, Headers, Incoming
from keys.limits import Meter
from providers.adapters.types import Dialect

if TYPE_CHECKING:
    from conduit.proxy.gateway import Gateway
    from conduit.proxy.settlement import Attempt
    from providers.candidates import Candidate
    from providers.routing import TargetEntry


def of_attempt(gateway: Gateway, call: Call, candidate: Candidate, attempt: Attempt) -> Headers:
    """Of an answered request. A stream's cost is not known yet when its headers leave."""
    headers = [
        *of_target(candidate.target),
        (b"x-conduit-attempts", str(call.attempts).encode()),
        (b"x-conduit-cache", b"bypass"),
        (b"x-conduit-overhead-ms", f"{call.overhead_us() / 1000:.3f}".encode()),
    ]
    if attempt.cost is not None:
        headers.append((b"x-conduit-cost-usd", format_usd(attempt.cost.nanos).encode()))
    return headers + _of_dropped(call) + of_limits(call) + of_budgets(gateway, call)


def of_waiting(gateway: Gateway, call: Call) -> Headers:
    """Of a stream whose head leaves before it is known which candidate will serve it. What could not be carried is told
    of the candidate that is asked now."""
    kind = [JSON] if call.path.array else EVENTS
    headers = [*kind, (b"x-conduit-cache", b"bypass"), *_of_dropped(call), *of_limits(call)]
    return headers + of_budgets(gateway, call) + of_request(call)


def _of_dropped(call: Call) -> Headers:
    return [(b"x-conduit-dropped-params", plain(",".join(call.dropped)))] if call.dropped else []


def of_request(request: Incoming) -> Headers:
    text = request.request_id.encode()
    return [(b"x-request-id", text), (b"request-id", text)]


def of_target(target: TargetEntry) -> Headers:
    """Who answered."""
    return [
        (b"x-conduit-provider", target.provider.name.encode("latin-1", "replace")),
        (b"x-conduit-model", target.model.encode("latin-1", "replace")),
    ]


def of_limits(call: Call) -> Headers:
    """Of the tightest limit of requests and of tokens. Tokens already count as used once the answer is metered."""
    taken, over = call.taken, call.over
    if over is not None and over.meter is not None:
        return _of_limit(call, over.what.encode(), over.meter, over.meter.remaining())
    if taken is None:
        return []
    headers: Headers = []
    metered = call.tokens if call.ended else None
    for what, drawn in ((b"requests", taken.requests), (b"tokens", taken.tokens)):
        shown = [
            (meter.remaining(units - metered if what == b"tokens" and metered is not None else 0), meter)
            for meter, units, _ in drawn
        ]
        if shown:
            left, meter = min(shown, key=lambda pair: pair[0])
            headers += _of_limit(call, what, meter, left)
    return headers


def _of_limit(call: Call, what: bytes, meter: Meter, remaining: int) -> Headers:
    """`x-ratelimit-*`, and Anthropic's own names for its dialect, whose reset is an instant."""
    seconds = math.ceil(meter.resets_in())
    limit, left = str(meter.limit).encode(), str(remaining).encode()
    headers = [
        (b"x-ratelimit-limit-" + what, limit),
        (b"x-ratelimit-remaining-" + what, left),
        (b"x-ratelimit-reset-" + what, f"{seconds}s".encode()),
    ]
    if call.path.dialect is Dialect.ANTHROPIC:
        own = b"anthropic-ratelimit-" + what
        reset = (clock.now() + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ").encode()
        headers += [(own + b"-limit", limit), (own + b"-remaining", left), (own + b"-reset", reset)]
    return headers


def of_budgets(gateway: Gateway, call: Call) -> Headers:
    """`x-conduit-budget-remaining-usd`: the least that any of the budgets has left."""
    if not call.budgets:
        return []
    at = gateway.now()
    left = min(gateway.holds.known(budget, at).remaining for budget in call.budgets)
    return [(b"x-conduit-budget-remaining-usd", format_usd(max(0, left)).encode())]


def plain(text: str) -> bytes:
    """Text with names that the client chose as a header's value: nothing but printable ASCII, at most 1,000 bytes."""
    return "".join([letter if " " <= letter <= "~" else "?" for letter in text[:1000]]).encode()
