"""A revoked key's streams end, and those of a credential version that was revoked in an emergency; others do not."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from conduit.core.actor import SYSTEM
from conduit.core.models import LiveProcess
from keys.issuing import disable_key, revoke_key, update_key
from keys.models import VirtualKey
from providers import rotation
from providers.models import Credential, CredentialVersion
from tests.harness.gateway import RunningGateway, wait_for
from tests.harness.speakers import client

pytestmark = pytest.mark.usefixtures("books")


def row(raw: str) -> VirtualKey:
    return VirtualKey.objects.get(secrets__public_id=raw[7:17])


class Stream:
    """A long answer that is being read: 200 words, one each 100 ms."""

    def __init__(self, gateway: RunningGateway, key: str, model: str = "sandbox-echo") -> None:
        words = " ".join(f"w{number}" for number in range(200))
        body = {"model": model, "stream": True, "messages": [{"role": "user", "content": words}]}
        headers = {"authorization": f"Bearer {key}", "x-sandbox-chunk-gap-ms": "100"}
        self._context = client().stream("POST", f"{gateway.url}/v1/chat/completions", json=body, headers=headers)
        self.answer = self._context.__enter__()
        self._lines = self.answer.iter_lines()
        assert self.answer.status_code == 200
        for _ in range(4):
            self.next()

    def next(self) -> str:
        return next(line for line in self._lines if line)

    def rest(self) -> list[str]:
        return [line for line in self._lines if line]

    def close(self) -> None:
        self._context.__exit__(None, None, None)


@pytest.fixture
def streaming(gateway: RunningGateway) -> Iterator[Callable[..., Stream]]:
    made: list[Stream] = []

    def begin(key: str, model: str = "sandbox-echo") -> Stream:
        made.append(Stream(gateway, key, model))
        return made[-1]

    yield begin
    for one in made:
        one.close()


def cut(stream: Stream, code: str) -> float:
    """Seconds until the stream ended, with one error event of this code and without its end marker."""
    began = time.monotonic()
    lines = stream.rest()
    told = json.loads(lines[-1].removeprefix("data: "))
    assert told["error"]["code"] == code, lines[-3:]
    assert not any("[DONE]" in line for line in lines)
    return time.monotonic() - began


@pytest.mark.parametrize("how", [revoke_key, disable_key])
def test_a_revoked_or_disabled_keys_streams_are_cut_and_billed_to_there(
    gateway: RunningGateway, streaming: Callable[..., Stream], how: Callable[..., Any]
) -> None:
    key = gateway.key()
    stream = streaming(key)
    how(row(key), actor=SYSTEM)
    assert cut(stream, "invalid_api_key") < 5  # of 20 seconds
    event = gateway.events(stream.answer.headers["x-request-id"])[0]
    assert (event.status, event.error_code, event.attempt) == (401, "invalid_api_key", 1)
    assert 0 < event.output_tokens < 200


def test_other_keys_streams_go_on_when_one_is_revoked(
    gateway: RunningGateway, streaming: Callable[..., Stream]
) -> None:
    mine, other = gateway.key(), gateway.key()
    stream = streaming(mine)
    revoke_key(row(other), actor=SYSTEM)
    update_key(row(mine), actor=SYSTEM, changes={"models": ["something-else"]})
    gateway.refresh()
    time.sleep(0.5)
    assert stream.next().startswith("data: ")
    assert stream.next().startswith("data: ")


def test_an_emergency_revocation_cuts_the_streams_of_that_version_only(
    gateway: RunningGateway, streaming: Callable[..., Stream]
) -> None:
    key = gateway.key()
    credential = gateway.provider("sandbox-anthropic").credentials.get()
    struck, spared = streaming(key, "anthropic/sandbox-echo"), streaming(key)
    version = credential.versions.get(state="active")
    rotation.revoke(credential, actor=SYSTEM, number=version.number)
    try:
        assert cut(struck, "credential_revoked") < 5
        assert spared.next().startswith("data: ")
        gateway.refresh()
        refused = gateway.chat(key=key, model="anthropic/sandbox-echo")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "upstream_unavailable")
    finally:
        _renew(credential)
        gateway.refresh()
    assert gateway.chat(key=key, model="anthropic/sandbox-echo").status_code == 200


def _renew(credential: Credential) -> None:
    from conduit.core.secret import Secret

    rotation.begin(credential, actor=SYSTEM, fields={"api_key": Secret(f"sk-sandbox-{time.monotonic_ns()}")})


def test_what_a_worker_uses_is_reported(gateway: RunningGateway, streaming: Callable[..., Stream]) -> None:
    key = gateway.key()
    version = CredentialVersion.objects.get(credential__provider__name="sandbox", state="active")
    stream = streaming(key)

    def reported() -> Any:
        found = LiveProcess.objects.filter(kind="web").order_by("-seen_at").first()
        return found.versions.get(str(version.id), {}) if found else {}

    wait_for(lambda: reported().get("open", 0) >= 1)
    wait_for(lambda: version.credential.__class__.objects.get(pk=version.credential_id).last_used_at is not None)
    found = LiveProcess.objects.filter(kind="web").latest("seen_at")
    assert found.keks
    assert found.primary in found.keks
    stream.close()
    wait_for(lambda: reported().get("open") == 0)
    assert abs(reported()["last"] - time.time()) < 60
