"""Scripted faults on real sockets, and what the invoice says about each."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from providers.sandbox.answers import count_input, tokens_of
from providers.sandbox.openai import parse_chat
from providers.sandbox.prices import PRICES, cost
from tests.harness.invoice import Billed, read_invoice
from tests.harness.sandbox import KEY, RunningSandbox, running_sandbox

INPUT, OUTPUT = 150, 600  # nano-dollars for one token


def _body(content: str = "hello big world", **more: Any) -> dict[str, Any]:
    return {"model": "sandbox-echo", "messages": [{"role": "user", "content": content}], **more}


def _headers(**faults: object) -> tuple[str, dict[str, str]]:
    attempt = str(uuid.uuid4())
    scripted = {f"x-sandbox-{name.replace('_', '-')}": str(value) for name, value in faults.items()}
    return attempt, {"x-conduit-attempt": attempt, **scripted}


async def _post(client: httpx.AsyncClient, body: dict[str, Any], **faults: object) -> tuple[str, httpx.Response]:
    attempt, headers = _headers(**faults)
    return attempt, await client.post("/v1/chat/completions", json=body, headers=headers)


async def _read_until_it_breaks(  # noqa: PLR0913 (what is asked, and how it ends)
    client: httpx.AsyncClient,
    headers: dict[str, str],
    body: dict[str, Any],
    got: list[bytes],
    *,
    patience: float = 15,
    kill: int = 0,
) -> Exception | None:
    """Gathers the body's pieces in `got`; the error that ended it, a timeout after `patience` seconds of silence.
    `kill` is a process to end by then."""
    try:
        async with client.stream(
            "POST", "/v1/chat/completions", json=body, headers=headers, timeout=patience
        ) as answer:
            async for piece in answer.aiter_raw():
                got.append(piece)
                if kill and len(got) == 10:
                    os.kill(kill, signal.SIGKILL)
    except httpx.TransportError as error:
        return error
    return None


async def _settled(sandbox: RunningSandbox, attempt: str) -> Billed:
    """The attempt's bill, once it is final."""
    async with asyncio.timeout(15):
        while True:
            billed = read_invoice(sandbox.invoice).get(attempt)
            if billed is not None and billed.final:
                return billed
            await asyncio.sleep(0.01)


async def test_a_plain_answer_is_billed_to_the_nano_dollar(client: httpx.AsyncClient, sandbox: RunningSandbox) -> None:
    attempt, answer = await _post(client, _body(n=2), cached_tokens=4)
    assert answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"] == 4
    billed = read_invoice(sandbox.invoice)[attempt]
    assert (billed.nanos, billed.requests, billed.final) == (6 * INPUT + 4 * 75 + 6 * OUTPUT, 1, True)


async def test_each_chunk_is_on_the_invoice_before_it_arrives(
    client: httpx.AsyncClient, sandbox: RunningSandbox
) -> None:
    attempt, headers = _headers(tokens=30)
    seen = 0
    async with client.stream("POST", "/v1/chat/completions", json=_body(stream=True), headers=headers) as answer:
        async for line in answer.aiter_lines():
            if '"content":"' in line and '"role"' not in line:
                seen += 1
                assert read_invoice(sandbox.invoice)[attempt].units["output_tokens"] >= seen
    assert seen == 30
    assert (await _settled(sandbox, attempt)).units["output_tokens"] == 30


@pytest.mark.parametrize("pays_on", [False, True])
async def test_a_client_that_leaves_pays_only_for_what_left(
    client: httpx.AsyncClient, sandbox: RunningSandbox, pays_on: bool
) -> None:
    attempt, headers = _headers(tokens=200, chunk_gap_ms=20, bill_after_cancel=int(pays_on))
    began = time.monotonic()
    async with client.stream("POST", "/v1/chat/completions", json=_body(stream=True), headers=headers) as answer:
        lines = answer.aiter_lines()
        for _ in range(10):
            await anext(lines)
    sent = int((time.monotonic() - began) / 0.02)  # at most, until it left
    billed = await _settled(sandbox, attempt)
    count = billed.units["output_tokens"]
    assert count == 200 if pays_on else 1 <= count <= min(sent + 5, 199)
    assert billed.nanos == 10 * INPUT + count * OUTPUT


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
async def test_a_scripted_status_is_answered_and_never_billed(
    client: httpx.AsyncClient, sandbox: RunningSandbox, status: int
) -> None:
    attempt, answer = await _post(client, _body(), status=status, retry_after="7")
    assert (answer.status_code, answer.headers["retry-after"]) == (status, "7")
    assert answer.json()["error"]["message"]
    assert attempt not in read_invoice(sandbox.invoice)


async def test_an_unknown_fault_or_value_is_refused_by_name(client: httpx.AsyncClient) -> None:
    for faults in ({"colour": "red"}, {"hang": "later"}, {"cut_after_bytes": "-1"}, {"delay_ms": "1e3"}):
        _, answer = await _post(client, _body(), **faults)
        assert answer.status_code == 400
        assert f"x-sandbox-{next(iter(faults)).replace('_', '-')}" in answer.json()["error"]["message"]


