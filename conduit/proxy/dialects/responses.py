"""The dialect of OpenAI's responses. The parts stand in the modules responses_* beside this one."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from conduit.proxy.dialects import openai_answer, responses_answer
from conduit.proxy.dialects.base import Inbound, ModelEntry
from conduit.proxy.dialects.openai_stream import error_object
from conduit.proxy.dialects.responses_request import parse_responses
from conduit.proxy.errors import ApiError
from providers.adapters.types import ChatResponse, Dialect, EmbeddingResponse, Endpoint


class ResponsesDialect:
    name = Dialect.RESPONSES

    def parse(self, endpoint: Endpoint, body: bytes, *, model: str = "", stream: bool = False) -> Inbound:
        return parse_responses(body)

    def render(self, inbound: Inbound, response: ChatResponse | EmbeddingResponse) -> bytes:
        assert isinstance(response, ChatResponse)
        return responses_answer.whole(inbound, response)

    def stream(self, inbound: Inbound, request_id: str) -> responses_answer.ResponsesRenderer:
        return responses_answer.ResponsesRenderer(inbound)

    def error(self, error: ApiError, request_id: str) -> bytes:
        return msgspec.json.encode(error_object(error))

    def models(self, entries: Iterable[ModelEntry]) -> bytes:
        return openai_answer.models(entries)

    def model(self, entry: ModelEntry) -> bytes:
        return openai_answer.model(entry)


RESPONSES = ResponsesDialect()
