"""What every stream parser does alike: pieces out of bytes, events out of pieces, and a broken stream told apart."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Generic, Protocol, TypeVar

from providers.adapters.events import Finished, Started, StreamEvent, UsageSeen
from providers.errors import InvalidResponse, UpstreamCut, UpstreamError

CUT = "The provider's stream ended before its end marker."
_SILENT = (Started, Finished, UsageSeen)  # events that carry nothing generated
Piece = TypeVar("Piece")
Given = TypeVar("Given", covariant=True)


class Reader(Protocol[Given]):
    """Bytes in any cuts -> the whole pieces of a wire format: events, lines or frames.

    `close` gives what the end of the stream makes whole. Both raise InvalidResponse for what is no piece.
    """

    def feed(self, data: bytes) -> Iterable[Given]: ...

    def close(self) -> Iterable[Given]: ...


class PieceParser(ABC, Generic[Piece]):
    """A StreamParser that adds the events of one piece after another.

    Raises UpstreamRefusal for an error in the stream, InvalidResponse for what is no piece of it, UpstreamCut on close
    when its end never came or the last piece is torn. An error behind good pieces is raised by the next call: how the
    bytes were cut changes nothing. A wire format sets `_ended` once the answer is whole, and `_generated` once any of
    it was generated.
    """

    def __init__(self, reader: Reader[Piece]) -> None:
        self._reader = reader
        self._started = False
        self._ended = False
        self._generated = False
        self._error: UpstreamError | None = None

    def feed(self, data: bytes) -> list[StreamEvent]:
        if self._error is not None:
            raise self._error
        events: list[StreamEvent] = []
        try:
            for piece in self._reader.feed(data):
                self._read(piece, events)
        except UpstreamError as error:
            self._error = error
            if not events:
                raise
        return events

    def close(self) -> list[StreamEvent]:
        if self._error is not None:
            raise self._error
        events: list[StreamEvent] = []
        try:
            for piece in self._reader.close():
                self._read(piece, events)
        except InvalidResponse as error:  # half a piece
            raise UpstreamCut(CUT) from error
        if not self._ended:
            raise UpstreamCut(CUT)
        return events

    @abstractmethod
    def _read(self, piece: Piece, events: list[StreamEvent]) -> None:
        """Adds to `events`, which may hold those of earlier pieces. Raises UpstreamError."""


def says(events: list[StreamEvent]) -> bool:
    """Whether any of the events carries something generated."""
    return any(not isinstance(event, _SILENT) for event in events)