@pytest.mark.parametrize("stream", [False, True])
async def test_the_connection_is_reset_after_exactly_so_many_bytes(
    client: httpx.AsyncClient, sandbox: RunningSandbox, stream: bool
) -> None:
    attempt, headers = _headers(cut_after_bytes=100, tokens=50)
    got: list[bytes] = []
    error = await _read_until_it_breaks(client, headers, _body(stream=stream), got)
    assert isinstance(error, (httpx.ReadError, httpx.RemoteProtocolError))
    assert len(b"".join(got)) == 100
    assert (await _settled(sandbox, attempt)).units["output_tokens"] == (0 if stream else 50)


@pytest.mark.parametrize(("hang", "stream"), [("headers", False), ("headers", True), ("body", False), ("body", True)])
async def test_a_hang_says_nothing_more_until_the_client_leaves(
    client: httpx.AsyncClient, sandbox: RunningSandbox, hang: str, stream: bool
) -> None:
    attempt, headers = _headers(hang=hang, tokens=10)
    got: list[bytes] = []
    patience = 0.4 if hang == "headers" else 2  # what comes before the silence may be slow to come
    error = await _read_until_it_breaks(client, headers, _body(stream=stream), got, patience=patience)
    assert isinstance(error, httpx.ReadTimeout)
    assert bool(got) == (hang == "body")
    expected = 0 if hang == "headers" else 5 if stream else 10
    assert (await _settled(sandbox, attempt)).units["output_tokens"] == expected


@pytest.mark.parametrize("kind", ["json", "sse", "html"])
@pytest.mark.parametrize("stream", [False, True])
async def test_malformed_answers_do_not_parse(client: httpx.AsyncClient, kind: str, stream: bool) -> None:
    _, answer = await _post(client, _body(stream=stream), malformed=kind)
    assert answer.status_code == 200
    if kind == "html":
        assert answer.headers["content-type"].startswith("text/html")
        return
    pieces = [line[6:] for line in answer.text.splitlines() if line.startswith("data: {")] if stream else [answer.text]
    with pytest.raises(json.JSONDecodeError):
        [json.loads(piece) for piece in pieces]


async def test_an_error_under_200_has_no_end_marker(client: httpx.AsyncClient, sandbox: RunningSandbox) -> None:
    attempt, plain = await _post(client, _body(), error_200=1)
    assert (plain.status_code, "error" in plain.json()) == (200, True)
    assert attempt not in read_invoice(sandbox.invoice)
    attempt, stream = await _post(client, _body(stream=True), error_200=1)
    assert '"error"' in stream.text
    assert "[DONE]" not in stream.text
    assert (await _settled(sandbox, attempt)).units["output_tokens"] == 2


@pytest.mark.parametrize(
    ("fault", "told"),
    [("wrong", 13), ("zero", 0), ("negative", -4), ("text", "many"), ("huge", 10**18), ("missing", None)],
)
async def test_usage_faults_change_what_is_told_and_never_the_invoice(
    client: httpx.AsyncClient, sandbox: RunningSandbox, fault: str, told: object
) -> None:
    attempt, answer = await _post(client, _body(), usage=fault)
    assert answer.json().get("usage", {}).get("completion_tokens") == told
    assert read_invoice(sandbox.invoice)[attempt].units["output_tokens"] == 3


async def test_usage_twice_is_told_twice(client: httpx.AsyncClient) -> None:
    _, plain = await _post(client, _body(), usage="twice")
    assert plain.text.count('"usage"') == 2
    _, stream = await _post(client, _body(stream=True, stream_options={"include_usage": True}), usage="twice")
    assert stream.text.count('"total_tokens"') == 2


async def test_the_cap_holds_unless_told_otherwise(client: httpx.AsyncClient) -> None:
    for faults, expected in (({}, 5), ({"ignore_cap": 1}, 40)):
        _, answer = await _post(client, _body(max_tokens=5), tokens=40, **faults)
        assert answer.json()["usage"]["completion_tokens"] == expected


async def test_a_delay_comes_before_the_headers(client: httpx.AsyncClient) -> None:
    start = asyncio.get_running_loop().time()
    await _post(client, _body(), delay_ms=200)
    assert asyncio.get_running_loop().time() - start >= 0.2


async def test_units_of_images_speech_and_sound_are_billed(client: httpx.AsyncClient, sandbox: RunningSandbox) -> None:
    attempt, headers = _headers()
    await client.post("/v1/images/generations", json={"model": "sandbox-image", "prompt": "x", "n": 3}, headers=headers)
    assert (billed := read_invoice(sandbox.invoice)[attempt]).nanos == 30_000_000
    assert billed.units["image"] == 3
    attempt, headers = _headers()
    said = {"model": "sandbox-speech", "voice": "alloy", "input": "hello"}
    await client.post("/v1/audio/speech", json=said, headers=headers)
    assert read_invoice(sandbox.invoice)[attempt].nanos == 5 * 15_000


