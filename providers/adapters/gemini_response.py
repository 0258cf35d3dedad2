"""Gemini's answers read: GenerateContentResponse whole or as a stream's chunk, usage, embeddings.

promptTokenCount includes cached tokens; candidatesTokenCount excludes thoughts, so our output_tokens =
candidatesTokenCount + thoughtsTokenCount. Reference: https://ai.google.dev/api/generate-content
"""

from __future__ import annotations

import base64
import binascii
from typing import Any, TypeVar

import msgspec

from providers.adapters.counts import Counts
from providers.adapters.gemini_wire import (
    AnswerWire,
    BlobWire,
    CandidateWire,
    FileWire,
    GroundingWire,
    LogprobsWire,
    PartWire,
    WebWire,
)
from providers.adapters.types import (
    Audio,
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
    Text,
    TokenLogprob,
    ToolCall,
    Usage,
)
from providers.errors import InvalidResponse, UpstreamError, refusal

T = TypeVar("T")

FINISHES: dict[str, Finish] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "LANGUAGE": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "IMAGE_SAFETY": "content_filter",
    "IMAGE_PROHIBITED_CONTENT": "content_filter",
    "IMAGE_RECITATION": "content_filter",
    "MALFORMED_FUNCTION_CALL": "error",
    "UNEXPECTED_TOOL_CALL": "error",
    "OTHER": "error",
}


class _VectorWire(msgspec.Struct):
    values: list[float]


class _EmbeddingsWire(msgspec.Struct):
    embedding: _VectorWire | None = None
    embeddings: list[_VectorWire] | None = None
    error: Any = None


_answer = msgspec.json.Decoder(AnswerWire)
_embeddings = msgspec.json.Decoder(_EmbeddingsWire)
_part = msgspec.json.Decoder(PartWire)
_object = msgspec.json.Decoder(dict[str, Any])


def decoded(decoder: msgspec.json.Decoder[T], body: bytes | msgspec.Raw) -> T:
    """Raises InvalidResponse for anything that is not what `decoder` expects."""
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidResponse(f"The provider's answer is not in Gemini's format: {error}") from error


def read_answer(body: bytes) -> AnswerWire:
    """A whole answer or a chunk. Raises the provider's own error when it holds one."""
    wire = decoded(_answer, body)
    if wire.error is not None:
        raise in_band_error(wire.error)
    return wire


def read_embeddings(body: bytes, model: str) -> EmbeddingResponse:
    """embedContent answers with one vector, batchEmbedContents with a list; neither tells usage."""
    wire = decoded(_embeddings, body)
    if wire.error is not None:
        raise in_band_error(wire.error)
    vectors = wire.embeddings if wire.embeddings is not None else [wire.embedding] if wire.embedding else []
    if not vectors:
        raise InvalidResponse("The provider's answer has no embedding.")
    return EmbeddingResponse(model=model, vectors=tuple(tuple(vector.values) for vector in vectors), usage=None)


def usage_of(wire: AnswerWire) -> Usage | None:
    """None when usageMetadata is missing."""
    raw = wire.usage_metadata
    if not isinstance(raw, dict):
        return None
    counts = Counts()
    given = counts.read(raw.get("promptTokenCount"), required=True)
    given += counts.read(raw.get("toolUsePromptTokenCount"))
    thoughts = counts.read(raw.get("thoughtsTokenCount"))
    told = raw.get("candidatesTokenCount")
    written = counts.read(told, required=told is None and _has_answer(wire)) + thoughts
    searches = sum(_searches(candidate) for candidate in wire.candidates or ())
    return Usage(
        input_tokens=given,
        output_tokens=written,
        cache_read_tokens=counts.part(raw.get("cachedContentTokenCount"), given),
        reasoning_tokens=thoughts,
        audio_input_tokens=counts.part(_modality(raw.get("promptTokensDetails"), "AUDIO"), given),
        audio_output_tokens=counts.part(_modality(raw.get("candidatesTokensDetails"), "AUDIO"), written),
        image_output_tokens=counts.part(_modality(raw.get("candidatesTokensDetails"), "IMAGE"), written),
        units={"search": searches} if searches else {},
        flags=counts.flags,
    )


