"""Sealed thoughts in conversations that change their vendor.

A vendor signs or encrypts what its model thought, and wants it back unchanged; another vendor refuses it. So a seal
that goes to a client in a dialect which is not its maker's own is marked with the maker, and on its way back it reaches
that maker only: anybody else's request goes without it, and says so. A seal without a mark belongs to the vendor whose
dialect the client speaks. The thought's text stays.

    Seals(dialect, target)     for what a client of this dialect asks of this target
      .events(…) .response(…)  marks what its provider sealed
      .request(…)              a canonical request for it, and the names of what was left out
      .body(…)                 the same for a body that is relayed as it came
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from conduit.proxy.dialects.anthropic_wire import CALL_SIGNATURE
from conduit.proxy.dialects.gemini_signatures import unwrapped
from conduit.proxy.dialects.responses_reasoning import REDACTED
from providers.adapters.events import ReasoningDelta, StreamEvent, ToolStarted
from providers.adapters.gemini_content import unsigned_call
from providers.adapters.types import (
    ChatRequest,
    ChatResponse,
    Dialect,
    EmbeddingRequest,
    Message,
    Part,
    Reasoning,
    ToolCall,
)
from providers.routing import TargetEntry

MARK = "conduit-seal."
# Who made what is not marked: (of thoughts, of tool calls). Chat completions' `extra_content` is Google's.
_HOME = {
    Dialect.OPENAI: ("openrouter", "google"),
    Dialect.RESPONSES: ("openai", "google"),
    Dialect.ANTHROPIC: ("anthropic", ""),
    Dialect.GEMINI: ("google", "google"),
}
_THOUGHT, _OF_THOUGHT, _OF_CALL = "messages.reasoning", "messages.reasoning.signature", "messages.tool_call.signature"
# A body that may hold a mark (in Gemini's dialect it lies wrapped in base64), or an Anthropic thought of nobody's.
_TRACES = (MARK.encode(), b"Y2R0OnM6", b"Y2R0OnI6")
# As dialects wrap what their own fields have no place for: the seal of a call, and of a thought that is only sealed.
_MARKED = re.compile(rf"(?:{re.escape(CALL_SIGNATURE)}|{REDACTED})?({re.escape(MARK)}.*)", re.DOTALL)
_UNSIGNED = re.compile(rb'"signature"\s*:\s*""')
_THOUGHTS = frozenset({"signature", "data", "encrypted_content"})
_CALLS = frozenset({"thought_signature", "thoughtSignature"})
Sealed = TypeVar("Sealed", bound=Reasoning | ReasoningDelta | ToolCall | ToolStarted)


class Seals:
    def __init__(self, dialect: Dialect, target: TargetEntry) -> None:
        self._maker = target.sealer
        self._stand_in = unsigned_call(target.model) if dialect is Dialect.GEMINI else ""
        self._thoughts, self._calls = _HOME.get(dialect, ("", ""))

    # --- to the client

    def events(self, events: list[StreamEvent]) -> list[StreamEvent]:
        return [self._marked(event) if isinstance(event, ReasoningDelta | ToolStarted) else event for event in events]

    def response(self, response: ChatResponse) -> ChatResponse:
        choices = tuple(
            msgspec.structs.replace(
                choice,
                parts=tuple(
                    self._marked(part) if isinstance(part, Reasoning | ToolCall) else part for part in choice.parts
                ),
            )
            for choice in response.choices
        )
        return msgspec.structs.replace(response, choices=choices)

    def _marked(self, part: Sealed) -> Sealed:
        home = self._thoughts if isinstance(part, Reasoning | ReasoningDelta) else self._calls
        if home == self._maker:
            return part
        sealed = {name: f"{MARK}{self._maker}.{seal}" for name, seal in _seals(part).items()}
        return msgspec.structs.replace(part, **sealed) if sealed else part

    # --- to the provider

    def request(
        self, request: ChatRequest | EmbeddingRequest
    ) -> tuple[ChatRequest | EmbeddingRequest, tuple[str, ...]]:
        if isinstance(request, EmbeddingRequest):
            return request, ()
        if not any(_is_sealed(part) for message in request.messages for part in message.parts):
            return request, ()
        lost: dict[str, None] = {}
        messages = tuple(
            kept for message in request.messages if (kept := self._message(message, lost)).parts or not message.parts
        )
        return msgspec.structs.replace(request, messages=messages), tuple(lost)

    def _message(self, message: Message, lost: dict[str, None]) -> Message:
        parts: list[Part] = []
        for part in message.parts:
            if not isinstance(part, Reasoning | ToolCall):
                parts.append(part)
                continue
            own = self._own(part, lost)
            if isinstance(own, ToolCall) or own.text or _is_sealed(own):
                parts.append(own)
        return msgspec.structs.replace(message, parts=tuple(parts))

    def _own(self, part: Reasoning | ToolCall, lost: dict[str, None]) -> Reasoning | ToolCall:
        """As its maker gave it; without the seal for anybody else."""
        thought = isinstance(part, Reasoning)
        kept: dict[str, str] = {}
        for name, seal in _seals(part).items():
            kept[name] = self._opened(seal, self._thoughts if thought else self._calls)
            if not kept[name]:
                lost[_OF_THOUGHT if thought else _OF_CALL] = None
        return msgspec.structs.replace(part, **kept) if kept else part

    def _opened(self, seal: str, home: str) -> str:
        """The seal as it was made, or nothing where another vendor made it."""
        if seal.startswith(MARK):
            maker, _, bare = seal.removeprefix(MARK).partition(".")
            return bare if maker == self._maker else ""
        return seal if home == self._maker else ""

    def body(self, body: bytes) -> tuple[bytes, tuple[str, ...]]:
        """Without marked seals of others; those that are not marked are the provider's own, for it speaks the
        dialect. A thought that is only sealed, or that counts for nothing without its seal, goes with it."""
        if not any(trace in body for trace in _TRACES) and not _UNSIGNED.search(body):
            return body, ()
        lost: dict[str, None] = {}
        found = self._cleaned(msgspec.json.decode(body), lost)
        return (msgspec.json.encode(found), tuple(lost)) if found is not _GONE else (body, ())

    def _cleaned(self, value: Any, lost: dict[str, None]) -> Any:
        if isinstance(value, list):
            return [clean for one in value if (clean := self._cleaned(one, lost)) is not _GONE]
        if not isinstance(value, dict):
            return value
        if value.get("type") == "thinking" and value.get("signature") == "":
            lost[_THOUGHT] = None
            return _GONE
        kept: dict[str, Any] = {}
        for name, one in value.items():
            if isinstance(one, str) and name in _CALLS | _THOUGHTS and (bare := self._bare(one)) != one:
                lost[_OF_CALL if name in _CALLS else _OF_THOUGHT] = None
                if not bare and name in _THOUGHTS:
                    return _GONE
                if bare or (self._stand_in and "functionCall" in value):
                    kept[name] = bare or self._stand_in
            elif (clean := self._cleaned(one, lost)) is not _GONE:
                kept[name] = clean
        return kept

    def _bare(self, text: str) -> str:
        """As the provider takes it: unchanged, without our mark, or nothing."""
        signature, redacted = unwrapped(text)
        found = _MARKED.match(signature or redacted)
        return text if found is None else self._opened(found[1], "")


_GONE: Any = object()


def _seals(part: Reasoning | ReasoningDelta | ToolCall | ToolStarted) -> Mapping[str, str]:
    found = {"signature": part.signature, "redacted": getattr(part, "redacted", "")}
    return {name: seal for name, seal in found.items() if seal}


def _is_sealed(part: Part) -> bool:
    return isinstance(part, Reasoning | ToolCall) and bool(_seals(part))
