"""OpenAI's Responses API, judged by the `openai` package."""

from __future__ import annotations

import json
from typing import Any

from openai.types.responses import Response, ResponseInputItemParam, ResponseStreamEvent
from openai.types.responses.response_create_params import (
    ResponseCreateParamsNonStreaming,
    ResponseCreateParamsStreaming,
)
from pydantic import TypeAdapter

from providers.adapters.base import UpstreamRequest
from providers.adapters.types import ChatResponse, Choice, JSONObject, Reasoning, Text, ToolCall, Usage
from tests.conformance.judged import judged
from tests.conformance.wires.openai import _logprob, vectors, vectors_asked

__all__ = ["LACKS", "MODEL", "facts", "stream", "vectors", "vectors_asked", "whole"]
MODEL = "gpt-5-pro"
LACKS = frozenset({"audio_in", "stop", "seed", "penalties", "several", "audio_out", "prompt_cache"})
_WHOLE = TypeAdapter(ResponseCreateParamsNonStreaming)
_STREAMED = TypeAdapter(ResponseCreateParamsStreaming)
_ITEM, _ANSWER, _EVENT = TypeAdapter(ResponseInputItemParam), TypeAdapter(Response), TypeAdapter(ResponseStreamEvent)
_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


def facts(request: UpstreamRequest) -> dict[str, Any]:
    assert request.method == "POST"
    assert request.url.partition("?")[0].endswith("/responses"), request.url
    body = json.loads(request.body)
    judged(_STREAMED if body.get("stream") else _WHOLE, {k: v for k, v in body.items() if k != "input"})
    items = body["input"] if isinstance(body["input"], list) else [{"role": "user", "content": body["input"]}]
    for item in items:  # the package's type of a thought demands an id, which nothing has that is not stored
        judged(_ITEM, {"id": "rs_1", **item} if item.get("type") == "reasoning" else item)
    return {**_settings(body), **_conversation(items, body), **_tools(body)}


def _settings(body: JSONObject) -> dict[str, Any]:
    found: dict[str, Any] = {"stream": bool(body.get("stream"))}
    names = {"cap": "max_output_tokens", "temperature": "temperature", "top_p": "top_p", "user": "user"}
    found.update({fact: body[name] for fact, name in names.items() if name in body})
    wanted = (body.get("text") or {}).get("format") or {}
    if wanted.get("type") == "json_schema":
        found["schema"] = wanted["schema"]
    if (body.get("reasoning") or {}).get("effort") not in (None, "none"):
        found["reasoning"] = True
    if "message.output_text.logprobs" in (body.get("include") or ()):
        found["logprobs"] = True
    return found


def _tools(body: JSONObject) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if "tools" in body:
        found["tools"] = [tool["name"] for tool in body["tools"]]
    if choice := body.get("tool_choice"):
        found["tool_choice"] = choice if isinstance(choice, str) else choice["name"]
    if "parallel_tool_calls" in body:
        found["parallel_tools"] = body["parallel_tool_calls"]
    return found


def _conversation(items: list[JSONObject], body: JSONObject) -> dict[str, Any]:
    found: dict[str, Any] = {"texts": [], "calls": [], "results": [], "images": 0, "audio": 0, "documents": 0}
    found.update(signatures=[], cache_marks=0)
    if body.get("instructions"):
        found["system"] = body["instructions"]
    for item in items:
        kind = item.get("type", "message")
        if kind == "function_call":
            found["calls"].append((item["name"], json.loads(item["arguments"])))
        elif kind == "function_call_output":
            found["results"].append(item["output"])
        elif kind == "reasoning":
            found["signatures"].append(item["encrypted_content"])
        else:
            _message(item, found)
    return found


def _message(item: JSONObject, found: dict[str, Any]) -> None:
    content = item["content"]
    parts = [{"type": "input_text", "text": content}] if isinstance(content, str) else content
    texts = [part["text"] for part in parts if part["type"] in ("input_text", "output_text")]
    if item["role"] in ("system", "developer"):
        found["system"] = "".join(texts)
    else:
        found["texts"] += texts
    kinds = [part["type"] for part in parts]
    found["images"] += kinds.count("input_image")
    found["audio"] += kinds.count("input_audio")
    found["documents"] += kinds.count("input_file")


# --- answers ------------------------------------------------------------------------------------------------------


def whole(answer: ChatResponse) -> bytes:
    body = _response(answer)
    judged(_ANSWER, body)
    return json.dumps(body).encode()


