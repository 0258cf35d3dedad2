"""What a stream parser yields and a stream renderer takes.

Order per choice: Started once first; then deltas; each tool call opens with ToolStarted before its ToolDelta; Finished
once per choice; UsageSeen any time (the last one counts); Ended once last. A broken stream has no Ended.
"""

from __future__ import annotations

import msgspec

from providers.adapters.types import Audio, Citation, Finish, Image, Opaque, TokenLogprob, Usage


class Started(msgspec.Struct, frozen=True):
    id: str
    model: str
    created: int = 0


class TextDelta(msgspec.Struct, frozen=True):
    text: str
    choice: int = 0
    logprobs: tuple[TokenLogprob, ...] | None = None


class RefusalDelta(msgspec.Struct, frozen=True):
    text: str
    choice: int = 0


class ReasoningDelta(msgspec.Struct, frozen=True):
    """Either visible text, or the closing `signature`, or one block of `redacted` data."""

    text: str = ""
    signature: str = ""
    redacted: str = ""
    choice: int = 0


class ToolStarted(msgspec.Struct, frozen=True):
    """`index` counts the tool calls of a choice from 0."""

    index: int
    id: str
    name: str
    choice: int = 0
    signature: str = ""


class ToolDelta(msgspec.Struct, frozen=True):
    index: int
    arguments: str
    choice: int = 0


class MediaDelta(msgspec.Struct, frozen=True):
    """A whole image or a piece of audio (base64) with its transcript so far."""

    part: Image | Audio
    choice: int = 0


class CitationSeen(msgspec.Struct, frozen=True):
    citation: Citation
    choice: int = 0


class OpaqueSeen(msgspec.Struct, frozen=True):
    """A whole block that only its own wire format knows."""

    part: Opaque
    choice: int = 0


class Finished(msgspec.Struct, frozen=True):
    finish: Finish
    choice: int = 0
    stop_sequence: str = ""


class UsageSeen(msgspec.Struct, frozen=True):
    usage: Usage


class Ended(msgspec.Struct, frozen=True):
    """The provider's own end marker was seen: the answer is whole."""


StreamEvent = (
    Started
    | TextDelta
    | RefusalDelta
    | ReasoningDelta
    | ToolStarted
    | ToolDelta
    | MediaDelta
    | CitationSeen
    | OpaqueSeen
    | Finished
    | UsageSeen
    | Ended
)
