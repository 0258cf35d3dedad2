"""What refusals of all providers have in common: waiting times in headers, and a short message from any body."""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

MESSAGE_LIMIT = 1000  # characters of a provider's message that are kept
_TITLE = re.compile(r"<(title|h1)[^>]*>(.*?)</\1>", re.IGNORECASE | re.DOTALL)
_LONGEST_WAIT = 86_400.0  # seconds; a longer advice is as good as none


def header(headers: Mapping[str, str], name: str) -> str:
    """A header by its lower-case name, however the mapping spells it."""
    value = headers.get(name)
    if value is None:
        value = next((value for key, value in headers.items() if key.lower() == name), "")
    return value.strip()


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait: `retry-after-ms`, or `retry-after` in seconds or as a date (measured from the `date` header)."""
    seconds = _seconds(header(headers, "retry-after-ms"), 0.001)
    if seconds is None:
        value = header(headers, "retry-after")
        seconds = _seconds(value, 1.0)
        if seconds is None and value:
            seconds = _until(value, header(headers, "date"))
    return seconds


def json_of(body: bytes) -> Any:
    """The body's JSON, or None when it is not JSON."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def plain_message(status: int, body: bytes) -> str:
    """A short clean sentence for a body that is not the wire format's error object: HTML, text, or nothing."""
    text = body[:65536].decode("utf-8", "replace").strip()
    said = f"The provider answered with status {status}" if status else "The provider answered with an error"
    if not text:
        return f"{said} and an empty body."
    if text.startswith("<"):
        title = _TITLE.search(text)
        words = re.sub(r"<[^>]*>", " ", title[2]).split() if title else []
        return f"{said} and a web page: {' '.join(words)[:200]}." if words else f"{said} and a web page."
    return f"{said}: {shortened(' '.join(text.split()), 200)}"


def shortened(message: str, limit: int = MESSAGE_LIMIT) -> str:
    return message if len(message) <= limit else message[: limit - 1] + "…"


def _seconds(value: str, unit: float) -> float | None:
    try:
        seconds = float(value) * unit
    except ValueError:
        return None
    return seconds if 0 <= seconds <= _LONGEST_WAIT else None


def _until(value: str, date: str) -> float | None:
    try:
        wait = (parsedate_to_datetime(value) - parsedate_to_datetime(date)).total_seconds()
    except (ValueError, TypeError):
        return None
    return min(max(wait, 0.0), _LONGEST_WAIT)
