"""A canonical request as the body of generateContent or batchEmbedContents. What these lack is named in `dropped`."""

from __future__ import annotations

import re
from typing import Any

from providers.adapters.gemini_content import Contents
from providers.adapters.thinking import budget_below
from providers.adapters.types import (
    ChatRequest,
    Dialect,
    EmbeddingRequest,
    JSONObject,
    ReasoningSettings,
    ServerTool,
    Tool,
    ToolChoice,
)
from providers.errors import CannotCarry

# Gemini 2.5 counts thinking in tokens, later models take a level; the figures are those of Google's own translation.
EFFORT_BUDGETS = {"minimal": 1024, "low": 1024, "medium": 8192, "high": 24576, "xhigh": 24576, "max": 24576}
SMALLEST_BUDGET = 512  # tokens: what the least able thinking model takes at least; the others take less
_LEVELS = {"minimal": "minimal", "low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}
_BUDGET_MODELS = re.compile(r"gemini-[12](\D|$)")
_PLAIN = (  # canonical name, generationConfig's
    ("temperature", "temperature"),
    ("top_p", "topP"),
    ("top_k", "topK"),
    ("seed", "seed"),
    ("presence_penalty", "presencePenalty"),
    ("frequency_penalty", "frequencyPenalty"),
)
_NOT_CARRIED = ("logit_bias", "metadata", "store")
_WORDS_NOT_CARRIED = ("verbosity", "user", "service_tier")


class GenerateBody:
    """Builds one body; `dropped` fills up while it does."""

    def __init__(self, request: ChatRequest, cap: int | None) -> None:
        self._request = request
        self._cap = cap if cap is not None else request.max_output_tokens
        self.dropped: list[str] = []

    def build(self, model: str) -> JSONObject:
        contents = Contents(self._request.messages, self.dropped, model)
        body: JSONObject = {"contents": contents.turns()}
        if system := contents.system():
            body["systemInstruction"] = system
        self._add_tools(body)
        if config := self._config(model):
            body["generationConfig"] = config
        self._add_extra(body)
        self._name_the_rest()
        return body

    def _add_tools(self, body: JSONObject) -> None:
        choice = self._request.tool_choice
        functions: list[JSONObject] = []
        tools: list[JSONObject] = []
        for tool in self._request.tools:
            if isinstance(tool, ServerTool):
                if tool.dialect is Dialect.GEMINI:
                    tools.append(tool.raw)
                else:
                    self._drop("tools")
            elif not _left_out(tool, choice):
                functions.append(self._function(tool))
        if functions:
            tools.insert(0, {"functionDeclarations": functions})
        if tools:
            body["tools"] = tools
        if choice and functions:
            body["toolConfig"] = {"functionCallingConfig": _calling(choice)}

    def _function(self, tool: Tool) -> JSONObject:
        if tool.strict:
            self._drop("tools.strict")
        if tool.cache:
            self._drop("cache_control")
        wire: JSONObject = {"name": tool.name}
        if tool.description:
            wire["description"] = tool.description
        if tool.parameters:
            wire["parametersJsonSchema"] = tool.parameters
        return wire

    def _config(self, model: str) -> JSONObject:
        request, config = self._request, dict[str, Any]()
        if self._cap is not None:
            config["maxOutputTokens"] = self._cap
        if request.n > 1:
            config["candidateCount"] = request.n
        if request.stop:
            config["stopSequences"] = list(request.stop)
        for name, wire in _PLAIN:
            value = getattr(request, name)
            if value is not None:
                config[wire] = value
        if request.logprobs:
            config["responseLogprobs"] = True
            if request.top_logprobs is not None:
                config["logprobs"] = request.top_logprobs
        self._add_format(config)
        self._add_output(config)
        if request.reasoning is not None and (thinking := self._thinking(request.reasoning, model)):
            config["thinkingConfig"] = thinking
        return config

    def _add_format(self, config: JSONObject) -> None:
        wanted = self._request.response_format
        if wanted is None or wanted.kind == "text":
            return
        config["responseMimeType"] = "application/json"
        if wanted.kind == "json_schema":
            config["responseJsonSchema"] = wanted.schema

    def _add_output(self, config: JSONObject) -> None:
        request = self._request
        if request.modalities and request.modalities != ("text",):
            config["responseModalities"] = [modality.upper() for modality in request.modalities]
        if request.audio is not None and request.audio.voice:
            config["speechConfig"] = {"voiceConfig": {"prebuiltVoiceConfig": {"voiceName": request.audio.voice}}}

    def _thinking(self, settings: ReasoningSettings, model: str) -> JSONObject:
        thinking: JSONObject = {}
        by_budget = _BUDGET_MODELS.search(model) is not None
        if settings.off or settings.effort == "none":
            if by_budget:
                return {"thinkingBudget": 0}
            self._drop("reasoning")  # later models always think; the lowest level that all of them take
            return {"thinkingLevel": "low"}
        if settings.budget_tokens is not None:
            self._add_budget(thinking, settings.budget_tokens)
        elif settings.effort in _LEVELS and by_budget:
            self._add_budget(thinking, EFFORT_BUDGETS[settings.effort])
        elif settings.effort in _LEVELS:
            thinking["thinkingLevel"] = _LEVELS[settings.effort]
        elif settings.adaptive and by_budget:
            thinking["thinkingBudget"] = -1
        # Who sets a budget, as Anthropic's clients do, expects to see the thoughts.
        show = settings.show if settings.show is not None else settings.budget_tokens is not None or settings.adaptive
        if show:
            thinking["includeThoughts"] = True
        return thinking

    def _add_budget(self, thinking: JSONObject, budget: int) -> None:
        fitting = budget_below(self._cap, budget, least=SMALLEST_BUDGET)
        if fitting is None:
            self._drop("reasoning.budget_tokens")
        else:
            thinking["thinkingBudget"] = fitting

    def _add_extra(self, body: JSONObject) -> None:
        """Fields only Gemini's own clients send; those of `generationConfig` join ours."""
        for name, value in self._request.extra.items():
            if self._request.extra_dialect is not Dialect.GEMINI:
                self._drop(name)
            elif name == "generationConfig" and isinstance(value, dict):
                body[name] = {**value, **body.get(name, {})}
            elif name not in body:
                body[name] = value

    def _name_the_rest(self) -> None:
        request = self._request
        for name in _NOT_CARRIED:
            if getattr(request, name) is not None:
                self._drop(name)
        for name in _WORDS_NOT_CARRIED:
            if getattr(request, name):
                self._drop(name)
        if request.parallel_tools is False:
            self._drop("parallel_tool_calls")

    def _drop(self, name: str) -> None:
        if name not in self.dropped:
            self.dropped.append(name)


def embedding_body(request: EmbeddingRequest, model: str) -> JSONObject:
    """The body of batchEmbedContents. Raises CannotCarry for token lists."""
    return {"requests": [_embedding(request, text, model) for text in request.inputs]}


def _embedding(request: EmbeddingRequest, text: str | tuple[int, ...], model: str) -> JSONObject:
    if not isinstance(text, str):
        raise CannotCarry("input", "Gemini embeds texts, not lists of tokens")
    wire: JSONObject = {"model": f"models/{model}", "content": {"parts": [{"text": text}]}}
    if request.task:
        wire["taskType"] = request.task
    if request.title:
        wire["title"] = request.title
    if request.dimensions is not None:
        wire["outputDimensionality"] = request.dimensions
    return wire


def _left_out(tool: Tool, choice: ToolChoice | None) -> bool:
    """AUTO cannot be restricted to some functions, so the others are not offered at all."""
    return bool(choice and choice.mode == "auto" and choice.allowed and tool.name not in choice.allowed)


def _calling(choice: ToolChoice) -> JSONObject:
    if choice.mode == "tool":
        return {"mode": "ANY", "allowedFunctionNames": [choice.name]}
    if choice.mode == "required":
        return {"mode": "ANY", **({"allowedFunctionNames": list(choice.allowed)} if choice.allowed else {})}
    return {"mode": "NONE" if choice.mode == "none" else "AUTO"}
