"""Streams of OpenAI's Responses API passed on as they are, with an eye on usage, errors and the end.

The usual event costs a handful of substring searches and no JSON. It is read properly only when it may be an error or
the last one: JSON escapes quotes inside texts, so the quoted words below cannot be generated text.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from providers.adapters.frame_text import JSON_ENDS
from providers.adapters.openai_responses_answer import failure_at_end, usage_at_end
from providers.adapters.openai_wire import refusal_in_answer
from providers.adapters.openai_wire_answer import ABSENT, FAULTS
from providers.adapters.openai_wire_relay import OpenAIFrames
from providers.adapters.openai_wire_stream import STREAM_LIMIT
from providers.adapters.sse import SSEReader
from providers.errors import InvalidResponse, UpstreamError

ENDS = ("response.completed", "response.incomplete")
_NOTABLE = (b'"response.completed"', b'"response.incomplete"', b'"response.failed"', b'"error"')
_DELTA = re.compile(rb'"delta"\s*:\s*"((?:[^"\\]|\\.)+)"', re.DOTALL)
_MEDIA = re.compile(rb'"(?:partial_image_b64|result)"\s*:\s*"[^"]')
_NUMBER = re.compile(rb'"sequence_number"\s*:\s*(\d{1,15})')
_SUMMARY = b'"response.reasoning_summary_text.delta"'  # a retelling: it need not cost a token of the answer


class Noted(msgspec.Struct):
    """The members of an event that say how things stand. An error is an object of its own or this event itself."""

    type: str = ""
    response: msgspec.Raw = ABSENT  # a number in it may fit nowhere
    error: Any = None
    code: Any = None
    message: Any = None
    param: Any = None

    def failure(self) -> UpstreamError | None:
        if self.type == "error":
            own = {"code": self.code, "message": self.message, "param": self.param}
            return refusal_in_answer(self.error or own)
        if self.type == "response.failed":
            return failure_at_end(self.response)
        return refusal_in_answer(self.error) if self.error and not self.type else None


_noted = msgspec.json.Decoder(Noted)


class ResponsesRelay(OpenAIFrames):
    __slots__ = ("_last",)

    def __init__(self) -> None:
        super().__init__()
        self._last = b""  # the event relayed last, looked into only when the stream breaks

    def next_number(self) -> int:
        found = _NUMBER.search(self._last)
        return int(found[1]) + 1 if found else 0

    def _frame(self, frame: bytes) -> bytes:
        if self._first:
            self._begin(frame)
        if self.ended:
            return b""
        event = frame.endswith(JSON_ENDS)
        if not event or any(word in frame for word in _NOTABLE):
            self._read(frame)
            if self.ended:  # it repeats the whole answer
                return frame
        if event:
            self._last = frame
        delta = _DELTA.search(frame)
        if delta is not None:
            self.text_bytes += delta.end(1) - delta.start(1)
            self.frames += _SUMMARY not in frame
        elif _MEDIA.search(frame):
            self.frames += 1
        return frame

    def _read(self, frame: bytes) -> None:
        """An event that may matter."""
        reader = SSEReader(STREAM_LIMIT)
        for event in (*reader.feed(frame), *reader.close()):
            try:
                noted = _noted.decode(event.data)
            except FAULTS:
                raise InvalidResponse("The provider's stream has an event that is none of its API.") from None
            failure = noted.failure()
            if failure is not None:
                self.usage = failure.usage or self.usage
                raise failure
            if noted.type in ENDS:
                self.ended = True
                self.usage = usage_at_end(noted.response)
