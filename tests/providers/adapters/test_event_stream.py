"""Amazon's binary event stream: read as botocore reads it, and nothing but whole and unharmed frames."""

from __future__ import annotations

from struct import pack
from zlib import crc32

import pytest
from botocore.eventstream import EventStreamBuffer
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.adapters.event_stream import EventStreamReader, Frame
from providers.errors import InvalidResponse
from tests.conformance.wires.converse import frame

THREE = frame("event", "one", b'{"a":1}') + frame("event", "two", b"") + frame("exception", "three", b'{"message":"m"}')


def read(reader: EventStreamReader, *pieces: bytes) -> list[Frame]:
    frames = [frame for piece in pieces for frame in reader.feed(piece)]
    return frames + reader.close()


def message(headers: bytes, payload: bytes, total: int | None = None) -> bytes:
    prelude = pack(">II", total or 16 + len(headers) + len(payload), len(headers))
    whole = prelude + pack(">I", crc32(prelude)) + headers + payload
    return whole + pack(">I", crc32(whole))


HEADERS = [
    b"\x01a\x00",  # true
    b"\x01b\x01",  # false
    b"\x01c\x02\x7f",  # one byte
    b"\x01d\x03\x00\x01",
    b"\x01e\x04\x00\x00\x00\x01",
    b"\x01f\x05" + bytes(8),
    b"\x01g\x06\x00\x03xyz",  # bytes
    b"\x01h\x07\x00\x05hello",  # text
    b"\x01i\x08" + bytes(8),  # time
    b"\x01j\x09" + bytes(16),  # UUID
    b"\x03\xc3\xbcx\x07\x00\x02\xc3\xbc",
]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(st.lists(st.sampled_from(HEADERS), unique=True, max_size=5), st.binary(max_size=40)), max_size=4
    ),
    st.integers(1, 30),
)
def test_frames_are_those_that_botocore_reads(written: list[tuple[list[bytes], bytes]], size: int) -> None:
    stream = b"".join(message(b"".join(headers), payload) for headers, payload in written)
    theirs = EventStreamBuffer()
    theirs.add_data(stream)
    wanted = [
        ({name: value for name, value in found.headers.items() if isinstance(value, str)}, found.payload)
        for found in theirs
    ]
    reader = EventStreamReader()
    ours = read(reader, *[stream[at : at + size] for at in range(0, len(stream), size)])
    assert [(dict(found.headers), found.payload) for found in ours] == wanted
    assert not reader.torn


def test_a_stream_cut_anywhere_gives_the_same_frames() -> None:
    whole = read(EventStreamReader(), THREE)
    assert [dict(found.headers).get(":event-type", "exception") for found in whole] == ["one", "two", "exception"]
    for at in range(len(THREE) + 1):
        assert read(EventStreamReader(), THREE[:at], THREE[at:]) == whole


def test_a_torn_frame_is_noticed_at_every_length() -> None:
    one = frame("event", "one", b'{"a":1}')
    for at in range(1, len(one)):
        reader = EventStreamReader()
        assert read(reader, one[:at]) == []
        assert reader.torn


def test_any_flipped_byte_is_noticed() -> None:
    one = frame("event", "one", b'{"a":1}')
    for at in range(len(one)):
        harmed = bytearray(one)
        harmed[at] ^= 0x40
        with pytest.raises(InvalidResponse):
            read(EventStreamReader(), bytes(harmed))


def test_a_frame_over_the_limit_is_refused_by_its_prelude_alone() -> None:
    prelude = pack(">II", 2**31, 0)
    with pytest.raises(InvalidResponse, match="over 100 bytes"):
        read(EventStreamReader(100), prelude + pack(">I", crc32(prelude)))


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (b'{"message":"no event stream at all"}', "prelude"),
        (b"<html><body>Gateway Timeout</body></html>", "prelude"),
        (
            message(b"", b"")[:4] + pack(">I", 900) + pack(">I", crc32(message(b"", b"")[:4] + pack(">I", 900))),
            "longer",
        ),
        (message(b"\x01a\x63", b""), "headers"),  # no such type
        (message(b"\x05a", b""), "headers"),  # name longer than the block
        (message(b"\x01a\x07\x00\x09short", b""), "headers"),
        (message(b"\x01a\x07\x00\x01\xff", b""), "headers"),  # no UTF-8
    ],
)
def test_what_is_no_frame_is_refused(bad: bytes, said: str) -> None:
    with pytest.raises(InvalidResponse, match=said):
        read(EventStreamReader(), bad)
