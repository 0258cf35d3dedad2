"""Whole answers of OpenAI's wire format: chat.completion, and the usage in any of them."""

from __future__ import annotations

from typing import Any

import msgspec

from providers.adapters.counts import checked
from providers.adapters.openai_wire import FINISH, error_in, logprobs_of, reasoning_parts, thoughts_within, usage_of
from providers.adapters.types import (
    Audio,
    ChatResponse,
    Choice,
    Citation,
    Endpoint,
    Image,
    JSONObject,
    Media,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    Usage,
)

ABSENT = msgspec.Raw(b"null")  # a member that is not there reads like null


class WireFunction(msgspec.Struct):
    name: str | None = None
    arguments: str | dict[str, Any] | None = None  # some servers send the object itself


class WireToolCall(msgspec.Struct):
    """`custom` is OpenAI's free-text tool; `extra_content` carries Gemini's signatures."""

    index: int | None = None
    id: str | None = None
    function: WireFunction | None = None
    custom: dict[str, Any] | None = None
    extra_content: Any = None


class WireMessage(msgspec.Struct):
    """A message, or in streams a delta."""

    content: str | list[dict[str, Any]] | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    reasoning_details: Any = None
    tool_calls: list[WireToolCall] | None = None
    function_call: WireFunction | None = None
    audio: dict[str, Any] | None = None
    images: list[dict[str, Any]] | None = None
    annotations: list[dict[str, Any]] | None = None


class WireChoice(msgspec.Struct):
    index: int = 0
    message: WireMessage | None = None
    text: str | None = None  # instead of a message, in answers of /v1/completions
    delta: WireMessage | None = None
    finish_reason: str | None = None
    logprobs: Any = None


class WireChat(msgspec.Struct):
    """chat.completion and chat.completion.chunk."""

    choices: list[WireChoice] | None = None
    id: str | None = None
    model: str | None = None
    created: float | None = None
    usage: Any = None
    service_tier: str | None = None
    error: Any = None


class _UsageOnly(msgspec.Struct):
    usage: Any = None
    choices: msgspec.Raw = ABSENT
    data: msgspec.Raw = ABSENT
    error: Any = None


class _UsageUnread(msgspec.Struct):
    choices: msgspec.Raw = ABSENT
    data: msgspec.Raw = ABSENT
    error: msgspec.Raw = ABSENT


_chat = msgspec.json.Decoder(WireChat)
_choices = msgspec.json.Decoder(list[WireChoice])
_usage_only = msgspec.json.Decoder(_UsageOnly)
_usage_unread = msgspec.json.Decoder(_UsageUnread)
FAULTS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def usage_in(endpoint: Endpoint, body: bytes) -> Usage | None:
    try:
        answer: _UsageOnly | _UsageUnread = _usage_only.decode(body)
    except msgspec.ValidationError:  # a number that fits nowhere, most likely in usage itself
        try:
            answer = _usage_unread.decode(body)
        except FAULTS:
            raise error_in(body) from None
    except FAULTS:
        raise error_in(body) from None
    content = answer.data if endpoint is Endpoint.EMBEDDINGS else answer.choices
    if bytes(memoryview(content)[:1]) != b"[":
        raise error_in(body)
    if isinstance(answer, _UsageUnread):
        return Usage(flags=("huge",))
    if endpoint is Endpoint.EMBEDDINGS:
        return checked_usage(usage_or_none(answer.usage, writes=False), generated=False)
    usage = usage_or_none(answer.usage)
    if usage is None or usage.output_tokens:
        return checked_usage(usage, generated=True)
    return checked_usage(usage, generated=_has_content(answer.choices))


def checked_usage(usage: Usage | None, *, generated: bool) -> Usage | None:
    return None if usage is None else checked(usage, generated=generated)


def _has_content(choices: msgspec.Raw) -> bool:
    try:
        return any(_parts(_message(choice)) for choice in _choices.decode(choices))
    except FAULTS:  # something is there that no message of this wire format has
        return True


def usage_or_none(raw: object, *, writes: bool = True) -> Usage | None:
    if raw is None:
        return None
    return usage_of(raw, writes=writes) if isinstance(raw, dict) else Usage(flags=("text",))


