"""The contract's error table (section 3), for each dialect, over real sockets."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from conduit.core import raw_keys
from conduit.core.actor import SYSTEM
from keys.issuing import create_key, disable_key, revoke_key
from keys.models import VirtualKey
from tests.harness.gateway import RunningGateway
from tests.harness.speakers import PREFIXES, SPEAKERS, Speaker, Told, client

pytestmark = pytest.mark.usefixtures("module_books")


def told(answer: httpx.Response, speaker: Speaker, status: int, code: str | None = None) -> Told:
    """The error, after what every error has in common was looked at."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"] == answer.headers["request-id"]
    error = speaker.told(answer.json())
    assert error.word == speaker.word(status)
    if speaker.name == "anthropic":
        assert answer.json()["request_id"] == answer.headers["x-request-id"]
    if speaker.name == "gemini":
        assert answer.json()["error"]["code"] == status
    if code and speaker.name != "anthropic":
        assert error.code == code
    return error


# --- who are you


def _expired(gateway: RunningGateway) -> str:
    from datetime import UTC, datetime, timedelta

    raw = gateway.key()
    key = VirtualKey.objects.get(secrets__public_id=raw[7:17])
    VirtualKey.objects.filter(pk=key.pk).update(expires_at=datetime.now(UTC) - timedelta(seconds=1))
    return raw


def _ended(gateway: RunningGateway, how: Callable[..., Any]) -> str:
    key, raw = create_key(actor=SYSTEM, name="ended")
    how(key, actor=SYSTEM)
    return raw.reveal()


BAD_KEYS: dict[str, Callable[[RunningGateway], str]] = {
    "none": lambda gateway: "",
    "rubbish": lambda gateway: "sk-1234",
    "not ascii": lambda gateway: "cdt_vk_é",
    "mistyped": lambda gateway: gateway.raw_key[:-1] + ("0" if gateway.raw_key[-1] != "0" else "1"),
    "never issued": lambda gateway: raw_keys.mint(raw_keys.VIRTUAL_KEY).raw.reveal(),
    "management token": lambda gateway: raw_keys.mint(raw_keys.MANAGEMENT_TOKEN).raw.reveal(),
    "public id of another": lambda gateway: _resealed(gateway.raw_key),
    "expired": _expired,
    "disabled": lambda gateway: _ended(gateway, disable_key),
    "revoked": lambda gateway: _ended(gateway, revoke_key),
}


def _resealed(raw: str) -> str:
    """The public id of a live key with another secret and a checksum that fits."""
    head = raw[:17] + raw_keys.mint(raw_keys.VIRTUAL_KEY).raw.reveal()[17:49]
    return head + raw_keys._checksum(head)


def test_every_bad_key_is_refused_alike(gateway: RunningGateway, speaker: Speaker) -> None:
    answers = {}
    for name, make in BAD_KEYS.items():
        key = make(gateway).encode("latin-1")
        headers = {"x-request-id": "bad-key-request", "anthropic-version": "2023-06-01"}
        if key:
            bearer = b"Bearer " if speaker.key_header == "authorization" else b""
            headers[speaker.key_header] = bearer + key  # type: ignore[assignment]
        body = speaker.body("sandbox-echo", "x", False, None)
        answer = client().post(gateway.url + speaker.address("sandbox-echo", False), json=body, headers=headers)
        told(answer, speaker, 401, "invalid_api_key")
        shown = {key: value for key, value in answer.headers.items() if key != "date"}
        answers[name] = (answer.content, shown)
    assert len({repr(one) for one in answers.values()}) == 1, answers


def test_a_bad_key_is_told_before_the_request_is_judged(gateway: RunningGateway, speaker: Speaker) -> None:
    told(speaker.post(gateway.url, speaker.address("none", False), "sk-1", b"{"), speaker, 401)


@pytest.mark.parametrize("header", ["authorization", "x-api-key", "api-key", "x-goog-api-key"])
def test_the_key_is_taken_from_every_header_that_sdks_use(
    gateway: RunningGateway, speaker: Speaker, header: str
) -> None:
    shown = f"Bearer {gateway.raw_key}" if header == "authorization" else gateway.raw_key
    assert speaker.ask(gateway.url, "", headers={header: shown}).status_code == 200


