"""Gemini's contents as canonical messages."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec

from conduit.proxy.dialects.gemini_signatures import unwrapped
from conduit.proxy.dialects.gemini_wire import BlobWire, CallWire, ContentWire, FileWire, PartWire, ResultWire
from conduit.proxy.errors import invalid_value
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
    Role,
    Text,
    ToolCall,
    ToolResult,
)

_ROLES: dict[str, Role] = {"user": "user", "model": "assistant", "function": "user", "": "user"}
_AUDIO_FORMATS = {"mpeg": "mp3", "x-wav": "wav", "wave": "wav", "L16": "pcm16"}
_json = msgspec.json.Encoder()


class Conversation:
    """Collects messages. Older clients send calls and results without ids: they are matched by name and order."""

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._unanswered: list[tuple[str, str]] = []  # id and name
        self._calls = 0

    def messages(self) -> tuple[Message, ...]:
        return tuple(self._messages)

    def add_system(self, content: ContentWire) -> None:
        parts = tuple(Text(text=part.text) for part in content.parts or () if part.text)
        if parts:
            self._messages.append(Message(role="system", parts=parts))

    def add(self, content: ContentWire, raws: list[JSONObject], field: str) -> None:
        """`raws` are the parts as they came. A user's turn falls into results (role `tool`) and the rest."""
        role = _ROLES.get(content.role or "")
        if role is None:
            raise invalid_value(f"{field}.role", f"{field}.role: must be user or model.")
        run: list[Part] = []
        for at, (wire, raw) in enumerate(zip(content.parts or (), raws, strict=True)):
            for part in self._parts(wire, raw, f"{field}.parts[{at}]"):
                if run and isinstance(part, ToolResult) != isinstance(run[-1], ToolResult):
                    self._flush(role, run)
                    run = []
                _append(run, part)
        self._flush(role, run)

    def _flush(self, role: Role, run: list[Part]) -> None:
        if run:
            self._messages.append(Message(role="tool" if isinstance(run[0], ToolResult) else role, parts=tuple(run)))

    def _parts(self, wire: PartWire, raw: JSONObject, where: str) -> list[Part]:
        signature, redacted = unwrapped(wire.thought_signature or "")
        if wire.function_call is not None:
            return [self._call(wire.function_call, signature)]
        if wire.function_response is not None:
            return [self._result(wire.function_response, raw["functionResponse"], f"{where}.functionResponse")]
        if redacted:
            return [Reasoning(redacted=redacted)]
        if wire.thought:
            return [Reasoning(text=wire.text or "", signature=signature)]
        parts: list[Part] = []
        if wire.text:
            parts.append(Text(text=wire.text))
        elif wire.inline_data is not None:
            parts.append(_inline(wire.inline_data))
        elif wire.file_data is not None:
            parts.append(_linked(wire.file_data))
        elif wire.text is None:
            return [Opaque(dialect=Dialect.GEMINI, raw=raw, field=where)]
        if signature:
            parts.append(Reasoning(signature=signature))
        return parts

    def _call(self, wire: CallWire, signature: str) -> ToolCall:
        self._calls += 1
        call_id = wire.id or f"call_{self._calls}"
        self._unanswered.append((call_id, wire.name))
        arguments = _json.encode(wire.args or {}).decode()
        return ToolCall(id=call_id, name=wire.name, arguments=arguments, signature=signature)

    def _result(self, wire: ResultWire, raw: JSONObject, where: str) -> ToolResult:
        call_id = wire.id or self._asked(wire.name)
        self._unanswered = [(asked, name) for asked, name in self._unanswered if asked != call_id]
        text, error = _said(wire.response or {})
        parts: list[Text | Image | Document | Opaque] = [Text(text=text)] if text else []
        for at, found in enumerate(wire.parts or ()):
            media = _inline(found.inline_data) if found.inline_data else None
            media = _linked(found.file_data) if media is None and found.file_data else media
            if isinstance(media, Image | Document):
                parts.append(media)
            else:  # a sound, or what only Google knows
                parts.append(Opaque(dialect=Dialect.GEMINI, raw=raw["parts"][at], field=f"{where}.parts[{at}]"))
        return ToolResult(call_id=call_id, parts=tuple(parts), name=wire.name, error=error)

    def _asked(self, name: str) -> str:
        """The oldest call of this name without a result."""
        for call_id, called in self._unanswered:
            if called == name:
                return call_id
        return f"call_{name}"


def _append(run: list[Part], part: Part) -> None:
    """Streamed thoughts come back in pieces, the signature last: they are one thought."""
    last = run[-1] if run else None
    if (
        isinstance(part, Reasoning)
        and isinstance(last, Reasoning)
        and not (last.signature or last.redacted or part.redacted)
    ):
        run[-1] = Reasoning(text=last.text + part.text, signature=part.signature)
    else:
        run.append(part)


def _said(response: dict[str, Any]) -> tuple[str, bool]:
    """The result as text, and whether it is an error. A lone `output`, `result` or `error` is what it holds."""
    if len(response) == 1:
        ((name, value),) = response.items()
        if name in ("output", "result", "error"):
            text = value if isinstance(value, str) else _json.encode(value).decode()
            return text, name == "error"
    return (_json.encode(response).decode() if response else ""), False


def _inline(blob: BlobWire) -> Image | Audio | Document:
    kind, _, subtype = blob.mime_type.partition("/")
    source = Media(mime=blob.mime_type, data=blob.data.translate(_STANDARD))
    if kind == "image":
        return Image(source=source)
    if kind == "audio":
        return Audio(source=source, format=_AUDIO_FORMATS.get(subtype, subtype))
    if kind == "text":
        try:
            return Document(source=Media(mime=blob.mime_type), text=base64.b64decode(source.data).decode())
        except (binascii.Error, UnicodeDecodeError):
            return Document(source=source)
    return Document(source=source)


_STANDARD = str.maketrans("-_", "+/")  # Google's clients write base64 for URLs; the other providers take the plain one


def _linked(file: FileWire) -> Image | Audio | Document:
    kind, _, subtype = file.mime_type.partition("/")
    source = Media(mime=file.mime_type, url=file.file_uri)
    if kind == "image":
        return Image(source=source)
    if kind == "audio":
        return Audio(source=source, format=_AUDIO_FORMATS.get(subtype, subtype))
    return Document(source=source)
