"""Cohere's API, version 2, judged by the `cohere` package: its methods' parameters, its types without extra fields."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any, get_type_hints

from cohere.types import ChatMessageV2, EmbedByTypeResponse
from cohere.v2 import V2ChatResponse, V2ChatStreamResponse
from cohere.v2.raw_client import RawV2Client
from pydantic import BaseModel, TypeAdapter

from providers.adapters.base import UpstreamRequest
from providers.adapters.types import (
    ChatResponse,
    Choice,
    Finish,
    JSONObject,
    Reasoning,
    Text,
    TokenLogprob,
    ToolCall,
    Usage,
)

MODEL = "command-a-03-2025"
LACKS = frozenset({"several", "logprobs", "audio_in", "audio_out", "documents", "prompt_cache"})
TELLS = frozenset({"input_tokens", "output_tokens", "cache_read_tokens"})
_UNSIGNED = "c2lnbmF0dXJlK29mL3Rob3VnaHRz"  # nothing is signed there: the thought itself stands for facts.SIGNATURE
_BESIDE = {"return", "request_options"}  # of the methods, not of the bodies
_MESSAGE: TypeAdapter[Any] = TypeAdapter(ChatMessageV2)
_ANSWER: TypeAdapter[Any] = TypeAdapter(V2ChatResponse)
_EVENT: TypeAdapter[Any] = TypeAdapter(V2ChatStreamResponse)
_EMBEDDED: TypeAdapter[Any] = TypeAdapter(EmbedByTypeResponse)
_FINISH: dict[Finish, str] = {
    "stop": "COMPLETE",
    "length": "MAX_TOKENS",
    "tool_calls": "TOOL_CALL",
    "content_filter": "ERROR_TOXIC",
    "stop_sequence": "STOP_SEQUENCE",
}


def _members(method: Any) -> dict[str, TypeAdapter[Any]]:
    return {name: TypeAdapter(hint) for name, hint in get_type_hints(method).items() if name not in _BESIDE}


_CHAT, _EMBED = _members(RawV2Client.chat), _members(RawV2Client.embed)


def _judged(judge: TypeAdapter[Any], value: Any) -> None:
    """Raises when `value` is not of the type, or says more than the type knows."""
    _no_more(judge.validate_python(value))


def _no_more(value: Any) -> None:
    if isinstance(value, BaseModel):
        assert not value.model_extra, f"{type(value).__name__} knows no {', '.join(value.model_extra or ())}"
        for name in type(value).model_fields:
            _no_more(getattr(value, name))
    elif isinstance(value, list):
        for item in value:
            _no_more(item)


def facts(request: UpstreamRequest) -> dict[str, Any]:
    assert request.method == "POST"
    assert request.url == "https://api.cohere.com/v2/chat", request.url
    assert request.headers["authorization"] == "Bearer k"
    body = json.loads(request.body)
    stream = body.pop("stream")
    for name, value in body.items():
        _judged(_CHAT[name], value)
    assert body["model"]
    for message in body["messages"]:
        _judged(_MESSAGE, message)
    return {"stream": stream, **_settings(body), **_tools(body), **_conversation(body["messages"])}


def _settings(body: JSONObject) -> dict[str, Any]:
    named = {
        "temperature": "temperature",
        "top_p": "p",
        "seed": "seed",
        "stop": "stop_sequences",
        "cap": "max_tokens",
        "logprobs": "logprobs",
    }
    found = {fact: body[name] for fact, name in named.items() if name in body}
    if "presence_penalty" in body or "frequency_penalty" in body:
        found["penalties"] = [body.get("presence_penalty"), body.get("frequency_penalty")]
    if schema := (body.get("response_format") or {}).get("json_schema"):
        found["schema"] = schema
    if (body.get("thinking") or {}).get("type") == "enabled":
        found["reasoning"] = True
    return found


def _tools(body: JSONObject) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if "tools" in body:
        found["tools"] = [tool["function"]["name"] for tool in body["tools"]]
    if "tool_choice" in body:
        only = found["tools"][0] if len(found["tools"]) == 1 else ""
        found["tool_choice"] = _Chosen(body["tool_choice"].lower(), only)
    return found


class _Chosen(str):
    """A tool that is offered alone and must be used is as good as named: equal to "required" and to its name."""

    only: str

    def __new__(cls, word: str, only: str) -> _Chosen:
        chosen = super().__new__(cls, word)
        chosen.only = only
        return chosen

    def __eq__(self, other: object) -> bool:
        return str.__eq__(self, other) is True or (str.__eq__(self, "required") is True and self.only == other)

    __hash__ = str.__hash__


def _conversation(messages: list[JSONObject]) -> dict[str, Any]:
    found: dict[str, Any] = {"texts": [], "calls": [], "results": [], "images": 0, "audio": 0, "documents": 0}
    for message in messages:
        content = message.get("content") or []
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        texts = [part["text"] for part in parts if part["type"] == "text"]
        if message["role"] == "system":
            found["system"] = "".join(texts)
        else:
            found["results" if message["role"] == "tool" else "texts"] += texts
        thoughts = [part["thinking"] for part in parts if part["type"] == "thinking"]
        if thoughts or message.get("tool_plan"):
            found["signatures"] = [_UNSIGNED]
        found["images"] += sum(part["type"] == "image_url" for part in parts)
        for call in message.get("tool_calls") or ():
            found["calls"].append((call["function"]["name"], json.loads(call["function"]["arguments"])))
    return found


# --- answers ------------------------------------------------------------------------------------------------------


def whole(answer: ChatResponse) -> bytes:
    (choice,) = answer.choices
    body: JSONObject = {
        "id": answer.id,
        "message": _message(choice),
        "finish_reason": _FINISH[choice.finish],
        "usage": _usage(answer.usage),
    }
    if choice.logprobs is not None:
        body["logprobs"] = [_logprob(token) for token in choice.logprobs]
    _judged(_ANSWER, body)
    return json.dumps(body).encode()


def _message(choice: Choice) -> JSONObject:
    message: JSONObject = {"role": "assistant"}
    calls = [_call(part) for part in choice.parts if isinstance(part, ToolCall)]
    content: list[JSONObject] = []
    for part in choice.parts:
        if isinstance(part, Reasoning) and calls:
            message["tool_plan"] = part.text
        elif isinstance(part, Reasoning):
            content.append({"type": "thinking", "thinking": part.text})
        elif isinstance(part, Text):
            if part.citations:
                message["citations"] = [_citation(found.text, found.url, found.title) for found in part.citations]
            content.append({"type": "text", "text": part.text})
    if content:
        message["content"] = content
    for citation in message.get("citations", ()):
        citation["content_index"] = len(content) - 1
    if calls:
        message["tool_calls"] = calls
    return message


def _call(part: ToolCall) -> JSONObject:
    return {"id": part.id, "type": "function", "function": {"name": part.name, "arguments": part.arguments}}


def _citation(text: str, url: str, title: str) -> JSONObject:
    document = {"id": "doc_0", "url": url, "title": title}
    source = {"type": "document", "id": "doc_0", "document": document}
    return {"start": 6, "end": 11, "text": text, "sources": [source], "type": "TEXT_CONTENT"}


def _logprob(token: TokenLogprob) -> JSONObject:
    return {"text": token.token, "token_ids": [7], "logprobs": [token.logprob]}


def _usage(usage: Usage | None) -> JSONObject:
    """`tokens` has Cohere's own preamble on top, which is not billed."""
    assert usage is not None
    return {
        "billed_units": {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens},
        "tokens": {"input_tokens": usage.input_tokens + 497, "output_tokens": usage.output_tokens + 2},
        "cached_tokens": usage.cache_read_tokens,
    }


