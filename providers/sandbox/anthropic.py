"""Anthropic's messages: request to Prompt, Answer to body and stream, errors.

Wire format: the API reference of `/v1/messages`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from providers.sandbox.answers import Answer, Message, Prompt, Tool, joined, json_weight, media, tokens_of
from providers.sandbox.delivery import Frame
from providers.sandbox.reading import (
    RequestError,
    count,
    flag,
    mapping,
    optional_mapping,
    optional_sequence,
    sequence,
    text,
    texts,
)
from providers.sandbox.seals import check, seal
from providers.sandbox.usage import Usage, with_usage

NAME = "anthropic"
REQUEST_ID = "request-id"
_ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_FINISH = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


def error(status: int, message: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """`param` and `code` have no place in this dialect; the message names the field."""
    kind = _ERRORS.get(status, "api_error" if status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": message}}


def error_event(message: str) -> bytes:
    return _event("error", {"error": {"type": "api_error", "message": message}})


def _event(kind: str, payload: dict[str, Any]) -> bytes:
    return b"event: " + kind.encode() + b"\ndata: " + orjson.dumps({"type": kind, **payload}) + b"\n\n"


def parse_messages(body: dict[str, Any], *, counting: bool = False) -> Prompt:
    """Raises RequestError. `counting`: `max_tokens` may be left out, as in `count_tokens`."""
    messages = [
        _message(item, f"messages.{place}") for place, item in enumerate(sequence(body.get("messages"), "messages"))
    ]
    if not messages:
        raise RequestError("messages: at least one message is required", param="messages")
    if body.get("system") is not None:
        messages.insert(0, _content(body["system"], "system", Message("system", "")))
    output = optional_mapping(body.get("output_config"), "output_config")
    form = optional_mapping(output.get("format"), "output_config.format")
    return Prompt(
        model=text(body.get("model"), "model"),
        messages=messages,
        tools=[
            _tool(item, f"tools.{place}") for place, item in enumerate(optional_sequence(body.get("tools"), "tools"))
        ],
        forced=_forced(optional_mapping(body.get("tool_choice"), "tool_choice")),
        schema=optional_mapping(form.get("schema"), "output_config.format.schema") if form else None,
        cap=None if counting else count(body.get("max_tokens"), "max_tokens"),
        stop=texts(body.get("stop_sequences"), "stop_sequences"),
        stream=flag(body.get("stream"), "stream"),
    )


def _message(item: object, where: str) -> Message:
    given = mapping(item, where)
    role = text(given.get("role"), f"{where}.role")
    if role not in ("user", "assistant"):
        raise RequestError(f"{where}.role: must be user or assistant", param=f"{where}.role")
    return _content(given.get("content"), f"{where}.content", Message(role, ""))


def _content(content: object, where: str, message: Message) -> Message:
    if isinstance(content, str):
        message.text = content
    else:
        blocks = enumerate(sequence(content, where))
        message.text = joined([_block(block, message, f"{where}.{place}") for place, block in blocks])
    return message


def _block(block: object, message: Message, where: str) -> str:
    given = mapping(block, where)
    match given.get("type"):
        case "text":
            return text(given.get("text"), f"{where}.text")
        case "image" | "document" as kind:
            mark, weight = _source(kind, mapping(given.get("source"), f"{where}.source"), f"{where}.source")
            message.weight += weight
            return mark
        case "tool_use":
            message.weight += len(tokens_of(str(given.get("name", "")))) + json_weight(given.get("input", {}))
        case "tool_result":
            if where.count(".content") > 1:
                raise RequestError(f"{where}: a tool result cannot stand in a tool result", param=where)
            message.is_result = True
            if given.get("content") is not None:
                return _content(given["content"], f"{where}.content", message).text
        case "thinking":
            message.weight += len(tokens_of(text(given.get("thinking"), f"{where}.thinking")))
            check(given.get("signature"), "anthropic", f"{where}.signature")
        case "redacted_thinking":
            message.weight += len(tokens_of(text(given.get("data"), f"{where}.data")))
        case _:
            raise RequestError(f"{where}.type: not a type of content", param=f"{where}.type")
    return ""


def _source(kind: str, source: dict[str, Any], where: str) -> tuple[str, int]:
    match source.get("type"):
        case "base64":
            mime = text(source.get("media_type"), f"{where}.media_type")
            return media(kind, text(source.get("data"), f"{where}.data"), mime)
        case "url":
            return media(kind, text(source.get("url"), f"{where}.url"), "")
        case "text":
            return text(source.get("data"), f"{where}.data"), 0
        case _:
            raise RequestError(f"{where}.type: not a type of source", param=f"{where}.type")


def _tool(item: object, where: str) -> Tool:
    given = mapping(item, where)
    schema = mapping(given.get("input_schema"), f"{where}.input_schema")
    return Tool(text(given.get("name"), f"{where}.name"), schema, json_weight(given))


def _forced(choice: dict[str, Any]) -> str:
    match choice.get("type"):
        case "none":
            return "none"
        case "tool":
            return text(choice.get("name"), "tool_choice.name")
        case _:
            return ""


def _told(usage: Usage, output_tokens: int) -> dict[str, Any]:
    """Anthropic's input_tokens leave the cached ones out."""
    return {
        "input_tokens": usage.say(usage.input_tokens - usage.cached_tokens),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.say(usage.cached_tokens),
        "output_tokens": usage.say(output_tokens),
    }


