"""Embeddings in OpenAI's wire format."""

from __future__ import annotations

import base64
from typing import Any

import msgspec

from providers.adapters.openai_wire import error_in
from providers.adapters.openai_wire_answer import FAULTS, checked_usage, usage_or_none
from providers.adapters.types import EmbeddingRequest, EmbeddingResponse
from providers.errors import InvalidResponse


class _Embedding(msgspec.Struct):
    embedding: tuple[float, ...] | str
    index: int = 0


class _Embeddings(msgspec.Struct):
    data: list[_Embedding]
    model: str | None = None
    usage: Any = None
    error: Any = None


_embeddings = msgspec.json.Decoder(_Embeddings)


def embedding_response(request: EmbeddingRequest, body: bytes) -> EmbeddingResponse:
    try:
        answer = _embeddings.decode(body)
    except FAULTS:
        raise error_in(body) from None
    if len(answer.data) != len(request.inputs):
        raise InvalidResponse(f"The provider sent {len(answer.data)} vectors for {len(request.inputs)} inputs.")
    vectors = tuple([item.embedding for item in sorted(answer.data, key=lambda item: item.index)])
    if not all(_is_vector(vector) for vector in vectors):
        raise InvalidResponse("The provider sent a vector that is not base64 of 32-bit floats.", status=200)
    spent = checked_usage(usage_or_none(answer.usage, writes=False), generated=False)
    return EmbeddingResponse(model=answer.model or "", vectors=vectors, usage=spent)


def _is_vector(vector: tuple[float, ...] | str) -> bool:
    try:
        return not isinstance(vector, str) or len(base64.b64decode(vector, validate=True)) % 4 == 0
    except ValueError:
        return False