def test_the_key_is_never_taken_from_the_address(gateway: RunningGateway) -> None:
    speaker = SPEAKERS["gemini"]
    path = f"{speaker.address('sandbox-echo', False)}?key={gateway.raw_key}"
    told(speaker.post(gateway.url, path, "", b"{}"), speaker, 401)


# --- may you


def test_an_address_off_the_list_is_refused(gateway: RunningGateway, speaker: Speaker) -> None:
    key = gateway.key(ip_allowlist=["10.0.0.0/8"])
    forged = {"x-forwarded-for": "10.1.2.3"}
    told(speaker.ask(gateway.url, key, headers=forged), speaker, 403, "ip_not_allowed")


def test_a_model_off_the_list_is_refused(gateway: RunningGateway, speaker: Speaker) -> None:
    error = told(speaker.ask(gateway.url, gateway.key(models=["gpt-*"])), speaker, 403, "model_not_allowed")
    assert "sandbox-echo" in error.message
    assert speaker.name != "openai" or error.param == "model"


def test_an_endpoint_off_the_list_is_refused(gateway: RunningGateway, speaker: Speaker) -> None:
    key = gateway.key(endpoints=["embeddings"])
    told(speaker.ask(gateway.url, key), speaker, 403, "endpoint_not_allowed")


def test_no_such_route(gateway: RunningGateway, speaker: Speaker) -> None:
    error = told(speaker.ask(gateway.url, gateway.raw_key, model="no-such"), speaker, 404, "model_not_found")
    assert "no-such" in error.message


@pytest.mark.parametrize("path", ["/v1/nothing", "/v1/chat/completions/", "/v2/x", "/v1/chat%2fcompletionz"])
def test_no_such_path_is_told_in_json(gateway: RunningGateway, path: str) -> None:
    answer = client().post(gateway.url + path, json={}, headers={"authorization": f"Bearer {gateway.raw_key}"})
    assert (answer.status_code, answer.json()["error"]["type"]) == (404, "invalid_request_error")


def test_a_wrong_method_is_told(gateway: RunningGateway, speaker: Speaker) -> None:
    path = speaker.address("sandbox-echo", False)
    answer = client().get(gateway.url + path, headers=speaker.headers(gateway.raw_key))
    assert answer.status_code == 405
    speaker.told(answer.json())


# --- is it a request at all


def _openai(**fields: Any) -> dict[str, Any]:
    return {**SPEAKERS["openai"].body("sandbox-echo", "x", False, None), **fields}


def _anthropic(**fields: Any) -> dict[str, Any]:
    return {**SPEAKERS["anthropic"].body("sandbox-echo", "x", False, None), **fields}


def _gemini(**fields: Any) -> dict[str, Any]:
    return {**SPEAKERS["gemini"].body("sandbox-echo", "x", False, None), **fields}


def _nested(depth: int) -> str:
    return '{"a":' * depth + "1" + "}" * depth


NOT_JSON: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda body: b"",
    "torn": lambda body: body[:-1],
    "trailing": lambda body: body + b" x",
    "bytes": lambda body: body.replace(b"hello", b"\xff\xfe"),
    "single quotes": lambda body: body.replace(b'"', b"'"),
}


@pytest.mark.parametrize("name", NOT_JSON)
def test_a_body_that_is_no_json(gateway: RunningGateway, speaker: Speaker, name: str) -> None:
    body = NOT_JSON[name](json.dumps(speaker.body("sandbox-echo", "hello", False, None)).encode())
    path = speaker.address("sandbox-echo", False)
    told(speaker.post(gateway.url, path, gateway.raw_key, body), speaker, 400, "invalid_json")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_json_does_not_know(gateway: RunningGateway, speaker: Speaker, number: str) -> None:
    body = json.dumps(speaker.body("sandbox-echo", "x", False, None))[:-1] + f', "temperature": {number}}}'
    path = speaker.address("sandbox-echo", False)
    told(speaker.post(gateway.url, path, gateway.raw_key, body.encode()), speaker, 400, "invalid_json")


