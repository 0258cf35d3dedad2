"""Reads fields of a request's JSON with their types checked. Each reader raises RequestError naming the field."""

from __future__ import annotations

from typing import Any


class RequestError(Exception):
    """The request cannot be answered. `status` is HTTP, `param` the field at fault, `code` OpenAI's code, or None."""

    def __init__(self, message: str, *, status: int = 400, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code


def wrong(param: str, must_be: str) -> RequestError:
    return RequestError(f"'{param}' must be {must_be}", param=param)


def text(value: object, param: str) -> str:
    if not isinstance(value, str):
        raise wrong(param, "a string")
    return value


def flag(value: object, param: str) -> bool:
    if value is None:
        return False
    if not isinstance(value, bool):
        raise wrong(param, "true or false")
    return value


def count(value: object, param: str, low: int = 1, high: int = 2**31 - 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise wrong(param, f"a whole number from {low} to {high}")
    return value


def optional_count(value: object, param: str, low: int = 1, high: int = 2**31 - 1) -> int | None:
    return None if value is None else count(value, param, low, high)


def mapping(value: object, param: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise wrong(param, "an object")
    return value


def optional_mapping(value: object, param: str) -> dict[str, Any]:
    return {} if value is None else mapping(value, param)


def sequence(value: object, param: str) -> list[Any]:
    if not isinstance(value, list):
        raise wrong(param, "an array")
    return value


def optional_sequence(value: object, param: str) -> list[Any]:
    return [] if value is None else sequence(value, param)


def texts(value: object, param: str) -> list[str]:
    """Null, one string or an array of strings."""
    if value is None:
        return []
    if isinstance(value, str):
        return [value]
    return [text(item, f"{param}[{place}]") for place, item in enumerate(sequence(value, param))]
