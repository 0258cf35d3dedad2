"""Ollama's own API: {base}/api/chat, /api/embed, /api/tags; the base URL is without /api.

Options of the provider: `num_ctx` (tokens of context that models are loaded with) and `keep_alive` (how long they stay
loaded). The stages live beside this file: ollama_request (canonical to body), ollama_answer (answers, usage, errors),
ollama_stream (streams).
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from providers.adapters.base import StreamParser, Upstream, UpstreamRequest
from providers.adapters.ollama_answer import embedding_response, model_names, read_chat
from providers.adapters.ollama_request import ChatBody, embedding_body
from providers.adapters.ollama_stream import OllamaStream
from providers.adapters.refusals import json_of, plain_message, retry_after, shortened
from providers.adapters.translated import TranslatedOnly
from providers.adapters.types import ChatRequest, ChatResponse, Dialect, EmbeddingRequest, EmbeddingResponse
from providers.adapters.vectors import as_asked
from providers.errors import UpstreamError, refusal

_json = msgspec.json.Encoder()


class OllamaAdapter(TranslatedOnly):
    wire = Dialect.OLLAMA

    def build_request(self, request: ChatRequest | EmbeddingRequest, upstream: Upstream) -> UpstreamRequest:
        """Raises CannotCarry for media that the API takes no other way than as bytes of an image, and for embeddings
        of token lists."""
        if isinstance(request, EmbeddingRequest):
            body, dropped = embedding_body(request, upstream)
            return self._post(upstream, "/api/embed", _json.encode(body), dropped)
        builder = ChatBody(request, upstream)
        body = builder.build()
        return self._post(upstream, "/api/chat", _json.encode(body), tuple(builder.dropped))

    def parse_response(self, request: ChatRequest | EmbeddingRequest, body: bytes) -> ChatResponse | EmbeddingResponse:
        """Raises InvalidResponse, or UpstreamRefusal for an error object that came with status 200."""
        if isinstance(request, EmbeddingRequest):
            return as_asked(request, embedding_response(request, body))
        return read_chat(body)

    def stream_parser(self, request: ChatRequest) -> StreamParser:
        return OllamaStream()

    def parse_error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        found = json_of(body)
        words = found.get("error") if isinstance(found, dict) else None
        text = shortened(words) if isinstance(words, str) and words else plain_message(status, body)
        return refusal(status, text, retry_after=retry_after(headers))

    def verification(self, upstream: Upstream) -> UpstreamRequest:
        return UpstreamRequest(method="GET", url=f"{upstream.base_url}/api/tags", headers=_headers(upstream))

    def parse_models(self, body: bytes) -> list[str]:
        return model_names(body)

    def _post(self, upstream: Upstream, path: str, body: bytes, dropped: tuple[str, ...]) -> UpstreamRequest:
        headers = {**_headers(upstream), "content-type": "application/json"}
        url = upstream.base_url + path
        return UpstreamRequest(method="POST", url=url, headers=headers, body=body, dropped=dropped)


def _headers(upstream: Upstream) -> dict[str, str]:
    """A server of one's own takes no key; a proxy before it, or Ollama's cloud, may."""
    key = upstream.secrets.get("api_key")
    return {"authorization": f"Bearer {key}"} if key else {}
