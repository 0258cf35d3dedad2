"""Thinking is part of the output, so a budget for it has to stay below the output cap that is written upstream."""

from __future__ import annotations


def budget_below(cap: int | None, budget: int, *, least: int) -> int | None:
    """`budget` tokens, fewer where `cap` leaves less room; None where not even the provider's `least` budget fits."""
    if cap is None or budget < cap:
        return budget
    return cap - 1 if cap > least else None
