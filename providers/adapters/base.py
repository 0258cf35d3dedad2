"""The adapter contract: four pure methods turn canonical types into one provider's bytes and back.

    build_request(ChatRequest | EmbeddingRequest, Upstream) -> UpstreamRequest
    parse_response(request, body)                           -> ChatResponse | EmbeddingResponse
    stream_parser(request)                                  -> StreamParser      feed(bytes) -> events
    parse_error(status, headers, body)                      -> UpstreamError

An adapter whose `wire` is the client's own dialect also relays bytes without the canonical detour:

    pass_through(body, head, upstream)                      -> UpstreamRequest
    read_usage(endpoint, body)                              -> Usage | None
    relay(head)                                             -> Relay             feed(bytes) -> bytes for the client
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from providers.adapters.types import (
    ChatRequest,
    ChatResponse,
    Dialect,
    EmbeddingRequest,
    EmbeddingResponse,
    Endpoint,
    StreamEvent,
    Usage,
)
from providers.errors import UpstreamError


class Upstream(msgspec.Struct, frozen=True, kw_only=True):
    """One target with the credential chosen for this attempt. `secrets` holds plain text: never log it."""

    base_url: str  # without trailing slash, as the provider's SDK takes it
    model: str  # the upstream's own model name
    secrets: Mapping[str, str]  # credential fields by name
    options: Mapping[str, Any] = msgspec.field(default_factory=dict)
    region: str = ""
    max_output_tokens: int | None = None  # the one output cap that is written upstream; None: the caller's own stays
    attempt: str = ""  # our attempt id


class UpstreamRequest(msgspec.Struct, frozen=True, kw_only=True):
    method: str
    url: str
    headers: dict[str, str]
    body: bytes = b""
    dropped: tuple[str, ...] = ()  # names of request fields that could not be carried


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """What the pipeline must know of any request, read without building the canonical one."""

    endpoint: Endpoint
    model: str
    stream: bool = False
    include_usage: bool = False  # the client itself asked for usage in the stream
    max_output_tokens: int | None = None
    n: int = 1
    user: str = ""
    inputs: int = 1  # embedding inputs


class StreamParser(Protocol):
    """Sans-I/O. Raises UpstreamError when the stream carries an error or is not the wire format."""

    def feed(self, data: bytes) -> list[StreamEvent]:
        """Events that became complete with `data`."""
        ...

    def close(self) -> list[StreamEvent]:
        """The upstream closed. Raises UpstreamCut when the provider's end marker had not come."""
        ...


class Relay(Protocol):
    """Sans-I/O, for pass-through streams: relays frames unparsed and notes usage, errors and the end marker.

    usage   the last usage seen, or None
    ended   True once the provider's end marker was relayed
    frames  content frames relayed so far (each carries at least one token)
    text_bytes  UTF-8 bytes of generated text relayed so far, for an estimate when usage never comes
    """

    @property
    def usage(self) -> Usage | None: ...

    @property
    def ended(self) -> bool: ...

    @property
    def frames(self) -> int: ...

    @property
    def text_bytes(self) -> int: ...

    def feed(self, data: bytes) -> bytes:
        """Bytes for the client; whole frames only. Raises UpstreamError for an in-band error, before relaying it."""
        ...

    def close(self) -> bytes:
        """The upstream closed: the rest. Raises UpstreamCut when the end marker had not come."""
        ...


class Adapter(Protocol):
    """Stateless; one instance serves every provider of its kind."""

    wire: Dialect

    def build_request(self, request: ChatRequest | EmbeddingRequest, upstream: Upstream) -> UpstreamRequest: ...

    def parse_response(
        self, request: ChatRequest | EmbeddingRequest, body: bytes
    ) -> ChatResponse | EmbeddingResponse: ...

    def stream_parser(self, request: ChatRequest) -> StreamParser: ...

    def parse_error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError: ...

    def pass_through(self, body: bytes, head: Head, upstream: Upstream) -> UpstreamRequest: ...

    def read_usage(self, endpoint: Endpoint, body: bytes) -> Usage | None: ...

    def relay(self, head: Head) -> Relay: ...

    def verification(self, upstream: Upstream) -> UpstreamRequest:
        """A cheap, free, authenticated call that proves the credential; `upstream.model` may be empty."""
        ...

    def parse_models(self, body: bytes) -> list[str]:
        """Model names in the answer to the verification call (it lists models wherever the provider can)."""
        ...
