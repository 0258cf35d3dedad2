"""Anthropic's dialect: /v1/messages, /v1/messages/count_tokens and its shape of /v1/models."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec

from conduit.proxy.dialects.anthropic_render import message_body
from conduit.proxy.dialects.anthropic_request import canonical, canonical_prompt, count_decoder, request_decoder
from conduit.proxy.dialects.anthropic_stream import AnthropicStream
from conduit.proxy.dialects.base import Inbound, ModelEntry, StreamRenderer, check_answered
from conduit.proxy.dialects.json_body import decode
from conduit.proxy.errors import ApiError, unknown_path
from providers.adapters.base import Head
from providers.adapters.types import ChatResponse, Dialect, EmbeddingResponse, Endpoint, JSONObject

ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_json = msgspec.json.Encoder()


class AnthropicDialect:
    name = Dialect.ANTHROPIC

    def parse(self, endpoint: Endpoint, body: bytes, *, model: str = "", stream: bool = False) -> Inbound:
        """Raises ApiError 400 that names the field. `model` and `stream` stand in the body, not in the path."""
        if endpoint is not Endpoint.MESSAGES:
            raise unknown_path(endpoint)
        wire = decode(request_decoder, body)
        head = Head(
            endpoint=Endpoint.MESSAGES,
            model=wire.model,
            stream=bool(wire.stream),
            include_usage=True,
            max_output_tokens=wire.max_tokens,
            user=(wire.metadata.user_id if wire.metadata else None) or "",
        )
        return Inbound(dialect=self.name, head=head, body=body, canonical=lambda: canonical(wire, body))

    def parse_count(self, body: bytes, *, model: str = "") -> Inbound:
        """A question for the number of input tokens; its canonical form holds messages and tools only."""
        wire = decode(count_decoder, body)
        head = Head(endpoint=Endpoint.MESSAGES, model=wire.model)
        return Inbound(dialect=self.name, head=head, body=body, canonical=lambda: canonical_prompt(wire, body))

    def render_count(self, tokens: int) -> bytes:
        return _json.encode({"input_tokens": tokens})

    def render(self, inbound: Inbound, response: ChatResponse | EmbeddingResponse) -> bytes:
        if isinstance(response, EmbeddingResponse):
            raise TypeError("the Anthropic dialect has no embeddings")
        check_answered(response)
        return _json.encode(message_body(response, inbound.head.model))

    def stream(self, inbound: Inbound, request_id: str) -> StreamRenderer:
        def error_frame(error: ApiError) -> bytes:
            return b"event: error\ndata: " + self.error(error, request_id) + b"\n\n"

        return AnthropicStream(inbound.head.model, error_frame)

    def error(self, error: ApiError, request_id: str) -> bytes:
        kind = ERROR_TYPES.get(error.status, "api_error" if error.status >= 500 else "invalid_request_error")
        body = {"type": "error", "error": {"type": kind, "message": error.message}, "request_id": request_id}
        return _json.encode(body)

    def models(self, entries: Iterable[ModelEntry]) -> bytes:
        data = [_model(entry) for entry in entries]
        first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
        return _json.encode({"data": data, "has_more": False, "first_id": first, "last_id": last})

    def model(self, entry: ModelEntry) -> bytes:
        return _json.encode(_model(entry))


def _model(entry: ModelEntry) -> JSONObject:
    return {
        "type": "model",
        "id": entry.name,
        "display_name": entry.title or entry.name,
        "created_at": datetime.fromtimestamp(entry.created, UTC).isoformat().replace("+00:00", "Z"),
        "lifecycle": "active",
        "max_input_tokens": entry.context_window or None,
        "max_tokens": entry.max_output_tokens or None,
    }


ANTHROPIC = AnthropicDialect()
