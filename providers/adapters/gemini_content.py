"""Canonical messages as Gemini's contents and parts."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from mimetypes import guess_type

import msgspec

from providers.adapters.types import (
    Audio,
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

# Google's own word for a call that another model made: from Gemini 3 on one without a signature is refused.
_UNSIGNED = "skip_thought_signature_validator"  # https://ai.google.dev/gemini-api/docs/thought-signatures
_NEEDS_SIGNATURE = re.compile(r"gemini-([3-9]|\d\d)")
_AUDIO_MIMES = {"mp3": "audio/mpeg", "wav": "audio/wav", "pcm16": "audio/L16"}
_FALLBACK_MIMES: dict[type, str] = {Image: "image/png", Audio: "audio/wav", Document: "application/pdf"}


class Contents:
    """Builds `contents` and `systemInstruction`; `dropped` collects what has no counterpart."""

    def __init__(self, messages: tuple[Message, ...], dropped: list[str], model: str = "") -> None:
        self._messages = messages
        self._stand_in = unsigned_call(model)
        self._dropped = dropped
        self._names = {
            part.id: part.name for message in messages for part in message.parts if isinstance(part, ToolCall)
        }

    def system(self) -> JSONObject | None:
        found = [message for message in self._messages if message.role == "system"]
        parts = [part for message in found for part in self._parts(message.parts) if "text" in part]
        return {"parts": parts} if parts else None

    def turns(self) -> list[JSONObject]:
        """Neighbours of one role become one turn; results of parallel calls must stand in one."""
        turns: list[JSONObject] = []
        before = ""
        for message in self._messages:
            if message.role == "system":
                continue
            if message.name:
                self._drop("messages.name")
            parts = self._parts(message.parts)
            if not parts:
                continue
            if self._stand_in:
                self._sign(parts)
            if turns and before == message.role:
                turns[-1]["parts"] += parts
            else:
                turns.append({"role": "model" if message.role == "assistant" else "user", "parts": parts})
            before = message.role
        return turns

    def _sign(self, parts: list[JSONObject]) -> None:
        """Of calls at once the first one is signed."""
        calls = [part for part in parts if "functionCall" in part]
        if calls and not any("thoughtSignature" in call for call in calls):
            calls[0]["thoughtSignature"] = self._stand_in

    def _parts(self, parts: Iterable[Part]) -> list[JSONObject]:
        wires: list[JSONObject] = []
        for part in parts:
            if getattr(part, "cache", None) is not None:
                self._drop("cache_control")
            wire = self._part(part)
            if wire is not None:
                wires.append(wire)
        return wires

    def _part(self, part: Part) -> JSONObject | None:
        if isinstance(part, Text):
            return {"text": part.text} if part.text else None
        if isinstance(part, Image | Audio | Document):
            return self._media(part)
        if isinstance(part, ToolCall):
            return _call(part)
        if isinstance(part, ToolResult):
            return self._result(part)
        if isinstance(part, Reasoning):
            return self._thought(part)
        if isinstance(part, Refusal):
            return {"text": part.text} if part.text else None
        return self._opaque(part)

    def _opaque(self, part: Opaque) -> JSONObject | None:
        if part.dialect is Dialect.GEMINI:
            return part.raw
        self._drop("messages.content")
        return None

    def _thought(self, part: Reasoning) -> JSONObject | None:
        if part.redacted:
            self._drop("messages.reasoning")  # opaque to everyone but its own provider
            return None
        wire: JSONObject = {"text": part.text}
        if part.text:
            wire["thought"] = True
        if part.signature:
            wire["thoughtSignature"] = part.signature
        return wire if len(wire) > 1 else None

    def _media(self, part: Image | Audio | Document) -> JSONObject | None:
        if isinstance(part, Image) and part.detail in ("low", "high"):
            self._drop("messages.image.detail")
        if isinstance(part, Document):
            self._name_document(part)
            if part.text:
                data = base64.b64encode(part.text.encode()).decode()
                return {"inlineData": {"mimeType": part.source.mime or "text/plain", "data": data}}
        source = part.source
        if source.data:
            return {"inlineData": {"mimeType": _mime(part), "data": source.data}}
        if source.url:
            return {"fileData": {"mimeType": _mime(part), "fileUri": source.url}}
        if isinstance(part, Audio) and part.transcript:  # spoken by an assistant, kept by another provider
            return {"text": part.transcript}
        self._drop("messages.file_id")
        return None

    def _name_document(self, part: Document) -> None:
        if part.title:
            self._drop("messages.document.title")
        if part.context:
            self._drop("messages.document.context")
        if part.citations:
            self._drop("messages.document.citations")

    def _result(self, part: ToolResult) -> JSONObject:
        """Text goes under `output` or `error`, as Google's SDK names them; media beside it."""
        texts = [found.text for found in part.parts if isinstance(found, Text)]
        wire: JSONObject = {
            "name": part.name or self._names.get(part.call_id, "") or part.call_id,
            "response": {"error" if part.error else "output": "\n".join(texts)},
        }
        if part.call_id:
            wire["id"] = part.call_id
        media = self._parts(found for found in part.parts if not isinstance(found, Text))
        if media:
            wire["parts"] = media
        return {"functionResponse": wire}

    def _drop(self, name: str) -> None:
        if name not in self._dropped:
            self._dropped.append(name)


def unsigned_call(model: str) -> str:
    """What stands in for the signature of a call; empty where `model` needs none."""
    return _UNSIGNED if _NEEDS_SIGNATURE.search(model) else ""


def _call(part: ToolCall) -> JSONObject:
    call: JSONObject = {"name": part.name, "args": _args(part.arguments)}
    if part.id:
        call["id"] = part.id
    wire: JSONObject = {"functionCall": call}
    if part.signature:
        wire["thoughtSignature"] = part.signature
    return wire


def _args(arguments: str) -> object:
    """The arguments as written, when they are an object; else wrapped in one, for the API takes nothing else."""
    if not arguments.strip():
        return {}
    try:
        is_object = isinstance(msgspec.json.decode(arguments), dict)
    except (msgspec.DecodeError, RecursionError):
        is_object = False
    return msgspec.Raw(arguments.encode()) if is_object else {"arguments": arguments}


def _mime(part: Image | Audio | Document) -> str:
    """The API wants a media type: the caller's, else what format or address say."""
    source: Media = part.source
    if source.mime:
        return source.mime
    if isinstance(part, Audio) and part.format:
        return _AUDIO_MIMES.get(part.format, f"audio/{part.format}")
    guessed, _ = guess_type(source.url.partition("?")[0]) if source.url else (None, None)
    return guessed or _FALLBACK_MIMES[type(part)]
