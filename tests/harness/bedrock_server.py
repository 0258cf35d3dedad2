"""Amazon Bedrock's runtime on loopback: Converse and ConverseStream with an answer of the test's choice.

A request is answered only when botocore comes to the same signature from what arrived, and when its body is valid by
botocore's model.
"""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from providers.adapters.base import UpstreamRequest
from providers.adapters.types import ChatResponse
from tests.conformance.wires import converse
from tests.harness.clouds import Clouds

KEYS = {"access_key_id": "AKIAIOSFODNN7EXAMPLE", "secret_access_key": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"}


@dataclass
class Bedrock(Clouds):
    """`answer`: what models say. `refusal_named`: (status, error's name, message) instead of it. `asked`: (operation,
    parameters) as botocore has them, and `bodies` the same as bytes."""

    answer: ChatResponse | None = None
    refusal_named: tuple[int, str, str] | None = None
    cut: int | None = None  # bytes of a stream that are sent, of a length that promises more
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    def reply(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        if self.refusal_named:
            status, name, message = self.refusal_named
            return status, {"x-amzn-errortype": f"{name}:"}, json.dumps({"message": message}).encode()
        if not headers.get("authorization", "").startswith("AWS4-") or not self.signed("POST", path, headers, body):
            told = json.dumps({"message": "The request signature we calculated does not match."}).encode()
            return 403, {"x-amzn-errortype": "InvalidSignatureException"}, told
        request = UpstreamRequest(method="POST", url=self.url + path, headers=headers, body=body)
        self.asked.append(converse.parameters(request))
        self.bodies.append(body)
        assert self.answer is not None
        if path.endswith("/converse"):
            return 200, {"content-type": "application/json"}, converse.whole(self.answer)
        return 200, {"content-type": "application/vnd.amazon.eventstream"}, converse.stream(self.answer)


@contextmanager
def running_bedrock() -> Iterator[Bedrock]:
    bedrock = Bedrock(aws={KEYS["access_key_id"]: KEYS["secret_access_key"]})

    class Reply(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, own, raw = bedrock.reply(self.path, headers, body)
            self.send_response(status)
            for name, value in own.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw[: bedrock.cut])
            if bedrock.cut is not None:
                self.close_connection = True

        def log_message(self, *rest: object) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Reply)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    bedrock.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield bedrock
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
