"""Canonical messages to the `input` items of OpenAI's Responses API. It takes no sound."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from providers.adapters.openai_wire_messages import media_url, part_name
from providers.adapters.types import (
    Dialect,
    Document,
    Image,
    JSONObject,
    Message,
    Opaque,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    ToolResult,
)


class InputList:
    """`drop` is told the name of everything that cannot be carried; `custom` names the free-text tools."""

    def __init__(self, drop: Callable[[str], None], *, custom: frozenset[str]) -> None:
        self._drop = drop
        self._custom = custom
        self._free: set[str] = set()  # ids of calls of free-text tools
        self._items: list[JSONObject] = []

    def build(self, messages: tuple[Message, ...]) -> list[JSONObject]:
        for message in messages:
            if message.name:
                self._drop("messages.name")
            if message.role == "assistant":
                self._assistant(message)
            else:
                self._plain(message)
        return self._items

    def _plain(self, message: Message) -> None:
        """A system or user message, after the results of tools that stand in it."""
        parts: list[JSONObject] = []
        for part in message.parts:
            if isinstance(part, ToolResult):
                self._items.append(self._result(part))
            elif (built := self._input(part)) is not None:
                parts.append(built)
        if len(parts) == 1 and parts[0]["type"] == "input_text":
            self._say(message.role, parts[0]["text"])
        elif parts or not any(isinstance(part, ToolResult) for part in message.parts):
            self._say(message.role, parts or "")

    def _say(self, role: str, content: str | list[JSONObject]) -> None:
        self._items.append({"role": "user" if role == "tool" else role, "content": content})

    def _input(self, part: object) -> JSONObject | None:
        if isinstance(part, Text):
            return {"type": "input_text", "text": part.text}
        if isinstance(part, Image):
            return self._image(part)
        if isinstance(part, Document):
            return self._document(part)
        self._drop(f"messages.{part_name(part)}")
        return None

    def _image(self, image: Image) -> JSONObject:
        wire: JSONObject = {"type": "input_image", "detail": image.detail or "auto"}
        if image.source.file_id:
            return wire | {"file_id": image.source.file_id}
        return wire | {"image_url": media_url(image.source, "image/png")}

    def _document(self, document: Document) -> JSONObject:
        if document.citations:
            self._drop("messages.document.citations")
        if document.text:
            heading = [text for text in (document.title, document.context) if text]
            return {"type": "input_text", "text": "\n\n".join([*heading, document.text])}
        if document.context:
            self._drop("messages.document.context")
        source = document.source
        if source.file_id:
            return {"type": "input_file", "file_id": source.file_id}
        if source.data:
            wire = {"file_data": media_url(source, "application/pdf"), "filename": document.title or "document.pdf"}
            return {"type": "input_file", **wire}
        return {"type": "input_file", "file_url": source.url}

    def _result(self, result: ToolResult) -> JSONObject:
        if result.error:
            self._drop("messages.tool_result.error")
        parts = [built for part in result.parts if (built := self._input(part)) is not None]
        single = len(parts) == 1 and parts[0]["type"] == "input_text"
        output: Any = parts[0]["text"] if single else parts or ""
        kind = "custom_tool_call_output" if result.call_id in self._free else "function_call_output"
        return {"type": kind, "call_id": result.call_id, "output": output}

    def _assistant(self, message: Message) -> None:
        for part in message.parts:
            if isinstance(part, Text):
                if part.text:
                    self._items.append({"role": "assistant", "content": part.text})
            elif isinstance(part, Refusal):
                content = [{"type": "refusal", "refusal": part.text}]
                self._items.append({"type": "message", "role": "assistant", "content": content})
            elif isinstance(part, ToolCall):
                self._items.append(self._call(part))
            elif isinstance(part, Reasoning):
                self._thought(part)
            elif isinstance(part, Opaque) and part.dialect is Dialect.RESPONSES:
                self._items.append(part.raw)
            else:
                self._drop(f"messages.assistant.{part_name(part)}")

    def _call(self, call: ToolCall) -> JSONObject:
        if call.signature:
            self._drop("messages.tool_call.signature")
        if call.name in self._custom:
            self._free.add(call.id)
            return {"type": "custom_tool_call", "call_id": call.id, "name": call.name, "input": _free(call.arguments)}
        called = {"call_id": call.id, "name": call.name, "arguments": call.arguments or "{}"}
        return {"type": "function_call", **called}

    def _thought(self, thought: Reasoning) -> None:
        sealed = thought.redacted or thought.signature
        if not sealed:
            self._drop("messages.reasoning")
            return
        summary = [{"type": "summary_text", "text": thought.text}] if thought.text else []
        self._items.append({"type": "reasoning", "summary": summary, "encrypted_content": sealed})


def _free(arguments: str) -> str:
    try:
        decoded = msgspec.json.decode(arguments)
    except msgspec.DecodeError:
        return arguments
    text = decoded.get("input") if isinstance(decoded, dict) else None
    return text if isinstance(text, str) else arguments
