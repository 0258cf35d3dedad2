"""OpenAI's answers, whole, streamed and relayed: the oddities of the many servers that speak this wire format."""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from providers.adapters.base import Head
from providers.adapters.events import (
    Ended,
    Finished,
    Started,
    StreamEvent,
    TextDelta,
    ToolDelta,
    ToolStarted,
    UsageSeen,
)
from providers.adapters.openai import OpenAIAdapter
from providers.adapters.openai_wire_relay import OpenAIRelay
from providers.adapters.types import (
    Audio,
    ChatRequest,
    ChatResponse,
    Citation,
    EmbeddingRequest,
    EmbeddingResponse,
    Endpoint,
    Image,
    Media,
    Part,
    Reasoning,
    Text,
    TokenLogprob,
    ToolCall,
    Usage,
)
from providers.errors import InvalidResponse, Overloaded, RateLimited, UpstreamCut

ADAPTER = OpenAIAdapter()
CHAT = ChatRequest(model="m", messages=())
RECORDED = Path(__file__).parent / "conformance" / "recorded" / "openai"
DONE = b"data: [DONE]\n\n"


def frame(**chunk: Any) -> bytes:
    return b"data: " + json.dumps({"id": "c", "model": "m", "created": 1, **chunk}).encode() + b"\n\n"


def delta(finish: str | None = None, **fields: Any) -> bytes:
    return frame(choices=[{"index": 0, "delta": fields, "finish_reason": finish}], usage=None)


def usage_frame(prompt: Any = 5, completion: Any = 2) -> bytes:
    return frame(choices=[], usage={"prompt_tokens": prompt, "completion_tokens": completion})


def parts_of(**message: Any) -> tuple[Part, ...]:
    body = {"id": "c", "choices": [{"message": message, "finish_reason": "stop"}]}
    answer = ADAPTER.parse_response(CHAT, json.dumps(body).encode())
    assert isinstance(answer, ChatResponse)
    return answer.choices[0].parts


@pytest.mark.parametrize("path", sorted(RECORDED.glob("*.json")), ids=lambda path: path.stem)
def test_the_recordings_please_the_sdk(path: Path) -> None:
    if path.stem == "errors":
        return
    ChatCompletion.model_validate(json.loads(path.read_bytes()))
    for line in path.with_suffix(".sse").read_bytes().split(b"\n\n"):
        if line and line != b"data: [DONE]":
            ChatCompletionChunk.model_validate(json.loads(line.removeprefix(b"data: ")))


@pytest.mark.parametrize(
    ("message", "parts"),
    [
        ({"content": None}, ()),
        ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, (Text(text="ab"),)),
        ({"content": "x", "reasoning": "hm"}, (Reasoning(text="hm"), Text(text="x"))),
        (
            {"audio": {"id": "audio_1", "data": "UklG", "transcript": "hi", "expires_at": 9}},
            (Audio(source=Media(data="UklG"), transcript="hi", id="audio_1", expires_at=9),),
        ),
        (
            {"images": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,QQ=="}}]},
            (Image(source=Media(mime="image/png", data="QQ==")),),
        ),
        (
            {"function_call": {"name": "f", "arguments": "{}"}},
            (ToolCall(id="call_0", name="f", arguments="{}"),),
        ),
        (
            {"tool_calls": [{"id": "c", "function": {"name": "f", "arguments": {"a": 1}}}]},
            (ToolCall(id="c", name="f", arguments='{"a":1}'),),
        ),
        (
            {"tool_calls": [{"id": "c", "type": "custom", "custom": {"name": "free", "input": "x"}}]},
            (ToolCall(id="c", name="free", arguments='{"input":"x"}'),),
        ),
        (
            {
                "tool_calls": [
                    {
                        "id": "c",
                        "function": {"name": "f", "arguments": ""},
                        "extra_content": {"google": {"thought_signature": "s"}},
                    }
                ]
            },
            (ToolCall(id="c", name="f", arguments="{}", signature="s"),),
        ),
    ],
)
def test_messages_in_all_their_shapes(message: dict[str, Any], parts: tuple[Part, ...]) -> None:
    assert parts_of(**message) == parts


