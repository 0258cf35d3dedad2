"""Faults a request (or the whole process) can script, each by one `x-sandbox-*` header.

| header | value | what happens | billed |
|---|---|---|---|
| delay-ms | milliseconds | wait before the headers | input; the rest when it leaves |
| chunk-gap-ms | milliseconds | wait between the chunks of a stream | as they leave |
| status | 400 to 599 | an error in the dialect's shape | nothing |
| retry-after | text | `retry-after` header beside `status` | - |
| hang | headers, body | never answers; or stops after half of the body | input; what left (a plain body: all) |
| cut-after-bytes | bytes of body | the connection is reset after them | what was produced for them |
| malformed | json, sse | a torn body; in a stream a torn event half-way | as usual |
| malformed | html | a page under status 200 | nothing |
| error-200 | 1 | an error body, or an error event in mid-stream, under status 200 | nothing; what left |
| usage | missing, wrong, zero, negative, text, huge, twice | what is *reported*; the invoice stays true | as usual |
| ignore-cap | 1 | the answer takes no notice of the caller's cap | all of it |
| bill-after-cancel | 1 | a client that leaves pays for the whole answer | all of it |
| cached-tokens | count | so many of the input tokens count as read from a cache | at the cached rate |
| tokens | count | length of a text answer | - |

`SANDBOX_FAULTS` (a JSON object with the same names) sets them for the whole process; a request's header wins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import orjson

PREFIX = "x-sandbox-"
MAX_TOKENS = 1_000_000
USAGE_FAULTS = frozenset({"missing", "wrong", "zero", "negative", "text", "huge", "twice"})


class FaultError(ValueError):
    """An unknown fault or a value it cannot take; the text names the header."""


@dataclass(frozen=True, slots=True)
class Faults:
    delay_ms: int = 0
    chunk_gap_ms: int = 0
    status: int = 0
    retry_after: str = ""
    hang: str = ""
    cut_after_bytes: int | None = None
    malformed: str = ""
    error_200: bool = False
    usage: str = ""
    ignore_cap: bool = False
    bill_after_cancel: bool = False
    cached_tokens: int = 0
    tokens: int | None = None


def _count(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isascii() or not text.isdigit() or len(text) > 12 or not low <= int(text) <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(text)

    return parse


def _choice(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"must be one of {', '.join(sorted(allowed))}")
        return text

    return parse


def _flag(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError("must be 1 or 0")
    return text == "1"


_PARSERS: dict[str, Callable[[str], object]] = {
    "delay-ms": _count(0, 3_600_000),
    "chunk-gap-ms": _count(0, 3_600_000),
    "status": _count(400, 599),
    "retry-after": str,
    "hang": _choice("headers", "body"),
    "cut-after-bytes": _count(0, 10**12),
    "malformed": _choice("json", "sse", "html"),
    "error-200": _flag,
    "usage": _choice(*USAGE_FAULTS),
    "ignore-cap": _flag,
    "bill-after-cancel": _flag,
    "cached-tokens": _count(0, 10**12),
    "tokens": _count(0, MAX_TOKENS),
}


def parse_faults(headers: Mapping[str, str], base: Faults) -> Faults:
    """`headers` have lower-case names; other headers are passed over. Raises FaultError."""
    changes: dict[str, object] = {}
    for name, text in headers.items():
        if not name.startswith(PREFIX):
            continue
        parser = _PARSERS.get(name[len(PREFIX) :])
        if parser is None:
            raise FaultError(f"unknown header {name}")
        try:
            changes[name[len(PREFIX) :].replace("-", "_")] = parser(text.strip())
        except ValueError as error:
            raise FaultError(f"{name}: {error}") from error
    return replace(base, **changes) if changes else base  # type: ignore[arg-type]


def faults_from_environment(text: str) -> Faults:
    """`SANDBOX_FAULTS`: a JSON object, names with or without `x-sandbox-`. Raises FaultError."""
    if not text.strip():
        return Faults()
    try:
        given = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise FaultError(f"SANDBOX_FAULTS is no JSON: {error}") from error
    if not isinstance(given, dict):
        raise FaultError("SANDBOX_FAULTS must be a JSON object")
    headers = {}
    for name, value in given.items():
        plain = "1" if value is True else "0" if value is False else str(value)
        headers[PREFIX + name.lower().replace("_", "-").removeprefix(PREFIX)] = plain
    return parse_faults(headers, Faults())


def reported(count: int, fault: str) -> object:
    """A token count as the usage fault would have it told; `missing` and `twice` are the wire format's business."""
    match fault:
        case "wrong":
            return count * 2 + 7
        case "zero":
            return 0
        case "negative":
            return -count - 1
        case "text":
            return "many"
        case "huge":
            return 10**18
        case _:
            return count
