"""`POST /v1/chat/completions`: the request's fields with their types, and the canonical request made of them.

Members that this dialect's types do not name go into `extra`, so that they reach a provider of the same wire format.
Accepted beyond OpenAI's own: `top_k`, `reasoning` (OpenRouter), `cache_control` on messages, parts and tools, and the
names by which other servers take the output cap. Of several caps the smallest holds.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from conduit.proxy.dialects.base import Inbound
from conduit.proxy.dialects.json_body import decode
from conduit.proxy.dialects.openai_messages import CacheControl, MessageBody, cache_mark, check_messages, conversation
from conduit.proxy.errors import invalid_value
from providers.adapters.base import Head
from providers.adapters.openai_wire_request import CAP_FIELDS
from providers.adapters.types import (
    AudioOutput,
    ChatRequest,
    Dialect,
    Endpoint,
    JSONObject,
    ReasoningSettings,
    ResponseFormat,
    ServerTool,
    Tool,
    ToolChoice,
)

Cap = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Name = Annotated[str, Meta(min_length=1, max_length=256)]


class FunctionBody(msgspec.Struct):
    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolBody(msgspec.Struct):
    type: str
    function: FunctionBody | None = None
    cache_control: CacheControl | None = None


class NamedBody(msgspec.Struct):
    name: Name


class AllowedToolBody(msgspec.Struct):
    function: NamedBody | None = None


class AllowedBody(msgspec.Struct):
    mode: str
    tools: list[AllowedToolBody]


class ToolChoiceBody(msgspec.Struct):
    type: str
    function: NamedBody | None = None
    allowed_tools: AllowedBody | None = None


class SchemaBody(msgspec.Struct):
    name: str = "answer"
    schema: dict[str, Any] | None = None
    strict: bool | None = None
    description: str | None = None


class ResponseFormatBody(msgspec.Struct):
    type: str
    json_schema: SchemaBody | None = None


class StreamOptionsBody(msgspec.Struct):
    include_usage: bool | None = None


class AudioBody(msgspec.Struct):
    voice: str | dict[str, Any] = ""
    format: str = "wav"


class ReasoningBody(msgspec.Struct):
    effort: str | None = None
    max_tokens: int | None = None
    enabled: bool | None = None
    exclude: bool | None = None


class ChatBody(msgspec.Struct):
    model: Name
    messages: Annotated[list[MessageBody], Meta(min_length=1)]
    audio: AudioBody | None = None
    frequency_penalty: float | None = None
    function_call: str | NamedBody | None = None
    functions: list[FunctionBody] | None = None
    logit_bias: dict[str, float] | None = None
    logprobs: bool | None = None
    max_completion_tokens: Cap | None = None
    max_new_tokens: Cap | None = None
    max_output_tokens: Cap | None = None
    max_tokens: Cap | None = None
    metadata: dict[str, str] | None = None
    modalities: list[str] | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    n_predict: Cap | None = None
    num_predict: Cap | None = None
    parallel_tool_calls: bool | None = None
    presence_penalty: float | None = None
    reasoning: ReasoningBody | None = None
    reasoning_effort: str | None = None
    response_format: ResponseFormatBody | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    service_tier: str | None = None
    stop: str | list[str] | None = None
    store: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptionsBody | None = None
    temperature: float | None = None
    tool_choice: str | ToolChoiceBody | None = None
    tools: list[ToolBody] | None = None
    top_k: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=1000)] | None = None
    top_p: float | None = None
    user: str | None = None
    verbosity: str | None = None


_decoder = msgspec.json.Decoder(ChatBody)
_object = msgspec.json.Decoder(dict[str, Any])
_KNOWN = frozenset(ChatBody.__struct_fields__)
_caps = attrgetter(*CAP_FIELDS)


def parse_chat(body: bytes) -> Inbound:
    chat = decode(_decoder, body)
    check_messages(chat.messages)
    _check_tools(chat)
    caps = [cap for cap in _caps(chat) if cap is not None]
    head = Head(
        endpoint=Endpoint.CHAT,
        model=chat.model,
        stream=bool(chat.stream),
        include_usage=bool(chat.stream_options and chat.stream_options.include_usage),
        max_output_tokens=min(caps, default=None),
        n=chat.n or 1,
        user=chat.user or "",
    )
    return Inbound(
        dialect=Dialect.OPENAI, head=head, body=body, canonical=lambda: _canonical(chat, head, decode(_object, body))
    )


def _check_tools(chat: ChatBody) -> None:
    for index, tool in enumerate(chat.tools or ()):
        if tool.type == "function" and tool.function is None:
            field = f"tools[{index}].function"
            raise invalid_value(field, f"{field}: this field is required.")
    choice = chat.tool_choice
    if isinstance(choice, str) and choice not in ("none", "auto", "required"):
        raise invalid_value("tool_choice", "tool_choice: must be none, auto, required or an object.")
    if isinstance(choice, ToolChoiceBody):
        for kind, given in (("function", choice.function), ("allowed_tools", choice.allowed_tools)):
            if choice.type == kind and given is None:
                raise invalid_value(f"tool_choice.{kind}", f"tool_choice.{kind}: this field is required.")
    wanted = chat.response_format
    if wanted is not None and wanted.type == "json_schema" and wanted.json_schema is None:
        field = "response_format.json_schema"
        raise invalid_value(field, f"{field}: this field is required.")


def _canonical(chat: ChatBody, head: Head, raw: JSONObject) -> ChatRequest:
    """`raw` is the whole body: what has no type here is taken from it."""
    extra = {name: value for name, value in raw.items() if name not in _KNOWN}
    tools, server_choice = _tools(chat, raw), _tool_choice(chat)
    if chat.tool_choice is not None and server_choice is None:
        extra["tool_choice"] = raw["tool_choice"]  # names a tool of OpenAI's own kind
    return ChatRequest(
        model=chat.model,
        messages=conversation(chat.messages),
        tools=tools,
        tool_choice=server_choice,
        parallel_tools=chat.parallel_tool_calls,
        max_output_tokens=head.max_output_tokens,
        temperature=chat.temperature,
        top_p=chat.top_p,
        top_k=chat.top_k,
        stop=(chat.stop,) if isinstance(chat.stop, str) else tuple(chat.stop or ()),
        n=head.n,
        seed=chat.seed,
        presence_penalty=chat.presence_penalty,
        frequency_penalty=chat.frequency_penalty,
        logit_bias=chat.logit_bias,
        logprobs=chat.logprobs,
        top_logprobs=chat.top_logprobs,
        response_format=_response_format(chat.response_format),
        reasoning=_reasoning(chat),
        verbosity=chat.verbosity or "",
        modalities=tuple(chat.modalities or ()),
        audio=_audio(chat.audio),
        user=head.user,
        metadata=chat.metadata,
        service_tier=chat.service_tier or "",
        store=chat.store,
        stream=head.stream,
        extra=extra,
        extra_dialect=Dialect.OPENAI,
    )


def _audio(audio: AudioBody | None) -> AudioOutput | None:
    if audio is None:
        return None
    voice = audio.voice if isinstance(audio.voice, str) else str(audio.voice.get("id", ""))
    return AudioOutput(voice=voice, format=audio.format)


def _tools(chat: ChatBody, raw: JSONObject) -> tuple[Tool | ServerTool, ...]:
    tools: list[Tool | ServerTool] = [_tool(function, None) for function in chat.functions or ()]
    for index, tool in enumerate(chat.tools or ()):
        if tool.type == "function" and tool.function is not None:
            tools.append(_tool(tool.function, tool.cache_control))
        else:
            tools.append(ServerTool(dialect=Dialect.OPENAI, raw=raw["tools"][index]))
    return tuple(tools)


def _tool(function: FunctionBody, cache: CacheControl | None) -> Tool:
    return Tool(
        name=function.name,
        description=function.description or "",
        parameters=function.parameters or {},
        strict=function.strict,
        cache=cache_mark(cache),
    )


def _tool_choice(chat: ChatBody) -> ToolChoice | None:
    choice: object = chat.tool_choice if chat.tool_choice is not None else chat.function_call
    if isinstance(choice, NamedBody):
        return ToolChoice(mode="tool", name=choice.name)
    if isinstance(choice, ToolChoiceBody):
        if choice.function is not None:
            return ToolChoice(mode="tool", name=choice.function.name)
        if choice.allowed_tools is not None:
            names = [tool.function.name for tool in choice.allowed_tools.tools if tool.function is not None]
            return ToolChoice(
                mode="required" if choice.allowed_tools.mode == "required" else "auto", allowed=tuple(names)
            )
        return None
    if choice == "none":
        return ToolChoice(mode="none")
    if choice == "required":
        return ToolChoice(mode="required")
    return ToolChoice(mode="auto") if choice == "auto" else None


def _response_format(wanted: ResponseFormatBody | None) -> ResponseFormat | None:
    if wanted is None or wanted.type == "text":
        return None
    if wanted.json_schema is None:
        return ResponseFormat(kind="json")
    schema = wanted.json_schema
    return ResponseFormat(
        kind="json_schema",
        name=schema.name,
        schema=schema.schema or {},
        strict=schema.strict,
        description=schema.description or "",
    )


def _reasoning(chat: ChatBody) -> ReasoningSettings | None:
    wanted = chat.reasoning
    if chat.reasoning_effort:
        return ReasoningSettings(effort=chat.reasoning_effort, off=chat.reasoning_effort == "none")
    if wanted is None:
        return None
    return ReasoningSettings(
        effort=wanted.effort or "",
        budget_tokens=wanted.max_tokens,
        off=wanted.enabled is False or wanted.effort == "none",
        adaptive=wanted.enabled is True and not wanted.effort and wanted.max_tokens is None,
        show=None if wanted.exclude is None else not wanted.exclude,
    )
