"""Conversations and answers that cross from one dialect to another provider's wire format and back.

What both ends can express must arrive unchanged, so canonical values are compared:
requests   dialect bytes -> canonical -> adapter's bytes -> the same wire's dialect -> canonical
answers    adapter's wire -> canonical -> dialect bytes (which the official SDK reads) -> canonical
"""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from anthropic.types import Message as AnthropicMessage
from google.genai.types import GenerateContentResponse
from openai.types.chat import ChatCompletion
from pydantic import BaseModel

from conduit.proxy.dialects.anthropic import ANTHROPIC
from conduit.proxy.dialects.base import DialectModule, Inbound
from conduit.proxy.dialects.gemini import GEMINI
from conduit.proxy.dialects.openai import OPENAI
from providers.adapters.base import Adapter, Upstream
from providers.adapters.registry import adapter_for
from providers.adapters.types import (
    ChatRequest,
    ChatResponse,
    Choice,
    Dialect,
    Document,
    Endpoint,
    Image,
    Media,
    Message,
    Reasoning,
    ResponseFormat,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Usage,
)
from tests.providers.adapters.assembly import assemble, parse_in_pieces

ENDPOINTS = {Dialect.OPENAI: Endpoint.CHAT, Dialect.ANTHROPIC: Endpoint.MESSAGES, Dialect.GEMINI: Endpoint.GENERATE}
MODULES: dict[Dialect, DialectModule] = {
    Dialect.OPENAI: OPENAI,
    Dialect.ANTHROPIC: ANTHROPIC,
    Dialect.GEMINI: GEMINI,
}
SDK_TYPES: dict[Dialect, type[BaseModel]] = {
    Dialect.OPENAI: ChatCompletion,
    Dialect.ANTHROPIC: AnthropicMessage,
    Dialect.GEMINI: GenerateContentResponse,
}
ALL = list(ENDPOINTS)
PAIRS = [(client, provider) for client in ALL for provider in ALL]
UPSTREAM = Upstream(base_url="https://example.org", model="m", secrets={"api_key": "k"})
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}

CONVERSATION = ChatRequest(
    model="m",
    messages=(
        Message("system", (Text("Be kind. ünïcode 🙂"),)),
        Message(
            "user",
            (
                Text("What is on these?"),
                Image(Media(mime="image/png", data="iVBORw0KGgo=")),
                Document(Media(mime="application/pdf", data="JVBERi0=")),
            ),
        ),
        Message(
            "assistant",
            (
                Reasoning(text="Two tools, I think.", signature="c2lnbmF0dXJl"),
                Text("Let me look."),
                ToolCall("call_1", "weather", '{"city":"Paris"}'),
                ToolCall("call_2", "weather", '{"city":"Rome"}'),
            ),
        ),
        Message("tool", (ToolResult("call_1", (Text("Sunny"),), name="weather"),)),
        Message("tool", (ToolResult("call_2", (Text("Rain"),), name="weather"),)),
        Message("user", (Text("And in JSON?"),)),
    ),
    tools=(Tool("weather", "Tells the weather", SCHEMA), Tool("now", "Tells the time", {"type": "object"})),
    tool_choice=ToolChoice("tool", name="weather"),
    max_output_tokens=500,
    temperature=0.5,
    top_p=0.9,
    stop=("END",),
    response_format=ResponseFormat("json_schema", schema=SCHEMA),
    stream=True,
)
ANSWER = ChatResponse(
    id="answer-1",
    model="m",
    choices=(
        Choice(
            parts=(
                Reasoning(text="Hm … 🙂", signature="c2lnbmF0dXJl"),
                Text('It is "sunny".\n'),
                ToolCall("call_1", "weather", '{"city":"Paris"}'),
                ToolCall("call_2", "now", "{}"),
            ),
            finish="tool_calls",
        ),
    ),
    usage=Usage(input_tokens=100, output_tokens=20, cache_read_tokens=60, reasoning_tokens=7),
)


def adapter(dialect: Dialect) -> Adapter:
    return adapter_for(dialect.value, {})


