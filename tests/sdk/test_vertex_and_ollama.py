"""Vertex AI and Ollama behind a gateway: every dialect's own SDK in front, aimock and the fake clouds behind.

aimock plays Ollama and Gemini on Vertex; the clouds' server plays Claude on Vertex and Google's token service, and lets
nobody in without a token of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from google import genai
from google.genai import types as genai_types

from conduit.core.actor import SYSTEM
from conduit.core.ids import uuid7
from providers.credentials import add_credential
from providers.models import Provider
from providers.secret_fields import parse_fields
from tests.harness import oracle
from tests.harness.aimock_server import running_aimock
from tests.harness.clouds import Clouds, running_clouds
from tests.harness.gateway import RunningGateway, wait_for
from tests.sdk.conftest import openai_client
from tests.sdk.conversations import FINISH, Talker

pytestmark = pytest.mark.sdk

GREETING = "Good morning to you all, dear people of the wörld 🙂."
TOKENS = {"promptTokenCount": 40, "candidatesTokenCount": 12}
CALLS = [("weather", {"city": "Paris", "days": 2}), ("tides", {"city": "Rome", "days": 3})]
FIXTURES: list[dict[str, Any]] = [
    {"match": {"userMessage": "greet"}, "response": {"content": GREETING, "usage": TOKENS}},
    {"match": {"userMessage": "think"}, "response": {"content": "Done.", "reasoning": "First this, then that."}},
    {
        "match": {"userMessage": "both", "hasToolResult": True},
        "response": {"content": "Sunny, and high at nine."},
    },
    {
        "match": {"userMessage": "both", "hasToolResult": False},
        "response": {"toolCalls": [{"name": name, "arguments": json.dumps(given)} for name, given in CALLS]},
    },
    {
        "match": {"userMessage": "missing"},
        "response": {"error": {"message": "Publisher Model not found."}, "status": 404},
    },
]
GEMINI, CLAUDE, EMBEDDING = "gemini-mock", "claude-mock", "text-embedding-mock"


@pytest.fixture(scope="module")
def clouds() -> Iterator[Clouds]:
    with running_clouds() as running:
        yield running


@pytest.fixture(scope="module", autouse=True)
def upstreams(gateway: RunningGateway, clouds: Clouds, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Routes `ollama`, `vertex-gemini`, `vertex-claude` and `vertex-embed`, at 1 and 2 dollars a million tokens."""
    from usage.overrides import set_price

    with running_aimock(tmp_path_factory.mktemp("aimock"), FIXTURES) as url:
        ollama = Provider.objects.create(name="ollama", kind="ollama", base_url=url)
        add_credential(ollama, actor=SYSTEM, name="none", fields={}, verify=False)
        gateway.route("ollama", (ollama, "mock-1"))
        for route, address, model in (
            ("vertex-gemini", url, GEMINI),
            ("vertex-claude", clouds.url, CLAUDE),
            ("vertex-embed", clouds.url, EMBEDDING),
        ):
            provider = Provider.objects.create(name=route, kind="vertex", base_url=address, region="us-east1")
            fields = parse_fields(_vertex(), fields={"service_account": clouds.account()})
            add_credential(provider, actor=SYSTEM, name="main", fields=fields, verify=False)
            gateway.route(route, (provider, model))
        for model in ("mock-1", GEMINI, CLAUDE, EMBEDDING):
            rates = {"input": "1", "output": "2", "cache_read": "0.1", "cache_write_5m": "1.25", "cache_write_1h": "2"}
            set_price(model, actor=SYSTEM, rates=rates)
        gateway.refresh()
        wait_for(lambda: _ready(gateway), 30)
        yield
    gateway.ship()
    assert oracle.verified() == []


def _vertex() -> Any:
    from providers.adapters.registry import KINDS

    return KINDS["vertex"]


def _ready(gateway: RunningGateway) -> bool:
    """Once every token was bought: until then a route has no credential."""
    routing = gateway.app.gateway.snapshot.routing
    return all(target.provider.credentials for name in ROUTES for target in routing.routes[name].targets)


ROUTES = ("ollama", "vertex-gemini", "vertex-claude", "vertex-embed")


def last_event(since: Any, gateway: RunningGateway) -> Any:
    from usage.models import UsageEvent

    def there() -> bool:
        gateway.ship()
        return UsageEvent.objects.filter(id__gte=since).exists()

    wait_for(there)
    return UsageEvent.objects.get(id__gte=since)


def test_ollama_answers_in_every_dialect(talker: Talker, dialect: str, stream: bool) -> None:
    said = talker.ask("ollama", "greet", stream=stream)
    assert (said.text, said.finish) == (GREETING, FINISH["stop"][dialect])
    assert talker.ask("ollama", "think", stream=stream).thought == "First this, then that."


