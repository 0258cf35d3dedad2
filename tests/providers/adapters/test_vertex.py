"""Vertex AI: what each wire format's requests are, held against what Google's and Anthropic's own clients send."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable
from typing import Any

import anthropic
import httpx
import httpx2
import pytest
from google import genai
from google.genai import types as genai_types
from google.oauth2.credentials import Credentials

from providers import errors
from providers.adapters.base import Head, Upstream
from providers.adapters.registry import KINDS, adapter_for
from providers.adapters.types import (
    ChatRequest,
    ChatResponse,
    Dialect,
    EmbeddingRequest,
    EmbeddingResponse,
    Endpoint,
    Message,
    Text,
    Usage,
)

REGIONS = {
    "us-east1": "us-east1-aiplatform.googleapis.com",
    "global": "aiplatform.googleapis.com",
    "us": "aiplatform.us.rep.googleapis.com",
    "eu": "aiplatform.eu.rep.googleapis.com",
}
HELLO = (Message(role="user", parts=(Text(text="Hello"),)),)


def adapter(model: str) -> Any:
    return adapter_for("vertex", {}, model)


def upstream(model: str, region: str = "us-east1", cap: int | None = None, **options: Any) -> Upstream:
    return Upstream(
        base_url=KINDS["vertex"].base_url.replace("{region}", region),
        model=model,
        secrets={"access_token": "t-1", "project_id": "own"},
        options=options,
        region=region,
        max_output_tokens=cap,
    )


def asking(**settings: Any) -> ChatRequest:
    return ChatRequest(model="r", messages=HELLO, **settings)


def googles(region: str, ask: Callable[[genai.Client], object]) -> httpx.Request:
    """What google-genai sends. Its release knows no multi-regions: hosts are compared elsewhere."""
    sent: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(200, json={"candidates": [], "predictions": [], "totalTokens": 1})

    options = genai_types.HttpOptions(api_version="v1", client_args={"transport": httpx.MockTransport(answer)})
    client = genai.Client(
        vertexai=True, project="own", location=region, credentials=Credentials("t-1"), http_options=options
    )
    ask(client)
    return sent[0]


def anthropics(region: str, *, stream: bool, **more: Any) -> httpx2.Request:
    sent: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        sent.append(request)
        return httpx2.Response(500, json={})

    client = anthropic.AnthropicVertex(
        region=region,
        project_id="own",
        access_token="t-1",
        max_retries=0,
        http_client=httpx2.Client(transport=httpx2.MockTransport(answer)),
    )
    with pytest.raises(anthropic.InternalServerError):
        client.messages.create(
            model="claude-sonnet-4-5@20250929",
            max_tokens=9,
            messages=[{"role": "user", "content": [{"type": "text", "text": "Hello"}]}],
            stream=stream,
            **more,
        )
    return sent[0]


@pytest.mark.parametrize(
    ("model", "wire"),
    [
        ("gemini-2.5-flash", Dialect.GEMINI),
        ("google/gemini-2.5-flash", Dialect.GEMINI),
        ("publishers/google/models/gemini-2.5-pro", Dialect.GEMINI),
        ("gemini-embedding-001", Dialect.GEMINI),
        ("text-embedding-005", Dialect.GEMINI),
        ("text-multilingual-embedding-002", Dialect.GEMINI),
        ("claude-sonnet-4-5@20250929", Dialect.ANTHROPIC),
        ("anthropic/claude-opus-4-1", Dialect.ANTHROPIC),
        ("meta/llama-4-maverick-17b-128e-instruct-maas", Dialect.OPENAI),
        ("google/gemma-3-27b-it-maas", Dialect.OPENAI),
        ("", Dialect.OPENAI),
    ],
)
def test_a_models_name_chooses_its_wire_format(model: str, wire: Dialect) -> None:
    assert adapter(model).wire is wire


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("model", ["gemini-2.5-flash", "claude-sonnet-4-5@20250929", "meta/llama-3.3"])
def test_each_region_has_its_host_and_everything_lies_below_its_project(region: str, model: str) -> None:
    made = adapter(model).build_request(asking(), upstream(model, region))
    assert made.url.startswith(f"https://{REGIONS[region]}/v1/projects/own/locations/{region}/")
    assert made.headers["authorization"] == "Bearer t-1"
    assert not {"x-api-key", "x-goog-api-key", "openai-project"} & made.headers.keys()
    other = adapter(model).build_request(asking(), upstream(model, region, project="other"))
    assert "/projects/other/" in other.url
    proof = adapter(model).verification(upstream(model, region))
    assert proof.url.startswith(f"https://{REGIONS[region]}/v1beta1/publishers/google/models")


# --- Gemini -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("region", ["us-east1", "global"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", ["gemini-2.5-flash", "google/gemini-2.5-flash"])
def test_gemini_is_asked_as_googles_own_client_asks(region: str, stream: bool, name: str) -> None:
    config = genai_types.GenerateContentConfig(max_output_tokens=9, temperature=0.5, seed=7)

    def ask(client: genai.Client) -> object:
        asked = {"model": name, "contents": "Hello", "config": config}
        if stream:
            return list(client.models.generate_content_stream(**asked))
        return client.models.generate_content(**asked)

    theirs = googles(region, ask)
    made = adapter(name).build_request(asking(temperature=0.5, seed=7, stream=stream), upstream(name, region, cap=9))
    assert made.url == str(theirs.url)
    ours, said = json.loads(made.body), json.loads(theirs.content)
    assert ours["generationConfig"] == said["generationConfig"]
    assert ours["contents"] == said["contents"]


def test_gemini_passed_through_keeps_labels_and_safety_and_gets_one_cap() -> None:
    body = {
        "contents": [{"role": "user", "parts": [{"text": "Hello"}]}],
        "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_ONLY_HIGH"}],
        "labels": {"team": "one"},
        "generationConfig": {"maxOutputTokens": 99},
    }
    head = Head(endpoint=Endpoint.GENERATE, model="r", stream=True)
    chosen = adapter("gemini-2.5-flash")
    assert (Dialect.GEMINI, Endpoint.GENERATE) in chosen.native
    made = chosen.pass_through(json.dumps(body).encode(), head, upstream("gemini-2.5-flash", cap=9))
    assert made.url.endswith("/publishers/google/models/gemini-2.5-flash:streamGenerateContent?alt=sse")
    assert json.loads(made.body) == {**body, "generationConfig": {"maxOutputTokens": 9}}


@pytest.mark.parametrize("wrapped", [False, True])
def test_tokens_are_counted_as_googles_own_client_counts(wrapped: bool) -> None:
    theirs = googles("us-east1", lambda google: google.models.count_tokens(model="gemini-2.5-flash", contents="Hi"))
    inner: dict[str, Any] = {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}
    request = {"generateContentRequest": {**inner, "model": "models/x", "safetySettings": []}} if wrapped else inner
    made = adapter("gemini-2.5-flash").count_tokens(json.dumps(request).encode(), upstream("gemini-2.5-flash"))
    assert made.url == str(theirs.url)
    assert json.loads(made.body) == json.loads(theirs.content)


def test_what_gemini_spent_is_counted_with_what_only_vertex_tells() -> None:
    answer = {
        "candidates": [{"content": {"role": "model", "parts": [{"text": "Hi"}]}, "finishReason": "STOP"}],
        "usageMetadata": {
            "promptTokenCount": 100,
            "cachedContentTokenCount": 60,
            "candidatesTokenCount": 13,
            "thoughtsTokenCount": 7,
            "totalTokenCount": 120,
            "trafficType": "ON_DEMAND",
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 100}],
        },
        "modelVersion": "gemini-2.5-flash",
        "createTime": "2026-01-02T03:04:05Z",
        "responseId": "r1",
    }
    read = adapter("gemini-2.5-flash").parse_response(asking(), json.dumps(answer).encode())
    assert isinstance(read, ChatResponse)
    # 13 of the answer and 7 of thoughts are 20 out; 60 of the 100 in came from the cache.
    assert read.usage == Usage(input_tokens=100, output_tokens=20, cache_read_tokens=60, reasoning_tokens=7)


# --- embeddings ---------------------------------------------------------------------------------------------------

TWO = EmbeddingRequest(model="r", inputs=("one", "two"), dimensions=2, task="RETRIEVAL_DOCUMENT", title="T", user="bob")


def test_texts_are_embedded_as_googles_own_client_does() -> None:
    config = genai_types.EmbedContentConfig(task_type="RETRIEVAL_DOCUMENT", title="T", output_dimensionality=2)
    theirs = googles(
        "us-east1",
        lambda client: client.models.embed_content(model="text-embedding-005", contents=["one", "two"], config=config),
    )
    made = adapter("text-embedding-005").build_request(TWO, upstream("text-embedding-005"))
    assert made.url == str(theirs.url)
    assert json.loads(made.body) == json.loads(theirs.content)
    assert made.dropped == ("user",)


def test_their_vectors_come_with_the_tokens_they_took() -> None:
    predictions = [
        {"embeddings": {"values": [0.5, 1.0], "statistics": {"token_count": 4, "truncated": False}}},
        {"embeddings": {"values": [0.0, -2.0], "statistics": {"token_count": 2, "truncated": False}}},
    ]
    body = json.dumps({"predictions": predictions, "metadata": {"billableCharacterCount": 6}}).encode()
    read = adapter("text-embedding-005").parse_response(TWO, body)
    assert isinstance(read, EmbeddingResponse)
    assert read.vectors == ((0.5, 1.0), (0.0, -2.0))
    assert read.usage == Usage(input_tokens=6)  # 4 + 2
    coded = EmbeddingRequest(model="r", inputs=("one", "two"), encoding="base64")
    packed = adapter("text-embedding-005").parse_response(coded, body)
    assert isinstance(packed, EmbeddingResponse)
    assert struct.unpack("<2f", base64.b64decode(str(packed.vectors[1]))) == (0.0, -2.0)
    for wrong in (b"", b"{}", b'{"predictions":[]}', json.dumps({"predictions": predictions[:1]}).encode()):
        with pytest.raises(errors.InvalidResponse):
            adapter("text-embedding-005").parse_response(TWO, wrong)


def test_later_models_embed_one_content_and_say_so() -> None:
    one = EmbeddingRequest(model="r", inputs=("one",), dimensions=2, task="CLUSTERING", title="T")
    chosen = adapter("gemini-embedding-2")
    made = chosen.build_request(one, upstream("gemini-embedding-2"))
    assert made.url.endswith("/publishers/google/models/gemini-embedding-2:embedContent")
    wanted = {
        "content": {"parts": [{"text": "one"}]},
        "taskType": "CLUSTERING",
        "title": "T",
        "outputDimensionality": 2,
    }
    assert json.loads(made.body) == wanted
    body = b'{"embedding":{"values":[0.5,1.0]},"usageMetadata":{"promptTokenCount":3},"truncated":false}'
    read = chosen.parse_response(one, body)
    assert isinstance(read, EmbeddingResponse)
    assert (read.vectors, read.usage) == (((0.5, 1.0),), Usage(input_tokens=3))
    with pytest.raises(errors.CannotCarry, match="one text a request") as refused:
        chosen.build_request(TWO, upstream("gemini-embedding-2"))
    assert refused.value.field == "input"
    older = adapter("gemini-embedding-001").build_request(TWO, upstream("gemini-embedding-001"))
    assert older.url.endswith(":predict")
    with pytest.raises(errors.CannotCarry, match="lists of tokens"):
        chosen.build_request(EmbeddingRequest(model="r", inputs=((1, 2),)), upstream("gemini-embedding-2"))


# --- Claude -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("stream", [False, True])
def test_claude_is_asked_as_anthropics_own_client_asks(region: str, stream: bool) -> None:
    model = "claude-sonnet-4-5@20250929"
    theirs = anthropics(region, stream=stream, extra_headers={"anthropic-beta": "context-1m-2025-08-07"})
    target = upstream(model, region, cap=9, anthropic_beta="context-1m-2025-08-07")
    made = adapter(model).build_request(asking(stream=stream), target)
    assert made.url.replace("%40", "@") == str(theirs.url).replace("%40", "@")
    ours, said = json.loads(made.body), json.loads(theirs.content)
    assert ours.pop("anthropic_version") == "vertex-2023-10-16"
    assert said.pop("anthropic_version")  # a later one, that changes no field used here
    assert {**said, "stream": stream} == {**ours, "stream": stream}
    assert "model" not in ours
    assert made.headers["anthropic-beta"] == theirs.headers["anthropic-beta"]


def test_claude_passed_through_loses_its_model_and_keeps_the_rest() -> None:
    chosen = adapter("claude-opus-4-1")
    body = b'{"model":"r","max_tokens":99,"messages":[],"system":"Be kind.","stream":true}'
    head = Head(endpoint=Endpoint.MESSAGES, model="r", stream=True, max_output_tokens=99)
    assert (Dialect.ANTHROPIC, Endpoint.MESSAGES) in chosen.native
    made = chosen.pass_through(body, head, upstream("claude-opus-4-1", cap=9, anthropic_version="vertex-2030-01-01"))
    assert made.url.endswith("/publishers/anthropic/models/claude-opus-4-1:streamRawPredict")
    wanted = {
        "max_tokens": 9,
        "messages": [],
        "system": "Be kind.",
        "stream": True,
        "anthropic_version": "vertex-2030-01-01",
    }
    assert json.loads(made.body) == wanted


def test_claudes_tokens_are_counted_beside_the_models() -> None:
    made = adapter("claude-opus-4-1").count_tokens(b'{"model":"r","messages":[]}', upstream("claude-opus-4-1"))
    assert made.url.endswith("/locations/us-east1/publishers/anthropic/models/count-tokens:rawPredict")
    assert json.loads(made.body)["model"] == "claude-opus-4-1"


# --- everybody else, refusals -------------------------------------------------------------------------------------


def test_other_models_are_asked_in_openais_style() -> None:
    model = "meta/llama-4-maverick-17b-128e-instruct-maas"
    made = adapter(model).build_request(asking(), upstream(model))
    assert made.url.endswith("/v1/projects/own/locations/us-east1/endpoints/openapi/chat/completions")
    assert json.loads(made.body)["model"] == model


@pytest.mark.parametrize("model", ["gemini-2.5-flash", "claude-opus-4-1", "meta/llama-3.3"])
@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (403, errors.AuthRejected, "Permission 'aiplatform.endpoints.predict' denied on resource"),
        (403, errors.AuthRejected, "Vertex AI API has not been used in project 1 before or it is disabled."),
        (404, errors.RequestRejected, "Publisher Model `…/gemini-9` was not found or your project has no access"),
        (429, errors.RateLimited, "Resource exhausted. Please try again later."),
    ],
)
def test_googles_words_stay_whatever_speaks(
    model: str, status: int, kind: type[errors.UpstreamRefusal], words: str
) -> None:
    told = {"error": {"code": status, "message": words, "status": "SOME_STATUS"}}
    for body in (told, [told]):  # streams wrap even their errors in an array
        error = adapter(model).parse_error(status, {}, json.dumps(body).encode())
        assert type(error) is kind
        assert words in error.message


def test_nobodys_project_is_told() -> None:
    target = Upstream(base_url="https://x.example.org", model="gemini-3", secrets={"access_token": "t"}, region="r")
    with pytest.raises(errors.CannotCarry, match="project"):
        adapter("gemini-3").build_request(asking(), target)


def test_models_are_listed_by_names_that_are_taken() -> None:
    listed = adapter("").parse_models(b'{"publisherModels":[{"name":"publishers/google/models/gemini-2.5-flash"}]}')
    assert listed == ["google/gemini-2.5-flash"]
    assert (
        adapter(listed[0])
        .build_request(asking(), upstream(listed[0]))
        .url.endswith("/publishers/google/models/gemini-2.5-flash:generateContent")
    )
    for wrong in (b"", b"[]", b'{"publisherModels":3}'):
        with pytest.raises(errors.InvalidResponse):
            adapter("").parse_models(wrong)
