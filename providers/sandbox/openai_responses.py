"""OpenAI's responses: request to Prompt, Answer to body and stream.

Wire format: the API reference of `/v1/responses`. Thought is told as a summary with `encrypted_content`, whatever the
request's `include` says; nothing is kept, so what points at earlier responses is refused.
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
    flag,
    mapping,
    optional_count,
    optional_mapping,
    optional_sequence,
    sequence,
    text,
)
from providers.sandbox.seals import check, seal
from providers.sandbox.usage import Usage, with_usage

_ROLES = frozenset({"system", "developer", "user", "assistant"})


def parse_respond(body: dict[str, Any]) -> Prompt:
    """Raises RequestError."""
    for name in ("previous_response_id", "conversation", "background"):
        if body.get(name):
            raise RequestError(f"'{name}': nothing is kept here", param=name)
    given = body.get("input")
    messages = [Message("system", text(body["instructions"], "instructions"))] if body.get("instructions") else []
    if isinstance(given, str):
        messages.append(Message("user", given))
    else:
        messages += [_item(item, f"input[{place}]") for place, item in enumerate(sequence(given, "input"))]
    wanted = optional_mapping(optional_mapping(body.get("text"), "text").get("format"), "text.format")
    choice = body.get("tool_choice")
    return Prompt(
        model=text(body.get("model"), "model"),
        messages=messages,
        tools=[
            _tool(item, f"tools[{place}]") for place, item in enumerate(optional_sequence(body.get("tools"), "tools"))
        ],
        forced=text(choice.get("name", ""), "tool_choice.name") if isinstance(choice, dict) else _word(choice),
        schema=mapping(wanted.get("schema"), "text.format.schema") if wanted.get("type") == "json_schema" else None,
        cap=optional_count(body.get("max_output_tokens"), "max_output_tokens"),
        stream=flag(body.get("stream"), "stream"),
        include_usage=True,
    )


def _word(choice: object) -> str:
    return "none" if choice == "none" else ""


def _item(item: object, where: str) -> Message:
    given = mapping(item, where)
    match given.get("type", "message"):
        case "message":
            role = text(given.get("role"), f"{where}.role")
            if role not in _ROLES:
                raise RequestError(f"'{where}.role' is not a role", param=f"{where}.role")
            return _said(Message(role, ""), given.get("content"), f"{where}.content")
        case "function_call_output" | "custom_tool_call_output":
            return _said(Message("tool", "", is_result=True), given.get("output"), f"{where}.output")
        case "function_call" | "custom_tool_call" as kind:
            called = str(given.get("arguments" if kind == "function_call" else "input"))
            weight = len(tokens_of(text(given.get("name"), f"{where}.name"))) + len(tokens_of(called))
            return Message("assistant", "", weight=weight)
        case "reasoning":
            if given.get("encrypted_content"):
                check(given["encrypted_content"], "openai", f"{where}.encrypted_content")
            return _said(Message("assistant", ""), given.get("summary"), f"{where}.summary")
        case _:
            raise RequestError(f"'{where}.type' is not a type of item", param=f"{where}.type")


def _said(message: Message, content: object, where: str) -> Message:
    if isinstance(content, str):
        message.text = content
    else:
        parts = sequence(content, where)
        message.text = joined([_part(part, message, f"{where}[{place}]") for place, part in enumerate(parts)])
    return message


def _part(part: object, message: Message, where: str) -> str:
    given = mapping(part, where)
    match given.get("type"):
        case "input_text" | "output_text" | "summary_text":
            return text(given.get("text"), f"{where}.text")
        case "refusal":
            return text(given.get("refusal"), f"{where}.refusal")
        case "input_image":
            mark, weight = _attachment("image", text(given.get("image_url"), f"{where}.image_url"))
        case "input_file":
            mark, weight = _attachment("file", text(given.get("file_data", given.get("file_url")), f"{where}.file"))
        case "input_audio":
            audio = mapping(given.get("input_audio"), f"{where}.input_audio")
            mark, weight = media("audio", text(audio.get("data"), where), f"audio/{audio.get('format')}")
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
    given = mapping(item, where)
    schema = optional_mapping(given.get("parameters"), f"{where}.parameters")
    return Tool(text(given.get("name"), f"{where}.name"), schema or {"type": "object"}, json_weight(given))


def told_usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.say(usage.input_tokens),
        "input_tokens_details": {"cached_tokens": usage.say(usage.cached_tokens), "cache_write_tokens": 0},
        "output_tokens": usage.say(usage.output_tokens),
        "output_tokens_details": {"reasoning_tokens": usage.say(usage.thought_tokens)},
        "total_tokens": usage.say(usage.input_tokens + usage.output_tokens),
    }


def _object(prompt: Prompt, identity: str) -> dict[str, Any]:
    return {
        "id": f"resp_{identity}",
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": prompt.cap,
        "model": prompt.model,
        "output": [],
        "parallel_tool_calls": True,
        "store": False,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "metadata": {},
    }


def _items(answer: Answer, identity: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    if answer.thought:
        summary = [{"type": "summary_text", "text": "".join(answer.thought)}]
        sealed = {"summary": summary, "encrypted_content": seal("openai")}
        items.append({"id": f"rs_{identity}", "type": "reasoning", **sealed})
    if answer.text:
        content = [{"type": "output_text", "text": "".join(answer.text), "annotations": [], "logprobs": []}]
        message = {"id": f"msg_{identity}", "type": "message", "role": "assistant", "content": content}
        items.append({**message, "status": "completed"})
    for place, call in enumerate(answer.calls):
        called = {"name": call.name, "arguments": "".join(call.arguments), "call_id": f"call_{call.id}"}
        items.append({"id": f"fc_{identity}{place}", "type": "function_call", **called, "status": "completed"})
    return items


def _finished(prompt: Prompt, answer: Answer, identity: str) -> dict[str, Any]:
    body = _object(prompt, identity) | {"output": _items(answer, identity), "status": "completed"}
    if answer.finish == "length":
        body |= {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
        if body["output"]:
            body["output"][-1]["status"] = "incomplete"
    return body


def respond_body(prompt: Prompt, answer: Answer, usage: Usage, identity: str) -> bytes:
    return with_usage(_finished(prompt, answer, identity), "usage", told_usage(usage), usage)


def _steps(answer: Answer, items: list[dict[str, Any]]) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Tokens each event costs, its type and its members."""
    calls = iter(answer.calls)
    for place, item in enumerate(items):
        where, kind = {"item_id": item["id"], "output_index": place}, item["type"]
        if kind == "message":
            steps = _message_steps(item, answer.text, where)
        elif kind == "reasoning":
            steps = _thought_steps(item, answer.thought, where)
        else:
            steps = _call_steps(item, next(calls).arguments, where)
        yield from steps
        yield 0, "response.output_item.done", {"output_index": place, "item": item}