def _response(answer: ChatResponse, *, begun: bool = False) -> JSONObject:
    (choice,) = answer.choices
    reason = _INCOMPLETE.get(choice.finish)
    status = "in_progress" if begun else "incomplete" if reason else "completed"
    return {
        "id": answer.id,
        "object": "response",
        "created_at": 1,
        "model": answer.model,
        "status": status,
        "incomplete_details": {"reason": reason} if reason and not begun else None,
        "error": None,
        "output": [] if begun else _items(choice),
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": None if begun else _usage(answer.usage),
    }


def _items(choice: Choice) -> list[JSONObject]:
    items: list[JSONObject] = []
    for part in choice.parts:
        if isinstance(part, Text):
            told = [_logprob(token) for token in choice.logprobs or ()]
            content = {"type": "output_text", "text": part.text, "annotations": _notes(part), "logprobs": told}
            items.append({"type": "message", "id": "msg_1", "role": "assistant", "status": "completed"})
            items[-1]["content"] = [content]
        elif isinstance(part, Reasoning):
            summary = [{"type": "summary_text", "text": part.text}]
            items.append({"type": "reasoning", "id": "rs_1", "summary": summary, "encrypted_content": part.signature})
        elif isinstance(part, ToolCall):
            called = {"call_id": part.id, "name": part.name, "arguments": part.arguments}
            items.append({"type": "function_call", "id": f"fc_{part.id}", "status": "completed", **called})
    return items


def _notes(part: Text) -> list[JSONObject]:
    return [
        {"type": "url_citation", "url": found.url, "title": found.title, "start_index": 6, "end_index": 11}
        for found in part.citations
    ]


def _usage(usage: Usage | None) -> JSONObject:
    assert usage is not None
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cache_read_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def stream(answer: ChatResponse) -> bytes:
    opened = _response(answer, begun=True)
    events: list[JSONObject] = [{"type": f"response.{name}", "response": opened} for name in ("created", "in_progress")]
    for place, item in enumerate(_items(answer.choices[0])):
        events += _told(place, item)
    ended = _response(answer)
    events.append({"type": f"response.{ended['status']}", "response": ended})
    for number, event in enumerate(events):
        event["sequence_number"] = number
        judged(_EVENT, event)
    return b"".join(b"event: %b\ndata: %b\n\n" % (e["type"].encode(), json.dumps(e).encode()) for e in events)


def _told(place: int, item: JSONObject) -> list[JSONObject]:
    kind, at = item["type"], {"output_index": place, "item_id": item["id"]}
    if kind == "message":
        hollow, within = {**item, "status": "in_progress", "content": []}, _spoken(item["content"][0], at)
    elif kind == "reasoning":
        hollow, within = {**item, "summary": [], "encrypted_content": None}, _thought(item["summary"][0], at)
    else:
        pieces = [{"type": "response.function_call_arguments.delta", "delta": one} for one in item["arguments"]]
        done = {"type": "response.function_call_arguments.done", "arguments": item["arguments"], "name": item["name"]}
        hollow, within = {**item, "status": "in_progress", "arguments": ""}, [{**at, **e} for e in (*pieces, done)]
    added = {"type": "response.output_item.added", "output_index": place, "item": hollow}
    return [added, *within, {"type": "response.output_item.done", "output_index": place, "item": item}]


def _spoken(content: JSONObject, at: JSONObject) -> list[JSONObject]:
    text, told = content["text"], content["logprobs"]
    hollow = {**content, "text": "", "annotations": [], "logprobs": []}
    pieces = [(one["token"], [one]) for one in told] or [(letter, []) for letter in text]
    deltas = [{"type": "response.output_text.delta", "delta": piece, "logprobs": near} for piece, near in pieces]
    notes = [
        {"type": "response.output_text.annotation.added", "annotation_index": number, "annotation": note}
        for number, note in enumerate(content["annotations"])
    ]
    events: list[JSONObject] = [
        {"type": "response.content_part.added", "part": hollow},
        *deltas,
        *notes,
        {"type": "response.output_text.done", "text": text, "logprobs": told},
        {"type": "response.content_part.done", "part": content},
    ]
    return [{**at, "content_index": 0, **event} for event in events]


def _thought(part: JSONObject, at: JSONObject) -> list[JSONObject]:
    events: list[JSONObject] = [
        {"type": "response.reasoning_summary_part.added", "part": {**part, "text": ""}},
        *[{"type": "response.reasoning_summary_text.delta", "delta": letter} for letter in part["text"]],
        {"type": "response.reasoning_summary_text.done", "text": part["text"]},
        {"type": "response.reasoning_summary_part.done", "part": part},
    ]
    return [{**at, "summary_index": 0, **event} for event in events]
