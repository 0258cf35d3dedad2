"""What a key may do, and how soon a change of it is seen."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from conduit.core import raw_keys
from conduit.core.actor import SYSTEM
from keys.budgets import current
from keys.issuing import disable_key, enable_key, revoke_key, update_key
from keys.models import OwnerKind, VirtualKey
from keys.teams import create_team, update_team
from tests.harness.gateway import RunningGateway, wait_for
from tests.harness.speakers import SPEAKERS, Speaker, client

pytestmark = pytest.mark.usefixtures("books")
HELLO = 3_300


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, "" if answer.status_code == 200 else answer.json()["error"]["code"]


def row(raw: str) -> VirtualKey:
    return VirtualKey.objects.get(secrets__public_id=raw[7:17])


# --- who may use what


def test_model_patterns(gateway: RunningGateway) -> None:
    key = gateway.key(models=["sandbox-ech?", "gemini/*"])
    assert code(gateway.chat(key=key)) == (200, "")
    assert code(gateway.chat(key=key, model="gemini/sandbox-think")) == (200, "")
    assert code(gateway.chat(key=key, model="sandbox-think")) == (403, "model_not_allowed")
    assert code(gateway.chat(key=key, model="SANDBOX-ECHO")) == (403, "model_not_allowed")
    assert code(gateway.chat(key=key, model="anthropic/sandbox-echo")) == (403, "model_not_allowed")


def test_endpoints(gateway: RunningGateway) -> None:
    key = gateway.key(endpoints=["messages"])
    assert SPEAKERS["anthropic"].ask(gateway.url, key).status_code == 200
    assert code(SPEAKERS["openai"].ask(gateway.url, key)) == (403, "endpoint_not_allowed")
    assert SPEAKERS["gemini"].ask(gateway.url, key).status_code == 403


def test_addresses(gateway: RunningGateway) -> None:
    assert code(gateway.chat(key=gateway.key(ip_allowlist=["127.0.0.0/8"]))) == (200, "")
    assert code(gateway.chat(key=gateway.key(ip_allowlist=["::1", "10.0.0.0/8"]))) == (403, "ip_not_allowed")


def test_a_teams_rules_narrow_its_keys(gateway: RunningGateway) -> None:
    above = create_team(actor=SYSTEM, name="above", models=["sandbox-*"], endpoints=["chat", "messages"])
    team = create_team(actor=SYSTEM, name="below", parent=above, models=["*-echo", "*-think"])
    key = gateway.key(team=team, models=["sandbox-echo", "gemini/*"], endpoints=["chat", "generate"])
    assert code(gateway.chat(key=key)) == (200, "")
    assert code(gateway.chat(key=key, model="sandbox-think")) == (403, "model_not_allowed")  # not the key's
    assert code(gateway.chat(key=key, model="gemini/sandbox-echo")) == (403, "model_not_allowed")  # the team's
    assert SPEAKERS["gemini"].ask(gateway.url, key).status_code == 403  # not the team's endpoint
    assert code(SPEAKERS["openai"].ask(gateway.url, gateway.key(team=team), model="sandbox-json"))[0] == 403


def test_the_keys_cap_on_output_holds(gateway: RunningGateway, speaker: Speaker) -> None:
    key = gateway.key(max_output_tokens=5)
    for cap in (None, 3, 100):
        answer = speaker.ask(gateway.url, key, "words: 50", model="sandbox-lorem", cap=cap)
        assert speaker.read(answer.json())[1][1] == min(cap or 5, 5)


def test_a_key_expires_on_its_own(gateway: RunningGateway) -> None:
    key = gateway.key(expires_at=datetime.now(UTC) + timedelta(seconds=3))
    assert gateway.chat(key=key).status_code == 200
    wait_for(lambda: code(gateway.chat(key=key)) == (401, "invalid_api_key"))


# --- how soon changes are seen


def within_a_second(gateway: RunningGateway, key: str, status: int) -> bool:
    """Whether the gateway answers so a second from now, and ten requests' time later on a machine that is busy."""
    began = time.monotonic()
    gateway.chat()
    allowed = 1.0 + 10 * (time.monotonic() - began)
    began = time.monotonic()
    wait_for(lambda: gateway.chat(key=key).status_code == status, 20)
    return time.monotonic() - began <= allowed


