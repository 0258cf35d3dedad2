"""Answers in Anthropic's shape: the whole message, its blocks and its usage."""

from __future__ import annotations

import uuid

import msgspec

from conduit.proxy.dialects.anthropic_wire import CALL_SIGNATURE
from providers.adapters.types import (
    Audio,
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

STOP_REASONS: dict[Finish, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
    "refusal": "refusal",
    "stop_sequence": "stop_sequence",
    "pause": "pause_turn",
    "error": "max_tokens",  # it is incomplete; there is no other word for that
    "": "end_turn",
}
_LOCATIONS = frozenset(
    (
        "char_location",
        "page_location",
        "content_block_location",
        "web_search_result_location",
        "search_result_location",
    )
)
_TIERS = frozenset(("standard", "priority", "batch"))


def message_body(response: ChatResponse, model: str) -> JSONObject:
    """The dialect has one choice: the first. `model` stands in where the provider named none."""
    choice = response.choices[0] if response.choices else Choice()
    usage = usage_body(response.usage or Usage())
    if response.service_tier in _TIERS:
        usage["service_tier"] = response.service_tier
    refusal = "".join(part.text for part in choice.parts if isinstance(part, Refusal))
    return {
        "id": response.id or f"msg_{uuid.uuid4().hex}",
        "type": "message",
        "role": "assistant",
        "model": response.model or model,
        "content": [block for part in choice.parts for block in blocks(part)],
        "stop_reason": "refusal" if refusal else STOP_REASONS[choice.finish],
        "stop_sequence": choice.stop_sequence or None,
        **({"stop_details": stop_details(refusal)} if refusal else {}),
        "usage": usage,
    }


def usage_body(usage: Usage) -> JSONObject:
    """Anthropic counts cached input beside the rest of the input, not within it."""
    cached = usage.cache_read_tokens + usage.cache_write_tokens
    body: JSONObject = {
        "input_tokens": max(0, usage.input_tokens - cached),
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cache_read_tokens,
        "output_tokens": usage.output_tokens,
    }
    if usage.cache_write_tokens:
        body["cache_creation"] = {
            "ephemeral_5m_input_tokens": usage.cache_write_tokens - usage.cache_write_1h_tokens,
            "ephemeral_1h_input_tokens": usage.cache_write_1h_tokens,
        }
    if usage.reasoning_tokens:
        body["output_tokens_details"] = {"thinking_tokens": usage.reasoning_tokens}
    if searches := usage.units.get("search"):
        body["server_tool_use"] = {"web_search_requests": searches, "web_fetch_requests": 0}
    return body


def stop_details(refusal: str) -> JSONObject:
    return {"type": "refusal", "category": None, "explanation": refusal}


def blocks(part: Part) -> list[JSONObject]:
    """Content blocks of one part; none where the dialect has no place for it (images, refusals)."""
    if isinstance(part, Text) and not part.text:  # clients send content back, and empty text is refused
        return []
    if isinstance(part, Text):
        cited = [found for found in map(citation_body, part.citations) if found]
        return [{"type": "text", "text": part.text, **({"citations": cited} if cited else {})}]
    if isinstance(part, Reasoning):
        if part.redacted:
            return [{"type": "redacted_thinking", "data": part.redacted}]
        return [{"type": "thinking", "thinking": part.text, "signature": part.signature}]
    if isinstance(part, ToolCall):
        call = {"type": "tool_use", "id": part.id, "name": part.name, "input": tool_input(part.arguments)}
        return [call_signature(part.signature), call] if part.signature else [call]
    if isinstance(part, Opaque):
        return [part.raw] if part.dialect is Dialect.ANTHROPIC else []
    if isinstance(part, Audio) and part.transcript:
        return [{"type": "text", "text": part.transcript}]
    return []


def call_signature(signature: str) -> JSONObject:
    """An empty thought in front of a call carries the call's signature; clients send thoughts back unchanged."""
    return {"type": "thinking", "thinking": "", "signature": CALL_SIGNATURE + signature}


def citation_body(citation: Citation) -> JSONObject | None:
    """Anthropic's own object if it is one; a web page of another provider in the nearest shape; else nothing."""
    if citation.raw.get("type") in _LOCATIONS:
        return citation.raw
    if not citation.url:
        return None
    return {
        "type": "web_search_result_location",
        "cited_text": citation.text,
        "encrypted_index": "",
        "title": citation.title or None,
        "url": citation.url,
    }


def tool_input(arguments: str) -> object:
    """The arguments as an object; what a model wrote that is none is put into one, since clients expect it."""
    try:
        value = msgspec.json.decode(arguments) if arguments.strip() else {}
    except (msgspec.DecodeError, RecursionError):
        return {"arguments": arguments}
    if not isinstance(value, dict):
        return {"arguments": arguments}
    return msgspec.Raw(arguments.encode()) if value else {}
