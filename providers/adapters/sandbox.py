"""The sandbox provider in any of the three wire formats; it alone is told our attempt id and scripted faults.

Options: `dialect` (which wire format, read by the registry), `sandbox_headers` (the client's `x-sandbox-*` headers).
"""

from __future__ import annotations

import msgspec

from providers.adapters.base import Upstream, UpstreamRequest
from providers.adapters.custom import DressedAdapter
from providers.adapters.types import Dialect


class SandboxAdapter(DressedAdapter):
    def aimed(self, upstream: Upstream) -> Upstream:
        """One base URL serves all dialects: with `/v1` for OpenAI's, without for the others."""
        root = upstream.base_url.removesuffix("/v1")
        base_url = f"{root}/v1" if self.wire in (Dialect.OPENAI, Dialect.RESPONSES) else root
        if base_url == upstream.base_url:
            return upstream
        return msgspec.structs.replace(upstream, base_url=base_url)

    def dress(self, request: UpstreamRequest, upstream: Upstream) -> UpstreamRequest:
        headers = request.headers
        if upstream.attempt:
            headers["x-conduit-attempt"] = upstream.attempt
        for name, value in (upstream.options.get("sandbox_headers") or {}).items():
            if name.lower().startswith("x-sandbox-"):
                headers[name.lower()] = value
        return request
