"""However a provider's stream is cut, written or broken off, it says the same, and never more than it was (U1, U3)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from conduit.proxy.errors import ApiError
from providers.adapters.events import Ended, StreamEvent, UsageSeen
from providers.adapters.types import (
    ChatRequest,
    ChatResponse,
    Choice,
    Dialect,
    Endpoint,
    Reasoning,
    Text,
    ToolCall,
    Usage,
)
from providers.errors import UpstreamCut, UpstreamError
from tests.conformance import cells
from tests.conformance.cells import Line
from tests.conformance.facts import FEATURES, Feature
from tests.providers.adapters.assembly import assemble


def _one_per_wire() -> Iterator[Line]:
    seen = set()
    for line in cells.lines():
        if Endpoint.CHAT in line.row.endpoints and line.wire.__name__ not in seen:
            seen.add(line.wire.__name__)
            yield line


LINES = list(_one_per_wire())
ON_EACH_WIRE = pytest.mark.parametrize("line", LINES, ids=lambda line: line.wire.__name__.rpartition(".")[2])
# Short, since it is cut at each of its bytes; with a letter of four bytes and all kinds of parts that every wire has.
SHORT = ChatResponse(
    id="a",
    model="m",
    choices=(Choice(parts=(Text("i🙂"), ToolCall("c", "f", '{"a":1}')), finish="tool_calls"),),
    usage=Usage(input_tokens=9, output_tokens=5),
)
THOUGHTFUL = msgspec.structs.replace(SHORT, choices=(Choice(parts=(Reasoning(text="H", signature="c2ln"), Text("é"))),))


def _request(line: Line, feature: str = "text") -> ChatRequest:
    sent = cells.client(Dialect.OPENAI).asked(feature, stream=True)
    request = cells.parsed(Dialect.OPENAI, sent).canonical()
    assert isinstance(request, ChatRequest)
    return request


def _events(line: Line, request: ChatRequest, pieces: list[bytes]) -> list[StreamEvent]:
    parser = line.adapter.stream_parser(request)
    events = [event for piece in pieces for event in parser.feed(piece)]
    return events + parser.close()


def _bytewise(stream: bytes) -> list[bytes]:
    return [stream[at : at + 1] for at in range(len(stream))]


def _answers(line: Line) -> Iterator[Feature]:
    """What this wire format can answer, by what its kind claims."""
    for feature in FEATURES.values():
        claimed = line.claims(feature, line.wire)
        if claimed or (claimed is None and feature.name not in cells.lacks(line.wire)):
            yield feature


@ON_EACH_WIRE
def test_a_stream_says_what_the_whole_answer_says_byte_by_byte_too(line: Line) -> None:
    for feature in _answers(line):
        request = _request(line, feature.name)
        stream, whole = line.wire.stream(feature.answer), line.wire.whole(feature.answer)
        events = _events(line, request, [stream])
        assert _events(line, request, _bytewise(stream)) == events, feature.name
        parsed = line.adapter.parse_response(request, whole)
        assert isinstance(parsed, ChatResponse)
        assert _told(assemble(events)) == _told(parsed), feature.name


def _told(answer: ChatResponse) -> Any:
    """Everything but when and on whose account: and a citation stands at its text, however the wire told of it."""
    return [
        (choice.index, [_part(part) for part in choice.parts], choice.finish, choice.stop_sequence)
        for choice in answer.choices
    ], answer.usage


def _part(part: Any) -> Any:
    if isinstance(part, ToolCall):
        return ("call", part.id, part.name, msgspec.json.decode(part.arguments))
    return msgspec.structs.replace(part, id="") if isinstance(part, Reasoning) else part  # streams do not tell its id


@ON_EACH_WIRE
@pytest.mark.parametrize("answer", [SHORT, THOUGHTFUL], ids=["tools", "thoughts"])
def test_cut_in_two_at_every_byte_the_events_are_the_same(line: Line, answer: ChatResponse) -> None:
    request, stream = _request(line), line.wire.stream(answer)
    events = _events(line, request, [stream])
    for at in range(1, len(stream)):
        assert _events(line, request, [stream[:at], stream[at:]]) == events, at


@ON_EACH_WIRE
@pytest.mark.parametrize("answer", [SHORT, THOUGHTFUL], ids=["tools", "thoughts"])
def test_broken_off_at_any_byte_it_has_no_end_and_keeps_its_usage(line: Line, answer: ChatResponse) -> None:
    """The rare byte after which only white space was missing leaves the answer whole."""
    request, stream = _request(line), line.wire.stream(answer)
    whole = _events(line, request, [stream])
    told = 0
    for at in range(len(stream)):
        parser = line.adapter.stream_parser(request)
        events = parser.feed(stream[:at])
        seen = [event for event in events if isinstance(event, UsageSeen)]
        assert len(seen) >= told, "usage that was seen is kept"
        told = len(seen)
        try:
            events += parser.close()
        except UpstreamCut:  # the fault is the line's, not the format's
            assert Ended not in map(type, events), at
        else:
            assert events == whole, at


@ON_EACH_WIRE
def test_broken_off_before_its_end_it_is_a_cut_and_not_a_fault_of_the_format(line: Line) -> None:
    """Between two frames nothing is wrong but that more should come."""
    request, stream = _request(line), line.wire.stream(SHORT)
    parser = line.adapter.stream_parser(request)
    ends = [at for at in range(1, len(stream)) if _grew(parser, stream[at - 1 : at])]
    assert len(ends) > 2
    for at in ends[:-1]:
        parser = line.adapter.stream_parser(request)
        if Ended not in map(type, parser.feed(stream[:at])) and _says_less(line, request, stream, at):
            with pytest.raises(UpstreamCut):
                parser.close()


def _grew(parser: Any, piece: bytes) -> bool:
    return bool(parser.feed(piece))


def _says_less(line: Line, request: ChatRequest, stream: bytes, at: int) -> bool:
    """Whether the rest of the stream still brings anything but usage and the end."""
    parser = line.adapter.stream_parser(request)
    parser.feed(stream[:at])
    rest = parser.feed(stream[at:])
    return any(not isinstance(event, UsageSeen | Ended) for event in rest)


# --- server-sent events, as their standard lets them be written -----------------------------------------------------


def _multi_line(stream: bytes) -> bytes:
    """Each JSON document over two data lines: the standard joins them with a line feed, which JSON takes as space."""
    return re.sub(rb"(?m)^data: \{", b"data: {\ndata: ", stream)


WRITINGS: dict[str, Callable[[bytes], bytes]] = {
    "LF": lambda stream: stream.replace(b"\r\n", b"\n"),
    "CRLF": lambda stream: stream.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"),
    "CR": lambda stream: stream.replace(b"\r\n", b"\n").replace(b"\n", b"\r"),
    "mixed": lambda stream: re.sub(rb"\r?\n\r?\n", b"\r\n\n", stream, count=3),
    "byte order mark": lambda stream: b"\xef\xbb\xbf" + stream,
    "comments": lambda stream: b": hello\n\n" + re.sub(rb"\r?\n\r?\n", b"\n\n: PROCESSING\n\n", stream),
    "comments within": lambda stream: re.sub(rb"(?m)^data: ", b": within\ndata: ", stream),
    "no space": lambda stream: re.sub(rb"(?m)^data: ", b"data:", stream),
    "other fields": lambda stream: re.sub(rb"(?m)^data: ", b"id: 7\nretry: 3\nnonsense\ndata: ", stream),
    "many lines": lambda stream: _multi_line(stream),
    "no last line end": lambda stream: stream.rstrip(),
}
EVENTS = [line for line in LINES if line.wire.stream(SHORT).lstrip().startswith((b"data:", b"event:"))]


@pytest.mark.parametrize("line", EVENTS, ids=lambda line: line.wire.__name__.rpartition(".")[2])
@pytest.mark.parametrize("writing", WRITINGS)
def test_events_may_be_written_in_any_way_the_standard_knows(line: Line, writing: str) -> None:
    request, stream = _request(line), line.wire.stream(THOUGHTFUL)
    rewritten = WRITINGS[writing](stream)
    expected = _events(line, request, [stream])
    assert _events(line, request, [rewritten]) == expected
    assert _events(line, request, _bytewise(rewritten)) == expected


def _relayed() -> Iterator[Any]:
    """A kind and a client for each wire format that is passed through, by each adapter's wire format."""
    seen = set()
    for dialect in cells.CLIENTS:
        for line in cells.lines_for(dialect):
            names = line.wire.__name__, line.wire_for(dialect).__name__
            if cells.native(line, dialect) and names not in seen:
                seen.add(names)
                yield pytest.param(line, dialect, id=f"{line.id}-{dialect}")


