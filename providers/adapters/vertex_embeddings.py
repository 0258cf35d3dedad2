"""Embeddings at Vertex AI: `:predict` with instances, or `:embedContent` with one content for Gemini's later models.

Reference: google-genai's conversions for Vertex AI, and the messages EmbedContentRequest and EmbedContentResponse.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from providers.adapters.counts import Counts, checked
from providers.adapters.types import EmbeddingRequest, EmbeddingResponse, JSONObject, Usage
from providers.errors import CannotCarry, InvalidResponse

_ONE_CONTENT = re.compile(r"gemini-embedding-(?!001)")  # as Google's own SDKs tell them apart
_FAULTS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _Statistics(msgspec.Struct):
    token_count: Any = None


class _Embedding(msgspec.Struct):
    values: tuple[float, ...]
    statistics: _Statistics | None = None


class _Prediction(msgspec.Struct):
    embeddings: _Embedding


class _Answer(msgspec.Struct, rename="camel"):
    predictions: list[_Prediction] | None = None
    embedding: _Embedding | None = None
    usage_metadata: dict[str, Any] | None = None


_answer = msgspec.json.Decoder(_Answer)


def embedding_call(request: EmbeddingRequest, model: str) -> tuple[str, JSONObject, tuple[str, ...]]:
    """(method, body, what was dropped). Raises CannotCarry for token lists, and for several texts where the model
    takes one."""
    texts = [text for text in request.inputs if isinstance(text, str)]
    if len(texts) < len(request.inputs):
        raise CannotCarry("input", "Vertex AI embeds texts, not lists of tokens")
    dropped = ("user",) if request.user else ()
    if not _ONE_CONTENT.match(model):
        return "predict", _predict(request, texts), dropped
    if len(texts) > 1:
        raise CannotCarry("input", f"{model} embeds one text a request at Vertex AI, and there are {len(texts)}")
    body: JSONObject = {"content": {"parts": [{"text": texts[0]}]}}
    for name, value in (("taskType", request.task), ("title", request.title)):
        if value:
            body[name] = value
    if request.dimensions is not None:
        body["outputDimensionality"] = request.dimensions
    return "embedContent", body, dropped


def _predict(request: EmbeddingRequest, texts: list[str]) -> JSONObject:
    beside = {name: value for name, value in (("task_type", request.task), ("title", request.title)) if value}
    body: JSONObject = {"instances": [{"content": text, **beside} for text in texts]}
    if request.dimensions is not None:
        body["parameters"] = {"outputDimensionality": request.dimensions}
    return body


def read_embeddings(request: EmbeddingRequest, body: bytes) -> EmbeddingResponse:
    """Raises InvalidResponse when there is not one vector for each input."""
    try:
        wire = _answer.decode(body)
    except _FAULTS as error:
        raise InvalidResponse("The provider's embeddings cannot be read.") from error
    vectors = [prediction.embeddings for prediction in wire.predictions or ()]
    if wire.embedding is not None:
        vectors.append(wire.embedding)
    if len(vectors) != len(request.inputs):
        raise InvalidResponse("The provider's answer has not one embedding for each input.")
    counts = Counts()
    if wire.usage_metadata is not None:
        given = counts.read(wire.usage_metadata.get("promptTokenCount"), required=True)
    else:
        given = sum(counts.read(v.statistics.token_count if v.statistics else None, required=True) for v in vectors)
    usage = checked(Usage(input_tokens=given, flags=counts.flags), generated=False)
    return EmbeddingResponse(model=request.model, vectors=tuple(vector.values for vector in vectors), usage=usage)
