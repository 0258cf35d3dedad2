"""The adapter contract: four pure methods turn canonical types into one provider's bytes and back.

    build_request(ChatRequest | EmbeddingRequest, Upstream) -> UpstreamRequest
    parse_response(request, body)                           -> ChatResponse | EmbeddingResponse
    stream_parser(request)                                  -> StreamParser      feed(bytes) -> events
    parse_error(status, headers, body)                      -> UpstreamError

What a client sends in one of an adapter's `native` dialects is relayed without the canonical detour:

    pass_through(body, head, upstream)                      -> UpstreamRequest
    read_usage(endpoint, body)                              -> Usage | None
    relay(head)                                             -> Relay             feed(bytes) -> bytes for the client

Where the provider counts a prompt's tokens for nothing, the adapter is Counting too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import msgspec

from providers.adapters.events import StreamEvent
from providers.adapters.sigv4 import AwsKeys
from providers.adapters.types import (
    ChatRequest,
    ChatResponse,
    Dialect,
    EmbeddingRequest,
    EmbeddingResponse,
    Endpoint,
    Usage,
)
from providers.errors import UpstreamError

CONTENT = frozenset(
    {
        "messages.audio",
        "messages.image",
        "messages.image.file_id",
        "messages.document",
        "messages.document.url",
        "messages.file_id",
        "cachedContent",
    }
)  # names in `dropped` without which the model would answer another question


# unit -> ((from input tokens, nano-dollars per million units), …), as in usage/rates.py
Rates = Mapping[str, tuple[tuple[int, int], ...]]


class Upstream(msgspec.Struct, frozen=True, kw_only=True):
    """One target with the credential chosen for this attempt. `secrets` holds plain text: never log it."""

    base_url: str  # without trailing slash, as the provider's SDK takes it
    model: str  # the upstream's own model name
    secrets: Mapping[str, str]  # credential fields by name
    options: Mapping[str, Any] = msgspec.field(default_factory=dict)
    region: str = ""
    max_output_tokens: int | None = None  # the one output cap that is written upstream; None: the caller's own stays
    attempt: str = ""  # our attempt id
    held_at: Rates | None = None  # the prices that a hard budget's hold goes by; None: nothing is held


class UpstreamRequest(msgspec.Struct, frozen=True, kw_only=True):
    method: str
    url: str
    headers: dict[str, str]
    body: bytes = b""
    dropped: tuple[str, ...] = ()  # names of request fields that could not be carried
    signing: AwsKeys | None = None  # whoever sends it adds the signature: it holds the time


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """What the pipeline must know of any request, read without building the canonical one."""

    endpoint: Endpoint
    model: str
    stream: bool = False
    include_usage: bool = False  # the client itself asked for usage in the stream
    max_output_tokens: int | None = None
    n: int = 1
    user: str = ""
    inputs: int = 1  # embedding inputs, or prompts of /v1/completions: each has the context window to itself
    echoed: int = 0  # frames of a stream that may repeat the prompt, beside what the cap bounds


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


@runtime_checkable
class Numbered(Protocol):
    """A relay of events that carry a running number."""

    def next_number(self) -> int:
        """The one after what has been relayed; 0 where the provider numbers nothing."""
        ...


class Adapter(Protocol):
    """Stateless; one instance serves every provider of its kind."""

    wire: Dialect  # the provider's wire format
    native: frozenset[tuple[Dialect, Endpoint]]  # what clients may speak and the wire format takes as it is

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


@runtime_checkable
class Counting(Protocol):
    """An adapter whose provider has a free call for the number of a prompt's tokens."""

    can_count: bool

    def count_tokens(self, body: bytes, upstream: Upstream) -> UpstreamRequest:
        """`body` is a client's own question in the provider's wire format."""
        ...

    def count_request(self, request: ChatRequest, upstream: Upstream) -> UpstreamRequest:
        """The same question from a client of another dialect. Raises CannotCarry."""
        ...

    def read_count(self, body: bytes) -> int:
        """Input tokens in the answer. Raises InvalidResponse."""
        ...
