"""A canonical request as the body of POST /v1/messages. What that format lacks is named in `dropped`.

The current API's shapes are those of `anthropic.types.message_create_params`: structured output and effort live in
`output_config`; sampling parameters are narrower while the model thinks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from providers.adapters.anthropic_content import blocks_of, cache_control, system_blocks
from providers.adapters.thinking import budget_below
from providers.adapters.types import ChatRequest, Dialect, JSONObject, Message, Tool, ToolChoice

DEFAULT_MAX_TOKENS = 4096  # the API requires a cap; this one holds when neither the caller nor a limit set one
SMALLEST_BUDGET = 1024  # tokens of thinking, by the API's own rule
# For models that think by budget only (option `reasoning: "budget"`); adaptive ones take the word itself.
EFFORT_BUDGETS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16384, "xhigh": 32768, "max": 32768}
_EFFORTS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh", "max": "max"}
_TIERS = {"auto": "auto", "default": "standard_only", "standard_only": "standard_only"}
_NOT_CARRIED = (
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "top_logprobs",
    "audio",
    "metadata",
    "store",
)


class MessageBody:
    """Builds one body; `dropped` fills up while it does. `options` are the provider's (see AnthropicAdapter)."""

    def __init__(self, request: ChatRequest, cap: int | None, options: Mapping[str, Any]) -> None:
        self._request = request
        self._options = options
        self._cap = next((n for n in (cap, request.max_output_tokens) if n is not None), DEFAULT_MAX_TOKENS)
        self.dropped: list[str] = []

    def build(self, model: str) -> JSONObject:
        request = self._request
        body: JSONObject = {"model": model, "max_tokens": self._cap}
        if system := system_blocks(request.messages, self.dropped):
            body["system"] = system
        body["messages"] = self._messages(request.messages)
        self._add_tools(body)
        self._add_reasoning(body)
        self._add_format(body)
        self._add_sampling(body)
        if request.stop:
            body["stop_sequences"] = list(request.stop)
        if request.user:
            body["metadata"] = {"user_id": request.user}
        self._add_tier(body)
        if request.stream:
            body["stream"] = True
        self._add_extra(body)
        self._name_the_rest()
        return body

    def _messages(self, messages: tuple[Message, ...]) -> list[JSONObject]:
        """Alternating turns: neighbours of one role become one; tool results are the user's."""
        turns: list[JSONObject] = []
        for message in messages:
            if message.role == "system":
                continue
            if message.name:
                self._drop("messages.name")
            role = "assistant" if message.role == "assistant" else "user"
            blocks = blocks_of(message.parts, self.dropped)
            if not blocks:  # the API refuses empty turns
                continue
            if turns and turns[-1]["role"] == role:
                turns[-1]["content"] += blocks
            else:
                turns.append({"role": role, "content": blocks})
        return turns

    def _add_tools(self, body: JSONObject) -> None:
        request, tools = self._request, list[JSONObject]()
        choice = request.tool_choice
        for tool in request.tools:
            if isinstance(tool, Tool):
                # The format cannot restrict a choice to some tools, so the others are not offered at all.
                if not (choice and choice.allowed) or tool.name in choice.allowed:
                    tools.append(_tool(tool))
            elif tool.dialect is Dialect.ANTHROPIC:
                tools.append(tool.raw)
            else:
                self._drop("tools")
        if not tools:
            return
        body["tools"] = tools
        chosen: JSONObject = _tool_choice(choice) if choice else {"type": "auto"}
        if request.parallel_tools is False and chosen["type"] != "none":
            chosen["disable_parallel_tool_use"] = True
        if choice or len(chosen) > 1:
            body["tool_choice"] = chosen

    def _add_reasoning(self, body: JSONObject) -> None:
        settings = self._request.reasoning
        if settings is None:
            return
        if settings.off or settings.effort == "none":
            body["thinking"] = {"type": "disabled"}
            return
        thinking: JSONObject | None = None
        budget = settings.budget_tokens
        if budget is None and self._options.get("reasoning") == "budget":
            budget = EFFORT_BUDGETS.get(settings.effort)
        elif settings.effort in _EFFORTS:
            body.setdefault("output_config", {})["effort"] = _EFFORTS[settings.effort]
        if budget is not None:
            thinking = self._budget(budget)
        elif settings.adaptive or settings.effort:
            thinking = {"type": "adaptive"}
        if thinking is not None:
            if settings.show is not None:
                thinking["display"] = "summarized" if settings.show else "omitted"
            body["thinking"] = thinking

    def _budget(self, budget: int) -> JSONObject | None:
        """The budget must lie between the API's smallest one and the output cap."""
        fitting = budget_below(self._cap, max(budget, SMALLEST_BUDGET), least=SMALLEST_BUDGET)
        if fitting is None:
            self._drop("reasoning")
            return None
        return {"type": "enabled", "budget_tokens": fitting}

    def _add_format(self, body: JSONObject) -> None:
        wanted = self._request.response_format
        if wanted is None or wanted.kind == "text":
            return
        if wanted.kind == "json":
            self._drop("response_format")
            return
        body.setdefault("output_config", {})["format"] = {"type": "json_schema", "schema": wanted.schema}

    def _add_sampling(self, body: JSONObject) -> None:
        request = self._request
        thinks = body.get("thinking", {}).get("type") in ("enabled", "adaptive")
        # While it thinks, a model takes its default temperature, no top_k, and top_p from 0.95 up.
        lowest = 0.95 if thinks else 0.0
        temperature_fits = request.temperature == 1 if thinks else 0 <= (request.temperature or 0) <= 1
        self._add_number(body, "temperature", request.temperature, fits=temperature_fits)
        self._add_number(body, "top_p", request.top_p, fits=lowest <= (request.top_p or 0) <= 1)
        self._add_number(body, "top_k", request.top_k, fits=not thinks and (request.top_k or 0) >= 0)

    def _add_number(self, body: JSONObject, name: str, value: float | None, *, fits: bool) -> None:
        if value is None:
            return
        if fits and name not in self._options.get("omit", ()):
            body[name] = value
        else:
            self._drop(name)

    def _add_tier(self, body: JSONObject) -> None:
        tier = self._request.service_tier
        if tier in _TIERS:
            body["service_tier"] = _TIERS[tier]
        elif tier:
            self._drop("service_tier")

    def _add_extra(self, body: JSONObject) -> None:
        for name, value in self._request.extra.items():
            if self._request.extra_dialect is not Dialect.ANTHROPIC:
                self._drop(name)
            elif name not in body:
                body[name] = value

    def _name_the_rest(self) -> None:
        request = self._request
        for name in _NOT_CARRIED:
            if getattr(request, name) is not None:
                self._drop(name)
        if request.n > 1:
            self._drop("n")
        if request.logprobs:
            self._drop("logprobs")
        if request.verbosity:
            self._drop("verbosity")
        if any(kind != "text" for kind in request.modalities):
            self._drop("modalities")

    def _drop(self, name: str) -> None:
        if name not in self.dropped:
            self.dropped.append(name)


def _tool(tool: Tool) -> JSONObject:
    wire: JSONObject = {"name": tool.name, "input_schema": tool.parameters or {"type": "object", "properties": {}}}
    if tool.description:
        wire["description"] = tool.description
    if tool.strict is not None:
        wire["strict"] = tool.strict
    if tool.cache:
        wire["cache_control"] = cache_control(tool.cache)
    return wire


def _tool_choice(choice: ToolChoice) -> JSONObject:
    if choice.mode == "tool":
        return {"type": "tool", "name": choice.name}
    return {"type": "any" if choice.mode == "required" else choice.mode}
