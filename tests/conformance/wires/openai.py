"""OpenAI's chat completions, judged by the `openai` package.

Beyond its types: `reasoning_content` and `reasoning_details`, which many who speak this format know, and fields of the
extra kind that openai's own client sends as they are.
"""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionMessageParam
from openai.types.chat.completion_create_params import (
    CompletionCreateParamsNonStreaming,
    CompletionCreateParamsStreaming,
)
from openai.types.embedding_create_params import EmbeddingCreateParams
from pydantic import TypeAdapter

from providers.adapters.base import UpstreamRequest
from providers.adapters.types import (
    Audio,
    ChatResponse,
    Choice,
    JSONObject,
    Reasoning,
    Text,
    TokenLogprob,
    ToolCall,
    Usage,
)
from tests.conformance.judged import judged

MODEL = "gpt-5"
LACKS = frozenset({"prompt_cache"})
_WHOLE = TypeAdapter(CompletionCreateParamsNonStreaming)
_STREAMED = TypeAdapter(CompletionCreateParamsStreaming)
_MESSAGE = TypeAdapter(ChatCompletionMessageParam)
_EMBEDDING = TypeAdapter(EmbeddingCreateParams)
_ANSWER, _CHUNK = TypeAdapter(ChatCompletion), TypeAdapter(ChatCompletionChunk)
_BESIDE = ("reasoning_content", "reasoning_details", "reasoning", "cache_control", "extra_content")
_FINISH = {"stop": "stop", "length": "length", "tool_calls": "tool_calls", "content_filter": "content_filter"}


def facts(request: UpstreamRequest) -> dict[str, Any]:
    assert request.method == "POST"
    assert request.url.partition("?")[0].endswith("/chat/completions"), request.url
    assert request.headers["content-type"] == "application/json"
    body = json.loads(request.body)
    judged(_STREAMED if body.get("stream") else _WHOLE, body)
    for message in body["messages"]:
        judged(_MESSAGE, {name: value for name, value in message.items() if name not in _BESIDE})
    assert body["model"]
    return {**_settings(body), **_conversation(body["messages"]), **_tools(body)}


def _settings(body: JSONObject) -> dict[str, Any]:
    found: dict[str, Any] = {"stream": bool(body.get("stream"))}
    assert not found["stream"] or body["stream_options"]["include_usage"] is True
    caps = [body[name] for name in ("max_tokens", "max_completion_tokens") if name in body]
    assert len(caps) <= 1, "two caps"
    named = ("seed", "temperature", "top_p", "n", "logprobs", "user")
    found.update({name: body[name] for name in named if name in body})
    if caps:
        found["cap"] = caps[0]
    if "stop" in body:
        found["stop"] = [body["stop"]] if isinstance(body["stop"], str) else body["stop"]
    if "presence_penalty" in body or "frequency_penalty" in body:
        found["penalties"] = [body.get("presence_penalty"), body.get("frequency_penalty")]
    wanted = body.get("response_format") or {}
    if wanted.get("type") == "json_schema":
        found["schema"] = wanted["json_schema"]["schema"]
    thinks = (body.get("thinking") or {}).get("type") in ("enabled", "adaptive")
    if body.get("reasoning_effort") not in (None, "none") or body.get("reasoning") or thinks:
        found["reasoning"] = True
    if "audio" in (body.get("modalities") or ()):
        assert body["audio"]["voice"]
        found["audio_out"] = True
    return found


def _tools(body: JSONObject) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if "tools" in body:
        found["tools"] = [tool["function"]["name"] for tool in body["tools"]]
    choice = body.get("tool_choice")
    if choice is not None:
        found["tool_choice"] = choice if isinstance(choice, str) else choice["function"]["name"]
    if "parallel_tool_calls" in body:
        found["parallel_tools"] = body["parallel_tool_calls"]
    return found


def _conversation(messages: list[JSONObject]) -> dict[str, Any]:
    found: dict[str, Any] = {"texts": [], "calls": [], "results": [], "images": 0, "audio": 0, "documents": 0}
    found.update(signatures=[], cache_marks=0, thoughts="")
    for message in messages:
        content = message.get("content")
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content or []
        texts = [part["text"] for part in parts if part["type"] == "text"]
        if message["role"] in ("system", "developer"):
            found["system"] = "".join(texts)
        elif message["role"] == "tool":
            found["results"] += texts
        else:
            found["texts"] += texts
        kinds = [part["type"] for part in parts]
        found["images"] += kinds.count("image_url")
        found["audio"] += kinds.count("input_audio")
        found["documents"] += kinds.count("file") + kinds.count("document_url")
        found["cache_marks"] += sum("cache_control" in part for part in (*parts, message))
        for call in message.get("tool_calls") or ():
            found["calls"].append((call["function"]["name"], json.loads(call["function"]["arguments"])))
        found["thoughts"] += message.get("reasoning_content") or message.get("reasoning") or ""
        details = message.get("reasoning_details") or ()
        found["signatures"] += [detail["signature"] for detail in details if "signature" in detail]
    return found


# --- answers ------------------------------------------------------------------------------------------------------


def whole(answer: ChatResponse) -> bytes:
    body = {
        "id": answer.id,
        "object": "chat.completion",
        "created": 1,
        "model": answer.model,
        "choices": [_choice(choice) for choice in answer.choices],
        "usage": _usage(answer.usage),
    }
    judged(_ANSWER, body)
    return json.dumps(body).encode()


