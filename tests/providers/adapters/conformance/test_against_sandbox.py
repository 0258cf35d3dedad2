"""Every adapter the sandbox offers a wire format for, over real sockets against the sandbox provider."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from providers import errors
from providers.adapters.base import Adapter, Head, Relay, Upstream, UpstreamRequest
from providers.adapters.registry import KINDS, adapter_for
from providers.adapters.types import (
    ChatRequest,
    ChatResponse,
    EmbeddingRequest,
    EmbeddingResponse,
    Endpoint,
    Message,
    Reasoning,
    Text,
    Tool,
    ToolCall,
)
from tests.harness.sandbox import KEY, RunningSandbox, running_sandbox
from tests.providers.adapters.assembly import assemble, parse_in_pieces

WIRES = {
    "openai": Endpoint.CHAT,
    "responses": Endpoint.RESPONSES,
    "anthropic": Endpoint.MESSAGES,
    "gemini": Endpoint.GENERATE,
}
TOOLS = (
    Tool(
        name="weather", parameters={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    ),
    Tool(name="clock", parameters={"type": "object", "properties": {"zone": {"type": "string"}}, "required": ["zone"]}),
)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[RunningSandbox]:
    with running_sandbox() as running:
        yield running


@pytest.fixture(params=list(KINDS["sandbox"].adapters))
def dialect(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def upstream(sandbox: RunningSandbox, model: str, key: str = KEY, **scripted: str) -> Upstream:
    headers = {f"x-sandbox-{name.replace('_', '-')}": value for name, value in scripted.items()}
    options = {"sandbox_headers": headers}
    return Upstream(base_url=sandbox.url, model=model, secrets={"api_key": key}, options=options, attempt="att_1")


def adapter_of(dialect: str) -> Adapter:
    return adapter_for("sandbox", {"dialect": dialect})


def send(request: UpstreamRequest) -> httpx.Response:
    return httpx.request(
        request.method, request.url, headers=request.headers, content=request.body, timeout=20, trust_env=False
    )


def relayed_to_the_end(relay: Relay, stream: bytes) -> bytes:
    return relay.feed(stream) + relay.close()


def asking(text: str, *, stream: bool = False, **fields: Any) -> ChatRequest:
    return ChatRequest(model="r", messages=(Message(role="user", parts=(Text(text=text),)),), stream=stream, **fields)


def both(sandbox: RunningSandbox, dialect: str, model: str, text: str, **fields: Any) -> ChatResponse:
    """The answer, after the streamed one, parsed and relayed, was found to say the same."""
    adapter, target = adapter_of(dialect), upstream(sandbox, model)
    plain, streamed = asking(text, **fields), asking(text, stream=True, **fields)
    body = send(adapter.build_request(plain, target)).content
    whole = adapter.parse_response(plain, body)
    assert isinstance(whole, ChatResponse)
    stream = send(adapter.build_request(streamed, target)).content
    together = assemble(parse_in_pieces(adapter.stream_parser(streamed), stream, 11))
    relay = adapter.relay(Head(endpoint=WIRES[dialect], model=model, stream=True, include_usage=True))
    assert relayed_to_the_end(relay, stream) == stream
    assert [(choice.finish, _kinds(choice.parts)) for choice in together.choices] == [
        (choice.finish, _kinds(choice.parts)) for choice in whole.choices
    ]
    assert together.usage == whole.usage == relay.usage == adapter.read_usage(WIRES[dialect], body)
    assert whole.usage is not None
    assert whole.usage.flags == ()
    assert min(whole.usage.input_tokens, whole.usage.output_tokens, relay.frames) > 0
    return whole


def _kinds(parts: tuple[Any, ...]) -> list[tuple[str, ...]]:
    """Parts without the ids that a provider makes anew for each answer."""
    said: list[tuple[str, ...]] = []
    for part in parts:
        if isinstance(part, Text):
            said.append(("text", part.text))
        elif isinstance(part, Reasoning):
            said.append(("reasoning", part.text, part.signature))
        elif isinstance(part, ToolCall):
            said.append(("call", part.name, part.arguments.replace(" ", "")))
        else:
            said.append((type(part).__name__,))
    return said


def test_an_echo(sandbox: RunningSandbox, dialect: str) -> None:
    whole = both(sandbox, dialect, "sandbox-echo", 'Grüße, 🙂 \\ "quoted"\nline two')
    assert _kinds(whole.choices[0].parts) == [("text", 'Grüße, 🙂 \\ "quoted"\nline two')]
    assert whole.choices[0].finish == "stop"


def test_the_output_cap_is_kept(sandbox: RunningSandbox, dialect: str) -> None:
    whole = both(sandbox, dialect, "sandbox-lorem", "words: 200", max_output_tokens=7)
    assert whole.choices[0].finish == "length"
    assert whole.usage is not None
    assert whole.usage.output_tokens <= 7


def test_parallel_tools(sandbox: RunningSandbox, dialect: str) -> None:
    whole = both(sandbox, dialect, "sandbox-tools", "parallel, please", tools=TOOLS)
    calls = [part for part in whole.choices[0].parts if isinstance(part, ToolCall)]
    assert [call.name for call in calls] == ["weather", "clock"]
    assert whole.choices[0].finish == "tool_calls"


def test_reasoning_with_its_signature(sandbox: RunningSandbox, dialect: str) -> None:
    whole = both(sandbox, dialect, "sandbox-think", "Why?")
    thoughts = [part for part in whole.choices[0].parts if isinstance(part, Reasoning)]
    assert thoughts
    assert thoughts[0].text


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("401", errors.AuthRejected),
        ("429", errors.RateLimited),
        ("500", errors.Overloaded),
        ("503", errors.Overloaded),
        ("400", errors.RequestRejected),
    ],
)
def test_scripted_errors(sandbox: RunningSandbox, dialect: str, status: str, kind: type[Exception]) -> None:
    adapter = adapter_of(dialect)
    target = upstream(sandbox, "sandbox-echo", status=status, retry_after="3")
    answer = send(adapter.build_request(asking("Hello"), target))
    error = adapter.parse_error(answer.status_code, answer.headers, answer.content)
    assert type(error) is kind
    assert error.message
    if status == "429":
        assert error.retry_after == 3


def test_an_error_in_a_stream(sandbox: RunningSandbox, dialect: str) -> None:
    adapter = adapter_of(dialect)
    request = asking("Hello to all of you", stream=True)
    target = upstream(sandbox, "sandbox-echo", error_200="1")
    stream = send(adapter.build_request(request, target)).content
    with pytest.raises(errors.UpstreamRefusal):
        parse_in_pieces(adapter.stream_parser(request), stream, 5)
    relay = adapter.relay(Head(endpoint=WIRES[dialect], model="m", stream=True))
    with pytest.raises(errors.UpstreamRefusal):
        relayed_to_the_end(relay, stream)


def test_the_credential_is_verified_by_listing_models(sandbox: RunningSandbox, dialect: str) -> None:
    adapter = adapter_of(dialect)
    answer = send(adapter.verification(upstream(sandbox, "")))
    assert answer.status_code == 200
    assert "sandbox-echo" in adapter.parse_models(answer.content)
    refused = send(adapter.verification(upstream(sandbox, "", key="wrong")))
    error = adapter.parse_error(refused.status_code, refused.headers, refused.content)
    assert isinstance(error, errors.UpstreamRefusal)
    assert error.message


@pytest.mark.parametrize("wire", ["openai", "gemini"])
def test_embeddings(sandbox: RunningSandbox, wire: str) -> None:
    adapter = adapter_of(wire)
    request = EmbeddingRequest(model="r", inputs=("a", "b"))
    answer = send(adapter.build_request(request, upstream(sandbox, "sandbox-embed")))
    vectors = adapter.parse_response(request, answer.content)
    assert isinstance(vectors, EmbeddingResponse)
    assert [len(vector) for vector in vectors.vectors] == [8, 8]
    assert vectors.vectors[0] != vectors.vectors[1]
