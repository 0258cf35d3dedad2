"""`POST /v1/responses`: the request's fields with their types, and the canonical request made of them.

Nothing in a request may point at what a vendor keeps for its account, which several of our callers share: ids of
earlier responses, conversations and items are refused here (whoever keeps answers puts the items in their place first),
and so are those of files, vector stores, containers and prompt templates.
Members that this dialect's types do not name go into `extra`, so that they reach a provider of the same wire format.
A custom tool (free text) is a function with one argument `input` for every other provider.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from conduit.proxy.dialects.base import Inbound
from conduit.proxy.dialects.json_body import decode
from conduit.proxy.dialects.openai_chat import Cap, Name, StreamOptionsBody
from conduit.proxy.dialects.responses_input import ItemBody, check_items, check_kept, conversation, kept
from conduit.proxy.errors import invalid_value
from providers.adapters.base import Head
from providers.adapters.types import (
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

LOGPROBS = "message.output_text.logprobs"
_ENCRYPTED = "reasoning.encrypted_content"  # is always told
_FREE_TEXT = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}


class ToolBody(msgspec.Struct):
    type: str
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    format: Any = None
    vector_store_ids: Any = None
    container: Any = None
    environment: Any = None
    input_image_mask: Any = None


class AllowedToolBody(msgspec.Struct):
    type: str = "function"
    name: str | None = None


class ToolChoiceBody(msgspec.Struct):
    type: str
    name: str | None = None
    mode: str | None = None
    tools: list[AllowedToolBody] | None = None


class FormatBody(msgspec.Struct):
    type: str = "text"
    name: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None
    description: str | None = None


class TextBody(msgspec.Struct):
    format: FormatBody | None = None
    verbosity: str | None = None


class ReasoningBody(msgspec.Struct):
    effort: str | None = None
    summary: str | None = None
    generate_summary: str | None = None


class ResponsesBody(msgspec.Struct):
    model: Name
    input: str | list[ItemBody] | None = None
    background: bool | None = None
    conversation: Any = None
    include: list[str] | None = None
    instructions: str | None = None
    max_output_tokens: Cap | None = None
    metadata: dict[str, str] | None = None
    parallel_tool_calls: bool | None = None
    previous_response_id: str | None = None
    prompt: dict[str, Any] | None = None
    reasoning: ReasoningBody | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    store: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptionsBody | None = None
    temperature: float | None = None
    text: TextBody | None = None
    tool_choice: str | ToolChoiceBody | None = None
    tools: list[ToolBody] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=1000)] | None = None
    top_p: float | None = None
    truncation: str | None = None
    user: str | None = None


_decoder = msgspec.json.Decoder(ResponsesBody)
_object = msgspec.json.Decoder(dict[str, Any])
_KNOWN = frozenset(ResponsesBody.__struct_fields__)


def parse_responses(body: bytes) -> Inbound:
    asked = decode(_decoder, body)
    _check_kept(asked)
    if not asked.input and asked.input != "":
        raise invalid_value("input", "input: this field is required.")
    if isinstance(asked.input, list):
        check_items(asked.input)
    _check_tools(asked)
    head = Head(
        endpoint=Endpoint.RESPONSES,
        model=asked.model,
        stream=bool(asked.stream),
        include_usage=True,
        max_output_tokens=asked.max_output_tokens,
        user=asked.user or asked.safety_identifier or "",
    )
    return Inbound(
        dialect=Dialect.RESPONSES,
        head=head,
        body=body,
        canonical=lambda: _canonical(asked, head, decode(_object, body)),
    )


def custom_tools(raw: JSONObject) -> frozenset[str]:
    """Names of the tools whose calls are told as free text."""
    return frozenset(
        str(tool.get("name")) for tool in raw.get("tools") or () if isinstance(tool, dict) and tool["type"] == "custom"
    )


def _check_kept(asked: ResponsesBody) -> None:
    if asked.previous_response_id:
        raise invalid_value(
            "previous_response_id",
            "previous_response_id: no such response is kept here; send the earlier items in input.",
        )
    if asked.conversation is not None:
        raise invalid_value("conversation", "conversation: none is kept here; send the earlier items in input.")
    if asked.background:
        raise invalid_value("background", "background: answers are not made in the background here; leave it out.")
    if asked.prompt is not None:
        raise invalid_value("prompt", "prompt: templates are the provider account's own; send the text in input.")


def _check_tools(asked: ResponsesBody) -> None:
    for index, tool in enumerate(asked.tools or ()):
        _check_tool(tool, f"tools[{index}]")
    choice = asked.tool_choice
    if isinstance(choice, str) and choice not in ("none", "auto", "required"):
        raise invalid_value("tool_choice", "tool_choice: must be none, auto, required or an object.")
    if isinstance(choice, ToolChoiceBody):
        if choice.type in ("function", "custom") and not choice.name:
            raise _required("tool_choice.name")
        if choice.type == "allowed_tools" and choice.tools is None:
            raise _required("tool_choice.tools")
    wanted = asked.text.format if asked.text else None
    if wanted is not None and wanted.type == "json_schema":
        for name in ("name", "schema"):
            if getattr(wanted, name) is None:
                raise _required(f"text.format.{name}")


def _check_tool(tool: ToolBody, field: str) -> None:
    if tool.type in ("function", "custom"):
        if not tool.name:
            raise _required(f"{field}.name")
        return
    if tool.vector_store_ids:
        raise kept(f"{field}.vector_store_ids")
    if isinstance(tool.container, str):
        raise kept(f"{field}.container")
    for name in ("container", "environment", "input_image_mask"):
        check_kept(getattr(tool, name), f"{field}.{name}")


def _required(field: str) -> Exception:
    return invalid_value(field, f"{field}: this field is required.")


def _canonical(asked: ResponsesBody, head: Head, raw: JSONObject) -> ChatRequest:
    """`raw` is the whole body: what has no type here is taken from it."""
    extra = {name: value for name, value in raw.items() if name not in _KNOWN}
    choice = _tool_choice(asked)
    if asked.tool_choice is not None and choice is None:
        extra["tool_choice"] = raw["tool_choice"]  # names a tool that the provider runs
    included = [name for name in asked.include or () if name not in (LOGPROBS, _ENCRYPTED)]
    if included:
        extra["include"] = included
    if asked.truncation not in (None, "disabled"):
        extra["truncation"] = asked.truncation
    return ChatRequest(
        model=asked.model,
        messages=conversation(asked.input or "", raw.get("input"), asked.instructions or ""),
        tools=_tools(asked, raw, extra),
        tool_choice=choice,
        parallel_tools=asked.parallel_tool_calls,
        max_output_tokens=head.max_output_tokens,
        temperature=asked.temperature,
        top_p=asked.top_p,
        logprobs=True if LOGPROBS in (asked.include or ()) or asked.top_logprobs else None,
        top_logprobs=asked.top_logprobs,
        response_format=_response_format(asked.text),
        reasoning=_reasoning(asked.reasoning),
        verbosity=(asked.text.verbosity or "") if asked.text else "",
        user=head.user,
        service_tier=asked.service_tier or "",
        stream=head.stream,
        extra=extra,
        extra_dialect=Dialect.RESPONSES,
    )


def _tools(asked: ResponsesBody, raw: JSONObject, extra: JSONObject) -> tuple[Tool | ServerTool, ...]:
    """A grammar for a tool's free text has no counterpart: it is noted in `extra`, whose names are told as dropped."""
    tools: list[Tool | ServerTool] = []
    for index, tool in enumerate(asked.tools or ()):
        name, description = tool.name or "", tool.description or ""
        if tool.type == "function":
            tools.append(Tool(name=name, description=description, parameters=tool.parameters or {}, strict=tool.strict))
        elif tool.type == "custom":
            tools.append(Tool(name=name, description=description, parameters=_FREE_TEXT))
            if isinstance(tool.format, dict) and tool.format.get("type") == "grammar":
                extra[f"tools[{index}].format"] = tool.format
        else:
            tools.append(ServerTool(dialect=Dialect.RESPONSES, raw=raw["tools"][index]))
    return tuple(tools)


