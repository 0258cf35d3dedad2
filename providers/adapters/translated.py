"""Base class of adapters whose wire format no client speaks: everything is translated, nothing is passed through."""

from __future__ import annotations

from providers.adapters.base import Head, Relay, Upstream, UpstreamRequest
from providers.adapters.types import Dialect, Endpoint, Usage
from providers.errors import CannotCarry

_NOT_SPOKEN = "the provider speaks a wire format of its own, so that a request is always translated for it"


class TranslatedOnly:
    """`native` is empty, so that the pipeline never calls these three: whoever does is told why it cannot be."""

    native: frozenset[tuple[Dialect, Endpoint]] = frozenset()

    def pass_through(self, body: bytes, head: Head, upstream: Upstream) -> UpstreamRequest:
        raise CannotCarry("model", _NOT_SPOKEN)

    def read_usage(self, endpoint: Endpoint, body: bytes) -> Usage | None:
        raise CannotCarry("model", _NOT_SPOKEN)

    def relay(self, head: Head) -> Relay:
        raise CannotCarry("model", _NOT_SPOKEN)