def stream(answer: ChatResponse) -> bytes:
    chunks: list[JSONObject] = []
    for choice in answer.choices:
        message = _choice(choice)["message"]
        chunks.append(_chunk(answer, choice.index, {"role": "assistant", "content": ""}))
        if details := message.get("reasoning_details"):
            chunks += _thoughts(answer, choice, details)
        chunks += _content(answer, choice, message["content"] or "")
        chunks += [
            _chunk(answer, choice.index, {name: message[name]}) for name in ("audio", "annotations") if name in message
        ]
        for at, call in enumerate(message.get("tool_calls") or ()):
            function = {**call["function"], "arguments": ""}
            opened = {**call, "function": function, "index": at}
            chunks.append(_chunk(answer, choice.index, {"tool_calls": [opened]}))
            for letter in call["function"]["arguments"]:
                piece = {"index": at, "function": {"arguments": letter}}
                chunks.append(_chunk(answer, choice.index, {"tool_calls": [piece]}))
        chunks.append(_chunk(answer, choice.index, {}, finish=_FINISH[choice.finish]))
    chunks.append({**_chunk(answer, 0, {}), "choices": [], "usage": _usage(answer.usage)})
    for chunk in chunks:
        judged(_CHUNK, chunk)
    return b"".join(b"data: %b\n\n" % json.dumps(chunk).encode() for chunk in chunks) + b"data: [DONE]\n\n"


def _thoughts(answer: ChatResponse, choice: Choice, details: list[JSONObject]) -> list[JSONObject]:
    chunks = []
    for at, detail in enumerate(details):
        text, signature = detail.get("text", ""), detail.get("signature")
        opening = {"type": "reasoning.text", "text": text, "index": at}
        chunks.append(_chunk(answer, choice.index, {"reasoning_content": text, "reasoning_details": [opening]}))
        if signature:
            closing = {"type": "reasoning.text", "signature": signature, "index": at}
            chunks.append(_chunk(answer, choice.index, {"reasoning_details": [closing]}))
    return chunks


def _content(answer: ChatResponse, choice: Choice, text: str) -> list[JSONObject]:
    if choice.logprobs is None:
        return [_chunk(answer, choice.index, {"content": letter}) for letter in text]
    chunks = []
    for token in choice.logprobs:
        told = {"content": [_logprob(token)], "refusal": None}
        chunks.append(_chunk(answer, choice.index, {"content": token.token}, logprobs=told))
    return chunks


def _chunk(answer: ChatResponse, index: int, delta: JSONObject, finish: str | None = None, **more: Any) -> JSONObject:
    choice = {"index": index, "delta": delta, "finish_reason": finish, "logprobs": None, **more}
    return {
        "id": answer.id,
        "object": "chat.completion.chunk",
        "created": 1,
        "model": answer.model,
        "choices": [choice],
        "usage": None,
    }


def _choice(choice: Choice) -> JSONObject:
    message: JSONObject = {"role": "assistant", "content": None, "refusal": None}
    for part in choice.parts:
        if isinstance(part, Text):
            message["content"] = (message["content"] or "") + part.text
            if part.citations:
                message["annotations"] = [_annotation(cited.url, cited.title) for cited in part.citations]
        elif isinstance(part, Reasoning):
            detail = {"type": "reasoning.text", "text": part.text, "signature": part.signature}
            message["reasoning_content"] = part.text
            message["reasoning_details"] = [detail]
        elif isinstance(part, ToolCall):
            function = {"name": part.name, "arguments": part.arguments}
            message.setdefault("tool_calls", []).append({"id": part.id, "type": "function", "function": function})
        elif isinstance(part, Audio):
            message["audio"] = {
                "id": part.id,
                "data": part.source.data,
                "transcript": part.transcript,
                "expires_at": part.expires_at,
            }
    logprobs = None
    if choice.logprobs is not None:
        logprobs = {"content": [_logprob(token) for token in choice.logprobs], "refusal": None}
    finish = _FINISH[choice.finish]
    return {"index": choice.index, "message": message, "logprobs": logprobs, "finish_reason": finish}


def _annotation(url: str, title: str) -> JSONObject:
    return {
        "type": "url_citation",
        "url_citation": {"url": url, "title": title, "start_index": 6, "end_index": 11},
    }


def _logprob(token: TokenLogprob) -> JSONObject:
    def one(found: TokenLogprob) -> JSONObject:
        return {"token": found.token, "logprob": found.logprob, "bytes": list(found.bytes or ())}

    return {**one(token), "top_logprobs": [one(other) for other in token.top]}


def _usage(usage: Usage | None) -> JSONObject:
    assert usage is not None
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cache_read_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
            "audio_tokens": usage.audio_input_tokens,
        },
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": usage.audio_output_tokens,
        },
    }


# --- embeddings ---------------------------------------------------------------------------------------------------


def vectors_asked(request: UpstreamRequest) -> dict[str, Any]:
    assert request.url.partition("?")[0].endswith("/embeddings"), request.url
    body = json.loads(request.body)
    judged(_EMBEDDING, body)
    return {
        "inputs": body["input"],
        "dimensions": body["dimensions"],
        "base64": body.get("encoding_format") == "base64",
    }


def vectors(values: tuple[tuple[float, ...], ...], tokens: int, *, asked: dict[str, Any]) -> bytes:
    data = []
    for at, vector in enumerate(values):
        coded = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
        data.append({"object": "embedding", "index": at, "embedding": coded if asked["base64"] else vector})
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return json.dumps({"object": "list", "data": data, "model": "some-model", "usage": usage}).encode()
