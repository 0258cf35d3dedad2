"""Whole answers of OpenAI's Responses API, and what its usage says.

Reference: the `openai` package's types Response and ResponseUsage. Items that no other wire format knows (searches,
code that ran) are kept as they are. Searches are sold by the piece: `tool_usage` counts them, else the items do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from providers.adapters.counts import Counts, checked
from providers.adapters.openai_wire import error_in, logprobs_of, refusal_in_answer
from providers.adapters.openai_wire_answer import ABSENT, FAULTS
from providers.adapters.types import (
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
    Refusal,
    Text,
    TokenLogprob,
    ToolCall,
    Usage,
)
from providers.errors import InvalidResponse, UpstreamRefusal

INCOMPLETE: dict[str, Finish] = {"max_output_tokens": "length", "content_filter": "content_filter"}
_ENDS = ("completed", "incomplete")


class WireResponse(msgspec.Struct):
    """A Response; `output` items are read one by one."""

    object: str | None = None
    id: str | None = None
    model: str | None = None
    created_at: float | None = None
    status: str | None = None
    output: list[dict[str, Any]] | None = None
    usage: Any = None
    tool_usage: Any = None
    service_tier: str | None = None
    incomplete_details: Any = None
    error: Any = None


class _UsageOnly(msgspec.Struct):
    """An answer has `output`; the texts in it are not read."""

    output: msgspec.Raw = ABSENT
    usage: msgspec.Raw = ABSENT
    tool_usage: msgspec.Raw = ABSENT
    status: str | None = None
    error: msgspec.Raw = ABSENT


_response = msgspec.json.Decoder(WireResponse)
_usage_only = msgspec.json.Decoder(_UsageOnly)


def response_usage(body: bytes) -> Usage | None:
    """Usage of a whole answer. Raises what chat completions raise for a body that is none (openai_wire_answer)."""
    try:
        answer = _usage_only.decode(body)
    except FAULTS:
        raise error_in(body) from None
    if answer.status == "failed":
        raise failure_at_end(msgspec.Raw(body))
    if bytes(memoryview(answer.output)[:1]) != b"[":
        raise error_in(body)
    usage = usage_or_none(_value(answer.usage), _value(answer.tool_usage), _searched(answer.output))
    return None if usage is None else checked(usage, generated=_any_item(answer.output))


def usage_at_end(response: msgspec.Raw) -> Usage | None:
    """Usage of the answer that the last event of a stream repeats."""
    try:
        answer = _usage_only.decode(response)
    except FAULTS:
        return Usage(flags=("text",))
    return usage_or_none(_value(answer.usage), _value(answer.tool_usage), _searched(answer.output))


def failure_at_end(response: msgspec.Raw) -> UpstreamRefusal:
    """Why an answer failed, and what it used all the same."""
    try:
        answer = _usage_only.decode(response)
    except FAULTS:
        return refusal_in_answer(None)
    return failure_of(_value(answer.error), usage_at_end(response), generated=_any_item(answer.output))


def failure_of(error: object, used: Usage | None, *, generated: bool) -> UpstreamRefusal:
    """What failed late was generated, and is billed: by its own figures, or estimated where those are missing."""
    failure = refusal_in_answer(error)
    if used is not None and not used.flags and (used.input_tokens or used.output_tokens):
        failure.usage, failure.billed = used, "maybe"
    elif generated:
        failure.billed = "maybe"
    return failure


def whole_response(body: bytes) -> ChatResponse:
    try:
        answer = _response.decode(body)
    except FAULTS:
        raise error_in(body) from None
    if answer.status == "failed" or (answer.error and not answer.output):
        used = usage_or_none(answer.usage, answer.tool_usage, searches(answer.output or ()))
        raise failure_of(answer.error, used, generated=bool(answer.output))
    if answer.output is None:
        raise error_in(body)
    parts = [part for item in answer.output for part in parts_of(item)]
    usage = usage_or_none(answer.usage, answer.tool_usage, searches(answer.output))
    choice = Choice(parts=tuple(parts), finish=finish_of(answer, parts), logprobs=_logprobs(answer.output))
    return ChatResponse(
        id=answer.id or "",
        model=answer.model or "",
        choices=(choice,),
        usage=None if usage is None else checked(usage, generated=bool(parts)),
        created=int(answer.created_at or 0),
        service_tier=answer.service_tier or "",
    )


def is_response(body: bytes) -> bool:
    """Whether a body is of this API and not of chat completions, which share their providers."""
    try:
        return _response.decode(body).object == "response"
    except FAULTS:
        return False


def finish_of(answer: WireResponse, parts: Iterable[Part]) -> Finish:
    if answer.status not in _ENDS:
        raise InvalidResponse(f"The provider's answer has the status {answer.status!r}.", status=200)
    if answer.status == "incomplete":
        details = answer.incomplete_details
        reason = details.get("reason") if isinstance(details, dict) else None
        return INCOMPLETE.get(reason, "length") if isinstance(reason, str) else "length"
    return "tool_calls" if any(isinstance(part, ToolCall) for part in parts) else "stop"


# --- usage --------------------------------------------------------------------------------------------------------


def usage_or_none(raw: object, tools: object = None, searched: int = 0) -> Usage | None:
    """Never raises: see openai_wire.usage_of."""
    if raw is None:
        return None
    if not isinstance(raw, dict):
        return Usage(flags=("text",))
    counts = Counts()
    read, written = _object(raw, "input_tokens_details"), _object(raw, "output_tokens_details")
    given = counts.read(raw.get("input_tokens"), required=True)
    output = counts.read(raw.get("output_tokens"), required=True)
    cached = counts.part(read.get("cached_tokens"), given)
    told = _object(tools, "web_search").get("num_requests") if isinstance(tools, dict) else None
    sold = max(counts.read(told), searched)
    return Usage(
        input_tokens=given,
        output_tokens=output,
        cache_read_tokens=cached,
        cache_write_tokens=counts.part(read.get("cache_write_tokens"), given - cached),
        reasoning_tokens=counts.part(written.get("reasoning_tokens"), output),
        units={"search": sold} if sold else {},
        flags=counts.flags,
    )


def searches(items: Iterable[Mapping[str, Any]]) -> int:
    """Only searching is sold: opening a page it found is not."""
    found = 0
    for item in items:
        if item.get("type") == "web_search_call":
            action = item.get("action")
            found += not isinstance(action, dict) or action.get("type", "search") == "search"
    return found


def _any_item(output: msgspec.Raw) -> bool:
    return bytes(memoryview(output)) not in (b"", b"[]", b"null")


def _searched(output: msgspec.Raw) -> int:
    if b"web_search_call" not in bytes(memoryview(output)):
        return 0
    decoded = _value(output)
    return searches([item for item in decoded if isinstance(item, dict)]) if isinstance(decoded, list) else 0


def _object(raw: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = raw.get(name)
    return value if isinstance(value, dict) else {}


def _value(raw: msgspec.Raw) -> object:
    """Any JSON value; one whose numbers fit nowhere counts as text."""
    try:
        return msgspec.json.decode(raw)
    except FAULTS:
        return bytes(memoryview(raw)).decode("utf-8", "replace")


# --- items --------------------------------------------------------------------------------------------------------


def parts_of(item: JSONObject) -> list[Part]:
    kind = item.get("type")
    if kind == "message":
        return [part for content in _objects(item.get("content")) if (part := _content(content)) is not None]
    if kind == "reasoning":
        thought = thought_of(item)
        return [thought] if thought.text or thought.signature or thought.redacted else []
    if kind == "function_call":
        return [ToolCall(id=text(item, "call_id"), name=text(item, "name"), arguments=text(item, "arguments") or "{}")]
    if kind == "custom_tool_call":
        arguments = free_text(text(item, "input"))
        return [ToolCall(id=text(item, "call_id"), name=text(item, "name"), arguments=arguments)]
    if (image := image_of(item)) is not None:
        return [image]
    return [Opaque(dialect=Dialect.RESPONSES, raw=item)]


def thought_of(item: Mapping[str, Any]) -> Reasoning:
    """What is encrypted belongs to the text told of it, or stands alone."""
    told = _objects(item.get("summary")) or _objects(item.get("content"))
    said, sealed = "\n\n".join([text(part, "text") for part in told]), text(item, "encrypted_content")
    if said:
        return Reasoning(text=said, signature=sealed, id=text(item, "id"))
    return Reasoning(redacted=sealed, id=text(item, "id"))


def image_of(item: Mapping[str, Any]) -> Image | None:
    data = text(item, "result") if item.get("type") == "image_generation_call" else ""
    kind = text(item, "output_format") or "png"
    return Image(source=Media(mime=f"image/{kind}", data=data)) if data else None


def free_text(written: str) -> str:
    """What a custom tool is given, as the one argument of a function."""
    return msgspec.json.encode({"input": written}).decode()


def citation_of(note: Mapping[str, Any]) -> Citation | None:
    """A page that was cited, with its place as chat completions nest it."""
    if note.get("type") != "url_citation":
        return None
    place = {name: note[name] for name in ("url", "title", "start_index", "end_index") if name in note}
    raw: JSONObject = {"type": "url_citation", "url_citation": place}
    return Citation(url=text(note, "url"), title=text(note, "title"), raw=raw)


def text(raw: Mapping[str, Any], name: str) -> str:
    value = raw.get(name)
    return value if isinstance(value, str) else ""


def _content(content: Mapping[str, Any]) -> Part | None:
    if content.get("type") == "refusal":
        return Refusal(text=text(content, "refusal"))
    said = text(content, "text")
    notes = [citation_of(note) for note in _objects(content.get("annotations"))]
    return Text(text=said, citations=tuple([note for note in notes if note is not None])) if said else None


def _logprobs(items: Iterable[Mapping[str, Any]]) -> tuple[TokenLogprob, ...] | None:
    told = [
        token
        for item in items
        for content in _objects(item.get("content"))
        for token in logprobs_of({"content": content.get("logprobs")}) or ()
    ]
    return tuple(told) or None


def _objects(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
