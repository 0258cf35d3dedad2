"""Converse's answers read: whole ones, content blocks, usage and errors.

Cached input is counted beside inputTokens for most models and within it for some; totalTokens tells which: our
input_tokens = inputTokens + cacheReadInputTokens + cacheWriteInputTokens, or inputTokens alone where it holds them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from providers.adapters.converse_request import ANSWER_TOOL
from providers.adapters.counts import Counts, checked
from providers.adapters.refusals import header, json_of, plain_message, retry_after, shortened
from providers.adapters.types import (
    ChatRequest,
    ChatResponse,
    Choice,
    Citation,
    Dialect,
    Finish,
    Image,
    JSONObject,
    Media,
    Opaque,
    Part,
    Reasoning,
    Text,
    Tool,
    ToolCall,
    Usage,
)
from providers.errors import InvalidResponse, UpstreamError, UpstreamTimeout, refusal

T = TypeVar("T")
FINISHES: dict[str, Finish] = {
    "end_turn": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "stop_sequence": "stop_sequence",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
    "malformed_model_output": "error",
    "malformed_tool_use": "error",
}
# Statuses of errors that come in a stream, or whose own status says too little.
_STATUS = {
    "AccessDeniedException": 403,
    "ExpiredTokenException": 403,
    "IncompleteSignature": 403,
    "InvalidSignatureException": 403,
    "UnrecognizedClientException": 403,
    "ResourceNotFoundException": 404,
    "ValidationException": 400,
    "ThrottlingException": 429,
    "ServiceQuotaExceededException": 429,
    "ModelNotReadyException": 503,
    "ModelErrorException": 502,
    "ModelStreamErrorException": 502,
    "InternalServerException": 500,
    "ServiceUnavailableException": 503,
}


class _Block(msgspec.Struct):
    text: str | None = None
    toolUse: JSONObject | None = None  # noqa: N815 (the wire's names, here and below)
    reasoningContent: JSONObject | None = None  # noqa: N815
    citationsContent: JSONObject | None = None  # noqa: N815
    image: JSONObject | None = None


class _Message(msgspec.Struct):
    content: list[msgspec.Raw]


class _Output(msgspec.Struct):
    message: _Message


class _Answer(msgspec.Struct):
    output: _Output
    stopReason: str = ""  # noqa: N815
    usage: Any = None
    serviceTier: Any = None  # noqa: N815


class _Summary(msgspec.Struct):
    modelId: str  # noqa: N815


class _Summaries(msgspec.Struct):
    modelSummaries: list[_Summary]  # noqa: N815


_answer = msgspec.json.Decoder(_Answer)
_block = msgspec.json.Decoder(_Block)
_object = msgspec.json.Decoder(dict[str, Any])
_summaries = msgspec.json.Decoder(_Summaries)
_FAULTS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def decoded(decoder: msgspec.json.Decoder[T], body: bytes | msgspec.Raw) -> T:
    """Raises InvalidResponse for anything that is not what `decoder` expects."""
    try:
        return decoder.decode(body)
    except _FAULTS as error:
        raise InvalidResponse(f"The provider's answer is not one of Converse: {error}") from error


def read_answer(request: ChatRequest, body: bytes) -> ChatResponse:
    """Converse names neither the answer nor the model: the request's model stands in."""
    wire = decoded(_answer, body)
    named = answer_tool(request)
    parts = tuple([part for raw in wire.output.message.content for part in parts_of(raw, named)])
    finish = FINISHES.get(wire.stopReason, "stop")
    if finish == "tool_calls" and not any(isinstance(part, ToolCall) for part in parts):
        finish = "stop"  # the only call was the answer itself
    usage = usage_of(wire.usage)
    choice = Choice(parts=parts, finish=finish)
    return ChatResponse(
        id="",
        model=request.model,
        choices=(choice,),
        usage=checked(usage, generated=bool(parts)) if usage else None,
        service_tier=text_in(wire.serviceTier, "type"),
    )


def answer_tool(request: ChatRequest) -> str:
    """The name of the tool whose call is the answer; empty when none was put into the request."""
    wanted = request.response_format
    own = any(isinstance(tool, Tool) and tool.name == ANSWER_TOOL for tool in request.tools)
    return ANSWER_TOOL if wanted and wanted.kind == "json_schema" and not own else ""


