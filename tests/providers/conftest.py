"""Upstreams for these tests: the sandbox as a process, and a scripted server on loopback."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from django.conf import settings as django_settings
from pytest_django.fixtures import Settings

from conduit.core import keyring
from providers import aws as aws_calls
from providers import sources, supply, tokens
from tests.harness.aws_server import running_aws
from tests.harness.sandbox import RunningSandbox, running_sandbox
from tests.harness.vault_server import VaultServer, running_vault

REJECTED = b'{"error":{"message":"revoked"}}'


@dataclass
class Scripted:
    """A server that answers every GET with the same reply and remembers what it was sent.

    A key in `rejects` gets a 401 instead.
    """

    url: str = ""
    status: int = 200
    body: bytes = b'{"object":"list","data":[{"id":"house-1"},{"id":"house-2"}]}'
    headers: dict[str, str] = field(default_factory=lambda: {"content-type": "application/json"})
    pause: float = 0.0
    rejects: set[str] = field(default_factory=set)
    seen: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def says(self, status: int, body: str, **headers: str) -> None:
        self.status, self.body = status, body.encode()
        self.headers.update({name.replace("_", "-"): text for name, text in headers.items()})


@pytest.fixture
def upstream(settings: Settings) -> Iterator[Scripted]:
    """A scripted server that the egress policy allows."""
    script = Scripted()

    class Reply(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            script.seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
            time.sleep(script.pause)
            bearer = self.headers.get("authorization", "").removeprefix("Bearer ")
            status, body = (401, REJECTED) if bearer in script.rejects else (script.status, script.body)
            self.send_response(status)
            for name, value in script.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *rest: object) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Reply)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    script.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    settings.CONDUIT_EGRESS_ALLOW = ["127.0.0.1"]
    yield script
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="session")
def sandbox_process() -> Iterator[RunningSandbox]:
    with running_sandbox() as running:
        yield running


@pytest.fixture
def sandbox(sandbox_process: RunningSandbox, settings: Settings) -> RunningSandbox:
    """The sandbox provider, at the address that the settings name."""
    settings.SANDBOX_URL = sandbox_process.url
    return sandbox_process


@pytest.fixture(autouse=True, scope="session")
def static_root() -> None:
    """WhiteNoise wants its directory; `conduit up` makes it, these tests have no use for it."""
    Path(django_settings.STATIC_ROOT).mkdir(parents=True, exist_ok=True)


@pytest.fixture(scope="session")
def aws_process() -> Iterator[str]:
    with running_aws() as url:
        yield url


@pytest.fixture
def aws(aws_process: str, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> str:
    """AWS on loopback, with an identity of the gateway's own."""
    aws_calls._own_client.cache_clear()
    monkeypatch.setattr(aws_calls, "SECONDS", 30.0)  # the first call of a service waits until moto has loaded it
    for kept in (sources.secrets, tokens.minted):
        monkeypatch.setattr(kept, "_seconds", 30.0)
    settings.CONDUIT_AWS_ENDPOINT = aws_process
    for name, text in {"ACCESS_KEY_ID": "AKIAGATEWAY", "SECRET_ACCESS_KEY": "own", "REGION": "eu-west-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", text)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    return aws_process


@pytest.fixture
def vault_server(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[VaultServer]:
    """A Vault that the settings name; who signs in is the test's affair."""
    with running_vault() as server:
        settings.CONDUIT_VAULT_ADDR = server.address
        yield server


@pytest.fixture
def ring(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Leaves the process with its own key ring again."""
    yield monkeypatch
    monkeypatch.undo()
    keyring.reset()


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    """What a test before has read from elsewhere, or that its gateway keeps it fresh."""
    supply.forget()
    yield
    supply.forget()
    sources._client.cache_clear()
