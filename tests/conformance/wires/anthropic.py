"""Anthropic's Messages API, judged by the `anthropic` package."""

from __future__ import annotations

import json
from typing import Any

from anthropic.types import Message, MessageParam, RawMessageStreamEvent
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming, MessageCreateParamsStreaming
from pydantic import TypeAdapter

from providers.adapters.base import UpstreamRequest
from providers.adapters.types import ChatResponse, Finish, JSONObject, Reasoning, Text, ToolCall, Usage
from tests.conformance.judged import judged

MODEL = "claude-sonnet-4-5"
LACKS = frozenset({"seed", "penalties", "several", "logprobs", "audio_in", "audio_out", "embeddings"})
_WHOLE = TypeAdapter(MessageCreateParamsNonStreaming)
_STREAMED = TypeAdapter(MessageCreateParamsStreaming)
_TURN, _ANSWER, _EVENT = TypeAdapter(MessageParam), TypeAdapter(Message), TypeAdapter(RawMessageStreamEvent)
_FINISH: dict[Finish, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "stop_sequence": "stop_sequence",
    "content_filter": "refusal",
}


def facts(request: UpstreamRequest) -> dict[str, Any]:
    assert request.method == "POST"
    assert request.url.endswith("/v1/messages"), request.url
    assert request.headers["anthropic-version"]
    return said(json.loads(request.body))


def said(body: JSONObject) -> dict[str, Any]:
    """What a body says, wherever it goes to."""
    judged(_STREAMED if body.get("stream") else _WHOLE, body)
    for turn in body["messages"]:
        judged(_TURN, turn)
    return {**_settings(body), **_conversation(body), **_tools(body)}


def _settings(body: JSONObject) -> dict[str, Any]:
    found: dict[str, Any] = {"stream": bool(body.get("stream")), "cap": body["max_tokens"]}
    found.update({name: body[name] for name in ("temperature", "top_p") if name in body})
    if "metadata" in body:
        found["user"] = body["metadata"]["user_id"]
    if "stop_sequences" in body:
        found["stop"] = body["stop_sequences"]
    if wanted := (body.get("output_config") or {}).get("format"):
        found["schema"] = wanted["schema"]
    if (body.get("thinking") or {}).get("type") in ("enabled", "adaptive"):
        found["reasoning"] = True
    return found


def _tools(body: JSONObject) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if "tools" in body:
        found["tools"] = [tool["name"] for tool in body["tools"]]
    if choice := body.get("tool_choice"):
        kind = choice["type"]
        found["tool_choice"] = {"tool": choice.get("name"), "any": "required"}.get(kind, kind)
        if "disable_parallel_tool_use" in choice:
            found["parallel_tools"] = not choice["disable_parallel_tool_use"]
    return found


def _conversation(body: JSONObject) -> dict[str, Any]:
    found: dict[str, Any] = {"texts": [], "calls": [], "results": [], "images": 0, "audio": 0, "documents": 0}
    system = body.get("system") or []
    blocks = [{"type": "text", "text": system}] if isinstance(system, str) else list(system)
    if blocks:
        found["system"] = "".join(block["text"] for block in blocks)
    found["cache_marks"] = sum("cache_control" in block for block in (*blocks, *(body.get("tools") or ())))
    found["signatures"] = []
    for turn in body["messages"]:
        content = turn["content"]
        for block in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            _block(block, found)
    return found


def _block(block: JSONObject, found: dict[str, Any]) -> None:
    found["cache_marks"] += "cache_control" in block
    kind = block["type"]
    if kind == "text":
        found["texts"].append(block["text"])
    elif kind == "tool_use":
        found["calls"].append((block["name"], block["input"]))
    elif kind == "tool_result":
        content = block.get("content") or ""
        texts = [content] if isinstance(content, str) else [part["text"] for part in content]
        found["results"] += texts
    elif kind == "thinking":
        found["signatures"].append(block["signature"])
    else:
        found[f"{kind}s"] += 1


# --- answers ------------------------------------------------------------------------------------------------------


def whole(answer: ChatResponse) -> bytes:
    body = {**_message(answer), "usage": _usage(answer.usage)}
    judged(_ANSWER, body)
    return json.dumps(body).encode()


def _message(answer: ChatResponse) -> JSONObject:
    (choice,) = answer.choices
    return {
        "id": answer.id,
        "type": "message",
        "role": "assistant",
        "model": answer.model,
        "content": [_answered(part) for part in choice.parts],
        "stop_reason": _FINISH[choice.finish],
        "stop_sequence": choice.stop_sequence or None,
    }


def stream(answer: ChatResponse) -> bytes:
    """Usage as Anthropic tells it: input with the start, output grown with the end."""
    message, usage = _message(answer), _usage(answer.usage)
    opened = {**message, "content": [], "stop_reason": None, "stop_sequence": None}
    events: list[JSONObject] = [
        {"type": "message_start", "message": {**opened, "usage": {**usage, "output_tokens": 1}}}
    ]
    events.append({"type": "ping"})
    for at, block in enumerate(message["content"]):
        events += _pieces(at, block)
    delta = {"stop_reason": message["stop_reason"], "stop_sequence": message["stop_sequence"]}
    events.append({"type": "message_delta", "delta": delta, "usage": usage})
    events.append({"type": "message_stop"})
    for event in events:
        if event["type"] != "ping":
            judged(_EVENT, event)
    return b"".join(b"event: %b\ndata: %b\n\n" % (e["type"].encode(), json.dumps(e).encode()) for e in events)


def _pieces(at: int, block: JSONObject) -> list[JSONObject]:
    deltas: list[JSONObject]
    if block["type"] == "text":
        opened: JSONObject = {"type": "text", "text": "", "citations": None}
        deltas = [{"type": "text_delta", "text": letter} for letter in block["text"]]
        deltas += [{"type": "citations_delta", "citation": found} for found in block.get("citations") or ()]
    elif block["type"] == "thinking":
        opened = {"type": "thinking", "thinking": "", "signature": ""}
        deltas = [{"type": "thinking_delta", "thinking": word} for word in block["thinking"]]
        deltas.append({"type": "signature_delta", "signature": block["signature"]})
    else:
        opened = {**block, "input": {}}
        deltas = [{"type": "input_json_delta", "partial_json": letter} for letter in json.dumps(block["input"])]
    events: list[JSONObject] = [{"type": "content_block_start", "index": at, "content_block": opened}]
    events += [{"type": "content_block_delta", "index": at, "delta": delta} for delta in deltas]
    return [*events, {"type": "content_block_stop", "index": at}]


def _answered(part: Any) -> JSONObject:
    if isinstance(part, Text):
        cited = [
            {
                "type": "web_search_result_location",
                "cited_text": found.text,
                "encrypted_index": "e",
                "title": found.title,
                "url": found.url,
            }
            for found in part.citations
        ]
        return {"type": "text", "text": part.text, "citations": cited or None}
    if isinstance(part, Reasoning):
        return {"type": "thinking", "thinking": part.text, "signature": part.signature}
    assert isinstance(part, ToolCall)
    return {"type": "tool_use", "id": part.id, "name": part.name, "input": json.loads(part.arguments)}


def _usage(usage: Usage | None) -> JSONObject:
    assert usage is not None
    short = usage.cache_write_tokens - usage.cache_write_1h_tokens
    return {
        "input_tokens": usage.input_tokens - usage.cache_read_tokens - usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cache_read_tokens,
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_creation": {
            "ephemeral_5m_input_tokens": short,
            "ephemeral_1h_input_tokens": usage.cache_write_1h_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens},
    }
