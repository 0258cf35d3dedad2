"""Mistral's own API: OpenAI's chat completions and embeddings with other names, other content parts, other errors.

Nothing is passed through: Mistral refuses members it does not know, and answers thoughts as parts of the content, which
OpenAI's clients cannot read. Reference: the `mistralai` package's ChatCompletionRequest, AssistantMessage, UsageInfo.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from providers.adapters.base import Upstream, UpstreamRequest
from providers.adapters.events import StreamEvent
from providers.adapters.mistral_messages import MistralMessages
from providers.adapters.openai import CompatibleAdapter
from providers.adapters.openai_wire import refusal_of, thoughts_within
from providers.adapters.openai_wire_answer import WireChoice
from providers.adapters.openai_wire_request import ChatBody
from providers.adapters.openai_wire_stream import OpenAIStream
from providers.adapters.quirks import Quirks
from providers.adapters.refusals import json_of, retry_after, shortened
from providers.adapters.types import ChatRequest, Dialect, EmbeddingRequest, Endpoint, JSONObject, Tool, ToolChoice
from providers.errors import CannotCarry, UpstreamError, refusal

# The members Mistral knows; it refuses any other. The last line has its own, which OpenAI's clients may send too.
_KNOWN = frozenset(
    {
        *("model", "messages", "temperature", "top_p", "max_tokens", "stream", "stop", "random_seed", "metadata"),
        *("response_format", "tools", "tool_choice", "presence_penalty", "frequency_penalty", "top_k", "logprobs"),
        *("top_logprobs", "n", "prediction", "parallel_tool_calls", "reasoning_effort"),
        *("prompt_cache_key", "prompt_mode", "safe_prompt", "min_tokens", "repetition_penalty", "guardrails"),
    }
)
_json = msgspec.json.Encoder()
_QUIRKS = Quirks(asks_usage=False, drops=frozenset({"messages.name"}))


class MistralAdapter(CompatibleAdapter):
    native: frozenset[tuple[Dialect, Endpoint]] = frozenset()

    def __init__(self) -> None:
        super().__init__(_QUIRKS)

    def build_request(self, request: ChatRequest | EmbeddingRequest, upstream: Upstream) -> UpstreamRequest:
        """Raises CannotCarry for token lists and for images of another provider's store."""
        if isinstance(request, EmbeddingRequest):
            body, dropped = _embedding_body(request, upstream.model)
            return self._post(Endpoint.EMBEDDINGS, upstream, _json.encode(body), dropped)
        builder = MistralBody()
        body = builder.build(_restricted(request), upstream.model)
        cap = request.max_output_tokens if upstream.max_output_tokens is None else upstream.max_output_tokens
        if cap is not None:
            body["max_tokens"] = cap
        return self._post(Endpoint.CHAT, upstream, _json.encode(body), tuple(builder.dropped))

    def stream_parser(self, request: ChatRequest) -> OpenAIStream:
        return MistralStream()

    def parse_error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        """Where a request is malformed, Mistral lists what is wrong: the place and the words of the first are told."""
        fault = _first_fault(json_of(body))
        if fault is None:
            return refusal_of(status, headers, body)
        place, words = fault
        message = shortened(f"{place}: {words}" if place else words)
        return refusal(status, message, param=place or None, retry_after=retry_after(headers))


class MistralStream(OpenAIStream):
    def _choice(self, choice: WireChoice, events: list[StreamEvent]) -> None:
        if choice.delta is not None:
            for thought in thoughts_within(choice.delta.content):
                self._thought(thought.text, thought.signature, "", choice.index, events)
        super()._choice(choice, events)


class MistralBody(ChatBody):
    def __init__(self) -> None:
        super().__init__(compatible=True, quirks=_QUIRKS)

    def build(self, request: ChatRequest, model: str) -> JSONObject:
        body = super().build(request, model)
        if "seed" in body:
            body["random_seed"] = body.pop("seed")
        for name in [name for name in body if name not in _KNOWN]:
            del body[name]
            self._drop(name)
        return body

    def _messages(self) -> MistralMessages:
        return MistralMessages(self._drop, compatible=True, quirks=self.quirks)


def _restricted(request: ChatRequest) -> ChatRequest:
    """A choice among some of the tools is made by offering only those."""
    choice = request.tool_choice
    if choice is None or not choice.allowed:
        return request
    tools = tuple([tool for tool in request.tools if not isinstance(tool, Tool) or tool.name in choice.allowed])
    return msgspec.structs.replace(request, tools=tools, tool_choice=ToolChoice(choice.mode, choice.name))


def _embedding_body(request: EmbeddingRequest, model: str) -> tuple[JSONObject, tuple[str, ...]]:
    if not all(isinstance(item, str) for item in request.inputs):
        raise CannotCarry("input", "Mistral embeds texts, not lists of tokens")
    body: JSONObject = {"model": model, "input": list(request.inputs), "encoding_format": request.encoding}
    if request.dimensions is not None:
        body["output_dimension"] = request.dimensions
    return body, tuple([name for name in ("task", "title", "user") if getattr(request, name)])


def _first_fault(said: Any) -> tuple[str, str] | None:
    """(place, words) of `{"detail": [{"loc": [...], "msg": ...}]}`, which may stand within `message`."""
    if isinstance(said, dict) and isinstance(said.get("message"), dict):
        said = said["message"]
    detail = said.get("detail") if isinstance(said, dict) else None
    first = detail[0] if isinstance(detail, list) and detail else None
    if not isinstance(first, dict) or not isinstance(first.get("msg"), str):
        return None
    place = first.get("loc")
    steps = [str(step) for step in place if step != "body"] if isinstance(place, list) else []
    return ".".join(steps), first["msg"]
