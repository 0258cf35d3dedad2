"""The dialect contract.

parse(endpoint, body, model=…, stream=…)  -> Inbound          raises ApiError (400) that names the field
render(inbound, response)                 -> bytes            a whole answer; may raise ApiError
stream(inbound, request_id)               -> StreamRenderer   canonical events to SSE bytes
error(error, request_id)                  -> bytes            the error body in the dialect's shape
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, runtime_checkable

import msgspec

from conduit.proxy.errors import ApiError, answer_failed
from providers.adapters.base import Head
from providers.adapters.events import StreamEvent
from providers.adapters.types import (
    ChatRequest,
    ChatResponse,
    Choice,
    Dialect,
    EmbeddingRequest,
    EmbeddingResponse,
    Endpoint,
    Reasoning,
    Text,
)


class Inbound(msgspec.Struct, frozen=True, kw_only=True):
    """A validated request. `canonical()` builds the canonical form, only called when the wire format differs:
    it raises CannotCarry (providers.errors) for what only this dialect can say. Then `estimate` counts the prompt's
    tokens, roughly.
    """

    dialect: Dialect
    head: Head
    body: bytes
    canonical: Callable[[], ChatRequest | EmbeddingRequest]
    estimate: Callable[[], int] | None = None


def check_answered(response: ChatResponse) -> None:
    """Raises ApiError 502 for an answer that failed and says nothing, for dialects without a word for that."""
    if response.choices and all(_came_to_nothing(choice) for choice in response.choices):
        raise answer_failed()


def _came_to_nothing(choice: Choice) -> bool:
    return choice.finish == "error" and not any(
        bool(part.text) if isinstance(part, Text) else not isinstance(part, Reasoning) for part in choice.parts
    )


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
