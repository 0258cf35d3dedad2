"""What Cohere answers: whole chats, embeddings, lists of models, usage, errors.

Usage comes twice. `billed_units` is what the invoice counts; `tokens` adds what Cohere itself puts into the prompt (its
preamble, how tools are introduced), which nobody is billed for. So `billed_units` are metered, and `tokens` only where
they are missing. `cached_tokens` counts `tokens`, of which at most the billed ones cost.
Reference: the `cohere` package's types V2ChatResponse, Usage, EmbedByTypeResponse, ListModelsResponse.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from providers.adapters.counts import Counts, checked
from providers.adapters.refusals import json_of, plain_message, retry_after, shortened
from providers.adapters.types import (
    ChatResponse,
    Choice,
    Citation,
    EmbeddingRequest,
    EmbeddingResponse,
    Finish,
    Part,
    Reasoning,
    Text,
    TokenLogprob,
    ToolCall,
    Usage,
)
from providers.errors import InvalidResponse, UpstreamError, refusal

FAULTS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
FINISH: dict[str, Finish] = {
    "COMPLETE": "stop",
    "STOP_SEQUENCE": "stop_sequence",
    "MAX_TOKENS": "length",
    "TOOL_CALL": "tool_calls",
    "ERROR_LIMIT": "length",
    "ERROR_TOXIC": "content_filter",
    "ERROR": "error",
    "TIMEOUT": "error",
}
_INVALID_TOKEN = 498  # Cohere's own status for a key that is none


class FunctionWire(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class CallWire(msgspec.Struct):
    id: str | None = None
    function: FunctionWire | None = None


class ContentWire(msgspec.Struct):
    type: str | None = None
    text: str | None = None
    thinking: str | None = None


class CitationWire(msgspec.Struct):
    text: str | None = None
    sources: list[dict[str, Any]] | None = None
    content_index: int | None = None
    type: str | None = None
    start: int | None = None
    end: int | None = None


class MessageWire(msgspec.Struct):
    content: list[ContentWire] | str | None = None
    tool_calls: list[CallWire] | None = None
    tool_plan: str | None = None
    citations: list[CitationWire] | None = None


class LogprobWire(msgspec.Struct):
    text: str | None = None
    logprobs: list[float] | None = None


class _Chat(msgspec.Struct):
    id: str
    message: MessageWire
    finish_reason: str | None = None
    usage: Any = None
    logprobs: list[LogprobWire] | None = None


class _Vectors(msgspec.Struct):
    numbers: list[tuple[float, ...]] | None = msgspec.field(default=None, name="float")
    base64: list[str] | None = None


class _Embeddings(msgspec.Struct):
    embeddings: _Vectors
    meta: Any = None


class _Model(msgspec.Struct):
    name: str


class _Models(msgspec.Struct):
    models: list[_Model]


_chat = msgspec.json.Decoder(_Chat)
_embeddings = msgspec.json.Decoder(_Embeddings)
_models = msgspec.json.Decoder(_Models)


def chat_response(body: bytes) -> ChatResponse:
    """Cohere does not say which model answered, so `model` stays empty."""
    try:
        answer = _chat.decode(body)
    except FAULTS:
        raise error_in(body) from None
    parts = _parts(answer.message)
    usage = usage_of(answer.usage)
    choice = Choice(
        parts=tuple(parts),
        finish=FINISH.get(answer.finish_reason or "", "stop"),
        logprobs=None if answer.logprobs is None else tuple([logprob_of(item) for item in answer.logprobs]),
    )
    return ChatResponse(
        id=answer.id,
        model="",
        choices=(choice,),
        usage=None if usage is None else checked(usage, generated=bool(parts)),
    )


def _parts(message: MessageWire) -> list[Part]:
    parts: list[Part] = [Reasoning(text=message.tool_plan)] if message.tool_plan else []
    content = message.content or []
    items = [ContentWire(type="text", text=content)] if isinstance(content, str) else content
    for at, item in enumerate(items):
        if item.thinking:
            parts.append(Reasoning(text=item.thinking))
        elif item.text:
            parts.append(Text(item.text, citations=tuple(_cited(message.citations, at, items))))
    for at, call in enumerate(message.tool_calls or ()):
        function = call.function or FunctionWire()
        parts.append(ToolCall(call.id or f"call_{at}", function.name or "", function.arguments or "{}"))
    return parts


def _cited(citations: list[CitationWire] | None, at: int, items: list[ContentWire]) -> list[Citation]:
    """Those of the content at `at`; ones that do not say whose they are belong to the first text."""
    first = next((place for place, item in enumerate(items) if item.text), 0)
    return [
        citation_of(found)
        for found in citations or ()
        if is_of_text(found) and (first if found.content_index is None else found.content_index) == at
    ]


def is_of_text(citation: CitationWire) -> bool:
    """A plan's and a thought's own citations have no place in any other wire format."""
    return citation.type in (None, "TEXT_CONTENT")


def citation_of(found: CitationWire) -> Citation:
    """Address and title are those of the first source that tells them: documents are whatever the client made them."""
    said: dict[str, str] = {}
    for source in found.sources or ():
        content = source.get("document") or source.get("tool_output")
        for name in ("url", "title"):
            value = content.get(name) if isinstance(content, dict) else None
            if isinstance(value, str) and value:
                said.setdefault(name, value)
    raw = {name: value for name, value in msgspec.to_builtins(found).items() if value is not None}
    return Citation(text=found.text or "", url=said.get("url", ""), title=said.get("title", ""), raw=raw)


def logprob_of(item: LogprobWire) -> TokenLogprob:
    """One piece of text, which may be several tokens: its probability is the product of theirs."""
    return TokenLogprob(token=item.text or "", logprob=sum(item.logprobs or (), 0.0))


def usage_of(raw: object, *, writes: bool = True) -> Usage | None:
    """Never raises: a figure that is no count is flagged. `writes` is False for embeddings."""
    if raw is None:
        return None
    if not isinstance(raw, dict):
        return Usage(flags=("text",))
    counts = Counts()
    billed, counted = raw.get("billed_units"), raw.get("tokens")
    figures = billed if isinstance(billed, dict) else counted
    if not isinstance(figures, dict):
        return Usage(flags=("missing",))
    given = counts.read(figures.get("input_tokens"), required=True) + counts.read(figures.get("image_tokens"))
    searches = counts.read(figures.get("search_units"))
    return Usage(
        input_tokens=given,
        output_tokens=counts.read(figures.get("output_tokens"), required=writes),
        cache_read_tokens=min(counts.read(raw.get("cached_tokens")), given),
        units={"search": searches} if searches else {},
        flags=counts.flags,
    )


def embedding_response(request: EmbeddingRequest, body: bytes) -> EmbeddingResponse:
    try:
        answer = _embeddings.decode(body)
    except FAULTS:
        raise error_in(body) from None
    found = answer.embeddings.base64 if request.encoding == "base64" else answer.embeddings.numbers
    if found is None or len(found) != len(request.inputs):
        said = "no vectors as asked for" if found is None else f"{len(found)} vectors"
        raise InvalidResponse(f"The provider sent {said} for {len(request.inputs)} inputs.", status=200)
    return EmbeddingResponse(model="", vectors=tuple(found), usage=usage_of(answer.meta, writes=False))


def model_names(body: bytes) -> list[str]:
    try:
        return [model.name for model in _models.decode(body).models]
    except FAULTS:
        raise error_in(body) from None


# --- errors -------------------------------------------------------------------------------------------------------


def refusal_of(status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
    """Cohere's error is an object with a message and an id."""
    message = _message(body) or plain_message(status, body)
    meant = 401 if status == _INVALID_TOKEN else status
    return refusal(meant, shortened(message), retry_after=retry_after(headers))


def error_in(body: bytes) -> UpstreamError:
    """What is wrong with a body that came with status 200 but is not an answer."""
    if message := _message(body):
        return refusal(500, shortened(message))
    if isinstance(json_of(body), dict):
        return InvalidResponse("The provider's answer lacks what the wire format requires.", status=200)
    return InvalidResponse(plain_message(200, body), status=200)


def _message(body: bytes) -> str:
    said = json_of(body)
    message = said.get("message") if isinstance(said, dict) else None
    return message if isinstance(message, str) else ""
