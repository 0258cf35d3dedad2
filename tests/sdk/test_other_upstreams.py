"""Upstreams that we did not write: aimock plays OpenAI, Anthropic, Gemini and a provider that is only compatible.

The provider kinds are the real ones with `base_url` set; clients are the SDKs. What these answers cost is computed by
hand from prices of our own, as aimock tells the tokens that its fixtures say.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest
from google.genai import errors as genai_errors

from conduit.core.actor import SYSTEM
from conduit.core.ids import uuid7
from conduit.core.secret import Secret
from providers.credentials import add_credential
from providers.models import Provider
from tests.harness import oracle
from tests.harness.aimock_server import running_aimock
from tests.harness.gateway import RunningGateway, wait_for
from tests.sdk.conftest import openai_client
from tests.sdk.conversations import FINISH, Talker

pytestmark = [pytest.mark.sdk, pytest.mark.usefixtures("upstreams")]

GREETING = "Good morning to you all, dear people of the wörld 🙂."
TOKENS = {
    "prompt_tokens": 40,
    "completion_tokens": 12,
    "input_tokens": 40,
    "output_tokens": 12,
    "promptTokenCount": 40,
    "candidatesTokenCount": 12,
}
CALLS = [("weather", {"city": "Paris", "days": 2}), ("tides", {"city": "Rome", "days": 3})]
FIXTURES: list[dict[str, Any]] = [
    {"match": {"userMessage": "greet"}, "response": {"content": GREETING, "usage": TOKENS}},
    {
        "match": {"userMessage": "think"},
        "response": {"content": "Done.", "reasoning": "First this, then that.", "reasoningSignature": "c2lnbmVk"},
    },
    {
        "match": {"userMessage": "both", "hasToolResult": True, "toolResultContains": "high at nine"},
        "response": {"content": "Sunny, and high at nine."},
    },
    {
        "match": {"userMessage": "both", "hasToolResult": False},
        "response": {"toolCalls": [{"name": name, "arguments": arguments} for name, arguments in CALLS]},
    },
    {"match": {"inputText": "vector", "endpoint": "embedding"}, "response": {"embedding": [0.25, 0.5]}},
    *(
        {"match": {"userMessage": f"status {status}"}, "response": {"error": {"message": "Their words."}, **more}}
        for status, more in {
            400: {"status": 400},
            401: {"status": 401},
            429: {"status": 429, "retryAfter": 7},
            500: {"status": 500},
        }.items()
    ),
]
# Kind, options and the path of the base URL, as that provider's own SDK takes it.
UPSTREAMS: dict[str, tuple[str, dict[str, Any], str]] = {
    "openai": ("openai", {}, "/v1"),
    "anthropic": ("anthropic", {}, ""),
    "gemini": ("gemini", {}, ""),
    "custom": ("custom", {}, "/v1"),
    "custom-anthropic": ("custom", {"dialect": "anthropic"}, ""),
    "cohere": ("cohere", {}, ""),
    "bedrock": ("bedrock", {}, ""),
    "azure-classic": ("azure_openai", {"api_version": "2024-10-21"}, ""),
}


@pytest.fixture(scope="module")
def upstreams(gateway: RunningGateway, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Routes `mock/NAME` and `mock/NAME-embed` over aimock, priced at 1 and 2 dollars a million tokens."""
    from usage.overrides import set_price

    with running_aimock(tmp_path_factory.mktemp("aimock"), FIXTURES) as url:
        for name, (kind, options, path) in UPSTREAMS.items():
            provider = Provider.objects.create(name=f"mock-{name}", kind=kind, options=options, base_url=url + path)
            add_credential(provider, actor=SYSTEM, name="main", fields={"api_key": Secret("sk-mock")}, verify=False)
            gateway.route(f"mock/{name}", (provider, "mock-1"))
        set_price("mock-1", actor=SYSTEM, rates={"input": "1", "output": "2"})
        gateway.refresh()
        yield
    gateway.ship()
    assert oracle.verified() == []


@pytest.fixture(params=list(UPSTREAMS))
def upstream(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def test_a_chat_is_answered_and_paid_for(
    gateway: RunningGateway, talker: Talker, dialect: str, upstream: str, stream: bool
) -> None:
    from usage.models import UsageEvent

    since = uuid7()
    said = talker.ask(f"mock/{upstream}", "greet", stream=stream)
    assert (said.text, said.finish, said.tokens) == (GREETING, FINISH["stop"][dialect], (40, 12))

    def there() -> bool:
        gateway.ship()
        return UsageEvent.objects.filter(id__gte=since).exists()

    wait_for(there)
    event = UsageEvent.objects.get(id__gte=since)
    assert (event.input_tokens, event.output_tokens, event.exactness) == (40, 12, "exact")
    assert event.cost_nanos == 40 * 1_000 + 12 * 2_000


@pytest.mark.filterwarnings("ignore:FUNCTION_CALL is not a valid FinishReason")
def test_tools_are_called_in_parallel_and_their_results_read(
    talker: Talker, dialect: str, upstream: str, stream: bool
) -> None:
    tools = ("weather", "tides")
    called = talker.ask(f"mock/{upstream}", "both", stream=stream, tools=tools)
    assert called.calls == CALLS
    passed_through = upstream == dialect == "gemini"  # aimock has a word of its own there
    assert called.finish == ("FUNCTION_CALL" if passed_through else FINISH["calls"][dialect])
    told = talker.results(called, "sunny", "high at nine")
    answered = talker.ask(f"mock/{upstream}", "both", stream=stream, tools=tools, then=told)
    assert answered.text == "Sunny, and high at nine."


def test_reasoning_is_shown(talker: Talker, dialect: str, upstream: str, stream: bool) -> None:
    if upstream == "cohere":
        pytest.skip("aimock writes Cohere's thoughts as text")
    said = talker.ask(f"mock/{upstream}", "think", stream=stream)
    assert (said.thought, said.text) == ("First this, then that.", "Done.")
    if upstream.endswith("anthropic") and dialect != "gemini":
        assert said.signature.endswith("c2lnbmVk")  # behind the mark of its maker, in another dialect


RAISED: dict[str, dict[int, type[Exception]]] = {
    "openai": {
        400: openai.BadRequestError,
        401: openai.InternalServerError,
        429: openai.RateLimitError,
        500: openai.InternalServerError,
    },
    "anthropic": {
        400: anthropic.BadRequestError,
        401: anthropic.InternalServerError,
        429: anthropic.RateLimitError,
        500: anthropic.InternalServerError,
    },
    "gemini": {
        400: genai_errors.ClientError,
        401: genai_errors.ServerError,
        429: genai_errors.ClientError,
        500: genai_errors.ServerError,
    },
}
RAISED["responses"] = RAISED["openai"]


def test_their_errors_raise_the_class_that_fits(talker: Talker, dialect: str, upstream: str) -> None:
    for status, raised in RAISED[dialect].items():
        for stream in (False, True):
            with pytest.raises(raised) as failed:
                talker.ask(f"mock/{upstream}", f"status {status}", stream=stream)
            if status == 400:
                assert "Their words." in str(failed.value)
            if status == 429:
                answer: Any = getattr(failed.value, "response", None)
                assert answer.headers["retry-after"] == "7"


@pytest.mark.parametrize("name", ["openai", "custom", "cohere"])
def test_embeddings_are_vectors(gateway: RunningGateway, name: str) -> None:
    with openai_client(gateway.url, gateway.raw_key) as client:
        answer = client.embeddings.create(model=f"mock/{name}", input=["vector"], encoding_format="float")
    assert answer.data[0].embedding == [0.25, 0.5]
