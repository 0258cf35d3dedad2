"""Endpoints that speak a known wire format with ways of their own: authentication, headers, paths.

Options: `auth` ("bearer", "none" or the name of the header that takes the key; default: the wire format's own way),
`headers` (object of fixed headers), `path_map` (object: the wire format's path to the endpoint's own, both below the
base URL, e.g. {"/chat/completions": "/chat"}). The credential's field `headers` is the same object, encrypted.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import msgspec

from providers.adapters.base import Adapter, Counting, Head, Relay, StreamParser, Upstream, UpstreamRequest
from providers.adapters.types import (
    ChatRequest,
    ChatResponse,
    EmbeddingRequest,
    EmbeddingResponse,
    Endpoint,
    Usage,
)
from providers.errors import UpstreamError

_secret_headers = msgspec.json.Decoder(dict[str, str]).decode
_KEY_HEADERS = ("authorization", "x-api-key", "x-goog-api-key")


class DressedAdapter(ABC):
    """An adapter whose requests are changed before they leave; what comes back is the inner adapter's affair."""

    def __init__(self, inner: Adapter) -> None:
        self.inner = inner
        self.wire, self.native = inner.wire, inner.native

    def aimed(self, upstream: Upstream) -> Upstream:
        """The upstream as the inner adapter shall see it."""
        return upstream

    @abstractmethod
    def dress(self, request: UpstreamRequest, upstream: Upstream) -> UpstreamRequest:
        """The request as it leaves; `upstream` is the one that was configured."""

    def build_request(self, request: ChatRequest | EmbeddingRequest, upstream: Upstream) -> UpstreamRequest:
        return self.dress(self.inner.build_request(request, self.aimed(upstream)), upstream)

    def pass_through(self, body: bytes, head: Head, upstream: Upstream) -> UpstreamRequest:
        return self.dress(self.inner.pass_through(body, head, self.aimed(upstream)), upstream)

    def verification(self, upstream: Upstream) -> UpstreamRequest:
        return self.dress(self.inner.verification(self.aimed(upstream)), upstream)

    def parse_response(self, request: ChatRequest | EmbeddingRequest, body: bytes) -> ChatResponse | EmbeddingResponse:
        return self.inner.parse_response(request, body)

    def stream_parser(self, request: ChatRequest) -> StreamParser:
        return self.inner.stream_parser(request)

    def parse_error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        return self.inner.parse_error(status, headers, body)

    def read_usage(self, endpoint: Endpoint, body: bytes) -> Usage | None:
        return self.inner.read_usage(endpoint, body)

    def relay(self, head: Head) -> Relay:
        return self.inner.relay(head)

    def parse_models(self, body: bytes) -> list[str]:
        return self.inner.parse_models(body)

    @property
    def can_count(self) -> bool:
        return isinstance(self.inner, Counting) and self.inner.can_count

    def count_tokens(self, body: bytes, upstream: Upstream) -> UpstreamRequest:
        return self.dress(self._counter.count_tokens(body, self.aimed(upstream)), upstream)

    def count_request(self, request: ChatRequest, upstream: Upstream) -> UpstreamRequest:
        return self.dress(self._counter.count_request(request, self.aimed(upstream)), upstream)

    def read_count(self, body: bytes) -> int:
        return self._counter.read_count(body)

    @property
    def _counter(self) -> Counting:
        """Only where `can_count`."""
        assert isinstance(self.inner, Counting)
        return self.inner


class CustomAdapter(DressedAdapter):
    def dress(self, request: UpstreamRequest, upstream: Upstream) -> UpstreamRequest:
        options, headers = upstream.options, request.headers
        _authenticate(headers, str(options.get("auth") or ""), upstream.secrets.get("api_key", ""))
        for name, value in (options.get("headers") or {}).items():
            headers[str(name).lower()] = str(value)
        if secret := upstream.secrets.get("headers"):
            headers.update({name.lower(): text for name, text in _secret_headers(secret).items()})
        paths = options.get("path_map")
        path = request.url.removeprefix(upstream.base_url)
        if paths and path in paths:
            return msgspec.structs.replace(request, url=f"{upstream.base_url}/{str(paths[path]).lstrip('/')}")
        return request


def _authenticate(headers: dict[str, str], auth: str, key: str) -> None:
    if not auth:
        if not key:
            for name in _KEY_HEADERS:
                headers.pop(name, None)
        return
    for name in _KEY_HEADERS:
        headers.pop(name, None)
    if key and auth == "bearer":
        headers["authorization"] = f"Bearer {key}"
    elif key and auth != "none":
        headers[auth.lower()] = key
