"""What a provider's error becomes: status first, the provider's words, waits in every form (testing.md U1, U5)."""

from __future__ import annotations

import json

import pytest

from providers.adapters.openai import OpenAIAdapter
from providers.errors import AccountEmpty, AuthRejected, Overloaded, RateLimited, RequestRejected, UpstreamRefusal

ADAPTER = OpenAIAdapter()


def parsed(status: int, body: bytes, **headers: str) -> UpstreamRefusal:
    error = ADAPTER.parse_error(status, {name.replace("_", "-"): value for name, value in headers.items()}, body)
    assert isinstance(error, UpstreamRefusal)
    assert error.status == status
    return error


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, RequestRejected),
        (401, AuthRejected),
        (403, AuthRejected),
        (402, AccountEmpty),
        (404, RequestRejected),
        (408, Overloaded),
        (413, RequestRejected),
        (422, RequestRejected),
        (425, Overloaded),
        (429, RateLimited),
        (500, Overloaded),
        (502, Overloaded),
        (503, Overloaded),
        (529, Overloaded),
    ],
)
def test_the_status_decides_whatever_the_words_say(status: int, kind: type[UpstreamRefusal]) -> None:
    body = {"error": {"message": "Rate limit", "type": "invalid_request_error", "param": "messages", "code": "odd"}}
    error = parsed(status, json.dumps(body).encode())
    assert type(error) is kind
    assert (error.message, error.code, error.param) == ("Rate limit", "odd", "messages")


def test_context_length_exceeded_is_kept() -> None:
    body = {
        "error": {
            "message": "This model's maximum context length is 8192 tokens.",
            "type": "invalid_request_error",
            "param": "messages",
            "code": "context_length_exceeded",
        }
    }
    assert parsed(400, json.dumps(body).encode()).code == "context_length_exceeded"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "The provider answered with status 502 and an empty body."),
        (b"  \n", "The provider answered with status 502 and an empty body."),
        (
            b"<html><head><title>502 Bad\nGateway</title></head><body>secret stack</body></html>",
            "The provider answered with status 502 and a web page: 502 Bad Gateway.",
        ),
        (b"<!doctype html><p>x", "The provider answered with status 502 and a web page."),
        (b"upstream connect error", "The provider answered with status 502: upstream connect error"),
        (b'{"error":"model is loading"}', "model is loading"),
        (b'{"message":"no such path"}', "no such path"),
        (b'{"detail":"Not Found"}', "Not Found"),
        (b'[{"error":{"code":502,"message":"from a list"}}]', "from a list"),
        (b'{"error":{"message":null}}', 'The provider answered with status 502: {"error":{"message":null}}'),
        (b"\xff\xfe", "The provider answered with status 502: \ufffd\ufffd"),
        (b"[" * 5000, "The provider answered with status 502: " + "[" * 199 + "…"),
    ],
)
def test_any_body_gives_a_short_clean_message(body: bytes, message: str) -> None:
    assert parsed(502, body).message == message


def test_a_long_message_is_shortened() -> None:
    message = parsed(400, json.dumps({"error": {"message": "x" * 5000}}).encode()).message
    assert len(message) == 1000
    assert message.endswith("…")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry_after": "7"}, 7.0),
        ({"Retry_After": "0.5"}, 0.5),
        ({"retry_after_ms": "1500", "retry_after": "9"}, 1.5),
        ({"retry_after": "Wed, 21 Oct 2026 07:28:10 GMT", "date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 10.0),
        ({"retry_after": "Wed, 21 Oct 2026 07:28:00 GMT", "date": "Wed, 21 Oct 2026 07:28:10 GMT"}, 0.0),
        ({"retry_after": "Wed, 21 Oct 2026 07:28:00 GMT"}, None),
        ({"retry_after": "soon"}, None),
        ({"retry_after": "-5"}, None),
        ({"retry_after": "nan"}, None),
        ({"retry_after": "1e400"}, None),
    ],
)
def test_waiting_times_in_all_their_forms(headers: dict[str, str], seconds: float | None) -> None:
    assert parsed(429, b"{}", **headers).retry_after == seconds
