"""The rules by which a new version of a credential takes over step by step, and how they are read from a caller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from conduit.core.errors import InvalidInput
from conduit.core.fields import nearest, parse_whole
from providers.providers import field

MAX_STEPS = 10
MAX_STEP_SECONDS = 7 * 86_400
MAX_OVERLAP_SECONDS = 90 * 86_400
HUNDRED = Decimal(100)


@dataclass(frozen=True, slots=True)
class Canary:
    """`steps` are shares in percent, rising, without the last 100; each is held for `step_seconds`.

    `automatic`: Conduit moves on while the error rate is at most `max_error_percent`, and rolls back above it.
    """

    steps: tuple[int, ...] = (1, 10)
    step_seconds: int = 600
    max_error_percent: Decimal = Decimal(1)
    automatic: bool = False


def checked(canary: Canary) -> Canary:
    """Raises InvalidInput naming the rule."""
    return Canary(**parse_rules(asdict(canary), "canary."))


def parse_rules(given: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The rules that are given, as the columns of a rotation. Raises InvalidInput for `prefix` and the rule's name."""
    rules: dict[str, Any] = {}
    for name, value in given.items():
        where = f"{prefix}{str(name)[:64]}"
        if name == "steps":
            rules[name] = field(where, _steps, value)
        elif name == "step_seconds":
            rules[name] = field(where, parse_whole, value, 1, MAX_STEP_SECONDS)
        elif name == "max_error_percent":
            rules[name] = field(where, _percent, value)
        elif name == "automatic":
            if not isinstance(value, bool):
                raise InvalidInput(where, "Must be true or false.", "invalid_flag")
            rules[name] = value
        else:
            known = nearest(str(name), Canary.__dataclass_fields__)
            raise InvalidInput(where, f"There is no such rule.{known}", "unknown_field")
    return rules


def parse_overlap(value: object) -> int:
    """Seconds that the old version is kept after the new one took over. Raises InvalidInput."""
    seconds: int = field("overlap_seconds", parse_whole, value, 0, MAX_OVERLAP_SECONDS)
    return seconds


def _steps(value: object) -> tuple[int, ...]:
    if not isinstance(value, list | tuple) or not 1 <= len(value) <= MAX_STEPS:
        raise InvalidInput("", f"Must be a list of 1 to {MAX_STEPS} shares.", "invalid_type")
    steps = tuple(parse_whole(step, 1, 99) for step in value)
    if any(low >= high for low, high in zip(steps, steps[1:], strict=False)):
        raise InvalidInput("", "Each share must be larger than the one before; the last, 100, is implied.", "order")
    return steps


def _percent(value: object) -> Decimal:
    try:
        number = Decimal(value) if isinstance(value, str | Decimal) or type(value) is int else None
    except InvalidOperation:
        number = None
    if number is None or not number.is_finite() or not 0 <= number <= HUNDRED or round(number, 2) != number:
        raise InvalidInput("", 'Must be from 0 to 100 with at most two decimals, such as "0.5".', "invalid_percent")
    return number
