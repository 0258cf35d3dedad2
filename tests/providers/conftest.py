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

from tests.harness.sandbox import RunningSandbox, running_sandbox


@dataclass
class Scripted:
    """A server that answers every GET with the same reply and remembers what it was sent."""

    url: str = ""
    status: int = 200
    body: bytes = b'{"object":"list","data":[{"id":"house-1"},{"id":"house-2"}]}'
    headers: dict[str, str] = field(default_factory=lambda: {"content-type": "application/json"})
    pause: float = 0.0
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
            self.send_response(script.status)
            for name, value in script.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(script.body)))
            self.end_headers()
            self.wfile.write(script.body)

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
