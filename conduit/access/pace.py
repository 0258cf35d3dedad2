"""How often somebody may ask: tries counted in Valkey, for synchronous views only (never the proxy)."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django_ratelimit import ALL
from django_ratelimit.core import get_usage
from redis.exceptions import RedisError

from conduit.access.errors import CountingUnavailable
from conduit.core.problems import TooMany


def demand_pace(request: HttpRequest, *, group: str, value: str, rate: str) -> None:
    """Counts one try of `value` (an actor, an address) at `rate`, such as "30/m".

    Raises TooMany over the rate, CountingUnavailable when nothing can be counted; what that means the caller decides.
    """

    def counted(group: str, request: HttpRequest) -> str:
        return value

    try:
        usage: dict[str, Any] = get_usage(request, group=group, key=counted, rate=rate, method=ALL, increment=True)
    except (RedisError, OSError) as error:
        raise CountingUnavailable("Tries cannot be counted because Valkey is away. Try again shortly.") from error
    if usage["limit"] == 0:
        raise CountingUnavailable("Tries cannot be counted because Valkey is away. Try again shortly.")
    if usage["should_limit"]:
        wait = max(1, usage["time_left"])
        raise TooMany(f"Too many tries. Try again in {wait} seconds.", wait)
