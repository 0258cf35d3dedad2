"""`python -m bench.chunks [DIALECT-WIRE ...]`: microseconds of CPU that the pure part of a streamed chunk takes.

From the provider's bytes to the client's, one content chunk at a time as a model sends them: for each dialect over each
wire format the parser and the renderer, and the relay where both are the same. No sockets: the rest of what a chunk
costs (two sockets, the event loop) is measured by `make bench`. Each figure is the best of several rounds, so that other
work on the machine shows least; compare figures of one run only.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from time import process_time
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "conduit.settings")
django.setup(set_prefix=False)

from conduit.proxy.dialects.registry import DIALECTS  # noqa: E402 (after setup)
from conduit.proxy.streaming import Translation  # noqa: E402
from providers.adapters.anthropic import AnthropicAdapter  # noqa: E402
from providers.adapters.base import Adapter, Relay  # noqa: E402
from providers.adapters.gemini import GeminiAdapter  # noqa: E402
from providers.adapters.openai import OpenAIAdapter  # noqa: E402
from providers.adapters.types import ChatRequest, Dialect, Endpoint  # noqa: E402

CHUNKS, ROUNDS = 2000, 7
WORDS = [
    "sky",
    "blue",
    "light",
    "air",
    "short",
    "long",
    "wave",
    "scatter",
    "sun",
    "day",
    "eye",
    "more",
    "less",
    "than",
    "the",
    "why",
]


def _frame(body: dict[str, Any], event: str = "", end: str = "\n\n") -> bytes:
    name = f"event: {event}\n" if event else ""
    return f"{name}data: {json.dumps(body, separators=(',', ':'))}{end}".encode()


def _openai(word: str) -> bytes:
    choice = {"index": 0, "delta": {"content": f" {word}"}, "logprobs": None, "finish_reason": None}
    chunk = {"id": "chatcmpl-b", "object": "chat.completion.chunk", "created": 1760000000, "model": "gpt-4o-mini"}
    return _frame({**chunk, "system_fingerprint": "fp_bench", "choices": [choice]})


def _anthropic(word: str) -> bytes:
    delta = {"type": "text_delta", "text": f" {word}"}
    return _frame({"type": "content_block_delta", "index": 0, "delta": delta}, "content_block_delta")


def _gemini(word: str) -> bytes:
    usage = {"promptTokenCount": 31, "candidatesTokenCount": 7, "totalTokenCount": 38}
    candidate = {"content": {"parts": [{"text": f" {word}"}], "role": "model"}, "index": 0}
    body = {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "gemini-2.5", "responseId": "r"}
    return _frame(body, end="\r\n\r\n")


STARTS = {
    "openai": b"",
    "anthropic": _frame(
        {"type": "message_start", "message": {"id": "m", "usage": {"input_tokens": 3}}}, "message_start"
    )
    + _frame(
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        "content_block_start",
    ),
    "gemini": b"",
}
WIRES: dict[str, tuple[Adapter, Callable[[str], bytes]]] = {
    "openai": (OpenAIAdapter(), _openai),
    "anthropic": (AnthropicAdapter(), _anthropic),
    "gemini": (GeminiAdapter(), _gemini),
}
ASKED: dict[str, tuple[Endpoint, bytes, dict[str, Any]]] = {
    "openai": (Endpoint.CHAT, b'{"model":"m","stream":true,"messages":[{"role":"user","content":"why"}]}', {}),
    "anthropic": (
        Endpoint.MESSAGES,
        b'{"model":"m","stream":true,"max_tokens":99,"messages":[{"role":"user","content":"why"}]}',
        {},
    ),
    "gemini": (Endpoint.GENERATE, b'{"contents":[{"parts":[{"text":"why"}]}]}', {"model": "m", "stream": True}),
}


def relay(dialect: str, wire: str) -> Relay:
    """As the pipeline makes it for such a stream."""
    endpoint, body, more = ASKED[dialect]
    module = DIALECTS[Dialect(dialect)]
    inbound = module.parse(endpoint, body, **more)
    adapter = WIRES[wire][0]
    if (Dialect(dialect), endpoint) in adapter.native:
        return adapter.relay(inbound.head)
    request = inbound.canonical()
    assert isinstance(request, ChatRequest)
    return Translation(adapter.stream_parser(request), module.stream(inbound, "req_bench"))


def cost(dialect: str, wire: str) -> float:
    """Microseconds of CPU for a content chunk, best of ROUNDS."""
    chunks = [WIRES[wire][1](WORDS[number % len(WORDS)]) for number in range(CHUNKS)]
    best = float("inf")
    for _ in range(ROUNDS):
        one = relay(dialect, wire)
        one.feed(STARTS[wire])
        feed = one.feed
        began = process_time()
        for chunk in chunks:
            feed(chunk)
        best = min(best, process_time() - began)
    return best / CHUNKS * 1e6


def pairs() -> Iterator[tuple[str, str]]:
    for dialect in ASKED:
        for wire in WIRES:
            yield dialect, wire


def main(asked: list[str]) -> int:
    print(f"{'client':>10} {'provider':>10}  us/chunk")
    for dialect, wire in pairs():
        if not asked or f"{dialect}-{wire}" in asked:
            print(f"{dialect:>10} {wire:>10}  {cost(dialect, wire):8.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
