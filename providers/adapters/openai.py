"""OpenAI's chat completions, completions and embeddings, and everybody who speaks them (CompatibleAdapter).

Requests to the Responses API are relayed too, where a kind's row says that its vendor serves it.

The stages live beside this file: openai_wire_request (canonical to body), openai_wire_answer (whole answers),
openai_wire_stream (streams, translated), openai_wire_relay (streams, relayed), openai_wire (usage and errors).
The Responses API has modules of its own, openai_responses_*.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urljoin

import msgspec

from providers.adapters.base import Head, Relay, StreamParser, Upstream, UpstreamRequest
from providers.adapters.openai_responses_answer import is_response, response_usage, whole_response
from providers.adapters.openai_responses_relay import ResponsesRelay
from providers.adapters.openai_wire import refusal_of
from providers.adapters.openai_wire_answer import chat_response, usage_in
from providers.adapters.openai_wire_embeddings import embedding_response
from providers.adapters.openai_wire_models import model_names
from providers.adapters.openai_wire_relay import CompletionRelay, OpenAIRelay
from providers.adapters.openai_wire_request import CAP_FIELDS, ChatBody, embedding_body
from providers.adapters.openai_wire_stream import OpenAIStream
from providers.adapters.quirks import PLAIN, Quirks
from providers.adapters.thinking import budget_below
from providers.adapters.types import (
    ChatRequest,
    ChatResponse,
    Dialect,
    EmbeddingRequest,
    EmbeddingResponse,
    Endpoint,
    Usage,
)
from providers.errors import UpstreamError

_PATHS = {
    Endpoint.CHAT: "/chat/completions",
    Endpoint.COMPLETIONS: "/completions",
    Endpoint.RESPONSES: "/responses",
    Endpoint.EMBEDDINGS: "/embeddings",
}
_TURNS = {Endpoint.CHAT: "messages", Endpoint.RESPONSES: "input"}  # the members that may hold media
_SMALLEST_BUDGET = 1024  # tokens of thinking that the vendors behind such servers take at least
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encoder = msgspec.json.Encoder()
_INCLUDE_USAGE = msgspec.Raw(b'{"include_usage":true}')


class OpenAIAdapter:
    """Options: `organization`, `project` (headers), `max_tokens_field` (name of the output cap)."""

    wire = Dialect.OPENAI
    native = frozenset(
        {
            (Dialect.OPENAI, Endpoint.CHAT),
            (Dialect.OPENAI, Endpoint.COMPLETIONS),
            (Dialect.OPENAI, Endpoint.EMBEDDINGS),
            (Dialect.RESPONSES, Endpoint.RESPONSES),
        }
    )
    cap_field = "max_completion_tokens"
    compatible = False

    def __init__(self, quirks: Quirks | None = None) -> None:
        self.quirks = quirks or PLAIN
        if quirks is not None:
            self.cap_field = quirks.cap_field

    def build_request(self, request: ChatRequest | EmbeddingRequest, upstream: Upstream) -> UpstreamRequest:
        if isinstance(request, EmbeddingRequest):
            body, dropped = embedding_body(request, upstream.model)
            return self._post(Endpoint.EMBEDDINGS, upstream, _encoder.encode(body), dropped)
        builder = ChatBody(compatible=self.compatible, quirks=self.quirks)
        body = builder.build(request, upstream.model)
        cap = request.max_output_tokens if upstream.max_output_tokens is None else upstream.max_output_tokens
        if cap is not None:
            body[self._cap_field(upstream)] = cap
        dropped = (*builder.dropped, *self.quirks.trim(body, upstream.model))
        return self._post(Endpoint.CHAT, upstream, _encoder.encode(body), dropped)

    def parse_response(self, request: ChatRequest | EmbeddingRequest, body: bytes) -> ChatResponse | EmbeddingResponse:
        """Raises InvalidResponse, or UpstreamRefusal for an error object that came with status 200."""
        if isinstance(request, EmbeddingRequest):
            return embedding_response(request, body)
        if request.extra_dialect is Dialect.RESPONSES and is_response(body):
            return whole_response(body)
        return chat_response(body)

    def stream_parser(self, request: ChatRequest) -> StreamParser:
        return OpenAIStream()

    def parse_error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        return refusal_of(status, headers, body)

    def pass_through(self, body: bytes, head: Head, upstream: Upstream) -> UpstreamRequest:
        """`body` is a JSON object that the dialect has validated; members that need no change stay byte for byte.

        Raises CannotCarry for what the vendor's quirks refuse."""
        members: dict[str, Any] = _members.decode(body)
        self.quirks.check_parts(body, members.get(_TURNS.get(head.endpoint, "")))
        members["model"] = upstream.model
        cap, dropped = upstream.max_output_tokens, tuple[str, ...]()
        if head.endpoint is Endpoint.RESPONSES:
            if cap is not None:
                members["max_output_tokens"] = cap
            dropped = self.quirks.trim_response(members, upstream.model)
            return self._post(head.endpoint, upstream, _encoder.encode(members), dropped)
        if cap is None and sum(name in members for name in CAP_FIELDS) > 1:
            cap = head.max_output_tokens  # caps that may contradict: the smallest one
        if cap is not None and head.endpoint is not Endpoint.EMBEDDINGS:
            for name in CAP_FIELDS:
                members.pop(name, None)
            members["max_tokens" if head.endpoint is Endpoint.COMPLETIONS else self._cap_field(upstream)] = cap
            if self.compatible and "reasoning" in members:
                dropped = _fit_reasoning(members, cap)
        if head.stream and self.quirks.asks_usage:
            members["stream_options"] = _with_usage(members.get("stream_options"))
        elif head.stream:
            members.pop("stream_options", None)
        dropped += self._trim(head.endpoint, members, upstream.model)
        return self._post(head.endpoint, upstream, _encoder.encode(members), dropped)

    def _trim(self, endpoint: Endpoint, members: dict[str, Any], model: str) -> tuple[str, ...]:
        if endpoint is Endpoint.CHAT:
            return self.quirks.trim(members, model)
        return self.quirks.trim_completion(members, model) if endpoint is Endpoint.COMPLETIONS else ()

    def read_usage(self, endpoint: Endpoint, body: bytes) -> Usage | None:
        """None when the answer reports none. Raises InvalidResponse for what is no answer, UpstreamRefusal for an
        error object that came with status 200; never because of odd figures."""
        return response_usage(body) if endpoint is Endpoint.RESPONSES else usage_in(endpoint, body)

    def relay(self, head: Head) -> Relay:
        if head.endpoint is Endpoint.RESPONSES:
            return ResponsesRelay()
        kind = CompletionRelay if head.endpoint is Endpoint.COMPLETIONS else OpenAIRelay
        return kind(keep_usage=head.include_usage)

    def verification(self, upstream: Upstream) -> UpstreamRequest:
        url = urljoin(f"{upstream.base_url}/", self.quirks.models)
        return UpstreamRequest(method="GET", url=url, headers=self._headers(upstream))

    def parse_models(self, body: bytes) -> list[str]:
        return model_names(body, self.quirks.listed)

    def _cap_field(self, upstream: Upstream) -> str:
        return str(upstream.options.get("max_tokens_field") or self.cap_field)

    def _headers(self, upstream: Upstream) -> dict[str, str]:
        headers: dict[str, str] = {}
        if key := upstream.secrets.get("api_key"):
            headers["authorization"] = f"Bearer {key}"
        for option, name in (("organization", "openai-organization"), ("project", "openai-project")):
            if value := upstream.options.get(option):
                headers[name] = str(value)
        return headers

    def _post(
        self, endpoint: Endpoint, upstream: Upstream, body: bytes, dropped: tuple[str, ...] = ()
    ) -> UpstreamRequest:
        headers = self._headers(upstream)
        headers["content-type"] = "application/json"
        url = upstream.base_url + _PATHS[endpoint]
        return UpstreamRequest(method="POST", url=url, headers=headers, body=body, dropped=dropped)


class CompatibleAdapter(OpenAIAdapter):
    """Other vendors' endpoints: the older cap field, and the fields ChatBody calls compatible."""

    cap_field = "max_tokens"
    compatible = True


def _fit_reasoning(members: dict[str, Any], cap: int) -> tuple[str, ...]:
    """OpenRouter's `reasoning.max_tokens` below the cap, or out. Returns what was dropped."""
    reasoning = msgspec.json.decode(members["reasoning"])
    budget = reasoning.get("max_tokens") if isinstance(reasoning, dict) else None
    if type(budget) is not int or (fitting := budget_below(cap, budget, least=_SMALLEST_BUDGET)) == budget:
        return ()
    if fitting is None:
        del reasoning["max_tokens"]
    else:
        reasoning["max_tokens"] = fitting
    members["reasoning"] = reasoning
    return () if fitting else ("reasoning.max_tokens",)


def _with_usage(options: msgspec.Raw | None) -> msgspec.Raw | dict[str, Any]:
    """The caller's stream options with usage asked for: metering needs it whoever else does."""
    if options is None:
        return _INCLUDE_USAGE
    wanted = msgspec.json.decode(options)
    return {**wanted, "include_usage": True} if isinstance(wanted, dict) else _INCLUDE_USAGE
