"""Anthropic's event stream relayed as it is, with an eye on usage, errors and the end marker."""

from __future__ import annotations

from providers.adapters.anthropic_response import decoded, in_band_error
from providers.adapters.anthropic_stream import CumulativeUsage, event_decoder
from providers.adapters.frame_text import JSON_ENDS, string_size
from providers.adapters.sse import FrameSplitter, SSEReader
from providers.adapters.types import Usage
from providers.errors import InvalidResponse, UpstreamCut, UpstreamError

_CUT = "The provider's stream broke off before its end marker."
_TEXTS = (b'"text"', b'"thinking"', b'"partial_json"')


class AnthropicRelay:
    """Frames go through untouched; only the few that are not content are read."""

    def __init__(self) -> None:
        self.ended = False
        self.frames = 0
        self.text_bytes = 0
        self._splitter = FrameSplitter()
        self._cumulative = CumulativeUsage()
        self._error: UpstreamError | None = None

    @property
    def usage(self) -> Usage | None:
        return self._cumulative.total(generated=self.ended and self.frames > 0)

    @usage.setter
    def usage(self, value: Usage | None) -> None:
        raise AttributeError("usage is what the provider said")

    def feed(self, data: bytes) -> bytes:
        if self._error is not None:
            raise self._error
        frames = self._splitter.feed(data)
        if (
            len(frames) == 1 and b'"content_block_delta"' in frames[0] and frames[0].endswith(JSON_ENDS)
        ):  # the ordinary case
            self._content(frames[0])
            return frames[0]
        return self._relayed(frames)

    def close(self) -> bytes:
        if self._error is not None:
            raise self._error
        rest = self._splitter.close()
        try:
            out = self._relayed([rest]) if rest.strip() else rest
        except InvalidResponse as error:  # half a frame
            raise UpstreamCut(_CUT) from error
        if not self.ended:
            raise UpstreamCut(_CUT)
        return out

    def _relayed(self, frames: list[bytes]) -> bytes:
        out: list[bytes] = []
        try:
            for frame in frames:
                # A quotation mark inside JSON text is escaped, so this can only be the event's own type.
                if b'"content_block_delta"' in frame and frame.endswith(JSON_ENDS):
                    self._content(frame)
                else:
                    self._note(frame)
                out.append(frame)
        except UpstreamError as error:
            if not out:
                raise
            self._error = error
        return b"".join(out)

    def _content(self, frame: bytes) -> None:
        self.frames += 1
        for name in _TEXTS:
            size = string_size(frame, name)
            if size >= 0:
                self.text_bytes += size
                return

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
