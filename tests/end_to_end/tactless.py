"""A provider that repeats the key it was given wherever it can: in refusals, headers, pages, redirects and streams."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MODELS = ("refuses", "refuses-in-html", "redirects", "breaks-its-stream")  # how it tells, by the model's name


class _Tactless(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        key = self.headers["authorization"].removeprefix("Bearer ")
        body = self.rfile.read(int(self.headers["content-length"] or 0))
        model = json.loads(body)["model"] if body else ""
        told = json.dumps({"error": {"message": f"Incorrect API key provided: {key}.", "type": f"for {key}"}})
        if model == "breaks-its-stream":
            self._tell(200, "text/event-stream", f"data: {told}\n\n")
        elif model == "refuses-in-html":
            self._tell(500, "text/html", f"<h1>{key}</h1>")
        elif model == "redirects":
            self._tell(302, "text/plain", key)
        else:
            self._tell(400 if self.command == "POST" else 401, "application/json", told)

    def _tell(self, status: int, kind: str, text: str) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(text.encode())))
        for name in ("location", "x-request-id", "www-authenticate", "openai-organization", "retry-after"):
            self.send_header(name, self.headers["authorization"])
        self.end_headers()
        self.wfile.write(text.encode())

    do_GET = do_POST  # noqa: N815 (the name that http.server calls)

    def log_message(self, format: str, *arguments: object) -> None:
        """The test's output is not its place."""


@contextmanager
def tactless_provider() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Tactless) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        finally:
            server.shutdown()
