"""Reasoning over several turns: what a provider signed must come back to it, through whichever client."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import permutations
from typing import Any

import pytest
from google.genai import types as genai_types

from conduit.core.actor import SYSTEM
from conduit.core.secret import Secret
from conduit.proxy.seals import MARK
from providers.credentials import add_credential
from providers.models import Provider
from providers.sandbox.seals import seal
from tests.harness import oracle
from tests.harness.gateway import RunningGateway
from tests.harness.sandbox import KEY
from tests.sdk.conversations import TALKERS, Said, Talker
from tests.sdk.tap import Tap, tapped

pytestmark = pytest.mark.sdk
# Not another client's thoughts to OpenAI: its own API takes none back.
WIRES = ("openai", "anthropic", "gemini")
PAIRS = [
    (client, wire) for client in TALKERS for wire in WIRES if wire != "openai" or client in ("openai", "responses")
]


@pytest.fixture(scope="module")
def watched(gateway: RunningGateway) -> Iterator[Tap]:
    """Routes `watched/openai` and so on: the provider kinds themselves, before the sandbox's wire with a tap on it."""
    with tapped("127.0.0.1", int(gateway.sandbox.url.rpartition(":")[2])) as tap:
        for kind, path in ("openai", "/v1"), ("anthropic", ""), ("gemini", ""):
            provider = Provider.objects.create(name=f"watched-{kind}", kind=kind, base_url=tap.url + path)
            add_credential(provider, actor=SYSTEM, name="main", fields={"api_key": Secret(KEY)}, verify=False)
            gateway.route(f"watched/{kind}", (provider, "sandbox-think"))
        yield tap
    gateway.ship()
    assert oracle.verified() == []


@pytest.mark.parametrize(("client", "wire"), PAIRS)
def test_a_thoughts_signature_comes_back_to_the_provider_that_made_it(
    watched: Tap, talkers: Mapping[str, Talker], client: str, wire: str, stream: bool
) -> None:
    """Google's client holds it as bytes and encodes it anew, in the URL-safe alphabet. To Google it goes on like that;
    to anybody else it must arrive as it was."""
    talker = talkers[client]
    said = talker.ask(f"watched/{wire}", "hello", stream=stream)
    assert said.signature
    watched.sent.clear()
    then = (*_turn(said), *_next_turn(client, "and now"))
    again = talker.ask(f"watched/{wire}", "hello", stream=stream, then=then)
    assert again.text == "and now"
    sent = b"".join(watched.sent)
    expected = seal(wire)
    if client == wire == "gemini":
        expected = expected.replace("+", "-").replace("/", "_")
    assert expected.encode() in sent
    assert b"honest" in sent, "a word of the thought"


@pytest.mark.parametrize("client", TALKERS)
@pytest.mark.parametrize(("first", "second"), list(permutations(WIRES, 2)))
def test_a_conversation_changes_its_vendor_and_comes_back(
    watched: Tap, talkers: Mapping[str, Talker], client: str, first: str, second: str, stream: bool
) -> None:
    """Each vendor refuses what another one signed, so it must not get it; its own it gets back as it was."""
    talker = talkers[client]
    said = talker.ask(f"watched/{first}", "hello", stream=stream)
    turns = [*_turn(said), *_next_turn(client, "and now")]
    watched.sent.clear()
    other = talker.ask(f"watched/{second}", "hello", stream=stream, then=tuple(turns))
    assert other.text == "and now"
    assert other.signature
    sent = b"".join(watched.sent)
    assert seal(first).encode() not in sent
    assert MARK.encode() not in sent
    turns += [*_turn(other), *_next_turn(client, "and back")]
    watched.sent.clear()
    assert talker.ask(f"watched/{first}", "hello", stream=stream, then=tuple(turns)).text == "and back"
    sent = b"".join(watched.sent)
    assert MARK.encode() not in sent
    assert b"/messages" not in sent or seal("anthropic").encode() in sent, "its own is among them"


def _turn(said: Said) -> list[Any]:
    return said.turn if isinstance(said.turn, list) else [said.turn]


def _next_turn(client: str, text: str) -> tuple[Any, ...]:
    if client != "gemini":
        return ({"role": "user", "content": text},)
    return (genai_types.Content(role="user", parts=[genai_types.Part.from_text(text=text)]),)
