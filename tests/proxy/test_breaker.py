"""A target that fails is left alone for a while, and tried again by one request; others go on (testing.md U6)."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import httpx
import pytest

from conduit.core.actor import SYSTEM
from conduit.core.secret import Secret
from conduit.proxy import pipeline
from conduit.proxy.simulation import Asked as AskedOfSimulation
from conduit.proxy.simulation import simulate
from keys.models import VirtualKey
from providers.credentials import add_credential
from providers.errors import Overloaded
from providers.health import FAILURES, LONGEST_PAUSE, PAUSE_SECONDS, Health
from providers.models import Provider
from tests.harness.gateway import RunningGateway, running_gateway, wait_for
from tests.harness.stub_upstream import Asked, Said, Stub, answering, chat_completion, stub_upstream
from tests.proxy.streams import HEAD, Scripted, chunk, ending, paced, scripted

pytestmark = pytest.mark.usefixtures("module_books")
SYSTEM_ID = UUID(int=7)
DRY = {"x-conduit-dry-run": "1"}


@pytest.fixture(scope="module")
def gateway(committed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    with running_gateway(tmp_path_factory.mktemp("gateway"), allow=["127.0.0.1"], breakers=True) as running:
        yield running


@pytest.fixture(scope="module")
def stub() -> Iterator[Stub]:
    with stub_upstream() as running:
        yield running


@pytest.fixture(scope="module")
def provider(gateway: RunningGateway, stub: Stub) -> Provider:
    row = Provider.objects.create(name="stub", kind="custom", base_url=stub.url)
    for name in ("one", "two"):
        add_credential(row, actor=SYSTEM, name=name, fields={"api_key": Secret(f"sk-{name}")}, verify=False)
    gateway.route("alone", (row, "m"))
    gateway.route("backed", (row, "m"), (gateway.provider("sandbox"), "sandbox-echo"))
    gateway.route("other model", (row, "m2"))
    return row


@pytest.fixture(autouse=True)
def closed(gateway: RunningGateway, stub: Stub, provider: Provider) -> Health:
    health: Health = gateway.app.gateway.health
    health._targets.clear()
    health._waits.clear()
    stub.says = answering
    stub.asked.clear()
    return health


def failing(status: int = 500) -> Any:
    return lambda asked: Said(status, {"error": {"message": "out of order"}})


def outcome(answer: httpx.Response) -> tuple[int, str | None]:
    return answer.status_code, None if answer.status_code == 200 else answer.json()["error"]["code"]


def later(health: Health, seconds: float) -> None:
    """What is to happen in so many seconds happens now."""
    for trouble in health._targets.values():
        trouble.until -= seconds
    for key in health._waits:
        health._waits[key] -= seconds


def broken(asked: Asked) -> Said:
    return Said(200, b'{"choices": [')


def test_25_requests_to_what_fails_are_five_calls(gateway: RunningGateway, stub: Stub) -> None:
    stub.says = failing()
    answers = [gateway.chat(model="alone") for _ in range(25)]
    assert {outcome(answer) for answer in answers} == {(503, "upstream_unavailable")}
    assert len(stub.asked) <= FAILURES
    last = answers[-1]
    assert 1 <= int(last.headers["retry-after"]) <= PAUSE_SECONDS
    assert "failed several times in a row" in last.json()["error"]["message"]
    event = gateway.event(last)
    (line,) = event.trace
    assert (line["check"], line["provider"], line["model"], event.attempt) == ("breaker", "stub", "m", 0)


def test_the_refusal_costs_no_time(gateway: RunningGateway, stub: Stub) -> None:
    stub.says = failing()
    for _ in range(3):
        gateway.chat(model="alone")
    took = []
    with gateway.client() as client:
        body = {"model": "alone", "messages": [{"role": "user", "content": "x"}]}
        for _ in range(20):
            began = time.perf_counter()
            assert client.post("/v1/chat/completions", json=body).status_code == 503
            took.append(time.perf_counter() - began)
    assert min(took) <= 0.05


@pytest.mark.parametrize(
    "says",
    [failing(500), failing(503), failing(529), broken, lambda asked: Said(200, b"<html>"), lambda asked: Said(302, {})],
    ids=["500", "503", "529", "torn", "a page", "redirect"],
)
def test_trouble_of_every_kind_counts(gateway: RunningGateway, stub: Stub, closed: Health, says: Any) -> None:
    stub.says = says
    for _ in range(10):
        assert gateway.chat(model="alone").status_code in (502, 503)
    assert len(stub.asked) == FAILURES
    assert len(list(closed.open())) == 1


def test_a_provider_that_cannot_be_reached_counts(gateway: RunningGateway, closed: Health) -> None:
    row = Provider.objects.create(name="nowhere", kind="custom", base_url="http://127.0.0.1:9")
    add_credential(row, actor=SYSTEM, name="one", fields={"api_key": Secret("sk-x")}, verify=False)
    gateway.route("nowhere at all", (row, "m"))
    events = [gateway.event(gateway.chat(model="nowhere at all")) for _ in range(7)]
    assert [event.attempt for event in events] == [1] * FAILURES + [0, 0]


def test_streams_that_break_count_too(gateway: RunningGateway, closed: Health) -> None:
    cut = {"x-sandbox-cut-after-bytes": "1200", "x-sandbox-tokens": "20", "x-sandbox-chunk-gap-ms": "2"}
    for _ in range(FAILURES):
        assert gateway.chat(model="sandbox-lorem", stream=True, headers=cut).status_code == 200
    assert outcome(gateway.chat(model="sandbox-lorem")) == (503, "upstream_unavailable")


@pytest.mark.parametrize("status", [400, 404, 422, 401, 429])
def test_refusals_are_answers(gateway: RunningGateway, stub: Stub, closed: Health, status: int) -> None:
    stub.says = failing(status)
    for _ in range(FAILURES + 2):
        gateway.chat(model="alone")
    assert not list(closed.open())
    gateway.app.gateway.breaker.trips.clear()


def test_an_empty_account_is_the_operators_affair(gateway: RunningGateway, stub: Stub, closed: Health) -> None:
    stub.says = failing()
    gateway.chat(model="alone")
    before = dict(closed._targets)
    stub.says = lambda asked: Said(402, {"error": {"message": "Insufficient balance of org-7"}})
    answer = gateway.chat(model="alone")
    assert outcome(answer) == (503, "upstream_unavailable")
    assert "org-7" not in answer.text
    for event in gateway.events(answer.headers["x-request-id"], 2):  # each of the two credentials
        assert (event.status, event.error_code, event.cost_nanos) == (503, "upstream_unavailable", 0)
        assert event.error_message == "Insufficient balance of org-7"
    assert dict(closed._targets) == before, "neither an answer nor trouble"
    other = gateway.chat(model="backed")
    assert (other.status_code, other.headers["x-conduit-provider"]) == (200, "sandbox")


def test_an_answer_that_failed_is_told_and_billed(gateway: RunningGateway, stub: Stub, closed: Health) -> None:
    whole = chat_completion()
    whole["choices"] = [{"index": 0, "message": {"role": "assistant", "content": ""}, "finish_reason": "error"}]
    stub.says = lambda asked: Said(body=whole)
    body = {"model": "alone", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]}
    with gateway.client() as client:
        answer = client.post("/v1/messages", json=body)
    assert (answer.status_code, answer.json()["error"]["type"]) == (502, "api_error")
    event = gateway.event(answer)
    told = (event.status, event.outcome, event.error_code, event.exactness)
    assert told == (502, "error", "upstream_invalid_response", "exact")
    assert (event.input_tokens, event.output_tokens) == (5, 1)
    assert not closed._targets


def test_a_success_between_failures_starts_the_count_anew(gateway: RunningGateway, stub: Stub, closed: Health) -> None:
    for _ in range(3):
        stub.says = failing()
        gateway.chat(model="alone")  # two credentials: two attempts
        stub.says = answering
        assert gateway.chat(model="alone").status_code == 200
    assert not list(closed.open())


def test_a_caller_without_patience_opens_nothing(gateway: RunningGateway, closed: Health) -> None:
    headers = {"x-conduit-timeout": "0.05", "x-sandbox-hang": "headers"}
    for _ in range(FAILURES + 1):
        assert gateway.chat(model="sandbox-lorem", headers=headers).status_code == 504
    assert gateway.chat(model="sandbox-lorem").status_code == 200


def test_others_go_on_meanwhile(gateway: RunningGateway, stub: Stub) -> None:
    stub.says = lambda asked: answering(asked) if asked.body["model"] == "m2" else failing()(asked)
    for _ in range(FAILURES):
        gateway.chat(model="alone")
    stub.asked.clear()
    answer = gateway.chat(model="backed")
    assert (answer.status_code, answer.headers["x-conduit-provider"]) == (200, "sandbox")
    assert (answer.headers["x-conduit-attempts"], stub.asked) == ("1", [])
    assert [line["check"] for line in gateway.event(answer).trace] == ["breaker"]
    assert gateway.chat(model="other model").status_code == 200


def test_one_request_at_a_time_tries_it_again(gateway: RunningGateway, stub: Stub, closed: Health) -> None:
    stub.says = failing()
    for _ in range(FAILURES):
        gateway.chat(model="alone")
    stub.asked.clear()

    def slowly(asked: Asked) -> Said:
        time.sleep(0.5)
        return failing()(asked)

    stub.says = slowly
    later(closed, PAUSE_SECONDS)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: gateway.chat(model="alone"), range(8)))
    assert {answer.status_code for answer in answers} == {503}
    assert len(stub.asked) == 1
    (opened,) = [trouble for _, trouble in closed.open()]
    assert opened.pause == 2 * PAUSE_SECONDS
    stub.says = answering
    later(closed, opened.pause)
    assert [gateway.chat(model="alone").status_code for _ in range(3)] == [200] * 3
    assert not list(closed.open())


def half_open(health: Health, gateway: RunningGateway, model: str) -> None:
    """The route's only target fails until it is left alone, and then its pause is over."""
    for _ in range(FAILURES):
        gateway.chat(model=model)
    assert len(list(health.open())) == 1
    later(health, PAUSE_SECONDS)


