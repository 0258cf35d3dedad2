"""Google's Gemini API: {base}/v1beta/models/{model}:METHOD; the base URL is without version.

Methods: generateContent, streamGenerateContent?alt=sse, embedContent, batchEmbedContents, countTokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import msgspec

from providers.adapters.base import Head, Relay, StreamParser, Upstream, UpstreamRequest
from providers.adapters.counts import checked
from providers.adapters.gemini_relay import GeminiRelay
from providers.adapters.gemini_request import SMALLEST_BUDGET, GenerateBody, embedding_body
from providers.adapters.gemini_response import (
    citations_of,
    decoded,
    finish_of,
    logprobs_of,
    parts_of,
    read_answer,
    read_embeddings,
    usage_of,
)
from providers.adapters.gemini_stream import GeminiStreamParser, call_id, name_of
from providers.adapters.gemini_wire import AnswerWire
from providers.adapters.refusals import json_of, plain_message, retry_after, shortened
from providers.adapters.thinking import budget_below
from providers.adapters.types import (
    ChatRequest,
    ChatResponse,
    Choice,
    Dialect,
    EmbeddingRequest,
    EmbeddingResponse,
    Endpoint,
    Part,
    Text,
    ToolCall,
    Usage,
)
from providers.adapters.vectors import as_asked
from providers.errors import InvalidResponse, UpstreamError, refusal

VERSION = "v1beta"


class _ModelWire(msgspec.Struct):
    name: str


class _ModelsWire(msgspec.Struct):
    models: list[_ModelWire] = []


class _CountWire(msgspec.Struct, rename="camel"):
    total_tokens: int


_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_models = msgspec.json.Decoder(_ModelsWire)
_count = msgspec.json.Decoder(_CountWire)
_json = msgspec.json.Encoder()
_NULL = msgspec.Raw(b"null")


class GeminiAdapter:
    wire = Dialect.GEMINI
    can_count = True
    native = frozenset({(Dialect.GEMINI, Endpoint.GENERATE), (Dialect.GEMINI, Endpoint.EMBEDDINGS)})

    def build_request(self, request: ChatRequest | EmbeddingRequest, upstream: Upstream) -> UpstreamRequest:
        """Raises CannotCarry for embeddings of token lists."""
        if isinstance(request, EmbeddingRequest):
            body = _json.encode(embedding_body(request, upstream.model))
            dropped = ("user",) if request.user else ()
            return self._post(upstream, "batchEmbedContents", body, dropped)
        builder = GenerateBody(request, upstream.max_output_tokens)
        body = _json.encode(builder.build(upstream.model))
        return self._post(upstream, _generate(stream=request.stream), body, tuple(builder.dropped))

    def parse_response(self, request: ChatRequest | EmbeddingRequest, body: bytes) -> ChatResponse | EmbeddingResponse:
        if isinstance(request, EmbeddingRequest):
            return as_asked(request, read_embeddings(body, request.model))
        wire = read_answer(body)
        usage, choices = usage_of(wire), _choices(wire, request.n)
        if usage is not None:
            usage = checked(usage, generated=any(choice.parts for choice in choices))
        return ChatResponse(id=wire.response_id, model=wire.model_version, choices=choices, usage=usage)

    def stream_parser(self, request: ChatRequest) -> StreamParser:
        return GeminiStreamParser(request.n)

    def parse_error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        found = json_of(body)
        if isinstance(found, list) and found:  # streams without alt=sse wrap even their errors in an array
            found = found[0]
        error = found.get("error") if isinstance(found, dict) else None
        words = error if isinstance(error, dict) else {}
        message = words.get("message")
        text = shortened(message) if isinstance(message, str) and message else plain_message(status, body)
        wait = retry_after(headers)
        details = words.get("details")
        if _says(details, "API_KEY_INVALID"):
            status = 401  # Google answers 400 to a key it does not know
        return refusal(status, text, retry_after=_retry_delay(details) if wait is None else wait)

    def pass_through(self, body: bytes, head: Head, upstream: Upstream) -> UpstreamRequest:
        """The model stands in the URL. In the body only the cap is rewritten, and the model of embedding requests."""
        members = _members.decode(body)
        if head.endpoint is Endpoint.EMBEDDINGS:
            return self._embed(members, upstream)
        dropped: tuple[str, ...] = ()
        if upstream.max_output_tokens is not None:
            dropped = _cap(members, upstream.max_output_tokens)
            body = _json.encode(members)
        return self._post(upstream, _generate(stream=head.stream), body, dropped)

    def read_usage(self, endpoint: Endpoint, body: bytes) -> Usage | None:
        """None for embeddings: Google tells no usage for them."""
        if endpoint is Endpoint.EMBEDDINGS:
            read_embeddings(body, "")
            return None
        wire = read_answer(body)
        _require_answer(wire)
        usage, contents = usage_of(wire), [candidate.content for candidate in wire.candidates or ()]
        generated = any(content.parts for content in contents if content)
        return checked(usage, generated=generated) if usage is not None else None

    def relay(self, head: Head) -> Relay:
        return GeminiRelay(head.n)

    def verification(self, upstream: Upstream) -> UpstreamRequest:
        url = f"{upstream.base_url}/{VERSION}/models?pageSize=1000"
        return UpstreamRequest(method="GET", url=url, headers=self._headers(upstream))

    def parse_models(self, body: bytes) -> list[str]:
        try:
            return [model.name.removeprefix("models/") for model in _models.decode(body).models]
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InvalidResponse(f"The provider's list of models cannot be read: {error}") from error

    def count_tokens(self, body: bytes, upstream: Upstream) -> UpstreamRequest:
        """A client's countTokens, for this provider to answer."""
        members = _members.decode(body)
        for name in ("generateContentRequest", "generate_content_request"):
            if name in members:
                inner = _members.decode(members[name])
                inner["model"] = msgspec.Raw(_json.encode(f"models/{upstream.model}"))
                members[name] = msgspec.Raw(_json.encode(inner))
        return self._post(upstream, "countTokens", _json.encode(members))

    def count_request(self, request: ChatRequest, upstream: Upstream) -> UpstreamRequest:
        whole = GenerateBody(request, upstream.max_output_tokens).build(upstream.model)
        return self.count_tokens(_json.encode({"generateContentRequest": whole}), upstream)

    def read_count(self, body: bytes) -> int:
        """Input tokens in the answer to `count_tokens`."""
        return decoded(_count, body).total_tokens

    def _embed(self, members: dict[str, msgspec.Raw], upstream: Upstream) -> UpstreamRequest:
        model = msgspec.Raw(_json.encode(f"models/{upstream.model}"))
        if "requests" not in members:
            if "model" in members:
                members["model"] = model
            return self._post(upstream, "embedContent", _json.encode(members))
        requests = msgspec.json.decode(members["requests"], type=list[dict[str, msgspec.Raw]])
        for request in requests:
            request["model"] = model
        members["requests"] = msgspec.Raw(_json.encode(requests))
        return self._post(upstream, "batchEmbedContents", _json.encode(members))

    def _post(self, upstream: Upstream, method: str, body: bytes, dropped: tuple[str, ...] = ()) -> UpstreamRequest:
        return UpstreamRequest(
            method="POST",
            url=f"{self._model_url(upstream)}:{method}",
            headers=self._headers(upstream),
            body=body,
            dropped=dropped,
        )

    def _model_url(self, upstream: Upstream) -> str:
        """Where the model lives; a method follows. Vertex AI has a place of its own for it."""
        model = quote(upstream.model.removeprefix("models/"), safe="")
        return f"{upstream.base_url}/{VERSION}/models/{model}"

    def _headers(self, upstream: Upstream) -> dict[str, str]:
        return {"x-goog-api-key": upstream.secrets["api_key"], "content-type": "application/json"}


