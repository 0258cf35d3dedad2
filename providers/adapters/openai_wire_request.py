"""Canonical requests to OpenAI's chat completions and embeddings bodies.

Reference: the `openai` package's CompletionCreateParams. `compatible` is the wider habit of other vendors and servers:
they take `top_k`, and want reasoning back (openai_wire_messages).
"""

from __future__ import annotations

from providers.adapters.openai_wire_messages import MessageList
from providers.adapters.quirks import PLAIN, Quirks
from providers.adapters.types import (
    ChatRequest,
    Dialect,
    EmbeddingRequest,
    JSONObject,
    ReasoningSettings,
    ResponseFormat,
    ServerTool,
    Tool,
    ToolChoice,
)

# Names of the output cap: OpenAI's two, and those by which other servers take one (llama.cpp's own beats max_tokens).
CAP_FIELDS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "max_new_tokens", "n_predict", "num_predict")
SERVICE_TIERS = frozenset({"auto", "default", "flex", "scale", "priority", "fast"})
_NEVER_EXTRA = frozenset({*CAP_FIELDS, "model", "messages", "stream", "stream_options", "n"})
# Thinking budgets in tokens, up to which a word stands for them.
EFFORTS = ((1024, "minimal"), (4096, "low"), (16384, "medium"))


class ChatBody:
    """Builds one body; `dropped` names what could not be carried."""

    def __init__(self, *, compatible: bool, quirks: Quirks = PLAIN) -> None:
        self.compatible = compatible
        self.quirks = quirks
        self.dropped: list[str] = []

    def build(self, request: ChatRequest, model: str) -> JSONObject:
        """Everything but the output cap, which the adapter writes."""
        body: JSONObject = {
            "model": model,
            "messages": self._messages().build(request.messages),
        }
        self._tools(request, body)
        self._sampling(request, body)
        self._output(request, body)
        for name in ("user", "verbosity"):
            if value := getattr(request, name):
                body[name] = value
        for name in ("metadata", "store"):
            if (value := getattr(request, name)) is not None:
                body[name] = value
        if request.service_tier in SERVICE_TIERS:
            body["service_tier"] = request.service_tier
        elif request.service_tier:
            self._drop("service_tier")
        if request.stream:
            body["stream"] = True
            if self.quirks.asks_usage:
                body["stream_options"] = {"include_usage": True}
        self._extra(request, body)
        return body

    def _messages(self) -> MessageList:
        return MessageList(self._drop, compatible=self.compatible, quirks=self.quirks)

    def _drop(self, name: str) -> None:
        if name not in self.dropped:
            self.dropped.append(name)

    def _extra(self, request: ChatRequest, body: JSONObject) -> None:
        for name, value in request.extra.items():
            if request.extra_dialect is not Dialect.OPENAI:
                self._drop(name)
            elif name not in body and name not in _NEVER_EXTRA:
                body[name] = value

    # --- settings -------------------------------------------------------------------------------------------------

    def _sampling(self, request: ChatRequest, body: JSONObject) -> None:
        names = ("temperature", "top_p", "seed", "presence_penalty", "frequency_penalty", "logit_bias", "logprobs")
        for name in (*names, "top_logprobs"):
            if (value := getattr(request, name)) is not None:
                body[name] = value
        if request.top_k is not None:
            if self.compatible:
                body["top_k"] = request.top_k
            else:
                self._drop("top_k")
        if request.stop:
            body["stop"] = list(request.stop)
        if request.n != 1:
            body["n"] = request.n

    def _output(self, request: ChatRequest, body: JSONObject) -> None:
        if request.response_format is not None:
            body["response_format"] = response_format(request.response_format)
        if request.reasoning is not None:
            self._reasoning(request.reasoning, body)
        if request.modalities:
            kept = [name for name in request.modalities if name != "image" or self.compatible]
            if len(kept) < len(request.modalities):
                self._drop("modalities.image")
            if kept:
                body["modalities"] = kept
        if request.audio is not None:
            body["audio"] = {"voice": request.audio.voice or "alloy", "format": request.audio.format}

    def _reasoning(self, wanted: ReasoningSettings, body: JSONObject) -> None:
        if self.quirks.reasoning == "object":
            body["reasoning"] = reasoning_object(wanted)
            return
        if self.quirks.reasoning == "thinking":
            self._switch(wanted, body)
        elif wanted.effort:
            body["reasoning_effort"] = wanted.effort
        elif wanted.budget_tokens is not None:
            budget = wanted.budget_tokens
            body["reasoning_effort"] = next((word for most, word in EFFORTS if budget <= most), "high")
        elif wanted.off:
            self._drop("reasoning.off")  # only some models know "none"; the others would refuse the request
        if wanted.show:
            self._drop("reasoning.show")

    def _switch(self, wanted: ReasoningSettings, body: JSONObject) -> None:
        """Thinking that is on or off: how much of it cannot be said."""
        off = wanted.off or wanted.effort == "none"
        body["thinking"] = {"type": "disabled" if off else "enabled"}
        if wanted.effort and not off:
            self._drop("reasoning.effort")
        if wanted.budget_tokens is not None:
            self._drop("reasoning.budget_tokens")

    def _tools(self, request: ChatRequest, body: JSONObject) -> None:
        tools: list[JSONObject] = []
        for tool in request.tools:
            if isinstance(tool, Tool):
                tools.append(function(tool))
            elif tool.dialect is Dialect.OPENAI:
                tools.append(tool.raw)
            else:
                self._drop(f"tools.{_tool_type(tool)}")
        if not tools:
            return
        body["tools"] = tools
        if request.tool_choice is not None:
            body["tool_choice"] = tool_choice(request.tool_choice)
        if request.parallel_tools is not None:
            body["parallel_tool_calls"] = request.parallel_tools


