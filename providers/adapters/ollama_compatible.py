"""Ollama's OpenAI-compatible API, which lies under /v1 of the address that Ollama's own API has."""

from __future__ import annotations

import msgspec

from providers.adapters.base import Upstream, UpstreamRequest
from providers.adapters.openai import CompatibleAdapter
from providers.adapters.quirks import Quirks
from providers.adapters.types import Endpoint

# Members that this API takes and does not heed, in chats and in completions.
_IGNORED = frozenset({"tool_choice", "parallel_tool_calls", "n", "modalities", "audio", "logit_bias", "user"})
_IGNORED |= {"echo", "best_of"}


class OllamaCompatibleAdapter(CompatibleAdapter):
    def __init__(self) -> None:
        super().__init__(Quirks(drops=_IGNORED, parts=frozenset({"image"})))

    def _post(
        self, endpoint: Endpoint, upstream: Upstream, body: bytes, dropped: tuple[str, ...] = ()
    ) -> UpstreamRequest:
        return super()._post(endpoint, _at_v1(upstream), body, dropped)

    def verification(self, upstream: Upstream) -> UpstreamRequest:
        return super().verification(_at_v1(upstream))


def _at_v1(upstream: Upstream) -> Upstream:
    return msgspec.structs.replace(upstream, base_url=f"{upstream.base_url.removesuffix('/v1')}/v1")