@pytest.mark.parametrize("notices", [True, False])
def test_revoked_and_disabled_keys_are_refused_within_a_second(
    gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch, notices: bool
) -> None:
    if not notices:  # every notification is lost: the poll alone must do

        async def deaf(payload: str) -> None:
            return

        monkeypatch.setattr(gateway.app.gateway._watcher, "_noticed", deaf)
    for how in (revoke_key, disable_key):
        key = gateway.key()
        assert gateway.chat(key=key).status_code == 200
        how(row(key), actor=SYSTEM)
        assert within_a_second(gateway, key, 401)
        if how is disable_key:
            enable_key(row(key), actor=SYSTEM)
            assert within_a_second(gateway, key, 200)


def test_changed_limits_are_seen_within_a_second(gateway: RunningGateway) -> None:
    team = create_team(actor=SYSTEM, name="changing")
    key = gateway.key(team=team)
    assert gateway.chat(key=key).status_code == 200
    update_key(row(key), actor=SYSTEM, changes={"models": ["other"]})
    assert within_a_second(gateway, key, 403)
    update_key(row(key), actor=SYSTEM, changes={"models": []})
    assert within_a_second(gateway, key, 200)
    update_team(team, actor=SYSTEM, changes={"endpoints": ["messages"]})
    assert within_a_second(gateway, key, 403)


# --- guessing


