"""What may be asked of a budget: the fields of an item of `budgets`, parsed and refused by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from zoneinfo import available_timezones

from conduit.core.budgeting import KINDS, LONGEST_WAIT, UNBOUNDED
from conduit.core.errors import InvalidInput
from conduit.core.fields import nearest, parse_amount, parse_choice, parse_whole
from keys.models import Window

MOST = 16


@dataclass(frozen=True, slots=True)
class BudgetSpec:
    """What is asked for. `limit_nanos` 0 blocks everything. `reset`: the running period begins anew."""

    limit_nanos: int
    window: str = Window.LIFETIME
    timezone: str = "UTC"
    kind: str = "hard"
    unbounded: str = "deny"
    wait_ms: int = 2000
    reset: bool = False

    @property
    def identity(self) -> tuple[str, str, str]:
        """What makes it the same budget as before an edit."""
        return self.window, self.timezone, self.kind


def _timezone(value: object) -> str:
    names = available_timezones()
    if not isinstance(value, str) or value not in names:
        meant = nearest(value, names) if isinstance(value, str) else ""
        raise InvalidInput("", f'Must be an IANA time zone such as "Europe/Berlin".{meant}', "unknown_timezone")
    return value


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidInput("", "Must be true or false.", "invalid_flag")
    return value


_PARSERS: dict[str, tuple[str, Callable[[object], Any]]] = {
    "limit_usd": ("limit_nanos", parse_amount),
    "window": ("window", lambda value: parse_choice(value, Window.values)),
    "timezone": ("timezone", _timezone),
    "kind": ("kind", lambda value: parse_choice(value, KINDS)),
    "unbounded": ("unbounded", lambda value: parse_choice(value, UNBOUNDED)),
    "wait_ms": ("wait_ms", lambda value: parse_whole(value, 0, LONGEST_WAIT)),
    "reset": ("reset", _flag),
}


def parse_spec(value: object) -> BudgetSpec:
    """One item of `budgets`. Raises InvalidInput naming the member."""
    if isinstance(value, BudgetSpec):
        return value
    if not isinstance(value, Mapping):
        raise InvalidInput("", "Must be an object.", "invalid_object")
    found: dict[str, Any] = {}
    for name, member in value.items():
        if name not in _PARSERS:
            raise InvalidInput(str(name), f"There is no such field.{nearest(str(name), _PARSERS)}", "unknown_field")
        attribute, parse = _PARSERS[name]
        try:
            found[attribute] = parse(member)
        except InvalidInput as error:
            raise InvalidInput(name, error.detail, error.code) from None
    if "limit_nanos" not in found:
        raise InvalidInput("limit_usd", "This field is required.", "required")
    return BudgetSpec(**found)


def parse_specs(value: object, field: str = "budgets") -> list[BudgetSpec]:
    """The whole list. Raises InvalidInput with a field such as `budgets.0.limit_usd`."""
    if not isinstance(value, (list, tuple)):
        raise InvalidInput(field, "Must be a list.", "invalid_list")
    if len(value) > MOST:
        raise InvalidInput(field, f"Must have at most {MOST} members.", "too_many")
    specs: list[BudgetSpec] = []
    for index, member in enumerate(value):
        try:
            spec = parse_spec(member)
        except InvalidInput as error:
            inner = f".{error.field}" if error.field else ""
            raise InvalidInput(f"{field}.{index}{inner}", error.detail, error.code) from None
        if spec.identity in {other.identity for other in specs}:
            raise InvalidInput(f"{field}.{index}", "There is already one of this window, time zone and kind.", "double")
        specs.append(spec)
    return specs
