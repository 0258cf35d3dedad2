"""The providers' own SDKs read a stream that is kept alive, before its head and in its middle, from any provider."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from conduit.core.actor import SYSTEM
from conduit.core.secret import Secret
from providers.credentials import add_credential
from providers.models import Provider
from tests.harness.gateway import RunningGateway
from tests.harness.sandbox import KEY
from tests.harness.speakers import PREFIXES
from tests.proxy.streams import paced
from tests.sdk.conversations import Talker

pytestmark = [pytest.mark.sdk, pytest.mark.usefixtures("module_books")]
SLOW = {"x-sandbox-delay-ms": "300", "x-sandbox-chunk-gap-ms": "150"}


@pytest.fixture(scope="module")
def slow(gateway: RunningGateway) -> Iterator[None]:
    """Routes `slow-*`, whose provider takes its time whoever asks; and a gateway that is not used to wait."""
    for wire in PREFIXES:
        options = {"dialect": wire, "sandbox_headers": SLOW}
        provider = Provider.objects.create(name=f"slow-{wire}", kind="sandbox", options=options)
        add_credential(provider, actor=SYSTEM, name="main", fields={"api_key": Secret(KEY)}, verify=False)
        gateway.route(f"slow-{wire}", (provider, "sandbox-echo"))
    with paced(gateway, keep_alive=0.05):
        yield


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize("wire", list(PREFIXES))
def test_an_sdk_passes_over_what_keeps_its_stream_alive(
    gateway: RunningGateway, talker: Talker, wire: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from conduit.proxy import stream_watch

    said: list[bytes] = []
    mark = stream_watch.keep_alive
    monkeypatch.setattr(stream_watch, "keep_alive", lambda call: said.append(mark(call)) or said[-1])
    answer = talker.ask(f"slow-{wire}", "hello big world", stream=True)
    assert answer.text == "hello big world"
    assert answer.tokens == (10, 3)
    assert len(said) >= 4
