"""Anthropic's Messages API: POST {base}/v1/messages, GET {base}/v1/models; the base URL is without /v1.

Options of the provider: `anthropic_version` and `anthropic_beta` (headers), `reasoning: "budget"` for models that think
by budget only, `omit: [names]` of sampling parameters that the provider's models refuse.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from providers.adapters.anthropic_relay import AnthropicRelay
from providers.adapters.anthropic_request import SMALLEST_BUDGET, MessageBody
from providers.adapters.anthropic_response import decoded, error_code, read_message, read_usage
from providers.adapters.anthropic_stream import AnthropicStreamParser
from providers.adapters.base import Head, Relay, StreamParser, Upstream, UpstreamRequest
from providers.adapters.refusals import json_of, plain_message, retry_after, shortened
from providers.adapters.thinking import budget_below
from providers.adapters.types import (
    ChatRequest,
    ChatResponse,
    Dialect,
    EmbeddingRequest,
    EmbeddingResponse,
    Endpoint,
    Usage,
)
from providers.errors import CannotCarry, InvalidResponse, UpstreamError, refusal

API_VERSION = "2023-06-01"
_COUNTED = ("messages", "system", "tools", "tool_choice", "thinking")  # what count_tokens takes of a request


class _ModelWire(msgspec.Struct):
    id: str


class _ModelsWire(msgspec.Struct):
    data: list[_ModelWire]


class _CountWire(msgspec.Struct):
    input_tokens: int


_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_models = msgspec.json.Decoder(_ModelsWire)
_count = msgspec.json.Decoder(_CountWire)
_json = msgspec.json.Encoder()


class AnthropicAdapter:
    wire = Dialect.ANTHROPIC
    can_count = True
    native = frozenset({(Dialect.ANTHROPIC, Endpoint.MESSAGES)})

    def build_request(self, request: ChatRequest | EmbeddingRequest, upstream: Upstream) -> UpstreamRequest:
        """Raises CannotCarry for embeddings: the API has none."""
        if isinstance(request, EmbeddingRequest):
            raise CannotCarry("input", "Anthropic has no embeddings")
        body = MessageBody(request, upstream.max_output_tokens, upstream.options)
        members = body.build(upstream.model)
        return self._post(upstream, members, tuple(body.dropped), stream=request.stream)

    def parse_response(self, request: ChatRequest | EmbeddingRequest, body: bytes) -> ChatResponse | EmbeddingResponse:
        return read_message(body)

    def stream_parser(self, request: ChatRequest) -> StreamParser:
        return AnthropicStreamParser()

    def parse_error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        found = json_of(body)
        error = found.get("error") if isinstance(found, dict) else None
        words = error if isinstance(error, dict) else {}
        message = words.get("message")
        text = shortened(message) if isinstance(message, str) and message else plain_message(status, body)
        code = error_code(words.get("type"))
        return refusal(status, text, code=code, retry_after=retry_after(headers))

    def pass_through(self, body: bytes, head: Head, upstream: Upstream) -> UpstreamRequest:
        """Only model and cap are rewritten, and a thinking budget that a lower cap than the client's cannot hold."""
        members = _members.decode(body)
        members["model"] = msgspec.Raw(_json.encode(upstream.model))
        cap, dropped = upstream.max_output_tokens, tuple[str, ...]()
        if cap is not None:
            members["max_tokens"] = msgspec.Raw(str(cap).encode())
            if "thinking" in members and cap != head.max_output_tokens:
                dropped = _fit_thinking(members, cap)
        return self._post(upstream, members, dropped, stream=head.stream)

    def read_usage(self, endpoint: Endpoint, body: bytes) -> Usage | None:
        return read_usage(body)

    def relay(self, head: Head) -> Relay:
        return AnthropicRelay()

    def verification(self, upstream: Upstream) -> UpstreamRequest:
        url = f"{upstream.base_url}/v1/models?limit=1000"
        return UpstreamRequest(method="GET", url=url, headers=self._headers(upstream))

    def parse_models(self, body: bytes) -> list[str]:
        try:
            return [model.id for model in _models.decode(body).data]
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InvalidResponse(f"The provider's list of models cannot be read: {error}") from error

    def count_tokens(self, body: bytes, upstream: Upstream) -> UpstreamRequest:
        """A client's POST /v1/messages/count_tokens, for this provider to answer."""
        members = _members.decode(body)
        members["model"] = msgspec.Raw(_json.encode(upstream.model))
        url = f"{upstream.base_url}/v1/messages/count_tokens"
        return UpstreamRequest(method="POST", url=url, headers=self._headers(upstream), body=_json.encode(members))

    def count_request(self, request: ChatRequest, upstream: Upstream) -> UpstreamRequest:
        whole = MessageBody(request, upstream.max_output_tokens, upstream.options).build(upstream.model)
        return self.count_tokens(_json.encode({name: whole[name] for name in _COUNTED if name in whole}), upstream)

    def read_count(self, body: bytes) -> int:
        """Input tokens in the answer to `count_tokens`."""
        return decoded(_count, body).input_tokens

    def _post(
        self, upstream: Upstream, members: dict[str, Any], dropped: tuple[str, ...], *, stream: bool
    ) -> UpstreamRequest:
        """The one place that knows where messages go. Clouds that serve Claude have places of their own."""
        return UpstreamRequest(
            method="POST",
            url=f"{upstream.base_url}/v1/messages",
            headers=self._headers(upstream),
            body=_json.encode(members),
            dropped=dropped,
        )

    def _headers(self, upstream: Upstream) -> dict[str, str]:
        options = upstream.options
        headers = {
            "x-api-key": upstream.secrets["api_key"],
            "anthropic-version": str(options.get("anthropic_version") or API_VERSION),
            "content-type": "application/json",
        }
        if beta := options.get("anthropic_beta"):
            headers["anthropic-beta"] = str(beta)
        return headers


def _fit_thinking(members: dict[str, msgspec.Raw], cap: int) -> tuple[str, ...]:
    """Lowers the thinking budget below `cap`, or leaves thinking out where it has no room. Returns what was dropped."""
    thinking = msgspec.json.decode(members["thinking"])
    budget = thinking.get("budget_tokens") if isinstance(thinking, dict) else None
    if type(budget) is not int:
        return ()
    fitting = budget_below(cap, budget, least=SMALLEST_BUDGET)
    if fitting is None:
        del members["thinking"]
        return ("thinking",)
    members["thinking"] = msgspec.Raw(_json.encode({**thinking, "budget_tokens": fitting}))
    return ()