def test_a_probe_that_the_provider_cannot_carry_is_left_to_the_next_request(
    gateway: RunningGateway, stub: Stub, closed: Health
) -> None:
    row = Provider.objects.create(name="deaf", kind="custom", base_url=stub.url, options={"dialect": "anthropic"})
    add_credential(row, actor=SYSTEM, name="one", fields={"api_key": Secret("sk-one")}, verify=False)
    gateway.route("deaf", (row, "m"))
    stub.says = failing()
    half_open(closed, gateway, "deaf")
    stub.asked.clear()
    sound = [{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}]
    refused = gateway.chat(model="deaf", messages=[{"role": "user", "content": sound}])
    assert (refused.status_code, stub.asked) == (400, [])
    gateway.chat(model="deaf")
    assert len(stub.asked) == 1


def test_a_probe_that_finds_no_room_is_left_to_the_next_request(
    gateway: RunningGateway, stub: Stub, closed: Health
) -> None:
    row = Provider.objects.create(name="narrow", kind="custom", base_url=stub.url, max_parallel=1)
    add_credential(row, actor=SYSTEM, name="one", fields={"api_key": Secret("sk-one")}, verify=False)
    gateway.route("narrow", (row, "m"))
    gateway.route("beside it", (row, "m2"))
    stub.says = failing()
    half_open(closed, gateway, "narrow")
    inside, go = threading.Event(), threading.Event()

    def slowly(asked: Asked) -> Said:
        inside.set()
        go.wait(20)
        return answering(asked)

    stub.says = slowly
    with ThreadPoolExecutor(1) as pool:
        beside = pool.submit(gateway.chat, model="beside it")
        assert inside.wait(20)
        assert gateway.chat(model="narrow").status_code == 429
        go.set()
        assert beside.result().status_code == 200
    stub.says = answering
    assert gateway.chat(model="narrow").status_code == 200


