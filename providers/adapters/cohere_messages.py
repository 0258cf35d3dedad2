"""Canonical messages to the `messages` of Cohere's /v2/chat (the `cohere` package's ChatMessageV2).

Thoughts go back as they came: as the `tool_plan` of a turn that calls tools, else as thinking. Cohere knows no
signatures. A text document that shall be cited stands beside the messages, in `documents`; any other is plain text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from providers.adapters.openai_wire_messages import media_url, part_name
from providers.adapters.types import (
    Audio,
    Document,
    Image,
    JSONObject,
    Message,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    ToolResult,
)
from providers.errors import CannotCarry


class Turns:
    """`drop` is told the name of what is lost; `documents` fills up while messages are built."""

    def __init__(self, drop: Callable[[str], None]) -> None:
        self._drop = drop
        self.documents: list[JSONObject] = []

    def build(self, messages: tuple[Message, ...]) -> list[JSONObject]:
        """Raises CannotCarry for media that Cohere has no place for."""
        built: list[JSONObject] = []
        for message in messages:
            if message.name:
                self._drop("messages.name")
            results = [part for part in message.parts if isinstance(part, ToolResult)]
            built.extend([self._result(result) for result in results])
            if results and len(results) == len(message.parts):
                continue
            built.append(self._assistant(message) if message.role == "assistant" else self._plain(message))
        return built

    def _plain(self, message: Message) -> JSONObject:
        role = "user" if message.role == "tool" else message.role
        parts = [built for part in message.parts if (built := self._input(part)) is not None]
        if all(part["type"] == "text" for part in parts):
            return {"role": role, "content": "\n\n".join([part["text"] for part in parts])}
        return {"role": role, "content": parts}

    def _input(self, part: Part) -> JSONObject | None:
        if isinstance(part, Text):
            return {"type": "text", "text": part.text}
        if isinstance(part, Image):
            return _image(part)
        if isinstance(part, Document):
            return self._document(part)
        if isinstance(part, Audio):
            raise CannotCarry("messages.audio", "Cohere takes texts and images")
        if not isinstance(part, ToolResult):
            self._drop(f"messages.{part_name(part)}")
        return None

    def _document(self, document: Document) -> JSONObject | None:
        if not document.text:
            raise CannotCarry("messages.document", "Cohere takes documents as plain text only")
        if not document.citations:
            heading = [text for text in (document.title, document.context) if text]
            return {"type": "text", "text": "\n\n".join([*heading, document.text])}
        said = {"title": document.title, "context": document.context, "text": document.text}
        data = {name: text for name, text in said.items() if text}
        self.documents.append({"id": f"doc_{len(self.documents)}", "data": data})
        return None

    def _result(self, result: ToolResult) -> JSONObject:
        if result.error:
            self._drop("messages.tool_result.error")
        parts: list[JSONObject] = []
        for part in result.parts:
            if isinstance(part, Text):
                parts.append({"type": "text", "text": part.text})
            elif isinstance(part, Document) and part.text:
                data = {name: text for name, text in (("title", part.title), ("text", part.text)) if text}
                parts.append({"type": "document", "document": {"data": data}})
            else:
                self._drop(f"messages.tool_result.{part_name(part)}")
                parts.append({"type": "text", "text": f"[{part_name(part)} left out]"})
        content: Any = parts[0]["text"] if len(parts) == 1 and parts[0]["type"] == "text" else parts
        return {"role": "tool", "tool_call_id": result.call_id, "content": content or ""}

    def _assistant(self, message: Message) -> JSONObject:
        texts, thoughts, calls = [], [], []
        for part in message.parts:
            if isinstance(part, Text | Refusal):
                texts.append(part.text)
            elif isinstance(part, Reasoning):
                thoughts.append(self._thought(part))
            elif isinstance(part, ToolCall):
                calls.append(self._call(part))
            elif not isinstance(part, ToolResult):
                self._drop(f"messages.assistant.{part_name(part)}")
        body: JSONObject = {"role": "assistant"}
        said, thought = "".join(texts), "".join(thoughts)
        if calls:
            body["tool_calls"] = calls
            if thought:
                body["tool_plan"] = thought
        if said or not calls:
            body["content"] = said
        if thought and not calls:
            body["content"] = [{"type": "thinking", "thinking": thought}, {"type": "text", "text": said}]
        return body

    def _thought(self, part: Reasoning) -> str:
        if part.signature or part.redacted:
            self._drop("messages.reasoning.signature")
        return part.text

    def _call(self, call: ToolCall) -> JSONObject:
        if call.signature:
            self._drop("messages.tool_call.signature")
        function = {"name": call.name, "arguments": call.arguments or "{}"}
        return {"id": call.id, "type": "function", "function": function}


def _image(image: Image) -> JSONObject:
    url = media_url(image.source, "image/png")
    if not url:
        raise CannotCarry("messages.image.file_id", "Cohere takes images as data or by their address")
    wire = {"url": url}
    if image.detail:
        wire["detail"] = image.detail
    return {"type": "image_url", "image_url": wire}
