"""A transport for an SDK that goes nowhere: it keeps what was sent, and answers what it was told to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


class Kept(Exception):  # noqa: N818 (nothing is wrong: the request is all that was wanted)
    """The request was taken; there is no answer."""


@dataclass(frozen=True)
class Sent:
    """A client's request as it leaves. `query` without question mark."""

    path: str
    query: bytes
    body: bytes


class Line:
    """`reply` is None while only requests are wanted. `http` is the package that the SDK speaks HTTP with."""

    def __init__(self, http: Any) -> None:
        self._http = http
        self.sent: Sent | None = None
        self.reply: bytes | None = None
        self.transport = http.MockTransport(self._handle)

    def _handle(self, request: Any) -> Any:
        self.sent = Sent(request.url.path, request.url.query, request.content)
        if self.reply is None:
            raise Kept
        streamed = request.headers.get("accept") == "text/event-stream" or b'"stream":true' in request.content
        streamed = streamed or "stream" in request.url.path
        kind = "text/event-stream" if streamed else "application/json"
        return self._http.Response(200, headers={"content-type": kind}, content=self.reply)

    def take(self) -> Sent:
        assert self.sent is not None, "the SDK sent nothing"
        sent, self.sent = self.sent, None
        return sent