def read(dialect: Dialect, body: bytes) -> ChatRequest:
    inbound = MODULES[dialect].parse(ENDPOINTS[dialect], body, model="m", stream=True)
    request = inbound.canonical()
    assert isinstance(request, ChatRequest)
    return request


def crossed(request: ChatRequest, dialect: Dialect) -> ChatRequest:
    """Through the wire format of `dialect` and back."""
    sent = adapter(dialect).build_request(request, UPSTREAM)
    assert set(sent.dropped) <= {"messages.reasoning", "messages.document.title"}  # OpenAI's documents need a name
    return read(dialect, sent.body)


def compared(request: ChatRequest) -> dict[str, Any]:
    """The request without what dialects may lay out in their own ways: grouping of tool results, names of schemas."""
    messages: list[Message] = []
    for message in request.messages:
        if messages and message.role == "tool" == messages[-1].role:
            messages[-1] = Message("tool", messages[-1].parts + message.parts)
        else:
            messages.append(message)
    wanted = request.response_format
    return {
        "messages": [(message.role, [_part(part) for part in message.parts]) for message in messages],
        "tools": [(tool.name, tool.description, tool.parameters) for tool in request.tools if isinstance(tool, Tool)],
        "choice": request.tool_choice,
        "format": (wanted.kind, wanted.schema) if wanted else None,
        "cap": request.max_output_tokens,
        "sampling": (request.temperature, request.top_p, request.stop),
        "stream": request.stream,
    }


def _part(part: Any) -> Any:
    if isinstance(part, ToolCall):
        return ("call", part.id, part.name, json.loads(part.arguments), part.signature)
    if isinstance(part, ToolResult):
        return ("result", part.call_id, [_part(inner) for inner in part.parts], part.error)
    if isinstance(part, Document):
        return ("document", part.source.mime, part.source.data, part.text)
    if isinstance(part, Reasoning):
        return ("thought", part.text, part.signature, part.redacted)
    return part


def without_thoughts(request: ChatRequest) -> ChatRequest:
    messages = tuple(
        Message(message.role, tuple(part for part in message.parts if not isinstance(part, Reasoning)))
        for message in request.messages
    )
    return msgspec.structs.replace(request, messages=messages)


@pytest.mark.parametrize(("client", "provider"), PAIRS)
def test_a_clients_conversation_arrives_whole_at_any_provider(client, provider):
    """The client's bytes are what its own wire format would carry."""
    asked = crossed(CONVERSATION, client)
    expected = without_thoughts(CONVERSATION) if Dialect.OPENAI in (client, provider) else CONVERSATION
    assert compared(crossed(asked, provider)) == compared(expected)


@pytest.mark.parametrize(("client", "provider"), PAIRS)
def test_signatures_of_calls_come_back_to_the_provider_that_made_them(client, provider):
    """A call's signature is shown to the client in an answer and comes back in its next request."""
    call = ToolCall("call_1", "weather", '{"city":"Paris"}', signature="Z2VtaW5p")
    answer = msgspec.structs.replace(ANSWER, choices=(Choice(parts=(call,), finish="tool_calls"),))
    turn = assistant_turn(client, answer)
    if provider is Dialect.GEMINI:
        body = json.loads(adapter(provider).build_request(turn, UPSTREAM).body)
        part = body["contents"][-1]["parts"][-1]
        assert part["thoughtSignature"] == "Z2VtaW5p"
        assert part["functionCall"]["id"] == "call_1"
    assert [_part(part) for part in turn.messages[-1].parts] == [_part(call)]


def assistant_turn(client: Dialect, answer: ChatResponse) -> ChatRequest:
    """The client's next request: the answer as it was rendered, sent back."""
    shown = json.loads(MODULES[client].render(inbound(client), answer))
    if client is Dialect.OPENAI:
        body: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}, shown["choices"][0]["message"]]}
    elif client is Dialect.ANTHROPIC:
        turn = {"role": "assistant", "content": shown["content"]}
        body = {"max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}, turn]}
    else:
        body = {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}, shown["candidates"][0]["content"]]}
    return read(client, json.dumps({"model": "m", **body} if client is not Dialect.GEMINI else body).encode())