def _tool_choice(asked: ResponsesBody) -> ToolChoice | None:
    choice = asked.tool_choice
    if isinstance(choice, ToolChoiceBody):
        if choice.type in ("function", "custom"):
            return ToolChoice(mode="tool", name=choice.name or "")
        if choice.type == "allowed_tools":
            names = [tool.name for tool in choice.tools or () if tool.name]
            return ToolChoice(mode="required" if choice.mode == "required" else "auto", allowed=tuple(names))
        return None
    if choice == "none":
        return ToolChoice(mode="none")
    if choice == "required":
        return ToolChoice(mode="required")
    return ToolChoice(mode="auto") if choice == "auto" else None


def _response_format(text: TextBody | None) -> ResponseFormat | None:
    wanted = text.format if text else None
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type != "json_schema":
        return ResponseFormat(kind="json")
    return ResponseFormat(
        kind="json_schema",
        name=wanted.name or "answer",
        schema=wanted.schema or {},
        strict=wanted.strict,
        description=wanted.description or "",
    )


def _reasoning(wanted: ReasoningBody | None) -> ReasoningSettings | None:
    if wanted is None:
        return None
    shown = True if wanted.summary or wanted.generate_summary else None
    if not wanted.effort and shown is None:
        return None
    return ReasoningSettings(effort=wanted.effort or "", off=wanted.effort == "none", show=shown)
