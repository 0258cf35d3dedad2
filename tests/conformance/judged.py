"""Validation against the types of somebody else's SDK, down to the last lazily read list."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, TypeAdapter


def judged(judge: TypeAdapter[Any], value: Any) -> None:
    """Raises pydantic's ValidationError when `value` is not of the type. An Iterable is only checked while it is read,
    hence the walk through all of the result."""
    _read(judge.validate_python(value))


def _read(value: Any) -> None:
    if isinstance(value, str | bytes | BaseModel):  # models are whole once they are there
        return
    if isinstance(value, Mapping):
        value = value.values()
    if hasattr(value, "__iter__"):
        for item in value:
            _read(item)
