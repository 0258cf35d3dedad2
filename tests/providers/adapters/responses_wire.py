"""An answer of OpenAI's Responses API, whole and as the stream that OpenAI would send, for the tests of this folder."""

from __future__ import annotations

import json
from typing import Any

from openai.types.responses import Response

from providers.adapters.base import Head, Relay
from providers.adapters.events import StreamEvent
from providers.adapters.openai import OpenAIAdapter
from providers.adapters.openai_responses import OpenAIResponsesAdapter
from providers.adapters.types import ChatRequest, ChatResponse, Endpoint, Message, Text, Usage

ADAPTER = OpenAIResponsesAdapter()
FAILED = {"code": "rate_limit_exceeded", "message": "slow down"}
OUTPUT: list[dict[str, Any]] = [
    {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [{"type": "summary_text", "text": "first"}, {"type": "summary_text", "text": "second"}],
        "encrypted_content": "sealed",
    },
    {"type": "reasoning", "id": "rs_2", "summary": [], "encrypted_content": "blob"},
    {
        "type": "web_search_call",
        "id": "ws_1",
        "status": "completed",
        "action": {"type": "search", "query": "oslo"},
    },
    {"type": "web_search_call", "id": "ws_2", "status": "completed", "action": {"type": "open_page", "url": "u"}},
    {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "status": "completed",
        "content": [
            {
                "type": "output_text",
                "text": "Grüße 🙂",
                "annotations": [
                    {"type": "url_citation", "url": "https://e.org", "title": "E", "start_index": 0, "end_index": 5}
                ],
                "logprobs": [
                    {"token": "Gr", "logprob": -0.5, "bytes": [71, 114], "top_logprobs": []},
                ],
            },
            {"type": "refusal", "refusal": "no"},
        ],
    },
    {"type": "image_generation_call", "id": "ig_1", "status": "completed", "result": "QQ=="},
    {
        "type": "function_call",
        "id": "fc_1",
        "call_id": "c1",
        "name": "weather",
        "arguments": '{"a":"\\""}',
        "status": "completed",
    },
    {"type": "custom_tool_call", "id": "ctc_1", "call_id": "c2", "name": "script", "input": "say"},
]
USAGE: dict[str, Any] = {
    "input_tokens": 20,
    "input_tokens_details": {"cached_tokens": 8, "cache_write_tokens": 5},
    "output_tokens": 11,
    "output_tokens_details": {"reasoning_tokens": 7},
    "total_tokens": 31,
}
# Input counts what was read from a cache (8) and written into it (5), output what was thought (7); one search was
# sold, opening the page it found is free.
SPENT = Usage(
    input_tokens=20,
    output_tokens=11,
    cache_read_tokens=8,
    cache_write_tokens=5,
    reasoning_tokens=7,
    units={"search": 1},
)


def wire(**fields: Any) -> dict[str, Any]:
    body = {
        "id": "resp_1",
        "object": "response",
        "created_at": 5,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "model": "o3-pro-1",
        "output": OUTPUT,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": USAGE,
        **fields,
    }
    Response.model_validate(body)
    return body


def events_of(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The stream that OpenAI would send of an answer."""
    begun = {**body, "status": "in_progress", "output": [], "usage": None, "error": None}
    told: list[dict[str, Any]] = [{"type": "response.created", "response": begun}]
    told.append({"type": "response.in_progress", "response": begun})
    for place, item in enumerate(body["output"]):
        where = {"item_id": item["id"], "output_index": place}
        told.append({"type": "response.output_item.added", "output_index": place, "item": _begun(item)})
        told += [{**event, **where} for event in _steps(item)]
        told.append({"type": "response.output_item.done", "output_index": place, "item": item})
    told.append({"type": f"response.{body['status']}", "response": body})
    return [{**event, "sequence_number": number} for number, event in enumerate(told)]


def _begun(item: dict[str, Any]) -> dict[str, Any]:
    empty = {"arguments": "", "input": "", "content": [], "summary": [], "status": "in_progress"}
    return {name: empty.get(name, value) for name, value in item.items() if name not in ("encrypted_content", "result")}


def _steps(item: dict[str, Any]) -> list[dict[str, Any]]:
    kind, told = item["type"], list[dict[str, Any]]()
    if kind == "reasoning":
        for place, part in enumerate(item["summary"]):
            told.append({"type": "response.reasoning_summary_part.added", "summary_index": place, "part": part})
            for delta in (part["text"][:2], part["text"][2:]):
                told.append({"type": "response.reasoning_summary_text.delta", "summary_index": place, "delta": delta})
    elif kind == "function_call":
        for delta in (item["arguments"][:3], item["arguments"][3:]):
            told.append({"type": "response.function_call_arguments.delta", "delta": delta})
        told.append({"type": "response.function_call_arguments.done", "arguments": item["arguments"]})
    elif kind == "custom_tool_call":
        told.append({"type": "response.custom_tool_call_input.delta", "delta": item["input"]})
    elif kind == "message":
        for place, part in enumerate(item["content"]):
            told += [{**event, "content_index": place} for event in _writing(part)]
    return told


def _writing(part: dict[str, Any]) -> list[dict[str, Any]]:
    if part["type"] == "refusal":
        return [{"type": "response.refusal.delta", "delta": part["refusal"]}]
    delta = {"type": "response.output_text.delta", "logprobs": []}
    told: list[dict[str, Any]] = [{**delta, "delta": part["text"][:3], "logprobs": part["logprobs"]}]
    told.append({**delta, "delta": part["text"][3:]})
    for place, note in enumerate(part["annotations"]):
        told.append({"type": "response.output_text.annotation.added", "annotation_index": place, "annotation": note})
    return told


def stream_of(events: list[dict[str, Any]]) -> bytes:
    frames = [f"event: {event['type']}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n" for event in events]
    return "".join(frames).encode()


def asked(**fields: Any) -> ChatRequest:
    return ChatRequest(model="route", messages=(Message("user", (Text("hi"),)),), **fields)


def whole(body: dict[str, Any]) -> ChatResponse:
    answer = ADAPTER.parse_response(asked(), json.dumps(body).encode())
    assert isinstance(answer, ChatResponse)
    return answer


def parse(data: bytes, size: int | None = None) -> list[StreamEvent]:
    parser, events = ADAPTER.stream_parser(asked()), list[StreamEvent]()
    for begin in range(0, len(data), size or len(data)):
        events += parser.feed(data[begin : begin + (size or len(data))])
    return events + parser.close()


def relayed(data: bytes, size: int | None = None) -> tuple[bytes, Relay]:
    relay = OpenAIAdapter().relay(Head(endpoint=Endpoint.RESPONSES, model="m", stream=True))
    out = b""
    for begin in range(0, len(data), size or len(data)):
        out += relay.feed(data[begin : begin + (size or len(data))])
    return out + relay.close(), relay
