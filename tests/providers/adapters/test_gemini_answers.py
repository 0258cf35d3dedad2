"""Gemini's answers: whole, streamed and relayed. The fixtures must please google-genai's own types."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from google.genai.types import GenerateContentResponse

from providers.adapters.base import Head
from providers.adapters.events import ToolStarted
from providers.adapters.gemini import GeminiAdapter
from providers.adapters.types import (
    Audio,
    ChatRequest,
    ChatResponse,
    Choice,
    Citation,
    Dialect,
    EmbeddingRequest,
    Endpoint,
    Image,
    Media,
    Opaque,
    Reasoning,
    Text,
    TokenLogprob,
    ToolCall,
    Usage,
)
from providers.errors import AuthRejected, InvalidResponse, Overloaded, RateLimited, RequestRejected, UpstreamCut
from tests.providers.adapters.assembly import assemble, parse_in_pieces

ADAPTER = GeminiAdapter()
REQUEST = ChatRequest(model="gemini", messages=())
HEAD = Head(endpoint=Endpoint.GENERATE, model="gemini", stream=True)
SIGNATURE = base64.b64encode(b"thought one").decode()
CALL_SIGNATURE = base64.b64encode(b"call").decode()
PNG = base64.b64encode(b"\x89PNG").decode()
CODE = {"executableCode": {"language": "PYTHON", "code": "print(1)"}}
PARTS: list[dict[str, Any]] = [
    {"text": "I wonder … 🙂", "thought": True, "thoughtSignature": SIGNATURE},
    {"text": 'It is "sunny".\n'},
    {"inlineData": {"mimeType": "image/png", "data": PNG}},
    CODE,
    {
        "functionCall": {"id": "fc_1", "name": "weather", "args": {"city": "Paris", "days": 3}},
        "thoughtSignature": CALL_SIGNATURE,
    },
    {"functionCall": {"name": "now", "args": {}}},
]
GROUNDING = {
    "groundingChunks": [{"web": {"uri": "https://example.org/weather", "title": "Weather"}}],
    "webSearchQueries": ["weather paris", "paris forecast"],
}
USAGE_WIRE = {
    "promptTokenCount": 120,
    "cachedContentTokenCount": 64,
    "candidatesTokenCount": 40,
    "thoughtsTokenCount": 25,
    "toolUsePromptTokenCount": 11,
    "totalTokenCount": 196,
    "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 100}, {"modality": "AUDIO", "tokenCount": 20}],
    "candidatesTokensDetails": [{"modality": "TEXT", "tokenCount": 30}, {"modality": "AUDIO", "tokenCount": 10}],
}
# 120 prompt (64 of them cached) + 11 of tools' results = 131 in; 40 + 25 thoughts = 65 out.
USAGE = Usage(
    input_tokens=131,
    output_tokens=65,
    cache_read_tokens=64,
    reasoning_tokens=25,
    audio_input_tokens=20,
    audio_output_tokens=10,
    units={"search": 2},
)
BODY: dict[str, Any] = {
    "candidates": [
        {
            "content": {"role": "model", "parts": PARTS},
            "finishReason": "STOP",
            "index": 0,
            "groundingMetadata": GROUNDING,
        }
    ],
    "usageMetadata": USAGE_WIRE,
    "modelVersion": "gemini-2.5-flash",
    "responseId": "resp-1",
}
ANSWER = ChatResponse(
    id="resp-1",
    model="gemini-2.5-flash",
    choices=(
        Choice(
            parts=(
                Reasoning(text="I wonder … 🙂", signature=SIGNATURE),
                Text(
                    text='It is "sunny".\n',
                    citations=(
                        Citation(
                            url="https://example.org/weather",
                            title="Weather",
                            raw={"web": {"uri": "https://example.org/weather", "title": "Weather"}},
                        ),
                    ),
                ),
                Image(source=Media(mime="image/png", data=PNG)),
                Opaque(dialect=Dialect.GEMINI, raw=CODE),
                ToolCall(id="fc_1", name="weather", arguments='{"city":"Paris","days":3}', signature=CALL_SIGNATURE),
                ToolCall(id="call_resp-1_0_1", name="now", arguments="{}"),
            ),
            finish="tool_calls",
        ),
    ),
    usage=USAGE,
)


def chunks_of_stream() -> list[dict[str, Any]]:
    def chunk(parts: list[dict[str, Any]], output: int, **more: Any) -> dict[str, Any]:
        return {
            "candidates": [{"content": {"role": "model", "parts": parts}, "index": 0, **more}],
            "usageMetadata": {"promptTokenCount": 120, "candidatesTokenCount": output, "totalTokenCount": 120 + output},
            "modelVersion": "gemini-2.5-flash",
            "responseId": "resp-1",
        }

    return [
        chunk([{"text": "I wonder ", "thought": True}], 0),
        chunk([{"text": "… 🙂", "thought": True, "thoughtSignature": SIGNATURE}], 1),
        chunk([{"text": "It is "}], 3),
        chunk([{"text": '"sunny".\n'}], 9),
        chunk([], 9, groundingMetadata=GROUNDING),
        chunk([PARTS[2], PARTS[3]], 20),
        chunk([PARTS[4]], 30),
        {**chunk([PARTS[5]], 40, finishReason="STOP"), "usageMetadata": USAGE_WIRE},
    ]


def sse(chunks: list[dict[str, Any]], end: str = "\r\n") -> bytes:
    return b"".join(f"data: {json.dumps(chunk, ensure_ascii=False)}{end}{end}".encode() for chunk in chunks)


STREAM = sse(chunks_of_stream())


def sdk(body: dict[str, Any]) -> GenerateContentResponse:
    return GenerateContentResponse.model_validate_json(json.dumps(body))


def test_the_fixtures_are_what_the_sdk_expects():
    for body in (BODY, *chunks_of_stream()):
        sdk(body)


def test_a_whole_answer_keeps_everything_even_when_it_is_pretty_printed():
    assert ADAPTER.parse_response(REQUEST, json.dumps(BODY).encode()) == ANSWER
    assert ADAPTER.parse_response(REQUEST, json.dumps(BODY, indent=2).encode()) == ANSWER


@pytest.mark.parametrize("end", ["\r\n", "\n"])
@pytest.mark.parametrize("size", [1, 2, 7, 64, 10**6])
def test_a_stream_says_the_same_as_the_whole_answer_however_it_is_cut(size, end):
    stream = sse(chunks_of_stream(), end)
    assert assemble(parse_in_pieces(ADAPTER.stream_parser(REQUEST), stream, size)) == ANSWER


def test_a_stream_without_a_finish_is_cut():
    for stream in (sse(chunks_of_stream()[:-1]), STREAM[:-30]):
        parser = ADAPTER.stream_parser(REQUEST)
        parser.feed(stream)
        with pytest.raises(UpstreamCut):
            parser.close()


def test_with_two_candidates_both_must_finish():
    request = ChatRequest(model="gemini", messages=(), n=2)
    first = {"candidates": [{"content": {"parts": [{"text": "a"}]}, "index": 0, "finishReason": "STOP"}]}
    second = {"candidates": [{"content": {"parts": [{"text": "b"}]}, "index": 1, "finishReason": "MAX_TOKENS"}]}
    answer = assemble(parse_in_pieces(ADAPTER.stream_parser(request), sse([first, second]), 9))
    assert [choice.finish for choice in answer.choices] == ["stop", "length"]
    parser = ADAPTER.stream_parser(request)
    parser.feed(sse([first]))
    with pytest.raises(UpstreamCut):
        parser.close()


def test_signed_text_is_text_and_a_signature_of_its_own():
    part = {"text": "Done.", "thoughtSignature": SIGNATURE}
    body = {"candidates": [{"content": {"parts": [part]}, "finishReason": "STOP"}]}
    whole = ADAPTER.parse_response(REQUEST, json.dumps(body).encode()).choices[0].parts
    streamed = assemble(parse_in_pieces(ADAPTER.stream_parser(REQUEST), sse([body]), 5)).choices[0].parts
    assert whole == streamed == (Text(text="Done."), Reasoning(signature=SIGNATURE))


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("STOP", "stop"),
        ("MAX_TOKENS", "length"),
        ("SAFETY", "content_filter"),
        ("RECITATION", "content_filter"),
        ("PROHIBITED_CONTENT", "content_filter"),
        ("MALFORMED_FUNCTION_CALL", "error"),
        ("SOMETHING_NEW", "stop"),
    ],
)
def test_finish_reasons_have_a_canonical_word(reason, finish):
    body = {"candidates": [{"finishReason": reason}]}
    assert ADAPTER.parse_response(REQUEST, json.dumps(body).encode()).choices[0].finish == finish


def test_a_blocked_prompt_is_a_content_filter_whole_and_streamed():
    body = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 8}}
    sdk(body)
    whole = ADAPTER.parse_response(REQUEST, json.dumps(body).encode())
    streamed = assemble(parse_in_pieces(ADAPTER.stream_parser(REQUEST), sse([body]), 10**6))
    assert whole.choices == streamed.choices == (Choice(finish="content_filter"),)
    assert ADAPTER.read_usage(Endpoint.GENERATE, json.dumps(body).encode()) == Usage(input_tokens=8)


def test_spoken_answers_and_logprobs_are_read():
    candidate = {
        "content": {"parts": [{"inlineData": {"mimeType": "audio/L16;rate=24000", "data": "AAA="}}, {"text": "Hi"}]},
        "finishReason": "STOP",
        "logprobsResult": {
            "chosenCandidates": [{"token": "Hi", "logProbability": -0.1}],
            "topCandidates": [{"candidates": [{"token": "Ho", "logProbability": -2.0}]}],
        },
    }
    choice = ADAPTER.parse_response(REQUEST, json.dumps({"candidates": [candidate]}).encode()).choices[0]
    assert isinstance(choice.parts[0], Audio)
    top = (TokenLogprob(token="Ho", logprob=-2.0),)
    assert choice.logprobs == (TokenLogprob(token="Hi", logprob=-0.1, top=top),)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"promptTokenCount": 5, "candidatesTokenCount": 3}, Usage(input_tokens=5, output_tokens=3)),
        ({"promptTokenCount": 5, "thoughtsTokenCount": 9}, Usage(input_tokens=5, output_tokens=9, reasoning_tokens=9)),
        ({"promptTokenCount": -1, "candidatesTokenCount": 3}, Usage(output_tokens=3, flags=("negative",))),
        ({"promptTokenCount": "5", "candidatesTokenCount": 1e30}, Usage(flags=("text", "huge"))),
        ({"candidatesTokenCount": 3}, Usage(output_tokens=3, flags=("missing",))),
        (
            {"promptTokenCount": 5, "cachedContentTokenCount": 6},
            Usage(input_tokens=5, cache_read_tokens=5, flags=("inconsistent",)),
        ),
        (None, None),
        (7, None),
    ],
)
def test_usage_is_sane_whatever_the_provider_says(usage, expected):
    body = {"candidates": [{"finishReason": "STOP"}], "usageMetadata": usage}
    assert ADAPTER.read_usage(Endpoint.GENERATE, json.dumps(body).encode()) == expected


def test_shrinking_totals_are_flagged_and_not_believed():
    chunks = chunks_of_stream()
    chunks[-1]["usageMetadata"] = {"promptTokenCount": 120, "candidatesTokenCount": 2}
    answer = assemble(parse_in_pieces(ADAPTER.stream_parser(REQUEST), sse(chunks), 10**6))
    assert answer.usage is not None
    assert answer.usage.output_tokens == 30
    assert "decreasing" in answer.usage.flags


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"null", b"{}", b"\xff", b"[" * 100_000])
def test_an_answer_without_candidates_is_invalid(body):
    with pytest.raises(InvalidResponse):
        ADAPTER.read_usage(Endpoint.GENERATE, body)
    with pytest.raises(InvalidResponse):
        ADAPTER.parse_response(REQUEST, body)


def test_embeddings_are_read_single_and_many_and_have_no_usage():
    request = EmbeddingRequest(model="embed", inputs=("a", "b"))
    many = json.dumps({"embeddings": [{"values": [0.5, 1]}, {"values": [2, 3]}]}).encode()
    assert ADAPTER.parse_response(request, many).vectors == ((0.5, 1.0), (2.0, 3.0))
    one = json.dumps({"embedding": {"values": [0.25]}}).encode()
    assert ADAPTER.parse_response(request, one).vectors == ((0.25,),)
    assert ADAPTER.read_usage(Endpoint.EMBEDDINGS, one) is None
    packed = ADAPTER.parse_response(EmbeddingRequest(model="e", inputs=("a",), encoding="base64"), one).vectors
    assert packed == (base64.b64encode(b"\x00\x00\x80\x3e").decode(),)  # 0.25 as a little-endian float32
    with pytest.raises(InvalidResponse):
        ADAPTER.read_usage(Endpoint.EMBEDDINGS, b"{}")


# --- errors --------------------------------------------------------------------------------------------------------


def error_body(code: int, status: str, *details: dict[str, Any]) -> bytes:
    return json.dumps({"error": {"code": code, "message": "Because.", "status": status, "details": details}}).encode()


@pytest.mark.parametrize(
    ("status", "word", "error"),
    [
        (400, "INVALID_ARGUMENT", RequestRejected),
        (401, "UNAUTHENTICATED", AuthRejected),
        (403, "PERMISSION_DENIED", AuthRejected),
        (404, "NOT_FOUND", RequestRejected),
        (429, "RESOURCE_EXHAUSTED", RateLimited),
        (500, "INTERNAL", Overloaded),
        (503, "UNAVAILABLE", Overloaded),
    ],
)
def test_errors_keep_status_and_message(status, word, error):
    found = ADAPTER.parse_error(status, {}, error_body(status, word))
    assert type(found) is error
    assert (found.message, found.status) == ("Because.", status)


def test_waiting_time_and_unknown_keys_are_in_the_details():
    retry = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.5s"}
    assert ADAPTER.parse_error(429, {}, error_body(429, "RESOURCE_EXHAUSTED", retry)).retry_after == 34.5
    assert ADAPTER.parse_error(429, {"retry-after": "2"}, error_body(429, "X", retry)).retry_after == 2.0
    unknown = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
    assert isinstance(ADAPTER.parse_error(400, {}, error_body(400, "INVALID_ARGUMENT", unknown)), AuthRejected)
    wrapped = b"[" + error_body(503, "UNAVAILABLE") + b"]"
    assert ADAPTER.parse_error(503, {}, wrapped).message == "Because."


def test_an_error_within_a_stream_is_raised_after_what_came_before():
    start = sse(chunks_of_stream()[:2])
    stream = start + b"data: " + error_body(503, "UNAVAILABLE") + b"\r\n\r\n"
    relay = ADAPTER.relay(HEAD)
    assert relay.feed(stream) == start
    with pytest.raises(Overloaded):
        relay.close()
    parser = ADAPTER.stream_parser(REQUEST)
    assert parser.feed(stream)
    with pytest.raises(Overloaded, match=r"Because\."):
        parser.feed(b"")


# --- relay ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 3, 50, 10**6])
def test_a_relay_passes_every_byte_and_knows_usage_and_end(size):
    relay = ADAPTER.relay(HEAD)
    out = b"".join(relay.feed(STREAM[at : at + size]) for at in range(0, len(STREAM), size)) + relay.close()
    assert out == STREAM
    assert relay.usage == USAGE
    assert relay.ended
    assert relay.frames == 7  # not the one with citations alone
    text = 'I wonder … 🙂It is "sunny".\n'
    assert relay.text_bytes >= len(text.encode())


@pytest.mark.parametrize(
    ("parts", "frames"),
    [
        ([{"text": ""}], 0),
        ([{"text": "", "thoughtSignature": SIGNATURE}], 0),
        ([{"thoughtSignature": SIGNATURE}], 0),
        ([], 0),
        ([{"text": ""}, {"text": "Hi"}], 1),
        ([{"text": ""}, PARTS[4]], 1),
        ([PARTS[2]], 1),
    ],
    ids=["empty", "signed", "signature", "none", "second", "call", "media"],
)
def test_a_relay_counts_the_frames_in_which_something_is_said(parts, frames):
    relay = ADAPTER.relay(HEAD)
    relay.feed(sse([{"candidates": [{"content": {"role": "model", "parts": parts}, "finishReason": "MAX_TOKENS"}]}]))
    assert relay.frames == frames


def test_calls_of_answers_without_an_id_are_told_apart():
    body = {"candidates": [{"content": {"parts": [PARTS[5], PARTS[5]]}, "finishReason": "STOP", "index": 0}]}
    names: list[str] = []
    for _ in range(2):
        (choice,) = ADAPTER.parse_response(REQUEST, json.dumps(body).encode()).choices
        names += [part.id for part in choice.parts]
        events = ADAPTER.stream_parser(REQUEST).feed(sse([body]))
        names += [event.id for event in events if isinstance(event, ToolStarted)]
    assert len(set(names)) == 8
    assert max(map(len, names)) <= 40, "the longest that OpenAI takes"


def test_a_tools_argument_named_like_a_field_does_not_end_the_stream():
    call = {"functionCall": {"name": "report", "args": {"finishReason": "STOP", "error": "none"}}}
    relay = ADAPTER.relay(HEAD)
    relay.feed(sse([{"candidates": [{"content": {"parts": [call]}, "index": 0}]}]))
    assert not relay.ended
    with pytest.raises(UpstreamCut):
        relay.close()