def embedding_body(request: EmbeddingRequest, model: str) -> tuple[JSONObject, tuple[str, ...]]:
    """The body, and the names of what was dropped."""
    inputs = [item if isinstance(item, str) else list(item) for item in request.inputs]
    body: JSONObject = {"model": model, "input": inputs, "encoding_format": request.encoding}
    if request.dimensions is not None:
        body["dimensions"] = request.dimensions
    if request.user:
        body["user"] = request.user
    return body, tuple([name for name in ("task", "title") if getattr(request, name)])


def function(tool: Tool) -> JSONObject:
    wire: JSONObject = {"name": tool.name, "parameters": tool.parameters or {"type": "object", "properties": {}}}
    if tool.description:
        wire["description"] = tool.description
    if tool.strict is not None:
        wire["strict"] = tool.strict
    return {"type": "function", "function": wire}


def reasoning_object(wanted: ReasoningSettings) -> JSONObject:
    """OpenRouter's `reasoning`: a word or a number of tokens, whether at all, and whether it is shown."""
    wire: JSONObject = {}
    if wanted.budget_tokens is not None and not wanted.off:
        wire["max_tokens"] = wanted.budget_tokens
    elif wanted.effort:
        wire["effort"] = wanted.effort
    else:
        wire["enabled"] = not wanted.off
    if wanted.show is not None:
        wire["exclude"] = not wanted.show
    return wire


def tool_choice(choice: ToolChoice) -> str | JSONObject:
    if choice.mode == "tool":
        return {"type": "function", "function": {"name": choice.name}}
    if choice.allowed and choice.mode != "none":
        tools = [{"type": "function", "function": {"name": name}} for name in choice.allowed]
        return {"type": "allowed_tools", "allowed_tools": {"mode": choice.mode, "tools": tools}}
    return choice.mode


def response_format(wanted: ResponseFormat) -> JSONObject:
    if wanted.kind != "json_schema":
        return {"type": "json_object" if wanted.kind == "json" else "text"}
    schema: JSONObject = {"name": wanted.name, "schema": wanted.schema}
    if wanted.strict is not None:
        schema["strict"] = wanted.strict
    if wanted.description:
        schema["description"] = wanted.description
    return {"type": "json_schema", "json_schema": schema}


def _tool_type(tool: ServerTool) -> str:
    kind = tool.raw.get("type")
    return kind if isinstance(kind, str) else next(iter(tool.raw), "server")
