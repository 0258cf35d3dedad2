"""The providers' own SDKs, pointed at one gateway for the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import anthropic
import openai
import pytest
from google import genai
from google.genai import types as genai_types

from tests.harness.gateway import RunningGateway
from tests.proxy.conftest import committed, gateway, module_books

if TYPE_CHECKING:
    from tests.sdk.conversations import Talker

__all__ = ["committed", "gateway", "module_books"]


def openai_client(url: str, key: str) -> openai.OpenAI:
    return openai.OpenAI(api_key=key, base_url=f"{url}/v1", max_retries=0, timeout=20)


def anthropic_client(url: str, key: str) -> anthropic.Anthropic:
    return anthropic.Anthropic(api_key=key, base_url=url, max_retries=0, timeout=20)


def gemini_client(url: str, key: str) -> genai.Client:
    return genai.Client(api_key=key, http_options=genai_types.HttpOptions(base_url=url, timeout=20_000))


@pytest.fixture
def gpt(gateway: RunningGateway) -> Iterator[openai.OpenAI]:
    with openai_client(gateway.url, gateway.raw_key) as client:
        yield client


@pytest.fixture
def claude(gateway: RunningGateway) -> Iterator[anthropic.Anthropic]:
    with anthropic_client(gateway.url, gateway.raw_key) as client:
        yield client


@pytest.fixture
def gem(gateway: RunningGateway) -> genai.Client:
    return gemini_client(gateway.url, gateway.raw_key)


@pytest.fixture(scope="module")
def talkers(gateway: RunningGateway) -> Mapping[str, Talker]:
    """One for all tests of a module: making an SDK's client costs more than a request."""
    from tests.sdk.conversations import TALKERS

    return {name: make(gateway.url, gateway.raw_key) for name, make in TALKERS.items()}


@pytest.fixture(params=["openai", "responses", "anthropic", "gemini"])
def dialect(request: pytest.FixtureRequest) -> str:
    """The client's dialect; `talker` speaks it."""
    name: str = request.param
    return name


@pytest.fixture
def talker(talkers: Mapping[str, Talker], dialect: str) -> Talker:
    return talkers[dialect]


@pytest.fixture(params=[False, True], ids=["whole", "stream"])
def stream(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)
