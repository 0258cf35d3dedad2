"""An error in the stream takes nothing away from what came before it, however the network cut the bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from providers.adapters.base import Head
from providers.adapters.events import TextDelta
from providers.adapters.registry import adapter_for
from providers.adapters.types import ChatRequest, Endpoint, Message, Text
from providers.errors import UpstreamError

REQUEST = ChatRequest(model="m", messages=(Message("user", (Text("Hi"),)),), stream=True)
ANTHROPIC_ERROR = {"type": "error", "error": {"type": "overloaded_error", "message": "Busy"}}


def _openai(text: str) -> dict[str, Any]:
    delta = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return {"id": "a", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [delta]}


def _gemini(text: str) -> dict[str, Any]:
    return {"candidates": [{"index": 0, "content": {"role": "model", "parts": [{"text": text}]}}]}


def _anthropic(text: str) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}


STARTED: list[dict[str, Any]] = [
    {
        "type": "message_start",
        "message": {
            "id": "a",
            "type": "message",
            "role": "assistant",
            "model": "m",
            "content": [],
            "usage": {"input_tokens": 1, "output_tokens": 0},
        },
    },
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
]
STREAMS: dict[str, list[dict[str, Any]]] = {
    "openai": [_openai("one "), _openai("two"), {"error": {"message": "Busy", "type": "server_error"}}],
    "anthropic": [*STARTED, _anthropic("one "), _anthropic("two"), ANTHROPIC_ERROR],
    "gemini": [_gemini("one "), _gemini("two"), {"error": {"code": 503, "message": "Busy", "status": "UNAVAILABLE"}}],
}


def _wire(kind: str) -> bytes:
    def frame(event: dict[str, Any]) -> bytes:
        name = f"event: {event['type']}\n".encode() if kind == "anthropic" else b""
        return name + b"data: " + json.dumps(event, separators=(",", ":")).encode() + b"\n\n"

    return b"".join(map(frame, STREAMS[kind]))


@pytest.mark.parametrize("size", [1, 50, 10_000], ids=["bytes", "pieces", "at once"])
@pytest.mark.parametrize("kind", list(STREAMS))
def test_a_parser_gives_what_came_before_the_error(kind: str, size: int) -> None:
    parser, wire, seen = adapter_for(kind, {}).stream_parser(REQUEST), _wire(kind), ""

    def read() -> None:
        nonlocal seen
        for at in range(0, len(wire), size):
            seen += "".join(event.text for event in parser.feed(wire[at : at + size]) if isinstance(event, TextDelta))
        parser.close()

    with pytest.raises(UpstreamError, match="Busy"):
        read()
    assert seen == "one two"


@pytest.mark.parametrize("size", [1, 50, 10_000], ids=["bytes", "pieces", "at once"])
@pytest.mark.parametrize("kind", list(STREAMS))
def test_a_relay_passes_on_and_counts_what_came_before_the_error(kind: str, size: int) -> None:
    relay, wire, seen = (
        adapter_for(kind, {}).relay(Head(endpoint=Endpoint.CHAT, model="m", stream=True)),
        _wire(kind),
        b"",
    )

    def read() -> None:
        nonlocal seen
        for at in range(0, len(wire), size):
            seen += relay.feed(wire[at : at + size])
        relay.close()

    with pytest.raises(UpstreamError, match="Busy"):
        read()
    assert b'"one "' in seen
    assert b'"two"' in seen
    assert b"Busy" not in seen
    assert (relay.frames, relay.text_bytes) == (2, len("one two"))