def test_a_body_nested_too_deep(gateway: RunningGateway, speaker: Speaker) -> None:
    path = speaker.address("sandbox-echo", False)
    for depth in (70, 5_000):
        body = json.dumps(speaker.body("sandbox-echo", "x", False, None))[:-1] + f', "extra": {_nested(depth)}}}'
        answer = speaker.post(gateway.url, path, gateway.raw_key, body.encode())
        assert "deeper" in told(answer, speaker, 400, "invalid_json").message


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("openai", _openai(messages="hello"), "messages"),
    ("openai", _openai(messages=[{"role": "king", "content": "x"}]), "messages[0].role"),
    ("openai", {"model": "sandbox-echo"}, "messages"),
    ("openai", {"messages": [{"role": "user", "content": "x"}]}, "model"),
    ("openai", _openai(model=7), "model"),
    ("openai", _openai(stream="yes"), "stream"),
    ("openai", _openai(max_tokens="1e3"), "max_tokens"),
    ("openai", _openai(max_completion_tokens=True), "max_completion_tokens"),
    ("openai", _openai(max_completion_tokens=-1), "max_completion_tokens"),
    ("openai", _openai(max_tokens=10**30), "max_tokens"),
    ("openai", _openai(n=0), "n"),
    ("openai", _openai(temperature="hot"), "temperature"),
    ("anthropic", _anthropic(messages={}), "messages"),
    ("anthropic", _anthropic(max_tokens=0), "max_tokens"),
    ("anthropic", _anthropic(max_tokens=1.5), "max_tokens"),
    ("anthropic", {"model": "sandbox-echo", "messages": [{"role": "user", "content": "x"}]}, "max_tokens"),
    ("anthropic", _anthropic(messages=[{"role": "user"}]), "messages[0].content"),
    ("anthropic", _anthropic(stream=1), "stream"),
    ("gemini", {}, "contents"),
    ("gemini", _gemini(contents=[{"role": "king", "parts": [{"text": "x"}]}]), "contents[0].role"),
    ("gemini", _gemini(generationConfig={"maxOutputTokens": -5}), "generationConfig.maxOutputTokens"),
    ("gemini", _gemini(generationConfig={"maxOutputTokens": "many"}), "generationConfig.maxOutputTokens"),
    ("gemini", _gemini(generationConfig=[]), "generationConfig"),
    ("gemini", _gemini(contents=[{"parts": [{"text": 1}]}]), "contents[0].parts[0].text"),
]


@pytest.mark.parametrize(("dialect", "body", "field"), WRONG, ids=[f"{d}-{f}-{i}" for i, (d, _, f) in enumerate(WRONG)])
def test_a_wrong_value_names_its_field(gateway: RunningGateway, dialect: str, body: dict[str, Any], field: str) -> None:
    speaker = SPEAKERS[dialect]
    path = speaker.address("sandbox-echo", False)
    answer = speaker.post(gateway.url, path, gateway.raw_key, json.dumps(body).encode())
    error = told(answer, speaker, 400, "invalid_value")
    assert field in error.message
    assert dialect != "openai" or error.param == field


def test_a_field_given_twice_is_refused(gateway: RunningGateway) -> None:
    speaker = SPEAKERS["openai"]
    body = json.dumps(_openai(max_completion_tokens=5))[:-1] + ', "max_completion_tokens": 500}'
    answer = speaker.post(gateway.url, speaker.address("", False), gateway.raw_key, body.encode())
    assert told(answer, speaker, 400, "invalid_value").param == "max_completion_tokens"


@pytest.mark.parametrize("sent", ["declared", "in pieces"])
def test_a_body_too_large_is_refused(gateway: RunningGateway, speaker: Speaker, settings: Any, sent: str) -> None:
    settings.MAX_BODY_BYTES = 50_000
    body = b" " * 60_000
    content: Any = body if sent == "declared" else (body[at : at + 10_000] for at in range(0, len(body), 10_000))
    path = speaker.address("sandbox-echo", False)
    answer = client().post(gateway.url + path, content=content, headers=speaker.headers(gateway.raw_key))
    told(answer, speaker, 413, "request_too_large")


@pytest.mark.parametrize("seconds", ["0", "-1", "abc", "nan", "inf", "1e3", "99999", "٣"])
def test_a_timeout_that_is_none_is_refused(gateway: RunningGateway, speaker: Speaker, seconds: str) -> None:
    headers: Any = {"x-conduit-timeout": seconds.encode()}
    error = told(speaker.ask(gateway.url, gateway.raw_key, headers=headers), speaker, 400, "invalid_value")
    assert "x-conduit-timeout" in error.message


