"""Canonical requests as Gemini's bodies."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from google.genai.types import Content, ToolConfig

from providers.adapters.base import Head, Upstream
from providers.adapters.gemini import GeminiAdapter
from providers.adapters.types import (
    Audio,
    AudioOutput,
    CacheMark,
    ChatRequest,
    Dialect,
    Document,
    EmbeddingRequest,
    Endpoint,
    Image,
    Media,
    Message,
    Reasoning,
    ReasoningSettings,
    ResponseFormat,
    ServerTool,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from providers.errors import CannotCarry

ADAPTER = GeminiAdapter()
HELLO = (Message("user", (Text("Hello"),)),)
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOLS = (Tool("weather", "Tells it", SCHEMA), Tool("now"), ServerTool(Dialect.GEMINI, {"googleSearch": {}}))


def upstream(cap: int | None = None, model: str = "gemini-2.5-flash") -> Upstream:
    return Upstream(base_url="https://g.example.org", model=model, secrets={"api_key": "AIza"}, max_output_tokens=cap)


def asked(**fields: Any) -> ChatRequest:
    return ChatRequest(**{"model": "route", "messages": HELLO, **fields})


def body_of(request: ChatRequest, **where: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    sent = ADAPTER.build_request(request, upstream(**where))
    body = json.loads(sent.body)
    return body, sent.dropped


def test_the_call_has_address_and_key():
    sent = ADAPTER.build_request(asked(), upstream())
    assert (sent.method, sent.url) == ("POST", "https://g.example.org/v1beta/models/gemini-2.5-flash:generateContent")
    assert sent.headers == {"x-goog-api-key": "AIza", "content-type": "application/json"}
    streamed = ADAPTER.build_request(asked(stream=True), upstream(model="models/a/b?c"))
    assert streamed.url == "https://g.example.org/v1beta/models/a%2Fb%3Fc:streamGenerateContent?alt=sse"
    check = ADAPTER.verification(upstream(model=""))
    assert (check.method, check.url) == ("GET", "https://g.example.org/v1beta/models?pageSize=1000")
    assert ADAPTER.parse_models(b'{"models":[{"name":"models/gemini-2.5-flash","version":"1"}]}') == [
        "gemini-2.5-flash"
    ]


def test_turns_results_and_signatures_take_their_places():
    png = base64.b64encode(b"png").decode()
    messages = (
        Message("system", (Text("Be kind."),)),
        Message("system", (Text("Be brief."),)),
        Message("user", (Text("One"), Image(Media(mime="image/png", data=png)))),
        Message(
            "assistant",
            (
                Reasoning(text="hm", signature="c2ln"),
                ToolCall("c1", "weather", '{"city":"Paris","big":12345678901234567890123}', signature="Y2FsbA=="),
                ToolCall("c2", "now", ""),
            ),
        ),
        Message("tool", (ToolResult("c1", (Text("Sunny"), Image(Media(mime="image/png", data=png)))),)),
        Message("tool", (ToolResult("c2", (Text("no clock"),), error=True),)),
        Message("user", (Text("And?"),)),
    )
    assert b"12345678901234567890123" in ADAPTER.build_request(asked(messages=messages), upstream()).body
    body, dropped = body_of(asked(messages=messages))
    assert dropped == ()
    assert body["systemInstruction"] == {"parts": [{"text": "Be kind."}, {"text": "Be brief."}]}
    user, model, results, last = body["contents"]
    assert user == {
        "role": "user",
        "parts": [{"text": "One"}, {"inlineData": {"mimeType": "image/png", "data": png}}],
    }
    assert model["role"] == "model"
    assert model["parts"][0] == {"text": "hm", "thought": True, "thoughtSignature": "c2ln"}
    assert model["parts"][1]["functionCall"]["id"] == "c1"
    assert model["parts"][1]["thoughtSignature"] == "Y2FsbA=="
    assert model["parts"][2] == {"functionCall": {"id": "c2", "name": "now", "args": {}}}
    Content.model_validate_json(json.dumps(model))
    assert [part["functionResponse"]["name"] for part in results["parts"]] == ["weather", "now"]
    first = results["parts"][0]["functionResponse"]
    assert first["response"] == {"output": "Sunny"}
    assert first["parts"] == [{"inlineData": {"mimeType": "image/png", "data": png}}]
    assert results["parts"][1]["functionResponse"]["response"] == {"error": "no clock"}
    assert last == {"role": "user", "parts": [{"text": "And?"}]}


def test_media_take_a_type_from_wherever_it_can_be_known():
    parts = (
        Image(Media(url="https://example.org/a.jpg?x=1")),
        Document(Media(url="https://example.org/a")),
        Audio(Media(data="AAA="), format="mp3"),
        Document(Media(mime="text/plain"), text="plain"),
    )
    body, dropped = body_of(asked(messages=(Message("user", parts),)))
    wires = body["contents"][0]["parts"]
    assert wires[0]["fileData"] == {"mimeType": "image/jpeg", "fileUri": "https://example.org/a.jpg?x=1"}
    assert wires[1]["fileData"]["mimeType"] == "application/pdf"
    assert wires[2]["inlineData"]["mimeType"] == "audio/mpeg"
    assert wires[3]["inlineData"] == {"mimeType": "text/plain", "data": base64.b64encode(b"plain").decode()}
    assert dropped == ()


@pytest.mark.parametrize(
    ("choice", "wire"),
    [
        (ToolChoice("auto"), {"mode": "AUTO"}),
        (ToolChoice("none"), {"mode": "NONE"}),
        (ToolChoice("required"), {"mode": "ANY"}),
        (ToolChoice("required", allowed=("now",)), {"mode": "ANY", "allowedFunctionNames": ["now"]}),
        (ToolChoice("tool", name="weather"), {"mode": "ANY", "allowedFunctionNames": ["weather"]}),
    ],
)
def test_tools_and_choices(choice, wire):
    body, _ = body_of(asked(tools=TOOLS, tool_choice=choice))
    assert body["tools"] == [
        {
            "functionDeclarations": [
                {"name": "weather", "description": "Tells it", "parametersJsonSchema": SCHEMA},
                {"name": "now"},
            ]
        },
        {"googleSearch": {}},
    ]
    assert body["toolConfig"] == {"functionCallingConfig": wire}
    ToolConfig.model_validate(body["toolConfig"])


def test_generation_settings_take_googles_names():
    request = asked(
        max_output_tokens=900,
        n=2,
        stop=("a",),
        temperature=0.5,
        top_p=0.9,
        top_k=3,
        seed=7,
        presence_penalty=0.1,
        frequency_penalty=0.2,
        logprobs=True,
        top_logprobs=4,
        response_format=ResponseFormat(kind="json_schema", schema=SCHEMA),
        modalities=("text", "audio"),
        audio=AudioOutput(voice="Kore"),
        extra={"safetySettings": [{"category": "X"}], "generationConfig": {"mediaResolution": "LOW"}},
        extra_dialect=Dialect.GEMINI,
    )
    body, dropped = body_of(request, cap=100)
    assert dropped == ()
    assert body["generationConfig"] == {
        "mediaResolution": "LOW",
        "maxOutputTokens": 100,
        "candidateCount": 2,
        "stopSequences": ["a"],
        "temperature": 0.5,
        "topP": 0.9,
        "topK": 3,
        "seed": 7,
        "presencePenalty": 0.1,
        "frequencyPenalty": 0.2,
        "responseLogprobs": True,
        "logprobs": 4,
        "responseMimeType": "application/json",
        "responseJsonSchema": SCHEMA,
        "responseModalities": ["TEXT", "AUDIO"],
        "speechConfig": {"voiceConfig": {"prebuiltVoiceConfig": {"voiceName": "Kore"}}},
    }
    assert body["safetySettings"] == [{"category": "X"}]


@pytest.mark.parametrize(
    ("model", "settings", "wire", "dropped"),
    [
        ("gemini-2.5-flash", ReasoningSettings(off=True), {"thinkingBudget": 0}, ()),
        ("gemini-2.5-flash", ReasoningSettings(effort="medium"), {"thinkingBudget": 8192}, ()),
        ("gemini-2.5-flash", ReasoningSettings(adaptive=True), {"thinkingBudget": -1, "includeThoughts": True}, ()),
        (
            "gemini-3-pro",
            ReasoningSettings(effort="xhigh", show=True),
            {"thinkingLevel": "high", "includeThoughts": True},
            (),
        ),
        ("gemini-3-pro", ReasoningSettings(budget_tokens=99), {"thinkingBudget": 99, "includeThoughts": True}, ()),
        ("gemini-3-pro", ReasoningSettings(effort="none"), {"thinkingLevel": "low"}, ("reasoning",)),
    ],
)
def test_reasoning_follows_the_models_generation(model, settings, wire, dropped):
    body, named = body_of(asked(reasoning=settings), model=model)
    assert body["generationConfig"]["thinkingConfig"] == wire
    assert named == dropped


def test_what_cannot_be_carried_is_named():
    parts = (
        Text("x", cache=CacheMark()),
        Reasoning(redacted="blob"),
        Image(Media(file_id="file_1")),
        Document(Media(mime="application/pdf", data="AAA="), title="T", context="C", citations=True),
    )
    request = asked(
        messages=(Message("user", parts, name="bob"),),
        tools=(Tool("t", strict=True), ServerTool(Dialect.ANTHROPIC, {"type": "web_search_20250305"})),
        parallel_tools=False,
        logit_bias={"1": 1.0},
        metadata={"a": "b"},
        store=False,
        verbosity="low",
        user="u",
        service_tier="flex",
        extra={"container": "c"},
        extra_dialect=Dialect.ANTHROPIC,
    )
    assert set(body_of(request)[1]) == {
        "cache_control",
        "messages.reasoning",
        "messages.file_id",
        "messages.document.title",
        "messages.document.context",
        "messages.document.citations",
        "messages.name",
        "tools",
        "tools.strict",
        "parallel_tool_calls",
        "logit_bias",
        "metadata",
        "store",
        "verbosity",
        "user",
        "service_tier",
        "container",
    }


def test_embeddings_go_as_one_batch():
    request = EmbeddingRequest(model="r", inputs=("a", "b"), dimensions=8, task="RETRIEVAL_QUERY", title="t")
    sent = ADAPTER.build_request(request, upstream(model="text-embedding-004"))
    assert sent.url.endswith("/models/text-embedding-004:batchEmbedContents")
    assert json.loads(sent.body)["requests"][1] == {
        "model": "models/text-embedding-004",
        "content": {"parts": [{"text": "b"}]},
        "taskType": "RETRIEVAL_QUERY",
        "title": "t",
        "outputDimensionality": 8,
    }
    with pytest.raises(CannotCarry):
        ADAPTER.build_request(EmbeddingRequest(model="r", inputs=((1, 2),)), upstream())


@pytest.mark.parametrize(
    ("body", "sent"),
    [
        (b'{"contents":[ 1 ]}', b'{"contents":[ 1 ],"generationConfig":{"maxOutputTokens":50}}'),
        (b'{"generationConfig":null}', b'{"generationConfig":{"maxOutputTokens":50}}'),
        (
            b'{"generationConfig":{"maxOutputTokens":9,"topK":1}}',
            b'{"generationConfig":{"maxOutputTokens":50,"topK":1}}',
        ),
        (
            b'{"generation_config":{"max_output_tokens":9,"top_k":1}}',
            b'{"generation_config":{"top_k":1,"maxOutputTokens":50}}',
        ),
    ],
)
def test_pass_through_writes_one_cap_however_the_client_spelled_it(body, sent):
    head = Head(endpoint=Endpoint.GENERATE, model="route", stream=True)
    request = ADAPTER.pass_through(body, head, upstream(50))
    assert request.body == sent
    assert request.url.endswith(":streamGenerateContent?alt=sse")
    assert ADAPTER.pass_through(body, head, upstream()).body is body


def test_pass_through_of_embeddings_renames_the_model_everywhere():
    head = Head(endpoint=Endpoint.EMBEDDINGS, model="route")
    one = ADAPTER.pass_through(b'{"model":"models/route","content":{}}', head, upstream(model="e"))
    assert (one.url[-12:], one.body) == ("embedContent", b'{"model":"models/e","content":{}}')
    many = ADAPTER.pass_through(b'{"requests":[{"model":"models/route","content":{}}]}', head, upstream(model="e"))
    assert (many.url[-18:], many.body) == ("batchEmbedContents", b'{"requests":[{"model":"models/e","content":{}}]}')


def test_tokens_are_counted_by_the_provider_itself():
    sent = ADAPTER.count_tokens(b'{"generateContentRequest":{"model":"models/route","contents":[]}}', upstream())
    assert sent.url.endswith("/models/gemini-2.5-flash:countTokens")
    assert json.loads(sent.body)["generateContentRequest"]["model"] == "models/gemini-2.5-flash"
    assert ADAPTER.read_count(b'{"totalTokens":12}') == 12
