"""Strict decoding of request bodies, shared by all dialects. Every fault is an ApiError 400; none is a 500.

decode(decoder, body)  -> the decoder's type. Refuses: empty body, invalid UTF-8 or JSON (NaN and Infinity included),
                          nesting over DEPTH_LIMIT, a name twice in the top-level object, wrong types, numbers out of
                          range. A wrong type or number is `invalid_value` with `param` such as `messages[0].role`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Hashable, Mapping
from functools import cache
from typing import Any, TypeVar, cast

import msgspec

from conduit.proxy.errors import ApiError, invalid_json, invalid_value

T = TypeVar("T")
DEPTH_LIMIT = 64
_NOT_STRUCTURE = bytes(set(range(256)) - set(b'[]{}"'))
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_STRINGS = re.compile(rb'"[^"]*"')
_AT = re.compile(r"^(?P<what>.*) - at `(?P<key>key in )?(?P<path>\$.*)`$", re.DOTALL)
_raw_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


def decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """`body` as the decoder's type, or ApiError 400 that names the field."""
    if not body or body.isspace():
        raise invalid_json("The request body is empty; a JSON object is expected.")
    _check_text(body)
    try:
        decoded = decoder.decode(body)
        _check_depth(body)
        check_names(body, known=_names_of(cast(Hashable, decoder.type)))
    except msgspec.ValidationError as error:
        raise _wrong_field(str(error)) from None
    except msgspec.DecodeError as error:
        raise invalid_json(f"The request body is not valid JSON: {error}.") from None
    except UnicodeDecodeError:
        raise invalid_json("The request body is not valid UTF-8.") from None
    except RecursionError:
        raise _too_deep() from None
    return decoded


def field_path(path: str) -> str:
    """msgspec's `$.messages[0].role` as the contract's `messages[0].role`; empty for the body itself."""
    return path.removeprefix("$").removeprefix(".")


def _wrong_field(text: str) -> ApiError:
    match = _AT.match(text)
    if match is None:
        missing = re.match(r"Object missing required field `(.+?)`$", text)
        if missing:
            return invalid_value(missing[1], f"{missing[1]}: this field is required.")
        return invalid_value("", f"{text}.")
    field, what = field_path(match["path"]), match["what"]
    missing = re.match(r"Object missing required field `(.+?)`", what)
    if missing:
        field = f"{field}.{missing[1]}" if field else missing[1]
        return invalid_value(field, f"{field}: this field is required.")
    return invalid_value(field, f"{field}: {what}." if field else f"{what}.")


def _check_text(body: bytes) -> None:
    if body.isascii():
        return
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise invalid_json(f"The request body is not valid UTF-8 (byte {error.start}).") from None


def _too_deep() -> ApiError:
    return invalid_json(f"The request body is nested deeper than {DEPTH_LIMIT} levels.")


def _check_depth(body: bytes) -> None:
    """Only for valid JSON. With at most DEPTH_LIMIT opening brackets there is nothing to look at."""
    if body.count(b"[") + body.count(b"{") <= DEPTH_LIMIT:
        return
    if b"\\" in body:  # escapes go first, so that a quote left over is a string's end
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    brackets = _STRINGS.sub(b"", body.translate(_ONE_KIND, _NOT_STRUCTURE))
    for _ in range(DEPTH_LIMIT):  # each round takes away the innermost level
        if not brackets:
            return
        brackets = brackets.replace(b"[]", b"")
    if brackets:
        raise _too_deep()


@cache
def _names_of(kind: Hashable) -> Mapping[str, str]:
    """The members that a struct knows, by their names and by their names in lower case; empty for any other type."""
    names = getattr(kind, "__struct_encode_fields__", ())
    return {**{name.casefold(): name for name in names}, **{name: name for name in names}}


def check_names(body: bytes, field: str = "", *, known: Mapping[str, str] | None = None) -> None:
    """A name twice is ambiguous: we and the provider might each believe another one. So is one that differs from a
    `known` name in capitals only, which some servers take for the same. `field` is where the object `body` stands.

    Without repeats and white space the members' lengths add up to the body's; only other bodies are read again.
    """
    members = _raw_members.decode(body)
    if known is not None:
        for name in members.keys() - known.keys():
            if meant := known.get(name.casefold()):
                raise invalid_value(name, f"{name}: there is no such field. Did you mean {meant}?")
    compact = 1 + sum([len(name) + 4 + len(memoryview(value)) for name, value in members.items()])
    if compact == len(body):
        return
    spaced = b", ".join([b'"%b": %b' % (name.encode(), bytes(value)) for name, value in members.items()])
    if len(spaced) + 2 == len(body) and spaced == body[1:-1]:
        return
    last: list[tuple[str, Any]] = json.loads(body, object_pairs_hook=list, parse_int=str, parse_float=str)
    repeated = [name for name, times in Counter([name for name, _ in last]).items() if times > 1]
    if repeated:
        name = f"{field}.{repeated[0]}" if field else repeated[0]
        raise invalid_value(name, f"{name}: this field is given more than once.")
