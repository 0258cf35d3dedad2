"""Answers of Bedrock's Converse: whole, streamed and cut, as botocore reads them; their usage and their errors."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.eventstream import EventStreamBuffer
from botocore.parsers import create_parser

from providers.adapters.base import StreamParser
from providers.adapters.counts import LARGEST
from providers.adapters.events import Ended, Finished, OpaqueSeen, UsageSeen
from providers.adapters.registry import adapter_for
from providers.adapters.types import (
    ChatRequest,
    ChatResponse,
    Choice,
    Citation,
    Dialect,
    Image,
    Media,
    Message,
    Opaque,
    Part,
    Reasoning,
    ResponseFormat,
    Text,
    Tool,
    ToolCall,
    Usage,
)
from providers.errors import (
    InvalidResponse,
    UpstreamCut,
)
from tests.conformance.wires.converse import frame, frames, operation, stream, usage_wire, whole
from tests.providers.adapters.assembly import assemble, parse_in_pieces

ADAPTER = adapter_for("bedrock", {})
ASKED = ChatRequest(model="r", messages=(Message("user", (Text("Hello"),)),), stream=True)
USAGE = Usage(input_tokens=100, output_tokens=20, cache_read_tokens=60, cache_write_tokens=10)
CITED = Text("Sunny", citations=(Citation(text="sun", url="https://example.org/a", title="A"),))
THOUGHT = Reasoning(text="Let me see", signature="c2ln")
CALLS = (ToolCall("call_1", "weather", '{"city":"Paris","n":1.5}'), ToolCall("call_2", "time", "{}"))
ANSWERS: dict[str, ChatResponse] = {}


def answer(*parts: Part, finish: Any = "stop", usage: Usage = USAGE) -> ChatResponse:
    return ChatResponse(id="", model="r", choices=(Choice(parts=parts, finish=finish),), usage=usage)


ANSWERS.update(
    {
        "text": answer(Text("Hello, ünïcode 🙂")),
        "calls": answer(THOUGHT, Text("I ask"), *CALLS, finish="tool_calls"),
        "redacted": answer(Reasoning(redacted="cmVk"), Text("So")),
        "cited": answer(Text("I read: "), CITED),
        "drawn": answer(Image(Media(mime="image/png", data="iVBORw0KGgo="))),
        "filtered": answer(Text("No"), finish="content_filter"),
    }
)


def parser(request: ChatRequest = ASKED) -> StreamParser:
    return ADAPTER.stream_parser(request)


def parts_of(response: Any) -> list[Any]:
    """Citations without the provider's own object; neighbouring texts as one; arguments as values."""
    found: list[Any] = []
    for part in response.choices[0].parts:
        if isinstance(part, Text):
            cited = tuple((one.text, one.url, one.title) for one in part.citations)
            if found and isinstance(found[-1], tuple):
                found[-1] = (found[-1][0] + part.text, found[-1][1] + cited)
            else:
                found.append((part.text, cited))
        elif isinstance(part, ToolCall):
            found.append([part.id, part.name, json.loads(part.arguments)])
        else:
            found.append(part)
    return found


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_is_read_whole_and_streamed_alike(name: str) -> None:
    wanted = ANSWERS[name]
    read = ADAPTER.parse_response(ASKED, whole(wanted))
    assert isinstance(read, ChatResponse)
    assert (read.id, read.model, read.usage) == ("", "r", USAGE)
    streamed = assemble(parse_in_pieces(parser(), stream(wanted), 10_000))
    assert parts_of(read) == parts_of(streamed) == parts_of(wanted)
    assert read.choices[0].finish == streamed.choices[0].finish == wanted.choices[0].finish
    assert streamed.usage == USAGE


@pytest.mark.parametrize("name", ["calls", "cited"])
def test_a_stream_cut_at_any_byte_gives_the_same_events(name: str) -> None:
    sent = stream(ANSWERS[name])
    events = parse_in_pieces(parser(), sent, len(sent))
    for size in (1, 7, 64):
        assert parse_in_pieces(parser(), sent, size) == events
    for at in range(0, len(sent), 3):
        cut = parser()
        assert cut.feed(sent[:at]) + cut.feed(sent[at:]) + cut.close() == events


def test_a_stream_that_breaks_off_at_any_byte_is_told_apart_from_a_whole_one() -> None:
    sent = stream(answer(Text("Hi")))
    for at in range(len(sent)):
        broken = parser()
        assert not any(isinstance(event, Ended) for event in broken.feed(sent[:at]))
        with pytest.raises(UpstreamCut):
            broken.close()


def test_nothing_may_follow_the_end() -> None:
    sent = stream(answer(Text("Hi")))
    more = parser()
    assert isinstance(more.feed(sent)[-1], Ended)
    assert more.feed(frame("event", "messageStart", b'{"role":"assistant"}')) == []
    more.close()
    more.feed(b"rubbish")
    with pytest.raises(InvalidResponse):
        more.close()


