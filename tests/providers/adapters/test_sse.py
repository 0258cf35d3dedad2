"""The SSE reader and the frame splitter: the same result however the bytes arrive (testing.md U3, U8)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.adapters.sse import LINE_LIMIT, Event, FrameSplitter, SSEReader
from providers.errors import InvalidResponse

PLAIN = b'data: {"a":1}\n\nevent: delta\ndata: two\ndata: lines\n\ndata: [DONE]\n\n'
PLAIN_EVENTS = [Event("message", b'{"a":1}'), Event("delta", b"two\nlines"), Event("message", b"[DONE]")]


def read(pieces: list[bytes]) -> list[Event]:
    reader = SSEReader()
    events = [event for piece in pieces for event in reader.feed(piece)]
    return events + reader.close()


def feed_often(reader: SSEReader | FrameSplitter, piece: bytes, times: int) -> None:
    for _ in range(times):
        reader.feed(piece)


def halves(stream: bytes) -> list[list[bytes]]:
    return [[stream[:at], stream[at:]] for at in range(len(stream) + 1)]


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        pytest.param(PLAIN, PLAIN_EVENTS, id="line feeds"),
        pytest.param(PLAIN.replace(b"\n", b"\r\n"), PLAIN_EVENTS, id="carriage return and line feed"),
        pytest.param(PLAIN.replace(b"\n", b"\r"), PLAIN_EVENTS, id="carriage returns alone"),
        pytest.param(
            b"data: a\r\n\ndata: b\n\r\ndata: c\r\r\n", [("message", x) for x in (b"a", b"b", b"c")], id="mixed"
        ),
        pytest.param(b"\xef\xbb\xbf" + PLAIN, PLAIN_EVENTS, id="byte order mark"),
        pytest.param(b": ping\n\n:\n\n" + PLAIN, PLAIN_EVENTS, id="comments"),
        pytest.param(PLAIN[:-2], PLAIN_EVENTS, id="no final newline"),
        pytest.param(PLAIN[:-1], PLAIN_EVENTS, id="no final blank line"),
        pytest.param(b"data:no space\n\ndata:  two\n\n", [("message", b"no space"), ("message", b" two")], id="spaces"),
        pytest.param(b"data\n\n", [("message", b"")], id="a field without colon is empty"),
        pytest.param(b"event: lonely\n\ndata: x\n\n", [("message", b"x")], id="an event without data is none"),
        pytest.param(b"id: 7\nretry: 5\nother: y\ndata: x\n\n", [("message", b"x")], id="other fields"),
        pytest.param(b"", [], id="nothing"),
    ],
)
def test_events_are_the_same_wherever_the_stream_is_cut(stream: bytes, expected: list[tuple[str, bytes]]) -> None:
    assert read([stream]) == expected
    for pieces in halves(stream):
        assert read(pieces) == expected
    assert read([stream[at : at + 1] for at in range(len(stream))]) == expected


LINES = st.sampled_from(
    [b"data: x", b"data:", b"data: {}", b": c", b"event: e", b"", b"", b"id: 1", b"odd", "data: ü€".encode()]
)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


@given(st.lists(st.tuples(LINES, ENDS), max_size=12), st.lists(st.integers(0, 200), max_size=6))
def test_any_cuts_of_any_stream_give_what_the_whole_gives(lines: list[tuple[bytes, bytes]], cuts: list[int]) -> None:
    stream = b"".join([line + end for line, end in lines])
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    pieces = [stream[a:b] for a, b in zip(places, places[1:], strict=False)]
    assert read(pieces) == read([stream])
    splitter = FrameSplitter()
    frames = [frame for piece in pieces for frame in splitter.feed(piece)]
    assert b"".join(frames) + splitter.close() == stream
    assert [event for frame in frames for event in read([frame])] == read([b"".join(frames)])


def test_a_line_over_the_limit_is_refused_and_memory_stays_bounded() -> None:
    reader = SSEReader()
    with pytest.raises(InvalidResponse, match="line too long"):
        feed_often(reader, b"x" * (LINE_LIMIT // 10), 100)
    assert sum(len(piece) for piece in reader._pieces) <= LINE_LIMIT


def test_an_event_of_endless_data_lines_is_refused() -> None:
    reader = SSEReader(limit=1000)
    with pytest.raises(InvalidResponse, match="line too long"):
        feed_often(reader, b"data: 12345678\n", 200)


def test_a_line_exactly_at_the_limit_is_read() -> None:
    line = b"data: " + b"x" * 94
    assert SSEReader(limit=100).feed(line + b"\n\n") == [Event("message", b"x" * 94)]


def test_a_frame_over_the_limit_is_refused() -> None:
    splitter = FrameSplitter(limit=1000)
    with pytest.raises(InvalidResponse, match="line too long"):
        feed_often(splitter, b"data: " + b"x" * 94 + b"\n", 20)


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"])
def test_a_chunk_that_is_one_frame_is_not_copied(end: bytes) -> None:
    chunk = b"data: x" + end
    assert FrameSplitter().feed(chunk)[0] is chunk


@pytest.mark.parametrize("first", [b"a\n\n", b"a\r\n\r\n", b"a\r\r", b"a\n\r\n", b"a\r\n\n", b"a\r\n", b"a\r"])
@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r\n"])
def test_a_chunk_of_two_frames_is_no_single_one_however_their_lines_end(first: bytes, end: bytes) -> None:
    chunk, by_byte = first + b"b" + end, FrameSplitter()
    assert FrameSplitter().feed(chunk) == [one for byte in chunk for one in by_byte.feed(bytes([byte]))]


def test_frames_are_whole_wherever_the_stream_is_cut() -> None:
    for stream in (PLAIN, PLAIN.replace(b"\n", b"\r\n"), b": c\n\n" + PLAIN):
        whole = FrameSplitter().feed(stream)
        for pieces in halves(stream):
            splitter = FrameSplitter()
            assert [frame for piece in pieces for frame in splitter.feed(piece)] == whole
            assert splitter.close() == b""


@pytest.mark.parametrize(
    "before", [b"data: first\n\n", b"event: left open\n", b"data: more\n", b"data: first\r", b"par"]
)
@pytest.mark.parametrize(
    "alone",
    [
        b"data: x\n\n",
        b"data: x\r\n\r\n",
        b"data: \n\n",
        b"data: x\n\n\n",
        b"data: x\r\r\n",
        b"data: x\n\r\n",
        b"data:x\n\n",
        b"data: x\ny: z\n\n",
        b"data: x\rdata: y\n\n",
        b"data: x\n",
        b"\ndata: x\n\n",
    ],
)
def test_an_event_that_comes_alone_reads_as_one_that_comes_in_bytes(before: bytes, alone: bytes) -> None:
    at_once, by_byte = SSEReader(), SSEReader()
    seen = [*at_once.feed(before), *at_once.feed(alone), *at_once.feed(b"data: last\n\n"), *at_once.close()]
    whole = before + alone + b"data: last\n\n"
    assert seen == [*[one for byte in whole for one in by_byte.feed(bytes([byte]))], *by_byte.close()]


def test_an_event_that_comes_alone_has_the_limit_of_any_other() -> None:
    reader = SSEReader(limit=100)
    reader.feed(b"data: first\n\n")
    with pytest.raises(InvalidResponse):
        reader.feed(b"data: " + b"x" * 200 + b"\n\n")
