"""What every relay does alike: whole frames out of bytes, an error behind good ones kept back, a cut told apart."""

from __future__ import annotations

from abc import ABC, abstractmethod

from providers.adapters.parsing import CUT
from providers.adapters.sse import FrameSplitter
from providers.errors import InvalidResponse, UpstreamCut, UpstreamError


class FrameRelay(ABC):
    """A Relay that passes one frame after another. An error behind good frames of the same piece is raised by the next
    call: those frames still count. A wire format sets `ended` once its end marker was relayed, and counts `frames` and
    `text_bytes`."""

    __slots__ = ("_error", "_splitter", "ended", "frames", "text_bytes")

    def __init__(self, limit: int) -> None:
        self.ended = False
        self.frames = 0
        self.text_bytes = 0
        self._splitter = FrameSplitter(limit)
        self._error: UpstreamError | None = None

    def feed(self, data: bytes) -> bytes:
        if self._error is not None:
            raise self._error
        frames = self._splitter.feed(data)
        if len(frames) == 1:  # the ordinary case
            return self._frame(frames[0])
        out: list[bytes] = []
        try:
            for frame in frames:
                out.append(self._frame(frame))
        except UpstreamError as error:
            if not any(out):
                raise
            self._error = error
        return b"".join(out)

    def close(self) -> bytes:
        if self._error is not None:
            raise self._error
        relayed = self._rest(self._splitter.close())
        if not self.ended:
            raise UpstreamCut(CUT)
        return relayed

    def _rest(self, rest: bytes) -> bytes:
        """What came behind the last whole frame, for the client. Raises UpstreamCut when it is half a frame."""
        try:
            return self._frame(rest) if rest.strip() else rest
        except InvalidResponse as error:
            raise UpstreamCut(CUT) from error

    @abstractmethod
    def _frame(self, frame: bytes) -> bytes:
        """What the client gets of it. Raises UpstreamError before any of a frame that tells an error is relayed."""
