"""Shapes of Anthropic's content blocks. Every kind of block fits BlockWire; `content`, `source` and `citations` differ
between kinds and are read when the kind is known."""

from __future__ import annotations

import re
from typing import Literal, TypeVar

import msgspec

from conduit.proxy.dialects.json_body import field_path
from conduit.proxy.errors import ApiError, invalid_value

T = TypeVar("T")
_ABSENT = msgspec.Raw(b"null")
_AT = re.compile(r"(.*) - at `(?:key in )?(\$.*)`", re.DOTALL)
# Marks a thinking block that only carries the signature of the tool call behind it: this dialect has no field for it.
CALL_SIGNATURE = "conduit-call-signature."


class CacheWire(msgspec.Struct):
    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] = "5m"


class BlockWire(msgspec.Struct):
    type: str
    text: str | None = None
    cache_control: CacheWire | None = None
    source: msgspec.Raw = _ABSENT
    content: msgspec.Raw = _ABSENT
    citations: msgspec.Raw = _ABSENT
    input: msgspec.Raw = _ABSENT
    title: str | None = None
    context: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    id: str | None = None
    name: str | None = None
    tool_use_id: str | None = None
    is_error: bool | None = None


class SourceWire(msgspec.Struct):
    type: Literal["base64", "url", "text", "file", "content"]
    media_type: str = ""
    data: str = ""
    url: str = ""
    file_id: str = ""
    content: msgspec.Raw = _ABSENT


class CitationsWire(msgspec.Struct):
    enabled: bool | None = None


def inner(raw: msgspec.Raw, decoder: msgspec.json.Decoder[T], field: str) -> T:
    """A nested value that is read late. Raises ApiError 400 that names the field under `field`."""
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise _wrong(str(error), field) from None


def absent(raw: msgspec.Raw) -> bool:
    return raw == _ABSENT


def required(value: str | None, field: str) -> str:
    if value is None:
        raise invalid_value(field, f"{field}: this field is required.")
    return value


def _wrong(text: str, field: str) -> ApiError:
    match = _AT.fullmatch(text)
    what, path = (match[1], field_path(match[2])) if match else (text, "")
    if path:
        field = f"{field}{path}" if path.startswith("[") else f"{field}.{path}"
    return invalid_value(field, f"{field}: {what}.")
