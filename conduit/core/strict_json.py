"""JSON bodies of the management API, read strictly: what a lenient reader would guess at is refused by name."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import IO, Any, NoReturn

from rest_framework.parsers import BaseParser

from conduit.core.errors import ConduitError, InvalidInput

MAX_BYTES = 2 * 1024 * 1024
MAX_DEPTH = 16


class TooLarge(ConduitError):
    """The body has more than MAX_BYTES."""


def loads(raw: bytes) -> object:
    """The value of a JSON text. Raises InvalidInput: NaN, Infinity, 1e400, a member twice, NUL, too deep a nest."""
    try:
        value = json.loads(
            raw.decode("utf-8"), object_pairs_hook=_members, parse_constant=_no_constant, parse_float=_finite
        )
    except UnicodeDecodeError:
        raise InvalidInput("", "The body is not UTF-8.", "invalid_json") from None
    except RecursionError:
        raise InvalidInput("", "The body is nested too deep.", "too_deep") from None
    except ValueError as error:  # JSONDecodeError, and integers of more than 4,300 digits
        detail = (
            f"The body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}."
            if isinstance(error, json.JSONDecodeError)
            else "The body holds a number that is too long."
        )
        raise InvalidInput("", detail, "invalid_json") from None
    _walk(value, "", 0)
    return value


def _members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidInput(twice, "is given twice.", "duplicate_member")
    return members


def _no_constant(text: str) -> NoReturn:
    raise InvalidInput("", f"{text} is not JSON.", "invalid_json")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise InvalidInput("", f"{text[:32]} is too large.", "invalid_json")
    return number


def _walk(value: object, field: str, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise InvalidInput(field[:120], f"is nested deeper than {MAX_DEPTH} levels.", "too_deep")
    if isinstance(value, str):
        _storable(value, field)
    elif isinstance(value, dict):
        for name, member in value.items():
            _storable(name, field)
            _walk(member, f"{field}.{name}" if field else name, depth + 1)
    elif isinstance(value, list):
        for index, member in enumerate(value):
            _walk(member, f"{field}.{index}", depth + 1)


def _storable(text: str, field: str) -> None:
    # PostgreSQL stores neither NUL nor half a surrogate pair; both come in through \u escapes.
    if "\x00" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise InvalidInput(field[:120], "holds a character that cannot be stored.", "invalid_text")


class StrictJSONParser(BaseParser):
    media_type = "application/json"

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        raw = stream.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise TooLarge(f"The body is larger than {MAX_BYTES} bytes.")
        return loads(raw)