def _generate(*, stream: bool) -> str:
    return "streamGenerateContent?alt=sse" if stream else "generateContent"


def _cap(members: dict[str, msgspec.Raw], cap: int) -> tuple[str, ...]:
    """Exactly one cap leaves, whichever spelling the client used for it and for its place. Returns what was dropped."""
    name = "generation_config" if "generation_config" in members else "generationConfig"
    config = _members.decode(members[name]) if members.get(name, _NULL) != _NULL else {}
    config.pop("max_output_tokens", None)
    config["maxOutputTokens"] = msgspec.Raw(str(cap).encode())
    dropped = _fit_thinking(config, cap)
    members[name] = msgspec.Raw(_json.encode(config))
    return dropped


def _fit_thinking(config: dict[str, msgspec.Raw], cap: int) -> tuple[str, ...]:
    """Lowers the thinking budget below `cap`; where it has no room, the model's own default takes its place."""
    place = "thinking_config" if "thinking_config" in config else "thinkingConfig"
    if config.get(place, _NULL) == _NULL:
        return ()
    thinking = msgspec.json.decode(config[place], type=dict[str, Any])
    name = "thinking_budget" if "thinking_budget" in thinking else "thinkingBudget"
    budget = thinking.get(name)
    if type(budget) is not int or (fitting := budget_below(cap, budget, least=SMALLEST_BUDGET)) == budget:
        return ()
    if fitting is None:
        del thinking[name]
    else:
        thinking[name] = fitting
    config[place] = msgspec.Raw(_json.encode(thinking))
    return () if fitting else ("generationConfig.thinkingConfig.thinkingBudget",)


def _require_answer(wire: AnswerWire) -> None:
    if not wire.candidates and not (wire.prompt_feedback and wire.prompt_feedback.block_reason):
        raise InvalidResponse("The provider's answer has no candidates.")


def _choices(wire: AnswerWire, asked: int) -> tuple[Choice, ...]:
    _require_answer(wire)
    choices: list[Choice] = []
    name = name_of(wire.response_id)
    for candidate in wire.candidates or ():
        parts: list[Part] = []
        calls = 0
        for raw in (candidate.content.parts if candidate.content else None) or ():
            found = parts_of(raw, call_id(name, candidate.index, calls))
            calls += sum(isinstance(part, ToolCall) for part in found)
            parts += found
        cited = citations_of(candidate.grounding_metadata)
        last = next((at for at in range(len(parts) - 1, -1, -1) if isinstance(parts[at], Text)), None)
        if cited and last is not None:
            parts[last] = msgspec.structs.replace(parts[last], citations=cited)
        finish = finish_of(candidate.finish_reason, calls=calls > 0)
        logprobs = logprobs_of(candidate.logprobs_result)
        choices.append(Choice(index=candidate.index, parts=tuple(parts), finish=finish, logprobs=logprobs))
    return tuple(choices) or tuple(Choice(index=at, finish="content_filter") for at in range(asked))


def _details(details: object) -> list[Mapping[str, object]]:
    return [detail for detail in details if isinstance(detail, dict)] if isinstance(details, list) else []


def _says(details: object, reason: str) -> bool:
    return any(detail.get("reason") == reason for detail in _details(details))


def _retry_delay(details: object) -> float | None:
    """RetryInfo's `retryDelay`, e.g. "34.07s"."""
    for detail in _details(details):
        delay = detail.get("retryDelay")
        if isinstance(delay, str) and delay.endswith("s"):
            try:
                return max(0.0, float(delay[:-1]))
            except ValueError:
                return None
    return None
