"""Prompts that a model's context window surely cannot hold are refused before anybody is called (B13).

A false refusal is worse than a late one, so only the LOWER bound of a prompt's tokens counts here, not the estimate:

- a word (a run of non-blanks with a letter or a digit in it) is at least one token: byte-level BPE and SentencePiece
  vocabularies split at blanks, and no token of theirs holds letters or digits of two words;
- a token holds at most LETTERS_PER_TOKEN characters, once runs of the same character are shortened: what text of any
  script is measured at is half of that at most, and only runs (blanks, dashes, zeros) have longer tokens.

Counted is the text of the messages. Media, tools and reasoning sent back are left out: how each provider counts those,
or leaves them out, is its own affair.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import msgspec

from conduit.proxy import errors
from conduit.proxy.call import Call
from conduit.proxy.dialects.base import Inbound
from conduit.proxy.dialects.prompt_tokens import prompt_tokens
from conduit.proxy.errors import ApiError
from conduit.proxy.worst_case import window_of
from providers.adapters.types import ChatRequest, Dialect, Endpoint, Part, Refusal, Text, ToolCall, ToolResult
from providers.routing import TargetEntry

LETTERS_PER_TOKEN = 8
_WORD = re.compile(r"[^\W_]\S*")
_RUNS = re.compile(r"(.)\1{3,}", re.DOTALL)


def check(call: Call, target: TargetEntry) -> None:
    """Raises ApiError 400 for a prompt that is surely longer than the target's window; another one may be larger."""
    window = window_of(target, beta_of(call))
    if window is None or len(call.body) <= 2 * window:  # a word and the blank behind it are two bytes
        return
    assert call.inbound is not None
    if call.least_tokens is None:
        call.least_tokens = _least(call.inbound)
    least = call.least_tokens
    if least <= window:
        return
    line = {"check": "context", "ok": False, "provider": target.provider.name, "model": target.model}
    call.trace.append({**line, "window": window, "at_least": least})
    request = call.inbound.canonical()
    assert isinstance(request, ChatRequest)
    estimate, cap = max(least, prompt_tokens(request)), call.inbound.head.max_output_tokens
    words = _WORDS.get(call.path.dialect, _openai)
    field = _FIELDS.get(call.path.endpoint, "messages")
    raise errors.context_length_exceeded(words(target.model, window, estimate, cap), field)


def cap_within(window: int | None, most_input: int, cap: int, *, least: int) -> int:
    """A cap that nobody asked for leaves room for the prompt: a provider refuses what does not fit together.

    `most_input` bounds the prompt's tokens by its bytes; text has three bytes a token or more.
    """
    if window is None:
        return cap
    return max(min(cap, window - most_input // 3), min(cap, least))


def beta_of(call: Call) -> str:
    """The client's `anthropic-beta` header; empty without one."""
    return call.headers.get(b"anthropic-beta", b"").decode("latin-1")


# --- the lower bound


def least_tokens(text: str) -> int:
    """Tokens that every tokenizer makes of this text at least."""
    words = len(_WORD.findall(text))
    if len(text) // LETTERS_PER_TOKEN <= words:
        return words
    return max(words, len(_RUNS.sub(r"\1\1\1", text)) // LETTERS_PER_TOKEN)


def _least(inbound: Inbound) -> int:
    """0 where it cannot be told: nothing is refused then."""
    if _shortens(inbound):
        return 0
    try:
        request = inbound.canonical()
    except ApiError:  # a body that only its own dialect can carry
        return 0
    if not isinstance(request, ChatRequest):  # providers cut what is too long to embed
        return 0
    return sum(least_tokens(text) for message in request.messages for part in message.parts for text in _texts(part))


def _texts(part: Part) -> Iterator[str]:
    if isinstance(part, Text | Refusal):
        yield part.text
    elif isinstance(part, ToolCall):
        yield part.arguments
    elif isinstance(part, ToolResult):
        for inner in part.parts:
            yield from _texts(inner)


class _Truncation(msgspec.Struct):
    truncation: str | None = None
    transforms: list[str] | None = None
    context_management: msgspec.Raw | None = None


_truncation = msgspec.json.Decoder(_Truncation)


def _shortens(inbound: Inbound) -> bool:
    """Whether the client asked the provider to leave out what is too much: OpenAI's `truncation`, OpenRouter's
    `transforms`, Anthropic's `context_management`."""
    try:
        asked = _truncation.decode(inbound.body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return asked.truncation == "auto" or bool(asked.transforms) or asked.context_management is not None


# --- in each dialect's words, by which clients tell it from other refusals


def _openai(model: str, window: int, tokens: int, cap: int | None) -> str:
    answer = f" and {cap} for the answer" if cap is not None else ""
    return (
        f"This model's maximum context length is {window} tokens. However, your messages have about {tokens} tokens"
        f"{answer}, by the gateway's estimate for {model}. Shorten them, or use a model with a larger context window."
    )


def _anthropic(model: str, window: int, tokens: int, cap: int | None) -> str:
    answer = f", and max_tokens is {cap}" if cap is not None else ""
    return f"prompt is too long: {tokens} tokens > {window} maximum (the gateway's estimate for {model}{answer})"


def _gemini(model: str, window: int, tokens: int, cap: int | None) -> str:
    answer = f", and maxOutputTokens is {cap}" if cap is not None else ""
    return (
        f"The input token count ({tokens}) exceeds the maximum number of tokens allowed ({window}). It is the "
        f"gateway's estimate for {model}{answer}."
    )


_FIELDS = {Endpoint.COMPLETIONS: "prompt", Endpoint.RESPONSES: "input", Endpoint.GENERATE: "contents"}
_WORDS: dict[Dialect, Callable[[str, int, int, int | None], str]] = {
    Dialect.ANTHROPIC: _anthropic,
    Dialect.GEMINI: _gemini,
}