RELAYED = list(_relayed())
ON_EACH_RELAY = pytest.mark.parametrize(("line", "dialect"), RELAYED)


def test_every_client_is_passed_through_to_somebody() -> None:
    assert {dialect for _, dialect in [param.values for param in RELAYED]} == set(cells.CLIENTS)


@ON_EACH_RELAY
@pytest.mark.parametrize("writing", WRITINGS)
def test_what_is_relayed_is_what_came_and_its_usage_is_known(line: Line, dialect: str, writing: str) -> None:
    inbound = cells.parsed(dialect, cells.client(dialect).asked("text", stream=True))
    stream = WRITINGS[writing](line.wire_for(dialect).stream(SHORT))
    for pieces in ([stream], _bytewise(stream)):
        relay = line.adapter.relay(inbound.head)
        relayed = b"".join(relay.feed(piece) for piece in pieces) + relay.close()
        assert _documents(relayed) == _documents(stream)
        assert relay.ended
        assert relay.usage == SHORT.usage


def _documents(stream: bytes) -> list[bytes]:
    """The data of each event, by hand."""
    lines = stream.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    return [line.partition(b":")[2].strip() for line in lines if line.startswith(b"data:")]


@ON_EACH_RELAY
def test_a_relay_broken_off_at_any_byte_has_no_end(line: Line, dialect: str) -> None:
    inbound = cells.parsed(dialect, cells.client(dialect).asked("text", stream=True))
    stream = line.wire_for(dialect).stream(SHORT)
    for at in range(len(stream)):
        relay = line.adapter.relay(inbound.head)
        relayed = relay.feed(stream[:at])
        try:
            relayed += relay.close()
        except UpstreamError as error:
            told = type(error)  # the first few bytes do not tell a stream from another body yet
            assert told is UpstreamCut or at < len("event"), at
            assert not relay.ended, at
            assert stream.startswith(relayed)
        else:
            assert relay.ended
            assert not stream[at:].strip(), at