def chat_response(body: bytes) -> ChatResponse:
    try:
        answer = _chat.decode(body)
    except FAULTS:
        raise error_in(body) from None
    if answer.choices is None or (answer.error and not answer.choices):
        raise error_in(body)
    choices = tuple([_choice(choice) for choice in answer.choices])
    return ChatResponse(
        id=answer.id or "",
        model=answer.model or "",
        choices=choices,
        usage=checked_usage(usage_or_none(answer.usage), generated=any(choice.parts for choice in choices)),
        created=int(answer.created or 0),
        service_tier=answer.service_tier or "",
    )


def _choice(choice: WireChoice) -> Choice:
    finish = choice.finish_reason
    return Choice(
        index=choice.index,
        parts=tuple(_parts(_message(choice))),
        finish=FINISH.get(finish, "stop") if finish else "",
        logprobs=logprobs_of(choice.logprobs),
    )


def _message(choice: WireChoice) -> WireMessage:
    return choice.message or WireMessage(content=choice.text)


def _parts(message: WireMessage) -> list[Part]:
    parts: list[Part] = [*thoughts_of(message)]
    if text := text_of(message.content):
        citations = tuple(citations_of(message.annotations))
        parts.append(Text(text=text, citations=citations))
    if message.refusal:
        parts.append(Refusal(text=message.refusal))
    if message.audio:
        parts.append(audio_of(message.audio))
    parts.extend(images_of(message.images))
    for index, call in enumerate(calls_of(message)):
        function = call.function or WireFunction()
        parts.append(
            ToolCall(
                id=call.id or f"call_{index}",
                name=function.name or "",
                arguments=arguments_of(function) or "{}",
                signature=signature_of(call),
            )
        )
    return parts


def thoughts_of(message: WireMessage) -> list[Reasoning]:
    told = reasoning_parts(message.reasoning_details, message.reasoning_content or message.reasoning)
    return told or thoughts_within(message.content)


def text_of(content: str | list[dict[str, Any]] | None) -> str:
    if isinstance(content, list):
        return "".join([item["text"] for item in content if isinstance(item.get("text"), str)])
    return content or ""


def calls_of(message: WireMessage) -> list[WireToolCall]:
    """Tool calls in all their shapes as function calls."""
    calls = message.tool_calls or []
    for call in calls:
        if call.custom is not None and call.function is None:
            name, written = call.custom.get("name"), call.custom.get("input")
            arguments = msgspec.json.encode({"input": written}).decode() if written is not None else None
            call.function = WireFunction(name=name if isinstance(name, str) else None, arguments=arguments)
    if message.function_call is not None and not calls:
        return [WireToolCall(index=0, function=message.function_call)]
    return calls


def arguments_of(function: WireFunction) -> str:
    arguments = function.arguments
    return msgspec.json.encode(arguments).decode() if isinstance(arguments, dict) else arguments or ""


def signature_of(call: WireToolCall) -> str:
    google = call.extra_content.get("google") if isinstance(call.extra_content, dict) else None
    signature = google.get("thought_signature") if isinstance(google, dict) else None
    return signature if isinstance(signature, str) else ""


def audio_of(raw: JSONObject) -> Audio:
    def text(name: str) -> str:
        value = raw.get(name)
        return value if isinstance(value, str) else ""

    expires = raw.get("expires_at")
    return Audio(
        source=Media(data=text("data")),
        transcript=text("transcript"),
        id=text("id"),
        expires_at=expires if type(expires) is int else 0,
    )


def images_of(raw: list[dict[str, Any]] | None) -> list[Image]:
    """OpenRouter's `images`: image_url objects, mostly data URLs."""
    images: list[Image] = []
    for item in raw or ():
        wire = item.get("image_url")
        url = wire.get("url") if isinstance(wire, dict) else None
        if isinstance(url, str) and url:
            images.append(Image(source=media_of(url)))
    return images


def media_of(url: str) -> Media:
    """A data URL as its type and base64 data; any other URL as it is."""
    if url.startswith("data:"):
        kind, found, data = url[5:].partition(";base64,")
        if found:
            return Media(mime=kind.partition(";")[0], data=data)
    return Media(url=url)


def citations_of(raw: list[dict[str, Any]] | None) -> list[Citation]:
    citations: list[Citation] = []
    for item in raw or ():
        wire = item.get("url_citation")
        if isinstance(wire, dict):
            url, title = wire.get("url"), wire.get("title")
            citations.append(Citation(url=str(url or ""), title=str(title or ""), raw=item))
    return citations
