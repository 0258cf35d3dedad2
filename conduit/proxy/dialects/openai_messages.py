"""The `messages` of OpenAI's chat completions: their types, the checks across fields, the canonical conversation.

One part type covers all kinds, so that a kind we do not know yet still passes through to OpenAI itself.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from conduit.proxy.errors import ApiError, invalid_value
from providers.adapters.openai_wire import reasoning_parts
from providers.adapters.openai_wire_answer import media_of
from providers.adapters.types import (
    Audio,
    CacheMark,
    Document,
    Image,
    Media,
    Message,
    Part,
    Refusal,
    Text,
    ToolCall,
    ToolResult,
)


class CacheControl(msgspec.Struct):
    type: str = "ephemeral"
    ttl: str | None = None


class ImageURL(msgspec.Struct):
    url: str
    detail: str | None = None


class InputAudio(msgspec.Struct):
    data: str
    format: str


class FileBody(msgspec.Struct):
    file_data: str | None = None
    file_id: str | None = None
    filename: str | None = None


class PartBody(msgspec.Struct):
    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: ImageURL | str | None = None
    input_audio: InputAudio | None = None
    file: FileBody | None = None
    cache_control: CacheControl | None = None


class CallFunction(msgspec.Struct):
    name: str
    arguments: str = "{}"


class CallBody(msgspec.Struct):
    id: str
    type: str = "function"
    function: CallFunction | None = None
    custom: dict[str, Any] | None = None
    extra_content: dict[str, Any] | None = None


class AudioID(msgspec.Struct):
    id: str


class MessageBody(msgspec.Struct):
    role: Literal["developer", "system", "user", "assistant", "tool", "function"]
    content: str | list[PartBody] | None = None
    name: str | None = None
    refusal: str | None = None
    tool_calls: list[CallBody] | None = None
    function_call: CallFunction | None = None
    tool_call_id: str | None = None
    audio: AudioID | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    reasoning_details: list[dict[str, Any]] | None = None
    cache_control: CacheControl | None = None


_NEEDS = {"text": "text", "refusal": "refusal", "image_url": "image_url", "input_audio": "input_audio", "file": "file"}


def check_messages(messages: list[MessageBody]) -> None:
    """What types alone do not say. Raises ApiError that names the field."""
    for index, message in enumerate(messages):
        role, content = message.role, message.content
        if role == "tool" and message.tool_call_id is None:
            raise _required(f"messages[{index}].tool_call_id")
        if content is None:
            if role != "assistant":
                raise _required(f"messages[{index}].content")
        elif type(content) is list:
            for place, part in enumerate(content):
                needed = _NEEDS.get(part.type)
                if needed is not None and getattr(part, needed) is None:
                    raise _required(f"messages[{index}].content[{place}].{needed}")


def conversation(messages: list[MessageBody]) -> tuple[Message, ...]:
    """Canonical messages; results of tools in a row are one message, and know their tool's name.

    Raises ApiError for a part of a kind that only OpenAI itself may understand.
    """
    names: dict[str, str] = {}
    built: list[Message] = []
    for index, message in enumerate(messages):
        if message.role in ("tool", "function"):
            result = _result(message, index, names)
            if built and built[-1].role == "tool":
                built[-1] = Message(role="tool", parts=(*built[-1].parts, result))
            else:
                built.append(Message(role="tool", parts=(result,)))
        elif message.role == "assistant":
            parts = _assistant(message, index)
            names.update({part.id: part.name for part in parts if isinstance(part, ToolCall)})
            built.append(Message(role="assistant", parts=tuple(parts), name=message.name or ""))
        else:
            role: Literal["user", "system"] = "user" if message.role == "user" else "system"
            built.append(Message(role=role, parts=tuple(_content(message, index)), name=message.name or ""))
    return tuple(built)


def cache_mark(control: CacheControl | None) -> CacheMark | None:
    return None if control is None else CacheMark(ttl=control.ttl or "5m")


def _required(field: str) -> ApiError:
    return invalid_value(field, f"{field}: this field is required.")


def _content(message: MessageBody, index: int) -> list[Part]:
    content = message.content
    if isinstance(content, str):
        marked = None if message.role == "tool" else message.cache_control  # a tool's mark is its result's
        return [Text(text=content, cache=cache_mark(marked))]
    return [_part(part, f"messages[{index}].content[{place}]") for place, part in enumerate(content or ())]


def _part(part: PartBody, field: str) -> Part:
    cache = cache_mark(part.cache_control)
    if part.type == "text":
        return Text(text=part.text or "", cache=cache)
    if part.type == "refusal":
        return Refusal(text=part.refusal or "")
    if part.type == "image_url" and part.image_url is not None:
        image = part.image_url if isinstance(part.image_url, ImageURL) else ImageURL(url=part.image_url)
        return Image(source=media_of(image.url), detail=image.detail or "", cache=cache)
    if part.type == "input_audio" and part.input_audio is not None:
        audio = part.input_audio
        return Audio(source=Media(mime=f"audio/{audio.format}", data=audio.data), format=audio.format)
    if part.type == "file" and part.file is not None:
        return Document(source=_file(part.file, field), title=part.file.filename or "", cache=cache)
    raise invalid_value(f"{field}.type", f"{field}.type: {part.type!r} cannot be sent to this model's provider.")


def _file(file: FileBody, field: str) -> Media:
    if file.file_id:
        return Media(file_id=file.file_id)
    if not file.file_data:
        raise _required(f"{field}.file.file_data")
    media = media_of(file.file_data)
    return Media(mime="application/pdf", data=file.file_data) if media.url else media


def _assistant(message: MessageBody, index: int) -> list[Part]:
    parts: list[Part] = [*reasoning_parts(message.reasoning_details, message.reasoning_content or message.reasoning)]
    if message.content:
        parts.extend(_content(message, index))
    if message.refusal:
        parts.append(Refusal(text=message.refusal))
    if message.audio is not None:
        parts.append(Audio(source=Media(), id=message.audio.id))
    for place, call in enumerate(message.tool_calls or ()):
        parts.append(_call(call, f"messages[{index}].tool_calls[{place}]"))
    if message.function_call is not None:
        call_id = f"function_{message.function_call.name}"
        parts.append(ToolCall(id=call_id, name=message.function_call.name, arguments=message.function_call.arguments))
    return parts


def _call(call: CallBody, field: str) -> ToolCall:
    if call.function is None:
        if call.custom is None:
            raise _required(f"{field}.function")
        arguments = msgspec.json.encode({"input": call.custom.get("input", "")}).decode()
        return ToolCall(id=call.id, name=str(call.custom.get("name", "")), arguments=arguments)
    google = (call.extra_content or {}).get("google")
    signature = google.get("thought_signature", "") if isinstance(google, dict) else ""
    return ToolCall(
        id=call.id,
        name=call.function.name,
        arguments=call.function.arguments or "{}",
        signature=signature if isinstance(signature, str) else "",
    )


def _result(message: MessageBody, index: int, names: dict[str, str]) -> ToolResult:
    parts = [part for part in _content(message, index) if isinstance(part, Text | Image | Document)]
    if message.role == "function":
        name = message.name or ""
        return ToolResult(call_id=f"function_{name}", parts=tuple(parts), name=name)
    call_id = message.tool_call_id or ""
    name = names.get(call_id, message.name or "")
    cache = cache_mark(message.cache_control)
    return ToolResult(call_id=call_id, parts=tuple(parts), name=name, cache=cache)
