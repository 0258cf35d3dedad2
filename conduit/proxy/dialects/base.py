"""The dialect contract.

parse(endpoint, body, model=…, stream=…)  -> Inbound          raises ApiError (400) that names the field
render(inbound, response)                 -> bytes            a whole answer
stream(inbound, request_id)               -> StreamRenderer   canonical events to SSE bytes
error(error, request_id)                  -> bytes            the error body in the dialect's shape
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, runtime_checkable

import msgspec

from conduit.proxy.errors import ApiError
from providers.adapters.base import Head
from providers.adapters.types import (
    ChatRequest,
    ChatResponse,
    Dialect,
    EmbeddingRequest,
    EmbeddingResponse,
    Endpoint,
    StreamEvent,
)


class Inbound(msgspec.Struct, frozen=True, kw_only=True):
    """A validated request. `canonical()` builds the canonical form, only called when the wire format differs."""

    dialect: Dialect
    head: Head
    body: bytes
    canonical: Callable[[], ChatRequest | EmbeddingRequest]


class ModelEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One name a key may use, for the dialects' lists of models. Limits in tokens; 0 when unknown."""

    name: str
    title: str = ""
    owner: str = ""
    created: int = 0  # Unix seconds
    context_window: int = 0
    max_output_tokens: int = 0


class StreamRenderer(Protocol):
    def feed(self, events: list[StreamEvent]) -> bytes:
        """SSE bytes for these events; may be empty."""
        ...

    def broken(self, error: ApiError) -> bytes:
        """The in-band error event that ends a stream which broke after its first byte; no end marker follows."""
        ...


class DialectModule(Protocol):
    name: Dialect

    def parse(self, endpoint: Endpoint, body: bytes, *, model: str = "", stream: bool = False) -> Inbound:
        """`model` and `stream` come from the path where the dialect puts them there (Gemini)."""
        ...

    def render(self, inbound: Inbound, response: ChatResponse | EmbeddingResponse) -> bytes: ...

    def stream(self, inbound: Inbound, request_id: str) -> StreamRenderer: ...

    def error(self, error: ApiError, request_id: str) -> bytes: ...

    def models(self, entries: Iterable[ModelEntry]) -> bytes: ...

    def model(self, entry: ModelEntry) -> bytes: ...


@runtime_checkable
class CountingDialect(Protocol):
    """A dialect that lets clients ask how many tokens a prompt has."""

    def parse_count(self, body: bytes, *, model: str = "") -> Inbound: ...

    def render_count(self, tokens: int) -> bytes: ...
