"""OpenAI's Responses API as the wire format: for models that the vendor serves nowhere else.

Embeddings, models and errors are those of OpenAI's other API. The stages: openai_responses_request (canonical to body)
with openai_responses_input, openai_responses_answer (whole answers), openai_responses_stream (streams, translated),
openai_responses_relay (streams, relayed).
"""

from __future__ import annotations

import msgspec

from providers.adapters.base import StreamParser, Upstream, UpstreamRequest
from providers.adapters.openai import OpenAIAdapter
from providers.adapters.openai_responses_answer import whole_response
from providers.adapters.openai_responses_request import ResponsesBody
from providers.adapters.openai_responses_stream import ResponsesStream
from providers.adapters.types import (
    ChatRequest,
    ChatResponse,
    Dialect,
    EmbeddingRequest,
    EmbeddingResponse,
    Endpoint,
)

_encode = msgspec.json.Encoder().encode


class OpenAIResponsesAdapter(OpenAIAdapter):
    wire = Dialect.RESPONSES
    native = frozenset({(Dialect.RESPONSES, Endpoint.RESPONSES), (Dialect.OPENAI, Endpoint.EMBEDDINGS)})

    def build_request(self, request: ChatRequest | EmbeddingRequest, upstream: Upstream) -> UpstreamRequest:
        """Raises CannotCarry for several choices."""
        if isinstance(request, EmbeddingRequest):
            return super().build_request(request, upstream)
        builder = ResponsesBody()
        body = builder.build(request, upstream.model)
        cap = request.max_output_tokens if upstream.max_output_tokens is None else upstream.max_output_tokens
        if cap is not None:
            body["max_output_tokens"] = cap
        return self._post(Endpoint.RESPONSES, upstream, _encode(body), tuple(builder.dropped))

    def parse_response(self, request: ChatRequest | EmbeddingRequest, body: bytes) -> ChatResponse | EmbeddingResponse:
        if isinstance(request, EmbeddingRequest):
            return super().parse_response(request, body)
        return whole_response(body)

    def stream_parser(self, request: ChatRequest) -> StreamParser:
        return ResponsesStream()
