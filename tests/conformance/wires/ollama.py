"""Ollama's own API, judged by the `ollama` package.

Beyond its types: `id` of a tool call and `tool_call_id` of a result, which servers since 2025 know and others skip.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from ollama import _types as ollama

from providers.adapters.base import UpstreamRequest
from providers.adapters.types import (
    ChatResponse,
    Choice,
    JSONObject,
    Reasoning,
    Text,
    TokenLogprob,
    ToolCall,
)

MODEL = "qwen3"
LACKS = frozenset(
    {
        *("prompt_cache", "tool_choice", "several", "audio_in", "audio_out", "documents", "citations"),
        *("thoughts_back", "ends_filtered"),  # thoughts are unsigned, and no answer is filtered
    }
)
TELLS = frozenset({"input_tokens", "output_tokens"})
_AT = "2026-01-02T03:04:05.678901234Z"
_TOP = {"model", "messages", "stream", "tools", "format", "think", "logprobs", "top_logprobs", "options", "keep_alive"}


def facts(request: UpstreamRequest) -> dict[str, Any]:
    assert request.method == "POST"
    assert request.url.endswith("/api/chat"), request.url
    assert request.headers["content-type"] == "application/json"
    body = json.loads(request.body)
    assert set(body) <= _TOP, sorted(body)
    asked = ollama.ChatRequest.model_validate(body)
    for message in body["messages"]:
        images = [{"value": base64.b64decode(image, validate=True)} for image in message.get("images", ())]
        ollama.Message.model_validate({**message, "images": images})
        assert set(message) <= {*ollama.Message.model_fields, "tool_call_id"}
    assert asked.model
    options = body.get("options", {})
    ollama.Options.model_validate(options)
    assert set(options) <= {*ollama.Options.model_fields, "min_p"}, sorted(options)
    return {**_settings(body, options), **_conversation(body["messages"])}


def _settings(body: JSONObject, options: JSONObject) -> dict[str, Any]:
    found: dict[str, Any] = {"stream": body["stream"]}
    found.update({name: options[name] for name in ("seed", "temperature", "top_p", "stop") if name in options})
    if "num_predict" in options:
        found["cap"] = options["num_predict"]
    if "presence_penalty" in options or "frequency_penalty" in options:
        found["penalties"] = [options.get("presence_penalty"), options.get("frequency_penalty")]
    if isinstance(body.get("format"), dict):
        found["schema"] = body["format"]
    if body.get("think"):
        found["reasoning"] = True
    if "logprobs" in body:
        found["logprobs"] = body["logprobs"]
    if "tools" in body:
        found["tools"] = [tool["function"]["name"] for tool in body["tools"]]
    return found


def _conversation(messages: list[JSONObject]) -> dict[str, Any]:
    found: dict[str, Any] = {"texts": [], "calls": [], "results": [], "images": 0, "audio": 0, "documents": 0}
    found.update(signatures=[], cache_marks=0)
    for message in messages:
        place = {"system": "system", "tool": "results"}.get(message["role"], "texts")
        if place == "system":
            found["system"] = message["content"]
        elif message["content"]:
            found[place].append(message["content"])
        found["images"] += len(message.get("images", ()))
        for call in message.get("tool_calls", ()):
            found["calls"].append((call["function"]["name"], call["function"]["arguments"]))
    return found


# --- answers ------------------------------------------------------------------------------------------------------


def whole(answer: ChatResponse) -> bytes:
    (choice,) = answer.choices
    message: JSONObject = {"role": "assistant", "content": ""}
    for part in choice.parts:
        if isinstance(part, Text):
            message["content"] += part.text
        elif isinstance(part, Reasoning):
            message["thinking"] = part.text
        elif isinstance(part, ToolCall):
            message.setdefault("tool_calls", []).append(_call(part))
    return _written({**_line(answer, message), **_last(answer, choice), **_logprobs(choice.logprobs)})


def stream(answer: ChatResponse) -> bytes:
    (choice,) = answer.choices
    lines: list[JSONObject] = []
    for part in choice.parts:
        if isinstance(part, Reasoning):
            lines += [_line(answer, {"role": "assistant", "content": "", "thinking": letter}) for letter in part.text]
        elif isinstance(part, ToolCall):
            lines.append(_line(answer, {"role": "assistant", "content": "", "tool_calls": [_call(part)]}))
        elif isinstance(part, Text) and choice.logprobs is not None:
            for token in choice.logprobs:
                said = _line(answer, {"role": "assistant", "content": token.token})
                lines.append({**said, **_logprobs((token,))})
        elif isinstance(part, Text):
            lines += [_line(answer, {"role": "assistant", "content": letter}) for letter in part.text]
    lines.append({**_line(answer, {"role": "assistant", "content": ""}), **_last(answer, choice)})
    return b"".join(_written(line) + b"\n" for line in lines)


def _written(line: JSONObject) -> bytes:
    ollama.ChatResponse.model_validate(line)
    return json.dumps(line).encode()


def _line(answer: ChatResponse, message: JSONObject) -> JSONObject:
    return {"model": answer.model, "created_at": _AT, "message": message, "done": False}


def _last(answer: ChatResponse, choice: Choice) -> JSONObject:
    assert answer.usage is not None
    return {
        "done": True,
        "done_reason": "length" if choice.finish == "length" else "stop",
        "total_duration": 1_000,
        "prompt_eval_count": answer.usage.input_tokens,
        "eval_count": answer.usage.output_tokens,
    }


def _call(part: ToolCall) -> JSONObject:
    return {"id": part.id, "function": {"name": part.name, "arguments": json.loads(part.arguments)}}


def _logprobs(tokens: tuple[TokenLogprob, ...] | None) -> JSONObject:
    return {} if tokens is None else {"logprobs": [_logprob(token) for token in tokens]}


# --- embeddings ---------------------------------------------------------------------------------------------------


def vectors_asked(request: UpstreamRequest) -> dict[str, Any]:
    assert request.url.endswith("/api/embed"), request.url
    body = json.loads(request.body)
    asked = ollama.EmbedRequest.model_validate(body)
    assert body.keys() <= {"model", "input", "dimensions", "keep_alive"}
    return {"inputs": asked.input, "dimensions": asked.dimensions}


def vectors(values: tuple[tuple[float, ...], ...], tokens: int, *, asked: dict[str, Any]) -> bytes:
    told = ollama.EmbedResponse(model="some-model", embeddings=values, prompt_eval_count=tokens)
    return told.model_dump_json().encode()


def _logprob(token: TokenLogprob) -> JSONObject:
    said: JSONObject = {"token": token.token, "logprob": token.logprob}
    if token.bytes is not None:
        said["bytes"] = list(token.bytes)
    return {**said, "top_logprobs": [_logprob(other) for other in token.top]}
