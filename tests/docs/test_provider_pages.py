"""Every page of docs/providers/ is what the registry says, and what it tells to type works against a simulator that the
provider's own package judges requests for."""

from __future__ import annotations

import http.server
import json
import os
import shlex
import threading
from collections.abc import Iterator
from types import ModuleType

import pytest
from typer.testing import CliRunner

from conduit.cli.main import app
from providers.adapters.base import UpstreamRequest
from providers.adapters.registry import KINDS, adapter_for
from providers.adapters.types import ChatResponse, Choice, Text, Usage
from tests.conformance.wires import wire_module
from tests.docs import pages, providers
from tests.docs.provider_words import WORDS
from tests.harness.clouds import Clouds, running_clouds
from tests.harness.gateway import RunningGateway

KEY = "sk-sandbox-of-pages"
HELLO = ChatResponse(
    id="a1",
    model="m",
    choices=(Choice(parts=(Text(text="Hello to you."),)),),
    usage=Usage(input_tokens=9, output_tokens=4),
)


class Simulator(http.server.ThreadingHTTPServer):
    """Judges each request as if it had come to `address`, then says hello in the wire format of `wire`."""

    daemon_threads = True
    wire: ModuleType
    address: str
    path: str  # which stands for it here

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Simulated)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.asked: list[str] = []


class _Simulated(http.server.BaseHTTPRequestHandler):
    server: Simulator

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): text.replace(KEY, "k") for name, text in self.headers.items()}  # as judges know it
        url = self.server.address + self.path.removeprefix(self.server.path)
        request = UpstreamRequest(method="POST", url=url, headers=headers, body=body)
        self.server.asked += self.server.wire.facts(request)["texts"]
        answer = self.server.wire.whole(HELLO)
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with Simulator() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def clouds() -> Iterator[Clouds]:
    with running_clouds() as running:
        yield running


def test_pages_and_registry_say_the_same() -> None:
    for path, text in providers.written().items():
        assert pages.read(str(path)) == text, f"{path}: .venv/bin/python -P -m tests.docs.providers"
    there = {path.stem for path in (pages.DOCS / "providers").glob("*.md")} - {"README", "matrix"}
    assert there == set(KINDS) == set(WORDS)


def _given(block: str, kind: str, clouds: Clouds) -> str:
    """What stands on standard input: the variable's value, or the file with its dots filled in."""
    if "printf" in block:
        return KEY
    if len(KINDS[kind].fields) == 1:
        return json.dumps(clouds.account())
    (example,) = pages.blocks(f"docs/providers/{kind}.md", "json")
    shapes = {spec.name: spec.shape for spec in KINDS[kind].fields}
    fields = {
        name: clouds.account() if shapes[name] == "service_account" else f"sk-{kind}-0123456789"
        for name in json.loads(example)
    }
    return json.dumps(fields)


def _typed(block: str, kind: str, simulator: Simulator, given: str) -> None:
    """Runs the block's commands in this process, with the simulator where the provider would be."""
    for line in block.strip().splitlines():
        command = line.rpartition("| ")[2].partition(" < ")[0]
        words = shlex.split(command)
        assert words[0] == "conduit"
        if words[1:3] == ["providers", "add"] and not KINDS[kind].own_process:
            words += ["--base-url", f"{simulator.url}{simulator.path}", "--no-verify"]
        done = CliRunner().invoke(app, words[1:], input=given)
        assert done.exit_code == 0, (line, done.output, done.exception)


@pytest.mark.sdk
@pytest.mark.parametrize("kind", list(KINDS))
def test_the_example_of_a_page_works(
    kind: str,
    gateway: RunningGateway,
    simulator: Simulator,
    clouds: Clouds,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    page = f"docs/providers/{kind}.md"
    (shell,), (script,) = pages.blocks(page, "sh"), pages.blocks(page, "python")
    row, words = KINDS[kind], WORDS[kind]
    simulator.address = row.base_url and row.address(words.region, {"account": "a"}) or words.base_url
    simulator.path = "/openai/v1" if kind == "azure_openai" else "/v1" if adapter_for(kind, {}).wire == "openai" else ""
    _typed(shell, kind, simulator, _given(shell, kind, clouds))
    gateway.refresh()
    if not KINDS[kind].own_process:
        simulator.wire = wire_module(kind, adapter_for(kind, {}, WORDS[kind].model).wire)
    simulator.asked.clear()
    monkeypatch.setitem(os.environ, "CONDUIT_KEY", gateway.raw_key)
    assert providers.GATEWAY in script
    exec(compile(script.replace(providers.GATEWAY, gateway.url), page, "exec"), {"__name__": "__main__"})
    said = capsys.readouterr().out
    if KINDS[kind].own_process:
        assert said == "Say hello.\n"
    else:
        assert (said, simulator.asked) == ("Hello to you.\n", ["Say hello."])
