"""Canonical requests to the body of OpenAI's Responses API.

Reference: the `openai` package's ResponseCreateParams. Nothing is left with the vendor (`store` is false), so thoughts
go back encrypted and without ids; one that is not encrypted cannot go back.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

from providers.adapters.openai_responses_input import InputList
from providers.adapters.openai_wire_request import EFFORTS, SERVICE_TIERS
from providers.adapters.types import (
    ChatRequest,
    Dialect,
    JSONObject,
    ReasoningSettings,
    ResponseFormat,
    ServerTool,
    Tool,
    ToolChoice,
)
from providers.errors import CannotCarry

# Members that both of OpenAI's APIs know under the same name.
_SHARED = frozenset({"prompt_cache_key", "prompt_cache_retention", "safety_identifier"})
_NEVER_EXTRA = frozenset(
    {"model", "input", "stream", "store", "max_output_tokens", "previous_response_id", "background"}
)
# Models that think; the others refuse to be asked for it.
_THINKING = ("o1*", "o3*", "o4*", "gpt-5*", "*codex*", "*deep-research*", "computer-use-*")
_NOT_THINKING = ("gpt-5-chat*", "gpt-5.*-chat*")


class ResponsesBody:
    """Builds one body; `dropped` names what could not be carried."""

    def __init__(self) -> None:
        self.dropped: list[str] = []

    def build(self, request: ChatRequest, model: str) -> JSONObject:
        """Everything but the output cap, which the adapter writes. Raises CannotCarry for several choices."""
        if request.n != 1:
            raise CannotCarry("n", "the Responses API gives one choice only")
        custom = frozenset(_custom_name(tool) for tool in request.tools if _is_custom(tool))
        body: JSONObject = {
            "model": model,
            "input": InputList(self._drop, custom=custom).build(request.messages),
            "store": False,
        }
        thinks = _matches(model, _THINKING) and not _matches(model, _NOT_THINKING)
        included = ["reasoning.encrypted_content"] if thinks else []
        self._tools(request, body)
        self._sampling(request, body, included)
        self._text(request, body)
        if request.reasoning is not None:
            self._reasoning(request.reasoning, body)
        self._rest(request, body)
        if included:
            body["include"] = included
        return body

    def _drop(self, name: str) -> None:
        if name not in self.dropped:
            self.dropped.append(name)

    def _sampling(self, request: ChatRequest, body: JSONObject, included: list[str]) -> None:
        for name in ("temperature", "top_p"):
            if (value := getattr(request, name)) is not None:
                body[name] = value
        for name in ("top_k", "seed", "presence_penalty", "frequency_penalty", "logit_bias", "audio"):
            if getattr(request, name) is not None:
                self._drop(name)
        if request.stop:
            self._drop("stop")
        if any(name != "text" for name in request.modalities):
            self._drop("modalities")
        if request.logprobs:
            included.append("message.output_text.logprobs")
            body["top_logprobs"] = request.top_logprobs or 0

    def _text(self, request: ChatRequest, body: JSONObject) -> None:
        text: JSONObject = {}
        if request.response_format is not None:
            text["format"] = _format(request.response_format)
        if request.verbosity:
            text["verbosity"] = request.verbosity
        if text:
            body["text"] = text

    def _reasoning(self, wanted: ReasoningSettings, body: JSONObject) -> None:
        reasoning: JSONObject = {}
        if wanted.effort:
            reasoning["effort"] = wanted.effort
        elif wanted.budget_tokens is not None:
            budget = wanted.budget_tokens
            reasoning["effort"] = next((word for most, word in EFFORTS if budget <= most), "high")
        elif wanted.off:
            self._drop("reasoning.off")  # only some models know "none"; the others would refuse the request
        if wanted.show:
            reasoning["summary"] = "auto"
        if reasoning:
            body["reasoning"] = reasoning

    def _rest(self, request: ChatRequest, body: JSONObject) -> None:
        if request.user:
            body["user"] = request.user
        if request.metadata is not None:
            body["metadata"] = request.metadata
        if request.service_tier in SERVICE_TIERS:
            body["service_tier"] = request.service_tier
        elif request.service_tier:
            self._drop("service_tier")
        if request.store:
            self._drop("store")
        if request.stream:
            body["stream"] = True
        for name, value in request.extra.items():
            shared = request.extra_dialect is Dialect.OPENAI and name in _SHARED
            if not shared and request.extra_dialect is not Dialect.RESPONSES:
                self._drop(name)
            elif name not in body and name not in _NEVER_EXTRA and "[" not in name:
                body[name] = value

    def _tools(self, request: ChatRequest, body: JSONObject) -> None:
        tools: list[JSONObject] = []
        for tool in request.tools:
            if isinstance(tool, Tool):
                tools.append(_function(tool))
            elif tool.dialect is Dialect.RESPONSES:
                tools.append(tool.raw)
            elif _is_custom(tool):
                tools.append({"type": "custom", **tool.raw["custom"]})
            else:
                self._drop(f"tools.{_tool_type(tool)}")
        if not tools:
            return
        body["tools"] = tools
        if request.tool_choice is not None:
            body["tool_choice"] = _tool_choice(request.tool_choice)
        if request.parallel_tools is not None:
            body["parallel_tool_calls"] = request.parallel_tools


def _matches(model: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(model, pattern) for pattern in patterns)


def _function(tool: Tool) -> JSONObject:
    """`strict` is always said: left out, this API takes it for true and chat completions for false."""
    wire: JSONObject = {
        "type": "function",
        "name": tool.name,
        "parameters": tool.parameters or {"type": "object", "properties": {}},
        "strict": bool(tool.strict),
    }
    if tool.description:
        wire["description"] = tool.description
    return wire


def _is_custom(tool: Tool | ServerTool) -> bool:
    """A free-text tool, as chat completions write it."""
    return isinstance(tool, ServerTool) and tool.dialect is Dialect.OPENAI and isinstance(tool.raw.get("custom"), dict)


def _custom_name(tool: Tool | ServerTool) -> str:
    return str(tool.raw["custom"].get("name")) if isinstance(tool, ServerTool) else tool.name


def _tool_type(tool: ServerTool) -> str:
    kind = tool.raw.get("type")
    return kind if isinstance(kind, str) else next(iter(tool.raw), "server")


def _tool_choice(choice: ToolChoice) -> str | JSONObject:
    if choice.mode == "tool":
        return {"type": "function", "name": choice.name}
    if choice.allowed and choice.mode != "none":
        tools = [{"type": "function", "name": name} for name in choice.allowed]
        return {"type": "allowed_tools", "mode": choice.mode, "tools": tools}
    return choice.mode


def _format(wanted: ResponseFormat) -> JSONObject:
    if wanted.kind != "json_schema":
        return {"type": "json_object" if wanted.kind == "json" else "text"}
    wire: JSONObject = {"type": "json_schema", "name": wanted.name, "schema": wanted.schema}
    if wanted.strict is not None:
        wire["strict"] = wanted.strict
    if wanted.description:
        wire["description"] = wanted.description
    return wire
