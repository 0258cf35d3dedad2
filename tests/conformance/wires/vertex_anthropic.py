"""Claude at Vertex AI: Anthropic's messages under Google's addresses, with the model in the path and a version in the
body (as `anthropic.AnthropicVertex` sends them)."""

from __future__ import annotations

import json
import re
from typing import Any

from providers.adapters.base import UpstreamRequest
from tests.conformance.wires.anthropic import LACKS, MODEL, said, stream, whole

__all__ = ["LACKS", "MODEL", "facts", "stream", "whole"]
_PATH = re.compile(r"https://[^/]+/v1/projects/p/locations/[^/]+/publishers/anthropic/models/[^/:]+:(\w+)")


def facts(request: UpstreamRequest) -> dict[str, Any]:
    assert request.method == "POST"
    path = _PATH.fullmatch(request.url)
    assert path is not None, request.url
    assert request.headers["authorization"] == "Bearer t"
    body = json.loads(request.body)
    assert body.pop("anthropic_version") == "vertex-2023-10-16"
    assert "model" not in body
    assert path[1] == ("streamRawPredict" if body.get("stream") else "rawPredict")
    return said({"model": MODEL, **body})
