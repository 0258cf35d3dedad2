"""Amazon Bedrock, whatever wire format a model of it is asked in: where requests go, and who signs them.

The base URL is https://bedrock-runtime.REGION.amazonaws.com; the endpoint that speaks OpenAI's wire format lies below
it. A Bedrock API key is sent as a bearer; AWS keys travel with the request and sign it when it is sent.
"""

from __future__ import annotations

from urllib.parse import urlsplit

import msgspec

from providers.adapters.base import Upstream, UpstreamRequest
from providers.adapters.converse_answer import model_ids
from providers.adapters.custom import DressedAdapter
from providers.adapters.sigv4 import AwsKeys
from providers.adapters.types import Dialect

_BELOW = {Dialect.OPENAI: "/openai/v1"}


class BedrockAdapter(DressedAdapter):
    def aimed(self, upstream: Upstream) -> Upstream:
        """A base URL that was given with the path of one wire format serves the others too."""
        root = upstream.base_url.removesuffix(_BELOW[Dialect.OPENAI])
        return msgspec.structs.replace(upstream, base_url=root + _BELOW.get(self.wire, ""))

    def dress(self, request: UpstreamRequest, upstream: Upstream) -> UpstreamRequest:
        if "access_key_id" not in upstream.secrets:
            return request
        secrets = upstream.secrets
        keys = AwsKeys(
            secrets["access_key_id"],
            secrets["secret_access_key"],
            secrets.get("session_token", ""),
            upstream.region,
            "bedrock",
        )
        request.headers.pop("authorization", None)
        return msgspec.structs.replace(request, signing=keys)

    def verification(self, upstream: Upstream) -> UpstreamRequest:
        """The runtime lists no models: the control plane beside it does, and takes the same keys."""
        request = self.inner.verification(upstream)
        host = urlsplit(upstream.base_url)
        origin = f"{host.scheme}://{host.netloc.replace('bedrock-runtime.', 'bedrock.', 1)}"
        return self.dress(msgspec.structs.replace(request, url=f"{origin}/foundation-models"), upstream)

    def parse_models(self, body: bytes) -> list[str]:
        return model_ids(body)
