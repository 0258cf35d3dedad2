"""Gemini's request bodies as canonical requests."""

from __future__ import annotations

from typing import Any

import msgspec

from conduit.proxy.dialects.gemini_content import Conversation
from conduit.proxy.dialects.gemini_schema import json_schema
from conduit.proxy.dialects.gemini_wire import (
    CallingWire,
    ConfigWire,
    ContentWire,
    EmbedWire,
    PromptWire,
    RequestWire,
    ThinkingWire,
    ToolWire,
)
from conduit.proxy.errors import invalid_value
from providers.adapters.types import (
    AudioOutput,
    ChatRequest,
    Dialect,
    EmbeddingRequest,
    JSONObject,
    Message,
    ReasoningSettings,
    ResponseFormat,
    ServerTool,
    Tool,
    ToolChoice,
)

_object = msgspec.json.Decoder(dict[str, Any])
_KNOWN = frozenset(RequestWire.__struct_encode_fields__)
_KNOWN_CONFIG = frozenset(ConfigWire.__struct_encode_fields__)
_MODES = ("AUTO", "VALIDATED", "MODE_UNSPECIFIED")


def canonical(wire: RequestWire, body: bytes, *, model: str, stream: bool) -> ChatRequest:
    """`body` is the camelCase one. Raises ApiError 400 for what cannot be understood."""
    whole = _object.decode(body)
    config = wire.generation_config or ConfigWire()
    thinking = config.thinking_config
    return ChatRequest(
        model=model,
        messages=_messages(wire, whole),
        tools=_tools(wire.tools, whole),
        tool_choice=_tool_choice(wire.tool_config.function_calling_config if wire.tool_config else None),
        max_output_tokens=config.max_output_tokens,
        temperature=config.temperature,
        top_p=config.top_p,
        top_k=None if config.top_k is None else int(config.top_k),
        stop=tuple(config.stop_sequences or ()),
        n=config.candidate_count or 1,
        seed=config.seed,
        presence_penalty=config.presence_penalty,
        frequency_penalty=config.frequency_penalty,
        logprobs=config.response_logprobs,
        top_logprobs=config.logprobs,
        response_format=_format(config),
        reasoning=_reasoning(thinking) if thinking else None,
        modalities=tuple(modality.lower() for modality in config.response_modalities or ()),
        audio=_audio(config),
        stream=stream,
        extra=_extra(whole),
        extra_dialect=Dialect.GEMINI,
    )


def canonical_prompt(wire: PromptWire, raw: JSONObject, model: str) -> ChatRequest:
    """The part of a request whose tokens are counted; `raw` is the same as plain objects."""
    return ChatRequest(model=model, messages=_messages(wire, raw), tools=_tools(wire.tools, raw))


def canonical_embedding(requests: list[EmbedWire], model: str) -> EmbeddingRequest:
    """All texts of a batch share one task and size: the canonical request has one of each."""
    first = requests[0]
    for at, request in enumerate(requests):
        if (request.task_type, request.title, request.output_dimensionality) != (
            first.task_type,
            first.title,
            first.output_dimensionality,
        ):
            field = f"requests[{at}]"
            raise invalid_value(field, f"{field}: taskType, title and outputDimensionality must be equal in a batch.")
    return EmbeddingRequest(
        model=model,
        inputs=tuple(_text(request.content) for request in requests),
        dimensions=first.output_dimensionality,
        task=first.task_type or "",
        title=first.title or "",
    )


def _text(content: ContentWire) -> str:
    return "\n".join(part.text for part in content.parts or () if part.text)


def _messages(wire: PromptWire, whole: JSONObject) -> tuple[Message, ...]:
    conversation = Conversation()
    if wire.system_instruction is not None:
        conversation.add_system(wire.system_instruction)
    for at, content in enumerate(wire.contents):
        conversation.add(content, whole["contents"][at].get("parts") or [], f"contents[{at}]")
    return conversation.messages()


def _tools(wires: list[ToolWire] | None, whole: JSONObject) -> tuple[Tool | ServerTool, ...]:
    """An entry may declare functions, name tools of Google's own, or both."""
    tools: list[Tool | ServerTool] = []
    for wire, raw in zip(wires or (), whole.get("tools") or (), strict=True):
        for function in wire.function_declarations or ():
            parameters = function.parameters_json_schema
            if parameters is None:
                parameters = json_schema(function.parameters or {})
            tools.append(Tool(name=function.name, description=function.description or "", parameters=parameters))
        for name, settings in raw.items():
            if name != "functionDeclarations":
                tools.append(ServerTool(dialect=Dialect.GEMINI, raw={name: settings}))
    return tuple(tools)


def _tool_choice(wire: CallingWire | None) -> ToolChoice | None:
    if wire is None or wire.mode is None:
        return None
    mode, allowed = wire.mode.upper(), tuple(wire.allowed_function_names or ())
    if mode == "ANY":
        if len(allowed) == 1:
            return ToolChoice(mode="tool", name=allowed[0])
        return ToolChoice(mode="required", allowed=allowed)
    if mode == "NONE":
        return ToolChoice(mode="none")
    if mode in _MODES:
        return ToolChoice(mode="auto", allowed=allowed)
    field = "toolConfig.functionCallingConfig.mode"
    raise invalid_value(field, f"{field}: must be AUTO, ANY, NONE or VALIDATED.")


def _format(config: ConfigWire) -> ResponseFormat | None:
    if config.response_mime_type != "application/json":
        return None
    schema = config.response_json_schema
    if schema is None and config.response_schema is not None:
        schema = json_schema(config.response_schema)
    return ResponseFormat(kind="json") if schema is None else ResponseFormat(kind="json_schema", schema=schema)


def _reasoning(wire: ThinkingWire) -> ReasoningSettings:
    """A budget of 0 is none, one of -1 leaves it to the model."""
    budget = wire.thinking_budget
    return ReasoningSettings(
        effort=(wire.thinking_level or "").lower().removeprefix("thinking_level_"),
        budget_tokens=budget if budget is not None and budget > 0 else None,
        off=budget == 0,
        adaptive=budget is not None and budget < 0,
        show=wire.include_thoughts,
    )


def _audio(config: ConfigWire) -> AudioOutput | None:
    voice = config.speech_config.voice_config if config.speech_config else None
    name = voice.prebuilt_voice_config.voice_name if voice and voice.prebuilt_voice_config else None
    return AudioOutput(voice=name) if name else None


def _extra(whole: JSONObject) -> JSONObject:
    """Safety settings, cached content and the like; of generationConfig what has no canonical field."""
    extra = {name: value for name, value in whole.items() if name not in _KNOWN and name != "model"}
    config = whole.get("generationConfig") or {}
    rest = {name: value for name, value in config.items() if name not in _KNOWN_CONFIG}
    if config.get("responseMimeType") not in (None, "application/json", "text/plain"):
        rest["responseMimeType"] = config["responseMimeType"]
    if rest:
        extra["generationConfig"] = rest
    return extra
