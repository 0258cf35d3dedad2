"""Gemini at Vertex AI: Google's own wire format, but for embeddings, which older models make by `predict`."""

from __future__ import annotations

import json
from typing import Any

from providers.adapters.base import UpstreamRequest
from tests.conformance.wires.gemini import LACKS, MODEL, TELLS, facts, stream, whole

__all__ = ["LACKS", "MODEL", "TELLS", "facts", "stream", "vectors", "vectors_asked", "whole"]


def vectors_asked(request: UpstreamRequest) -> dict[str, Any]:
    assert request.url.endswith(":predict"), request.url
    body = json.loads(request.body)
    assert body.keys() == {"instances", "parameters"}
    dimensions = body["parameters"]["outputDimensionality"]
    return {"inputs": [one["content"] for one in body["instances"]], "dimensions": dimensions}


def vectors(values: tuple[tuple[float, ...], ...], tokens: int, *, asked: dict[str, Any]) -> bytes:
    """Each vector tells its own tokens."""
    each = tokens // len(values)
    told = [{"values": v, "statistics": {"token_count": each, "truncated": False}} for v in values]
    return json.dumps({"predictions": [{"embeddings": one} for one in told]}).encode()
