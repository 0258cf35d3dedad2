"""Canonical messages as Converse's content blocks. Bytes stand in JSON as base64, which is how they come.

What a model needs to answer rightly and cannot be given (an image behind an address, a document for a model without
eyes for it) raises CannotCarry; the rest is left out and named in `dropped`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable

import msgspec

from providers.adapters.converse_families import Family
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
from providers.errors import CannotCarry

_ID_LENGTH = 64
_NAME_LENGTH = 200
_NOT_IN_ID = re.compile(r"[^a-zA-Z0-9_.:-]")
_NOT_IN_NAME = re.compile(r"[^a-zA-Z0-9\s\-()\[\]]")
# Where the caller left the media type out, the first bytes (as base64) tell.
_IMAGE_STARTS = (("/9j/", "jpeg"), ("R0lGOD", "gif"), ("UklGR", "webp"))
_IMAGES = {"image/png": "png", "image/jpeg": "jpeg", "image/jpg": "jpeg", "image/gif": "gif", "image/webp": "webp"}
_DOCUMENTS = {
    "": "pdf",
    "application/pdf": "pdf",
    "text/csv": "csv",
    "application/msword": "doc",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.ms-excel": "xls",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "text/html": "html",
    "text/plain": "txt",
    "text/markdown": "md",
}
_AUDIO = frozenset({"mp3", "opus", "wav", "aac", "flac", "mp4", "ogg", "mkv", "m4a", "mpeg", "pcm", "webm"})


class Blocks:
    """The blocks of one request; document names must not repeat within it."""

    def __init__(self, family: Family, dropped: list[str]) -> None:
        self._family = family
        self._dropped = dropped
        self._names: set[str] = set()

    def system(self, messages: Iterable[Message]) -> list[JSONObject]:
        """All system messages in order: texts and cache points."""
        blocks: list[JSONObject] = []
        for message in messages:
            for part in message.parts if message.role == "system" else ():
                if not isinstance(part, Text):
                    self._drop("messages.system")
                elif part.text.strip():
                    blocks.append({"text": part.text})
                    self._mark(blocks, part.cache, "system")
        return blocks

    def of(self, parts: Iterable[Part]) -> list[JSONObject]:
        blocks: list[JSONObject] = []
        for part in parts:
            block = self._block(part)
            if block is not None:
                blocks.append(block)
                self._mark(blocks, _mark_of(part), "messages")
        return blocks

    def _mark(self, blocks: list[JSONObject], mark: CacheMark | None, place: str) -> None:
        if mark is not None:
            point = cache_point(mark, self._family, place)
            if point is None:
                self._drop("cache_control")
            else:
                blocks.append(point)

    def _block(self, part: Part) -> JSONObject | None:
        if isinstance(part, Text):
            return {"text": part.text} if part.text.strip() else None  # blank text is refused
        if isinstance(part, Image):
            return self._image(part)
        if isinstance(part, Document):
            return self._document(part)
        if isinstance(part, ToolCall):
            call: JSONObject = {"toolUseId": wire_id(part.id), "name": part.name, "input": _input(part.arguments)}
            return {"toolUse": call}
        if isinstance(part, ToolResult):
            return self._result(part)
        if isinstance(part, Reasoning):
            return self._reasoning(part)
        return self._other(part)

    def _other(self, part: Audio | Refusal | Opaque) -> JSONObject | None:
        if isinstance(part, Refusal):
            return {"text": part.text} if part.text.strip() else None
        if isinstance(part, Audio):
            return self._audio(part)
        if part.dialect is Dialect.CONVERSE:
            return dict(part.raw)
        self._drop("messages.content")
        return None

    def _image(self, part: Image) -> JSONObject:
        if not self._family.images:
            raise CannotCarry("messages.image", "this model of Amazon Bedrock reads no images")
        if part.detail in ("low", "high"):
            self._drop("messages.image.detail")
        source = part.source
        if not source.data:
            raise CannotCarry("messages.image", "Amazon Bedrock takes an image's bytes, not a reference to it")
        found = next((form for start, form in _IMAGE_STARTS if source.data.startswith(start)), "png")
        form = _IMAGES.get(source.mime, "") if source.mime else found
        if not form:
            raise CannotCarry("messages.image", f"Amazon Bedrock takes png, jpeg, gif and webp, not {source.mime}")
        return {"image": {"format": form, "source": {"bytes": source.data}}}

    def _document(self, part: Document) -> JSONObject:
        if not self._family.documents:
            raise CannotCarry("messages.document", "this model of Amazon Bedrock reads no documents")
        source = part.source
        if part.text:
            source = Media(mime="text/plain", data=base64.b64encode(part.text.encode()).decode())
        if not source.data:
            raise CannotCarry("messages.document", "Amazon Bedrock takes a document's bytes, not a reference to it")
        form = _DOCUMENTS.get(source.mime) or ("txt" if source.mime.startswith("text/") else "")
        if not form:
            raise CannotCarry("messages.document", f"Amazon Bedrock takes no documents of the type {source.mime}")
        block: JSONObject = {"format": form, "name": self._name(part.title), "source": {"bytes": source.data}}
        if part.context:
            block["context"] = part.context
        if part.citations:
            block["citations"] = {"enabled": True}
        return {"document": block}

    def _name(self, title: str) -> str:
        """Letters, digits, single spaces, hyphens and brackets; unique among the request's documents."""
        plain = " ".join(_NOT_IN_NAME.sub(" ", title).split())[: _NAME_LENGTH - 8].strip() or "document"
        name, count = plain, 1
        while name in self._names:
            count += 1
            name = f"{plain} ({count})"
        self._names.add(name)
        return name

    def _audio(self, part: Audio) -> JSONObject | None:
        if part.transcript:  # what the assistant said aloud is still its turn
            self._drop("messages.assistant.audio")
            return {"text": part.transcript}
        form = part.format or part.source.mime.removeprefix("audio/").removeprefix("x-")
        if not self._family.audio or not part.source.data or form not in _AUDIO:
            raise CannotCarry("messages.audio", "this model of Amazon Bedrock does not take such audio")
        return {"audio": {"format": form, "source": {"bytes": part.source.data}}}

    def _result(self, part: ToolResult) -> JSONObject:
        content = [block for block in map(self._block, part.parts) if block is not None]
        result: JSONObject = {"toolUseId": wire_id(part.call_id), "content": content}
        if part.error and self._family.error_status:
            result["status"] = "error"
        elif part.error:
            self._drop("messages.tool_result.error")
        return {"toolResult": result}

    def _reasoning(self, part: Reasoning) -> JSONObject | None:
        if self._family.replays and part.redacted and _is_base64(part.redacted):
            return {"reasoningContent": {"redactedContent": part.redacted}}
        if self._family.replays and part.signature:
            return {"reasoningContent": {"reasoningText": {"text": part.text, "signature": part.signature}}}
        self._drop("messages.reasoning")
        return None

    def _drop(self, name: str) -> None:
        if name not in self._dropped:
            self._dropped.append(name)


