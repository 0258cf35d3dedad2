"""The example of docs/client.md, run as printed against a gateway."""

from __future__ import annotations

import os

import pytest

from tests.docs import pages
from tests.harness.gateway import RunningGateway


def test_the_example_works(
    gateway: RunningGateway, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (script,) = pages.blocks("docs/client.md", "python")
    monkeypatch.setitem(os.environ, "CONDUIT_KEY", gateway.raw_key)
    exec(compile(script.replace("http://127.0.0.1:8080", gateway.url), "docs/client.md", "exec"), {})
    first, cost, streamed, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith("Say hello. stop ")
    assert cost.startswith("0.0")
    assert (streamed, rest) == ("Count to three. stop", ["One?", "Two?", "True"])
