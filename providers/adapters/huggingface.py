"""Hugging Face's router: OpenAI's wire format for models of many vendors, named ORG/MODEL[:VENDOR|fastest|cheapest].

Option: `bill_to`, the organization that pays for the calls (header X-HF-Bill-To).
"""

from __future__ import annotations

import msgspec

from providers.adapters.base import Upstream, UpstreamRequest
from providers.adapters.custom import DressedAdapter
from providers.adapters.refusals import json_of

_ROUTER = "https://router.huggingface.co/v1"
_WHO_AM_I = "https://huggingface.co/api/whoami-v2"


class HuggingFaceAdapter(DressedAdapter):
    def dress(self, request: UpstreamRequest, upstream: Upstream) -> UpstreamRequest:
        if payer := upstream.options.get("bill_to"):
            request.headers["x-hf-bill-to"] = str(payer)
        return request

    def verification(self, upstream: Upstream) -> UpstreamRequest:
        """The router's list of models is open to everybody, so that it proves no token: the hub's own page does. An
        address of the operator's own is asked for its list: the token goes nowhere else."""
        request = super().verification(upstream)
        if upstream.base_url != _ROUTER:
            return request
        return msgspec.structs.replace(request, url=_WHO_AM_I)

    def parse_models(self, body: bytes) -> list[str]:
        """The hub says who one is, and lists none."""
        said = json_of(body)
        return [] if isinstance(said, dict) and "name" in said else super().parse_models(body)