def _has_answer(wire: AnswerWire) -> bool:
    """Whether there is anything but thoughts: Gemini leaves a count of nothing out."""
    contents = [candidate.content for candidate in wire.candidates or () if candidate.content]
    return any(b'"thought"' not in bytes(part) for content in contents for part in content.parts or ())


def _modality(details: object, modality: str) -> object:
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, dict) and detail.get("modality") == modality:
            return detail.get("tokenCount")
    return None


def _searches(candidate: CandidateWire) -> int:
    grounding = candidate.grounding_metadata
    return len(grounding.web_search_queries or ()) if grounding else 0


def parts_of(raw: msgspec.Raw, call_id: str) -> list[Part]:
    """One wire part: mostly one of ours; a signed text is followed by its signature. `call_id` is for calls without."""
    wire = decoded(_part, raw)
    signature = wire.thought_signature
    if wire.function_call is not None:
        call = wire.function_call
        arguments = msgspec.json.format(bytes(call.args), indent=-1).decode()  # whole answers come pretty-printed
        return [ToolCall(id=call.id or call_id, name=call.name, arguments=arguments, signature=signature)]
    if wire.thought:
        return [Reasoning(text=wire.text or "", signature=signature)]
    parts: list[Part] = []
    if wire.text:
        parts.append(Text(text=wire.text))
    elif wire.inline_data is not None:
        parts.append(media_of(wire.inline_data))
    elif wire.file_data is not None:
        parts.append(linked_media_of(wire.file_data))
    elif wire.text is None:
        parts.append(Opaque(dialect=Dialect.GEMINI, raw=decoded(_object, raw)))
        return parts
    if signature:
        parts.append(Reasoning(signature=signature))
    return parts


def media_of(blob: BlobWire) -> Image | Audio | Document:
    kind, _, subtype = blob.mime_type.partition("/")
    source = Media(mime=blob.mime_type, data=blob.data)
    if kind == "image":
        return Image(source=source)
    if kind == "audio":
        return Audio(source=source, format=AUDIO_FORMATS.get(subtype, subtype))
    if kind == "text":
        try:
            text = base64.b64decode(blob.data, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return Document(source=source)
        return Document(source=Media(mime=blob.mime_type), text=text)
    return Document(source=source)


def linked_media_of(file: FileWire) -> Image | Audio | Document:
    kind, _, subtype = file.mime_type.partition("/")
    source = Media(mime=file.mime_type, url=file.file_uri)
    if kind == "image":
        return Image(source=source)
    if kind == "audio":
        return Audio(source=source, format=AUDIO_FORMATS.get(subtype, subtype))
    return Document(source=source)


AUDIO_FORMATS = {"mpeg": "mp3", "x-wav": "wav", "wave": "wav", "L16": "pcm16"}


def finish_of(reason: str | None, *, calls: bool) -> Finish:
    """Gemini says STOP for tool calls too."""
    finish = FINISHES.get(reason or "", "stop")
    return "tool_calls" if calls and finish == "stop" else finish


def logprobs_of(wire: LogprobsWire | None) -> tuple[TokenLogprob, ...] | None:
    if wire is None or wire.chosen_candidates is None:
        return None
    tops = wire.top_candidates or []
    return tuple(
        TokenLogprob(
            token=chosen.token,
            logprob=chosen.log_probability,
            top=tuple(
                TokenLogprob(token=other.token, logprob=other.log_probability)
                for other in (tops[at].candidates or () if at < len(tops) else ())
            ),
        )
        for at, chosen in enumerate(wire.chosen_candidates)
    )


def citations_of(grounding: GroundingWire | None) -> tuple[Citation, ...]:
    chunks = grounding.grounding_chunks or [] if grounding else []
    return tuple(
        Citation(url=chunk.web.uri, title=chunk.web.title, raw=_raw_chunk(chunk.web)) for chunk in chunks if chunk.web
    )


def _raw_chunk(web: WebWire) -> JSONObject:
    return {"web": {"uri": web.uri, "title": web.title}}


def in_band_error(error: object) -> UpstreamError:
    words = error if isinstance(error, dict) else {}
    status, message = words.get("code"), words.get("message")
    text = message if isinstance(message, str) and message else "The provider sent an error without a message."
    if type(status) is not int or not 400 <= status <= 599:
        status = 500
    return refusal(status, text)
