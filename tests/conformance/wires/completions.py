"""/v1/completions of vendors that serve it, judged by the `openai` package.

`finish_reason` is "stop" where a chat would say more: there are no tools and no thoughts.
"""

from __future__ import annotations

import json
from typing import Any

from openai.types import Completion
from openai.types.completion_create_params import (
    CompletionCreateParamsNonStreaming,
    CompletionCreateParamsStreaming,
)
from pydantic import TypeAdapter

from providers.adapters.base import UpstreamRequest
from providers.adapters.types import ChatResponse, Choice, Finish, JSONObject, Text, TokenLogprob, Usage
from tests.conformance.judged import judged

HAS = frozenset({"logprobs"})  # a number here, and a switch in chats: who lacks one of them need not lack the other
_WHOLE = TypeAdapter(CompletionCreateParamsNonStreaming)
_STREAMED = TypeAdapter(CompletionCreateParamsStreaming)
_ANSWER = TypeAdapter(Completion)
_FINISH: dict[Finish, str] = {"length": "length", "content_filter": "content_filter"}
_SETTINGS = {"cap": "max_tokens"} | {
    name: name for name in ("seed", "temperature", "top_p", "n", "user", "echo", "suffix", "best_of")
}


def facts(request: UpstreamRequest) -> dict[str, Any]:
    assert request.method == "POST"
    assert request.url.partition("?")[0].endswith("/completions"), request.url
    assert "/chat/" not in request.url, request.url
    assert request.headers["content-type"] == "application/json"
    body = json.loads(request.body)
    judged(_STREAMED if body.get("stream") else _WHOLE, body)
    assert body["model"]
    found: dict[str, Any] = {"stream": bool(body.get("stream"))}
    assert not found["stream"] or body["stream_options"]["include_usage"] is True
    found.update({fact: body[name] for fact, name in _SETTINGS.items() if name in body})
    prompt = body["prompt"]
    of_tokens = isinstance(prompt, list) and all(isinstance(one, int) for one in prompt)
    found["tokens" if of_tokens else "texts"] = [prompt] if isinstance(prompt, str) else prompt
    if "logprobs" in body:
        found["logprobs"] = isinstance(body["logprobs"], int)
    if "stop" in body:
        found["stop"] = [body["stop"]] if isinstance(body["stop"], str) else body["stop"]
    if "presence_penalty" in body or "frequency_penalty" in body:
        found["penalties"] = [body.get("presence_penalty"), body.get("frequency_penalty")]
    return found


# --- answers ------------------------------------------------------------------------------------------------------


def whole(answer: ChatResponse) -> bytes:
    choices = [_choice(choice.index, _text(choice), choice.logprobs, _end(choice)) for choice in answer.choices]
    body = {**_body(answer, choices), "usage": _usage(answer.usage)}
    judged(_ANSWER, body)
    return json.dumps(body).encode()


def stream(answer: ChatResponse) -> bytes:
    chunks: list[JSONObject] = []
    for choice in answer.choices:
        begin = 0
        for text, tokens in _pieces(choice):
            chunks.append(_body(answer, [_choice(choice.index, text, tokens, None, begin)]))
            begin += len(text)
        chunks.append(_body(answer, [_choice(choice.index, "", None, _end(choice))]))
    chunks = [{**chunk, "usage": None} for chunk in chunks]
    chunks.append({**_body(answer, []), "usage": _usage(answer.usage)})
    for chunk in chunks:  # a piece has no end yet, which the type does not know
        ended = [{**choice, "finish_reason": choice["finish_reason"] or "stop"} for choice in chunk["choices"]]
        judged(_ANSWER, {**chunk, "choices": ended})
    return b"".join(b"data: %b\n\n" % json.dumps(chunk).encode() for chunk in chunks) + b"data: [DONE]\n\n"


def _pieces(choice: Choice) -> list[tuple[str, tuple[TokenLogprob, ...] | None]]:
    if choice.logprobs is None:
        return [(letter, None) for letter in _text(choice)]
    return [(token.token, (token,)) for token in choice.logprobs]


def _body(answer: ChatResponse, choices: list[JSONObject]) -> JSONObject:
    return {"id": answer.id, "object": "text_completion", "created": 1, "model": answer.model, "choices": choices}


def _text(choice: Choice) -> str:
    return "".join(part.text for part in choice.parts if isinstance(part, Text))


def _end(choice: Choice) -> str:
    return _FINISH.get(choice.finish, "stop")


def _choice(
    index: int, text: str, tokens: tuple[TokenLogprob, ...] | None, finish: str | None, begin: int = 0
) -> JSONObject:
    """`begin`: characters of the choice's text that came before."""
    told: JSONObject | None = None
    if tokens is not None:
        texts = [token.token for token in tokens]
        told = {
            "tokens": texts,
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [{other.token: other.logprob for other in token.top} for token in tokens],
            "text_offset": [begin + len("".join(texts[:at])) for at in range(len(texts))],
        }
    return {"text": text, "index": index, "logprobs": told, "finish_reason": finish}


def _usage(usage: Usage | None) -> JSONObject:
    assert usage is not None
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cache_read_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }
