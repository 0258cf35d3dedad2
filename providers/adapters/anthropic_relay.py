"""Anthropic's event stream relayed as it is, with an eye on usage, errors and the end marker."""

from __future__ import annotations

from providers.adapters.anthropic_response import decoded, in_band_error
from providers.adapters.anthropic_stream import CumulativeUsage, event_decoder
from providers.adapters.frame_text import JSON_ENDS, string_size
from providers.adapters.relaying import FrameRelay
from providers.adapters.sse import LINE_LIMIT, SSEReader
from providers.adapters.types import Usage

_TEXTS = (b'"text"', b'"thinking"', b'"partial_json"')


class AnthropicRelay(FrameRelay):
    """Frames go through untouched; only the few that are not content are read."""

    def __init__(self) -> None:
        super().__init__(LINE_LIMIT)
        self._cumulative = CumulativeUsage()

    @property
    def usage(self) -> Usage | None:
        return self._cumulative.total(generated=self.ended and self.frames > 0)

    def _frame(self, frame: bytes) -> bytes:
        # A quotation mark inside JSON text is escaped, so this can only be the event's own type.
        if b'"content_block_delta"' not in frame or not frame.endswith(JSON_ENDS):
            self._note(frame)
            return frame
        for name in _TEXTS:  # signatures, citations and the empty pieces that begin a call are not generated text
            size = string_size(frame, name)
            if size > 0:
                self.frames += 1
                self.text_bytes += size
                break
        return frame

    def _note(self, frame: bytes) -> None:
        reader = SSEReader()
        for found in (*reader.feed(frame), *reader.close()):
            event = decoded(event_decoder, found.data)
            if event.type == "error":
                raise in_band_error(event.error)
            if event.type == "message_start" and event.message is not None:
                self._cumulative.add(event.message.usage)
            elif event.type == "message_delta":
                self._cumulative.add(event.usage)
            elif event.type == "message_stop":
                self.ended = True
