"""Mistral's own ways with OpenAI's wire format, judged by the `mistralai` package (tests/conformance/wires)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from providers.adapters.base import Upstream, UpstreamRequest
from providers.adapters.mistral import MistralAdapter
from providers.adapters.mistral_messages import short_id
from providers.adapters.types import (
    Audio,
    ChatRequest,
    ChatResponse,
    Dialect,
    Document,
    EmbeddingRequest,
    Image,
    Media,
    Message,
    Reasoning,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Usage,
)
from providers.errors import CannotCarry
from tests.conformance.wires import mistral_openai
from tests.providers.adapters.assembly import assemble, parse_in_pieces

ADAPTER = MistralAdapter()
TARGET = Upstream(base_url="https://api.mistral.ai/v1", model="mistral-large-latest", secrets={"api_key": "k"})
HELLO = (Message("user", (Text("Hello"),)),)
ASKED = ChatRequest(model="r", messages=HELLO)


def sent(upstream: Upstream = TARGET, **given: Any) -> tuple[dict[str, Any], UpstreamRequest]:
    request = ADAPTER.build_request(ChatRequest(**{"model": "r", "messages": HELLO, **given}), upstream)
    mistral_openai.facts(request)
    return json.loads(request.body), request


def test_settings_have_mistrals_names_and_what_it_refuses_is_named() -> None:
    body, request = sent(
        seed=0,
        stream=True,
        max_output_tokens=70,
        user="u",
        logit_bias={"1": 1.0},
        store=True,
        verbosity="low",
        service_tier="auto",
        messages=(Message("user", (Text("Hi"),), name="alice"),),
        extra={"safe_prompt": True, "prompt_mode": "reasoning", "web_search_options": {}},
        extra_dialect=Dialect.OPENAI,
    )
    assert (body["random_seed"], body["max_tokens"], body["safe_prompt"], body["prompt_mode"]) == (
        *(0, 70),
        *(True, "reasoning"),
    )
    assert not {"seed", "stream_options", "max_completion_tokens"} & set(body)
    named = {"user", "logit_bias", "store", "verbosity", "service_tier", "messages.name", "web_search_options"}
    assert set(request.dropped) == named


def test_parts_of_messages_have_mistrals_form() -> None:
    parts = (
        Text("Look"),
        Image(Media(url="https://example.org/a.png"), detail="low"),
        Audio(Media(data="UklGRg=="), format="wav"),
        Document(Media(url="https://example.org/a.pdf"), title="A"),
        Document(Media(data="JVBERg==", mime="application/pdf")),
        Document(Media(file_id="f-1")),
    )
    body, request = sent(messages=(Message("user", parts),))
    assert body["messages"][0]["content"] == [
        {"type": "text", "text": "Look"},
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png", "detail": "low"}},
        {"type": "input_audio", "input_audio": "UklGRg=="},
        {"type": "document_url", "document_url": "https://example.org/a.pdf", "document_name": "A"},
        {"type": "document_url", "document_url": "data:application/pdf;base64,JVBERg=="},
        {"type": "file", "file_id": "f-1"},
    ]
    assert request.dropped == ()


def test_calls_and_results_keep_together_under_ids_that_mistral_takes() -> None:
    assert short_id("aB3dE6gH9") == "aB3dE6gH9"
    assert short_id("call_1") == short_id("call_1") != short_id("call_2")
    turns = (
        Message("assistant", (Reasoning("Hm.", signature="s"), Text("One moment."), ToolCall("call_1", "f", "{}"))),
        Message("tool", (ToolResult("call_1", (Text("4"),), name="f"),)),
    )
    body, _ = sent(messages=turns)
    said, result = body["messages"]
    assert said["content"] == [
        {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}], "signature": "s"},
        {"type": "text", "text": "One moment."},
    ]
    assert said["tool_calls"][0]["id"] == result["tool_call_id"] == short_id("call_1")


def test_a_choice_among_some_tools_is_made_by_what_is_offered() -> None:
    choice = ToolChoice("required", allowed=("g",))
    body, request = sent(tools=(Tool("f"), Tool("g")), tool_choice=choice)
    assert ([tool["function"]["name"] for tool in body["tools"]], body["tool_choice"]) == (["g"], "required")
    assert request.dropped == ()


THOUGHT = [
    {"type": "thinking", "thinking": [{"type": "text", "text": "Two "}, {"type": "text", "text": "and two."}]},
    {"type": "text", "text": "4"},
]


@pytest.mark.parametrize("size", [1, 7, 10**6])
def test_thoughts_among_the_content_are_thoughts_whole_and_streamed(size: int) -> None:
    body = {
        "id": "m-1",
        "model": "magistral",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": THOUGHT}, "finish_reason": "model_length"}
        ],
        "usage": {
            "prompt_tokens": 30,
            "completion_tokens": 9,
            "total_tokens": 39,
            "prompt_tokens_details": {"cached_tokens": 16},
        },
    }
    answer = ADAPTER.parse_response(ASKED, json.dumps(body).encode())
    assert isinstance(answer, ChatResponse)
    assert answer.choices[0].parts == (Reasoning("Two and two."), Text("4"))
    assert answer.choices[0].finish == "length"
    assert answer.usage == Usage(input_tokens=30, output_tokens=9, cache_read_tokens=16)
    stream = mistral_openai.stream(answer)
    streamed = assemble(parse_in_pieces(ADAPTER.stream_parser(ASKED), stream, size))
    assert streamed.choices[0].parts == answer.choices[0].parts
    assert streamed.usage == answer.usage


@pytest.mark.parametrize(
    ("body", "message", "param"),
    [
        (
            {"detail": [{"type": "extra_forbidden", "loc": ["body", "messages", 0, "name"], "msg": "Extra inputs"}]},
            "messages.0.name: Extra inputs",
            "messages.0.name",
        ),
        ({"object": "error", "message": {"detail": [{"loc": [], "msg": "Bad"}]}}, "Bad", None),
        ({"object": "error", "message": "Invalid model: x", "type": "invalid_model"}, "Invalid model: x", None),
        ({"detail": "Unauthorized"}, "Unauthorized", None),
    ],
)
def test_its_errors_are_told_in_one_sentence(body: Any, message: str, param: str | None) -> None:
    found: Any = ADAPTER.parse_error(422, {}, json.dumps(body).encode())
    assert (found.message, found.param, found.status) == (message, param, 422)


def test_embeddings_have_its_name_for_dimensions_and_no_lists_of_tokens() -> None:
    request = ADAPTER.build_request(EmbeddingRequest(model="r", inputs=("a",), dimensions=256, user="u"), TARGET)
    assert mistral_openai.vectors_asked(request) == {"inputs": ["a"], "dimensions": 256, "base64": False}
    assert request.dropped == ("user",)
    with pytest.raises(CannotCarry, match="input"):
        ADAPTER.build_request(EmbeddingRequest(model="r", inputs=((1,),)), TARGET)
