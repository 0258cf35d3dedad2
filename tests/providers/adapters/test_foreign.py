"""Blocks that only the client's wire format knows, for a provider of another one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from conduit.proxy.dialects.registry import DIALECTS
from providers.adapters.foreign import readable
from providers.adapters.types import (
    ChatRequest,
    Dialect,
    EmbeddingRequest,
    Endpoint,
    Message,
    Opaque,
    Text,
    ToolResult,
)
from providers.errors import CannotCarry

FOUND = {
    "type": "search_result",
    "source": "https://facts.example/1",
    "title": "Facts",
    "content": [{"type": "text", "text": "Water is wet."}, {"type": "text", "text": "So is rain."}],
}
FOUND_TEXT = "Facts\nhttps://facts.example/1\n\nWater is wet.\nSo is rain."
TURN = {"role": "user", "content": [{"type": "text", "text": "q"}, {"type": "video"}]}
ASKED = {"role": "assistant", "content": [{"type": "tool_use", "id": "c1", "name": "look", "input": {}}]}
WEIRD: dict[str, Any] = {"weirdPart": {"a": 1}}


def anthropic(*turns: Any, **fields: Any) -> ChatRequest:
    body = {"model": "m", "max_tokens": 9, "messages": list(turns), **fields}
    return chat(Dialect.ANTHROPIC, Endpoint.MESSAGES, body)


def gemini(*contents: Any) -> ChatRequest:
    return chat(Dialect.GEMINI, Endpoint.GENERATE, {"contents": list(contents)})


def chat(dialect: Dialect, endpoint: Endpoint, body: Any) -> ChatRequest:
    request = DIALECTS[dialect].parse(endpoint, json.dumps(body).encode(), model="m").canonical()
    assert isinstance(request, ChatRequest)
    return request


def result(*content: Any) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": list(content)}]}


def gemini_result(**fields: Any) -> dict[str, Any]:
    return {"parts": [{"functionResponse": {"name": "look", "response": {"output": "x"}, **fields}}]}


@pytest.mark.parametrize(
    ("request_", "field", "kind"),
    [
        (anthropic(TURN), "messages[0].content[1]", "video"),
        (anthropic(ASKED, result({"type": "video"})), "messages[1].content[0].content[0]", "video"),
        (anthropic({"role": "user", "content": "x"}, system=[{"type": "video"}]), "system[0]", "video"),
        (gemini({"parts": [WEIRD]}), "contents[0].parts[0]", "weirdPart"),
        (
            gemini({"parts": [{"text": "x"}, {"thought_signature": "eA==", **WEIRD}]}),
            "contents[0].parts[1]",
            "weirdPart",
        ),
        (gemini(gemini_result(parts=[WEIRD])), "contents[0].parts[0].functionResponse.parts[0]", "weirdPart"),
        (
            gemini(gemini_result(parts=[{"inlineData": {"mimeType": "audio/wav", "data": "AAA="}}])),
            "contents[0].parts[0].functionResponse.parts[0]",
            "inlineData",
        ),
    ],
)
def test_what_nobody_else_can_read_is_refused_and_its_place_named(request_: ChatRequest, field: str, kind: str) -> None:
    for wire in Dialect:
        if wire is request_.extra_dialect:
            assert readable(request_, wire) == (request_, ())
            continue
        with pytest.raises(CannotCarry) as refused:
            readable(request_, wire)
        assert refused.value.field == field
        assert kind in refused.value.detail


def test_an_assistants_turn_keeps_it_for_its_adapter_to_name() -> None:
    said = {"role": "assistant", "content": [{"type": "server_tool_use", "id": "s", "name": "n", "input": {}}]}
    for request in (anthropic(said), gemini({"role": "model", "parts": [WEIRD]})):
        assert readable(request, Dialect.OPENAI) == (request, ())


def test_found_passages_are_text_for_others_and_whole_for_their_own_wire() -> None:
    for cited, names in ((False, ()), (True, ("messages.content.citations",))):
        block = {**FOUND, "citations": {"enabled": cited}}
        request = anthropic({"role": "user", "content": [block]}, ASKED, result(block))
        changed, lost = readable(request, Dialect.OPENAI)
        assert lost == names
        assert isinstance(changed, ChatRequest)
        assert changed.messages[0].parts == (Text(FOUND_TEXT),)
        assert changed.messages[2].parts == (ToolResult("c1", (Text(FOUND_TEXT),), name="look"),)
        same, lost = readable(request, Dialect.ANTHROPIC)
        assert (same, lost) == (request, ())
        kept = request.messages[0].parts[0]
        assert isinstance(kept, Opaque)
        assert kept.raw == block


def test_the_rest_stays_as_it_is() -> None:
    plain = ChatRequest(model="m", messages=(Message("user", (Text("x"), ToolResult("c", (Text("y"),)))),))
    embedding = EmbeddingRequest(model="m", inputs=("x",))
    assert readable(plain, Dialect.OPENAI) == (plain, ())
    assert readable(embedding, Dialect.OPENAI) == (embedding, ())


def test_settings_of_geminis_stay_together_for_gemini() -> None:
    body = {"contents": [{"parts": [{"text": "x"}]}], "generationConfig": {"mediaResolution": "LOW"}}
    request = chat(Dialect.GEMINI, Endpoint.GENERATE, body)
    assert readable(request, Dialect.GEMINI) == (request, ())
    changed, _ = readable(request, Dialect.ANTHROPIC)
    assert isinstance(changed, ChatRequest)
    assert changed.extra == {"generationConfig.mediaResolution": "LOW"}
