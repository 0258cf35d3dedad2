"""The OpenAI dialect: chat completions, completions and embeddings. The parts stand in the modules openai_* here."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from conduit.proxy.dialects import openai_answer
from conduit.proxy.dialects.base import Inbound, ModelEntry, StreamRenderer, check_answered
from conduit.proxy.dialects.openai_chat import parse_chat
from conduit.proxy.dialects.openai_completions import parse_completion
from conduit.proxy.dialects.openai_completions_answer import CompletionRenderer, text_completion
from conduit.proxy.dialects.openai_embeddings import parse_embeddings
from conduit.proxy.dialects.openai_stream import OpenAIRenderer, error_object
from conduit.proxy.errors import ApiError
from providers.adapters.types import ChatResponse, Dialect, EmbeddingResponse, Endpoint

_PARSERS = {
    Endpoint.CHAT: parse_chat,
    Endpoint.COMPLETIONS: parse_completion,
    Endpoint.EMBEDDINGS: parse_embeddings,
}


class OpenAIDialect:
    name = Dialect.OPENAI

    def parse(self, endpoint: Endpoint, body: bytes, *, model: str = "", stream: bool = False) -> Inbound:
        return _PARSERS[endpoint](body)

    def render(self, inbound: Inbound, response: ChatResponse | EmbeddingResponse) -> bytes:
        if isinstance(response, EmbeddingResponse):
            return openai_answer.embeddings(inbound, response)
        check_answered(response)
        if inbound.head.endpoint is Endpoint.COMPLETIONS:
            return text_completion(response)
        return openai_answer.chat_completion(response)

    def stream(self, inbound: Inbound, request_id: str) -> StreamRenderer:
        head = inbound.head
        renderer = CompletionRenderer if head.endpoint is Endpoint.COMPLETIONS else OpenAIRenderer
        return renderer(model=head.model, request_id=request_id, include_usage=head.include_usage)

    def error(self, error: ApiError, request_id: str) -> bytes:
        return msgspec.json.encode(error_object(error))

    def models(self, entries: Iterable[ModelEntry]) -> bytes:
        """The body of GET /v1/models."""
        return openai_answer.models(entries)

    def model(self, entry: ModelEntry) -> bytes:
        """The body of GET /v1/models/{id}."""
        return openai_answer.model(entry)


OPENAI = OpenAIDialect()