@pytest.mark.parametrize("name", ANSWERS)
def test_botocore_reads_the_same_out_of_our_fixtures(name: str) -> None:
    """Whole, by its parser; streamed, frame by frame by its own buffer."""
    shape = operation("Converse").output_shape
    assert shape is not None
    wanted = ADAPTER.parse_response(ASKED, whole(ANSWERS[name]))
    assert isinstance(wanted, ChatResponse)
    response = {"body": whole(ANSWERS[name]), "headers": {}, "status_code": 200}
    theirs = create_parser("rest-json").parse(response, shape)
    assert theirs["usage"] == usage_wire(USAGE)
    texts = [block["text"] for block in theirs["output"]["message"]["content"] if "text" in block]
    assert texts == [part.text for part in wanted.choices[0].parts if isinstance(part, Text) and not part.citations]
    buffer = EventStreamBuffer()
    buffer.add_data(stream(ANSWERS[name]))
    kinds = [message.headers[":event-type"] for message in buffer]
    assert (kinds[0], kinds[-2:]) == ("messageStart", ["messageStop", "metadata"])


# --- usage, by hand ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wire", "usage"),
    [
        # nothing cached: 12 in, 5 out
        ({"inputTokens": 12, "outputTokens": 5, "totalTokens": 17}, Usage(input_tokens=12, output_tokens=5)),
        # cached input beside the rest: 30 + 60 + 10 = 100 in; 100 + 20 = 120 in all
        (
            {"inputTokens": 30, "outputTokens": 20, "totalTokens": 120}
            | {"cacheReadInputTokens": 60, "cacheWriteInputTokens": 10},
            Usage(input_tokens=100, output_tokens=20, cache_read_tokens=60, cache_write_tokens=10),
        ),
        # cached input within the rest, as the total tells: 100 + 20 = 120, so the 70 are part of the 100
        (
            {"inputTokens": 100, "outputTokens": 20, "totalTokens": 120}
            | {"cacheReadInputTokens": 60, "cacheWriteInputTokens": 10},
            Usage(input_tokens=100, output_tokens=20, cache_read_tokens=60, cache_write_tokens=10),
        ),
        # a total that tells of neither: the dearer reading, 100 + 60 + 10
        (
            {"inputTokens": 100, "outputTokens": 20, "totalTokens": 0}
            | {"cacheReadInputTokens": 60, "cacheWriteInputTokens": 10},
            Usage(input_tokens=170, output_tokens=20, cache_read_tokens=60, cache_write_tokens=10),
        ),
        # 10 written, 4 of them for an hour: 30 + 10 = 40 in
        (
            {"inputTokens": 30, "outputTokens": 20, "totalTokens": 60, "cacheWriteInputTokens": 10}
            | {"cacheDetails": [{"ttl": "1h", "inputTokens": 4}, {"ttl": "5m", "inputTokens": 6}]},
            Usage(input_tokens=40, output_tokens=20, cache_write_tokens=10, cache_write_1h_tokens=4),
        ),
        # written by lifetimes alone: 4 + 6 = 10
        (
            {"inputTokens": 30, "outputTokens": 20, "totalTokens": 60}
            | {"cacheDetails": [{"ttl": "1h", "inputTokens": 4}, {"ttl": "5m", "inputTokens": 6}, "?"]},
            Usage(input_tokens=40, output_tokens=20, cache_write_tokens=10, cache_write_1h_tokens=4),
        ),
    ],
)
def test_usage_is_exact(wire: dict[str, Any], usage: Usage) -> None:
    body = {"output": {"message": {"content": [{"text": "Hi"}]}}, "stopReason": "end_turn", "usage": wire}
    assert ADAPTER.parse_response(ASKED, json.dumps(body).encode()).usage == usage
    seen = parser().feed(frame("event", "metadata", json.dumps({"usage": wire}).encode()))
    assert seen == [UsageSeen(usage)]


@pytest.mark.parametrize(
    ("wire", "flag"),
    [
        ({"inputTokens": -1, "outputTokens": 5}, "negative"),
        ({"inputTokens": "many", "outputTokens": 5}, "text"),
        ({"inputTokens": 5}, "missing"),
        ({"inputTokens": 5, "outputTokens": LARGEST + 1}, "huge"),
        ({"inputTokens": 0, "outputTokens": 0, "totalTokens": 0}, "zero"),
    ],
)
def test_figures_that_are_none_are_flagged(wire: dict[str, Any], flag: str) -> None:
    body = {"output": {"message": {"content": [{"text": "Hi"}]}}, "stopReason": "end_turn", "usage": wire}
    usage = ADAPTER.parse_response(ASKED, json.dumps(body).encode()).usage
    assert usage is not None
    assert flag in usage.flags


