"""Canonical messages as Ollama's: one text each, images beside it as base64, arguments of calls as objects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from providers.adapters.types import (
    Audio,
    Document,
    Image,
    JSONObject,
    Message,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    ToolResult,
)
from providers.errors import CannotCarry


class MessageList:
    """`drop` is told the name of everything that is left out. Raises CannotCarry for media the API cannot take."""

    def __init__(self, drop: Callable[[str], None]) -> None:
        self._drop = drop
        self._names: dict[str, str] = {}  # of the tools called so far, by the call's id

    def build(self, messages: tuple[Message, ...]) -> list[JSONObject]:
        built: list[JSONObject] = []
        for message in messages:
            if message.name:
                self._drop("messages.name")
            results = [part for part in message.parts if isinstance(part, ToolResult)]
            built += [self._result(result) for result in results]
            if not results or len(results) < len(message.parts):
                built.append(self._message(message))
        return built

    def _message(self, message: Message) -> JSONObject:
        role = "user" if message.role == "tool" else message.role
        texts: list[str] = []
        wire: JSONObject = {"role": role, "content": ""}
        for part in message.parts:
            if isinstance(part, ToolCall):
                self._names[part.id] = part.name
                wire.setdefault("tool_calls", []).append(_call(part))
            elif isinstance(part, Reasoning):
                self._thought(part, wire)
            elif not isinstance(part, ToolResult):
                self._content(part, texts, wire)
        wire["content"] = ("" if role == "assistant" else "\n\n").join(texts)
        return wire

    def _content(self, part: object, texts: list[str], wire: JSONObject) -> None:
        if isinstance(part, Text | Refusal):
            texts.append(part.text)
        elif isinstance(part, Image):
            wire.setdefault("images", []).append(_image(part))
        elif isinstance(part, Document):
            texts.append(self._document(part))
        elif isinstance(part, Audio):
            if not part.transcript:
                raise CannotCarry("messages.audio", "Ollama's API takes texts and images only")
            texts.append(part.transcript)  # an assistant spoke it
        else:
            self._drop("messages.content")

    def _document(self, part: Document) -> str:
        if not part.text:
            raise CannotCarry("messages.document", "Ollama's API takes documents as plain text only")
        if part.citations:
            self._drop("messages.document.citations")
        return "\n\n".join([text for text in (part.title, part.context, part.text) if text])

    def _thought(self, part: Reasoning, wire: JSONObject) -> None:
        if part.signature:
            self._drop("messages.reasoning.signature")
        if part.redacted:
            self._drop("messages.reasoning")  # opaque to everyone but its own provider
        if part.text:
            wire["thinking"] = wire.get("thinking", "") + part.text

    def _result(self, result: ToolResult) -> JSONObject:
        if result.error:
            self._drop("messages.tool_result.error")
        texts: list[str] = []
        wire: JSONObject = {"role": "tool", "content": ""}
        for part in result.parts:
            self._content(part, texts, wire)
        wire["content"] = "\n\n".join(texts)
        if name := result.name or self._names.get(result.call_id, ""):
            wire["tool_name"] = name
        if result.call_id:
            wire["tool_call_id"] = result.call_id
        return wire


def _image(part: Image) -> str:
    if not part.source.data:
        raise CannotCarry("messages.image", "Ollama's API takes images as base64 data, not by address or file id")
    return part.source.data


def _call(part: ToolCall) -> JSONObject:
    function: JSONObject = {"name": part.name, "arguments": _arguments(part.arguments)}
    return {"id": part.id, "function": function} if part.id else {"function": function}


def _arguments(text: str) -> Any:
    """The arguments as written, when they are an object; else wrapped in one, for the API takes nothing else."""
    if not text.strip():
        return {}
    try:
        is_object = isinstance(msgspec.json.decode(text), dict)
    except (msgspec.DecodeError, RecursionError):
        is_object = False
    return msgspec.Raw(text.encode()) if is_object else {"arguments": text}
