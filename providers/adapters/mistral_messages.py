"""Canonical messages to Mistral's: its own parts for audio, documents and thoughts, and short ids for tool calls.

Mistral takes ids of nine letters and digits only. Other providers' ids become such ones, the same for the same id, so
that calls and results keep belonging together over all turns.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

from providers.adapters.openai_wire_messages import MessageList, media_url, part_name
from providers.adapters.types import (
    Audio,
    Document,
    JSONObject,
    Message,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    ToolResult,
)

_OWN_ID = re.compile(r"[A-Za-z0-9]{9}", re.ASCII)


class MistralMessages(MessageList):
    def _input(self, part: object) -> JSONObject | None:
        if isinstance(part, Audio) and (part.source.data or part.source.url):
            return {"type": "input_audio", "input_audio": part.source.data or part.source.url}
        if isinstance(part, Document) and not part.text and (url := media_url(part.source, "application/pdf")):
            if part.citations:
                self._drop("messages.document.citations")
            wire: JSONObject = {"type": "document_url", "document_url": url}
            if part.title:
                wire["document_name"] = part.title
            return wire
        built = super()._input(part)
        if built is not None and built["type"] == "file":
            return {"type": "file", "file_id": built["file"]["file_id"]}
        return built

    def _result(self, result: ToolResult) -> JSONObject:
        body = super()._result(result)
        body["tool_call_id"] = short_id(result.call_id)
        if result.name:
            body["name"] = result.name
        return body

    def _assistant(self, message: Message) -> JSONObject:
        chunks: list[JSONObject] = []
        calls: list[JSONObject] = []
        for part in message.parts:
            if isinstance(part, Reasoning):
                chunks += self._thinking(part)
            elif isinstance(part, Text | Refusal):
                chunks.append({"type": "text", "text": part.text})
            elif isinstance(part, ToolCall):
                calls.append(self._call(part))
            elif not isinstance(part, ToolResult):
                self._drop(f"messages.assistant.{part_name(part)}")
        content: Any = chunks
        if all(chunk["type"] == "text" for chunk in chunks):
            content = "".join([chunk["text"] for chunk in chunks])
        body: JSONObject = {"role": "assistant", "content": content}
        if calls:
            body["tool_calls"] = calls
        return body

    def _thinking(self, thought: Reasoning) -> list[JSONObject]:
        if thought.redacted:
            self._drop("messages.reasoning.redacted")
        if not thought.text:
            return []
        wire: JSONObject = {"type": "thinking", "thinking": [{"type": "text", "text": thought.text}]}
        if thought.signature:
            wire["signature"] = thought.signature
        return [wire]

    def _call(self, call: ToolCall) -> JSONObject:
        if call.signature:
            self._drop("messages.tool_call.signature")
        function = {"name": call.name, "arguments": call.arguments or "{}"}
        return {"id": short_id(call.id), "type": "function", "function": function}


def short_id(given: str) -> str:
    return given if _OWN_ID.fullmatch(given) else hashlib.sha256(given.encode()).hexdigest()[:9]
