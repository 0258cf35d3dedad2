"""`POST /v1/embeddings`: texts or token lists in, one vector each out."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from conduit.proxy.dialects.base import Inbound
from conduit.proxy.dialects.json_body import decode
from conduit.proxy.errors import invalid_value
from providers.adapters.base import Head
from providers.adapters.types import Dialect, EmbeddingRequest, Endpoint

_Tokens = list[Annotated[int, Meta(ge=0, le=2**31 - 1)]]


class EmbeddingsBody(msgspec.Struct):
    """`input` is told apart after decoding: a text, texts, tokens, or lists of tokens."""

    model: Annotated[str, Meta(min_length=1, max_length=256)]
    input: str | list[str | int | _Tokens]
    dimensions: Annotated[int, Meta(ge=1, le=2**20)] | None = None
    encoding_format: Literal["float", "base64"] | None = None
    user: str | None = None


_decoder = msgspec.json.Decoder(EmbeddingsBody)


def parse_embeddings(body: bytes) -> Inbound:
    wanted = decode(_decoder, body)
    inputs = _inputs(wanted.input)
    head = Head(endpoint=Endpoint.EMBEDDINGS, model=wanted.model, user=wanted.user or "", inputs=len(inputs))
    request = EmbeddingRequest(
        model=wanted.model,
        inputs=inputs,
        dimensions=wanted.dimensions,
        encoding=wanted.encoding_format or "float",
        user=head.user,
    )
    return Inbound(dialect=Dialect.OPENAI, head=head, body=body, canonical=lambda: request)


def _inputs(given: str | list[str | int | list[int]]) -> tuple[str | tuple[int, ...], ...]:
    if isinstance(given, str):
        return (given,)
    if not given:
        raise invalid_value("input", "input: must not be empty.")
    if all(type(item) is int for item in given):
        return (tuple([_token(item, index) for index, item in enumerate(given)]),)
    inputs: list[str | tuple[int, ...]] = []
    for index, item in enumerate(given):
        if isinstance(item, int):
            raise invalid_value(f"input[{index}]", f"input[{index}]: texts and tokens cannot be mixed.")
        if not item and not isinstance(item, str):
            raise invalid_value(f"input[{index}]", f"input[{index}]: must not be empty.")
        inputs.append(item if isinstance(item, str) else tuple(item))
    return tuple(inputs)


def _token(item: str | int | list[int], index: int) -> int:
    if not isinstance(item, int) or not 0 <= item < 2**31:
        raise invalid_value(f"input[{index}]", f"input[{index}]: is not a token.")
    return item
