"""POST /v1/messages read: the shapes that are checked at once, and the canonical request built when it is needed.

Types are checked in one pass over the whole body; what a block of a certain kind must hold is checked only when it is
translated, since a body that goes to Anthropic itself is checked there. Blocks of unknown kinds pass.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from conduit.proxy.dialects.anthropic_content import Conversation, cache_mark, parts_of_system
from conduit.proxy.dialects.anthropic_wire import BlockWire, CacheWire
from conduit.proxy.errors import invalid_value
from providers.adapters.types import (
    ChatRequest,
    Dialect,
    JSONObject,
    Message,
    ReasoningSettings,
    ResponseFormat,
    ServerTool,
    Tool,
    ToolChoice,
)

Count = Annotated[int, msgspec.Meta(ge=0)]
Cap = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]  # 0 fills the cache and writes nothing
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class MessageWire(msgspec.Struct):
    role: Literal["user", "assistant", "system"]
    content: str | list[BlockWire]


class ToolWire(msgspec.Struct):
    """A function of the client's, or (by `type`) a tool that Anthropic runs; `raw` fields stay in the body."""

    type: str | None = None
    name: str | None = None
    description: str | None = None
    input_schema: JSONObject | None = None
    strict: bool | None = None
    cache_control: CacheWire | None = None


class ToolChoiceWire(msgspec.Struct):
    type: Literal["auto", "any", "tool", "none"]
    name: str = ""
    disable_parallel_tool_use: bool | None = None


class ThinkingWire(msgspec.Struct):
    type: str
    budget_tokens: Count | None = None
    display: str | None = None


class FormatWire(msgspec.Struct):
    type: Literal["json_schema"]
    schema: JSONObject


class OutputWire(msgspec.Struct):
    effort: str | None = None
    format: FormatWire | None = None


class MetadataWire(msgspec.Struct):
    user_id: str | None = None


class CountWire(msgspec.Struct):
    """What /v1/messages and /v1/messages/count_tokens have in common."""

    model: Annotated[str, msgspec.Meta(min_length=1)]
    messages: Annotated[list[MessageWire], msgspec.Meta(min_length=1)]
    system: str | list[BlockWire] | None = None
    tools: list[ToolWire] | None = None
    tool_choice: ToolChoiceWire | None = None
    thinking: ThinkingWire | None = None
    output_config: OutputWire | None = None


class RequestWire(CountWire, kw_only=True):
    max_tokens: Cap
    stream: bool | None = None
    stop_sequences: list[str] | None = None
    temperature: Share | None = None
    top_p: Share | None = None
    top_k: Count | None = None
    metadata: MetadataWire | None = None
    service_tier: str | None = None


request_decoder = msgspec.json.Decoder(RequestWire)
count_decoder = msgspec.json.Decoder(CountWire)
_object = msgspec.json.Decoder(dict[str, Any])


def canonical(wire: RequestWire, body: bytes) -> ChatRequest:
    """Raises ApiError 400 for blocks that cannot be understood."""
    whole = _object.decode(body)
    return ChatRequest(
        model=wire.model,
        messages=_messages(wire),
        tools=_tools(wire.tools, whole.get("tools") or []),
        tool_choice=_tool_choice(wire.tool_choice),
        parallel_tools=_parallel(wire.tool_choice),
        max_output_tokens=wire.max_tokens,
        temperature=wire.temperature,
        top_p=wire.top_p,
        top_k=wire.top_k,
        stop=tuple(wire.stop_sequences or ()),
        response_format=_format(wire.output_config),
        reasoning=_reasoning(wire),
        user=(wire.metadata.user_id if wire.metadata else None) or "",
        service_tier=wire.service_tier or "",
        stream=bool(wire.stream),
        extra={name: value for name, value in whole.items() if name not in _KNOWN and value is not None},
        extra_dialect=Dialect.ANTHROPIC,
    )


def canonical_prompt(wire: CountWire, body: bytes) -> ChatRequest:
    """The part of a request whose tokens are counted."""
    whole = _object.decode(body)
    tools = _tools(wire.tools, whole.get("tools") or [])
    return ChatRequest(model=wire.model, messages=_messages(wire), tools=tools)


_KNOWN = frozenset(RequestWire.__struct_fields__)


def _messages(wire: CountWire) -> tuple[Message, ...]:
    conversation = Conversation()
    if wire.system:
        conversation.add(Message(role="system", parts=parts_of_system(wire.system, "system")))
    for at, message in enumerate(wire.messages):
        conversation.add_turn(message.role, message.content, f"messages[{at}].content")
    return conversation.messages()


def _tools(wires: list[ToolWire] | None, raws: list[JSONObject]) -> tuple[Tool | ServerTool, ...]:
    tools: list[Tool | ServerTool] = []
    for at, (wire, raw) in enumerate(zip(wires or (), raws, strict=True)):
        if wire.type not in (None, "custom"):
            tools.append(ServerTool(dialect=Dialect.ANTHROPIC, raw=raw))
            continue
        if not wire.name:
            raise invalid_value(f"tools[{at}].name", f"tools[{at}].name: this field is required.")
        if wire.input_schema is None:
            raise invalid_value(f"tools[{at}].input_schema", f"tools[{at}].input_schema: this field is required.")
        tools.append(
            Tool(
                name=wire.name,
                description=wire.description or "",
                parameters=wire.input_schema,
                strict=wire.strict,
                cache=cache_mark(wire.cache_control),
            )
        )
    return tuple(tools)


def _tool_choice(wire: ToolChoiceWire | None) -> ToolChoice | None:
    if wire is None:
        return None
    if wire.type == "tool":
        if not wire.name:
            raise invalid_value("tool_choice.name", "tool_choice.name: this field is required.")
        return ToolChoice(mode="tool", name=wire.name)
    return ToolChoice(mode="required" if wire.type == "any" else wire.type)


def _parallel(wire: ToolChoiceWire | None) -> bool | None:
    if wire is None or wire.disable_parallel_tool_use is None:
        return None
    return not wire.disable_parallel_tool_use


def _format(wire: OutputWire | None) -> ResponseFormat | None:
    if wire is None or wire.format is None:
        return None
    return ResponseFormat(kind="json_schema", schema=wire.format.schema, strict=True)


def _reasoning(wire: RequestWire) -> ReasoningSettings | None:
    thinking = wire.thinking
    effort = (wire.output_config.effort if wire.output_config else None) or ""
    if thinking is None:
        return ReasoningSettings(effort=effort) if effort else None
    if thinking.type == "disabled":
        return ReasoningSettings(effort=effort, off=True)
    return ReasoningSettings(
        effort=effort,
        budget_tokens=thinking.budget_tokens if thinking.type == "enabled" else None,
        adaptive=thinking.type != "enabled",
        show=None if thinking.display is None else thinking.display != "omitted",
    )