def _ending(answer: Answer) -> dict[str, Any]:
    if answer.stopped_by is not None:
        return {"stop_reason": "stop_sequence", "stop_sequence": answer.stopped_by}
    return {"stop_reason": _FINISH[answer.finish], "stop_sequence": None}


def _arguments(tokens: list[str]) -> Any:
    """The arguments as an object; those that the cap tore are empty, as a torn object cannot be told here."""
    try:
        return orjson.loads("".join(tokens))
    except orjson.JSONDecodeError:
        return {}


def _shell(prompt: Prompt, identity: str, content: list[dict[str, Any]], ending: dict[str, Any]) -> dict[str, Any]:
    shell = {"id": f"msg_{identity}", "type": "message", "role": "assistant", "model": prompt.model, "content": content}
    return {**shell, **ending}


def messages_body(prompt: Prompt, answer: Answer, usage: Usage, identity: str) -> bytes:
    content: list[dict[str, Any]] = []
    if answer.thought:
        content.append({"type": "thinking", "thinking": "".join(answer.thought), "signature": seal("anthropic")})
    if answer.text:
        content.append({"type": "text", "text": "".join(answer.text), "citations": None})
    for call in answer.calls:
        made = {"id": f"toolu_{call.id}", "name": call.name, "input": _arguments(call.arguments)}
        content.append({"type": "tool_use", **made})
    body = _shell(prompt, identity, content, _ending(answer))
    return with_usage(body, "usage", {**_told(usage, usage.output_tokens), "service_tier": "standard"}, usage)


# A block as it starts, its deltas, and what its start costs.
_Block = tuple[dict[str, Any], list[dict[str, Any]], int]


def _blocks(answer: Answer) -> Iterator[_Block]:
    if answer.thought:
        deltas: list[dict[str, Any]] = [{"type": "thinking_delta", "thinking": token} for token in answer.thought]
        deltas.append({"type": "signature_delta", "signature": seal("anthropic")})
        yield {"type": "thinking", "thinking": "", "signature": ""}, deltas, 0
    if answer.text:
        yield {"type": "text", "text": ""}, [{"type": "text_delta", "text": token} for token in answer.text], 0
    for call in answer.calls:
        deltas = [{"type": "input_json_delta", "partial_json": token} for token in call.arguments]
        yield {"type": "tool_use", "id": f"toolu_{call.id}", "name": call.name, "input": {}}, deltas, 1


def messages_frames(prompt: Prompt, answer: Answer, usage: Usage, identity: str) -> Iterator[Frame]:
    message = _shell(prompt, identity, [], {"stop_reason": None, "stop_sequence": None})
    if usage.told:
        message["usage"] = _told(usage, 0)
    yield 0, _event("message_start", {"message": message})
    left = 0
    for index, (start, deltas, price) in enumerate(_blocks(answer)):
        left += price
        yield left, _event("content_block_start", {"index": index, "content_block": start})
        if index == 0:
            yield left, _event("ping", {})
        for delta in deltas:
            left += 0 if delta["type"] == "signature_delta" else 1
            yield left, _event("content_block_delta", {"index": index, "delta": delta})
        yield left, _event("content_block_stop", {"index": index})
    last: dict[str, Any] = {"delta": _ending(answer)}
    if usage.told:
        last["usage"] = _told(usage, usage.output_tokens)
    for _ in range(2 if usage.twice else 1):
        yield left, _event("message_delta", last)
    yield left, _event("message_stop", {})


def model_entry(name: str) -> dict[str, Any]:
    return {"type": "model", "id": name, "display_name": name, "created_at": "2026-01-01T00:00:00Z"}


def models_body(names: list[str]) -> dict[str, Any]:
    return {
        "data": [model_entry(name) for name in names],
        "has_more": False,
        "first_id": names[0],
        "last_id": names[-1],
    }
