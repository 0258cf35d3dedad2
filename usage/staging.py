"""Records as rows of PostgreSQL's COPY text format, one line each, for the staging table of usage/ledger.py.

Built by hand because this is what the shipper's time is spent on: a third of what the driver's own row writer costs.
Text is cut to its column and freed of NUL, which PostgreSQL cannot store: a record must never stop the shipper.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec

from usage.records import Ended

COLUMNS = (
    "id, time, request_id, attempt, final, key_id, team_id, customer, provider_id, credential_id, credential_version,"
    " route, model, dialect, endpoint, stream, status, outcome, exactness, input_tokens, output_tokens,"
    " cache_read_tokens, cache_write_tokens, reasoning_tokens, units, cost_nanos, held_nanos, price_id, arithmetic,"
    " budgets, periods, latency_us, ttft_us, overhead_us, tags, flags, error_code, error_message, trace"
)
_NULL = "\\N"
_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\x00": None})
_json = msgspec.json.Encoder().encode


@lru_cache(maxsize=4096)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _time(time_us: int) -> str:
    seconds, micros = divmod(time_us, 1_000_000)
    return f"{_second(seconds)}.{micros:06d}+00"


def _text(text: str, length: int) -> str:
    return text[:length].translate(_ESCAPES)


@lru_cache(maxsize=4096)
def _name(text: str, length: int) -> str:
    """Names repeat from event to event."""
    return text[:length].translate(_ESCAPES)


def _id(value: bytes | None) -> str:
    return _NULL if value is None else value.hex()


def _number(value: int | None) -> str:
    return _NULL if value is None else str(value)


def _document(value: Any) -> str:
    if not value:
        return "{}" if isinstance(value, dict) else "[]"
    encoded = _json(value).decode()
    if "\\u0000" in encoded:
        encoded = _json(_without_nul(value)).decode()
    return encoded.replace("\\", "\\\\")


def _without_nul(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\x00", "")
    if isinstance(value, dict):
        return {_without_nul(key): _without_nul(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nul(item) for item in value]
    return value


def _words(words: list[str], length: int) -> str:
    if not words:
        return "{}"
    quoted = [word[:length].replace("\\", "\\\\").replace('"', '\\"') for word in words]
    return "{" + ",".join(f'"{word}"'.translate(_ESCAPES) for word in quoted) + "}"


def _ids(ids: list[bytes]) -> str:
    return "{" + ",".join([value.hex() for value in ids]) + "}" if ids else "{}"


def line(r: Ended) -> str:
    """One record in the order of COLUMNS, without the final newline."""
    return "\t".join(
        (
            r.attempt_id.hex(),
            _time(r.time_us),
            _text(r.request_id, 128),
            str(r.attempt),
            "t" if r.final else "f",
            _id(r.key_id),
            _id(r.team_id),
            _text(r.customer, 254),
            _id(r.provider_id),
            _id(r.credential_id),
            _number(r.credential_version),
            _name(r.route, 200),
            _name(r.model, 200),
            _name(r.dialect, 16),
            _name(r.endpoint, 16),
            "t" if r.stream else "f",
            str(r.status),
            _name(r.outcome, 9),
            _name(r.exactness, 9),
            str(r.input_tokens),
            str(r.output_tokens),
            str(r.cache_read_tokens),
            str(r.cache_write_tokens),
            str(r.reasoning_tokens),
            _document(r.units),
            str(r.cost_nanos),
            str(r.held_nanos),
            _id(r.price_id),
            _document(r.arithmetic),
            _ids(r.budgets),
            "{" + ",".join(map(str, r.periods)) + "}",
            str(r.latency_us),
            _number(r.ttft_us),
            _number(r.overhead_us),
            _words(r.tags, 64),
            _words(r.flags, 32),
            _name(r.error_code, 64),
            _text(r.error_message, 500),
            _document(r.trace),
        )
    )


def copy_text(records: Iterable[Ended]) -> bytes:
    return ("\n".join([line(record) for record in records]) + "\n").encode()