def inbound(client: Dialect) -> Inbound:
    body = adapter(client).build_request(CONVERSATION, UPSTREAM).body
    return MODULES[client].parse(ENDPOINTS[client], body, model="m", stream=True)


def answered(answer: ChatResponse) -> list[Any]:
    """Choices and usage; thoughts first, because one dialect keeps them apart from the rest."""
    choices = [
        (choice.finish, sorted((_part(part) for part in choice.parts if not isinstance(part, Text)), key=repr))
        for choice in answer.choices
    ]
    texts = ["".join(part.text for part in choice.parts if isinstance(part, Text)) for choice in answer.choices]
    return [choices, texts, answer.usage]


def own_wire(dialect: Dialect, answer: ChatResponse) -> bytes:
    """The answer as a provider of this wire format would give it."""
    return MODULES[dialect].render(inbound(dialect), answer)


@pytest.mark.parametrize("client", ALL)
def test_an_answer_is_one_that_the_clients_sdk_reads_and_loses_nothing(client):
    body = own_wire(client, ANSWER)
    SDK_TYPES[client].model_validate_json(body)
    turn = assistant_turn(client, ANSWER)
    assert sorted(map(repr, map(_part, turn.messages[-1].parts))) == sorted(
        map(repr, map(_part, ANSWER.choices[0].parts))
    )


@pytest.mark.parametrize(("client", "provider"), PAIRS)
def test_any_providers_answer_reaches_any_client(client, provider):
    parsed = adapter(provider).parse_response(CONVERSATION, own_wire(provider, ANSWER))
    assert isinstance(parsed, ChatResponse)
    body = MODULES[client].render(inbound(client), parsed)
    SDK_TYPES[client].model_validate_json(body)
    again = adapter(client).parse_response(CONVERSATION, body)
    assert isinstance(again, ChatResponse)
    assert unsigned(again) == unsigned(ANSWER)
    assert again.usage == ANSWER.usage


@pytest.mark.parametrize(("client", "provider"), PAIRS)
def test_any_providers_stream_reaches_any_client(client, provider):
    plain = MODULES[provider].stream(inbound(provider), "r")
    wire = plain.feed(events_of(ANSWER))
    renderer = MODULES[client].stream(inbound(client), "r")
    parser = adapter(provider).stream_parser(CONVERSATION)
    shown = b"".join(renderer.feed(parser.feed(wire[at : at + 20])) for at in range(0, len(wire), 20))
    shown += renderer.feed(parser.close())
    again = assemble(parse_in_pieces(adapter(client).stream_parser(CONVERSATION), shown, 13))
    assert unsigned(again) == unsigned(ANSWER)
    assert again.usage == ANSWER.usage


def events_of(answer: ChatResponse) -> list[Any]:
    from providers.adapters import events as t

    events: list[Any] = [t.Started(id=answer.id, model=answer.model)]
    calls = 0
    for part in answer.choices[0].parts:
        if isinstance(part, Reasoning):
            events += [t.ReasoningDelta(text=part.text), t.ReasoningDelta(signature=part.signature)]
        elif isinstance(part, Text):
            events += [t.TextDelta(letter) for letter in part.text]
        elif isinstance(part, ToolCall):
            events += [t.ToolStarted(calls, part.id, part.name), t.ToolDelta(calls, part.arguments)]
            calls += 1
    assert answer.usage is not None
    return [*events, t.Finished(answer.choices[0].finish), t.UsageSeen(answer.usage), t.Ended()]


def unsigned(answer: ChatResponse) -> list[Any]:
    """Signatures are compared where they are read by the dialect: adapters see them wrapped for Gemini's bytes."""
    choice = answer.choices[0]
    return [
        choice.finish,
        "".join(part.text for part in choice.parts if isinstance(part, Text)),
        "".join(part.text for part in choice.parts if isinstance(part, Reasoning)),
        [(call.id, call.name, json.loads(call.arguments)) for call in choice.parts if isinstance(call, ToolCall)],
    ]
