"""Targets and credentials that nobody is asked for the moment (providers/health.py): in the trace, and in words."""

from __future__ import annotations

from typing import Any

from conduit.proxy import errors
from conduit.proxy.call import Call
from conduit.proxy.errors import ApiError
from providers.candidates import HeldBack, candidates
from providers.routing import RouteEntry


def lines(found: list[HeldBack]) -> list[dict[str, Any]]:
    """For the decision trace."""
    return [
        {
            "check": "breaker",
            "ok": False,
            "provider": one.target.provider.name,
            "model": one.target.model,
            "why": "the provider asked to wait" if one.limited else "it failed several times in a row",
            "retry_after": max(1, round(one.seconds)),
        }
        for one in found
    ]


def note(call: Call, drawn: candidates) -> None:
    """What was passed over since the last time."""
    call.trace += lines(drawn.held_back[call.noted :])
    call.noted = len(drawn.held_back)


def nobody(call: Call, drawn: candidates, route: RouteEntry) -> ApiError:
    """No candidate is left, and none was refused anything: why, and when there is one again."""
    note(call, drawn)
    if call.limited:
        return errors.candidates_limited(route.name, call.retry_after)
    return refusal(drawn.held_back, route)


def refusal(found: list[HeldBack], route: RouteEntry) -> ApiError:
    """`found`: what was held back of the route's candidates."""
    if not found:
        return errors.no_credential(route.name)
    soonest = min(found, key=lambda one: one.seconds)
    if soonest.limited:
        return errors.upstream_waits(route.name, soonest.seconds)
    return errors.upstream_failing(route.name, soonest.seconds)
