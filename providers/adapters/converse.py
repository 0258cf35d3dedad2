"""Amazon Bedrock's Converse: POST {base}/model/{id}/converse and …/converse-stream, for every family of models there.

`upstream.model` is a model's id, an inference profile's, or an ARN. Options of the provider: `guardrail`,
`guardrail_version`, `guardrail_trace` (a guardrail for each request), `latency` ("optimized"), `profiles` (object: an
ARN that does not say which model is behind it, to that model's id).

The stages live beside this file: converse_families (what models can do), converse_request and converse_content
(canonical to body), converse_answer (whole answers, usage, errors), converse_stream over event_stream.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

import msgspec

from providers.adapters.base import StreamParser, Upstream, UpstreamRequest
from providers.adapters.converse_answer import model_ids, read_answer, refusal_of
from providers.adapters.converse_families import family_of
from providers.adapters.converse_request import ConverseBody
from providers.adapters.converse_stream import ConverseStream
from providers.adapters.model_names import behind_profile
from providers.adapters.translated import TranslatedOnly
from providers.adapters.types import ChatRequest, ChatResponse, Dialect, EmbeddingRequest, EmbeddingResponse
from providers.errors import CannotCarry, UpstreamError

_json = msgspec.json.Encoder()


class ConverseAdapter(TranslatedOnly):
    wire = Dialect.CONVERSE

    def build_request(self, request: ChatRequest | EmbeddingRequest, upstream: Upstream) -> UpstreamRequest:
        """Raises CannotCarry for embeddings, and for what the model lacks and the answer would be wrong without."""
        if isinstance(request, EmbeddingRequest):
            raise CannotCarry("input", "Converse has no embeddings")
        known = behind_profile(upstream.model, upstream.options)
        body = ConverseBody(request, family_of(known), upstream.max_output_tokens, upstream.options)
        content = _json.encode(body.build())
        call = "converse-stream" if request.stream else "converse"
        return UpstreamRequest(
            method="POST",
            url=f"{upstream.base_url}/model/{quote(upstream.model, safe='-._~')}/{call}",
            headers={**_credential(upstream), "content-type": "application/json"},
            body=content,
            dropped=tuple(body.dropped),
        )

    def parse_response(self, request: ChatRequest | EmbeddingRequest, body: bytes) -> ChatResponse | EmbeddingResponse:
        """Raises InvalidResponse for what is no answer of Converse."""
        assert isinstance(request, ChatRequest)
        return read_answer(request, body)

    def stream_parser(self, request: ChatRequest) -> StreamParser:
        return ConverseStream(request)

    def parse_error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        return refusal_of(status, headers, body)

    def verification(self, upstream: Upstream) -> UpstreamRequest:
        """Lists the models; where and how signed, says BedrockAdapter."""
        url = f"{upstream.base_url}/foundation-models"
        return UpstreamRequest(method="GET", url=url, headers=_credential(upstream))

    def parse_models(self, body: bytes) -> list[str]:
        return model_ids(body)


def _credential(upstream: Upstream) -> dict[str, str]:
    """A Bedrock API key; AWS keys sign instead."""
    key = upstream.secrets.get("api_key")
    return {"authorization": f"Bearer {key}"} if key else {}
