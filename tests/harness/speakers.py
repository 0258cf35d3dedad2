"""One client per dialect on the plain wire, so that one test can be written for all three.

`SPEAKERS` has them by name. What a whole answer, an error and a stream look like stands here once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import httpx

# HTTP status → the word for it: OpenAI's `type`, Anthropic's `error.type`, Gemini's `status` (contract 3).
WORDS: dict[int, tuple[str, str, str]] = {
    400: ("invalid_request_error", "invalid_request_error", "INVALID_ARGUMENT"),
    401: ("authentication_error", "authentication_error", "UNAUTHENTICATED"),
    403: ("permission_error", "permission_error", "PERMISSION_DENIED"),
    404: ("invalid_request_error", "not_found_error", "NOT_FOUND"),
    413: ("invalid_request_error", "request_too_large", "INVALID_ARGUMENT"),
    422: ("invalid_request_error", "invalid_request_error", "INVALID_ARGUMENT"),
    429: ("rate_limit_error", "rate_limit_error", "RESOURCE_EXHAUSTED"),
    502: ("api_error", "api_error", "INTERNAL"),
    503: ("api_error", "overloaded_error", "UNAVAILABLE"),
    504: ("api_error", "timeout_error", "DEADLINE_EXCEEDED"),
}


@cache
def client() -> httpx.Client:
    """One for all: making a client costs more than a request."""
    return httpx.Client(timeout=20, trust_env=False, verify=False, cookies=None)


@dataclass(frozen=True)
class Told:
    """An error as its dialect tells it. `code` and `param` are None where the dialect has no field for them."""

    word: str
    message: str
    code: str | None = None
    param: str | None = None


@dataclass
class Streamed:
    """A stream as a client sees it. `usage` is (input, output) tokens; `ended`: the end marker came."""

    text: str = ""
    usage: tuple[int, int] | None = None
    error: Told | None = None
    ended: bool = False
    frames: list[Any] = field(default_factory=list)


@dataclass(frozen=True)
class Speaker:
    """`place` picks this dialect's column of WORDS."""

    name: str
    place: int
    key_header: str
    address: Callable[[str, bool], str]
    body: Callable[[str, str, bool, int | None], dict[str, Any]]
    read: Callable[[Any], tuple[str, tuple[int, int]]]
    told: Callable[[Any], Told]
    frame: Callable[[Streamed, Any], None]

    def word_in_stream(self, status: int) -> str:
        """Errors in streams of the Responses API have no word for their kind."""
        return "" if self.name == "responses" else self.word(status)

    def word(self, status: int) -> str:
        return WORDS[status][self.place]

    def headers(self, key: str, more: Mapping[str, str] | None = None) -> dict[str, str]:
        shown = f"Bearer {key}" if self.key_header == "authorization" else key
        own = {"anthropic-version": "2023-06-01"} if self.name == "anthropic" else {}
        return {**({self.key_header: shown} if key else {}), **own, **(more or {})}

    def ask(
        self,
        url: str,
        key: str,
        text: str = "hello big world",
        *,
        model: str = "sandbox-echo",
        cap: int | None = None,
        headers: Mapping[str, str] | None = None,
        **fields: Any,
    ) -> httpx.Response:
        """A whole answer."""
        body = {**self.body(model, text, False, cap), **fields}
        return self.post(url, self.address(model, False), key, json.dumps(body).encode(), headers)

    def post(
        self, url: str, path: str, key: str, body: bytes, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        sent = {"content-type": "application/json", **self.headers(key, headers)}
        return client().post(url + path, content=body, headers=sent)

    def stream(
        self,
        url: str,
        key: str,
        text: str = "hello big world",
        *,
        model: str = "sandbox-echo",
        cap: int | None = None,
        headers: Mapping[str, str] | None = None,
        **fields: Any,
    ) -> tuple[httpx.Response, Streamed]:
        """A stream, read to its end."""
        body = {**self.body(model, text, True, cap), **fields}
        answer = self.post(url, self.address(model, True), key, json.dumps(body).encode(), headers)
        return answer, self.parse(answer.text)

    def parse(self, text: str) -> Streamed:
        seen = Streamed()
        for block in text.replace("\r\n", "\n").split("\n\n"):
            data = "\n".join(line[5:].strip() for line in block.split("\n") if line.startswith("data:"))
            if data == "[DONE]":
                seen.ended = True
            elif data:
                assert not seen.ended, f"a frame after the end marker: {data}"
                frame = json.loads(data)
                seen.frames.append(frame)
                self.frame(seen, frame)
        return seen


# --- OpenAI


def _openai_body(model: str, text: str, stream: bool, cap: int | None) -> dict[str, Any]:
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": text}]}
    return body | ({"stream": True} if stream else {}) | ({"max_completion_tokens": cap} if cap else {})


def _openai_read(answer: Any) -> tuple[str, tuple[int, int]]:
    usage = answer["usage"]
    text = answer["choices"][0]["message"]["content"]
    return text, (usage["prompt_tokens"], usage["completion_tokens"])


def _openai_told(answer: Any) -> Told:
    error = answer["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return Told(error["type"], error["message"], error["code"], error["param"])


def _openai_frame(seen: Streamed, frame: Any) -> None:
    if "error" in frame:
        seen.error = _openai_told(frame)
        return
    for choice in frame["choices"]:
        seen.text += choice["delta"].get("content") or ""
    if frame.get("usage"):
        seen.usage = (frame["usage"]["prompt_tokens"], frame["usage"]["completion_tokens"])


# --- OpenAI's responses


def _responses_body(model: str, text: str, stream: bool, cap: int | None) -> dict[str, Any]:
    body: dict[str, Any] = {"model": model, "input": text}
    return body | ({"stream": True} if stream else {}) | ({"max_output_tokens": cap} if cap else {})


def _responses_read(answer: Any) -> tuple[str, tuple[int, int]]:
    usage, said = answer["usage"], [item["content"] for item in answer["output"] if item["type"] == "message"]
    text = "".join(part["text"] for content in said for part in content)
    return text, (usage["input_tokens"], usage["output_tokens"])


def _responses_frame(seen: Streamed, frame: Any) -> None:
    kind = frame["type"]
    if kind == "error":
        seen.error = Told("", frame["message"], frame["code"], frame["param"])
    elif kind == "response.output_text.delta":
        seen.text += frame["delta"]
    elif kind in ("response.completed", "response.incomplete"):
        seen.ended = True
        if usage := frame["response"].get("usage"):
            seen.usage = (usage["input_tokens"], usage["output_tokens"])


# --- Anthropic


def _anthropic_body(model: str, text: str, stream: bool, cap: int | None) -> dict[str, Any]:
    body = {"model": model, "max_tokens": cap or 1000, "messages": [{"role": "user", "content": text}]}
    return body | ({"stream": True} if stream else {})


def _anthropic_usage(usage: Any) -> tuple[int, int]:
    usage = {"output_tokens": 0, **(usage or {})}
    parts = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    return sum(usage.get(part) or 0 for part in parts), usage["output_tokens"]


def _anthropic_read(answer: Any) -> tuple[str, tuple[int, int]]:
    text = "".join(block["text"] for block in answer["content"] if block["type"] == "text")
    return text, _anthropic_usage(answer["usage"])


def _anthropic_told(answer: Any) -> Told:
    assert answer["type"] == "error"
    assert set(answer) == {"type", "error", "request_id"}
    return Told(answer["error"]["type"], answer["error"]["message"])


def _anthropic_frame(seen: Streamed, frame: Any) -> None:
    kind = frame["type"]
    if kind == "error":
        seen.error = _anthropic_told(frame)
    elif kind == "content_block_delta":
        seen.text += frame["delta"].get("text", "")
    elif kind == "message_start":
        seen.usage = _anthropic_usage(frame["message"].get("usage"))
    elif kind == "message_delta":
        begun = seen.usage or (0, 0)
        last = _anthropic_usage({"input_tokens": 0, "output_tokens": 0, **frame.get("usage", {})})
        seen.usage = (max(begun[0], last[0]), last[1])
    elif kind == "message_stop":
        seen.ended = True


# --- Gemini


def _gemini_body(model: str, text: str, stream: bool, cap: int | None) -> dict[str, Any]:
    body: dict[str, Any] = {"contents": [{"role": "user", "parts": [{"text": text}]}]}
    return body | ({"generationConfig": {"maxOutputTokens": cap}} if cap else {})


def _gemini_parts(answer: Any) -> str:
    parts = [part for one in answer.get("candidates", []) for part in one.get("content", {}).get("parts", [])]
    return "".join(part.get("text", "") for part in parts if not part.get("thought"))


def _gemini_usage(usage: Any) -> tuple[int, int]:
    return usage["promptTokenCount"], usage.get("candidatesTokenCount", 0) + usage.get("thoughtsTokenCount", 0)


def _gemini_read(answer: Any) -> tuple[str, tuple[int, int]]:
    return _gemini_parts(answer), _gemini_usage(answer["usageMetadata"])


def _gemini_told(answer: Any) -> Told:
    error = answer["error"]
    reasons = [detail["reason"].lower() for detail in error.get("details", []) if "reason" in detail]
    return Told(error["status"], error["message"], reasons[0] if reasons else None)


def _gemini_frame(seen: Streamed, frame: Any) -> None:
    if "error" in frame:
        seen.error = _gemini_told(frame)
        return
    seen.text += _gemini_parts(frame)
    if "usageMetadata" in frame:
        seen.usage = _gemini_usage(frame["usageMetadata"])
    if any(one.get("finishReason") for one in frame.get("candidates", [])):
        seen.ended = True  # the dialect has no marker of its own; the last frame says why it ended


def _gemini_address(model: str, stream: bool) -> str:
    return f"/v1beta/models/{model}:" + ("streamGenerateContent?alt=sse" if stream else "generateContent")


SPEAKERS: dict[str, Speaker] = {
    speaker.name: speaker
    for speaker in (
        Speaker(
            "openai",
            0,
            "authorization",
            lambda model, stream: "/v1/chat/completions",
            _openai_body,
            _openai_read,
            _openai_told,
            _openai_frame,
        ),
        Speaker(
            "responses",
            0,
            "authorization",
            lambda model, stream: "/v1/responses",
            _responses_body,
            _responses_read,
            _openai_told,
            _responses_frame,
        ),
        Speaker(
            "anthropic",
            1,
            "x-api-key",
            lambda model, stream: "/v1/messages",
            _anthropic_body,
            _anthropic_read,
            _anthropic_told,
            _anthropic_frame,
        ),
        Speaker(
            "gemini",
            2,
            "x-goog-api-key",
            _gemini_address,
            _gemini_body,
            _gemini_read,
            _gemini_told,
            _gemini_frame,
        ),
    )
}
# Routes of tests/harness/gateway.py by the provider's wire format.
PREFIXES = {"openai": "", "anthropic": "anthropic/", "gemini": "gemini/"}
