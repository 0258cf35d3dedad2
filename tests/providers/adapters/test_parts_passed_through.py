"""Media in requests that are relayed as they are: a vendor gets what its row claims, as it would translated."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from providers.adapters.base import Head, Upstream, UpstreamRequest
from providers.adapters.registry import KINDS, adapter_for
from providers.adapters.types import Audio, ChatRequest, Dialect, Document, Endpoint, Image, Media, Message, Text
from providers.errors import CannotCarry

URL = "data:image/png;base64,AAAA"
FILE = {"file_data": "data:application/pdf;base64,AAAA", "filename": "a.pdf"}
CHAT: dict[str, dict[str, Any]] = {
    "image": {"type": "image_url", "image_url": {"url": URL}},
    "audio": {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
    "document": {"type": "file", "file": FILE},
}
RESPONSES: dict[str, dict[str, Any]] = {
    "image": {"type": "input_image", "image_url": URL},
    "audio": {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
    "document": {"type": "input_file", **FILE},
}
PARTS: dict[str, Any] = {
    "image": Image(Media(url="https://example.org/a.png")),
    "audio": Audio(Media(data="AAAA", mime="audio/wav"), format="wav"),
    "document": Document(Media(data="AAAA", mime="application/pdf")),
}
SEVERAL = [kind for kind, row in KINDS.items() if row.quirks is not None and Endpoint.RESPONSES in row.endpoints]
RELAYED = [
    kind
    for kind, row in KINDS.items()
    if row.quirks is not None and (Dialect.OPENAI, Endpoint.CHAT) in adapter_for(kind, {}).native
]
# Words that look like parts from afar, where they are none.
MENTIONS: dict[str, Any] = {
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"properties": {"file": {}}}}}],
    "metadata": {"file": "image_url", "input_audio": "input_file"},
}
SAID = 'a "file", an "image_url", an "input_audio", an "input_image", an "input_file"'


def target(kind: str) -> Upstream:
    base_url = KINDS[kind].address("", {"account": "acc"}) or "https://w.example.org/v1"
    return Upstream(base_url=base_url, model="m", secrets={"api_key": "k"})


def relayed(kind: str, endpoint: Endpoint, body: dict[str, Any], **options: str) -> UpstreamRequest:
    adapter = adapter_for(kind, options)
    return adapter.pass_through(json.dumps(body).encode(), Head(endpoint=endpoint, model="r"), target(kind))


def asked(part: dict[str, Any]) -> dict[str, Any]:
    return {"model": "r", "messages": [{"role": "user", "content": [{"type": "text", "text": "Look"}, part]}]}


@pytest.mark.parametrize("name", CHAT)
@pytest.mark.parametrize("kind", RELAYED)
def test_a_part_is_refused_relayed_as_it_is_translated_and_else_stays(kind: str, name: str) -> None:
    request = ChatRequest(model="r", messages=(Message(role="user", parts=(Text("Look"), PARTS[name])),))
    body, row = asked(CHAT[name]), KINDS[kind].quirks
    assert row is not None
    if name in row.parts:
        adapter_for(kind, {}).build_request(request, target(kind))
        assert json.loads(relayed(kind, Endpoint.CHAT, body).body)["messages"] == body["messages"]
        return
    with pytest.raises(CannotCarry) as translated:
        adapter_for(kind, {}).build_request(request, target(kind))
    with pytest.raises(CannotCarry) as caught:
        relayed(kind, Endpoint.CHAT, body)
    assert (caught.value.field, caught.value.detail) == (translated.value.field, translated.value.detail)
    assert caught.value.field == f"messages.{name}"


@pytest.mark.parametrize("name", RESPONSES)
@pytest.mark.parametrize("kind", SEVERAL)
def test_a_part_of_the_responses_api_is_refused_where_the_row_lacks_it_and_else_stays(kind: str, name: str) -> None:
    said = {"type": "input_text", "text": "Look"}
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    message = {"role": "user", "content": [said, RESPONSES[name]]}
    result = {"type": "function_call_output", "call_id": "c", "output": [RESPONSES[name]]}
    row = KINDS[kind].quirks
    assert row is not None
    for items in ([message], [call, result]):
        body = {"model": "r", "input": items}
        if name in row.parts:
            assert json.loads(relayed(kind, Endpoint.RESPONSES, body).body)["input"] == items
            continue
        with pytest.raises(CannotCarry) as caught:
            relayed(kind, Endpoint.RESPONSES, body)
        assert caught.value.field == f"messages.{name}"


@pytest.mark.parametrize("endpoint", [Endpoint.CHAT, Endpoint.RESPONSES])
def test_words_that_only_look_like_parts_are_relayed_byte_for_byte(endpoint: Endpoint) -> None:
    """Names of tools' parameters and of what a tool was called with are the caller's own."""
    said: list[dict[str, Any]] = [
        {"role": "user", "content": SAID},
        {"role": "user", "content": [{"type": "text", "text": SAID, "file": None}]},
        {"type": "computer_call_output", "call_id": "c", "output": {"type": "file", "file": [1, "file", None]}},
        {"role": "assistant", "content": None, "output": ["file", {"type": ["file"]}]},
        {"type": "shell_call_output", "call_id": "c", "output": 7},
    ]
    member = "messages" if endpoint is Endpoint.CHAT else "input"
    request = relayed("groq", endpoint, {"model": "r", member: said, **MENTIONS})
    assert bytes(msgspec.json.decode(request.body, type=dict[str, msgspec.Raw])[member]) == json.dumps(said).encode()
    text = relayed("groq", endpoint, {"model": "r", member: SAID, **MENTIONS})
    assert json.loads(text.body)[member] == SAID


def test_ollamas_api_in_openais_manner_takes_images_and_no_files() -> None:
    assert relayed("ollama", Endpoint.CHAT, asked(CHAT["image"]), dialect="openai").dropped == ()
    with pytest.raises(CannotCarry, match=r"messages\.document"):
        relayed("ollama", Endpoint.CHAT, asked(CHAT["document"]), dialect="openai")


@pytest.mark.parametrize("kind", ["openai", "azure_openai", "custom"])
def test_a_kind_without_limits_of_its_row_gets_whatever_the_caller_sends(kind: str) -> None:
    for part in CHAT.values():
        assert json.loads(relayed(kind, Endpoint.CHAT, asked(part)).body)["messages"] == asked(part)["messages"]
