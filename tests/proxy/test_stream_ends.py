"""What takes too long, or is too much, ends with one error in the dialect's shape, and is billed as it was streamed."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from typing import Any

import httpx
import pytest

from conduit.proxy import stream_watch
from tests.harness import oracle
from tests.harness.gateway import RunningGateway, wait_for
from tests.harness.speakers import PREFIXES, SPEAKERS, Speaker
from tests.proxy.streams import HEAD, chunk, ending, paced, scripted, standing_still

pytestmark = pytest.mark.usefixtures("module_books")


@pytest.fixture(params=list(PREFIXES))
def echo(request: pytest.FixtureRequest) -> str:
    """The echo model behind each provider's wire format in turn."""
    return f"{PREFIXES[request.param]}sandbox-echo"


def reasons(gateway: RunningGateway) -> dict[str, float]:
    """How many streams ended for which reason so far."""
    with gateway.client() as client:
        lines = client.get("/metrics").text.splitlines()
    found: dict[str, float] = {}
    for line in lines:
        if line.startswith("conduit_streams_ended_total{"):
            reason = line.partition('reason="')[2].partition('"')[0]
            found[reason] = found.get(reason, 0) + float(line.split()[-1])
    return found


def told_once(speaker: Speaker, seen: Any, status: int) -> None:
    """One error of this status's word, and no end marker. The Responses API's event has a code only."""
    assert seen.error is not None
    assert (seen.error.word, seen.ended) == (speaker.word_in_stream(status), False)
    assert sum("error" in frame or frame.get("type") == "error" for frame in seen.frames) == 1


@pytest.mark.parametrize(("prefix", "cut"), [("", 900), ("", 4000), ("anthropic/", 900), ("gemini/", 900)])
def test_the_error_that_ends_a_responses_stream_has_its_number(gateway: RunningGateway, prefix: str, cut: int) -> None:
    body = {"model": f"{prefix}sandbox-lorem", "input": "words: 30", "stream": True}
    with gateway.client() as client:
        answer = client.post("/v1/responses", json=body, headers={"x-sandbox-cut-after-bytes": str(cut)})
    told = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
    assert (told[-1]["type"], len(told) > (1 if cut == 900 else 4)) == ("error", True)
    assert [event["sequence_number"] for event in told] == list(range(len(told)))


# --- time


def test_a_provider_that_falls_silent_is_given_up(gateway: RunningGateway, speaker: Speaker, echo: str) -> None:
    before = reasons(gateway).get("idle_timeout", 0)
    with paced(gateway, idle=0.3):
        silent = {"x-sandbox-tokens": "40", "x-sandbox-chunk-gap-ms": "10", "x-sandbox-hang": "body"}
        answer, seen = speaker.stream(gateway.url, gateway.raw_key, model=echo, headers=silent)
    assert len(seen.text.split()) >= 10
    told_once(speaker, seen, 504)
    event = gateway.event(answer)
    assert (event.outcome, event.status, event.error_code) == ("error", 504, "upstream_timeout")
    billed = oracle.billed(gateway, event.id)
    assert event.output_tokens >= billed.units["output_tokens"] >= len(seen.text.split())
    assert reasons(gateway)["idle_timeout"] == before + 1


def test_a_provider_that_is_only_slow_is_not(gateway: RunningGateway) -> None:
    speaker = SPEAKERS["openai"]
    with paced(gateway, idle=1.5):  # of its frames each comes in time, the whole does not
        _, seen = speaker.stream(gateway.url, gateway.raw_key, headers={"x-sandbox-chunk-gap-ms": "400"})
    assert (seen.text, seen.ended) == ("hello big world", True)


def test_a_stream_that_takes_too_long_altogether_is_ended(gateway: RunningGateway, speaker: Speaker, echo: str) -> None:
    before = reasons(gateway).get("total_timeout", 0)
    with paced(gateway, total=0.5):
        endless = {"x-sandbox-tokens": "4000", "x-sandbox-chunk-gap-ms": "20"}
        answer, seen = speaker.stream(gateway.url, gateway.raw_key, model=echo, headers=endless)
    told_once(speaker, seen, 504)
    event = gateway.event(answer)
    assert (event.outcome, event.error_code) == ("error", "upstream_timeout")
    billed = oracle.billed(gateway, event.id)
    assert event.output_tokens >= billed.units["output_tokens"] >= len(seen.text.split()) > 0
    assert reasons(gateway)["total_timeout"] == before + 1