@pytest.mark.filterwarnings("ignore:FUNCTION_CALL is not a valid FinishReason")
@pytest.mark.parametrize("route", ["ollama", "vertex-gemini"])
def test_tools_are_called_and_their_results_read(talker: Talker, route: str, stream: bool) -> None:
    tools = ("weather", "tides")
    called = talker.ask(route, "both", stream=stream, tools=tools)
    assert called.calls == CALLS
    answered = talker.ask(route, "both", stream=stream, tools=tools, then=talker.results(called, "sunny", "high"))
    assert answered.text == "Sunny, and high at nine."


def test_what_ollama_does_not_count_is_estimated_and_never_free(
    gateway: RunningGateway, talker: Talker, stream: bool
) -> None:
    since = uuid7()
    talker.ask("ollama", "greet", stream=stream)  # aimock says that nothing was read or written
    event = last_event(since, gateway)
    assert (event.exactness, event.cost_nanos > 0) == ("estimated", True)


def test_gemini_at_vertex_answers_and_is_paid_for(
    gateway: RunningGateway, talker: Talker, dialect: str, stream: bool
) -> None:
    since = uuid7()
    said = talker.ask("vertex-gemini", "greet", stream=stream)
    assert (said.text, said.finish, said.tokens) == (GREETING, FINISH["stop"][dialect], (40, 12))
    event = last_event(since, gateway)
    assert (event.input_tokens, event.output_tokens, event.exactness) == (40, 12, "exact")
    assert event.cost_nanos == 40 * 1_000 + 12 * 2_000


def test_claude_at_vertex_answers_and_is_paid_for(
    gateway: RunningGateway, clouds: Clouds, talker: Talker, dialect: str, stream: bool
) -> None:
    since = uuid7()
    said = talker.ask("vertex-claude", "Hello", stream=stream)
    # 30 fresh, 60 from the cache, 10 written to it: 100 in. Anthropic's own clients see the fresh ones.
    assert (said.text, said.finish) == ("hello", FINISH["stop"][dialect])
    assert said.tokens == ((30, 20) if dialect == "anthropic" else (100, 20))
    path, headers, body = clouds.sent[-1]
    method = "streamRawPredict" if stream else "rawPredict"
    assert path == f"/v1/projects/project-one/locations/us-east1/publishers/anthropic/models/{CLAUDE}:{method}"
    assert headers["authorization"].removeprefix("Bearer ") in clouds.tokens
    assert not {"x-api-key", "x-goog-api-key"} & headers.keys()
    asked = json.loads(body)
    assert (asked["anthropic_version"], "model" in asked) == ("vertex-2023-10-16", False)
    event = last_event(since, gateway)
    assert (event.input_tokens, event.cache_read_tokens, event.cache_write_tokens) == (100, 60, 10)
    # 30 at 1, 60 at 0.1, 4 written for five minutes at 1.25, 6 for an hour at 2, 20 out at 2 dollars a million:
    # 30_000 + 6_000 + 5_000 + 12_000 + 40_000 nano-dollars.
    assert (event.cost_nanos, event.exactness) == (93_000, "exact")


def test_texts_are_embedded_at_vertex(gateway: RunningGateway) -> None:
    since = uuid7()
    with openai_client(gateway.url, gateway.raw_key) as client:
        answer = client.embeddings.create(model="vertex-embed", input=["four tokens"])  # asks for base64
    assert answer.data[0].embedding == [0.25, 0.5]
    assert answer.usage.prompt_tokens == 4
    assert last_event(since, gateway).cost_nanos == 4 * 1_000


def test_googles_own_vertex_client_finds_the_same_answer(gateway: RunningGateway) -> None:
    """Our Gemini dialect in front of Vertex: what goes through is what google-genai reads as its own types."""
    options = genai_types.HttpOptions(base_url=gateway.url, timeout=20_000)
    client = genai.Client(api_key=gateway.raw_key, http_options=options)
    answer = client.models.generate_content(model="vertex-gemini", contents="greet")
    assert answer.text == GREETING
    assert answer.usage_metadata is not None
    assert answer.usage_metadata.prompt_token_count == 40


def test_googles_words_reach_the_client_with_their_status(gateway: RunningGateway) -> None:
    with openai_client(gateway.url, gateway.raw_key) as client, pytest.raises(openai.NotFoundError) as refused:
        client.chat.completions.create(model="vertex-gemini", messages=[{"role": "user", "content": "missing"}])
    assert "Publisher Model not found." in str(refused.value)


def test_an_image_by_address_is_refused_by_field_and_provider(gateway: RunningGateway) -> None:
    part = {"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}}
    refused: httpx.Response = gateway.chat(model="ollama", messages=[{"role": "user", "content": [part]}])
    assert refused.status_code == 400
    error = refused.json()["error"]
    assert error["param"] == "messages.image"
    assert "ollama" in error["message"]