def test_too_many_tags_are_refused(gateway: RunningGateway, speaker: Speaker) -> None:
    for tags in (",".join(f"t{number}" for number in range(17)), "x" * 65):
        answer = speaker.ask(gateway.url, gateway.raw_key, headers={"x-conduit-tags": tags})
        assert "x-conduit-tags" in told(answer, speaker, 400, "invalid_value").message


_scalar = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=12)
)
_json = st.recursive(_scalar, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3))
_fields = st.sampled_from(
    ["model", "messages", "contents", "max_tokens", "stream", "tools", "tool_choice", "n", "stop", "generationConfig"]
    + ["system", "systemInstruction", "response_format", "metadata", "user", "thinking", "temperature", "toolConfig"]
)


@pytest.mark.parametrize("name", list(SPEAKERS))
@hypothesis_settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(changes=st.dictionaries(_fields, _json, min_size=1, max_size=3))
def test_no_body_makes_the_gateway_fail(gateway: RunningGateway, name: str, changes: dict[str, Any]) -> None:
    speaker = SPEAKERS[name]
    body = {**speaker.body("sandbox-echo", "x", False, None), **changes}
    path = speaker.address("sandbox-echo", False)
    answer = client().post(gateway.url + path, json=body, headers=speaker.headers(gateway.raw_key))
    assert answer.status_code < 500, (answer.text, body)


# --- what the upstream does

# upstream's status → (ours, OpenAI code or None where it is the upstream's own word, retry-after)
REFUSALS: dict[int, tuple[int, str | None, bool]] = {
    400: (400, None, False),
    401: (502, "upstream_auth_failed", False),
    403: (502, "upstream_auth_failed", False),
    404: (404, None, False),
    413: (413, None, False),
    422: (422, None, False),
    429: (429, "upstream_rate_limited", True),
    500: (503, "upstream_unavailable", True),
    502: (503, "upstream_unavailable", True),
    503: (503, "upstream_unavailable", True),
    529: (503, "upstream_unavailable", True),
}


@pytest.mark.parametrize("upstream", REFUSALS)
@pytest.mark.parametrize("wire", list(PREFIXES))
def test_an_upstream_refusal_is_mapped(gateway: RunningGateway, speaker: Speaker, upstream: int, wire: str) -> None:
    status, code, waits = REFUSALS[upstream]
    model, headers = f"{PREFIXES[wire]}sandbox-echo", {"x-sandbox-status": str(upstream)}
    answer = speaker.ask(gateway.url, gateway.raw_key, model=model, headers=headers)
    told(answer, speaker, status, code)
    assert ("retry-after" in answer.headers) is waits
    event = gateway.event(answer)
    assert (event.status, event.outcome, event.cost_nanos) == (status, "error", 0)


def test_the_upstream_names_how_long_to_wait(gateway: RunningGateway, speaker: Speaker) -> None:
    headers = {"x-sandbox-status": "429", "x-sandbox-retry-after": "7"}
    answer = speaker.ask(gateway.url, gateway.raw_key, headers=headers)
    told(answer, speaker, 429, "upstream_rate_limited")
    assert answer.headers["retry-after"] == "7"


def test_a_stream_refused_by_the_upstream_is_a_status(gateway: RunningGateway, speaker: Speaker) -> None:
    answer, _ = speaker.stream(gateway.url, gateway.raw_key, headers={"x-sandbox-status": "503"})
    told(answer, speaker, 503, "upstream_unavailable")


@pytest.mark.parametrize("wire", list(PREFIXES))
@pytest.mark.parametrize("hang", ["headers", "body"])
def test_an_upstream_that_hangs_times_out(gateway: RunningGateway, speaker: Speaker, wire: str, hang: str) -> None:
    headers = {"x-conduit-timeout": "0.3", "x-sandbox-hang": hang}
    answer = speaker.ask(gateway.url, gateway.raw_key, model=f"{PREFIXES[wire]}sandbox-echo", headers=headers)
    told(answer, speaker, 504, "upstream_timeout")
    event = gateway.event(answer)
    assert (event.outcome, event.exactness) == ("error", "estimated")


