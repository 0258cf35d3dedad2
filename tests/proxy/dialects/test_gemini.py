"""The Gemini dialect: what clients may send, and what google-genai must be able to read back."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from google.genai.types import GenerateContentResponse

from conduit.proxy import errors
from conduit.proxy.dialects.base import Inbound, ModelEntry
from conduit.proxy.dialects.gemini import GEMINI
from conduit.proxy.dialects.gemini_stream import ArrayFrames
from conduit.proxy.dialects.prompt_tokens import prompt_tokens
from conduit.proxy.errors import ApiError
from providers.adapters.events import (
    Ended,
    Finished,
    ReasoningDelta,
    Started,
    StreamEvent,
    TextDelta,
    ToolDelta,
    ToolStarted,
    UsageSeen,
)
from providers.adapters.gemini import GeminiAdapter
from providers.adapters.types import (
    Audio,
    AudioOutput,
    ChatRequest,
    ChatResponse,
    Choice,
    Dialect,
    Document,
    EmbeddingRequest,
    EmbeddingResponse,
    Endpoint,
    Image,
    Media,
    Message,
    Opaque,
    Reasoning,
    ReasoningSettings,
    ResponseFormat,
    ServerTool,
    Text,
    TokenLogprob,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Usage,
)

PLAIN = base64.b64encode(b"plain").decode()
REQUEST: dict[str, Any] = {
    "systemInstruction": {"parts": [{"text": "Be kind."}]},
    "contents": [
        {"role": "user", "parts": [{"text": "Hi"}, {"inlineData": {"mimeType": "image/png", "data": "-_A="}}]},
        {
            "role": "model",
            "parts": [
                {"text": "h", "thought": True},
                {"text": "m", "thought": True, "thoughtSignature": "c2ln"},
                {"functionCall": {"name": "weather", "args": {"my_city": "Paris"}}, "thoughtSignature": "Y2Fs"},
                {"functionCall": {"id": "f2", "name": "now"}},
                {"executableCode": {"language": "PYTHON", "code": "1"}},
            ],
        },
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"name": "weather", "response": {"output": "Sunny"}}},
                {
                    "functionResponse": {
                        "id": "f2",
                        "name": "now",
                        "response": {"error": "no"},
                        "parts": [{"inlineData": {"mimeType": "image/png", "data": "AAA="}}],
                    }
                },
                {"text": "And?"},
                {"inlineData": {"mimeType": "text/plain", "data": PLAIN}},
                {"inlineData": {"mimeType": "audio/mpeg", "data": "AAA="}},
                {"fileData": {"mimeType": "application/pdf", "fileUri": "https://example.org/a.pdf"}},
            ],
        },
    ],
    "tools": [
        {
            "functionDeclarations": [
                {
                    "name": "weather",
                    "description": "D",
                    "parameters": {
                        "type": "OBJECT",
                        "properties": {"my_city": {"type": "STRING", "nullable": True}},
                        "propertyOrdering": ["my_city"],
                    },
                },
                {"name": "now", "parametersJsonSchema": {"type": "object"}},
            ]
        },
        {"googleSearch": {}},
    ],
    "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["weather", "now"]}},
    "generationConfig": {
        "maxOutputTokens": 500,
        "candidateCount": 2,
        "stopSequences": ["END"],
        "temperature": 1.5,
        "topP": 0.9,
        "topK": 40.0,
        "seed": 7,
        "presencePenalty": 0.5,
        "frequencyPenalty": 0.25,
        "responseMimeType": "application/json",
        "responseSchema": {"type": "ARRAY", "items": {"type": "INTEGER"}, "minItems": "2"},
        "responseLogprobs": True,
        "logprobs": 3,
        "responseModalities": ["TEXT", "AUDIO"],
        "speechConfig": {"voiceConfig": {"prebuiltVoiceConfig": {"voiceName": "Kore"}}},
        "thinkingConfig": {"thinkingBudget": 99, "includeThoughts": True},
        "mediaResolution": "MEDIA_RESOLUTION_LOW",
    },
    "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}],
}
CANONICAL = ChatRequest(
    model="route",
    messages=(
        Message("system", (Text("Be kind."),)),
        Message("user", (Text("Hi"), Image(Media(mime="image/png", data="+/A=")))),
        Message(
            "assistant",
            (
                Reasoning(text="hm", signature="c2ln"),
                ToolCall("call_1", "weather", '{"my_city":"Paris"}', signature="Y2Fs"),
                ToolCall("f2", "now", "{}"),
                Opaque(Dialect.GEMINI, {"executableCode": {"language": "PYTHON", "code": "1"}}, "contents[1].parts[4]"),
            ),
        ),
        Message(
            "tool",
            (
                ToolResult("call_1", (Text("Sunny"),), name="weather"),
                ToolResult("f2", (Text("no"), Image(Media(mime="image/png", data="AAA="))), name="now", error=True),
            ),
        ),
        Message(
            "user",
            (
                Text("And?"),
                Document(Media(mime="text/plain"), text="plain"),
                Audio(Media(mime="audio/mpeg", data="AAA="), format="mp3"),
                Document(Media(mime="application/pdf", url="https://example.org/a.pdf")),
            ),
        ),
    ),
    tools=(
        Tool("weather", "D", {"type": "object", "properties": {"my_city": {"type": ["string", "null"]}}}),
        Tool("now", "", {"type": "object"}),
        ServerTool(Dialect.GEMINI, {"googleSearch": {}}),
    ),
    tool_choice=ToolChoice("required", allowed=("weather", "now")),
    max_output_tokens=500,
    temperature=1.5,
    top_p=0.9,
    top_k=40,
    stop=("END",),
    n=2,
    seed=7,
    presence_penalty=0.5,
    frequency_penalty=0.25,
    logprobs=True,
    top_logprobs=3,
    response_format=ResponseFormat(
        "json_schema", schema={"type": "array", "items": {"type": "integer"}, "minItems": 2}
    ),
    reasoning=ReasoningSettings(budget_tokens=99, show=True),
    modalities=("text", "audio"),
    audio=AudioOutput(voice="Kore"),
    stream=True,
    extra={
        "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}],
        "generationConfig": {"mediaResolution": "MEDIA_RESOLUTION_LOW"},
    },
    extra_dialect=Dialect.GEMINI,
)


def parse(body: dict[str, Any], *, stream: bool = True) -> Inbound:
    return GEMINI.parse(Endpoint.GENERATE, json.dumps(body).encode(), model="route", stream=stream)


INBOUND = parse(REQUEST)


def snake(value: Any) -> Any:
    """The same request in Google's other spelling; the applications' own names are left alone."""
    if isinstance(value, list):
        return [snake(item) for item in value]
    if not isinstance(value, dict):
        return value
    free = ("args", "response", "parameters", "parametersJsonSchema", "responseSchema")
    return {
        "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name): (
            item if name in free else snake(item)
        )
        for name, item in value.items()
    }


def test_a_request_keeps_everything():
    head = INBOUND.head
    assert (head.model, head.stream, head.max_output_tokens, head.n) == ("route", True, 500, 2)
    assert INBOUND.canonical() == CANONICAL


def test_both_spellings_mean_the_same():
    inbound = parse(snake(REQUEST))
    assert inbound.head == INBOUND.head
    canonical = inbound.canonical()
    assert canonical == CANONICAL
    assert b"system_instruction" in inbound.body  # what goes to Google itself is the client's own


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "contents"),
        ({"contents": []}, "contents"),
        ({"contents": [{"parts": [{"text": 3}]}]}, "contents[0].parts[0].text"),
        ({"contents": [{"parts": [{"inlineData": {"mimeType": "a/b"}}]}]}, "contents[0].parts[0].inlineData.data"),
        ({**REQUEST, "generationConfig": {"maxOutputTokens": -1}}, "generationConfig.maxOutputTokens"),
        ({**REQUEST, "generationConfig": {"maxOutputTokens": "1e3"}}, "generationConfig.maxOutputTokens"),
        ({**REQUEST, "generationConfig": {"max_output_tokens": True}}, "generationConfig.maxOutputTokens"),
        ({**REQUEST, "generation_config": {}}, "generationConfig"),
        (
            {**REQUEST, "generationConfig": {"maxOutputTokens": 1, "max_output_tokens": 9}},
            "generationConfig.maxOutputTokens",
        ),
        ({**REQUEST, "generationConfig": {"candidateCount": 0}}, "generationConfig.candidateCount"),
        ({**REQUEST, "tools": {"functionDeclarations": []}}, "tools"),
    ],
)
def test_wrong_fields_are_named_at_once(body, param):
    with pytest.raises(ApiError) as caught:
        parse(body)
    assert (caught.value.status, caught.value.param) == (400, param)


def test_wrong_roles_and_modes_are_named_when_they_are_translated():
    for change, param in (
        ({"contents": [{"role": "owner", "parts": [{"text": "x"}]}]}, "contents[0].role"),
        ({"toolConfig": {"functionCallingConfig": {"mode": "SOME"}}}, "toolConfig.functionCallingConfig.mode"),
    ):
        with pytest.raises(ApiError) as caught:
            parse({**REQUEST, **change}).canonical()
        assert caught.value.param == param


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'{"a_b":NaN}', b"[" * 99999, b'{"a_b":' + b"[" * 99999])
def test_rubbish_is_a_400(body):
    with pytest.raises(ApiError) as caught:
        GEMINI.parse(Endpoint.GENERATE, body, model="m")
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("config", "settings"),
    [
        ({"thinkingBudget": 0}, ReasoningSettings(off=True)),
        ({"thinkingBudget": -1}, ReasoningSettings(adaptive=True)),
        ({"thinkingLevel": "HIGH"}, ReasoningSettings(effort="high")),
    ],
)
def test_thinking_is_understood(config, settings):
    request = parse({**REQUEST, "generationConfig": {"thinkingConfig": config}}).canonical()
    assert isinstance(request, ChatRequest)
    assert request.reasoning == settings


# --- answers -------------------------------------------------------------------------------------------------------

PARTS = (
    Reasoning(text="hm", signature="a+b/c=="),
    Reasoning(redacted="blob+/"),
    Text("Paris."),
    Image(Media(mime="image/png", data="AAA=")),
    ToolCall("c1", "weather", '{"city":"Paris"}', signature="not base64!"),
    ToolCall("c2", "now", "{}"),
)
USAGE = Usage(input_tokens=100, output_tokens=20, cache_read_tokens=60, reasoning_tokens=7, audio_input_tokens=8)
RESPONSE = ChatResponse(id="x-1", model="some-model", choices=(Choice(parts=PARTS, finish="tool_calls"),), usage=USAGE)


def sdk(body: bytes) -> GenerateContentResponse:
    return GenerateContentResponse.model_validate_json(body)


def test_an_answer_is_one_that_the_sdk_reads():
    body = GEMINI.render(INBOUND, RESPONSE)
    answer = sdk(body)
    assert answer.text == "Paris."
    assert answer.candidates is not None
    assert answer.candidates[0].finish_reason == "STOP"
    usage = json.loads(body)["usageMetadata"]
    # 20 out, 7 of them thoughts: 13 candidates' tokens; 100 + 20 in total
    assert (usage["candidatesTokenCount"], usage["thoughtsTokenCount"], usage["totalTokenCount"]) == (13, 7, 120)
    assert GeminiAdapter().read_usage(Endpoint.GENERATE, body) == USAGE


def test_signatures_of_other_providers_survive_the_sdks_bytes():
    """google-genai decodes signatures to bytes and writes them in another alphabet."""
    content = sdk(GEMINI.render(INBOUND, RESPONSE)).candidates[0].content  # type: ignore[index]
    assert content is not None
    sent = json.loads(content.model_dump_json(by_alias=True, exclude_none=True))
    request = parse({"contents": [{"role": "user", "parts": [{"text": "Hi"}]}, sent]}).canonical()
    assert isinstance(request, ChatRequest)
    assert request.messages[1].parts == PARTS


@pytest.mark.parametrize(
    ("finish", "reason"),
    [
        ("stop", "STOP"),
        ("tool_calls", "STOP"),
        ("stop_sequence", "STOP"),
        ("pause", "STOP"),
        ("", "STOP"),
        ("length", "MAX_TOKENS"),
        ("content_filter", "SAFETY"),
        ("refusal", "SAFETY"),
        ("error", "OTHER"),
    ],
)
def test_every_finish_has_a_reason(finish, reason):
    logprobs = (TokenLogprob("a", -0.5, top=(TokenLogprob("b", -1.0),)),)
    choice = Choice(parts=(Text("a"),), finish=finish, logprobs=logprobs)
    answer = sdk(GEMINI.render(INBOUND, ChatResponse(id="", model="", choices=(choice,), usage=None)))
    assert answer.candidates is not None
    assert answer.candidates[0].finish_reason == reason
    assert answer.model_version == "route"


EVENTS: list[StreamEvent] = [
    Started(id="x-1", model="some-model"),
    ReasoningDelta(text="h"),
    ReasoningDelta(text="m"),
    ReasoningDelta(signature="sig"),
    TextDelta("Par"),
    TextDelta("is."),
    ToolStarted(0, "c1", "weather", signature="call"),
    ToolDelta(0, '{"city":'),
    ToolDelta(0, '"Paris"}'),
    ToolStarted(1, "c2", "now"),
    Finished("tool_calls"),
    UsageSeen(USAGE),
    Ended(),
]


def chunks_of(stream: bytes) -> list[dict[str, Any]]:
    return [json.loads(frame.removeprefix(b"data: ")) for frame in stream.split(b"\r\n\r\n")[:-1]]


@pytest.mark.parametrize("at_once", [False, True])
def test_a_stream_says_what_the_whole_answer_says(at_once):
    renderer = GEMINI.stream(INBOUND, "req-1")
    stream = renderer.feed(EVENTS) if at_once else b"".join(renderer.feed([event]) for event in EVENTS)
    chunks = chunks_of(stream)
    for chunk in chunks:
        sdk(json.dumps(chunk).encode())
    assert ["finishReason" in chunk["candidates"][0] for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert GeminiAdapter().read_usage(Endpoint.GENERATE, json.dumps(chunks[-1]).encode()) == USAGE
    parts = [part for chunk in chunks for part in chunk["candidates"][0]["content"]["parts"]]
    request = parse({"contents": [{"role": "user", "parts": [{"text": "Hi"}]}, {"role": "model", "parts": parts}]})
    canonical = request.canonical()
    assert isinstance(canonical, ChatRequest)
    told = canonical.messages[1].parts
    assert "".join(part.text for part in told if isinstance(part, Text)) == "Paris."
    assert [part for part in told if not isinstance(part, Text)] == [
        Reasoning(text="hm", signature="sig"),
        ToolCall("c1", "weather", '{"city":"Paris"}', signature="call"),
        ToolCall("c2", "now", "{}"),
    ]


def test_a_broken_stream_tells_no_finish():
    renderer = GEMINI.stream(INBOUND, "req-1")
    sent = renderer.feed([*EVENTS[:6], Finished("stop")]) + renderer.broken(errors.internal("req-1"))
    assert b"finishReason" not in sent
    assert chunks_of(sent)[-1]["error"]["status"] == "INTERNAL"


@pytest.mark.parametrize("size", [1, 10, 10**6])
def test_without_sse_a_stream_is_one_json_array(size):
    stream = GEMINI.stream(INBOUND, "r").feed(EVENTS[:6]) + GEMINI.stream(INBOUND, "r").feed(EVENTS)
    frames = ArrayFrames()
    out = b"".join(frames.feed(stream[at : at + size]) for at in range(0, len(stream), size)) + frames.close()
    assert json.loads(out) == chunks_of(stream)
    assert ArrayFrames().close() == b"[]"


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (errors.bad_key(), "UNAUTHENTICATED"),
        (errors.model_not_allowed("m"), "PERMISSION_DENIED"),
        (errors.model_not_found("m"), "NOT_FOUND"),
        (errors.invalid_json("x"), "INVALID_ARGUMENT"),
        (errors.too_large(3), "INVALID_ARGUMENT"),
        (errors.rate_limited("x", 3), "RESOURCE_EXHAUSTED"),
        (errors.budget_exceeded("x"), "RESOURCE_EXHAUSTED"),
        (errors.budget_unavailable(), "UNAVAILABLE"),
        (errors.internal("r"), "INTERNAL"),
        (ApiError(502, "api_error", "upstream_invalid_response", "x"), "INTERNAL"),
        (ApiError(504, "api_error", "upstream_timeout", "x"), "DEADLINE_EXCEEDED"),
    ],
)
def test_errors_have_googles_words(error, word):
    body = json.loads(GEMINI.error(error, "req-1"))["error"]
    assert (body["code"], body["status"], body["message"]) == (error.status, word, error.message)
    assert body["details"][0]["metadata"] == {"requestId": "req-1"}
    assert GeminiAdapter().parse_error(error.status, {}, GEMINI.error(error, "r")).retry_after == (
        float(error.headers["retry-after"]) if "retry-after" in error.headers else None
    )


def test_models_are_listed_in_googles_shape():
    body = json.loads(
        GEMINI.models([ModelEntry(name="a", context_window=9, max_output_tokens=5), ModelEntry(name="b")])
    )
    assert [model["name"] for model in body["models"]] == ["models/a", "models/b"]
    assert "generateContent" in body["models"][0]["supportedGenerationMethods"]
    assert (body["models"][0]["inputTokenLimit"], body["models"][0]["outputTokenLimit"]) == (9, 5)
    assert json.loads(GEMINI.model(ModelEntry(name="a")))["name"] == "models/a"


def embed(body: dict[str, Any]) -> Inbound:
    return GEMINI.parse(Endpoint.EMBEDDINGS, json.dumps(body).encode(), model="e")


def test_embeddings_are_single_or_a_batch():
    one = {"content": {"parts": [{"text": "a"}]}, "taskType": "RETRIEVAL_QUERY", "output_dimensionality": 8}
    inbound = embed(one)
    assert inbound.canonical() == EmbeddingRequest(model="e", inputs=("a",), task="RETRIEVAL_QUERY", dimensions=8)
    answer = EmbeddingResponse(model="e", vectors=((0.5, 1.0),), usage=None)
    assert json.loads(GEMINI.render(inbound, answer)) == {"embedding": {"values": [0.5, 1.0]}}
    batch = embed({"requests": [one, {**one, "content": {"parts": [{"text": "b"}]}}]})
    assert batch.head.inputs == 2
    packed = base64.b64encode(b"\x00\x00\x80\x3e").decode()  # 0.25 as a little-endian float32
    answers = EmbeddingResponse(model="e", vectors=(packed, (2.0,)), usage=None)
    assert json.loads(GEMINI.render(batch, answers)) == {"embeddings": [{"values": [0.25]}, {"values": [2.0]}]}
    mixed = embed({"requests": [one, {"content": {"parts": []}}]})
    with pytest.raises(ApiError, match=r"requests\[1\]"):
        mixed.canonical()


def test_tokens_are_counted_for_bare_contents_and_whole_requests():
    def count(body: dict[str, Any]) -> int:
        request = GEMINI.parse_count(json.dumps(body).encode(), model="m").canonical()
        assert isinstance(request, ChatRequest)
        return prompt_tokens(request)

    contents = [{"role": "user", "parts": [{"text": "Hello there"}]}]
    # 3 that prime the answer, 4 that frame the turn and ceil(11 bytes / 4) = 3
    assert count({"contents": contents}) == 10
    whole = {"contents": contents, "systemInstruction": {"parts": [{"text": "Be kind."}]}}
    assert count({"generateContentRequest": {"model": "models/m", **whole}}) == 10 + 4 + 2
    assert GEMINI.render_count(7) == b'{"totalTokens":7}'
    with pytest.raises(ApiError):
        GEMINI.parse_count(b"{}", model="m")
