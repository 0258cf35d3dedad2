"""The `input` of OpenAI's responses: its items with their types, the checks across fields, the canonical conversation.

One item type covers all kinds, so that a kind we do not know yet still passes through to a provider of the same format.
An item that only such a provider understands is left out for the others where the conversation makes sense without it
(_LEFT_OUT); any other is refused with its place.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from conduit.proxy.dialects.json_body import field_path
from conduit.proxy.dialects.openai_messages import InputAudio
from conduit.proxy.dialects.responses_reasoning import thought_of
from conduit.proxy.errors import ApiError, invalid_value
from providers.adapters.openai_wire_answer import media_of
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
    Refusal,
    Text,
    ToolCall,
    ToolResult,
)


class PartBody(msgspec.Struct):
    """A part of a message, of a tool's output or of reasoning."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: str | None = None
    detail: str | None = None
    file_id: str | None = None
    file_data: str | None = None
    file_url: str | None = None
    filename: str | None = None
    input_audio: InputAudio | None = None


class ItemBody(msgspec.Struct):
    """Members that have other types in some kinds of item are looked at once the kind is known."""

    type: str | None = None
    id: str | None = None
    role: str | None = None
    content: str | list[PartBody] | None = None
    call_id: str | None = None
    name: Any = None
    arguments: Any = None
    input: Any = None
    output: Any = None
    result: Any = None
    summary: list[PartBody] | None = None
    encrypted_content: str | None = None
    extra_content: Any = None  # where our own answers keep the signature of a call

    @property
    def kind(self) -> str:
        return self.type or ("item_reference" if self.role is None and self.id else "message")


_ROLES = ("user", "assistant", "system", "developer")
_NEEDS = {
    "input_text": "text",
    "output_text": "text",
    "summary_text": "text",
    "reasoning_text": "text",
    "refusal": "refusal",
    "input_audio": "input_audio",
}
_STRINGS = {
    "function_call": ("call_id", "name", "arguments"),
    "custom_tool_call": ("call_id", "name", "input"),
    "function_call_output": ("call_id",),
    "custom_tool_call_output": ("call_id",),
}
_OUTPUTS = ("function_call_output", "custom_tool_call_output")
# What a provider did by itself in an earlier turn: its answer told what came of it.
_KEPT = ("file_id", "file_ids", "vector_store_ids", "container_id", "skill_id")  # members that name what a vendor keeps
_LEFT_OUT = ("web_search_call", "file_search_call", "code_interpreter_call", "mcp_list_tools", "mcp_call")


def check_kept(value: Any, field: str) -> None:
    """Files, vector stores, containers and skills are the vendor account's, which callers share: an id of one would
    reach another caller's. Raises ApiError that names the member of `value`, however deep."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in inner:
        place = f"{field}[{name}]" if isinstance(value, list) else f"{field}.{name}"
        if part and name in _KEPT:
            raise kept(place)
        check_kept(part, place)


def kept(field: str) -> ApiError:
    return invalid_value(
        field, f"{field}: what a provider keeps for its account cannot be named here; send the content itself."
    )


def check_items(items: list[ItemBody]) -> None:
    """What types alone do not say. Raises ApiError that names the field."""
    for index, item in enumerate(items):
        field, kind = f"input[{index}]", item.kind
        if kind == "item_reference":
            raise invalid_value(f"{field}.id", f"{field}.id: nothing is kept under this id; send the item itself.")
        if kind == "message":
            _check_message(item, field)
        for name in _STRINGS.get(kind, ()):
            _check_string(getattr(item, name), f"{field}.{name}")
        if kind == "image_generation_call" and item.result is None:
            raise invalid_value(f"{field}.id", f"{field}.id: nothing is kept under this id; send the item's result.")
        if kind in _OUTPUTS:
            item.output = _output(item.output, f"{field}.output")
        else:
            check_kept(item.output, f"{field}.output")
        for name in ("content", "summary", "output"):
            parts = getattr(item, name)
            if type(parts) is list and (name != "output" or kind in _OUTPUTS):
                for place, part in enumerate(parts):
                    _check_part(part, f"{field}.{name}[{place}]")


def _check_message(item: ItemBody, field: str) -> None:
    if item.role not in _ROLES:
        raise invalid_value(f"{field}.role", f"{field}.role: must be one of {', '.join(_ROLES)}.")
    if item.content is None:
        raise _required(f"{field}.content")


def _check_string(value: object, field: str) -> None:
    if value is None:
        raise _required(field)
    if not isinstance(value, str):
        raise invalid_value(field, f"{field}: Expected `str`.")


def _output(value: object, field: str) -> str | list[PartBody]:
    if value is None:
        raise _required(field)
    try:
        return msgspec.convert(value, str | list[PartBody])
    except msgspec.ValidationError as error:
        what, _, path = str(error).partition(" - at ")
        inner = field_path(path.strip("`"))
        field = f"{field}{inner}" if inner.startswith("[") or not inner else f"{field}.{inner}"
        raise invalid_value(field, f"{field}: {what}.") from None


def _check_part(part: PartBody, field: str) -> None:
    needed = _NEEDS.get(part.type)
    if needed is not None and getattr(part, needed) is None:
        raise _required(f"{field}.{needed}")
    if part.file_id:
        raise kept(f"{field}.file_id")
    if part.type == "input_image" and not part.image_url:
        raise _required(f"{field}.image_url")
    if part.type == "input_file" and not (part.file_data or part.file_url):
        raise _required(f"{field}.file_data")


def _required(field: str) -> ApiError:
    return invalid_value(field, f"{field}: this field is required.")


def conversation(given: str | list[ItemBody], raw: Any, instructions: str) -> tuple[Message, ...]:
    """Canonical messages. `raw` is the input as plain objects. What an assistant did in a row is one message, and so
    are results of tools in a row, which know their tool's name. Raises ApiError for what only another API can take."""
    turns = _Turns()
    if instructions:
        turns.add("system", [Text(text=instructions)])
    if isinstance(given, str):
        turns.add("user", [Text(text=given)])
        return tuple(turns.messages)
    for index, item in enumerate(given):
        turns.item(item, raw[index], f"input[{index}]")
    return tuple(turns.messages)


