"""Answers in OpenAI's shape: chat.completion, embedding lists, model lists.

Reasoning stands where common clients look for it: `reasoning_content` (text) and `reasoning_details` (signatures too);
both are taken back on assistant messages. Images stand in `images`, signatures of tool calls in `extra_content`.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterable
from typing import Any

import msgspec

from conduit.core import clock
from conduit.proxy.dialects.base import Inbound, ModelEntry
from providers.adapters.openai_wire_messages import media_url, reasoning_detail
from providers.adapters.types import (
    Audio,
    ChatResponse,
    Choice,
    Citation,
    EmbeddingResponse,
    Finish,
    Image,
    JSONObject,
    Part,
    Reasoning,
    Refusal,
    Text,
    TokenLogprob,
    ToolCall,
    Usage,
)

# The SDK knows five words. An answer that failed midway is incomplete, which "length" says best.
FINISH: dict[Finish, str] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
    "refusal": "content_filter",
    "stop_sequence": "stop",
    "pause": "stop",
    "error": "length",
    "": "stop",
}
SERVICE_TIERS = frozenset({"auto", "default", "flex", "scale", "priority", "fast"})
_encode = msgspec.json.Encoder().encode


def chat_completion(response: ChatResponse) -> bytes:
    body: JSONObject = {
        "id": response.id or "chatcmpl",
        "object": "chat.completion",
        "created": response.created or unix_now(),
        "model": response.model,
        "choices": [_choice(choice) for choice in response.choices],
    }
    if response.usage is not None:
        body["usage"] = usage(response.usage)
    if response.service_tier in SERVICE_TIERS:
        body["service_tier"] = response.service_tier
    return _encode(body)


def embeddings(inbound: Inbound, response: EmbeddingResponse) -> bytes:
    """Floats, or base64 of little-endian float32, as the client asked, whichever the provider sent."""
    as_base64 = _wants_base64(inbound)
    spent = response.usage or Usage()
    vectors = [
        {"object": "embedding", "index": index, "embedding": _vector(vector, as_base64=as_base64)}
        for index, vector in enumerate(response.vectors)
    ]
    return _encode(
        {
            "object": "list",
            "data": vectors,
            "model": response.model or inbound.head.model,
            "usage": {"prompt_tokens": spent.input_tokens, "total_tokens": spent.input_tokens},
        }
    )


def model(entry: ModelEntry) -> bytes:
    return _encode(_model(entry))


def models(entries: Iterable[ModelEntry]) -> bytes:
    return _encode({"object": "list", "data": [_model(entry) for entry in entries]})


def usage(spent: Usage) -> JSONObject:
    return {
        "prompt_tokens": spent.input_tokens,
        "completion_tokens": spent.output_tokens,
        "total_tokens": spent.input_tokens + spent.output_tokens,
        "prompt_tokens_details": {
            "cached_tokens": spent.cache_read_tokens,
            "cache_write_tokens": spent.cache_write_tokens,
            "audio_tokens": spent.audio_input_tokens,
        },
        "completion_tokens_details": {
            "reasoning_tokens": spent.reasoning_tokens,
            "audio_tokens": spent.audio_output_tokens,
        },
    }


def logprobs(tokens: tuple[TokenLogprob, ...] | None) -> JSONObject | None:
    return None if tokens is None else {"content": [_logprob(token) for token in tokens], "refusal": None}


def audio(part: Audio) -> JSONObject:
    return {
        "id": part.id,
        "data": part.source.data,
        "transcript": part.transcript,
        "expires_at": part.expires_at or unix_now() + 3600,
    }


def image(part: Image) -> JSONObject:
    return {"type": "image_url", "image_url": {"url": media_url(part.source, "image/png")}}


def annotation(citation: Citation, start: int, end: int) -> JSONObject:
    """`start` and `end` are characters of the message's content."""
    if citation.raw.get("type") == "url_citation":
        return citation.raw
    place = {"url": citation.url, "title": citation.title, "start_index": start, "end_index": end}
    return {"type": "url_citation", "url_citation": place}


def extra_content(signature: str) -> JSONObject:
    return {"google": {"thought_signature": signature}}


def unix_now() -> int:
    return int(clock.now().timestamp())


def _choice(choice: Choice) -> JSONObject:
    return {
        "index": choice.index,
        "message": _message(choice.parts),
        "logprobs": logprobs(choice.logprobs),
        "finish_reason": FINISH[choice.finish],
    }


def _message(parts: tuple[Part, ...]) -> JSONObject:
    message: JSONObject = {"role": "assistant", "content": None, "refusal": None}
    texts = [part for part in parts if isinstance(part, Text)]
    if texts:
        message["content"] = "".join([text.text for text in texts])
    if refusals := [part.text for part in parts if isinstance(part, Refusal)]:
        message["refusal"] = "".join(refusals)
    if notes := _annotations(texts):
        message["annotations"] = notes
    if thoughts := [part for part in parts if isinstance(part, Reasoning)]:
        if text := "".join([thought.text for thought in thoughts]):
            message["reasoning_content"] = text
        message["reasoning_details"] = [reasoning_detail(thought) for thought in thoughts]
    if calls := [part for part in parts if isinstance(part, ToolCall)]:
        message["tool_calls"] = [_call(call) for call in calls]
    if spoken := [part for part in parts if isinstance(part, Audio)]:
        message["audio"] = audio(spoken[-1])
    if images := [part for part in parts if isinstance(part, Image)]:
        message["images"] = [image(part) for part in images]
    return message


def _annotations(texts: list[Text]) -> list[JSONObject]:
    notes: list[JSONObject] = []
    start = 0
    for text in texts:
        end = start + len(text.text)
        notes.extend([annotation(citation, start, end) for citation in text.citations if citation.url])
        start = end
    return notes


def _call(call: ToolCall) -> JSONObject:
    wire: JSONObject = {
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    }
    if call.signature:
        wire["extra_content"] = extra_content(call.signature)
    return wire


def _logprob(token: TokenLogprob) -> JSONObject:
    wire = _one_logprob(token)
    wire["top_logprobs"] = [_one_logprob(other) for other in token.top]
    return wire


def _one_logprob(token: TokenLogprob) -> JSONObject:
    coded = None if token.bytes is None else list(token.bytes)
    return {"token": token.token, "logprob": token.logprob, "bytes": coded}


def _model(entry: ModelEntry) -> JSONObject:
    return {"id": entry.name, "object": "model", "created": entry.created, "owned_by": entry.owner or "conduit"}


def _wants_base64(inbound: Inbound) -> bool:
    return getattr(inbound.canonical(), "encoding", "float") == "base64"


def _vector(vector: tuple[float, ...] | str, *, as_base64: bool) -> Any:
    if isinstance(vector, str):
        if as_base64:
            return vector
        coded = base64.b64decode(vector)
        return list(struct.unpack(f"<{len(coded) // 4}f", coded[: len(coded) // 4 * 4]))
    if not as_base64:
        return vector
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