def fails_at_once(upstream: Scripted) -> None:
    upstream.steps = [b"HTTP/1.1 500 x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"]


def test_a_stream_that_has_begun_is_a_probe_that_came_back(gateway: RunningGateway, closed: Health) -> None:
    go = threading.Event()

    def held(connection: socket.socket) -> None:
        go.wait(20)

    with scripted(gateway, "flowing") as upstream, gateway.client() as client:
        fails_at_once(upstream)
        half_open(closed, gateway, "flowing")
        upstream.steps = [HEAD, chunk("one"), held]
        body = {"model": "flowing", "stream": True, "messages": [{"role": "user", "content": "x"}]}
        with client.stream("POST", "/v1/chat/completions", json=body) as probe:
            lines = probe.iter_lines()
            assert "one" in next(lines)
            assert not list(closed.open())
            upstream.steps = [HEAD, chunk("two"), 30.0]
            with gateway.client() as other, other.stream("POST", "/v1/chat/completions", json=body) as beside:
                assert beside.status_code == 200
                assert "two" in next(beside.iter_lines())
            go.set()
            assert "ended before its end marker" in "".join(lines)
    wait_for(lambda: bool(list(closed.open())))
    ((_, opened),) = closed.open()
    assert opened.pause == 2 * PAUSE_SECONDS, "one that breaks later is one failure more"


