"""A vendor with an OpenAI-compatible API is one row: a made-up one is called here over a socket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from types import MappingProxyType
from typing import Any

import httpx
import pytest

from providers.adapters import registry
from providers.adapters.base import Upstream
from providers.adapters.events import Ended, TextDelta, UsageSeen
from providers.adapters.kinds import Capabilities
from providers.adapters.quirks import Quirks
from providers.adapters.rows.compatible import compatible
from providers.adapters.types import ChatRequest, ChatResponse, Message, Text

ROW = compatible(
    "made_up",
    "Made up",
    "https://api.example.org/{space}/v1",
    key="mu-",
    pages=("https://example.org/keys", "https://example.org/limits"),
    capabilities=Capabilities(several=False),
    quirks=Quirks(drops=frozenset({"seed"}), models="../catalogue"),
)
USAGE = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
CHUNKS = [
    {"id": "c-1", "model": "m-1", "choices": [{"index": 0, "delta": {"role": "assistant", "content": "Hel"}}]},
    {"id": "c-1", "model": "m-1", "choices": [{"index": 0, "delta": {"content": "lo"}, "finish_reason": "stop"}]},
    {"id": "c-1", "model": "m-1", "choices": [], "usage": USAGE},
]


class Vendor(BaseHTTPRequestHandler):
    """Answers like the vendor, and refuses what it was not promised."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        allowed = self.headers["authorization"] == "Bearer mu-1" and self.path == "/team-a/v1/chat/completions"
        if not allowed or "seed" in body or body["model"] != "m-1":
            self._answer(400, b'{"error":{"message":"not as promised","type":"invalid_request_error"}}')
        elif body.get("stream"):
            events = [f"data: {json.dumps(chunk)}\n\n" for chunk in CHUNKS]
            self._answer(200, "".join([*events, "data: [DONE]\n\n"]).encode())
        else:
            message = {"role": "assistant", "content": "Hello"}
            choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
            self._answer(200, json.dumps({"id": "c-1", "model": "m-1", "choices": choices, "usage": USAGE}).encode())

    def do_GET(self) -> None:
        self._answer(200 if self.path == "/team-a/catalogue" else 404, b'[{"id":"m-1"}]')

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Vendor) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def upstream(origin: str, monkeypatch: pytest.MonkeyPatch) -> Upstream:
    monkeypatch.setattr(registry, "KINDS", MappingProxyType({**registry.KINDS, ROW.kind: ROW}))
    address = ROW.address("", {"space": "team-a"})
    assert address == "https://api.example.org/team-a/v1"
    return Upstream(
        base_url=address.replace("https://api.example.org", origin), model="m-1", secrets={"api_key": "mu-1"}
    )


@pytest.mark.parametrize("stream", [False, True])
def test_a_row_is_all_that_a_new_vendor_needs(upstream: Upstream, *, stream: bool) -> None:
    adapter = registry.adapter_for("made_up", {})
    request = ChatRequest(
        model="route", messages=(Message(role="user", parts=(Text(text="Hi"),)),), seed=4, stream=stream
    )
    made = adapter.build_request(request, upstream)
    assert made.dropped == ("seed",)
    answer = httpx.post(made.url, headers=made.headers, content=made.body, timeout=20, trust_env=False)
    if stream:
        parser = adapter.stream_parser(request)
        events = [*parser.feed(answer.content), *parser.close()]
        assert "".join([event.text for event in events if isinstance(event, TextDelta)]) == "Hello"
        assert isinstance(events[-1], Ended)
        usage = next(event.usage for event in events if isinstance(event, UsageSeen))
    else:
        whole = adapter.parse_response(request, answer.content)
        assert isinstance(whole, ChatResponse)
        assert whole.choices[0].parts == (Text(text="Hello"),)
        assert whole.usage is not None
        usage = whole.usage
    assert (usage.input_tokens, usage.output_tokens, usage.flags) == (9, 2, ())


def test_its_credential_is_verified_where_the_row_says(upstream: Upstream) -> None:
    adapter = registry.adapter_for("made_up", {})
    made = adapter.verification(upstream)
    answer = httpx.request(made.method, made.url, headers=made.headers, timeout=20, trust_env=False)
    assert adapter.parse_models(answer.content) == ["m-1"]
