"""One suite for every adapter whose wire format clients speak too, over answers recorded for each of these.

Rows of one adapter read answers alike, so one of them stands for all; tests/conformance holds each row to its claims,
and each wire format to its usage and to streams that break off.

recorded/<wire>/<name>.json and <name>.sse hold the same answer whole and streamed; errors.json a list of {status, kind,
body, headers?, code?, retry_after?}; in_band_error.sse a stream that has begun and then tells an error.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from providers import errors
from providers.adapters.base import Adapter, Head, Relay
from providers.adapters.registry import KINDS, adapter_for
from providers.adapters.types import (
    ChatRequest,
    ChatResponse,
    Choice,
    Dialect,
    Endpoint,
    Message,
    Reasoning,
    Text,
    ToolCall,
)
from tests.providers.adapters.assembly import assemble, parse_in_pieces

RECORDED = Path(__file__).parent / "recorded"
WIRES = {
    Dialect.OPENAI: Endpoint.CHAT,
    Dialect.RESPONSES: Endpoint.RESPONSES,
    Dialect.ANTHROPIC: Endpoint.MESSAGES,
    Dialect.GEMINI: Endpoint.GENERATE,
}
# A kind for each adapter as it is dressed. Wire formats that clients do not speak have tests of their own.
ADAPTERS = {
    (path, row.dressing): (row.kind, dialect)
    for row in reversed(KINDS.values())
    for dialect, path in row.adapters.items()
    if dialect in WIRES
}.values()
REQUEST = ChatRequest(model="m", messages=(Message(role="user", parts=(Text(text="Hello"),)),), stream=True)


def names(dialect: Dialect) -> list[str]:
    return sorted(path.stem for path in (RECORDED / dialect).glob("*.json") if path.stem != "errors")


CASES = [
    pytest.param(kind, dialect, name, id=f"{kind}-{dialect}-{name}")
    for kind, dialect in ADAPTERS
    for name in names(dialect)
]
PAIRS = [pytest.param(kind, dialect, id=f"{kind}-{dialect}") for kind, dialect in ADAPTERS]


def recorded(dialect: Dialect, file: str) -> bytes:
    return (RECORDED / dialect / file).read_bytes()


def adapter_of(kind: str, dialect: Dialect) -> Adapter:
    return adapter_for(kind, {"dialect": dialect.value})


def head_of(dialect: Dialect, *, include_usage: bool = True) -> Head:
    return Head(endpoint=WIRES[dialect], model="m", stream=True, include_usage=include_usage)


def relayed_into(relayed: bytearray, relay: Relay, stream: bytes) -> None:
    """One byte at a time; what was relayed before an error stays in `relayed`."""
    for at in range(len(stream)):
        relayed += relay.feed(stream[at : at + 1])


def comparable(answer: ChatResponse) -> list[Any]:
    """What must not depend on streaming. Ids of reasoning blocks and positions among the parts may."""
    return [answer.id, answer.model, answer.created, answer.usage, [_choice(choice) for choice in answer.choices]]


def _choice(choice: Choice) -> list[Any]:
    texts = [part for part in choice.parts if isinstance(part, Text)]
    thoughts = [(part.text, part.signature, part.redacted) for part in choice.parts if isinstance(part, Reasoning)]
    others = [_call(part) if isinstance(part, ToolCall) else part for part in choice.parts]
    others = [part for part in others if not isinstance(part, Text | Reasoning)]
    citations = [citation for text in texts for citation in text.citations]
    return [
        choice.index,
        choice.finish,
        choice.stop_sequence,
        "".join(t.text for t in texts),
        citations,
        thoughts,
        others,
    ]


def _call(call: ToolCall) -> tuple[Any, ...]:
    """Arguments as values: a wire format may carry them as an object here and as text there."""
    return (call.id, call.name, json.loads(call.arguments), call.signature)


@pytest.mark.parametrize(("kind", "dialect"), PAIRS)
def test_each_wire_format_has_recordings(kind: str, dialect: Dialect) -> None:
    assert len(names(dialect)) >= 2
    assert adapter_of(kind, dialect).wire is dialect
    for name in names(dialect):
        assert (RECORDED / dialect / f"{name}.sse").is_file()


@pytest.mark.parametrize(("kind", "dialect", "name"), CASES)
def test_a_stream_is_the_whole_answer_wherever_it_is_cut(kind: str, dialect: Dialect, name: str) -> None:
    adapter = adapter_of(kind, dialect)
    whole = adapter.parse_response(REQUEST, recorded(dialect, f"{name}.json"))
    assert isinstance(whole, ChatResponse)
    stream = recorded(dialect, f"{name}.sse")
    events = parse_in_pieces(adapter.stream_parser(REQUEST), stream, len(stream))
    assert comparable(assemble(events)) == comparable(whole)
    for size in (1, 2, 3, 7, 64):
        assert parse_in_pieces(adapter.stream_parser(REQUEST), stream, size) == events
    for at in range(len(stream)):
        parser = adapter.stream_parser(REQUEST)
        assert parser.feed(stream[:at]) + parser.feed(stream[at:]) + parser.close() == events


@pytest.mark.parametrize(("kind", "dialect", "name"), CASES)
def test_a_relay_passes_every_byte_on_wherever_the_stream_is_cut(kind: str, dialect: Dialect, name: str) -> None:
    stream = recorded(dialect, f"{name}.sse")
    seen: set[tuple[object, ...]] = set()
    for size in (1, 2, 3, 7, 64, len(stream)):
        relay = adapter_of(kind, dialect).relay(head_of(dialect))
        relayed = b"".join([relay.feed(stream[at : at + size]) for at in range(0, len(stream), size)])
        assert relayed + relay.close() == stream
        assert relay.ended
        seen.add((relay.frames, relay.text_bytes))
    assert len(seen) == 1
    assert min(next(iter(seen))) > 0  # frames and bytes of text were counted


@pytest.mark.parametrize(("kind", "dialect"), PAIRS)
def test_errors_are_mapped(kind: str, dialect: Dialect) -> None:
    for case in json.loads(recorded(dialect, "errors.json")):
        body = json.dumps(case["body"]).encode()
        error = adapter_of(kind, dialect).parse_error(case["status"], case.get("headers", {}), body)
        assert type(error).__name__ == case["kind"]
        assert error.status == case["status"]
        assert error.message
        assert error.retry_after == case.get("retry_after")
        assert "code" not in case or error.code == case["code"]


@pytest.mark.parametrize(("kind", "dialect"), PAIRS)
@pytest.mark.parametrize("body", [b"", b"<html><h1>Bad gateway</h1></html>", b"\xff\xfe", b'{"error":', b"[]", b"0"])
def test_errors_without_an_error_object_are_mapped_too(kind: str, dialect: Dialect, body: bytes) -> None:
    adapter = adapter_of(kind, dialect)
    assert isinstance(adapter.parse_error(502, {}, body), errors.Overloaded)
    assert 0 < len(adapter.parse_error(401, {}, body).message) < 300
    for reading in (lambda: adapter.parse_response(REQUEST, body), lambda: adapter.read_usage(WIRES[dialect], body)):
        with pytest.raises(errors.InvalidResponse):
            reading()


@pytest.mark.parametrize(("kind", "dialect"), PAIRS)
def test_an_error_in_a_stream_is_raised_and_not_relayed(kind: str, dialect: Dialect) -> None:
    adapter = adapter_of(kind, dialect)
    stream = recorded(dialect, "in_band_error.sse")
    for size in (1, 5, len(stream)):
        with pytest.raises(errors.UpstreamRefusal):
            parse_in_pieces(adapter.stream_parser(REQUEST), stream, size)
    relay = adapter.relay(head_of(dialect))
    relayed = bytearray()
    with pytest.raises(errors.UpstreamRefusal):
        relayed_into(relayed, relay, stream)
    assert relayed
    assert stream.startswith(relayed)
    assert b"rror" not in relayed.replace(b'"error":null', b"")
    assert not relay.ended


@pytest.mark.parametrize(("kind", "dialect"), PAIRS)
@pytest.mark.parametrize("stream", [b"<html>\n\n", b"data: {oops\n\n", b"data: \xff\xfe\n\n", b"data: [1,2]\n\n"])
def test_a_stream_that_is_not_the_wire_format_is_invalid(kind: str, dialect: Dialect, stream: bytes) -> None:
    parser = adapter_of(kind, dialect).stream_parser(REQUEST)
    with pytest.raises((errors.InvalidResponse, errors.UpstreamCut)):
        parse_in_pieces(parser, stream, len(stream))
