"""Embeddings in the form that a client asked for, where the provider knows numbers only."""

from __future__ import annotations

import base64
import struct

import msgspec

from providers.adapters.types import EmbeddingRequest, EmbeddingResponse
from providers.errors import InvalidResponse


def as_asked(request: EmbeddingRequest, answer: EmbeddingResponse) -> EmbeddingResponse:
    """Floats as they are, or base64 of little-endian float32. Raises InvalidResponse for what that cannot hold."""
    if request.encoding != "base64":
        return answer
    try:
        vectors = tuple(base64.b64encode(struct.pack(f"<{len(v)}f", *v)).decode() for v in answer.vectors)
    except OverflowError as error:
        raise InvalidResponse("The provider's embedding holds a number beyond 32 bits.") from error
    return msgspec.structs.replace(answer, vectors=vectors)
