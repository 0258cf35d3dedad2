"""Gemini's dialect: generateContent, streamGenerateContent, countTokens, embedContent, batchEmbedContents, models."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from conduit.proxy.dialects.base import Inbound, ModelEntry, StreamRenderer
from conduit.proxy.dialects.gemini_render import answer_body, embeddings_body
from conduit.proxy.dialects.gemini_request import canonical, canonical_embedding, canonical_prompt
from conduit.proxy.dialects.gemini_stream import GeminiStream
from conduit.proxy.dialects.gemini_wire import (
    BatchEmbedWire,
    CountWire,
    EmbedWire,
    PromptWire,
    RequestWire,
    camel_body,
)
from conduit.proxy.dialects.json_body import check_names, decode
from conduit.proxy.errors import ApiError, invalid_value, unknown_path
from providers.adapters.base import Head
from providers.adapters.types import ChatRequest, ChatResponse, Dialect, EmbeddingResponse, Endpoint, JSONObject

STATUS_WORDS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
METHODS = ("generateContent", "streamGenerateContent", "countTokens", "embedContent", "batchEmbedContents")

_json = msgspec.json.Encoder()
_request = msgspec.json.Decoder(RequestWire)
_count = msgspec.json.Decoder(CountWire)
_embed = msgspec.json.Decoder(EmbedWire)
_batch = msgspec.json.Decoder(BatchEmbedWire)
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_object = msgspec.json.Decoder(dict[str, Any])


class GeminiDialect:
    name = Dialect.GEMINI

    def parse(self, endpoint: Endpoint, body: bytes, *, model: str = "", stream: bool = False) -> Inbound:
        """Raises ApiError 400 that names the field, in camelCase whatever the client's spelling."""
        if endpoint is Endpoint.EMBEDDINGS:
            return self._parse_embedding(body, model)
        if endpoint is not Endpoint.GENERATE:
            raise unknown_path(endpoint)
        camel = camel_body(body)
        wire = decode(_request, camel)
        config = wire.generation_config
        if config is not None:
            _check_config(body)
        head = Head(
            endpoint=Endpoint.GENERATE,
            model=model,
            stream=stream,
            include_usage=True,
            max_output_tokens=config.max_output_tokens if config else None,
            n=(config.candidate_count if config else None) or 1,
        )

        def build() -> ChatRequest:
            return canonical(wire, camel, model=model, stream=stream)

        return Inbound(dialect=self.name, head=head, body=body, canonical=build)

    def _parse_embedding(self, body: bytes, model: str) -> Inbound:
        camel = camel_body(body)
        if _is_batch(camel):
            requests = decode(_batch, camel).requests
        else:
            requests = [decode(_embed, camel)]
        head = Head(endpoint=Endpoint.EMBEDDINGS, model=model, inputs=len(requests))
        return Inbound(dialect=self.name, head=head, body=body, canonical=lambda: canonical_embedding(requests, model))

    def parse_count(self, body: bytes, *, model: str = "") -> Inbound:
        """A question for the number of input tokens; its canonical form holds messages and tools only."""
        camel = camel_body(body)
        wire = decode(_count, camel)
        inner = wire.generate_content_request
        if inner is None and not wire.contents:
            raise invalid_value("contents", "contents: this field is required.")
        prompt = inner or PromptWire(contents=wire.contents or [])

        def build() -> ChatRequest:
            whole = _object.decode(camel)
            return canonical_prompt(prompt, whole["generateContentRequest"] if inner else whole, model)

        head = Head(endpoint=Endpoint.GENERATE, model=model)
        return Inbound(dialect=self.name, head=head, body=body, canonical=build)

    def render_count(self, tokens: int) -> bytes:
        return _json.encode({"totalTokens": tokens})

    def render(self, inbound: Inbound, response: ChatResponse | EmbeddingResponse) -> bytes:
        if isinstance(response, EmbeddingResponse):
            return _json.encode(embeddings_body(response, batch=_is_batch(inbound.body)))
        return _json.encode(answer_body(response, inbound.head.model))

    def stream(self, inbound: Inbound, request_id: str) -> StreamRenderer:
        """SSE frames; for a client without `alt=sse`, `gemini_stream.ArrayFrames` makes them an array."""
        return GeminiStream(inbound.head.model, lambda error: self.error(error, request_id))

    def error(self, error: ApiError, request_id: str) -> bytes:
        word = STATUS_WORDS.get(error.status, "INTERNAL" if error.status >= 500 else "INVALID_ARGUMENT")
        details: list[JSONObject] = [
            {
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": error.code.upper(),
                "domain": "conduit",
                "metadata": {"requestId": request_id},
            }
        ]
        if wait := error.headers.get("retry-after"):
            details.append({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{wait}s"})
        body = {"code": error.status, "message": error.message, "status": word, "details": details}
        return _json.encode({"error": body})

    def models(self, entries: Iterable[ModelEntry]) -> bytes:
        return _json.encode({"models": [_model(entry) for entry in entries]})

    def model(self, entry: ModelEntry) -> bytes:
        return _json.encode(_model(entry))


def _check_config(body: bytes) -> None:
    """The cap and the number of candidates stand within: given twice, we and Google might each believe another one."""
    members = _members.decode(body)
    name = "generation_config" if "generation_config" in members else "generationConfig"
    check_names(bytes(members[name]), "generationConfig")


def _is_batch(body: bytes) -> bool:
    """Both embedding calls share an endpoint; only the batch has `requests`."""
    return b'"requests"' in body and "requests" in decode(_members, body)


def _model(entry: ModelEntry) -> JSONObject:
    body: JSONObject = {
        "name": f"models/{entry.name}",
        "version": "1",
        "displayName": entry.title or entry.name,
        "supportedGenerationMethods": list(METHODS),
    }
    if entry.context_window:
        body["inputTokenLimit"] = entry.context_window
    if entry.max_output_tokens:
        body["outputTokenLimit"] = entry.max_output_tokens
    return body


GEMINI = GeminiDialect()
