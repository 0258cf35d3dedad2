"""OpenAI's chat completions: request to Prompt, Answer to body and stream, errors.

Wire format: the API reference of `/v1/chat/completions`; thought is told as compatible servers do it, by
`reasoning_content` and `reasoning_details` (which carries the signature), as OpenAI itself never shows it in this API.
"""

from __future__ import annotations

import time
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
    optional_count,
    optional_mapping,
    optional_sequence,
    sequence,
    text,
    texts,
)
from providers.sandbox.seals import check, seal
from providers.sandbox.usage import Usage, sse, with_usage

NAME = "openai"
REQUEST_ID = "x-request-id"
_ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
_ERRORS = {
    401: ("invalid_request_error", "invalid_api_key"),
    403: ("invalid_request_error", None),
    404: ("invalid_request_error", None),
    429: ("requests", "rate_limit_exceeded"),
}


def error(status: int, message: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    kind, usual = _ERRORS.get(status, ("server_error" if status >= 500 else "invalid_request_error", None))
    return {"error": {"message": message, "type": kind, "param": param, "code": code or usual}}


def error_event(message: str) -> bytes:
    return sse(error(500, message))


def parse_chat(body: dict[str, Any]) -> Prompt:
    """Raises RequestError."""
    if body.get("max_tokens") is not None and body.get("max_completion_tokens") is not None:
        raise RequestError("Give 'max_tokens' or 'max_completion_tokens', not both", param="max_tokens")
    cap_name = "max_tokens" if body.get("max_tokens") is not None else "max_completion_tokens"
    options = optional_mapping(body.get("stream_options"), "stream_options")
    stream = flag(body.get("stream"), "stream")
    if options and not stream:
        raise RequestError("'stream_options' is only allowed when 'stream' is on", param="stream_options")
    messages = [
        _message(item, f"messages[{place}]") for place, item in enumerate(sequence(body.get("messages"), "messages"))
    ]
    if not messages:
        raise RequestError("'messages' must not be empty", param="messages")
    return Prompt(
        model=text(body.get("model"), "model"),
        messages=messages,
        tools=[
            _tool(item, f"tools[{place}]") for place, item in enumerate(optional_sequence(body.get("tools"), "tools"))
        ],
        forced=_forced(body.get("tool_choice")),
        schema=_schema(body.get("response_format")),
        cap=optional_count(body.get(cap_name), cap_name),
        n=count(body["n"], "n", 1, 128) if body.get("n") is not None else 1,
        stop=texts(body.get("stop"), "stop"),
        stream=stream,
        include_usage=flag(options.get("include_usage"), "stream_options.include_usage"),
    )


def _message(item: object, where: str) -> Message:
    given = mapping(item, where)
    role = text(given.get("role"), f"{where}.role")
    if role not in _ROLES:
        raise RequestError(f"'{where}.role' is not a role", param=f"{where}.role")
    message = Message(role, "", is_result=role in ("tool", "function"))
    content = given.get("content")
    if isinstance(content, list):
        said = [_part(part, message, f"{where}.content[{place}]") for place, part in enumerate(content)]
        message.text = joined(said)
    elif content is not None:
        message.text = text(content, f"{where}.content")
    for place, detail in enumerate(optional_sequence(given.get("reasoning_details"), f"{where}.reasoning_details")):
        within = f"{where}.reasoning_details[{place}]"
        if signature := mapping(detail, within).get("signature"):
            check(signature, "openai", f"{within}.signature")
    for place, call in enumerate(optional_sequence(given.get("tool_calls"), f"{where}.tool_calls")):
        function = mapping(
            mapping(call, f"{where}.tool_calls[{place}]").get("function"), f"{where}.tool_calls[{place}].function"
        )
        message.weight += len(tokens_of(str(function.get("name", "")))) + len(
            tokens_of(str(function.get("arguments", "")))
        )
    return message


def _part(part: object, message: Message, where: str) -> str:
    given = mapping(part, where)
    match given.get("type"):
        case "text" | "refusal" as kind:
            return text(given.get(kind), f"{where}.{kind}")
        case "image_url":
            address = text(mapping(given.get("image_url"), f"{where}.image_url").get("url"), f"{where}.image_url.url")
            mark, weight = _attachment("image", address)
        case "input_audio":
            audio = mapping(given.get("input_audio"), f"{where}.input_audio")
            mime = f"audio/{text(audio.get('format'), f'{where}.input_audio.format')}"
            mark, weight = media("audio", text(audio.get("data"), f"{where}.input_audio.data"), mime)
        case "file":
            file = mapping(given.get("file"), f"{where}.file")
            mark, weight = _attachment(
                "file", text(file.get("file_data", file.get("file_id")), f"{where}.file.file_data")
            )
        case _:
            raise RequestError(f"'{where}.type' is not a type of part", param=f"{where}.type")
    message.weight += weight
    return mark


def _attachment(kind: str, address: str) -> tuple[str, int]:
    if address.startswith("data:") and ";base64," in address:
        mime, _, data = address[5:].partition(";base64,")
        return media(kind, data, mime)
    return media(kind, address, "")


def _tool(item: object, where: str) -> Tool:
    function = mapping(mapping(item, where).get("function"), f"{where}.function")
    schema = optional_mapping(function.get("parameters"), f"{where}.function.parameters")
    return Tool(
        text(function.get("name"), f"{where}.function.name"), schema or {"type": "object"}, json_weight(function)
    )


def _forced(choice: object) -> str:
    if isinstance(choice, dict):
        return text(mapping(choice.get("function"), "tool_choice.function").get("name"), "tool_choice.function.name")
    return "none" if choice == "none" else ""


def _schema(wanted: object) -> dict[str, Any] | None:
    given = optional_mapping(wanted, "response_format")
    if given.get("type") != "json_schema":
        return None
    schema = mapping(given.get("json_schema"), "response_format.json_schema").get("schema")
    return optional_mapping(schema, "response_format.json_schema.schema")


def told_usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.say(usage.input_tokens),
        "completion_tokens": usage.say(usage.output_tokens),
        "total_tokens": usage.say(usage.input_tokens + usage.output_tokens),
        "prompt_tokens_details": {"cached_tokens": usage.say(usage.cached_tokens), "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": usage.say(usage.thought_tokens),
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _signed(thought: str) -> list[dict[str, Any]]:
    return [{"type": "reasoning.text", "text": thought, "signature": seal("openai"), "index": 0}]


def chat_body(prompt: Prompt, answer: Answer, usage: Usage, identity: str) -> bytes:
    message: dict[str, Any] = {"role": "assistant", "content": "".join(answer.text), "refusal": None, "annotations": []}
    if answer.thought:
        message["reasoning_content"] = "".join(answer.thought)
        message["reasoning_details"] = _signed(message["reasoning_content"])
    if answer.calls:
        message["content"] = None
        message["tool_calls"] = [
            {
                "id": f"call_{call.id}",
                "type": "function",
                "function": {"name": call.name, "arguments": "".join(call.arguments)},
            }
            for call in answer.calls
        ]
    body: dict[str, object] = {
        "id": f"chatcmpl-{identity}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": prompt.model,
        "choices": [
            {"index": index, "message": message, "logprobs": None, "finish_reason": answer.finish}
            for index in range(prompt.n)
        ],
        "service_tier": "default",
        "system_fingerprint": "fp_sandbox",
    }
    return with_usage(body, "usage", told_usage(usage), usage)


def _deltas(answer: Answer) -> Iterator[tuple[int, dict[str, Any]]]:
    """Tokens each delta costs, and the delta; the first names the role."""
    yield 0, {"role": "assistant", "content": None if answer.calls else "", "refusal": None}
    for token in answer.thought:
        yield 1, {"reasoning_content": token}
    if answer.thought:
        yield 0, {"reasoning_details": _signed("")}
    for token in answer.text:
        yield 1, {"content": token}
    for index, call in enumerate(answer.calls):
        function = {"name": call.name, "arguments": ""}
        yield 1, {"tool_calls": [{"index": index, "id": f"call_{call.id}", "type": "function", "function": function}]}
        for token in call.arguments:
            yield 1, {"tool_calls": [{"index": index, "function": {"arguments": token}}]}


def chat_frames(prompt: Prompt, answer: Answer, usage: Usage, identity: str) -> Iterator[Frame]:
    chunk: dict[str, Any] = {
        "id": f"chatcmpl-{identity}",
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": prompt.model,
        "service_tier": "default",
        "system_fingerprint": "fp_sandbox",
    }
    prefix = b"data: " + orjson.dumps(chunk)[:-1] + b',"choices":'
    suffix = b',"usage":null}\n\n' if prompt.include_usage else b"}\n\n"
    left = 0
    for index in range(prompt.n):
        for tokens, delta in _deltas(answer):
            left += tokens
            choice = [{"index": index, "delta": delta, "logprobs": None, "finish_reason": None}]
            yield left, prefix + orjson.dumps(choice) + suffix
        yield (
            left,
            prefix
            + orjson.dumps([{"index": index, "delta": {}, "logprobs": None, "finish_reason": answer.finish}])
            + suffix,
        )
    if prompt.include_usage and usage.told:
        last = prefix + b"[]," + orjson.dumps({"usage": told_usage(usage)})[1:] + b"\n\n"
        for _ in range(2 if usage.twice else 1):
            yield left, last
    yield left, b"data: [DONE]\n\n"


def model_entry(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 1_760_000_000, "owned_by": "sandbox"}


def models_body(names: list[str]) -> dict[str, Any]:
    return {"object": "list", "data": [model_entry(name) for name in names]}