def stream(answer: ChatResponse) -> bytes:
    (choice,) = answer.choices
    message = _message(choice)
    events: list[JSONObject] = [
        {
            "type": "message-start",
            "id": answer.id,
            "delta": {"message": {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": []}},
        }
    ]
    for letter in message.get("tool_plan", ""):
        events.append({"type": "tool-plan-delta", "delta": {"message": {"tool_plan": letter}}})
    for at, call in enumerate(message.get("tool_calls", ())):
        events += _called(at, call)
    for at, item in enumerate(message.get("content", ())):
        events += _said(at, item, choice.logprobs if item["type"] == "text" else None)
    for at, citation in enumerate(message.get("citations", ())):
        events.append({"type": "citation-start", "index": at, "delta": {"message": {"citations": citation}}})
        events.append({"type": "citation-end", "index": at})
    finish = {"finish_reason": _FINISH[choice.finish], "usage": _usage(answer.usage)}
    events.append({"type": "message-end", "id": answer.id, "delta": finish})
    for event in events[1:]:  # what the first one says beside its role, the package leaves unread
        _judged(_EVENT, event)
    return b"".join(b"event: %b\ndata: %b\n\n" % (e["type"].encode(), json.dumps(e).encode()) for e in events)


def _called(at: int, call: JSONObject) -> list[JSONObject]:
    opened = {**call, "function": {**call["function"], "arguments": ""}}
    events: list[JSONObject] = [{"type": "tool-call-start", "index": at, "delta": {"message": {"tool_calls": opened}}}]
    for letter in call["function"]["arguments"]:
        piece = {"message": {"tool_calls": {"function": {"arguments": letter}}}}
        events.append({"type": "tool-call-delta", "index": at, "delta": piece})
    return [*events, {"type": "tool-call-end", "index": at}]


def _said(at: int, item: JSONObject, logprobs: tuple[TokenLogprob, ...] | None) -> list[JSONObject]:
    kind = item["type"]
    opened = {"type": kind, kind: ""}
    events: list[JSONObject] = [{"type": "content-start", "index": at, "delta": {"message": {"content": opened}}}]
    for letter in item[kind] if logprobs is None else [token.token for token in logprobs]:
        events.append({"type": "content-delta", "index": at, "delta": {"message": {"content": {kind: letter}}}})
    for event, token in zip(events[1:], logprobs or (), strict=False):
        event["logprobs"] = _logprob(token)
    return [*events, {"type": "content-end", "index": at}]


# --- embeddings ---------------------------------------------------------------------------------------------------


def vectors_asked(request: UpstreamRequest) -> dict[str, Any]:
    assert request.url == "https://api.cohere.com/v2/embed", request.url
    body = json.loads(request.body)
    for name, value in body.items():
        _judged(_EMBED[name], value)
    return {
        "inputs": body["texts"],
        "dimensions": body["output_dimension"],
        "base64": body["embedding_types"] == ["base64"],
    }


def vectors(values: tuple[tuple[float, ...], ...], tokens: int, *, asked: dict[str, Any]) -> bytes:
    coded = [base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode() for vector in values]
    embeddings = {"base64": coded} if asked["base64"] else {"float": values}
    body = {"id": "e-1", "embeddings": embeddings, "texts": asked["inputs"]}
    body["meta"] = {"api_version": {"version": "2"}, "billed_units": {"input_tokens": tokens}}
    _judged(_EMBEDDED, json.loads(json.dumps(body)))
    return json.dumps(body).encode()