def parts_of(raw: msgspec.Raw, answer: str = "") -> list[Part]:
    """`answer`: the tool whose call is read as text."""
    wire = decoded(_block, raw)
    if wire.text is not None:
        return [Text(text=wire.text)]
    if wire.toolUse is not None and "type" not in wire.toolUse:
        return [_call(wire.toolUse, answer)]
    if wire.reasoningContent is not None:
        return [_reasoning(wire.reasoningContent)]
    if wire.citationsContent is not None:
        return [_cited(wire.citationsContent)]
    if wire.image is not None and (image := image_of(wire.image)):
        return [image]
    return [Opaque(dialect=Dialect.CONVERSE, raw=decoded(_object, raw))]


def _call(wire: JSONObject, answer: str) -> Part:
    arguments = msgspec.json.encode(wire.get("input", {})).decode()
    name = text_in(wire, "name")
    return Text(text=arguments) if answer and name == answer else ToolCall(text_in(wire, "toolUseId"), name, arguments)


def _reasoning(wire: JSONObject) -> Reasoning:
    said = wire.get("reasoningText")
    return Reasoning(
        text=text_in(said, "text"), signature=text_in(said, "signature"), redacted=text_in(wire, "redactedContent")
    )


def _cited(wire: JSONObject) -> Text:
    citations = wire.get("citations")
    found = [citation_of(one) for one in citations if isinstance(one, dict)] if isinstance(citations, list) else []
    return Text(text=_joined(wire.get("content")), citations=tuple(found))


def citation_of(raw: JSONObject) -> Citation:
    location = raw.get("location")
    web = location.get("web") if isinstance(location, dict) else None
    return Citation(
        text=_joined(raw.get("sourceContent")),
        url=text_in(web, "url"),
        title=text_in(raw, "title"),
        raw={"converse": raw},
    )


def image_of(wire: JSONObject) -> Image | None:
    data = text_in(wire.get("source"), "bytes")
    return Image(source=Media(mime=f"image/{text_in(wire, 'format') or 'png'}", data=data)) if data else None


def _joined(texts: object) -> str:
    return "".join(text_in(one, "text") for one in texts) if isinstance(texts, list) else ""


def text_in(wire: object, name: str) -> str:
    value = wire.get(name) if isinstance(wire, dict) else None
    return value if isinstance(value, str) else ""


# --- usage ----------------------------------------------------------------------------------------------------------


def usage_of(wire: object) -> Usage | None:
    """None for a missing usage or one that is no object."""
    if not isinstance(wire, dict):
        return None
    counts = Counts()
    given, output = (
        counts.read(wire.get("inputTokens"), required=True),
        counts.read(wire.get("outputTokens"), required=True),
    )
    read, written = counts.read(wire.get("cacheReadInputTokens")), counts.read(wire.get("cacheWriteInputTokens"))
    details = wire.get("cacheDetails")
    lifetimes: dict[object, int] = {}
    for one in details if isinstance(details, list) else ():
        if isinstance(one, dict):
            ttl = text_in(one, "ttl")
            lifetimes[ttl] = lifetimes.get(ttl, 0) + counts.read(one.get("inputTokens"))
    written = max(written, sum(lifetimes.values()))
    holds_cached = read + written <= given and wire.get("totalTokens") == given + output
    return Usage(
        input_tokens=given if holds_cached else given + read + written,
        output_tokens=output,
        cache_read_tokens=read,
        cache_write_tokens=written,
        cache_write_1h_tokens=lifetimes.get("1h", 0),
        flags=counts.flags,
    )


def model_ids(body: bytes) -> list[str]:
    """Of the control plane's ListFoundationModels. Raises InvalidResponse."""
    try:
        return [model.modelId for model in _summaries.decode(body).modelSummaries]
    except _FAULTS as error:
        raise InvalidResponse(f"The provider's list of models cannot be read: {error}") from error


# --- errors ---------------------------------------------------------------------------------------------------------


def refusal_of(status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
    """The error's name comes in a header or as the body's `__type`, and may have a namespace before or a URL behind."""
    found = json_of(body)
    words = found if isinstance(found, dict) else {}
    kind = header(headers, "x-amzn-errortype") or text_in(words, "__type") or text_in(words, "code")
    kind = kind.partition(":")[0].rpartition("#")[2]
    inner = words.get("error")
    message = text_in(words, "message") or text_in(words, "Message") or text_in(inner, "message")
    return error_named(kind, message or plain_message(status, body), status=status, wait=retry_after(headers))


def error_named(kind: str, message: str, *, status: int = 0, wait: float | None = None) -> UpstreamError:
    """AWS's own words, which name the permission or the model that is missing. `status` 0: an error in a stream."""
    name = kind[:1].upper() + kind[1:]
    text = shortened(message)
    if name == "ModelTimeoutException":
        return UpstreamTimeout(text, status=status)
    return refusal(_STATUS.get(name, status or 500), text, retry_after=wait)