class _Turns:
    def __init__(self) -> None:
        self.messages: list[Message] = []
        self._names: dict[str, str] = {}  # tools by the ids of their calls

    def add(self, role: Literal["system", "user", "assistant", "tool"], parts: list[Part]) -> None:
        last = self.messages[-1] if self.messages else None
        if last is not None and last.role == role and role in ("assistant", "tool"):
            self.messages[-1] = Message(role=role, parts=(*last.parts, *parts))
        else:
            self.messages.append(Message(role=role, parts=tuple(parts)))

    def item(self, item: ItemBody, raw: JSONObject, field: str) -> None:
        kind = item.kind
        if kind == "message":
            self._message(item, field)
        elif kind in ("function_call", "custom_tool_call"):
            self.add("assistant", [self._call(item)])
        elif kind in _OUTPUTS:
            self.add("tool", [self._result(item, field)])
        elif kind == "reasoning":
            self.add("assistant", [_thought(item)])
        elif kind == "image_generation_call" and isinstance(item.result, str):
            self.add("assistant", [Image(source=Media(mime="image/png", data=item.result))])
        elif kind in _LEFT_OUT:
            self.add("assistant", [Opaque(dialect=Dialect.RESPONSES, raw=raw)])
        else:
            raise _only_native(f"{field}.type", kind)

    def _message(self, item: ItemBody, field: str) -> None:
        content = item.content or ""
        parts: list[Part] = (
            [Text(text=content)]
            if isinstance(content, str)
            else [_part(part, f"{field}.content[{place}]") for place, part in enumerate(content)]
        )
        if item.role == "assistant":
            self.add("assistant", parts)
        else:
            self.add("user" if item.role == "user" else "system", parts)

    def _call(self, item: ItemBody) -> ToolCall:
        call_id, name = item.call_id or "", str(item.name)
        self._names[call_id] = name
        if item.kind == "custom_tool_call":
            arguments = msgspec.json.encode({"input": item.input}).decode()
        else:
            arguments = item.arguments or "{}"
        google = item.extra_content.get("google") if isinstance(item.extra_content, dict) else None
        signature = google.get("thought_signature") if isinstance(google, dict) else None
        signed = signature if isinstance(signature, str) else ""
        return ToolCall(id=call_id, name=name, arguments=arguments, signature=signed)

    def _result(self, item: ItemBody, field: str) -> ToolResult:
        call_id, output = item.call_id or "", item.output
        if isinstance(output, str):
            parts: tuple[Text | Image | Document | Opaque, ...] = (Text(text=output),)
        else:
            parts = tuple([_output_part(part, f"{field}.output[{place}]") for place, part in enumerate(output)])
        return ToolResult(call_id=call_id, parts=parts, name=self._names.get(call_id, ""))


def _thought(item: ItemBody) -> Part:
    told = [part.text or "" for part in item.summary or ()]
    if not told and isinstance(item.content, list):
        told = [part.text or "" for part in item.content]
    return thought_of("\n\n".join(told), item.encrypted_content or "", item.id or "")


def _output_part(part: PartBody, field: str) -> Text | Image | Document:
    """Sound has no place in the results of tools of other wire formats, nor has a refusal."""
    built = _part(part, field)
    if isinstance(built, Text | Image | Document):
        return built
    raise _only_native(f"{field}.type", part.type)


def _part(part: PartBody, field: str) -> Part:
    if part.type in ("input_text", "output_text", "text"):
        return Text(text=part.text or "")
    if part.type == "refusal":
        return Refusal(text=part.refusal or "")
    if part.type == "input_image":
        return Image(source=media_of(part.image_url or ""), detail=part.detail or "")
    if part.type == "input_file":
        return Document(source=_file(part), title=part.filename or "")
    if part.type == "input_audio" and part.input_audio is not None:
        audio = part.input_audio
        return Audio(source=Media(mime=f"audio/{audio.format}", data=audio.data), format=audio.format)
    raise _only_native(f"{field}.type", part.type)


def _file(part: PartBody) -> Media:
    if part.file_data:
        media = media_of(part.file_data)
        return Media(mime="application/pdf", data=part.file_data) if media.url else media
    return Media(url=part.file_url or "")


def _only_native(field: str, kind: str) -> ApiError:
    return invalid_value(
        field, f"{field}: {kind!r} can only be sent to a provider that speaks the Responses API; leave it out."
    )
