"""The answer to "how many tokens is this prompt?" where the provider offers no such call: an estimate, never billed."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from conduit.proxy.dialects.base import Inbound
from providers.adapters.estimate import tokens_in
from providers.adapters.types import (
    Audio,
    ChatRequest,
    Document,
    Image,
    Message,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    ServerTool,
    Text,
    ToolCall,
    ToolResult,
)

PER_MESSAGE = 4  # tokens that frame a turn in every provider's prompt format
PER_PROMPT = 3  # what primes the answer, by OpenAI's published way of counting
PER_IMAGE = 1600  # Anthropic's figure for a full-size picture, the dearest of the three
BYTES_PER_TOKEN_OF_MEDIA = 32  # compressed audio and documents
_json = msgspec.json.Encoder()


def prompt_tokens(request: ChatRequest) -> int:
    """Estimated input tokens of messages and tools together, at least 1."""
    total = PER_PROMPT + sum(_message(message) for message in request.messages)
    for tool in request.tools:
        total += tokens_in(_json.encode(tool.raw if isinstance(tool, ServerTool) else tool))
    return max(1, total)


def prompts_tokens(prompts: Sequence[str | Sequence[int]]) -> int:
    """The same for prompts that are no conversations: texts, or tokens that need no estimate."""
    frame = PER_PROMPT + PER_MESSAGE
    return sum([frame + (tokens_in(prompt) if isinstance(prompt, str) else len(prompt)) for prompt in prompts])


def estimated_prompt(inbound: Inbound) -> int:
    """Of any request: the body's bytes count where nothing better is known."""
    if inbound.estimate is not None:
        return inbound.estimate()
    request = inbound.canonical()
    return prompt_tokens(request) if isinstance(request, ChatRequest) else tokens_in(inbound.body)


def _message(message: Message) -> int:
    return PER_MESSAGE + sum(_part(part) for part in message.parts)


def _part(part: Part) -> int:
    if isinstance(part, Text | Refusal):
        return tokens_in(part.text)
    if isinstance(part, ToolCall):
        return tokens_in(part.name) + tokens_in(part.arguments)
    if isinstance(part, ToolResult):
        return sum(_part(inner) for inner in part.parts)
    if isinstance(part, Reasoning):
        return tokens_in(part.text) + tokens_in(part.redacted)
    if isinstance(part, Opaque):
        return tokens_in(_json.encode(part.raw))
    return _media(part)


def _media(part: Image | Audio | Document) -> int:
    if isinstance(part, Image):
        return PER_IMAGE
    if isinstance(part, Document) and part.text:
        return tokens_in(part.text)
    return max(1, len(part.source.data) * 3 // 4 // BYTES_PER_TOKEN_OF_MEDIA)
