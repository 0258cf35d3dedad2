"""Serializer base and fields of the management API.

Nothing is converted: a number in quotes is a text, and true is no number.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail, ValidationError

from conduit.core.clock import rfc3339
from conduit.core.errors import InvalidInput
from conduit.core.money import MoneyError, format_usd, parse_usd

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def nearest(name: str, names: Iterable[str]) -> str:
    """` Did you mean …?` for a misspelt name, or nothing."""
    close = difflib.get_close_matches(name, list(names), n=1)
    return f" Did you mean {close[0]}?" if close else ""


class Strict(serializers.Serializer[Any]):
    """Refuses fields it does not know or that cannot be set, each by name."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping):
            writable = {name for name, field in self.fields.items() if not field.read_only}
            errors = {
                str(name): [ErrorDetail(_unknown(str(name), self.fields, writable), code="unknown_field")]
                for name in data
                if name not in writable
            }
            if errors:
                raise ValidationError(errors)
        return super().to_internal_value(data)


def _unknown(name: str, known: Mapping[str, Any], writable: set[str]) -> str:
    if name in known:
        return "This field cannot be set."
    return f"There is no such field.{nearest(name, writable)}"


class Parsed(serializers.Field[Any, Any, Any, Any]):
    """A field whose rule is a function that raises InvalidInput; subclasses give `parse`."""

    def parse(self, value: object) -> Any:
        raise AssertionError(f"{type(self).__name__} has no parse")

    def to_internal_value(self, data: Any) -> Any:
        try:
            return self.parse(data)
        except InvalidInput as error:
            detail = [ErrorDetail(error.detail, code=error.code)]
            # "models.3" under the field "models" is reported as the member 3 of it
            _, dot, inner = error.field.partition(".")
            raise ValidationError({inner: detail} if dot else detail) from None

    def to_representation(self, value: Any) -> Any:
        return value


def parse_amount(value: object, minimum: int | None = 0) -> int:
    """Dollars as a decimal string to nano-dollars, at least `minimum`. Raises InvalidInput."""
    try:
        nanos = parse_usd(value)  # type: ignore[arg-type]  # it refuses other types itself
    except MoneyError as error:
        raise InvalidInput("", f"The amount {error}.", "invalid_amount") from None
    if minimum is not None and nanos < minimum:
        raise InvalidInput("", f"The amount must be at least {format_usd(minimum)}.", "too_small")
    return nanos


@extend_schema_field({"type": "string", "examples": ["12.50"], "pattern": r"^-?\d+(\.\d{1,9})?$"})
class MoneyField(Parsed):
    """Nano-dollars inside, a decimal string of dollars outside. Not negative unless `minimum` says so."""

    def __init__(self, *, minimum: int | None = 0, **options: Any) -> None:
        super().__init__(**options)
        self.minimum = minimum

    def parse(self, value: object) -> int:
        return parse_amount(value, self.minimum)

    def to_representation(self, value: int) -> str:
        return format_usd(value)


def parse_time(value: object) -> datetime:
    """An RFC 3339 text with its offset, as UTC. Raises InvalidInput."""
    if isinstance(value, str) and _RFC3339.fullmatch(value):
        try:
            return datetime.fromisoformat(value.upper()).astimezone(UTC)
        except (ValueError, OverflowError):
            pass
    raise InvalidInput("", 'Must be a time such as "2030-01-31T12:00:00Z".', "invalid_time")


@extend_schema_field(OpenApiTypes.DATETIME)
class RFC3339Field(Parsed):
    def parse(self, value: object) -> datetime:
        return parse_time(value)

    def to_representation(self, value: datetime) -> str:
        return rfc3339(value)


def parse_whole(value: object, low: int, high: int) -> int:
    """An integer from low to high; bool, float and text are none. Raises InvalidInput."""
    if type(value) is not int:
        raise InvalidInput("", "Must be a whole number.", "invalid_number")
    if not low <= value <= high:
        raise InvalidInput("", f"Must be from {low:,} to {high:,}.", "out_of_range")
    return value


@extend_schema_field(OpenApiTypes.INT64)
class WholeNumber(Parsed):
    def __init__(self, *, low: int = 0, high: int = 2**53, **options: Any) -> None:
        super().__init__(**options)
        self.low, self.high = low, high

    def parse(self, value: object) -> int:
        return parse_whole(value, self.low, self.high)


def parse_text(value: object, longest: int, *, shortest: int = 0) -> str:
    """A one-line text without control characters, outer blanks removed. Raises InvalidInput."""
    if not isinstance(value, str):
        raise InvalidInput("", "Must be a text.", "invalid_text")
    text = value.strip()
    if not text.isprintable():
        raise InvalidInput("", "Holds a character that cannot be shown.", "invalid_text")
    if not shortest <= len(text) <= longest:
        low = f"from {shortest} to " if shortest else "at most "
        raise InvalidInput("", f"Must have {low}{longest} characters.", "invalid_length")
    return text


@extend_schema_field(OpenApiTypes.STR)
class Text(Parsed):
    def __init__(self, *, longest: int, shortest: int = 0, **options: Any) -> None:
        super().__init__(**options)
        self.longest, self.shortest = longest, shortest

    def parse(self, value: object) -> str:
        return parse_text(value, self.longest, shortest=self.shortest)


@extend_schema_field(OpenApiTypes.BOOL)
class Flag(Parsed):
    def parse(self, value: object) -> bool:
        if not isinstance(value, bool):
            raise InvalidInput("", "Must be true or false.", "invalid_flag")
        return value


def parse_choice(value: object, choices: Iterable[str]) -> str:
    """One of the names, exactly. Raises InvalidInput that lists them."""
    names = list(choices)
    if not isinstance(value, str) or value not in names:
        meant = nearest(value, names) if isinstance(value, str) else ""
        raise InvalidInput("", f"Must be one of {', '.join(names)}.{meant}", "invalid_choice")
    return value


class Choice(Parsed, serializers.ChoiceField):
    def parse(self, value: object) -> str:
        return parse_choice(value, [str(name) for name in self.choices])
