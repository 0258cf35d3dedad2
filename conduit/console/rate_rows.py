"""Rate limits and what is used of them now, as pages show them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keys.entries import RateScope
from keys.rates_now import RateNow, rates_now

TITLES = (
    ("requests", "rpm", "Requests per minute"),
    ("tokens", "tpm", "Tokens per minute"),
    ("parallel", "max_parallel", "Parallel requests"),
)


def rows(scopes: Sequence[RateScope]) -> list[dict[str, Any]]:
    """{"owner", "title", "used", "limit"} for each limit that is set; `used` None when Valkey could not tell."""
    limited = [scope for scope in scopes if (scope.rpm, scope.tpm, scope.max_parallel) != (None, None, None)]
    return [row for rate in rates_now(limited) for row in _rows(rate)]


def _rows(now: RateNow) -> list[dict[str, Any]]:
    return [
        {"owner": now.scope.name, "title": title, "used": getattr(now, used), "limit": getattr(now.scope, limit)}
        for used, limit, title in TITLES
        if getattr(now.scope, limit) is not None
    ]
