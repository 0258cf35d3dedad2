"""OpenRouter: OpenAI's wire format for many vendors' models, with extras of its own.

Asked of every request: `usage: {"include": true}`, so that the answer tells in `usage.cost` what was charged. Its own
fields (`provider`, `models`, `transforms`, `plugins`, `route`, `preset`, …) come from OpenAI's dialect as they are, and
`reasoning` in its own form from every dialect. Where a hard budget holds a price, `provider.max_price` keeps vendors
that ask more from answering (https://openrouter.ai/docs/features/provider-routing#max-price).
Options: `referer` and `title` name the application to OpenRouter.
Its list of all models is open to everybody: only the list of those that a key may use proves the key.
Errors may carry another vendor's words in `metadata`: whose they are and what they said is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from providers.adapters.base import Head, Upstream, UpstreamRequest
from providers.adapters.openai import CompatibleAdapter
from providers.adapters.refusals import json_of, retry_after, shortened
from providers.adapters.types import ChatRequest, EmbeddingRequest, Endpoint
from providers.errors import UpstreamError, refusal

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encoder = msgspec.json.Encoder()
_INCLUDE = msgspec.Raw(b'{"include":true}')
_PRICED = (("prompt", "input"), ("completion", "output"))  # OpenRouter's words and the units of a price
_NANOS = 10**9
_HEADERS = (("referer", "http-referer"), ("title", "x-title"))


class OpenRouterAdapter(CompatibleAdapter):
    def build_request(self, request: ChatRequest | EmbeddingRequest, upstream: Upstream) -> UpstreamRequest:
        built = _limited(super().build_request(request, upstream), upstream)
        if isinstance(request, EmbeddingRequest):
            return built
        cap = request.max_output_tokens if upstream.max_output_tokens is None else upstream.max_output_tokens
        return _accounted(built, cap)

    def pass_through(self, body: bytes, head: Head, upstream: Upstream) -> UpstreamRequest:
        passed = _limited(super().pass_through(body, head, upstream), upstream)
        return _accounted(passed) if head.endpoint in (Endpoint.CHAT, Endpoint.COMPLETIONS) else passed

    def parse_error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        found = super().parse_error(status, headers, body)
        vendor, words = _metadata(json_of(body))
        if not (vendor or words):
            return found
        said = f"{found.message} ({vendor}: {words})" if vendor and words else f"{found.message} ({vendor or words})"
        code = found.code if found.code != type(found).code else ""
        return refusal(status, shortened(said), code=code, retry_after=retry_after(headers))

    def _headers(self, upstream: Upstream) -> dict[str, str]:
        headers = super()._headers(upstream)
        for option, name in _HEADERS:
            if value := upstream.options.get(option):
                headers[name] = str(value)
        return headers


def _accounted(request: UpstreamRequest, cap: int | None = None) -> UpstreamRequest:
    """The request that asks for its cost; a number of thinking tokens stays below `cap`."""
    members: dict[str, Any] = _members.decode(request.body)
    members["usage"] = _INCLUDE
    if cap is not None and "reasoning" in members:
        wanted = msgspec.json.decode(members["reasoning"])
        if "max_tokens" in wanted and wanted["max_tokens"] >= cap:
            members["reasoning"] = {**wanted, "max_tokens": max(cap - 1, 1)}
    return msgspec.structs.replace(request, body=_encoder.encode(members))


def _limited(request: UpstreamRequest, upstream: Upstream) -> UpstreamRequest:
    """The request that no vendor answers who asks more than what is held: dollars per million tokens, at the first
    step, because that is what OpenRouter lists. A caller's own `max_price` stays: its `provider` was judged as a whole.
    """
    if upstream.held_at is None:
        return request
    rates = ((name, upstream.held_at.get(unit)) for name, unit in _PRICED)
    most = {name: msgspec.Raw(_dollars(steps[0][1])) for name, steps in rates if steps}
    members: dict[str, Any] = _members.decode(request.body)
    given = msgspec.json.decode(members["provider"]) if "provider" in members else None
    members["provider"] = {"max_price": most, **(given if isinstance(given, dict) else {})}
    return msgspec.structs.replace(request, body=_encoder.encode(members))


def _dollars(nanos: int) -> bytes:
    return b"%d.%09d" % divmod(nanos, _NANOS)


def _metadata(said: Any) -> tuple[str, str]:
    """(the vendor's name, its own words) of an error, as far as they are told."""
    error = said.get("error") if isinstance(said, dict) else None
    told = error.get("metadata") if isinstance(error, dict) else None
    if not isinstance(told, dict):
        return "", ""
    vendor, raw = told.get("provider_name"), told.get("raw")
    words = raw if isinstance(raw, str) else ""
    inner = json_of(words.encode()) if words.startswith("{") else raw
    if isinstance(inner, dict):
        error = inner.get("error", inner)
        message = error.get("message") if isinstance(error, dict) else error
        words = message if isinstance(message, str) else ""
    return vendor if isinstance(vendor, str) else "", shortened(words, 300)
