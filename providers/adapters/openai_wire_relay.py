"""Streams of OpenAI's wire format passed on as they are, with an eye on usage, errors and the end marker.

The usual frame costs a handful of substring searches and no JSON. A frame is read properly only when it may hold usage,
an error or `[DONE]`: JSON escapes quotes inside texts, so `"usage"` with its quotes cannot be generated text.
"""

from __future__ import annotations

import re

import msgspec

from providers.adapters.counts import checked
from providers.adapters.frame_text import JSON_ENDS
from providers.adapters.openai_wire import error_in, later_usage, refusal_in_answer
from providers.adapters.openai_wire_answer import ABSENT, FAULTS, usage_or_none
from providers.adapters.openai_wire_stream import DONE, STREAM_LIMIT
from providers.adapters.relaying import FrameRelay
from providers.adapters.sse import SSEReader
from providers.adapters.types import Usage
from providers.errors import InvalidResponse

_CONTENT = b'"content":"'
_TEXTS = re.compile(
    rb'"(?:content|arguments|refusal|reasoning_content|reasoning|transcript)"\s*:\s*"((?:[^"\\]|\\.)+)"', re.DOTALL
)
_COMPLETION_TEXT = re.compile(rb'"text"\s*:\s*"((?:[^"\\]|\\.)+)"', re.DOTALL)
_MEDIA = re.compile(rb'"(?:data|url)"\s*:\s*"[^"]')
_STREAM_STARTS = (b"data", b"event", b"id", b"retry", b":", b"\n", b"\r", b"\xef\xbb\xbf")


class _Noted(msgspec.Struct):
    """The members of a chunk that the relay acts on; numbers inside `choices` and `usage` are not looked at yet."""

    choices: msgspec.Raw = ABSENT
    usage: msgspec.Raw = ABSENT
    error: msgspec.Raw = ABSENT


_noted = msgspec.json.Decoder(_Noted)


class OpenAIFrames(FrameRelay):
    """What the relays of all of OpenAI's endpoints do alike: nothing passes that is no stream, nor behind the end."""

    __slots__ = ("_first", "usage")

    def __init__(self) -> None:
        super().__init__(STREAM_LIMIT)
        self.usage: Usage | None = None
        self._first = True

    def close(self) -> bytes:
        relayed = super().close()
        if self.usage is not None:
            self.usage = checked(self.usage, generated=self.frames > 0)
        return relayed

    def _rest(self, rest: bytes) -> bytes:
        """A last frame without its blank line is completed, so that the client's parser sees it too."""
        if self.ended or not rest.strip():
            return b""
        if self._first:
            self._begin(rest)
        relayed = super()._rest(rest)
        return relayed.rstrip(b"\r\n") + b"\n\n" if relayed else b""

    def _begin(self, frame: bytes) -> None:
        """Raises what a body tells that came in place of a stream."""
        self._first = False
        if not frame.startswith(_STREAM_STARTS):
            raise error_in(frame)


class OpenAIRelay(OpenAIFrames):
    """`keep_usage` is False when the client did not ask for usage: the frame that holds nothing else is left out."""

    __slots__ = ("_keep_usage",)
    texts = _TEXTS

    def __init__(self, *, keep_usage: bool) -> None:
        super().__init__()
        self._keep_usage = keep_usage

    def _frame(self, frame: bytes) -> bytes:
        if self._first:
            self._begin(frame)
        if self.ended:
            return b""
        usage_at = frame.find(b'"usage"')
        if (
            (usage_at >= 0 and not frame.startswith(b'"usage":null', usage_at))
            or b'"error"' in frame
            or DONE in frame
            or frame.startswith(b"event: error")
            or not frame.endswith(JSON_ENDS)  # a comment, or an event that is torn
        ) and not self._relayed(frame):
            return b""
        begin = frame.find(_CONTENT) + 11
        if begin > 10:
            end = frame.find(b'"', begin)
            if end == begin or frame[end - 1] == 92:  # the first chunk's empty content, or content beside a tool call
                self._measure(frame)
            else:
                self.text_bytes += end - begin
                self.frames += 1
        else:
            self._measure(frame)
        return frame

    def _measure(self, frame: bytes) -> None:
        """Texts the quick look does not find: with quotes inside, tool arguments, reasoning, transcripts."""
        size = sum([len(text) for text in self.texts.findall(frame)])
        if size or _MEDIA.search(frame):
            self.frames += 1
            self.text_bytes += size

    def _relayed(self, frame: bytes) -> bool:
        """Reads a frame that may matter. False when it is for us alone."""
        reader = SSEReader(STREAM_LIMIT)
        for event in (*reader.feed(frame), *reader.close()):
            data = event.data
            if data.strip() == DONE:
                self.ended = True
                return True
            if event.event == "error":
                raise error_in(data)
            try:
                noted = _noted.decode(data)
            except FAULTS:
                raise InvalidResponse("The provider's stream has an event that is not a chunk.") from None
            if error := _value(noted.error):
                raise refusal_in_answer(error)
            usage = usage_or_none(_value(noted.usage))
            if usage is not None:
                self.usage = later_usage(self.usage, usage)
                if not self._keep_usage and _is_empty(noted.choices):
                    return False
        return True


class CompletionRelay(OpenAIRelay):
    """Streams of /v1/completions, whose choices carry `text`."""

    __slots__ = ()
    texts = _COMPLETION_TEXT


def _value(raw: msgspec.Raw) -> object:
    """Any JSON value; one whose numbers fit nowhere counts as text, which usage_or_none flags."""
    try:
        return msgspec.json.decode(raw)
    except FAULTS:
        return bytes(memoryview(raw)).decode("utf-8", "replace")


def _is_empty(choices: msgspec.Raw) -> bool:
    return not _value(choices)