@contextmanager
def counted_loads(gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The public ids that the gateway looked up in the database, also those it reads again after a change elsewhere."""
    from keys import entries

    asked: list[str] = []
    real = entries.stored  # the first that is asked about a key

    def stored(public_id: str) -> Any:
        asked.append(public_id)
        return real(public_id)

    monkeypatch.setattr(entries, "stored", stored)
    yield asked


def test_guessing_costs_no_queries(gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    stranger, unknown = (raw_keys.mint(raw_keys.VIRTUAL_KEY).raw.reveal() for _ in range(2))
    mistyped = [stranger[:-1] + letter for letter in "0123456789" if letter != stranger[-1]]
    gateway.refresh()  # no change is on its way that would make it forget whom it refused
    with counted_loads(gateway, monkeypatch) as asked:
        for key in [*mistyped * 5, *[unknown] * 50, "sk-x", "cdt_vk_" + "A" * 48, "é" * 55]:
            answer = client().get(f"{gateway.url}/v1/key", headers={"x-api-key": key.encode()})
            assert answer.status_code == 401
    assert asked.count(unknown[7:17]) == 1, "one query for the well-formed one"
    assert not {stranger[7:17], "A" * 10} & set(asked), "none for the rest"


def test_a_known_key_costs_one_query(gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    key = gateway.key()
    with counted_loads(gateway, monkeypatch) as asked:
        for _ in range(10):
            assert client().get(f"{gateway.url}/v1/key", headers={"x-api-key": key}).status_code == 200
    assert asked.count(key[7:17]) <= 2, "one for the first request, one when its creation is announced"


def test_a_crowd_with_one_key_costs_one_query(gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    key = gateway.key()
    gateway.refresh()
    with counted_loads(gateway, monkeypatch) as asked, ThreadPoolExecutor(30) as threads:
        answers = list(threads.map(lambda _: gateway.chat(key=key).status_code, range(60)))
    assert answers == [200] * 60
    assert asked.count(key[7:17]) <= 2, "one, and one more when a change elsewhere was announced meanwhile"


def test_a_flood_of_strangers_does_not_push_known_keys_out(gateway: RunningGateway) -> None:
    key = gateway.key()
    gateway.refresh()
    assert gateway.chat(key=key).status_code == 200
    for _ in range(200):
        stranger = raw_keys.mint(raw_keys.VIRTUAL_KEY).raw.reveal()
        assert client().get(f"{gateway.url}/v1/key", headers={"x-api-key": stranger}).status_code == 401
    assert key[7:17] in [entry.public_id for entry in gateway.app.gateway.keys.entries()]


# --- rates


def _crowd(gateway: RunningGateway, key: str, number: int, **headers: str) -> list[httpx.Response]:
    speaker = SPEAKERS["openai"]
    with ThreadPoolExecutor(number) as threads:
        return list(threads.map(lambda _: speaker.ask(gateway.url, key, headers=headers), range(number)))


@pytest.mark.usefixtures("minute")
def test_requests_a_minute_are_exact_under_concurrency(gateway: RunningGateway) -> None:
    key = gateway.key(rpm=7)
    answers = _crowd(gateway, key, 20)
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [429] * 13
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert code(refused) == (429, "rate_limit_exceeded")
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert "x-should-retry" not in refused.headers
    assert "7 requests" in refused.json()["error"]["message"]


@pytest.mark.usefixtures("minute")
def test_a_teams_rate_is_shared_by_its_keys(gateway: RunningGateway) -> None:
    team = create_team(actor=SYSTEM, name="rated", rpm=5)
    keys = [gateway.key(team=team) for _ in range(3)]
    with ThreadPoolExecutor(12) as threads:
        got = list(threads.map(lambda n: gateway.chat(key=keys[n % 3]).status_code, range(12)))
    assert sorted(got) == [200] * 5 + [429] * 7


@pytest.mark.usefixtures("minute")
@pytest.mark.parametrize("name", list(SPEAKERS))
def test_a_rate_limit_in_each_dialect(gateway: RunningGateway, name: str) -> None:
    speaker, key = SPEAKERS[name], gateway.key(rpm=1)
    assert speaker.ask(gateway.url, key).status_code == 200
    refused = speaker.ask(gateway.url, key)
    assert (refused.status_code, speaker.told(refused.json()).word) == (429, speaker.word(429))
    assert int(refused.headers["retry-after"]) >= 1
    event = gateway.event(refused)
    assert (event.attempt, event.error_code, event.cost_nanos) == (0, "rate_limit_exceeded", 0)
    assert [check["check"] for check in event.trace if not check["ok"]] == ["rate"]


@pytest.mark.usefixtures("minute")
def test_tokens_a_minute_are_corrected_by_what_was_really_used(gateway: RunningGateway) -> None:
    key = gateway.key(tpm=2_000)
    shown = [gateway.chat("hello big world", key=key, max_completion_tokens=500) for _ in range(6)]
    # Each is admitted with more than 500 tokens and uses 13: without correction the fourth would be refused.
    assert [answer.status_code for answer in shown] == [200] * 6
    assert int(shown[-1].headers["x-ratelimit-remaining-tokens"]) > 1_000
    over = gateway.chat(key=key, max_completion_tokens=2_500)
    assert code(over) == (429, "rate_limit_exceeded")
    assert "tokens" in over.json()["error"]["message"]


def test_parallel_requests_are_bounded_and_their_places_come_back(gateway: RunningGateway) -> None:
    key = gateway.key(max_parallel=3)
    answers = _crowd(gateway, key, 8, **{"x-sandbox-delay-ms": "700"})
    assert sorted(answer.status_code for answer in answers) == [200] * 3 + [429] * 5
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert (code(refused)[1], refused.headers["retry-after"]) == ("rate_limit_exceeded", "1")
    again = _crowd(gateway, key, 3, **{"x-sandbox-delay-ms": "50"})
    assert [answer.status_code for answer in again] == [200] * 3


def test_a_place_comes_back_when_the_client_leaves(gateway: RunningGateway) -> None:
    key = gateway.key(max_parallel=1)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{gateway.url}/v1/chat/completions",
            json=SPEAKERS["openai"].body("sandbox-echo", "x", False, None),
            headers={"authorization": f"Bearer {key}", "x-sandbox-hang": "headers"},
            timeout=0.4,
            verify=False,
        )
    assert within_a_second(gateway, key, 200)


# --- budgets


def test_a_budget_of_nothing_blocks(gateway: RunningGateway, speaker: Speaker) -> None:
    key = gateway.key(budgets=[{"limit_usd": "0"}])
    refused = speaker.ask(gateway.url, key)
    assert (refused.status_code, refused.headers["x-should-retry"]) == (429, "false")
    assert "retry-after" not in refused.headers
    told = speaker.told(refused.json())
    if speaker.name in ("openai", "responses"):
        assert (told.word, told.code) == ("insufficient_quota", "budget_exceeded")
    else:
        assert told.word == speaker.word(429)
    event = gateway.event(refused)
    assert (event.attempt, event.provider_id, event.error_code) == (0, None, "budget_exceeded")


def test_a_used_up_budget_says_whose_it_is_and_when_it_resets(gateway: RunningGateway) -> None:
    team = create_team(
        actor=SYSTEM,
        name="spenders",
        budgets=[{"limit_usd": "0.000065", "window": "day", "timezone": "Asia/Tokyo"}],
    )
    key = gateway.key(team=team)
    costs = []
    for _ in range(2):  # each may cost up to 60 of the 65 thousand, costs 3,300, and leaves too little for a third
        answer = gateway.chat("hello big world", key=key, max_tokens=3)
        assert answer.status_code == 200
        costs.append(answer.headers["x-conduit-budget-remaining-usd"])
    assert costs == ["0.0000617", "0.0000584"]
    refused = gateway.chat("hello big world", key=key, max_tokens=10)
    assert code(refused) == (429, "budget_exceeded")
    assert refused.headers["x-should-retry"] == "false"
    message = refused.json()["error"]["message"]
    assert "team 'spenders'" in message
    assert "0.000065" not in message, "what the team may spend is not its key holders' to know"
    assert "day" in message
    gateway.ship()
    (state,) = current(OwnerKind.TEAM, team.id)
    assert state.settled_nanos == 2 * HELLO
    assert state.resets_at is not None
    assert state.resets_at.isoformat().replace("+00:00", "Z")[:19] in message


def test_a_soft_budget_only_counts(gateway: RunningGateway) -> None:
    key = gateway.key(budgets=[{"limit_usd": "0.000001", "kind": "soft"}])
    for _ in range(3):
        assert gateway.chat("hello big world", key=key).status_code == 200
    gateway.ship()
    (state,) = current(OwnerKind.KEY, row(key).id)
    assert (state.settled_nanos, state.remaining_nanos) == (3 * HELLO, 1_000 - 3 * HELLO)


def test_what_was_spent_before_keys_are_read_anew_still_counts(gateway: RunningGateway) -> None:
    key = gateway.key(budgets=[{"limit_usd": "0.000057"}])
    assert gateway.chat("hello big world", key=key, max_tokens=3).status_code == 200
    gateway.app.gateway.keys_changed(None)  # as it is when a notification was lost
    assert code(gateway.chat("hello big world", key=key, max_tokens=3)) == (429, "budget_exceeded")


def test_a_raised_budget_opens_again_within_a_second(gateway: RunningGateway) -> None:
    key = gateway.key(budgets=[{"limit_usd": "0.000003"}])
    assert code(gateway.chat(key=key)) == (429, "budget_exceeded")
    update_key(row(key), actor=SYSTEM, changes={"budgets": [{"limit_usd": "1.00"}]})
    assert within_a_second(gateway, key, 200)


def test_a_model_without_a_price_is_refused_under_a_hard_budget_only(gateway: RunningGateway, speaker: Speaker) -> None:
    from conduit.core.secret import Secret
    from providers.credentials import add_credential
    from providers.models import Provider, Route

    if not Route.objects.filter(name="unpriced").exists():
        provider = Provider.objects.create(name="unpriced", kind="custom", base_url=f"{gateway.sandbox.url}/v1")
        fields = {"api_key": Secret("sk-sandbox-test")}
        add_credential(provider, actor=SYSTEM, name="main", fields=fields, verify=False)
        gateway.route("unpriced", (provider, "sandbox-echo"))
    hard, soft = (gateway.key(budgets=[{"limit_usd": "1", "kind": kind}]) for kind in ("hard", "soft"))
    refused = speaker.ask(gateway.url, hard, model="unpriced")
    assert (refused.status_code, refused.headers["x-should-retry"]) == (429, "false")
    if speaker.name == "openai":
        assert code(refused) == (429, "price_unknown")
        assert refused.json()["error"]["type"] == "insufficient_quota"
    served = speaker.ask(gateway.url, soft, model="unpriced")
    event = gateway.event(served)
    assert (event.status, event.cost_nanos, event.price_id, event.flags) == (200, 0, None, ["unpriced"])


def test_a_key_used_from_many_threads_is_billed_exactly(gateway: RunningGateway) -> None:
    key = gateway.key(budgets=[{"limit_usd": "1.00"}])
    started = threading.Barrier(16)

    def visit(number: int) -> str:
        started.wait(10)
        speaker = list(SPEAKERS.values())[number % 3]
        if number % 2:
            return speaker.stream(gateway.url, key)[0].headers["x-request-id"]
        return speaker.ask(gateway.url, key).headers["x-request-id"]

    with ThreadPoolExecutor(16) as threads:
        requests = list(threads.map(visit, range(16)))
    assert len({event.id for request in requests for event in gateway.events(request)}) == 16
    (state,) = current(OwnerKind.KEY, row(key).id)
    assert state.settled_nanos == 16 * HELLO
