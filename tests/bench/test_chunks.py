"""The measurements of `bench/` measure what they say."""

from __future__ import annotations

import pytest

from bench import chunks, stream_client


@pytest.mark.parametrize(("dialect", "wire"), list(chunks.pairs()))
def test_each_measured_chunk_becomes_one_piece_for_the_client(dialect: str, wire: str) -> None:
    relay = chunks.relay(dialect, wire)
    relay.feed(chunks.STARTS[wire])
    for number, word in enumerate(chunks.WORDS, 1):
        assert word.encode() in relay.feed(chunks.WIRES[wire][1](word))
        assert relay.frames == number


@pytest.mark.parametrize(("path", "end"), [("/v1/chat/completions", b"[DONE]"), ("/v1/messages", b"message_stop")])
@pytest.mark.parametrize("size", [1, 2, 7, 100])
def test_the_load_counts_chunks_however_they_are_cut(path: str, end: bytes, size: int) -> None:
    class Load:
        tokens = 0
        gaps: list[float] = []  # noqa: RUF012 (one test's)

    Load.end = end  # type: ignore[attr-defined]
    stream = stream_client.Stream(Load())
    body = b"".join([b'data: {"t":"w%d zq7"}\n\n' % number for number in range(20)]) + b"data: " + end + b"\n\n"
    for at in range(0, len(body), size):
        stream.count(body[at : at + size])
    assert (stream.tokens, stream.ended) == (20, True)
    assert stream_client.ENDS.get(path, b"[DONE]") == end