async def test_two_requests_of_one_attempt_are_seen_as_two(client: httpx.AsyncClient, sandbox: RunningSandbox) -> None:
    _, headers = _headers()
    for _ in range(2):
        await client.post("/v1/chat/completions", json=_body(), headers=headers)
    assert read_invoice(sandbox.invoice)[headers["x-conduit-attempt"]].requests == 2


@pytest.mark.parametrize(
    "body",
    [
        b"{", b"[]", b'{"model":"sandbox-echo"}', b'{"model":"sandbox-echo","messages":[]}',
        b'{"model":"sandbox-echo","messages":[{"role":"user","content":NaN}]}',
        b'{"model":"sandbox-echo","messages":[{"role":"user","content":"x"}],"max_tokens":true}',
        b'{"model":"sandbox-echo","messages":[{"role":"user","content":"x"}],"max_tokens":1,"max_completion_tokens":2}',
        b'{"model":"sandbox-echo","messages":[{"role":"user","content":[{"type":"hologram"}]}]}',
    ],
)  # fmt: skip
async def test_what_cannot_be_read_is_a_400_and_free(
    client: httpx.AsyncClient, sandbox: RunningSandbox, body: bytes
) -> None:
    attempt, headers = _headers()
    answer = await client.post("/v1/chat/completions", content=body, headers=headers)
    assert answer.status_code == 400
    assert attempt not in read_invoice(sandbox.invoice)


async def test_each_dialect_refuses_a_stranger_in_its_own_shape(sandbox: RunningSandbox) -> None:
    async with httpx.AsyncClient(base_url=sandbox.url, trust_env=False, timeout=20) as stranger:
        gpt = await stranger.get("/v1/models")
        claude = await stranger.get("/v1/models", headers={"anthropic-version": "2023-06-01", "x-api-key": "no"})
        gem = await stranger.get("/v1beta/models", headers={"x-goog-api-key": "no"})
        good = {"anthropic-version": "2023-06-01", "x-api-key": KEY}
        assert (await stranger.get("/v1/models", headers=good)).json()["has_more"] is False
    assert [answer.status_code for answer in (gpt, claude, gem)] == [401, 401, 401]
    assert gpt.json()["error"]["code"] == "invalid_api_key"
    assert claude.json()["type"] == "error"
    assert gem.json()["error"]["status"] == "UNAUTHENTICATED"


async def test_gemini_streams_a_json_array_without_alt(client: httpx.AsyncClient) -> None:
    body = {"contents": [{"parts": [{"text": "hello big world"}]}]}
    headers = {"x-goog-api-key": KEY}
    for version in ("v1", "v1beta"):
        answer = await client.post(f"/{version}/models/sandbox-echo:streamGenerateContent", json=body, headers=headers)
        said = [chunk["candidates"][0]["content"]["parts"][0]["text"] for chunk in answer.json()]
        assert "".join(said) == "hello big world"


async def test_faults_can_hold_for_the_whole_process() -> None:
    with running_sandbox(faults={"status": 503}) as broken:
        async with httpx.AsyncClient(base_url=broken.url, trust_env=False, timeout=20) as client:
            answer = await client.get("/v1/models", headers={"authorization": f"Bearer {KEY}"})
    assert answer.status_code == 503


async def test_the_invoice_outlives_a_kill_in_mid_stream() -> None:
    attempt, headers = _headers(tokens=200, chunk_gap_ms=10)
    with tempfile.TemporaryDirectory() as folder, running_sandbox(Path(folder)) as doomed:
        got: list[bytes] = []
        auth = {"authorization": f"Bearer {KEY}", **headers}
        async with httpx.AsyncClient(base_url=doomed.url, trust_env=False) as client:
            error = await _read_until_it_breaks(client, auth, _body(stream=True), got, kill=doomed.pid)
        assert isinstance(error, httpx.TransportError)
        billed = read_invoice(doomed.invoice)[attempt]
        seen = b"".join(got).count(b'"content":"') - 1  # the role's chunk has an empty one
        assert seen <= billed.units["output_tokens"] < 200
        assert not billed.final
        with doomed.invoice.open("ab") as file:
            file.write(b'{"torn')
        assert read_invoice(doomed.invoice)[attempt] == billed


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.text(), min_size=1, max_size=5))
def test_input_never_counts_more_than_bytes_and_overhead(contents: list[str]) -> None:
    contents = [text.encode("utf-8", "replace").decode() for text in contents]
    prompt = parse_chat({"model": "m", "messages": [{"role": "user", "content": text} for text in contents]})
    assert count_input(prompt) <= sum(len(text.encode()) for text in contents) + 8 * len(contents) + 16
    for text in contents:
        assert "".join(tokens_of(text)) == text


def test_the_price_list_is_whole_numbers_and_exact() -> None:
    for price in PRICES.values():
        assert all(isinstance(rate, int) and rate % 1_000_000 == 0 for rate in price["rates"].values())
    assert (
        cost("sandbox-echo", input_tokens=10, cached_tokens=4, output_tokens=2, units={}) == 6 * 150 + 4 * 75 + 2 * 600
    )