def _message_steps(
    item: dict[str, Any], tokens: list[str], where: dict[str, Any]
) -> Iterator[tuple[int, str, dict[str, Any]]]:
    added, part = {**item, "status": "in_progress", "content": []}, item["content"][0]
    yield 0, "response.output_item.added", {"output_index": where["output_index"], "item": added}
    where = {**where, "content_index": 0}
    yield 0, "response.content_part.added", {**where, "part": {**part, "text": ""}}
    for token in tokens:
        yield 1, "response.output_text.delta", {**where, "delta": token, "logprobs": []}
    yield 0, "response.output_text.done", {**where, "text": part["text"], "logprobs": []}
    yield 0, "response.content_part.done", {**where, "part": part}


def _thought_steps(
    item: dict[str, Any], tokens: list[str], where: dict[str, Any]
) -> Iterator[tuple[int, str, dict[str, Any]]]:
    added = {"id": item["id"], "type": "reasoning", "summary": []}
    yield 0, "response.output_item.added", {"output_index": where["output_index"], "item": added}
    where = {**where, "summary_index": 0}
    part = item["summary"][0]
    yield 0, "response.reasoning_summary_part.added", {**where, "part": {**part, "text": ""}}
    for token in tokens:
        yield 1, "response.reasoning_summary_text.delta", {**where, "delta": token}
    yield 0, "response.reasoning_summary_text.done", {**where, "text": part["text"]}
    yield 0, "response.reasoning_summary_part.done", {**where, "part": part}


def _call_steps(
    item: dict[str, Any], tokens: list[str], where: dict[str, Any]
) -> Iterator[tuple[int, str, dict[str, Any]]]:
    added = {**item, "arguments": "", "status": "in_progress"}
    yield 1, "response.output_item.added", {"output_index": where["output_index"], "item": added}
    for token in tokens:
        yield 1, "response.function_call_arguments.delta", {**where, "delta": token}
    done = {**where, "name": item["name"], "arguments": item["arguments"]}
    yield 0, "response.function_call_arguments.done", done


def respond_frames(prompt: Prompt, answer: Answer, usage: Usage, identity: str) -> Iterator[Frame]:
    begun, left, number = _object(prompt, identity), 0, 0
    for kind in ("response.created", "response.in_progress"):
        yield left, _frame(kind, number, orjson.dumps({"response": begun}))
        number += 1
    body = _finished(prompt, answer, identity)
    for tokens, kind, members in _steps(answer, body["output"]):
        left += tokens
        yield left, _frame(kind, number, orjson.dumps(members))
        number += 1
    told = with_usage(body, "usage", told_usage(usage), usage)
    yield left, _frame(f"response.{body['status']}", number, b'{"response":' + told + b"}")


def _frame(kind: str, number: int, members: bytes) -> bytes:
    head = orjson.dumps({"type": kind, "sequence_number": number})
    return b"event: " + kind.encode() + b"\ndata: " + head[:-1] + b"," + members[1:] + b"\n\n"
