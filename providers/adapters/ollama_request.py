"""A canonical request as the body of POST /api/chat or /api/embed. What these lack is named in `dropped`.

Reference: the `ollama` package's ChatRequest and Options. Models cache prompts by themselves, so cache marks need no
counterpart and are not counted as dropped.
"""

from __future__ import annotations

from typing import Any

from providers.adapters.base import Upstream
from providers.adapters.ollama_messages import MessageList
from providers.adapters.types import (
    ChatRequest,
    Dialect,
    EmbeddingRequest,
    JSONObject,
    ReasoningSettings,
    Tool,
    ToolChoice,
)
from providers.errors import CannotCarry

_PLAIN = ("temperature", "top_p", "top_k", "seed", "presence_penalty", "frequency_penalty")
_LEVELS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}
_LEVEL_OF_BUDGET = ((4096, "low"), (16384, "medium"))  # tokens of thinking, up to which a word stands for them
_NOT_CARRIED = ("logit_bias", "metadata", "store", "audio")
_WORDS_NOT_CARRIED = ("user", "verbosity", "service_tier")
# What OpenAI's clients may send beyond OpenAI's own fields: how to choose tokens. How a model is loaded (num_ctx,
# num_gpu, keep_alive) is for whoever runs the server: each of these takes its memory.
_SAMPLING = frozenset({"min_p", "typical_p", "repeat_penalty", "repeat_last_n", "penalize_newline", "tfs_z"}) | {
    "mirostat",
    "mirostat_eta",
    "mirostat_tau",
}


class ChatBody:
    """Builds one body; `dropped` fills up while it does."""

    def __init__(self, request: ChatRequest, upstream: Upstream) -> None:
        self._request = request
        self._upstream = upstream
        self.dropped: list[str] = []

    def build(self) -> JSONObject:
        request = self._request
        body: JSONObject = {
            "model": self._upstream.model,
            "messages": MessageList(self._drop).build(request.messages),
            "stream": request.stream,
        }
        if tools := self._tools():
            body["tools"] = tools
        self._format(body)
        if request.reasoning is not None:
            self._think(request.reasoning, body)
        if request.logprobs:
            body["logprobs"] = True
            if request.top_logprobs is not None:
                body["top_logprobs"] = request.top_logprobs
        if options := self._options():
            body["options"] = options
        if keep_alive := self._upstream.options.get("keep_alive"):
            body["keep_alive"] = keep_alive
        self._name_the_rest()
        return body

    def _tools(self) -> list[JSONObject]:
        """The format cannot choose, so the tools that must not be called are not offered at all."""
        choice, tools = self._request.tool_choice, list[JSONObject]()
        if choice is not None and choice.mode == "none":
            return []
        for tool in self._request.tools:
            if not isinstance(tool, Tool):
                self._drop("tools")
            elif _offered(tool.name, choice):
                tools.append(self._tool(tool))
        if choice is not None and choice.mode in ("required", "tool"):
            self._drop("tool_choice")
        if self._request.parallel_tools is False and tools:
            self._drop("parallel_tool_calls")
        return tools

    def _tool(self, tool: Tool) -> JSONObject:
        if tool.strict:
            self._drop("tools.strict")
        wire: JSONObject = {"name": tool.name, "parameters": tool.parameters or {"type": "object", "properties": {}}}
        if tool.description:
            wire["description"] = tool.description
        return {"type": "function", "function": wire}

    def _format(self, body: JSONObject) -> None:
        wanted = self._request.response_format
        if wanted is not None and wanted.kind != "text":
            body["format"] = wanted.schema if wanted.kind == "json_schema" else "json"

    def _think(self, wanted: ReasoningSettings, body: JSONObject) -> None:
        """A word for models that take one; others read any word as yes."""
        if wanted.off or wanted.effort == "none":
            body["think"] = False
        elif wanted.effort in _LEVELS:
            body["think"] = _LEVELS[wanted.effort]
        elif wanted.budget_tokens is not None:
            budget = wanted.budget_tokens
            body["think"] = next((word for most, word in _LEVEL_OF_BUDGET if budget <= most), "high")
            self._drop("reasoning.budget_tokens")
        elif wanted.adaptive or wanted.show:
            body["think"] = True
        if wanted.show is False and body.get("think"):
            self._drop("reasoning.show")

    def _options(self) -> JSONObject:
        request = self._request
        options: dict[str, Any] = {}
        for name, value in request.extra.items():
            if name in _SAMPLING and request.extra_dialect is Dialect.OPENAI:
                options[name] = value
            else:
                self._drop(name)
        for name in _PLAIN:
            if (value := getattr(request, name)) is not None:
                options[name] = value
        if request.stop:
            options["stop"] = list(request.stop)
        cap = self._upstream.max_output_tokens
        if cap is None:
            cap = request.max_output_tokens
        if cap is not None:
            options["num_predict"] = cap
        if (context := _number(self._upstream.options.get("num_ctx"))) is not None:
            options["num_ctx"] = context
        return options

    def _name_the_rest(self) -> None:
        request = self._request
        for name in _NOT_CARRIED:
            if getattr(request, name) is not None:
                self._drop(name)
        for name in _WORDS_NOT_CARRIED:
            if getattr(request, name):
                self._drop(name)
        if request.n > 1:
            self._drop("n")
        if any(kind != "text" for kind in request.modalities):
            self._drop("modalities")

    def _drop(self, name: str) -> None:
        if name not in self.dropped:
            self.dropped.append(name)


def embedding_body(request: EmbeddingRequest, upstream: Upstream) -> tuple[JSONObject, tuple[str, ...]]:
    """The body, and the names of what was dropped. Raises CannotCarry for token lists."""
    if not all(isinstance(text, str) for text in request.inputs):
        raise CannotCarry("input", "Ollama embeds texts, not lists of tokens")
    body: JSONObject = {"model": upstream.model, "input": list(request.inputs)}
    if request.dimensions is not None:
        body["dimensions"] = request.dimensions
    if keep_alive := upstream.options.get("keep_alive"):
        body["keep_alive"] = keep_alive
    return body, tuple([name for name in ("task", "title", "user") if getattr(request, name)])


def _offered(name: str, choice: ToolChoice | None) -> bool:
    if choice is None:
        return True
    if choice.mode == "tool":
        return name == choice.name
    return not choice.allowed or name in choice.allowed


def _number(text: object) -> int | None:
    return int(text) if isinstance(text, str) and text.isdigit() else None
