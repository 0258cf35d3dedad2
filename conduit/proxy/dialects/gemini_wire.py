"""Shapes of Gemini's requests. Google takes every name in camelCase and in snake_case; clients send the former.

`camel_body` gives the body in camelCase: the same bytes where no snake_case name is found, else a renamed copy.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

import msgspec

from conduit.proxy.dialects.json_body import decode
from conduit.proxy.errors import invalid_value

Count = Annotated[int, msgspec.Meta(ge=0)]
Cap = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]

# What applications own: names in there are theirs.
_FREE = frozenset(
    (
        "args",
        "response",
        "parameters",
        "parametersJsonSchema",
        "responseSchema",
        "responseJsonSchema",
        "labels",
    )
)
_ESCAPED_LETTER = re.compile(rb"\\u00[4-7]")  # which no encoder writes, but which may hide a name
_SNAKE_NAME = re.compile(rb'"[a-z]+(?:_[a-z]+)+"\s*:')
_object = msgspec.json.Decoder(dict[str, Any])
_UNDERSCORE = re.compile(r"_([a-z])")


class BlobWire(msgspec.Struct, rename="camel"):
    mime_type: str
    data: str


class FileWire(msgspec.Struct, rename="camel"):
    file_uri: str
    mime_type: str = ""


class CallWire(msgspec.Struct):
    name: str
    id: str | None = None
    args: dict[str, Any] | None = None


class ResultPartWire(msgspec.Struct, rename="camel"):
    inline_data: BlobWire | None = None
    file_data: FileWire | None = None


class ResultWire(msgspec.Struct):
    name: str
    response: dict[str, Any] | None = None
    id: str | None = None
    parts: list[ResultPartWire] | None = None


class PartWire(msgspec.Struct, rename="camel"):
    text: str | None = None
    thought: bool | None = None
    thought_signature: str | None = None
    inline_data: BlobWire | None = None
    file_data: FileWire | None = None
    function_call: CallWire | None = None
    function_response: ResultWire | None = None


class ContentWire(msgspec.Struct):
    parts: list[PartWire] | None = None
    role: str | None = None


class DeclarationWire(msgspec.Struct, rename="camel"):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    parameters_json_schema: dict[str, Any] | None = None


class ToolWire(msgspec.Struct, rename="camel"):
    function_declarations: list[DeclarationWire] | None = None


class CallingWire(msgspec.Struct, rename="camel"):
    mode: str | None = None
    allowed_function_names: list[str] | None = None


class ToolConfigWire(msgspec.Struct, rename="camel"):
    function_calling_config: CallingWire | None = None


class ThinkingWire(msgspec.Struct, rename="camel"):
    include_thoughts: bool | None = None
    thinking_budget: int | None = None
    thinking_level: str | None = None


class VoiceNameWire(msgspec.Struct, rename="camel"):
    voice_name: str | None = None


class VoiceWire(msgspec.Struct, rename="camel"):
    prebuilt_voice_config: VoiceNameWire | None = None


class SpeechWire(msgspec.Struct, rename="camel"):
    voice_config: VoiceWire | None = None


class ConfigWire(msgspec.Struct, rename="camel"):
    max_output_tokens: Cap | None = None
    candidate_count: Annotated[int, msgspec.Meta(ge=1, le=128)] | None = None
    stop_sequences: list[str] | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    top_k: Annotated[float, msgspec.Meta(ge=0)] | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    response_mime_type: str | None = None
    response_schema: dict[str, Any] | None = None
    response_json_schema: dict[str, Any] | None = None
    response_logprobs: bool | None = None
    logprobs: Count | None = None
    response_modalities: list[str] | None = None
    speech_config: SpeechWire | None = None
    thinking_config: ThinkingWire | None = None


class PromptWire(msgspec.Struct, rename="camel"):
    """What generateContent and countTokens have in common."""

    contents: Annotated[list[ContentWire], msgspec.Meta(min_length=1)]
    system_instruction: ContentWire | None = None
    tools: list[ToolWire] | None = None


class RequestWire(PromptWire, rename="camel", kw_only=True):
    tool_config: ToolConfigWire | None = None
    generation_config: ConfigWire | None = None


class CountWire(msgspec.Struct, rename="camel"):
    """countTokens: bare contents, or a whole request."""

    contents: list[ContentWire] | None = None
    generate_content_request: PromptWire | None = None


class EmbedWire(msgspec.Struct, rename="camel"):
    content: ContentWire
    task_type: str | None = None
    title: str | None = None
    output_dimensionality: Annotated[int, msgspec.Meta(ge=1)] | None = None


class BatchEmbedWire(msgspec.Struct):
    requests: Annotated[list[EmbedWire], msgspec.Meta(min_length=1)]


def camel_body(body: bytes) -> bytes:
    """Raises ApiError 400 when a name is given in both spellings: each side might believe another one."""
    if _SNAKE_NAME.search(body) is None and _ESCAPED_LETTER.search(body) is None:
        return body
    return msgspec.json.encode(_camel(decode(_object, body), ""))


def _camel(value: Any, field: str) -> Any:
    if isinstance(value, list):
        return [_camel(item, f"{field}[{at}]") for at, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    renamed: dict[str, Any] = {}
    for name, item in value.items():
        camel = _UNDERSCORE.sub(lambda found: found[1].upper(), name)
        where = f"{field}.{camel}" if field else camel
        if camel in renamed:
            raise invalid_value(where, f"{where}: this field is given more than once.")
        renamed[camel] = item if camel in _FREE else _camel(item, where)
    return renamed