# --- what the client sees of it -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", cells.CLIENTS)
@ON_EACH_WIRE
def test_a_client_sees_the_same_however_the_provider_was_cut(line: Line, dialect: str) -> None:
    inbound = cells.parsed(dialect, cells.client(dialect).asked("text", stream=True))
    stream, found = line.wire_for(dialect).stream(THOUGHTFUL), []
    for size in (1, 2, 3, 50, len(stream)):
        relay = cells.relay_for(line, dialect, inbound)
        pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
        shown = b"".join(relay.feed(piece) for piece in pieces) + relay.close()
        found.append(cells.client(dialect).seen(shown, stream=True))
    assert found == found[:1] * len(found)


BROKEN = ApiError(502, "api_error", "upstream_invalid_response", "The provider's stream broke off.")


@pytest.mark.parametrize("dialect", cells.CLIENTS)
def test_a_client_can_tell_a_broken_answer_after_each_event(dialect: str) -> None:
    """Its SDK raises, whichever event was the last one. Google's passes the error on as an answer without anything in
    it; there nothing may say that the answer is finished."""
    line = LINES[0]
    inbound = cells.parsed(dialect, cells.client(dialect).asked("text", stream=True))
    events = _events(line, _request(line), [line.wire.stream(SHORT)])
    for number in range(len(events)):  # the last one is the end
        renderer = cells.gateway(dialect).stream(inbound, "r")
        shown = renderer.feed(events[:number]) + renderer.broken(BROKEN)
        if dialect == Dialect.GEMINI:
            assert cells.client(dialect).seen(shown, stream=True)["finish"] is None
            continue
        # Each SDK has its own tree of errors. OpenAI's for Responses gives the error as its last event, which is not
        # the one that ends an answer, and complains when no other came before.
        with pytest.raises(Exception, match="broke off|before `error`|^error$"):
            cells.client(dialect).seen(shown, stream=True)
