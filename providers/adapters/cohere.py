"""Cohere's API, version 2: {base}/v2/chat, {base}/v2/embed, {base}/v1/models; the base URL is without version.

The stages live beside this file: cohere_request and cohere_messages (canonical to body), cohere_answer (whole answers,
usage, errors), cohere_stream (streams).
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from providers.adapters.base import StreamParser, Upstream, UpstreamRequest
from providers.adapters.cohere_answer import chat_response, embedding_response, model_names, refusal_of
from providers.adapters.cohere_request import ChatBody, embedding_body
from providers.adapters.cohere_stream import CohereStream
from providers.adapters.translated import TranslatedOnly
from providers.adapters.types import ChatRequest, ChatResponse, Dialect, EmbeddingRequest, EmbeddingResponse, JSONObject
from providers.errors import UpstreamError

_json = msgspec.json.Encoder()


class CohereAdapter(TranslatedOnly):
    wire = Dialect.COHERE

    def build_request(self, request: ChatRequest | EmbeddingRequest, upstream: Upstream) -> UpstreamRequest:
        """Raises CannotCarry for media, stop sequences and inputs that Cohere has no place for."""
        if isinstance(request, EmbeddingRequest):
            embedding, lost = embedding_body(request, upstream.model)
            return _post(upstream, "embed", embedding, lost)
        builder = ChatBody(request, upstream.max_output_tokens)
        body = builder.build(upstream.model)
        return _post(upstream, "chat", body, tuple(builder.dropped))

    def parse_response(self, request: ChatRequest | EmbeddingRequest, body: bytes) -> ChatResponse | EmbeddingResponse:
        if isinstance(request, EmbeddingRequest):
            return embedding_response(request, body)
        return chat_response(body)

    def stream_parser(self, request: ChatRequest) -> StreamParser:
        return CohereStream()

    def parse_error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        return refusal_of(status, headers, body)

    def verification(self, upstream: Upstream) -> UpstreamRequest:
        url = f"{upstream.base_url}/v1/models?endpoint=chat&page_size=1000"
        return UpstreamRequest(method="GET", url=url, headers=_headers(upstream))

    def parse_models(self, body: bytes) -> list[str]:
        return model_names(body)


def _headers(upstream: Upstream) -> dict[str, str]:
    return {"authorization": f"Bearer {upstream.secrets['api_key']}", "accept": "application/json"}


def _post(upstream: Upstream, path: str, body: JSONObject, dropped: tuple[str, ...]) -> UpstreamRequest:
    headers = _headers(upstream)
    headers["content-type"] = "application/json"
    if body.get("stream"):
        headers["accept"] = "text/event-stream"
    return UpstreamRequest(
        method="POST", url=f"{upstream.base_url}/v2/{path}", headers=headers, body=_json.encode(body), dropped=dropped
    )
