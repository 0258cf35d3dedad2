"""Google Vertex AI: three wire formats below one project and location; the row says which model speaks which.

VertexGeminiAdapter   …/publishers/google/models/M:generateContent, and embeddings (vertex_embeddings)
VertexClaudeAdapter   …/publishers/anthropic/models/M:rawPredict, with the version of the API in the body
VertexOpenAIAdapter   …/endpoints/openapi/chat/completions, for everybody else's models

The project is the option `project`, else the credential's own; the access token was minted by providers/tokens.py.
Reference: google-genai (vertexai=True), anthropic.AnthropicVertex, and Google's reference of the Vertex AI API v1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import msgspec

from providers.adapters.anthropic import AnthropicAdapter
from providers.adapters.base import Upstream, UpstreamRequest
from providers.adapters.gemini import GeminiAdapter
from providers.adapters.model_names import behind_publisher
from providers.adapters.openai import CompatibleAdapter
from providers.adapters.refusals import json_of
from providers.adapters.types import (
    ChatRequest,
    ChatResponse,
    Dialect,
    EmbeddingRequest,
    EmbeddingResponse,
    Endpoint,
)
from providers.adapters.vectors import as_asked
from providers.adapters.vertex_embeddings import embedding_call, read_embeddings
from providers.errors import CannotCarry, InvalidResponse, UpstreamError

CLAUDE_VERSION = "vertex-2023-10-16"
_MULTI_REGIONS = ("us", "eu")
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_json = msgspec.json.Encoder()
# What countTokens takes at Vertex; the Gemini API also takes a whole request inside the request.
_COUNTED = frozenset({"contents", "systemInstruction", "system_instruction", "tools", "generationConfig"})


class _Published(msgspec.Struct):
    name: str


class _PublishedModels(msgspec.Struct):
    publisherModels: list[_Published] = []  # noqa: N815 (the wire's name)


class _OnVertex:
    """What the three have in common: where they are, how they sign in, how a credential is proved."""

    def _headers(self, upstream: Upstream) -> dict[str, str]:
        return {"authorization": f"Bearer {upstream.secrets['access_token']}", "content-type": "application/json"}

    def verification(self, upstream: Upstream) -> UpstreamRequest:
        url = f"{_root(upstream)}/v1beta1/publishers/google/models?pageSize=1000"
        return UpstreamRequest(method="GET", url=url, headers=self._headers(upstream))

    def parse_models(self, body: bytes) -> list[str]:
        """`publishers/google/models/NAME` is called google/NAME, as the OpenAI-style endpoint calls it."""
        try:
            found = msgspec.json.decode(body, type=_PublishedModels).publisherModels
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InvalidResponse(f"The provider's list of models cannot be read: {error}") from error
        return [model.name.removeprefix("publishers/").replace("/models/", "/", 1) for model in found]


class VertexGeminiAdapter(_OnVertex, GeminiAdapter):
    native = frozenset({(Dialect.GEMINI, Endpoint.GENERATE)})

    def build_request(self, request: ChatRequest | EmbeddingRequest, upstream: Upstream) -> UpstreamRequest:
        """Raises CannotCarry for embeddings of token lists, and of several texts where the model takes one."""
        if not isinstance(request, EmbeddingRequest):
            return super().build_request(request, upstream)
        method, body, dropped = embedding_call(request, _model(upstream))
        return self._post(upstream, method, _json.encode(body), dropped)

    def parse_response(self, request: ChatRequest | EmbeddingRequest, body: bytes) -> ChatResponse | EmbeddingResponse:
        if isinstance(request, EmbeddingRequest):
            return as_asked(request, read_embeddings(request, body))
        return super().parse_response(request, body)

    def count_tokens(self, body: bytes, upstream: Upstream) -> UpstreamRequest:
        members = _members.decode(body)
        for name in ("generateContentRequest", "generate_content_request"):
            if name in members:
                members = _members.decode(members[name])
        kept = {name: value for name, value in members.items() if name in _COUNTED}
        return self._post(upstream, "countTokens", _json.encode(kept))

    def _model_url(self, upstream: Upstream) -> str:
        return _model_url(upstream, "google")


class VertexClaudeAdapter(_OnVertex, AnthropicAdapter):
    def count_tokens(self, body: bytes, upstream: Upstream) -> UpstreamRequest:
        members: dict[str, Any] = _members.decode(body)
        members["model"] = _model(upstream)
        members.setdefault("anthropic_version", _version(upstream))
        url = f"{_publisher(upstream, 'anthropic')}/models/count-tokens:rawPredict"
        return UpstreamRequest(method="POST", url=url, headers=self._headers(upstream), body=_json.encode(members))

    def parse_error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        """Google's own errors may come in an array where a stream was asked for."""
        found = json_of(body)
        if isinstance(found, list) and found:
            body = _json.encode(found[0])
        return super().parse_error(status, headers, body)

    def _post(
        self, upstream: Upstream, members: dict[str, Any], dropped: tuple[str, ...], *, stream: bool
    ) -> UpstreamRequest:
        """The model stands in the URL, and the version in the body."""
        del members["model"]
        members.setdefault("anthropic_version", _version(upstream))
        method = "streamRawPredict" if stream else "rawPredict"
        return UpstreamRequest(
            method="POST",
            url=f"{_model_url(upstream, 'anthropic')}:{method}",
            headers=self._headers(upstream),
            body=_json.encode(members),
            dropped=dropped,
        )

    def _headers(self, upstream: Upstream) -> dict[str, str]:
        headers = super()._headers(upstream)
        if beta := upstream.options.get("anthropic_beta"):
            headers["anthropic-beta"] = str(beta)
        return headers


class VertexOpenAIAdapter(_OnVertex, CompatibleAdapter):
    def _post(
        self, endpoint: Endpoint, upstream: Upstream, body: bytes, dropped: tuple[str, ...] = ()
    ) -> UpstreamRequest:
        placed = msgspec.structs.replace(upstream, base_url=f"{_location(upstream)}/endpoints/openapi")
        return super()._post(endpoint, placed, body, dropped)


def _root(upstream: Upstream) -> str:
    """Locations have a host each; the global one has no name in it, multi-regions are named elsewhere in it."""
    root = upstream.base_url.replace("//global-aiplatform.", "//aiplatform.", 1)
    for name in _MULTI_REGIONS:
        root = root.replace(f"//{name}-aiplatform.googleapis.com", f"//aiplatform.{name}.rep.googleapis.com", 1)
    return root


def _project(upstream: Upstream) -> str:
    return str(upstream.options.get("project") or upstream.secrets.get("project_id", ""))


def _location(upstream: Upstream) -> str:
    """Raises CannotCarry where nobody said which project pays."""
    project = _project(upstream)
    if not project:
        raise CannotCarry("model", "Vertex AI needs a project: set the provider's option `project`")
    return f"{_root(upstream)}/v1/projects/{quote(project, safe=':')}/locations/{upstream.region or 'global'}"


def _publisher(upstream: Upstream, publisher: str) -> str:
    return f"{_location(upstream)}/publishers/{publisher}"


def _model(upstream: Upstream) -> str:
    return behind_publisher(upstream.model, upstream.options)


def _model_url(upstream: Upstream, publisher: str) -> str:
    return f"{_publisher(upstream, publisher)}/models/{quote(_model(upstream), safe='@')}"


def _version(upstream: Upstream) -> str:
    options: Mapping[str, Any] = upstream.options
    return str(options.get("anthropic_version") or CLAUDE_VERSION)