def test_citations_and_logprobs() -> None:
    note = {
        "type": "url_citation",
        "url_citation": {"url": "https://e.org", "title": "E", "start_index": 0, "end_index": 1},
    }
    (text,) = parts_of(content="x", annotations=[note])
    assert text == Text(text="x", citations=(Citation(url="https://e.org", title="E", raw=note),))
    token = {"token": "x", "logprob": -0.5, "bytes": [120], "top_logprobs": [{"token": "y", "logprob": -1}]}
    body = {"choices": [{"message": {"content": "x"}, "logprobs": {"content": [token]}, "finish_reason": "stop"}]}
    answer = ADAPTER.parse_response(CHAT, json.dumps(body).encode())
    assert isinstance(answer, ChatResponse)
    expected = TokenLogprob(token="x", logprob=-0.5, bytes=(120,), top=(TokenLogprob(token="y", logprob=-1.0),))
    assert answer.choices[0].logprobs == (expected,)


# --- embeddings -----------------------------------------------------------------------------------------------------


def test_vectors_come_in_the_order_of_their_inputs() -> None:
    body = {
        "data": [{"index": 1, "embedding": [2.0]}, {"index": 0, "embedding": [1.0]}],
        "model": "e",
        "usage": {"prompt_tokens": 4, "total_tokens": 4},
    }
    answer = ADAPTER.parse_response(EmbeddingRequest(model="m", inputs=("a", "b")), json.dumps(body).encode())
    assert answer == EmbeddingResponse(model="e", vectors=((1.0,), (2.0,)), usage=Usage(input_tokens=4))


@pytest.mark.parametrize(
    "vectors", [[], [[1.0], [2.0]], ["not base64!"], [base64.b64encode(struct.pack("<3s", b"abc")).decode()]]
)
def test_vectors_that_cannot_be_right_are_invalid(vectors: list[Any]) -> None:
    body = {"data": [{"index": i, "embedding": v} for i, v in enumerate(vectors)], "model": "e"}
    with pytest.raises(InvalidResponse):
        ADAPTER.parse_response(EmbeddingRequest(model="m", inputs=("a",)), json.dumps(body).encode())


# --- streams --------------------------------------------------------------------------------------------------------


def events_of(*frames: bytes) -> list[StreamEvent]:
    parser = ADAPTER.stream_parser(CHAT)
    events = parser.feed(b"".join(frames))
    return events + parser.close()


def test_events_come_in_the_promised_order() -> None:
    assert events_of(delta(role="assistant", content=""), delta(content="Hi"), delta("stop"), usage_frame(), DONE) == [
        Started(id="c", model="m", created=1),
        TextDelta(text="Hi"),
        Finished(finish="stop"),
        UsageSeen(usage=Usage(input_tokens=5, output_tokens=2)),
        Ended(),
    ]


def test_tool_calls_without_an_index_are_told_apart() -> None:
    calls = [{"id": f"c{n}", "function": {"name": "f", "arguments": "{}"}} for n in (1, 2)]
    events = events_of(delta(tool_calls=calls[:1]), delta("tool_calls", tool_calls=calls[1:]), DONE)
    assert events[1:5] == [
        ToolStarted(index=0, id="c1", name="f"),
        ToolDelta(index=0, arguments="{}"),
        ToolStarted(index=1, id="c2", name="f"),
        ToolDelta(index=1, arguments="{}"),
    ]


def test_usage_that_shrinks_is_not_believed() -> None:
    events = events_of(usage_frame(9, 7), usage_frame(9, 3), DONE)
    usages = [event.usage for event in events if isinstance(event, UsageSeen)]
    assert usages[-1] == Usage(input_tokens=9, output_tokens=7, flags=("decreasing",))
    relay = OpenAIRelay(keep_usage=True)
    relay.feed(usage_frame(9, 7) + usage_frame(9, 3))
    assert relay.usage == usages[-1]


def test_nothing_after_the_end_marker_counts() -> None:
    assert events_of(delta(content="a"), DONE, delta(content="b"))[-1] == Ended()
    relay = OpenAIRelay(keep_usage=True)
    assert relay.feed(DONE + delta(content="b")) == DONE


