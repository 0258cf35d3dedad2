"""Answers in the dialect of OpenAI's responses, whole and streamed. OpenAI's own types judge all that a client gets."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai._models import construct_type
from openai.types.responses import Response, ResponseStreamEvent

from conduit.proxy.dialects.base import Inbound
from conduit.proxy.dialects.responses import RESPONSES
from conduit.proxy.errors import ApiError, bad_key
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
from providers.adapters.types import (
    ChatRequest,
    ChatResponse,
    Choice,
    Citation,
    Dialect,
    Endpoint,
    Finish,
    Image,
    Media,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Text,
    TokenLogprob,
    ToolCall,
    Usage,
)

PNG = "iVBORw0KGgo="
CITY = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER = {"type": "function", "name": "weather", "description": "Says it", "parameters": CITY, "strict": True}
SCRIPT = {"type": "custom", "name": "script", "description": "Runs it"}
USAGE = Usage(input_tokens=12, output_tokens=9, cache_read_tokens=4, cache_write_tokens=2, reasoning_tokens=5)


def parsed(**fields: Any) -> Inbound:
    return RESPONSES.parse(Endpoint.RESPONSES, json.dumps({"model": "m", "input": "hi", **fields}).encode())


def canonical(**fields: Any) -> ChatRequest:
    request = parsed(**fields).canonical()
    assert isinstance(request, ChatRequest)
    return request


def refused(**fields: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        parsed(**fields).canonical()
    assert caught.value.status == 400
    return caught.value


NOTE = {
    "type": "url_citation",
    "url_citation": {"url": "https://e.org", "title": "E", "start_index": 0, "end_index": 5},
}
LOGPROB = TokenLogprob(token="Hi", logprob=-0.5, bytes=(72, 105), top=(TokenLogprob(token="Ho", logprob=-1.5),))
PARTS: tuple[Part, ...] = (
    Reasoning(text="hm", signature="s1"),
    Reasoning(redacted="blob"),
    Text(text="Grüße 🙂", citations=(Citation(url="https://e.org", title="E", raw=NOTE),)),
    Refusal(text="no more"),
    Image(source=Media(mime="image/png", data="QQ==")),
    ToolCall(id="c1", name="weather", arguments='{"a":"\\""}', signature="g"),
    ToolCall(id="c2", name="script", arguments='{"input":"say \\"hi\\""}'),
    Opaque(
        Dialect.RESPONSES,
        {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "x"}},
    ),
    Opaque(Dialect.ANTHROPIC, {"type": "server_tool_use"}),
)
EVENTS: list[StreamEvent] = [
    Started(id="up", model="m1", created=5),
    ReasoningDelta(text="h"),
    ReasoningDelta(text="m"),
    ReasoningDelta(signature="s1"),
    ReasoningDelta(redacted="blob"),
    TextDelta(text="Grü", logprobs=(LOGPROB,)),
    TextDelta(text="ße 🙂"),
    CitationSeen(citation=Citation(url="https://e.org", title="E", raw=NOTE)),
    RefusalDelta(text="no "),
    RefusalDelta(text="more"),
    MediaDelta(part=Image(source=Media(mime="image/png", data="QQ=="))),
    ToolStarted(index=0, id="c1", name="weather", signature="g"),
    ToolStarted(index=1, id="c2", name="script"),
    ToolDelta(index=1, arguments='{"input":"say '),
    ToolDelta(index=0, arguments='{"a":'),
    ToolDelta(index=0, arguments='"\\""}'),
    ToolDelta(index=1, arguments='\\"hi\\""}'),
]
ASKED: dict[str, Any] = {"tools": [WEATHER, SCRIPT], "instructions": "be", "temperature": 0.5, "metadata": {"a": "b"}}


def answered(parts: tuple[Part, ...], finish: Finish = "stop", **fields: Any) -> dict[str, Any]:
    choice = Choice(parts=parts, finish=finish, logprobs=(LOGPROB,) if fields.pop("logprobs", False) else None)
    response = ChatResponse(id="up", model="m1", created=5, choices=(choice,), usage=USAGE)
    body: dict[str, Any] = json.loads(RESPONSES.render(parsed(**fields), response))
    Response.model_validate(body)
    return body


def streamed(events: list[StreamEvent], **fields: Any) -> list[dict[str, Any]]:
    renderer = RESPONSES.stream(parsed(stream=True, **fields), "r-1")
    frames = (b"".join([renderer.feed([event]) for event in events])).decode().split("\n\n")
    told = []
    for number, frame in enumerate(frames[:-1]):
        kind, data = frame.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert kind == f"event: {event['type']}"
        assert event["sequence_number"] == number
        known = construct_type(type_=ResponseStreamEvent, value=event)
        type(known).model_validate(event)
        told.append(event)
    return told


def without_ids(body: dict[str, Any]) -> dict[str, Any]:
    items = [{name: value for name, value in item.items() if name != "id"} for item in body["output"]]
    return {**body, "id": "", "output": items, "completed_at": 0}


def test_a_whole_answer_says_everything() -> None:
    body = answered(PARTS, **ASKED)
    items = without_ids(body)["output"]
    assert items == [
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}], "encrypted_content": "s1"},
        {"type": "reasoning", "summary": [], "encrypted_content": "redacted:blob"},
        {
            "type": "message",
            "status": "completed",
            "role": "assistant",
            "content": [
                {
                    "type": "output_text",
                    "text": "Grüße 🙂",
                    "logprobs": [],
                    "annotations": [{"type": "url_citation", **NOTE["url_citation"]}],
                },
                {"type": "refusal", "refusal": "no more"},
            ],
        },
        {"type": "image_generation_call", "status": "completed", "result": "QQ=="},
        {
            "type": "function_call",
            "status": "completed",
            "call_id": "c1",
            "name": "weather",
            "arguments": '{"a":"\\""}',
            "extra_content": {"google": {"thought_signature": "g"}},
        },
        {"type": "custom_tool_call", "status": "completed", "call_id": "c2", "name": "script", "input": 'say "hi"'},
        {"type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "x"}},
    ]
    assert len({item["id"] for item in body["output"]}) == len(items)
    assert body["usage"] == {
        "input_tokens": 12,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2},
        "output_tokens": 9,
        "output_tokens_details": {"reasoning_tokens": 5},
        "total_tokens": 21,
    }
    assert (body["status"], body["model"], body["created_at"], body["store"]) == ("completed", "m1", 5, False)
    assert (body["instructions"], body["temperature"], body["metadata"]) == ("be", 0.5, {"a": "b"})


@pytest.mark.parametrize(
    ("finish", "status", "reason"),
    [
        ("stop", "completed", None),
        ("tool_calls", "completed", None),
        ("stop_sequence", "completed", None),
        ("", "completed", None),
        ("length", "incomplete", "max_output_tokens"),
        ("content_filter", "incomplete", "content_filter"),
        ("refusal", "incomplete", "content_filter"),
        ("error", "failed", None),
    ],
)
def test_how_it_ended_is_told_alike_whole_and_streamed(finish: Finish, status: str, reason: str | None) -> None:
    body = answered((Text("ab"),), finish)
    events = streamed([Started("up", "m1", 5), TextDelta("ab"), Finished(finish), UsageSeen(USAGE), Ended()])
    assert events[-1]["type"] == f"response.{status}"
    assert without_ids(events[-1]["response"]) | {"completed_at": 0} == without_ids(body)
    assert body["status"] == status
    assert (body["incomplete_details"] or {}).get("reason") == reason
    assert body["output"][0]["status"] == ("completed" if status == "completed" else "incomplete")
    assert (body["error"] is None) == (status != "failed")


def test_a_stream_builds_what_the_whole_answer_says() -> None:
    ended: list[StreamEvent] = [*EVENTS, Finished("tool_calls"), UsageSeen(USAGE), Ended()]
    events = streamed(ended, **ASKED)
    assert events[-1]["type"] == "response.completed"
    body = answered(PARTS[:-2], "tool_calls", logprobs=True, **ASKED)
    assert without_ids(events[-1]["response"]) == without_ids(body)


def test_events_come_in_openais_order_and_name_their_places() -> None:
    kinds = [
        event["type"].removeprefix("response.") for event in streamed([*EVENTS, Finished("stop"), Ended()], **ASKED)
    ]
    assert kinds == [
        "created",
        "in_progress",
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
        "output_item.added",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.annotation.added",
        "output_text.done",
        "content_part.done",
        "content_part.added",
        "refusal.delta",
        "refusal.delta",
        "refusal.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "output_item.done",
        "output_item.added",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "custom_tool_call_input.delta",
        "custom_tool_call_input.done",
        "output_item.done",
        "completed",
    ]


def test_deltas_of_each_place_add_up_to_what_is_done() -> None:
    written: dict[tuple[Any, ...], str] = {}
    done: dict[tuple[Any, ...], str] = {}
    for event in streamed([*EVENTS, Finished("stop"), Ended()], **ASKED):
        place = (event.get("item_id"), event.get("content_index"), event["type"].rpartition(".")[0])
        if event["type"].endswith(".delta"):
            written[place] = written.get(place, "") + event["delta"]
        elif event["type"].endswith(".done") and place[0] and "part" not in event:
            done[place] = next(event[name] for name in ("text", "refusal", "arguments", "input") if name in event)
    assert written == done
    assert len(done) == 5


def test_a_broken_stream_ends_with_one_error_event() -> None:
    renderer = RESPONSES.stream(parsed(stream=True), "r-1")
    renderer.feed([Started("up", "m1"), TextDelta("a")])
    kind, data = renderer.broken(bad_key()).decode().strip().split("\n")
    event = json.loads(data.removeprefix("data: "))
    assert (kind, event["type"], event["code"]) == ("event: error", "error", "invalid_api_key")
    assert event["sequence_number"] == 5, "after created, in progress, item, part and delta"
    assert set(event) == {"type", "sequence_number", "code", "message", "param"}


def test_an_answer_comes_back_as_the_conversation_it_was() -> None:
    """Text and its refusal, thoughts with what seals them, calls with their signatures: nothing changes on the way."""
    body = answered(PARTS, **ASKED)
    items = [item for item in body["output"] if item["type"] != "web_search_call"]
    (message,) = canonical(input=items).messages
    back = [part for part in message.parts if not isinstance(part, Text | Reasoning)]
    assert back == list(PARTS[3:-2])
    thoughts = [(part.text, part.signature, part.redacted) for part in message.parts if isinstance(part, Reasoning)]
    assert thoughts == [("hm", "s1", ""), ("", "", "blob")]
    assert [part.text for part in message.parts if isinstance(part, Text)] == ["Grüße 🙂"]
