"""Gemini's stream relayed as it is, with an eye on usage, errors and the finish of every candidate."""

from __future__ import annotations

import re

from providers.adapters.counts import checked
from providers.adapters.frame_text import JSON_ENDS, string_size
from providers.adapters.gemini_response import read_answer, usage_of
from providers.adapters.gemini_stream import FRAME_LIMIT, later_usage
from providers.adapters.relaying import FrameRelay
from providers.adapters.sse import SSEReader
from providers.adapters.types import Usage

_TOTALS = re.compile(rb'"(?:promptTokenCount|candidatesTokenCount|thoughtsTokenCount)"\s*:\s*(\d{1,9})(?!\d)')
_SAYS = re.compile(
    rb'"(?:text"\s*:\s*"[^"]|functionCall"|inlineData"|fileData"|executableCode"|codeExecutionResult"|toolCall"|toolResponse")'
)


class GeminiRelay(FrameRelay):
    """Frames go through untouched. Usage is in nearly all of them: only the last one is read, when asked for."""

    def __init__(self, choices: int) -> None:
        super().__init__(FRAME_LIMIT)
        self._choices = choices
        self._finished: set[int] = set()
        self._metered = b""  # the last frame with usage that was not read yet
        self._totals = 0  # the largest sum of input and output tokens so far
        self._grounded: list[bytes] = []  # frames that also tell of searches, or of larger totals
        self._usage: Usage | None = None

    @property
    def usage(self) -> Usage | None:
        for frame in (*self._grounded, self._metered):
            for data in _events(frame):
                usage = usage_of(read_answer(data))
                if usage is not None:
                    self._usage = later_usage(self._usage, usage)
        self._grounded.clear()
        self._metered = b""
        return checked(self._usage, generated=self.ended and self.frames > 0) if self._usage is not None else None

    def _frame(self, frame: bytes) -> bytes:
        # Quotation marks inside JSON text are escaped: only names match, be they of a tool's arguments.
        if (
            b'"finishReason"' in frame
            or b'"error"' in frame
            or b'"blockReason"' in frame
            or not frame.endswith(JSON_ENDS)
        ):
            self._note(frame)
        self._measure(frame)
        return frame

    def _measure(self, frame: bytes) -> None:
        if b'"usageMetadata"' in frame:
            totals = sum(map(int, _TOTALS.findall(frame)))
            if totals < self._totals:  # totals that shrink: the frame before this one counts too
                self._grounded.append(self._metered)
            self._totals = max(totals, self._totals)
            self._metered = frame
            if b'"webSearchQueries"' in frame:
                self._grounded.append(frame)
        if b'"parts"' not in frame:
            return
        size = string_size(frame, b'"text"')
        if size > 0 or _SAYS.search(frame):  # not where there is but a signature, or an empty text at the end
            self.frames += 1
            self.text_bytes += size if size > 0 else len(frame) >> 1  # a call or media: about what its JSON takes

    def _note(self, frame: bytes) -> None:
        for data in _events(frame):
            wire = read_answer(data)
            self._finished |= {candidate.index for candidate in wire.candidates or () if candidate.finish_reason}
            if wire.prompt_feedback is not None and wire.prompt_feedback.block_reason:
                self._finished.update(range(self._choices))
        self.ended = len(self._finished) >= self._choices


def _events(frame: bytes) -> list[bytes]:
    reader = SSEReader(FRAME_LIMIT)
    return [event.data for event in (*reader.feed(frame), *reader.close())]
