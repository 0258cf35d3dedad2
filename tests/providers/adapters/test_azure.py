"""Azure OpenAI: the v1 endpoint and classic deployments, addressed as the openai package addresses them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from providers.adapters.base import Head, Upstream, UpstreamRequest
from providers.adapters.events import Finished, TextDelta, UsageSeen
from providers.adapters.registry import adapter_for
from providers.adapters.types import ChatRequest, ChatResponse, EmbeddingRequest, Endpoint, Message, Text, Usage
from providers.errors import AuthRejected, RateLimited, RequestRejected
from tests.harness.clouds import Clouds, running_clouds

ADAPTER = adapter_for("azure_openai", {})
HELLO = ChatRequest(model="r", messages=(Message("user", (Text("Hello"),)),))
VERSION = "2024-10-21"


@pytest.fixture(scope="module")
def clouds() -> Iterator[Clouds]:
    with running_clouds() as running:
        running.api_keys.add("k-1")
        yield running


def upstream(base_url: str, secrets: Any = None, **options: Any) -> Upstream:
    return Upstream(base_url=base_url, model="gpt-4o", secrets=secrets or {"api_key": "k-1"}, options=options)


def where(request: UpstreamRequest, base: str) -> str:
    return request.url.removeprefix(base)


@pytest.mark.parametrize("path", ["", "/openai", "/openai/v1"])
def test_classic_deployments_are_addressed_and_told_as_the_openai_package_does(clouds: Clouds, path: str) -> None:
    chat = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}], "max_completion_tokens": 9}
    with openai.AzureOpenAI(azure_endpoint=clouds.url, api_key="k-1", api_version=VERSION, max_retries=0) as client:
        client.chat.completions.create(**chat)  # type: ignore[call-overload]
        wanted, headers, sent = clouds.sent[-1]
        client.models.list()
        listed = clouds.sent[-1][0]
    target = upstream(clouds.url + path, api_version=VERSION)
    head = Head(endpoint=Endpoint.CHAT, model="r")
    ours = ADAPTER.pass_through(json.dumps({**chat, "model": "r"}).encode(), head, target)
    assert where(ours, clouds.url) == wanted == f"/openai/deployments/gpt-4o/chat/completions?api-version={VERSION}"
    assert json.loads(ours.body) == json.loads(sent)
    assert ours.headers["api-key"] == headers["api-key"] == "k-1"
    built = ADAPTER.build_request(HELLO, target)
    assert built.url == ours.url
    assert where(ADAPTER.verification(target), clouds.url) == listed == f"/openai/models?api-version={VERSION}"
    vectors = ADAPTER.build_request(EmbeddingRequest(model="r", inputs=("a",)), target)
    assert where(vectors, clouds.url) == f"/openai/deployments/gpt-4o/embeddings?api-version={VERSION}"


@pytest.mark.parametrize("version", [{}, {"api_version": VERSION}])
def test_a_target_may_be_named_by_its_model_where_deployments_have_names_of_their_own(version: dict[str, Any]) -> None:
    base = "https://house.openai.azure.com/openai/v1"
    target = upstream(base, deployments={"gpt-4o": "prod chat"}, **version)
    built = ADAPTER.build_request(HELLO, target)
    passed = ADAPTER.pass_through(b'{"model":"r"}', Head(endpoint=Endpoint.CHAT, model="r"), target)
    for made in (built, passed):
        assert json.loads(made.body)["model"] == "prod chat"
        classic = (
            f"https://house.openai.azure.com/openai/deployments/prod%20chat/chat/completions?api-version={VERSION}"
        )
        assert made.url == (classic if version else f"{base}/chat/completions")


def test_a_token_of_entra_is_a_bearer_at_a_deployment_too() -> None:
    target = upstream("https://house.openai.azure.com", {"access_token": "t-1", "client_secret": "s"}, api_version="1")
    built = ADAPTER.build_request(HELLO, target)
    assert (built.headers["authorization"], "api-key" in built.headers) == ("Bearer t-1", False)


# --- what Azure adds to answers -------------------------------------------------------------------------------------

SAFE = {"hate": {"filtered": False, "severity": "safe"}}
FILTERED: list[dict[str, Any]] = [
    {"id": "", "object": "", "created": 0, "model": "", "choices": []}
    | {"prompt_filter_results": [{"prompt_index": 0, "content_filter_results": SAFE}]},
    {
        "id": "c1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "gpt-4o",
        "choices": [
            {
                "index": 0,
                "delta": {"role": "assistant", "content": "Hello"},
                "finish_reason": None,
                "content_filter_results": SAFE,
            }
        ],
    },
    {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o"}
    | {"choices": [{"index": 0, "delta": {}, "finish_reason": "content_filter"}]},
    {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o", "choices": []}
    | {"usage": {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}},
]
STREAM = b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in FILTERED) + b"data: [DONE]\n\n"


def test_a_stream_with_filter_results_is_read_and_relayed() -> None:
    events = ADAPTER.stream_parser(HELLO).feed(STREAM)
    assert [event.text for event in events if isinstance(event, TextDelta)] == ["Hello"]
    assert [event.finish for event in events if isinstance(event, Finished)] == ["content_filter"]
    assert [event.usage for event in events if isinstance(event, UsageSeen)] == [Usage(input_tokens=9, output_tokens=2)]
    relay = ADAPTER.relay(Head(endpoint=Endpoint.CHAT, model="r", stream=True, include_usage=True))
    assert relay.feed(STREAM) + relay.close() == STREAM
    assert (relay.usage, relay.ended) == (Usage(input_tokens=9, output_tokens=2), True)


def test_a_whole_answer_with_filter_results_is_read() -> None:
    message = {"role": "assistant", "content": "Hello"}
    body = {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", "content_filter_results": SAFE}],
        "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": SAFE}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11},
    }
    read = ADAPTER.parse_response(HELLO, json.dumps(body).encode())
    assert isinstance(read, ChatResponse)
    assert read.choices[0].parts == (Text("Hello"),)
    assert read.usage == ADAPTER.read_usage(Endpoint.CHAT, json.dumps(body).encode())


@pytest.mark.parametrize(
    ("status", "body", "kind", "code", "message"),
    [
        (
            400,
            {
                "error": {
                    "message": "The response was filtered.",
                    "type": None,
                    "param": "prompt",
                    "code": "content_filter",
                    "status": 400,
                    "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": SAFE},
                }
            },
            RequestRejected,
            "content_filter",
            "The response was filtered.",
        ),
        (
            404,
            {"error": {"code": "DeploymentNotFound", "message": "The API deployment does not exist."}},
            RequestRejected,
            "DeploymentNotFound",
            "The API deployment does not exist.",
        ),
        (401, {"statusCode": 401, "message": "Invalid key"}, AuthRejected, "upstream_auth_failed", "Invalid key"),
        (401, {"error": {"code": "PermissionDenied", "message": "No"}}, AuthRejected, "PermissionDenied", "No"),
        (429, {"error": {"code": "429", "message": "Slow down"}}, RateLimited, "429", "Slow down"),
    ],
)
def test_errors_of_azure_are_what_they_are(
    status: int, body: dict[str, Any], kind: type[Exception], code: str, message: str
) -> None:
    found = ADAPTER.parse_error(status, {"retry-after": "7"}, json.dumps(body).encode())
    assert type(found) is kind
    assert (found.code, found.message, found.retry_after) == (code, message, 7)
