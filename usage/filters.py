"""What a caller narrows usage by: the names, and what their texts mean. A wrong one raises InvalidInput naming it.

The nil id stands for none: `key=00000000-…` finds what was called without a known key.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from django.db.models import Q

from conduit.core.errors import InvalidInput
from conduit.core.fields import nearest, parse_choice, parse_time
from providers.providers import find
from usage.models import NIL, Exactness, Outcome

# name → column; the rollups have these columns too, and `tag` in their tables by tag
DIMENSIONS = {
    "key": "key_id",
    "team": "team_id",
    "provider": "provider_id",
    "credential": "credential_id",
    "customer": "customer",
    "route": "route",
    "model": "model",
    "endpoint": "endpoint",
}
IDS = frozenset({"key", "team", "provider", "credential"})
SUMMARY = (*DIMENSIONS, "tag")
EVENTS = (*SUMMARY, "status", "outcome", "exactness", "from", "to", "request_id")
HELP = {
    "key": "id of the key",
    "team": "id of the team",
    "provider": "name or id",
    "credential": "id of the credential",
    "customer": "as the request named it",
    "route": "the name callers use",
    "model": "the upstream's name",
    "endpoint": "such as chat or embeddings",
    "tag": "one tag",
    "status": "HTTP status the client got",
    "outcome": "ok, error or cancelled",
    "exactness": "exact, estimated or uncertain",
    "from": "not before this time",
    "to": "before this time",
    "request_id": "of this request",
}


def _id(name: str, text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise InvalidInput(name, "Is not an id.", "invalid_id") from None


def time(name: str, text: str) -> datetime:
    try:
        return parse_time(text)
    except InvalidInput as error:
        raise InvalidInput(name, error.detail, error.code) from None


def _status(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 3):
        raise InvalidInput("status", "Must be an HTTP status.", "invalid_number")
    return int(text)


def _provider(text: str) -> UUID:
    """By name or id; the id of a provider that was deleted still finds its events."""
    try:
        return UUID(text)
    except ValueError:
        return find(text).id


def _text(name: str, text: str) -> str:
    """As it stands in the events, so nothing is trimmed; NUL is in no event."""
    if "\x00" in text:
        raise InvalidInput(name, "Holds a character that cannot be stored.", "invalid_text")
    return text


def _choice(name: str, names: list[str], text: str) -> str:
    try:
        return parse_choice(text, names)
    except InvalidInput as error:
        raise InvalidInput(name, error.detail, error.code) from None


_PARSERS: dict[str, Callable[[str], Any]] = {
    **{name: partial(_text, name) for name in EVENTS},
    **{name: partial(_id, name) for name in IDS},
    **{name: partial(time, name) for name in ("from", "to")},
    "provider": _provider,
    "status": _status,
    "outcome": partial(_choice, "outcome", Outcome.values),
    "exactness": partial(_choice, "exactness", Exactness.values),
}
_LOOKUPS = {**DIMENSIONS, "from": "time__gte", "to": "time__lt"}


def condition(given: Mapping[str, str]) -> Q:
    """Over usage events. `from` is inclusive, `to` exclusive."""
    found = Q()
    for name, text in given.items():
        value = _PARSERS[name](text)
        if name == "tag":
            found &= Q(tags__contains=[value])
        elif value == NIL:
            found &= Q((f"{_LOOKUPS[name]}__isnull", True))
        else:
            found &= Q((_LOOKUPS.get(name, name), value))
    return found


def values(given: Mapping[str, str]) -> dict[str, Any]:
    """Over the rollups: what each named dimension must be."""
    for name in given:
        if name not in SUMMARY:
            raise InvalidInput(name, f"Sums cannot be filtered by it.{nearest(name, SUMMARY)}", "unknown_filter")
    return {name: _PARSERS[name](text) for name, text in given.items()}