def cache_point(mark: CacheMark, family: Family, place: str) -> JSONObject | None:
    """The block that asks for caching up to here; None where this family caches nothing in this place."""
    if place not in family.cache:
        return None
    point = {"type": "default"}
    if family.cache_hour and mark.ttl == "1h":
        point["ttl"] = "1h"
    return {"cachePoint": point}


def wire_id(call_id: str) -> str:
    """Call ids of other providers may be longer, or hold characters, than Converse takes. Distinct ones stay so."""
    if len(call_id) > _ID_LENGTH:
        return hashlib.sha256(call_id.encode()).hexdigest()
    return _NOT_IN_ID.sub("_", call_id) or "call"


def _mark_of(part: Part) -> CacheMark | None:
    """A tool result holds no cache points: a mark inside it counts for the whole."""
    mark: CacheMark | None = getattr(part, "cache", None)
    if mark is None and isinstance(part, ToolResult):
        return next((inner for one in part.parts if (inner := getattr(one, "cache", None))), None)
    return mark


def _input(arguments: str) -> object:
    """The arguments as written, when they are an object; else wrapped in one, for models take nothing else."""
    if not arguments.strip():
        return {}
    try:
        is_object = isinstance(msgspec.json.decode(arguments), dict)
    except (msgspec.DecodeError, RecursionError):
        is_object = False
    return msgspec.Raw(arguments.encode()) if is_object else {"arguments": arguments}


def _is_base64(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return False
    return True
