"""What the README tells a newcomer to type works as printed, against a running gateway with the sandbox behind it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs import pages
from tests.harness import sandbox
from tests.harness.gateway import RunningGateway

ADDRESS = "http://127.0.0.1:8080"
SDKS = {"openai": "OpenAI(", "anthropic": "Anthropic(", "google-genai": "genai.Client("}


def _run(command: list[str], gateway: RunningGateway, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "CONDUIT_KEY": gateway.raw_key, **more}
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=pages.ROOT, timeout=300)


@pytest.mark.sdk
@pytest.mark.parametrize("sdk", SDKS)
def test_the_first_request_of_each_sdk_prints_hello(sdk: str, gateway: RunningGateway, tmp_path: Path) -> None:
    (block,) = [text for text in pages.blocks("README.md", "python") if SDKS[sdk] in text]
    assert ADDRESS in block
    script = tmp_path / "first_request.py"
    script.write_text(block.replace(ADDRESS, gateway.url))
    done = _run([sys.executable, "-P", str(script)], gateway)
    assert (done.stdout, done.returncode) == ("hello\n", 0), done.stderr


def _executable(path: Path, *lines: str) -> None:
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)


def _shell(block: str, gateway: RunningGateway, folder: Path) -> str:
    """Runs a shell block with providers that lie at the sandbox instead of the vendor. Returns what it printed."""
    base = gateway.sandbox.url
    _executable(folder / "curl", f'exec "{sys.executable}" "{pages.ROOT / "tests/docs/curl.py"}" "$@"')
    _executable(
        folder / "conduit",
        f'if [ "$1 $2" = "providers add" ]; then set -- "$@" --base-url {base}/v1; fi',
        f'exec "{sys.executable}" -P -m conduit.cli "$@"',
    )
    block = block.replace(ADDRESS, gateway.url).replace(".venv/bin/conduit", str(folder / "conduit"))
    block = block.replace('"kind": "anthropic"', f'"kind": "anthropic", "base_url": "{base}"')
    done = _run(
        ["sh", "-euc", block],
        gateway,
        PATH=f"{folder}:{os.environ['PATH']}",
        CONDUIT_EGRESS_ALLOW="127.0.0.1",
        OPENAI_API_KEY=sandbox.KEY,
        ANTHROPIC_API_KEY=sandbox.KEY,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _shell_block(telling: str) -> str:
    (block,) = [text for text in pages.blocks("README.md", "sh") if telling in text]
    return block


def test_a_provider_a_route_and_a_key_can_be_made_on_the_command_line(gateway: RunningGateway, tmp_path: Path) -> None:
    printed = _shell(_shell_block("providers add"), gateway, tmp_path)
    raw_key = printed.splitlines()[-1]
    gateway.refresh()
    with gateway.client(raw_key) as client:
        answer = client.get("/v1/models")
        assert answer.status_code == 200, f"{answer.text} after {printed}"
        assert [model["id"] for model in answer.json()["data"]] == ["gpt-4o-mini"]


def test_a_provider_a_route_and_a_key_can_be_made_through_the_api(gateway: RunningGateway, tmp_path: Path) -> None:
    printed = _shell(_shell_block("tokens create"), gateway, tmp_path)
    made = [json.loads(line) for line in printed.splitlines()]
    assert [body["name"] for body in made] == ["claude-account", "main", "claude", "my-other-app"]
    gateway.refresh()
    with gateway.client(made[-1]["key"]) as client:
        assert [model["id"] for model in client.get("/v1/models").json()["data"]] == ["claude"]


def test_a_documented_command_that_fails_is_noticed(gateway: RunningGateway, tmp_path: Path) -> None:
    block = _shell_block("providers add").replace("add openai", "add other").replace("$OPENAI_API_KEY", "wrong")
    with pytest.raises(AssertionError, match="Incorrect API key"):
        _shell(block, gateway, tmp_path)


def test_the_readme_is_short() -> None:
    assert len(pages.read("README.md").splitlines()) <= 150