def test_what_came_while_the_process_stood_still_is_no_silence(gateway: RunningGateway) -> None:
    steady = {"x-sandbox-tokens": "100", "x-sandbox-chunk-gap-ms": "20"}
    with paced(gateway, idle=0.3), standing_still(gateway, after=0.7, seconds=0.8):
        _, seen = SPEAKERS["openai"].stream(gateway.url, gateway.raw_key, headers=steady)
    assert (seen.ended, seen.error, len(seen.text.split())) == (True, None, 100)


def test_what_came_while_the_process_stood_still_is_paid_for(gateway: RunningGateway) -> None:
    endless = {"x-sandbox-tokens": "4000", "x-sandbox-chunk-gap-ms": "20"}
    with paced(gateway, total=1.0), standing_still(gateway, after=0.7, seconds=0.8):
        answer, seen = SPEAKERS["openai"].stream(gateway.url, gateway.raw_key, headers=endless)
    told_once(SPEAKERS["openai"], seen, 504)
    event = gateway.event(answer)
    assert event.output_tokens >= oracle.billed(gateway, event.id).units["output_tokens"]


def test_a_callers_own_limit_holds_for_each_attempt_to_its_last_byte(gateway: RunningGateway, speaker: Speaker) -> None:
    headers = {"x-sandbox-tokens": "4000", "x-sandbox-chunk-gap-ms": "20", "x-conduit-timeout": "0.5"}
    answer, seen = speaker.stream(gateway.url, gateway.raw_key, headers=headers)
    told_once(speaker, seen, 504)
    assert gateway.event(answer).error_code == "upstream_timeout"


def test_a_provider_that_does_not_hang_up_after_its_end_is_not_waited_for(
    gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_watch, "AFTER_THE_END", 0.2)
    speaker = SPEAKERS["openai"]
    with scripted(gateway, "lingering") as lingering:
        lingering.steps = (HEAD + chunk("all of it") + ending(10, 3), 20.0)
        with paced(gateway, keep_alive=0.05, idle=0.1, total=10):
            answer, seen = speaker.stream(gateway.url, gateway.raw_key, model="lingering")
        wait_for(lambda: len(lingering.closed) == 1)
    assert (seen.text, seen.ended, seen.error) == ("all of it", True, None)
    assert answer.content.endswith(b"data: [DONE]\n\n")
    event = gateway.event(answer)
    assert (event.outcome, event.input_tokens, event.output_tokens) == ("ok", 10, 3)


def test_silence_before_the_first_piece_moves_on_to_another_candidate(gateway: RunningGateway) -> None:
    speaker = SPEAKERS["openai"]
    with scripted(gateway, "mute") as mute:
        mute.steps = (HEAD, 20.0)
        gateway.route("mute-first", (gateway.provider("mute"), "x"), (gateway.provider("sandbox"), "sandbox-echo"))
        with paced(gateway, idle=1):  # time enough for the other
            answer, seen = speaker.stream(gateway.url, gateway.raw_key, model="mute-first")
        assert (answer.status_code, seen.text, seen.ended) == (200, "hello big world", True)
        assert answer.headers["x-conduit-attempts"] == "2"
        wait_for(lambda: len(mute.closed) == 1)


def test_a_provider_that_never_sends_its_head_is_given_up(gateway: RunningGateway, settings: Any) -> None:
    settings.CONDUIT_STREAM_IDLE_TIMEOUT = 1
    speaker = SPEAKERS["openai"]
    began = time.monotonic()
    hanging = {"x-sandbox-hang": "headers"}
    answer, _ = speaker.stream(gateway.url, gateway.raw_key, headers=hanging)
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "upstream_timeout")
    assert time.monotonic() - began < 15


def test_without_an_idle_timeout_only_the_head_is_waited_for_with_impatience(
    gateway: RunningGateway, settings: Any
) -> None:
    settings.CONDUIT_STREAM_IDLE_TIMEOUT = 1
    with scripted(gateway, "pausing") as pausing, paced(gateway):
        pausing.steps = (HEAD, chunk("a"), 1.6, chunk("b"), ending(10, 2))
        _, seen = SPEAKERS["openai"].stream(gateway.url, gateway.raw_key, model="pausing")
    assert (seen.text, seen.ended, seen.error) == ("ab", True, None)


def test_a_credential_that_is_rejected_in_mid_stream_trips_the_breaker(gateway: RunningGateway) -> None:
    rejected = b'data: {"error":{"message":"no","type":"authentication_error","code":"invalid_api_key"}}\n\n'
    with scripted(gateway, "rejecting") as rejecting:
        rejecting.steps = (HEAD, chunk("a"), 0.1, rejected)
        _, seen = SPEAKERS["openai"].stream(gateway.url, gateway.raw_key, model="rejecting")
    told_once(SPEAKERS["openai"], seen, 502)
    breaker = gateway.app.gateway.breaker
    assert len(breaker.trips) == 1
    breaker.trips.clear()


