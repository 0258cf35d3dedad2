"""Mistral's chat completions and embeddings, judged by the `mistralai` package without fields it does not know."""

from __future__ import annotations

import base64
import json
import re
import struct
from typing import Any

from mistralai.client.models import ChatCompletionRequest, ChatCompletionResponse, CompletionChunk, EmbeddingRequest
from pydantic import BaseModel

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

MODEL = "mistral-large-latest"
LACKS = frozenset({"audio_out", "prompt_cache", "citations"})
TELLS = frozenset({"input_tokens", "output_tokens", "cache_read_tokens", "reasoning_tokens"})
_FINISH: dict[Finish, str] = {"stop": "stop", "length": "length", "tool_calls": "tool_calls"}
_ID = re.compile(r"[A-Za-z0-9]{9}")


def _judged(kind: type[BaseModel], value: Any) -> None:
    """Raises when `value` is not of the type, or says more than the type knows."""
    _no_more(kind.model_validate(value), value)


def _no_more(model: Any, value: Any) -> None:
    if type(model).__name__ == "Unset":  # pydantic took the package's mark for "absent" for a fitting type
        return
    if isinstance(model, list):
        for one, raw in zip(model, value, strict=True):
            _no_more(one, raw)
    elif isinstance(model, BaseModel) and isinstance(value, dict):
        assert not getattr(model, "is_unknown", False), f"no such part: {value}"
        fields = {field.alias or name: name for name, field in type(model).model_fields.items()}
        if type(model).model_config.get("extra") != "allow":
            assert not set(value) - set(fields), f"{type(model).__name__} knows no {set(value) - set(fields)}"
        for alias, name in fields.items():
            if alias in value:
                _no_more(getattr(model, name), value[alias])


def facts(request: UpstreamRequest) -> dict[str, Any]:
    assert request.method == "POST"
    assert request.url == "https://api.mistral.ai/v1/chat/completions", request.url
    assert request.headers["authorization"] == "Bearer k"
    body = json.loads(request.body)
    _judged(ChatCompletionRequest, body)
    found: dict[str, Any] = {"stream": bool(body.get("stream"))}
    named = {"seed": "random_seed", "cap": "max_tokens", "temperature": "temperature", "top_p": "top_p", "n": "n"}
    named.update(logprobs="logprobs", stop="stop", parallel_tools="parallel_tool_calls")
    found.update({fact: body[name] for fact, name in named.items() if name in body})
    if "presence_penalty" in body or "frequency_penalty" in body:
        found["penalties"] = [body.get("presence_penalty"), body.get("frequency_penalty")]
    wanted = body.get("response_format") or {}
    if wanted.get("type") == "json_schema":
        found["schema"] = wanted["json_schema"]["schema"]
    if body.get("reasoning_effort") not in (None, "none"):
        found["reasoning"] = True
    if "tools" in body:
        found["tools"] = [tool["function"]["name"] for tool in body["tools"]]
    if (choice := body.get("tool_choice")) is not None:
        found["tool_choice"] = choice if isinstance(choice, str) else choice["function"]["name"]
    return {**found, **_conversation(body["messages"])}


def _conversation(messages: list[JSONObject]) -> dict[str, Any]:
    found: dict[str, Any] = {"texts": [], "calls": [], "results": [], "images": 0, "audio": 0, "documents": 0}
    found["signatures"] = []
    for message in messages:
        content = message.get("content") or ""
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        texts = [part["text"] for part in parts if part["type"] == "text"]
        if message["role"] == "system":
            found["system"] = "".join(texts)
        else:
            found["results" if message["role"] == "tool" else "texts"] += texts
        kinds = [part["type"] for part in parts]
        found["images"] += kinds.count("image_url")
        found["audio"] += kinds.count("input_audio")
        found["documents"] += kinds.count("document_url") + kinds.count("file")
        found["signatures"] += [part["signature"] for part in parts if "signature" in part]
        for call in message.get("tool_calls") or ():
            assert _ID.fullmatch(call["id"]), call["id"]
            found["calls"].append((call["function"]["name"], json.loads(call["function"]["arguments"])))
    return found


# --- answers ------------------------------------------------------------------------------------------------------


def whole(answer: ChatResponse) -> bytes:
    body = {
        "id": answer.id,
        "object": "chat.completion",
        "created": 1,
        "model": answer.model,
        "choices": [
            {
                "index": choice.index,
                "message": {"role": "assistant", **_message(choice)},
                "finish_reason": _FINISH.get(choice.finish, choice.finish),
                "logprobs": _logprobs(choice.logprobs),
            }
            for choice in answer.choices
        ],
        "usage": _usage(answer.usage),
    }
    _judged(ChatCompletionResponse, body)
    return json.dumps(body).encode()


