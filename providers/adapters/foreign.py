"""Blocks that only the client's own wire format knows, on their way to a provider of another one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import msgspec

from providers.adapters.types import (
    ChatRequest,
    Dialect,
    EmbeddingRequest,
    Message,
    Opaque,
    Part,
    Text,
    ToolResult,
)
from providers.errors import CannotCarry

AnyPart = TypeVar("AnyPart", bound=Part)
_SETTINGS = "generationConfig"
_NO_KIND = frozenset(("thought", "thoughtSignature", "videoMetadata", "mediaResolution"))  # beside it, in a Gemini part


def readable(
    request: ChatRequest | EmbeddingRequest, wire: Dialect
) -> tuple[ChatRequest | EmbeddingRequest, tuple[str, ...]]:
    """The request as a provider of this wire format can read it, and the names of what is lost by that.

    Raises CannotCarry for a block of the user's or of a tool's that nobody else can read: without it the answer would
    be to another question. An assistant's turn may go without (its adapter leaves the block out and names it).
    """
    if isinstance(request, EmbeddingRequest):
        return request, ()
    request = _with_settings_named(request, wire)
    if not any(_foreign(message.parts, wire) for message in request.messages):
        return request, ()
    lost: dict[str, None] = {}
    messages = tuple(_message(message, wire, lost) for message in request.messages)
    return msgspec.structs.replace(request, messages=messages), tuple(lost)


def _with_settings_named(request: ChatRequest, wire: Dialect) -> ChatRequest:
    """Of Gemini's generationConfig each setting by its own name: that is what adapters tell who leave it out."""
    settings = (
        request.extra.get(_SETTINGS) if request.extra_dialect is Dialect.GEMINI and wire is not Dialect.GEMINI else None
    )
    if not isinstance(settings, dict):
        return request
    extra = {name: value for name, value in request.extra.items() if name != _SETTINGS}
    extra |= {f"{_SETTINGS}.{name}": value for name, value in settings.items()}
    return msgspec.structs.replace(request, extra=extra)


def _foreign(parts: Iterable[Part], wire: Dialect) -> bool:
    return any(
        part.dialect is not wire
        if isinstance(part, Opaque)
        else isinstance(part, ToolResult) and _foreign(part.parts, wire)
        for part in parts
    )


def _message(message: Message, wire: Dialect, lost: dict[str, None]) -> Message:
    needed = message.role != "assistant"
    parts: list[Part] = []
    for part in message.parts:
        if isinstance(part, ToolResult):
            inner = tuple(_part(found, wire, lost, needed=needed) for found in part.parts)
            parts.append(msgspec.structs.replace(part, parts=inner))
        else:
            parts.append(_part(part, wire, lost, needed=needed))
    return msgspec.structs.replace(message, parts=tuple(parts))


def _part(part: AnyPart, wire: Dialect, lost: dict[str, None], *, needed: bool) -> AnyPart | Text:
    if not isinstance(part, Opaque) or part.dialect is wire:
        return part
    if part.plain is not None:
        lost.update(dict.fromkeys(part.lost))
        return part.plain
    if needed:
        field = part.field or "messages.content"
        raise CannotCarry(field, f"this provider cannot read content of the kind {_kind(part)!r}; leave it out")
    return part


def _kind(part: Opaque) -> str:
    """Anthropic names it in `type`, Gemini by the one field that is set."""
    named = part.raw.get("type")
    return named if isinstance(named, str) else next((name for name in part.raw if name not in _NO_KIND), "")