# --- size


def test_a_stream_larger_than_any_may_be_is_cut(gateway: RunningGateway, settings: Any) -> None:
    settings.CONDUIT_STREAM_MAX_BYTES = 50_000
    before = reasons(gateway).get("cut", 0)
    speaker = SPEAKERS["openai"]
    with scripted(gateway, "large") as large:
        large.steps = (HEAD, *([chunk("x" * 5000), 0.01] * 30), ending(1, 1))
        answer, seen = speaker.stream(gateway.url, gateway.raw_key, model="large")
    told_once(speaker, seen, 502)
    assert seen.error is not None
    assert "larger than 50000 bytes" in seen.error.message
    assert 5000 <= len(seen.text) < 150_000
    assert gateway.event(answer).outcome == "error"
    assert reasons(gateway)["cut"] == before + 1


def test_bytes_that_become_no_piece_are_counted_too(gateway: RunningGateway, settings: Any) -> None:
    settings.CONDUIT_STREAM_MAX_BYTES = 50_000
    speaker = SPEAKERS["anthropic"]  # a comment is nothing in another dialect
    with scripted(gateway, "empty") as empty:
        empty.steps = (HEAD, *([b": nothing\n\n" * 500, 0.01] * 60), ending(1, 1))
        answer, _ = speaker.stream(gateway.url, gateway.raw_key, model="empty")
    assert answer.status_code == 502
    assert "larger than 50000 bytes" in answer.json()["error"]["message"]


def test_a_stream_of_more_events_than_any_may_have_is_cut(gateway: RunningGateway, settings: Any) -> None:
    settings.CONDUIT_STREAM_MAX_EVENTS = 20
    speaker = SPEAKERS["openai"]
    endless = {"x-sandbox-tokens": "4000", "x-sandbox-chunk-gap-ms": "5"}  # twenty seconds
    answer, seen = speaker.stream(gateway.url, gateway.raw_key, headers=endless)
    told_once(speaker, seen, 502)
    assert seen.error is not None
    assert "more than 20 events" in seen.error.message
    assert len(seen.text.split()) < 2_000  # what was read at once goes out at once
    assert gateway.event(answer).outcome == "error"


# --- what it holds, and what is counted


def test_a_stream_keeps_its_place_among_parallel_requests_until_its_end(gateway: RunningGateway) -> None:
    key, speaker = gateway.key(max_parallel=1), SPEAKERS["openai"]
    body = speaker.body("sandbox-echo", "x", True, None)
    headers = speaker.headers(key, {"x-sandbox-tokens": "400", "x-sandbox-chunk-gap-ms": "20"})
    with (
        httpx.Client(trust_env=False, timeout=20) as own,
        own.stream("POST", f"{gateway.url}/v1/chat/completions", json=body, headers=headers) as answer,
    ):
        assert answer.status_code == 200
        chunks = answer.iter_bytes()
        for _ in range(5):
            next(chunks)
            assert gateway.chat(key=key).status_code == 429
    wait_for(lambda: gateway.chat(key=key).status_code == 200)


def test_streams_are_measured_once_each(gateway: RunningGateway) -> None:
    def measured() -> dict[str, float]:
        with gateway.client() as client:
            lines = client.get("/metrics").text.splitlines()
        labels = 'model="sandbox-lorem",provider="sandbox"'
        found: dict[str, float] = defaultdict(float)
        for line in lines:
            if labels in line and "_bucket" not in line:
                found[line.split("{")[0]] += float(line.split()[-1])  # over its other labels
            elif line.startswith("conduit_streams_open "):
                found["open"] = float(line.split()[-1])
        return found

    def more(name: str) -> float:
        return measured()[name] - before.get(name, 0)

    speaker, before = SPEAKERS["openai"], measured()
    for _ in range(2):
        slow = {"x-sandbox-chunk-gap-ms": "50", "x-sandbox-tokens": "20"}
        answer, _ = speaker.stream(gateway.url, gateway.raw_key, model="sandbox-lorem", headers=slow)
        gateway.event(answer)
    wait_for(lambda: measured()["open"] == 0)
    assert more("conduit_stream_ttft_seconds_count") == 2
    assert more("conduit_stream_tokens_per_second_count") == 2
    assert 0 < more("conduit_stream_tokens_per_second_sum") / 2 <= 200, "each chunk takes 50 ms, but for a stall or two"
    assert more("conduit_streams_ended_total") == 2
