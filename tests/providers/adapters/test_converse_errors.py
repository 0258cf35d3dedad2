"""What goes wrong behind Bedrock's Converse: each error of the service as what it is, whole and in a stream."""

from __future__ import annotations

import json

import pytest

from providers.adapters.base import StreamParser
from providers.adapters.events import StreamEvent, TextDelta
from providers.adapters.registry import adapter_for
from providers.adapters.types import ChatRequest, Message, Text
from providers.errors import (
    AuthRejected,
    Overloaded,
    RateLimited,
    RequestRejected,
    UpstreamError,
    UpstreamTimeout,
)
from tests.conformance.wires.converse import frame, frames

ADAPTER = adapter_for("bedrock", {})
ASKED = ChatRequest(model="r", messages=(Message("user", (Text("Hello"),)),), stream=True)


def parser(request: ChatRequest = ASKED) -> StreamParser:
    return ADAPTER.stream_parser(request)


NO_ACCESS = "User: arn:aws:iam::1:user/bob is not authorized to perform: bedrock:InvokeModel on resource: …"


@pytest.mark.parametrize(
    ("status", "name", "message", "kind", "code"),
    [
        (403, "AccessDeniedException", NO_ACCESS, AuthRejected, "upstream_auth_failed"),
        (403, "UnrecognizedClientException", "The security token is invalid.", AuthRejected, "upstream_auth_failed"),
        (400, "ValidationException", "messages.0: bad", RequestRejected, "invalid_request"),
        (404, "ResourceNotFoundException", "No such model", RequestRejected, "invalid_request"),
        (429, "ThrottlingException", "Too many requests", RateLimited, "upstream_rate_limited"),
        (400, "ServiceQuotaExceededException", "Quota", RateLimited, "upstream_rate_limited"),
        (429, "ModelNotReadyException", "Not ready", Overloaded, "upstream_unavailable"),
        (424, "ModelErrorException", "The model failed", Overloaded, "upstream_unavailable"),
        (408, "ModelTimeoutException", "Timed out", UpstreamTimeout, "upstream_timeout"),
        (500, "InternalServerException", "Oops", Overloaded, "upstream_unavailable"),
        (503, "ServiceUnavailableException", "Busy", Overloaded, "upstream_unavailable"),
    ],
)
def test_each_error_of_the_service_is_told_as_what_it_is(
    status: int, name: str, message: str, kind: type[UpstreamError], code: str
) -> None:
    by_header = {"x-amzn-ErrorType": f"{name}:http://internal.amazon.com/coral/com.amazon.bedrock/"}
    body = json.dumps({"__type": f"com.amazon.bedrock#{name}", "message": message}).encode()
    plain = json.dumps({"message": message}).encode()
    for found in (ADAPTER.parse_error(status, by_header, plain), ADAPTER.parse_error(status, {}, body)):
        assert type(found) is kind
        assert (found.message, found.code) == (message, code)
    name = name[:1].lower() + name[1:]
    with pytest.raises(kind, match=message[:10].replace("(", ".")):
        parser().feed(frame("exception", name, plain))


def test_other_bodies_of_errors_are_told_shortly() -> None:
    found = ADAPTER.parse_error(403, {}, b'{"Message":"Authorization header requires"}')
    assert (type(found), found.message) == (AuthRejected, "Authorization header requires")
    found = ADAPTER.parse_error(502, {}, b"<html><title>Bad Gateway</title></html>")
    assert (type(found), found.message) == (
        Overloaded,
        "The provider answered with status 502 and a web page: Bad Gateway.",
    )
    assert ADAPTER.parse_error(429, {"retry-after": "3"}, b"{}").retry_after == 3


@pytest.mark.parametrize("size", [1, 50, 10_000])
def test_an_exception_behind_good_frames_takes_nothing_from_them(size: int) -> None:
    sent = frames(
        ("messageStart", {"role": "assistant"}),
        ("contentBlockDelta", {"delta": {"text": "one "}, "contentBlockIndex": 0}),
        ("contentBlockDelta", {"delta": {"text": "two"}, "contentBlockIndex": 0}),
    ) + frame("exception", "modelStreamErrorException", b'{"message":"","originalMessage":"Broke down"}')
    broken, events = parser(), list[StreamEvent]()

    def read() -> None:
        for at in range(0, len(sent), size):
            events.extend(broken.feed(sent[at : at + size]))
        broken.close()

    with pytest.raises(Overloaded, match="Broke down"):
        read()
    assert [event.text for event in events if isinstance(event, TextDelta)] == ["one ", "two"]
    with pytest.raises(Overloaded):  # and it stays so
        broken.feed(b"")


def test_an_exception_without_words_and_an_error_of_the_transport_are_told_too() -> None:
    with pytest.raises(RateLimited, match="broke off with an error"):
        parser().feed(frame("exception", "throttlingException", b"\xff"))
    with pytest.raises(Overloaded, match="broke off with an error"):
        parser().feed(frame("error", "InternalError", b""))
