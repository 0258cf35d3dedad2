"""Gemini's OpenAPI-like schemas as JSON schemas, which is what every other provider takes."""

from __future__ import annotations

from typing import Any

from providers.adapters.types import JSONObject

_NESTED = ("items", "additionalProperties", "not")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_NAMED = ("properties", "$defs", "defs")
_COUNTS = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")  # int64s come as text


def json_schema(schema: JSONObject) -> JSONObject:
    """Types in lower case, `nullable` as a type, counts as numbers, Google's own ordering hint left out."""
    found: JSONObject = {}
    for name, value in schema.items():
        camel = _spelled(name)
        if camel in ("nullable", "propertyOrdering"):
            continue
        found[camel] = _value(camel, value)
    if schema.get("nullable") is True and isinstance(found.get("type"), str):
        found["type"] = [found["type"], "null"]
    return found


def _spelled(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest) if head and not name.startswith("$") else name


def _value(name: str, value: Any) -> Any:
    if name == "type" and isinstance(value, str):
        return value.lower()
    if name in _COUNTS and isinstance(value, str) and value.isdecimal():
        return int(value)
    if name in _NAMED and isinstance(value, dict):
        return {key: json_schema(item) if isinstance(item, dict) else item for key, item in value.items()}
    if name in _LISTS and isinstance(value, list):
        return [json_schema(item) if isinstance(item, dict) else item for item in value]
    if name in _NESTED and isinstance(value, dict):
        return json_schema(value)
    return value
