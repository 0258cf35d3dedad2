"""Azure OpenAI: OpenAI's wire format at a resource of one's own, with a key in its own header or a token of Entra ID.

Two addresses for the same thing: the v1 endpoint (https://RESOURCE.openai.azure.com/openai/v1), where the body names
the deployment, and classic deployments (option `api_version`), where the path does:
https://RESOURCE.openai.azure.com/openai/deployments/NAME/chat/completions?api-version=… Either base URL serves both.
The option `deployments` (object: a model's name to its deployment's) lets targets be called by the model, which is
what prices go by.
"""

from __future__ import annotations

from urllib.parse import quote

import msgspec

from providers.adapters.base import Upstream, UpstreamRequest
from providers.adapters.custom import DressedAdapter

_ENDINGS = ("/v1", "/openai")  # of base URLs, outermost first
# What a deployment serves below its own path, by the openai package's list; the rest lies beside the deployments.
_BY_DEPLOYMENT = frozenset(
    {
        "/completions",
        "/chat/completions",
        "/embeddings",
        "/audio/transcriptions",
        "/audio/translations",
        "/audio/speech",
        "/images/generations",
        "/images/edits",
    }
)


class AzureAdapter(DressedAdapter):
    def aimed(self, upstream: Upstream) -> Upstream:
        """The inner adapter writes below the base URL whatever that is; `dress` then lays the rest of the address."""
        return msgspec.structs.replace(upstream, model=_deployment(upstream))

    def dress(self, request: UpstreamRequest, upstream: Upstream) -> UpstreamRequest:
        if token := upstream.secrets.get("access_token"):
            request.headers["authorization"] = f"Bearer {token}"
        else:
            request.headers.pop("authorization", None)
            request.headers["api-key"] = upstream.secrets["api_key"]
        version = upstream.options.get("api_version")
        return msgspec.structs.replace(request, url=_classic(request, upstream, str(version))) if version else request


def _deployment(upstream: Upstream) -> str:
    names = upstream.options.get("deployments")
    return str(names.get(upstream.model, upstream.model)) if isinstance(names, dict) else upstream.model


def _classic(request: UpstreamRequest, upstream: Upstream, version: str) -> str:
    path = request.url.removeprefix(upstream.base_url)
    resource = upstream.base_url
    for ending in _ENDINGS:
        resource = resource.removesuffix(ending)
    below = f"/deployments/{quote(_deployment(upstream), safe='')}" if path in _BY_DEPLOYMENT else ""
    return f"{resource}/openai{below}{path}?api-version={quote(version, safe='')}"
