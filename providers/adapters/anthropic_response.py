"""Anthropic's answers read: whole messages, content blocks and usage (https://docs.anthropic.com/en/api/messages).

Anthropic counts cached input apart: our input_tokens = input_tokens + cache_read_input_tokens +
cache_creation_input_tokens. Its output_tokens include thinking.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from providers.adapters.counts import Counts, checked
from providers.adapters.types import (
    ChatResponse,
    Choice,
    Citation,
    Dialect,
    Finish,
    JSONObject,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    Usage,
)
from providers.errors import InvalidResponse, UpstreamError, refusal

T = TypeVar("T")
_NULL, _EMPTY = msgspec.Raw(b"null"), msgspec.Raw(b"[]")
# Rounds of the model whose tokens the totals leave out: a summary of the conversation, another model's advice.
_BESIDE = ("compaction", "advisor_message")

FINISHES: dict[str, Finish] = {
    "end_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "stop_sequence": "stop_sequence",
    "tool_use": "tool_calls",
    "pause_turn": "pause",
    "refusal": "refusal",
}
# The in-band error carries no status: its type names the one the same error has as an answer.
ERROR_STATUS = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}


_INPUTS = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")


class UsageWire(msgspec.Struct):
    """Counts may be anything: `usage_of` makes them sane."""

    input_tokens: Any = None
    output_tokens: Any = None
    cache_creation_input_tokens: Any = None
    cache_read_input_tokens: Any = None
    cache_creation: Any = None
    server_tool_use: Any = None
    output_tokens_details: Any = None
    iterations: Any = None


class ErrorWire(msgspec.Struct):
    type: str = ""
    message: str = ""


class BlockWire(msgspec.Struct):
    """Compatible vendors send null where Anthropic leaves a field out."""

    type: str
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    id: str = ""
    name: str = ""
    input: msgspec.Raw = msgspec.Raw(b"{}")
    citations: list[JSONObject] | None = None


class StopDetailsWire(msgspec.Struct):
    explanation: str | None = None


class MessageWire(msgspec.Struct):
    content: list[msgspec.Raw] | None = None
    id: str = ""
    model: str = ""
    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: StopDetailsWire | None = None
    usage: Any = None
    error: Any = None


class _Metered(msgspec.Struct):
    """Just enough of a whole answer to bill it."""

    content: msgspec.Raw = _NULL
    usage: Any = None
    error: Any = None


_message = msgspec.json.Decoder(MessageWire)
_metered = msgspec.json.Decoder(_Metered)
_block = msgspec.json.Decoder(BlockWire)
_object = msgspec.json.Decoder(dict[str, Any])


def decoded(decoder: msgspec.json.Decoder[T], body: bytes | msgspec.Raw) -> T:
    """Raises InvalidResponse for anything that is not what `decoder` expects."""
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidResponse(f"The provider's answer is not an Anthropic message: {error}") from error


def read_message(body: bytes) -> ChatResponse:
    wire = decoded(_message, body)
    if wire.error is not None:
        raise in_band_error(wire.error)
    if wire.content is None:
        raise InvalidResponse("The provider's answer has no `content`.")
    parts = [part_of(raw) for raw in wire.content]
    if wire.stop_details is not None and wire.stop_details.explanation:
        parts.append(Refusal(text=wire.stop_details.explanation))
    choice = Choice(
        parts=tuple(parts),
        finish=FINISHES.get(wire.stop_reason or "", "stop"),
        stop_sequence=wire.stop_sequence or "",
    )
    usage = usage_wire(wire.usage)
    return ChatResponse(
        id=wire.id,
        model=wire.model,
        choices=(choice,),
        usage=checked(usage_of(usage), generated=bool(parts)) if usage else None,
        service_tier=_tier(wire.usage),
    )


def read_usage(body: bytes) -> Usage | None:
    """The usage of a whole answer; None when it is missing. Raises InvalidResponse when it is no answer at all."""
    wire = decoded(_metered, body)
    if wire.error is not None:
        raise in_band_error(wire.error)
    if wire.content == _NULL:
        raise InvalidResponse("The provider's answer has no `content`.")
    usage = usage_wire(wire.usage)
    return checked(usage_of(usage), generated=wire.content != _EMPTY) if usage else None


def usage_wire(usage: object) -> UsageWire | None:
    """None for a missing usage or one that is no object."""
    return msgspec.convert(usage, UsageWire) if isinstance(usage, dict) else None


def usage_of(wire: UsageWire) -> Usage:
    counts = Counts()
    read = counts.read(wire.cache_read_input_tokens)
    written = counts.read(wire.cache_creation_input_tokens)
    lifetimes = wire.cache_creation if isinstance(wire.cache_creation, dict) else {}
    short = counts.read(lifetimes.get("ephemeral_5m_input_tokens"))
    long = counts.read(lifetimes.get("ephemeral_1h_input_tokens"))
    written = max(written, short + long)
    details = wire.output_tokens_details if isinstance(wire.output_tokens_details, dict) else {}
    tools = wire.server_tool_use if isinstance(wire.server_tool_use, dict) else {}
    searches = counts.read(tools.get("web_search_requests"))
    output = counts.read(wire.output_tokens, required=True)
    given = counts.read(wire.input_tokens, required=True)
    for beside in _rounds_beside(wire.iterations):
        given += sum(counts.read(beside.get(name)) for name in _INPUTS)
        output += counts.read(beside.get("output_tokens"))
    return Usage(
        input_tokens=given + read + written,
        output_tokens=output,
        cache_read_tokens=read,
        cache_write_tokens=written,
        cache_write_1h_tokens=long,
        reasoning_tokens=counts.part(details.get("thinking_tokens"), output),
        units={"search": searches} if searches else {},
        flags=counts.flags,
    )


def _rounds_beside(iterations: object) -> list[JSONObject]:
    """Their cached tokens are taken at the plain rate, which is the dearer one but for writes."""
    listed = iterations if isinstance(iterations, list) else []
    return [one for one in listed if isinstance(one, dict) and one.get("type") in _BESIDE]


def _tier(usage: object) -> str:
    tier = usage.get("service_tier") if isinstance(usage, dict) else None
    return tier if isinstance(tier, str) else ""


def part_of(raw: msgspec.Raw) -> Part:
    wire = decoded(_block, raw)
    if wire.type == "text":
        return Text(text=wire.text or "", citations=tuple(citation_of(found) for found in wire.citations or ()))
    if wire.type == "thinking":
        return Reasoning(text=wire.thinking or "", signature=wire.signature or "")
    if wire.type == "redacted_thinking":
        return Reasoning(redacted=wire.data or "")
    if wire.type == "tool_use":
        return ToolCall(id=wire.id, name=wire.name, arguments=bytes(wire.input).decode())
    return Opaque(dialect=Dialect.ANTHROPIC, raw=decoded(_object, raw))


def citation_of(raw: JSONObject) -> Citation:
    def word(name: str) -> str:
        value = raw.get(name)
        return value if isinstance(value, str) else ""

    return Citation(
        text=word("cited_text"),
        url=word("url"),
        title=word("title") or word("document_title"),
        raw=raw,
    )


def in_band_error(error: object) -> UpstreamError:
    """The error object of an answer with status 200, or of a stream's `error` event."""
    words = error if isinstance(error, dict) else {}
    kind, message = words.get("type"), words.get("message")
    status = ERROR_STATUS.get(kind, 500) if isinstance(kind, str) else 500
    text = message if isinstance(message, str) and message else "The provider sent an error without a message."
    return refusal(status, text, code=error_code(kind))


def error_code(kind: object) -> str:
    """Our code where Anthropic's error says more than its status does."""
    return kind if kind in ("request_too_large", "not_found_error", "billing_error") else ""