def test_an_error_event_by_name_is_an_error() -> None:
    stream = b'event: error\ndata: {"error":{"message":"m","code":429}}\n\n'
    with pytest.raises(RateLimited):
        events_of(stream)
    with pytest.raises(RateLimited):
        OpenAIRelay(keep_usage=True).feed(stream)


# --- relay ----------------------------------------------------------------------------------------------------------


def test_a_relay_keeps_usage_from_a_client_that_did_not_ask() -> None:
    relay = ADAPTER.relay(Head(endpoint=Endpoint.CHAT, model="m", stream=True))
    shown = delta(role="assistant", content="") + delta(content="Hi") + delta("stop")
    assert relay.feed(shown + usage_frame() + DONE) == shown + DONE
    assert relay.close() == b""
    assert relay.usage == Usage(input_tokens=5, output_tokens=2)


def test_a_relay_leaves_usage_that_stands_beside_text() -> None:
    relay = OpenAIRelay(keep_usage=False)
    choice = {"index": 0, "delta": {"content": "x"}, "finish_reason": "stop"}
    last = frame(choices=[choice], usage={"prompt_tokens": 5, "completion_tokens": 2})
    assert relay.feed(last) == last
    assert relay.usage == Usage(input_tokens=5, output_tokens=2)
    assert (relay.frames, relay.text_bytes) == (1, 1)


def compact(content: str) -> bytes:
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": None}
    return b"data: " + json.dumps({"id": "c", "choices": [choice]}, separators=(",", ":")).encode() + b"\n\n"


@pytest.mark.parametrize(
    ("sent", "frames", "least"),
    [
        pytest.param(compact("Hello"), 1, 5, id="text"),
        pytest.param(compact('say "usage" and "error"'), 1, 23, id="quotes and dangerous words"),
        pytest.param(compact("[DONE]"), 1, 6, id="the end marker as text"),
        pytest.param(compact("ends in a backslash \\"), 1, 21, id="backslash"),
        pytest.param(compact(""), 0, 0, id="no text"),
        pytest.param(delta(reasoning_content="hm"), 1, 2, id="reasoning"),
        pytest.param(delta(tool_calls=[{"index": 0, "function": {"arguments": '{"a"'}}]), 1, 4, id="tool arguments"),
        pytest.param(delta(audio={"data": "UklG"}), 1, 0, id="audio"),
        pytest.param(b": keep-alive\n\n", 0, 0, id="comment"),
        pytest.param(delta("stop"), 0, 0, id="finish"),
    ],
)
def test_a_relay_counts_what_was_generated(sent: bytes, frames: int, least: int) -> None:
    relay = OpenAIRelay(keep_usage=True)
    assert relay.feed(sent) == sent
    assert relay.frames == frames
    assert least <= relay.text_bytes <= 2 * least  # escapes count as they travel
    assert not relay.ended


def test_a_relay_completes_a_last_frame_without_its_blank_line() -> None:
    relay = OpenAIRelay(keep_usage=True)
    assert relay.feed(b"data: [DONE]") == b""
    assert relay.close() == DONE
    assert relay.ended


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"error":{"message":"m","type":"server_error"}}', Overloaded),
        (b"<html><title>Oops</title>", InvalidResponse),
        (b'{"id":"x"}\n\n', InvalidResponse),
        (b"", UpstreamCut),
        (b"data: {", UpstreamCut),
    ],
)
def test_a_body_that_is_no_stream_is_not_relayed(body: bytes, kind: type[Exception]) -> None:
    relay = OpenAIRelay(keep_usage=True)

    def whole() -> bytes:
        return relay.feed(body) + relay.close()

    with pytest.raises(kind):
        whole()


def test_a_line_of_ten_megabytes_is_refused_by_both_readers() -> None:
    piece = b"data: " + b"x" * (10 * 1024 * 1024)
    for reading in (ADAPTER.stream_parser(CHAT).feed, OpenAIRelay(keep_usage=True).feed):
        with pytest.raises(InvalidResponse, match="line too long"):
            reading(piece)
