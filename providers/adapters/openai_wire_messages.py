"""Canonical messages to the `messages` of OpenAI's chat completions.

Prompt caching is automatic there, so cache marks need no counterpart and are not counted as dropped. Reasoning goes
back only where `compatible` is set, in the fields that the vendor's quirks name: `reasoning_content` (DeepSeek, vLLM),
`reasoning` (Groq, Cerebras), `reasoning_details` (OpenRouter), because OpenAI itself has no place for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from providers.adapters.quirks import PLAIN, Quirks, not_taken
from providers.adapters.types import (
    Audio,
    Document,
    Image,
    JSONObject,
    Media,
    Message,
    Opaque,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    ToolResult,
)
from providers.errors import CannotCarry


class MessageList:
    """`drop` is told the name of everything that cannot be carried."""

    def __init__(self, drop: Callable[[str], None], *, compatible: bool, quirks: Quirks = PLAIN) -> None:
        self._drop = drop
        self.compatible = compatible
        self._quirks = quirks

    def build(self, messages: tuple[Message, ...]) -> list[JSONObject]:
        built: list[JSONObject] = []
        for message in messages:
            results = [part for part in message.parts if isinstance(part, ToolResult)]
            built.extend([self._result(result) for result in results])
            if len(results) == len(message.parts) and results:
                continue
            body = self._assistant(message) if message.role == "assistant" else self._plain(message)
            if message.name and "messages.name" in self._quirks.drops:
                self._drop("messages.name")
            elif message.name:
                body["name"] = message.name
            built.append(body)
        return built

    def _plain(self, message: Message) -> JSONObject:
        """A system or user message; a single text without more is a plain string."""
        parts = [built for part in message.parts if (built := self._input(part)) is not None]
        role = "user" if message.role == "tool" else message.role
        if len(parts) == 1 and parts[0]["type"] == "text":
            return {"role": role, "content": parts[0]["text"]}
        return {"role": role, "content": parts or ""}

    def _input(self, part: object) -> JSONObject | None:
        """Raises CannotCarry for media that this vendor does not take."""
        if isinstance(part, Text):
            return {"type": "text", "text": part.text}
        if isinstance(part, Image | Audio | Document) and not self._takes(part):
            raise not_taken(part_name(part))
        if isinstance(part, Image):
            return self._image(part)
        if isinstance(part, Audio):
            if part.source.data:
                wire = {"data": part.source.data, "format": part.format or part.source.mime.rpartition("/")[2] or "wav"}
                return {"type": "input_audio", "input_audio": wire}
            self._drop("messages.audio")
        elif isinstance(part, Document):
            return self._document(part)
        elif not isinstance(part, ToolResult):
            self._drop(f"messages.{part_name(part)}")
        return None

    def _takes(self, part: Image | Audio | Document) -> bool:
        return part_name(part) in self._quirks.parts or (isinstance(part, Document) and bool(part.text))

    def _image(self, image: Image) -> JSONObject | None:
        url = media_url(image.source, "image/png")
        if not url:
            self._drop("messages.image.file_id")
            return None
        wire = {"url": url}
        if image.detail:
            wire["detail"] = image.detail
        return {"type": "image_url", "image_url": wire}

    def _document(self, document: Document) -> JSONObject | None:
        if document.citations:
            self._drop("messages.document.citations")
        if document.text:
            heading = [text for text in (document.title, document.context) if text]
            return {"type": "text", "text": "\n\n".join([*heading, document.text])}
        if document.context:
            self._drop("messages.document.context")
        source = document.source
        if source.file_id:
            return {"type": "file", "file": {"file_id": source.file_id}}
        if source.data:
            wire = {"file_data": media_url(source, "application/pdf"), "filename": document.title or "document.pdf"}
            return {"type": "file", "file": wire}
        self._drop("messages.document.url")
        return None

    def _result(self, result: ToolResult) -> JSONObject:
        """Results are text on this wire: anything else leaves a note where it stood."""
        self._need_tools()
        if result.error:
            self._drop("messages.tool_result.error")
        texts: list[str] = []
        for part in result.parts:
            if isinstance(part, Text | Document) and part.text:
                texts.append(part.text)
            elif not isinstance(part, Text):
                self._drop(f"messages.tool_result.{part_name(part)}")
                texts.append(f"[{part_name(part)} left out]")
        content: Any = texts[0] if len(texts) == 1 else [{"type": "text", "text": text} for text in texts]
        return {"role": "tool", "tool_call_id": result.call_id, "content": content or ""}

    def _assistant(self, message: Message) -> JSONObject:
        of: dict[type, list[Any]] = {Text: [], Refusal: [], ToolCall: [], Reasoning: []}
        body: JSONObject = {"role": "assistant", "content": None}
        for part in message.parts:
            if type(part) in of:
                of[type(part)].append(part)
            elif isinstance(part, Audio) and part.id:
                body["audio"] = {"id": part.id}
            elif not isinstance(part, ToolResult):
                self._drop(f"messages.assistant.{part_name(part)}")
        if of[Refusal]:
            body["refusal"] = "".join([part.text for part in of[Refusal]])
        if of[ToolCall]:
            body["tool_calls"] = [self._call(call) for call in of[ToolCall]]
        if of[Text] or len(body) == 2:  # nothing but role and content
            body["content"] = "".join([part.text for part in of[Text]])
        self._thoughts(of[Reasoning], body)
        return body

    def _need_tools(self) -> None:
        if "tools" in self._quirks.denies:
            raise CannotCarry("messages.tool_calls", "this provider has no tools")

    def _call(self, call: ToolCall) -> JSONObject:
        self._need_tools()
        wire: JSONObject = {
            "id": call.id,
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments or "{}"},
        }
        if call.signature:
            if self.compatible:
                wire["extra_content"] = {"google": {"thought_signature": call.signature}}
            else:
                self._drop("messages.tool_call.signature")
        return wire

    def _thoughts(self, thoughts: list[Reasoning], body: JSONObject) -> None:
        fields = self._quirks.thoughts
        if thoughts and not (self.compatible and fields):
            self._drop("messages.reasoning")
        elif thoughts:
            if text := "".join([thought.text for thought in thoughts]):
                body.update({name: text for name in fields if name != "reasoning_details"})
            if not any(_is_opaque(thought) for thought in thoughts):
                return
            if "reasoning_details" not in fields:
                self._drop("messages.reasoning.signature")
            else:
                body["reasoning_details"] = [reasoning_detail(thought) for thought in thoughts]


def _is_opaque(thought: Reasoning) -> bool:
    return bool(thought.signature or thought.redacted or thought.id)


def reasoning_detail(thought: Reasoning) -> JSONObject:
    """One item of `reasoning_details`, as OpenRouter names its fields."""
    wire: JSONObject = {"type": "reasoning.encrypted" if thought.redacted else "reasoning.text"}
    for name, value in (("text", thought.text), ("signature", thought.signature), ("data", thought.redacted)):
        if value:
            wire[name] = value
    if thought.id:
        wire["id"] = thought.id
    return wire


def media_url(source: Media, default_mime: str) -> str:
    if source.data:
        return f"data:{source.mime or default_mime};base64,{source.data}"
    return source.url


def part_name(part: object) -> str:
    return "content" if isinstance(part, Opaque) else type(part).__name__.lower()
