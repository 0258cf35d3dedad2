"""Answers in Gemini's shape: candidates, parts, usageMetadata."""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Sequence

import msgspec

from conduit.proxy.dialects.gemini_signatures import wrapped, wrapped_signature
from providers.adapters.types import (
    Audio,
    ChatResponse,
    Choice,
    Citation,
    Dialect,
    Document,
    EmbeddingResponse,
    Finish,
    Image,
    JSONObject,
    Media,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Text,
    TokenLogprob,
    ToolCall,
    Usage,
)

FINISH_REASONS: dict[Finish, str] = {
    "stop": "STOP",
    "tool_calls": "STOP",
    "stop_sequence": "STOP",
    "pause": "STOP",
    "": "STOP",
    "length": "MAX_TOKENS",
    "content_filter": "SAFETY",
    "refusal": "SAFETY",
    "error": "OTHER",
}
_AUDIO_MIMES = {"mp3": "audio/mpeg", "pcm16": "audio/L16"}


def answer_body(response: ChatResponse, model: str) -> JSONObject:
    """`model` stands in where the provider named none."""
    body: JSONObject = {"candidates": [_candidate(choice) for choice in response.choices]}
    if response.usage is not None:
        body["usageMetadata"] = usage_body(response.usage)
    return {**body, "modelVersion": response.model or model, "responseId": response.id}


def candidate_body(index: int, parts: list[JSONObject], finish: Finish | None = None) -> JSONObject:
    """One candidate, whole or of a stream's chunk; `finish` only when it ends."""
    body: JSONObject = {"content": {"role": "model", "parts": parts}, "index": index}
    if finish is not None:
        body["finishReason"] = FINISH_REASONS[finish]
    return body


def usage_body(usage: Usage) -> JSONObject:
    """Gemini counts thoughts beside the candidates' tokens, not within them."""
    body: JSONObject = {
        "promptTokenCount": usage.input_tokens,
        "candidatesTokenCount": max(0, usage.output_tokens - usage.reasoning_tokens),
        "totalTokenCount": usage.input_tokens + usage.output_tokens,
    }
    if usage.reasoning_tokens:
        body["thoughtsTokenCount"] = usage.reasoning_tokens
    if usage.cache_read_tokens:
        body["cachedContentTokenCount"] = usage.cache_read_tokens
    if usage.audio_input_tokens:
        rest = usage.input_tokens - usage.audio_input_tokens
        body["promptTokensDetails"] = _details(rest, AUDIO=usage.audio_input_tokens)
    if usage.audio_output_tokens or usage.image_output_tokens:
        spoken, drawn = usage.audio_output_tokens, usage.image_output_tokens
        rest = usage.output_tokens - usage.reasoning_tokens - spoken - drawn
        body["candidatesTokensDetails"] = _details(rest, AUDIO=spoken, IMAGE=drawn)
    return body


def _details(text: int, **others: int) -> list[JSONObject]:
    counts = {"TEXT": max(0, text), **others}
    return [{"modality": modality, "tokenCount": count} for modality, count in counts.items() if count]


def _candidate(choice: Choice) -> JSONObject:
    body = candidate_body(choice.index, [wire for part in choice.parts for wire in parts_of(part)], choice.finish)
    cited = [citation for part in choice.parts if isinstance(part, Text) for citation in part.citations]
    if chunks := grounding(cited):
        body["groundingMetadata"] = {"groundingChunks": chunks}
    if choice.logprobs is not None:
        body["logprobsResult"] = logprobs_body(choice.logprobs)
    return body


def parts_of(part: Part) -> list[JSONObject]:
    """The wire's parts for one of ours; none where the dialect has no place for it."""
    if isinstance(part, Text | Refusal):
        return [{"text": part.text}] if part.text else []
    if isinstance(part, Reasoning):
        return [thought(part)]
    if isinstance(part, ToolCall):
        return [call_body(part)]
    if isinstance(part, Image | Audio | Document):
        return _media(part)
    if isinstance(part, Opaque):
        return [part.raw] if part.dialect is Dialect.GEMINI else []
    return []


def thought(part: Reasoning) -> JSONObject:
    wire: JSONObject = {"text": part.text, "thought": True}
    if signature := wrapped(part):
        wire["thoughtSignature"] = signature
    return wire


def call_body(call: ToolCall) -> JSONObject:
    wire: JSONObject = {"functionCall": {"id": call.id, "name": call.name, "args": _args(call.arguments)}}
    if call.signature:
        wire["thoughtSignature"] = wrapped_signature(call.signature)
    return wire


def _args(arguments: str) -> object:
    """The arguments as an object; what a model wrote that is none is put into one, since clients expect it."""
    try:
        value = msgspec.json.decode(arguments) if arguments.strip() else {}
    except (msgspec.DecodeError, RecursionError):
        return {"arguments": arguments}
    if not isinstance(value, dict):
        return {"arguments": arguments}
    return msgspec.Raw(arguments.encode()) if value else {}


def _media(part: Image | Audio | Document) -> list[JSONObject]:
    source: Media = part.source
    if isinstance(part, Audio):
        mime = source.mime or _AUDIO_MIMES.get(part.format, f"audio/{part.format or 'wav'}")
        said = [{"text": part.transcript}] if part.transcript else []
        return said + ([{"inlineData": {"mimeType": mime, "data": source.data}}] if source.data else [])
    if source.data:
        return [{"inlineData": {"mimeType": source.mime or "image/png", "data": source.data}}]
    if source.url:
        return [{"fileData": {"mimeType": source.mime, "fileUri": source.url}}]
    return []


def grounding(citations: Sequence[Citation]) -> list[JSONObject]:
    return [{"web": {"uri": found.url, "title": found.title or found.url}} for found in citations if found.url]


def logprobs_body(logprobs: Sequence[TokenLogprob]) -> JSONObject:
    return {
        "chosenCandidates": [_logprob(one) for one in logprobs],
        "topCandidates": [{"candidates": [_logprob(other) for other in one.top]} for one in logprobs],
    }


def _logprob(one: TokenLogprob) -> JSONObject:
    return {"token": one.token, "logProbability": one.logprob}


def embeddings_body(response: EmbeddingResponse, *, batch: bool) -> JSONObject:
    vectors = [{"values": _floats(vector)} for vector in response.vectors]
    return {"embeddings": vectors} if batch else {"embedding": vectors[0] if vectors else {"values": []}}


def _floats(vector: tuple[float, ...] | str) -> list[float]:
    """The dialect knows numbers only; providers may have sent base64 of little-endian float32."""
    if not isinstance(vector, str):
        return list(vector)
    try:
        packed = base64.b64decode(vector, validate=True)
        return list(struct.unpack(f"<{len(packed) // 4}f", packed))
    except (binascii.Error, struct.error):
        return []
