"""What OpenAI clients receive: answers, streams and errors that the SDK's own types accept, with nothing lost."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest
from openai.types import CreateEmbeddingResponse, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from conduit.proxy.dialects.base import Inbound, ModelEntry
from conduit.proxy.dialects.openai import OPENAI
from conduit.proxy.errors import ApiError, bad_key, budget_exceeded, invalid_value
from providers.adapters.events import (
    CitationSeen,
    Ended,
    Finished,
    MediaDelta,
    ReasoningDelta,
    RefusalDelta,
    Started,
    StreamEvent,
    TextDelta,
    ToolDelta,
    ToolStarted,
    UsageSeen,
)
from providers.adapters.openai import CompatibleAdapter
from providers.adapters.types import (
    Audio,
    ChatRequest,
    ChatResponse,
    Choice,
    Citation,
    EmbeddingResponse,
    Endpoint,
    Finish,
    Image,
    Media,
    Part,
    Reasoning,
    Refusal,
    Text,
    TokenLogprob,
    ToolCall,
    Usage,
)

NOTE = {
    "type": "url_citation",
    "url_citation": {"url": "https://e.org", "title": "E", "start_index": 0, "end_index": 2},
}
LOGPROB = TokenLogprob(token="Hi", logprob=-0.5, bytes=(72, 105), top=(TokenLogprob(token="Ho", logprob=-1.5),))
PARTS: tuple[Part, ...] = (
    Reasoning(text="hm", signature="s1"),
    Reasoning(redacted="blob"),
    Text(text="Grüße 🙂", citations=(Citation(url="https://e.org", title="E", raw=NOTE),)),
    Image(source=Media(mime="image/png", data="QQ==")),
    ToolCall(id="c1", name="f", arguments='{"a":"\\""}', signature="g"),
    ToolCall(id="c2", name="f", arguments="{}"),
)
USAGE = Usage(
    input_tokens=100, output_tokens=50, cache_read_tokens=60, cache_write_tokens=20, reasoning_tokens=30,
    audio_input_tokens=5, audio_output_tokens=4,
)  # fmt: skip
WIRE_USAGE = {
    "prompt_tokens": 100,
    "completion_tokens": 50,
    "total_tokens": 150,
    "prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 20, "audio_tokens": 5},
    "completion_tokens_details": {"reasoning_tokens": 30, "audio_tokens": 4},
}
EVENTS: list[StreamEvent] = [
    Started(id="msg_1", model="claude", created=1760000000),
    ReasoningDelta(text="h"),
    ReasoningDelta(text="m"),
    ReasoningDelta(signature="s1"),
    ReasoningDelta(redacted="blob"),
    TextDelta(text="Grüße"),
    TextDelta(text=" 🙂"),
    CitationSeen(citation=Citation(url="https://e.org", title="E", raw=NOTE)),
    MediaDelta(part=Image(source=Media(mime="image/png", data="QQ=="))),
    ToolStarted(index=0, id="c1", name="f", signature="g"),
    ToolDelta(index=0, arguments='{"a":'),
    ToolDelta(index=0, arguments='"\\""}'),
    ToolStarted(index=1, id="c2", name="f"),
    ToolDelta(index=1, arguments="{}"),
    Finished(finish="tool_calls"),
    UsageSeen(usage=USAGE),
    Ended(),
]


def inbound(**fields: Any) -> Inbound:
    body = {"model": "route", "messages": [{"role": "user", "content": "Hello"}], **fields}
    return OPENAI.parse(Endpoint.CHAT, json.dumps(body).encode())


def answer(*parts: Part, finish: Finish = "stop", **fields: Any) -> ChatResponse:
    choice = Choice(parts=parts, finish=finish)
    return ChatResponse(**{"id": "c", "model": "m", "choices": (choice,), "usage": USAGE, "created": 5, **fields})


def rendered(response: ChatResponse) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(OPENAI.render(inbound(), response))
    ChatCompletion.model_validate(body)
    return body


def chunks(stream: bytes) -> list[dict[str, Any]]:
    frames = stream.split(b"\n\n")
    assert frames.pop() == b""
    read = [json.loads(frame.removeprefix(b"data: ")) for frame in frames if frame != b"data: [DONE]"]
    for chunk in read:
        ChatCompletionChunk.model_validate(chunk)
    return read


def test_a_whole_answer() -> None:
    body = rendered(answer(Text(text="Hi"), id="chatcmpl-1", service_tier="default"))
    assert body == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 5,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hi", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": WIRE_USAGE,
        "service_tier": "default",
    }


@pytest.mark.parametrize(
    "response",
    [
        answer(*PARTS, finish="tool_calls"),
        answer(Refusal(text="No."), finish="content_filter"),
        answer(Audio(source=Media(data="UklG"), transcript="hi", id="a1", expires_at=9)),
        answer(finish="length"),
        answer(Text(text=""), usage=None),
    ],
)
def test_reading_a_rendered_answer_gives_it_back(response: ChatResponse) -> None:
    request = ChatRequest(model="m", messages=())
    read = CompatibleAdapter().parse_response(request, OPENAI.render(inbound(), response))
    assert isinstance(read, ChatResponse)
    assert read.usage == response.usage
    assert read.choices[0].finish == response.choices[0].finish
    kept = [part for part in response.choices[0].parts if part != Text(text="")]
    assert sorted(map(repr, read.choices[0].parts)) == sorted(map(repr, kept))


def test_signatures_survive_the_round_trip_through_a_client() -> None:
    message = rendered(answer(*PARTS, finish="tool_calls"))["choices"][0]["message"]
    history = [{"role": "user", "content": "Hello"}, message]
    request = inbound(messages=history).canonical()
    assert isinstance(request, ChatRequest)
    back = [part for part in request.messages[1].parts if isinstance(part, Reasoning | ToolCall)]
    assert back == [part for part in PARTS if isinstance(part, Reasoning | ToolCall)]


def test_logprobs_and_several_choices() -> None:
    choices = (
        Choice(parts=(Text(text="Hi"),), logprobs=(LOGPROB,)),
        Choice(index=1, parts=(Text(text="Ho"),), finish="length"),
    )
    body = rendered(answer(choices=choices))
    assert [choice["finish_reason"] for choice in body["choices"]] == ["stop", "length"]
    assert body["choices"][0]["logprobs"]["content"][0]["top_logprobs"] == [
        {"token": "Ho", "logprob": -1.5, "bytes": None}
    ]


@pytest.mark.parametrize(
    ("finish", "word"),
    [
        ("stop", "stop"), ("length", "length"), ("tool_calls", "tool_calls"), ("content_filter", "content_filter"),
        ("refusal", "content_filter"), ("stop_sequence", "stop"), ("pause", "stop"), ("error", "length"), ("", "stop"),
    ],
)  # fmt: skip
def test_every_way_to_finish_has_a_word_the_sdk_knows(finish: Finish, word: str) -> None:
    assert rendered(answer(Text(text="x"), finish=finish))["choices"][0]["finish_reason"] == word


def test_an_answer_that_failed_without_a_word_is_an_error() -> None:
    for parts in ((), (Reasoning(text="Hm."),)):
        with pytest.raises(ApiError) as caught:
            rendered(answer(*parts, finish="error"))
        assert (caught.value.status, caught.value.code) == (502, "upstream_invalid_response")


@pytest.mark.parametrize("path", ["chat", "completions"])
def test_a_stream_that_failed_ends_with_an_error_unless_another_choice_is_whole(path: str) -> None:
    body = {"model": "m", "stream": True}
    more = {"prompt": "x"} if path == "completions" else {"messages": [{"role": "user", "content": "x"}]}
    asked = OPENAI.parse(Endpoint(path), json.dumps({**body, **more}).encode())
    failed: list[StreamEvent] = [Started("i", "m"), TextDelta("a"), Finished("error")]
    alone = OPENAI.stream(asked, "r").feed([*failed, UsageSeen(Usage()), Ended()])
    assert b'"upstream_invalid_response"' in alone
    assert b"[DONE]" not in alone
    beside = OPENAI.stream(asked, "r").feed([*failed, TextDelta("b", 1), Finished("stop", 1), Ended()])
    assert beside.endswith(b"[DONE]\n\n")
    ends = [json.loads(line[6:])["choices"][0] for line in beside.decode().split("\n\n")[:-2]]
    assert {end["index"]: end["finish_reason"] for end in ends if end["finish_reason"]} == {0: "length", 1: "stop"}


def test_citations_of_others_point_into_the_text() -> None:
    cited = Text(text="two", citations=(Citation(url="https://e.org", title="E"),))
    (note,) = rendered(answer(Text(text="one "), cited))["choices"][0]["message"]["annotations"]
    assert note["url_citation"] == {"url": "https://e.org", "title": "E", "start_index": 4, "end_index": 7}


# --- streams --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", [True, False])
def test_a_stream_read_again_gives_the_same_events(asked: bool) -> None:
    renderer = OPENAI.stream(inbound(stream=True, stream_options={"include_usage": asked}), "req_1")
    stream = b"".join([renderer.feed([event]) for event in EVENTS])
    assert renderer.feed([]) == b""
    assert stream.endswith(b"data: [DONE]\n\n")
    usages = [chunk["usage"] for chunk in chunks(stream) if chunk.get("usage")]
    assert usages == ([WIRE_USAGE] if asked else [])
    parser = CompatibleAdapter().stream_parser(ChatRequest(model="m", messages=()))
    events = parser.feed(stream) + parser.close()
    expected = EVENTS if asked else [event for event in EVENTS if not isinstance(event, UsageSeen)]
    assert events == expected


def test_a_stream_begins_with_the_role_of_each_choice() -> None:
    renderer = OPENAI.stream(inbound(stream=True, n=2), "req_1")
    events: list[StreamEvent] = [
        Started(id="c", model="m", created=5),
        TextDelta(text="a"),
        TextDelta(text="b", choice=1),
    ]
    deltas = [(c["choices"][0]["index"], c["choices"][0]["delta"]) for c in chunks(renderer.feed(events))]
    assert deltas == [
        (0, {"role": "assistant", "content": ""}),
        (0, {"content": "a"}),
        (1, {"role": "assistant", "content": "b"}),
    ]


def test_refusals_audio_and_logprobs_are_streamed() -> None:
    renderer = OPENAI.stream(inbound(stream=True), "req_1")
    events: list[StreamEvent] = [
        Started(id="", model=""),
        RefusalDelta(text="No."),
        MediaDelta(part=Audio(source=Media(data="UklG"), id="a1", expires_at=9)),
        TextDelta(text="Hi", logprobs=(LOGPROB,)),
    ]
    first, refusal, audio, text = chunks(renderer.feed(events))
    assert (first["id"], first["model"]) == ("chatcmpl-req_1", "route")
    assert first["created"] > 1_700_000_000
    assert refusal["choices"][0]["delta"] == {"refusal": "No."}
    assert audio["choices"][0]["delta"]["audio"]["data"] == "UklG"
    assert text["choices"][0]["logprobs"]["content"][0]["token"] == "Hi"


def test_a_broken_stream_ends_with_an_error_and_no_end_marker() -> None:
    renderer = OPENAI.stream(inbound(stream=True), "req_1")
    renderer.feed(EVENTS[:3])
    error = ApiError(502, "api_error", "upstream_invalid_response", "The stream broke.")
    frame = renderer.broken(error)
    assert json.loads(frame.removeprefix(b"data: ")) == {
        "error": {
            "message": "The stream broke.",
            "type": "api_error",
            "param": None,
            "code": "upstream_invalid_response",
        }
    }
    assert frame.endswith(b"\n\n")
    assert b"[DONE]" not in frame


# --- embeddings, errors, models -------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", ["float", "base64", None])
@pytest.mark.parametrize("sent", [(0.5, -2.0), base64.b64encode(struct.pack("<2f", 0.5, -2.0)).decode()])
def test_embeddings_come_in_the_form_the_client_asked_for(asked: str | None, sent: Any) -> None:
    body = {"model": "route", "input": "a", "encoding_format": asked}
    wanted = OPENAI.parse(Endpoint.EMBEDDINGS, json.dumps(body).encode())
    response = EmbeddingResponse(model="", vectors=(sent,), usage=Usage(input_tokens=3))
    rendered_body = json.loads(OPENAI.render(wanted, response))
    vector = rendered_body["data"][0]["embedding"]
    if asked == "base64":
        vector = list(struct.unpack("<2f", base64.b64decode(vector)))
    else:
        CreateEmbeddingResponse.model_validate(rendered_body)
    assert vector == [0.5, -2.0]
    assert rendered_body["model"] == "route"
    assert rendered_body["usage"] == {"prompt_tokens": 3, "total_tokens": 3}


@pytest.mark.parametrize(
    ("error", "kind", "code", "param"),
    [
        (bad_key(), "authentication_error", "invalid_api_key", None),
        (invalid_value("messages[0].role", "x"), "invalid_request_error", "invalid_value", "messages[0].role"),
        (budget_exceeded("x"), "insufficient_quota", "budget_exceeded", None),
    ],
)
def test_errors_have_openais_shape(error: ApiError, kind: str, code: str, param: str | None) -> None:
    assert json.loads(OPENAI.error(error, "req_1")) == {
        "error": {"message": error.message, "type": kind, "param": param, "code": code}
    }


def test_lists_of_models() -> None:
    entries = [ModelEntry(name="gpt-4o", owner="openai", created=5), ModelEntry(name="mine")]
    body = json.loads(OPENAI.models(entries))
    assert body == {
        "object": "list",
        "data": [
            {"id": "gpt-4o", "object": "model", "created": 5, "owned_by": "openai"},
            {"id": "mine", "object": "model", "created": 0, "owned_by": "conduit"},
        ],
    }
    Model.model_validate(json.loads(OPENAI.model(entries[0])))


def test_reasoning_blocks_of_a_stream_are_numbered() -> None:
    renderer = OPENAI.stream(inbound(stream=True), "req_1")
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks(renderer.feed(EVENTS[:6]))]
    details = [delta["reasoning_details"][0] for delta in deltas if "reasoning_details" in delta]
    assert [detail["index"] for detail in details] == [0, 0, 0, 1]