def test_a_missing_usage_is_none() -> None:
    body = b'{"output":{"message":{"content":[]}},"stopReason":"end_turn"}'
    assert ADAPTER.parse_response(ASKED, body).usage is None


# --- what is said -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("stop_sequence", "stop_sequence"),
        ("guardrail_intervened", "content_filter"),
        ("content_filtered", "content_filter"),
        ("malformed_model_output", "error"),
        ("malformed_tool_use", "error"),
        ("something_new", "stop"),
    ],
)
def test_each_reason_to_stop_is_known(reason: str, finish: Any) -> None:
    body = {"output": {"message": {"content": [{"text": "Hi"}]}}, "stopReason": reason}
    read = ADAPTER.parse_response(ASKED, json.dumps(body).encode())
    assert isinstance(read, ChatResponse)
    assert read.choices[0].finish == finish
    assert parser().feed(frame("event", "messageStop", json.dumps({"stopReason": reason}).encode())) == [
        Finished(finish)
    ]


def test_every_reason_of_the_service_is_mapped() -> None:
    from providers.adapters.converse_answer import FINISHES

    shape = operation("Converse").output_shape
    assert shape is not None
    assert set(shape.members["stopReason"].enum) == set(FINISHES)


FORMAT = ResponseFormat("json_schema", schema={"type": "object"})


def test_the_call_that_stands_for_a_schema_is_the_answers_text() -> None:
    given = answer(ToolCall("c", "give_answer", '{"city":"Paris"}'), finish="tool_calls")
    asked = ChatRequest(model="r", messages=ASKED.messages, response_format=FORMAT)
    read = ADAPTER.parse_response(asked, whole(given))
    streamed = assemble(parse_in_pieces(parser(asked), stream(given), 11))
    for found in (read, streamed):
        assert isinstance(found, ChatResponse)
        (choice,) = found.choices
        assert (choice.finish, len(choice.parts)) == ("stop", 1)
        assert isinstance(choice.parts[0], Text)
        assert json.loads(choice.parts[0].text) == {"city": "Paris"}
    beside = answer(*CALLS, finish="tool_calls")
    assert assemble(parse_in_pieces(parser(asked), stream(beside), 11)).choices[0].finish == "tool_calls"


def test_a_clients_own_tool_of_that_name_stays_a_tool() -> None:
    own = ChatRequest(model="r", messages=ASKED.messages, response_format=FORMAT, tools=(Tool("give_answer"),))
    given = answer(ToolCall("c", "give_answer", "{}"), finish="tool_calls")
    read = ADAPTER.parse_response(own, whole(given))
    assert isinstance(read, ChatResponse)
    assert isinstance(read.choices[0].parts[0], ToolCall)


def test_what_only_the_service_knows_stays_its_own() -> None:
    search = {"toolUse": {"toolUseId": "s", "name": "search", "input": {"q": "a"}, "type": "server_tool_use"}}
    body = {"output": {"message": {"content": [search]}}, "stopReason": "end_turn"}
    read = ADAPTER.parse_response(ASKED, json.dumps(body).encode())
    assert isinstance(read, ChatResponse)
    own = Opaque(dialect=Dialect.CONVERSE, raw=search)
    assert read.choices[0].parts == (own,)
    start = {"toolUse": {"toolUseId": "s", "name": "search", "type": "server_tool_use"}}
    sent = frames(
        ("contentBlockStart", {"start": start, "contentBlockIndex": 0}),
        ("contentBlockDelta", {"delta": {"toolUse": {"input": '{"q":'}}, "contentBlockIndex": 0}),
        ("contentBlockDelta", {"delta": {"toolUse": {"input": '"a"}'}}, "contentBlockIndex": 0}),
        ("contentBlockStop", {"contentBlockIndex": 0}),
    )
    assert parser().feed(sent) == [OpaqueSeen(own)]


def test_a_call_without_arguments_has_empty_ones() -> None:
    start = {"toolUse": {"toolUseId": "c", "name": "time"}}
    sent = frames(
        ("messageStart", {"role": "assistant"}),
        ("contentBlockStart", {"start": start, "contentBlockIndex": 0}),
        ("contentBlockStop", {"contentBlockIndex": 0}),
        ("messageStop", {"stopReason": "tool_use"}),
        ("metadata", {"usage": usage_wire(USAGE), "metrics": {"latencyMs": 1}}),
    )
    assert assemble(parse_in_pieces(parser(), sent, 9)).choices[0].parts == (ToolCall("c", "time", "{}"),)


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"\xff", b'{"output":{}}', b'{"message":"busy"}', b"[" * 5000])
def test_what_is_no_answer_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidResponse):
        ADAPTER.parse_response(ASKED, body)


def test_what_is_no_event_is_refused() -> None:
    with pytest.raises(InvalidResponse):
        parser().feed(frame("event", "contentBlockDelta", b"{"))
    assert parser().feed(frame("event", "somethingNew", b"{")) == []