@pytest.mark.parametrize("limit", ["seconds", "events"])
def test_a_limit_of_ours_opens_nothing(gateway: RunningGateway, closed: Health, limit: str, settings: Any) -> None:
    settings.CONDUIT_STREAM_MAX_EVENTS = 3 if limit == "events" else 1000
    with scripted(gateway, f"many {limit}") as upstream, paced(gateway, total=0.2 if limit == "seconds" else 0):
        upstream.steps = [HEAD, *[chunk("w"), 0.01 if limit == "events" else 0.1] * 20, ending(1, 20)]
        for _ in range(FAILURES + 1):
            answer = gateway.chat(model=f"many {limit}", stream=True)
            assert (answer.status_code, '"error"' in answer.text) == (200, True)
    assert not closed._targets


def test_a_fault_of_ours_opens_nothing(
    gateway: RunningGateway, stub: Stub, closed: Health, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(*anything: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(pipeline, "_whole", faulty)
    assert outcome(gateway.chat(model="alone"))[0] == 500
    assert not closed._targets


def test_a_whole_answer_that_never_ends_is_not_waited_for(gateway: RunningGateway, settings: Any) -> None:
    settings.CONDUIT_STREAM_TOTAL_TIMEOUT = 0.4
    with scripted(gateway, "dripping") as upstream:
        upstream.steps = [b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n", *[b"\n", 0.1] * 50, b"{}"]
        assert outcome(gateway.chat(model="dripping")) == (504, "upstream_timeout")


def test_the_pause_doubles_to_its_longest() -> None:
    health, target, pauses = Health(), (SYSTEM_ID, "m"), []
    for _ in range(FAILURES - 1):
        health.failed(target, SYSTEM_ID, Overloaded("x", status=500))
    assert health.opens_in(target) == 0
    for _ in range(5):
        health.failed(target, SYSTEM_ID, Overloaded("x", status=500))
        pauses.append(round(health.opens_in(target)))
        later(health, LONGEST_PAUSE)
        health.claim(target)
    assert pauses == [10, 20, 40, 60, 60]
    health.unknown(target)
    assert health.opens_in(target) == 0, "a probe that came to nothing leaves it to the next request"


def test_a_wait_that_the_provider_asked_for_holds_for_that_credential(
    gateway: RunningGateway, stub: Stub, closed: Health
) -> None:
    def limited(asked: Asked) -> Said:
        if asked.headers["authorization"] == "Bearer sk-one":
            return Said(429, {"error": {"message": "slow down"}}, {"retry-after": "20"})
        return answering(asked)

    stub.says = limited
    answers = [gateway.chat(model="alone") for _ in range(12)]
    assert {answer.status_code for answer in answers} == {200}
    assert sum(asked.headers["authorization"] == "Bearer sk-one" for asked in stub.asked) <= 1
    stub.says = lambda asked: Said(429, {"error": {"message": "slow down"}}, {"retry-after": "20"})
    assert outcome(gateway.chat(model="alone")) == (429, "upstream_rate_limited")
    stub.asked.clear()
    answer = gateway.chat(model="alone")
    assert (outcome(answer), stub.asked) == ((429, "upstream_rate_limited"), [])
    assert 15 <= int(answer.headers["retry-after"]) <= 20
    assert "asked to wait" in answer.json()["error"]["message"]
    stub.says = answering
    assert gateway.chat(model="other model").status_code == 200, "the limit is the model's"
    later(closed, 20)
    assert gateway.chat(model="alone").status_code == 200


def test_a_dry_run_knows_and_tries_nothing(gateway: RunningGateway, stub: Stub, closed: Health) -> None:
    stub.says = failing()
    for _ in range(FAILURES):
        gateway.chat(model="alone")
    body = gateway.chat(model="alone", headers=DRY).json()
    assert (body["status"], body["code"]) == (503, "upstream_unavailable")
    assert [line["provider"] for line in body["checks"] if line["check"] == "breaker"] == ["stub"]
    later(closed, PAUSE_SECONDS)
    assert gateway.chat(model="alone", headers=DRY).json()["decision"] == "allowed"
    (opened,) = [trouble for _, trouble in closed.open()]
    assert not opened.probing
    key = VirtualKey.objects.get(secrets__public_id=gateway.raw_key[7:17])
    asked = AskedOfSimulation(key=key, model="alone")
    assert simulate(asked, actor=SYSTEM)["decision"] == "allowed", "the control plane knows no worker's breakers"


def test_metrics_tell_what_is_open(gateway: RunningGateway, stub: Stub, closed: Health) -> None:
    def told(number: str) -> bool:
        """Once a second."""
        text = httpx.get(gateway.url + "/metrics", trust_env=False).text
        return f'conduit_breakers_open{{model="m",provider="stub"}} {number}' in text

    stub.says = failing()
    for _ in range(FAILURES):
        gateway.chat(model="alone")
    wait_for(lambda: told("1.0"))
    closed._targets.clear()
    wait_for(lambda: told("0.0"))
