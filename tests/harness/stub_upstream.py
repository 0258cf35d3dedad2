"""A provider on loopback that answers whatever a test says, and remembers what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Asked:
    """`body` is its JSON, None where there is none."""

    path: str
    headers: Mapping[str, str]
    body: Any


@dataclass(frozen=True)
class Said:
    status: int = 200
    body: Any = None  # bytes as they are, anything else as JSON
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Stub:
    """`says` may be changed at any time; `asked` has the requests in order."""

    url: str
    says: Callable[[Asked], Said]
    asked: list[Asked] = field(default_factory=list)


def chat_completion(text: str = "hello", model: str = "m") -> dict[str, Any]:
    """An answer in OpenAI's shape: 5 tokens in, 1 out."""
    message = {"role": "assistant", "content": text}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6},
    }


def answering(asked: Asked) -> Said:
    return Said(body=chat_completion())


@contextmanager
def stub_upstream(says: Callable[[Asked], Said] = answering) -> Iterator[Stub]:
    stub = Stub("", says)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            sent = self.rfile.read(int(self.headers.get("content-length") or 0))
            asked = Asked(
                self.path, {k.lower(): v for k, v in self.headers.items()}, json.loads(sent) if sent else None
            )
            stub.asked.append(asked)
            said = stub.says(asked)
            body = said.body if isinstance(said.body, bytes) else json.dumps(said.body).encode()
            self.send_response(said.status)
            for name, value in {"content-type": "application/json", **said.headers}.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST  # noqa: N815 (the base class's names)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Nothing on standard error."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    stub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
