"""A canonical request as the body of Cohere's /v2/chat or /v2/embed. What these lack is named in `dropped`.

Reference: the `cohere` package's client_v2 and its types ChatMessageV2, ToolV2, ResponseFormatV2, Thinking. Cohere
takes `p` from 0.01 to 0.99 and `k` up to 500: the nearest stands for what is beyond. Penalties go from 0 to 1.
"""

from __future__ import annotations

from typing import Any

from providers.adapters.cohere_messages import Turns
from providers.adapters.openai_wire_request import CAP_FIELDS
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

MOST_STOPS = 5
MOST_K = 500
EFFORT_BUDGETS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16384, "xhigh": 32768, "max": 32768}
_OWN = ("documents", "citation_options", "safety_mode", "strict_tools", "priority")  # Cohere's, by their own names
_NOT_CARRIED = ("logit_bias", "metadata", "store")
_WORDS_NOT_CARRIED = ("verbosity", "user", "service_tier")
_TASKS = {
    "RETRIEVAL_QUERY": "search_query",
    "QUESTION_ANSWERING": "search_query",
    "FACT_VERIFICATION": "search_query",
    "CODE_RETRIEVAL_QUERY": "search_query",
    "RETRIEVAL_DOCUMENT": "search_document",
    "CLASSIFICATION": "classification",
    "CLUSTERING": "clustering",
}


class ChatBody:
    """Builds one body; `dropped` fills up while it does."""

    def __init__(self, request: ChatRequest, cap: int | None) -> None:
        self._request = request
        self._cap = request.max_output_tokens if cap is None else cap
        self.dropped: list[str] = []

    def build(self, model: str) -> JSONObject:
        """Raises CannotCarry for media Cohere has no place for, and for more stop sequences than it takes."""
        request = self._request
        turns = Turns(self._drop)
        body: JSONObject = {"model": model, "messages": turns.build(request.messages), "stream": request.stream}
        if turns.documents:
            body["documents"] = turns.documents
        if self._cap is not None:
            body["max_tokens"] = self._cap
        self._add_tools(body)
        self._add_sampling(body)
        self._add_format(body)
        if request.reasoning is not None and (thinking := self._thinking(request.reasoning)):
            body["thinking"] = thinking
        self._add_extra(body)
        self._name_the_rest()
        return body

    def _drop(self, name: str) -> None:
        if name not in self.dropped:
            self.dropped.append(name)

    def _add_tools(self, body: JSONObject) -> None:
        """One tool cannot be named there: it is the only one offered then, and must be used."""
        choice, tools = self._request.tool_choice, []
        for tool in self._request.tools:
            if isinstance(tool, ServerTool):
                self._drop("tools")
            elif _is_offered(tool, choice):
                tools.append(tool)
        if not tools:
            return
        body["tools"] = [_function(tool) for tool in tools]
        if all(tool.strict for tool in tools):
            body["strict_tools"] = True
        elif any(tool.strict for tool in tools):
            self._drop("tools.strict")
        if choice is not None and choice.mode != "auto":
            body["tool_choice"] = "NONE" if choice.mode == "none" else "REQUIRED"

    def _add_sampling(self, body: JSONObject) -> None:
        request = self._request
        for name in ("temperature", "seed"):
            if (value := getattr(request, name)) is not None:
                body[name] = value
        self._add_penalties(body)
        if request.top_p is not None:
            body["p"] = min(max(request.top_p, 0.01), 0.99)
        if request.top_k is not None:
            body["k"] = min(request.top_k, MOST_K)
        if len(request.stop) > MOST_STOPS:
            raise CannotCarry("stop", f"Cohere takes at most {MOST_STOPS} stop sequences")
        if request.stop:
            body["stop_sequences"] = list(request.stop)
        if request.logprobs and not request.top_logprobs:
            body["logprobs"] = True
        elif request.logprobs:  # Cohere tells those of the chosen tokens only: half of what was asked for helps nobody
            self._drop("logprobs")

    def _add_penalties(self, body: JSONObject) -> None:
        for name in ("presence_penalty", "frequency_penalty"):
            value = getattr(self._request, name)
            if value is not None and 0 <= value <= 1:
                body[name] = value
            elif value is not None:
                self._drop(name)

    def _add_format(self, body: JSONObject) -> None:
        wanted = self._request.response_format
        if wanted is None or wanted.kind == "text":
            return
        body["response_format"] = {"type": "json_object"}
        if wanted.kind == "json_schema":
            body["response_format"]["json_schema"] = wanted.schema

    def _thinking(self, wanted: ReasoningSettings) -> JSONObject | None:
        if wanted.off or wanted.effort == "none":
            return {"type": "disabled"}
        budget = wanted.budget_tokens or EFFORT_BUDGETS.get(wanted.effort)
        if budget is None:
            return {"type": "enabled"}
        fitting = budget_below(self._cap, budget, least=1)
        return {"type": "enabled", "token_budget": fitting} if fitting else {"type": "enabled"}

    def _add_extra(self, body: JSONObject) -> None:
        """Cohere's own fields, which clients of OpenAI's dialect may send beside it."""
        for name, value in self._request.extra.items():
            if name not in _OWN or self._request.extra_dialect is not Dialect.OPENAI:
                if name not in CAP_FIELDS:
                    self._drop(name)
            elif name == "documents" and isinstance(value, list):
                body[name] = [*body.get(name, ()), *value]
            else:
                body.setdefault(name, value)

    def _name_the_rest(self) -> None:
        request = self._request
        for name in _NOT_CARRIED:
            if getattr(request, name) is not None:
                self._drop(name)
        for name in _WORDS_NOT_CARRIED:
            if getattr(request, name):
                self._drop(name)
        if request.top_logprobs:
            self._drop("top_logprobs")
        if request.n > 1:
            self._drop("n")
        if request.parallel_tools is False:
            self._drop("parallel_tool_calls")
        if set(request.modalities) - {"text"}:
            self._drop("modalities")
        if request.audio is not None:
            self._drop("audio")


def _is_offered(tool: Tool, choice: ToolChoice | None) -> bool:
    if choice is None or choice.mode == "none":
        return True
    if choice.mode == "tool":
        return tool.name == choice.name
    return not choice.allowed or tool.name in choice.allowed


def _function(tool: Tool) -> JSONObject:
    wire: JSONObject = {"name": tool.name, "parameters": tool.parameters or {"type": "object", "properties": {}}}
    if tool.description:
        wire["description"] = tool.description
    return {"type": "function", "function": wire}


def embedding_body(request: EmbeddingRequest, model: str) -> tuple[JSONObject, tuple[str, ...]]:
    """The body, and the names of what was dropped. Raises CannotCarry for token lists."""
    texts = [text for text in request.inputs if isinstance(text, str)]
    if len(texts) != len(request.inputs):
        raise CannotCarry("input", "Cohere embeds texts, not lists of tokens")
    body: dict[str, Any] = {
        "model": model,
        "texts": texts,
        "input_type": _TASKS.get(request.task, "search_document"),
        "embedding_types": [request.encoding],
    }
    if request.dimensions is not None:
        body["output_dimension"] = request.dimensions
    lost = {"task": request.task and request.task not in _TASKS, "title": request.title, "user": request.user}
    return body, tuple([name for name, given in lost.items() if given])
