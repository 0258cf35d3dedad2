"""Canonical parts as Anthropic's content blocks."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable

import msgspec

from providers.adapters.types import (
    Audio,
    CacheMark,
    Dialect,
    Document,
    Image,
    JSONObject,
    Media,
    Message,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    ToolResult,
)

CITATION_TYPES = frozenset(
    (
        "char_location",
        "page_location",
        "content_block_location",
        "web_search_result_location",
        "search_result_location",
    )
)
# The API wants the media type; where the caller left it out, the first bytes (as base64) tell.
_IMAGE_STARTS = (("/9j/", "image/jpeg"), ("R0lGOD", "image/gif"), ("UklGR", "image/webp"))
_NOT_IN_ID = re.compile(r"[^a-zA-Z0-9_-]")


def system_blocks(messages: Iterable[Message], dropped: list[str]) -> list[JSONObject]:
    """All system messages, in order: the format has one place for them."""
    return [
        block
        for message in messages
        if message.role == "system"
        for block in blocks_of(message.parts, dropped)
        if block["type"] == "text"
    ]


def blocks_of(parts: Iterable[Part], dropped: list[str]) -> list[JSONObject]:
    """Parts that have no counterpart are left out and named."""
    blocks: list[JSONObject] = []
    for part in parts:
        block = _block(part, dropped)
        if block is None:
            continue
        mark = getattr(part, "cache", None)
        if mark is not None:
            block["cache_control"] = cache_control(mark)
        blocks.append(block)
    return blocks


def cache_control(mark: CacheMark) -> JSONObject:
    return {"type": "ephemeral"} if mark.ttl == "5m" else {"type": "ephemeral", "ttl": mark.ttl}


def wire_id(call_id: str) -> str:
    """Call ids of other providers may hold characters that this API refuses."""
    return _NOT_IN_ID.sub("_", call_id) or "call"


def _block(part: Part, dropped: list[str]) -> JSONObject | None:
    if isinstance(part, Text):
        return _text(part)
    if isinstance(part, Image):
        return _image(part, dropped)
    if isinstance(part, Document):
        return _document(part, dropped)
    if isinstance(part, ToolCall):
        return {"type": "tool_use", "id": wire_id(part.id), "name": part.name, "input": _input(part.arguments)}
    if isinstance(part, ToolResult):
        return _tool_result(part, dropped)
    if isinstance(part, Reasoning):
        return _reasoning(part, dropped)
    return _other(part, dropped)


def _other(part: Audio | Refusal | Opaque, dropped: list[str]) -> JSONObject | None:
    if isinstance(part, Refusal):
        return {"type": "text", "text": part.text} if part.text else None
    if isinstance(part, Opaque) and part.dialect is Dialect.ANTHROPIC:
        return dict(part.raw)
    if isinstance(part, Audio) and part.transcript:  # what the assistant said aloud is still its turn
        _drop(dropped, "messages.audio")
        return {"type": "text", "text": part.transcript}
    _drop(dropped, "messages.audio" if isinstance(part, Audio) else "messages.content")
    return None


def _text(part: Text) -> JSONObject | None:
    if not part.text:  # the API refuses empty text
        return None
    block: JSONObject = {"type": "text", "text": part.text}
    own = [citation.raw for citation in part.citations if citation.raw.get("type") in CITATION_TYPES]
    if own:
        block["citations"] = own
    return block


def _image(part: Image, dropped: list[str]) -> JSONObject:
    if part.detail in ("low", "high"):
        _drop(dropped, "messages.image.detail")
    source = part.source
    if not source.data:
        return {"type": "image", "source": _elsewhere(source)}
    mime = source.mime or next((mime for start, mime in _IMAGE_STARTS if source.data.startswith(start)), "image/png")
    return {"type": "image", "source": {"type": "base64", "media_type": mime, "data": source.data}}


def _document(part: Document, dropped: list[str]) -> JSONObject | None:
    source = _document_source(part)
    if source is None:
        _drop(dropped, "messages.document")
        return None
    block: JSONObject = {"type": "document", "source": source}
    if part.title:
        block["title"] = part.title
    if part.context:
        block["context"] = part.context
    if part.citations:
        block["citations"] = {"enabled": True}
    return block


def _document_source(part: Document) -> JSONObject | None:
    source = part.source
    if part.text:
        return {"type": "text", "media_type": "text/plain", "data": part.text}
    if source.url or source.file_id:
        return _elsewhere(source)
    if source.mime.startswith("text/"):
        try:
            text = base64.b64decode(source.data, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return None
        return {"type": "text", "media_type": "text/plain", "data": text}
    if source.mime in ("", "application/pdf"):
        return {"type": "base64", "media_type": "application/pdf", "data": source.data}
    return None


def _elsewhere(source: Media) -> JSONObject:
    if source.file_id:
        return {"type": "file", "file_id": source.file_id}
    return {"type": "url", "url": source.url}


def _input(arguments: str) -> object:
    """The arguments as written, when they are an object; else wrapped in one, for the API takes nothing else."""
    if not arguments.strip():
        return {}
    try:
        is_object = isinstance(msgspec.json.decode(arguments), dict)
    except (msgspec.DecodeError, RecursionError):
        is_object = False
    return msgspec.Raw(arguments.encode()) if is_object else {"arguments": arguments}


def _tool_result(part: ToolResult, dropped: list[str]) -> JSONObject:
    block: JSONObject = {"type": "tool_result", "tool_use_id": wire_id(part.call_id)}
    if content := blocks_of(part.parts, dropped):
        block["content"] = content
    if part.error:
        block["is_error"] = True
    return block


def _reasoning(part: Reasoning, dropped: list[str]) -> JSONObject | None:
    if part.redacted:
        return {"type": "redacted_thinking", "data": part.redacted}
    if part.signature:
        return {"type": "thinking", "thinking": part.text, "signature": part.signature}
    _drop(dropped, "messages.reasoning")  # unsigned thoughts are refused by the API
    return None


def _drop(dropped: list[str], name: str) -> None:
    if name not in dropped:
        dropped.append(name)
