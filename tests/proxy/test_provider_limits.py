"""Rate limits of providers and credentials: a candidate at its limit is passed over; when none is left it is a 429."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from conduit.core.actor import SYSTEM
from conduit.core.secret import Secret
from providers.credentials import add_credential, update_credential
from providers.models import Provider
from providers.providers import update_provider
from tests.harness.gateway import RunningGateway, wait_for
from tests.harness.sandbox import KEY
from tests.harness.speakers import SPEAKERS, Speaker

pytestmark = pytest.mark.usefixtures("books", "minute")


def provider(**limits: int) -> Provider:
    name = f"limited-{time.monotonic_ns()}"
    return Provider.objects.create(name=name, kind="sandbox", options={"dialect": "openai"}, **limits)


def credential(row: Provider, name: str = "main", **given: Any) -> Any:
    return add_credential(row, actor=SYSTEM, name=name, fields={"api_key": Secret(KEY)}, verify=False, **given)


def route(gateway: RunningGateway, *rows: Provider) -> str:
    name = f"route-{time.monotonic_ns()}"
    gateway.route(name, *((row, "sandbox-echo") for row in rows))
    return name


def test_a_provider_at_its_limit_is_refused_with_the_time_to_come_back(
    gateway: RunningGateway, speaker: Speaker
) -> None:
    row = provider(rpm=2)
    credential(row)
    name = route(gateway, row)
    answers = [speaker.ask(gateway.url, gateway.raw_key, model=name) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert 1 <= int(answers[2].headers["retry-after"]) <= 61
    told = speaker.told(answers[2].json())
    assert told.word == speaker.word(429)
    assert row.name not in told.message
    if speaker.name == "openai":
        assert told.code == "upstream_rate_limited"
    (event,) = gateway.events(answers[2].headers["x-request-id"])
    assert event.attempt == 0
    assert event.trace[-1] == {
        "check": "rate",
        "ok": False,
        "scope": f"provider {row.name!r}",
        "what": "requests",
        "limit": 2,
    }


def test_a_target_at_its_limit_is_passed_over_without_an_attempt(gateway: RunningGateway) -> None:
    first, second = provider(rpm=1), provider()
    credential(first)
    credential(second)
    name = route(gateway, first, second)
    answers = [gateway.chat(model=name) for _ in range(3)]
    assert [answer.headers["x-conduit-provider"] for answer in answers] == [first.name, second.name, second.name]
    assert [answer.headers["x-conduit-attempts"] for answer in answers] == ["1", "1", "1"]


def test_every_credential_is_used_before_anyone_is_refused(gateway: RunningGateway) -> None:
    row = provider()
    for number in range(5):  # more than the attempts that one request may make
        credential(row, f"c{number}", rpm=1)
    name = route(gateway, row)
    answers = [gateway.chat(model=name) for _ in range(6)]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429]
    used = {gateway.event(answer).credential_id for answer in answers[:5]}
    assert len(used) == 5


def test_a_limit_that_is_reached_after_a_failure_ends_the_request_with_that_failure(gateway: RunningGateway) -> None:
    failing, full = provider(), provider(rpm=1)
    credential(failing)
    credential(full)
    alone = route(gateway, full)
    assert gateway.chat(model=alone).status_code == 200
    name = route(gateway, failing, full)
    answer = gateway.chat(model=name, headers={"x-sandbox-status": "503"})
    assert answer.status_code == 503
    (event,) = gateway.events(answer.headers["x-request-id"])
    assert (event.attempt, event.final) == (1, True)


def test_a_failed_attempt_gives_its_place_back_and_the_next_target_serves(gateway: RunningGateway) -> None:
    failing = Provider.objects.create(
        name=f"nowhere-{time.monotonic_ns()}", kind="custom", base_url="http://127.0.0.1:9/v1", max_parallel=1
    )
    good = provider(max_parallel=1)
    credential(failing)
    credential(good)
    name = route(gateway, failing, good)
    for _ in range(3):
        answer = gateway.chat(model=name)
        assert (answer.status_code, answer.headers["x-conduit-attempts"]) == (200, "2")


@pytest.mark.parametrize("owner", ["provider", "credential"])
def test_parallel_requests_of_an_owner_are_bounded_and_given_back(gateway: RunningGateway, owner: str) -> None:
    row = provider(**({"max_parallel": 2} if owner == "provider" else {}))
    credential(row, **({"max_parallel": 2} if owner == "credential" else {}))
    name = route(gateway, row)
    with ThreadPoolExecutor(6) as threads:
        slow, ask = {"x-sandbox-delay-ms": "1000"}, SPEAKERS["openai"].ask  # whose client is there
        answers = threads.map(lambda _: ask(gateway.url, gateway.raw_key, model=name, headers=slow), range(6))
        statuses = [answer.status_code for answer in answers]
    assert sorted(statuses) == [200, 200, 429, 429, 429, 429]
    wait_for(lambda: gateway.chat(model=name).status_code == 200)


def test_a_streams_place_is_held_until_its_end(gateway: RunningGateway, speaker: Speaker) -> None:
    row = provider(max_parallel=1)
    credential(row)
    name = route(gateway, row)
    with ThreadPoolExecutor(1) as threads:
        gaps, before = {"x-sandbox-chunk-gap-ms": "500"}, gateway.sold()
        streaming = threads.submit(speaker.stream, gateway.url, gateway.raw_key, model=name, headers=gaps)
        wait_for(lambda: gateway.sold() > before)
        assert gateway.chat(model=name).status_code == 429
        assert streaming.result()[1].ended
    wait_for(lambda: gateway.chat(model=name).status_code == 200)


def test_tokens_are_corrected_when_the_attempt_has_ended(gateway: RunningGateway) -> None:
    row = provider(tpm=700)
    credential(row)
    name = route(gateway, row)
    for _ in range(4):  # each is estimated at about 280 and uses about 10
        assert gateway.chat("hi", model=name).status_code == 200
    refused = gateway.chat("hi", model=name, max_tokens=5000)
    assert refused.status_code == 429
    assert refused.headers["x-should-retry"] == "false", "alone it is more than the limit"
    assert "retry-after" not in refused.headers


def test_changed_limits_hold_at_once(gateway: RunningGateway) -> None:
    row = provider()
    key = credential(row)
    name = route(gateway, row)
    assert gateway.chat(model=name).status_code == 200
    update_credential(key, actor=SYSTEM, changes={"rpm": 1})
    gateway.refresh()
    assert [gateway.chat(model=name).status_code for _ in range(2)] == [200, 429]
    update_credential(key, actor=SYSTEM, changes={"rpm": None})
    update_provider(row, actor=SYSTEM, changes={"rpm": 2})
    gateway.refresh()
    assert [gateway.chat(model=name).status_code for _ in range(3)] == [200, 200, 429]


def test_without_limits_nothing_is_asked_of_valkey(gateway: RunningGateway) -> None:
    row = provider()
    credential(row)
    name = route(gateway, row)
    limits = gateway.app.gateway.rates.limits
    before = set(limits._meters) | set(limits._slots)
    assert gateway.chat(model=name).status_code == 200
    assert set(limits._meters) | set(limits._slots) <= before


def test_headers_tell_what_is_left_after_the_request(gateway: RunningGateway, speaker: Speaker) -> None:
    key = gateway.key(rpm=10, tpm=10_000)
    answer = speaker.ask(gateway.url, key, "hello big world")
    shown = answer.headers
    assert (shown["x-ratelimit-limit-requests"], shown["x-ratelimit-remaining-requests"]) == ("10", "9")
    event = gateway.event(answer)
    used = event.input_tokens + event.output_tokens
    assert shown["x-ratelimit-remaining-tokens"] == str(10_000 - used), "corrected, not estimated"
    if speaker.name == "anthropic":
        assert shown["anthropic-ratelimit-tokens-remaining"] == str(10_000 - used)
        assert shown["anthropic-ratelimit-requests-limit"] == "10"
    again = speaker.ask(gateway.url, key, "hello big world")
    assert again.headers["x-ratelimit-remaining-tokens"] == str(10_000 - 2 * used)


def test_a_refusal_by_the_callers_own_limit_has_the_headers_too(gateway: RunningGateway, speaker: Speaker) -> None:
    key = gateway.key(rpm=1)
    assert speaker.ask(gateway.url, key).status_code == 200
    refused = speaker.ask(gateway.url, key)
    assert refused.status_code == 429
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert int(refused.headers["retry-after"]) >= int(refused.headers["x-ratelimit-reset-requests"].removesuffix("s"))