@pytest.mark.parametrize("wire", list(PREFIXES))
@pytest.mark.parametrize("fault", ["json", "html"])
def test_an_upstream_that_answers_rubbish(gateway: RunningGateway, speaker: Speaker, wire: str, fault: str) -> None:
    model, headers = f"{PREFIXES[wire]}sandbox-echo", {"x-sandbox-malformed": fault}
    answer = speaker.ask(gateway.url, gateway.raw_key, model=model, headers=headers)
    told(answer, speaker, 502, "upstream_invalid_response")
    assert "<html" not in answer.text
    assert gateway.event(answer).outcome == "error"


@pytest.mark.parametrize("wire", list(PREFIXES))
def test_an_error_under_status_200_is_no_success(gateway: RunningGateway, speaker: Speaker, wire: str) -> None:
    model, headers = f"{PREFIXES[wire]}sandbox-echo", {"x-sandbox-error-200": "1"}
    answer = speaker.ask(gateway.url, gateway.raw_key, model=model, headers=headers)
    assert answer.status_code in (502, 503), answer.text
    told(answer, speaker, answer.status_code)
    assert gateway.event(answer).outcome == "error"


# --- streams that break

BREAKS: dict[str, dict[str, str]] = {
    "cut": {"x-sandbox-cut-after-bytes": "2000"},
    # It goes on selling until the connection closes, so there must be time for that.
    "torn event": {"x-sandbox-malformed": "sse", "x-sandbox-chunk-gap-ms": "20"},
    "error event": {"x-sandbox-error-200": "1"},
    "hang": {"x-sandbox-hang": "body", "x-conduit-timeout": "0.5"},
}


@pytest.mark.parametrize("fault", BREAKS)
@pytest.mark.parametrize("wire", list(PREFIXES))
def test_a_broken_stream_ends_with_the_dialects_error_and_no_end_marker(
    gateway: RunningGateway, speaker: Speaker, wire: str, fault: str
) -> None:
    model = f"{PREFIXES[wire]}sandbox-echo"
    headers = {"x-sandbox-tokens": "20", "x-sandbox-chunk-gap-ms": "2", **BREAKS[fault]}
    answer, seen = speaker.stream(gateway.url, gateway.raw_key, model=model, headers=headers)
    assert answer.status_code == 200
    assert seen.text, "something came before it broke"
    assert not seen.ended
    assert seen.error is not None, answer.text
    failed = [frame for frame in seen.frames if frame.get("error") or frame.get("type") == "error"]
    assert failed == seen.frames[-1:]
    event = gateway.event(answer)
    assert event.outcome == "error"
    assert event.output_tokens > 0


@pytest.mark.parametrize("wire", list(PREFIXES))
def test_a_stream_that_is_html_is_a_502(gateway: RunningGateway, speaker: Speaker, wire: str) -> None:
    model, headers = f"{PREFIXES[wire]}sandbox-echo", {"x-sandbox-malformed": "html"}
    answer, _ = speaker.stream(gateway.url, gateway.raw_key, model=model, headers=headers)
    told(answer, speaker, 502, "upstream_invalid_response")


def test_a_provider_that_cannot_be_reached(gateway: RunningGateway, speaker: Speaker) -> None:
    from conduit.core.secret import Secret
    from providers.credentials import add_credential
    from providers.models import Provider, Route

    name = f"closed-{speaker.name}"
    if not Route.objects.filter(name=name).exists():
        provider = Provider.objects.create(
            name=name, kind="custom", base_url=gateway.sandbox.url.rsplit(":", 1)[0] + ":1"
        )
        add_credential(provider, actor=SYSTEM, name="main", fields={"api_key": Secret("sk-x")}, verify=False)
        gateway.route(name, (provider, "x"))
    answer = speaker.ask(gateway.url, gateway.raw_key, model=name)
    told(answer, speaker, 503, "upstream_unavailable")
    assert math.isfinite(float(answer.headers["retry-after"]))
    assert gateway.event(answer).cost_nanos == 0


def test_a_route_without_a_usable_credential(gateway: RunningGateway, speaker: Speaker) -> None:
    from providers.models import Provider, Route

    if not Route.objects.filter(name="bare").exists():
        gateway.route("bare", (Provider.objects.create(name="bare", kind="sandbox"), "sandbox-echo"))
    told(speaker.ask(gateway.url, gateway.raw_key, model="bare"), speaker, 503, "upstream_unavailable")