def _message(choice: Choice) -> JSONObject:
    """A plain text is a string; beside thoughts it is a part."""
    texts = [part.text for part in choice.parts if isinstance(part, Text)]
    content: Any = "".join(texts)
    if thoughts := [part for part in choice.parts if isinstance(part, Reasoning)]:
        content = [_thought(part) for part in thoughts] + [{"type": "text", "text": text} for text in texts]
    calls = [
        {"id": part.id, "type": "function", "index": at, "function": {"name": part.name, "arguments": part.arguments}}
        for at, part in enumerate(part for part in choice.parts if isinstance(part, ToolCall))
    ]
    return {"content": content, **({"tool_calls": calls} if calls else {})}


def _thought(part: Reasoning) -> JSONObject:
    inner = [{"type": "text", "text": part.text}]
    return {"type": "thinking", "thinking": inner, "signature": part.signature or None, "closed": True}


def stream(answer: ChatResponse) -> bytes:
    chunks: list[JSONObject] = []
    for choice in answer.choices:
        chunks.append(_chunk(answer, choice.index, {"role": "assistant", "content": ""}))
        message = _message(choice)
        for content, told in _pieces(message["content"], choice.logprobs):
            chunks.append(_chunk(answer, choice.index, {"content": content}, logprobs=told))
        if calls := message.get("tool_calls"):  # Mistral sends each call whole
            chunks.append(_chunk(answer, choice.index, {"tool_calls": calls}))
        chunks.append(_chunk(answer, choice.index, {"content": ""}, _FINISH.get(choice.finish, choice.finish)))
    chunks[-1]["usage"] = _usage(answer.usage)
    for chunk in chunks:
        _judged(CompletionChunk, chunk)
    return b"".join(b"data: %b\n\n" % json.dumps(chunk).encode() for chunk in chunks) + b"data: [DONE]\n\n"


def _pieces(content: Any, logprobs: tuple[TokenLogprob, ...] | None) -> list[tuple[Any, JSONObject | None]]:
    if logprobs is not None:
        return [(token.token, _logprobs((token,))) for token in logprobs]
    if isinstance(content, str):
        return [(letter, None) for letter in content]
    pieces: list[tuple[Any, JSONObject | None]] = []
    for part in content:
        if part["type"] == "text":
            pieces += [(letter, None) for letter in part["text"]]
            continue
        for word in re.findall(r"\S+\s*", part["thinking"][0]["text"]):
            pieces.append(([{"type": "thinking", "thinking": [{"type": "text", "text": word}]}], None))
        if part["signature"]:
            pieces.append(([{"type": "thinking", "thinking": [], "signature": part["signature"]}], None))
    return pieces


def _chunk(answer: ChatResponse, index: int, delta: JSONObject, finish: str | None = None, **more: Any) -> JSONObject:
    choice = {"index": index, "delta": delta, "finish_reason": finish, **more}
    return {
        "id": answer.id,
        "object": "chat.completion.chunk",
        "created": 1,
        "model": answer.model,
        "choices": [choice],
    }


def _logprobs(logprobs: tuple[TokenLogprob, ...] | None) -> JSONObject | None:
    if logprobs is None:
        return None
    return {"content": [{**_one(token), "top_logprobs": [_one(other) for other in token.top]} for token in logprobs]}


def _one(token: TokenLogprob) -> JSONObject:
    return {"token": token.token, "logprob": token.logprob, "bytes": list(token.bytes or ()), "token_id": 7}


def _usage(usage: Usage | None) -> JSONObject:
    assert usage is not None
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cache_read_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


# --- embeddings ---------------------------------------------------------------------------------------------------


def vectors_asked(request: UpstreamRequest) -> dict[str, Any]:
    assert request.url == "https://api.mistral.ai/v1/embeddings", request.url
    body = json.loads(request.body)
    _judged(EmbeddingRequest, body)
    return {
        "inputs": body["input"],
        "dimensions": body["output_dimension"],
        "base64": body["encoding_format"] == "base64",
    }


def vectors(values: tuple[tuple[float, ...], ...], tokens: int, *, asked: dict[str, Any]) -> bytes:
    data = []
    for at, vector in enumerate(values):
        coded = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
        data.append({"object": "embedding", "index": at, "embedding": coded if asked["base64"] else vector})
    usage = {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0}
    return json.dumps({"id": "e-1", "object": "list", "data": data, "model": MODEL, "usage": usage}).encode()
