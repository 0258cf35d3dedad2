"""Why a request was refused or what it cost, as scripts and people read it, and who may read what of it."""

from __future__ import annotations

from typing import Any

import pytest

from conduit.access.models import Role
from conduit.core.actor import SYSTEM
from conduit.core.clock import rfc3339
from keys.budgets import current
from keys.issuing import create_key, update_key
from keys.leases import open_periods
from keys.models import Budget, Customer, OwnerKind, Team, UncertainAttempt, VirtualKey
from keys.teams import create_team
from tests.access.clients import ApiClient, client_of, faults
from tests.usage.events import refused, settled
from usage import remedies, traces
from usage.ledger import apply
from usage.models import Price, UsageEvent

pytestmark = pytest.mark.django_db
CENT = 10_000_000


@pytest.fixture
def above() -> Team:
    return create_team(actor=SYSTEM, name="above", budgets=[{"limit_usd": "77.77"}])


@pytest.fixture
def key(above: Team) -> VirtualKey:
    team = create_team(actor=SYSTEM, name="Alice's", parent=above, budgets=[{"limit_usd": "55.55"}])
    made, _ = create_key(actor=SYSTEM, name="forecast", team=team, budgets=[{"limit_usd": "0.05", "window": "day"}])
    return made


def line(budget: Budget, **given: Any) -> dict[str, Any]:
    """As the pipeline writes it."""
    names = {OwnerKind.KEY: "key forecast", OwnerKind.TEAM: "team above", OwnerKind.PROVIDER: "provider acme"}
    fields = {
        "check": "budget", "ok": True, "scope": names[OwnerKind(budget.owner_kind)], "window": budget.window,
        "kind": "hard", "limit": budget.limit_nanos, "settled": 3 * CENT, "held": CENT, "hold": 2 * CENT + 1,
        "budget": str(budget.id), "resets_at": None,
    }  # fmt: skip
    return {**fields, **given}


def owned(kind: str, owner_id: Any) -> Budget:
    return Budget.objects.get(owner_kind=kind, owner_id=owner_id)


def blocked(key: VirtualKey, *trace: dict[str, Any], **given: Any) -> str:
    record = refused(key_id=key.id.bytes, team_id=key.team_id.bytes, trace=list(trace), **given)  # type: ignore[union-attr]
    apply([record])
    return record.request_id


def test_a_refusal_tells_its_figures_then_and_now_and_the_way_out(owner: ApiClient, key: VirtualKey) -> None:
    mine = line(owned("key", key.id), ok=False, reason="exceeded", resets_at="2026-11-21T00:00:00Z")
    body = owner.get(f"/requests/{blocked(key, mine)}").json()["refused"]
    assert (body["by"]["limit_usd"], body["by"]["remaining_usd"], body["by"]["hold_usd"]) == (
        "0.05",
        "0.01",
        "0.020000001",
    )
    assert body["would_let_it_pass"] == (
        "Raise the day budget of key forecast by $0.01, or send a shorter prompt, or ask for fewer output tokens,"
        " or wait until it resets at 2026-11-21T00:00:00Z"
    )
    small = line(owned("key", key.id), ok=False, hold=6 * CENT, resets_at="2026-11-21T00:00:00Z")
    assert "reset" not in remedies.in_words(small), "it fits in no window"
    assert body["now"] == {"passes": True, "found": "$0.0500 is free, $0.0200 is needed"}
    update_key(key, actor=SYSTEM, changes={"budgets": [{"limit_usd": "0.02", "window": "day"}]})
    assert owner.get(f"/requests/{blocked(key, mine)}").json()["refused"]["now"]["passes"] is False


@pytest.mark.parametrize(
    ("refusal", "change", "given"),
    [
        ({"check": "model", "model": "gpt-5"}, {"models": ["gpt-*"]}, {"route": "gpt-5"}),
        ({"check": "endpoint", "endpoint": "chat"}, {"endpoints": ["chat"]}, {}),
        ({"check": "address", "address": "10.1.2.3"}, {"ip_allowlist": ["10.0.0.0/8"]}, {}),
        ({"check": "rate", "scope": "key 'forecast'", "what": "requests", "limit": 1}, {"rpm": None}, {}),
    ],
)
def test_how_a_check_stands_follows_the_configuration(
    owner: ApiClient, key: VirtualKey, refusal: dict[str, Any], change: dict[str, Any], given: dict[str, Any]
) -> None:
    narrow = {"models": ["other"], "endpoints": ["messages"], "ip_allowlist": ["127.0.0.1"]}
    update_key(key, actor=SYSTEM, changes=narrow)
    request = blocked(key, refusal | {"ok": False}, **given)
    before = owner.get(f"/requests/{request}").json()["refused"]
    assert before["would_let_it_pass"]
    assert before["now"]["passes"] is (refusal["check"] == "rate")  # there is no such limit
    update_key(key, actor=SYSTEM, changes=change)
    assert owner.get(f"/requests/{request}").json()["refused"]["now"]["passes"] is True


def test_a_blocked_customer_and_a_missing_route(owner: ApiClient, key: VirtualKey) -> None:
    Customer.objects.create(team_id=key.team_id, name="bob", blocked=True)
    request = blocked(key, {"check": "customer", "ok": False, "customer": "bob"}, customer="bob")
    assert owner.get(f"/requests/{request}").json()["refused"]["now"]["passes"] is False
    request = blocked(key, {"check": "route", "ok": False, "route": "none"}, route="none")
    told = owner.get(f"/requests/{request}").json()["refused"]
    assert (told["now"]["passes"], told["would_let_it_pass"].split(",")[0]) == (False, "Create a route named none")


def test_who_is_narrowed_to_a_team_sees_no_figures_of_what_others_share(key: VirtualKey, above: Team) -> None:
    provider = Budget.objects.create(owner_kind="provider", owner_id=above.id, limit_nanos=99 * CENT)
    trace = [line(owned("key", key.id)), line(owned("team", above.id)), line(provider, ok=False, reason="exceeded")]
    request = blocked(key, *trace)
    narrowed = client_of(Role.OPERATOR, key.team_id).get(f"/requests/{request}")
    own, team, last = narrowed.json()["trace"]
    assert own["limit_usd"] == "0.05"
    assert (team["remaining_usd"], "limit_usd" in team, "settled_usd" in team) == ("77.73", False, False)
    assert not {"limit_usd", "settled_usd", "held_usd", "remaining_usd", "budget"} & last.keys()
    for secret in ("0.99", "77.77", str(provider.id)):
        assert secret not in narrowed.content.decode()
    assert client_of(Role.OPERATOR).get(f"/requests/{request}").json()["trace"][2]["limit_usd"] == "0.99"


def test_an_attempt_tells_its_periods_price_and_settlement(owner: ApiClient, key: VirtualKey) -> None:
    price = Price.objects.create(
        model="m", effective_from="2026-01-02T00:00:00Z", rates={"input": [[0, 150_000_000]]}, vendor="v"
    )
    (state,) = current(OwnerKind.KEY, key.id)
    period = open_periods([(state.id, state.period_start, state.resets_at)])[state.id, state.period_start]
    record = settled(
        key_id=key.id.bytes, team_id=key.team_id.bytes, price_id=price.id.bytes, held_nanos=CENT,  # type: ignore[union-attr]
        budgets=[state.id.bytes], periods=[period],
    )  # fmt: skip
    apply([record])
    (attempt,) = owner.get(f"/requests/{record.request_id}").json()["attempts"]
    assert attempt["price_row"]["effective_from"] == "2026-01-02T00:00:00Z"
    assert attempt["price_row"]["rates"]["input"] == [{"from_units": 0, "rate_usd_per_million": "0.15"}]
    (shown,) = attempt["periods"]
    assert (shown["owner"], shown["window"], shown["starts_at"]) == (
        {"kind": "key", "name": "forecast"}, "day", rfc3339(state.period_start)
    )  # fmt: skip
    assert (attempt["held_usd"], attempt["released_usd"]) == ("0.01", "0.009865")
    assert attempt["settlement"] == "by the usage that the provider sent"


def test_an_uncertain_attempt_keeps_its_hold(owner: ApiClient, key: VirtualKey) -> None:
    record = settled(
        key_id=key.id.bytes, exactness="uncertain", outcome="error", status=504, held_nanos=CENT, cost_nanos=0,
        arithmetic=[], input_tokens=0, output_tokens=0, error_code="upstream_timeout",
    )  # fmt: skip
    apply([record])
    event = UsageEvent.objects.get(request_id=record.request_id)
    UncertainAttempt.objects.get_or_create(
        id=event.id, defaults={"time": event.time, "held_nanos": CENT, "node": "n", "reason": "upstream_timeout"}
    )
    (attempt,) = owner.get(f"/requests/{record.request_id}").json()["attempts"]
    assert (attempt["released_usd"], attempt["uncertain"]["held_usd"]) == ("0.00", "0.01")
    assert attempt["settlement"].startswith("not yet")
    assert attempt["uncertain"]["resolved_at"] is None


def test_a_served_request_is_not_stopped_by_what_an_earlier_candidate_lacked(key: VirtualKey) -> None:
    short = line(owned("key", key.id), ok=False, reason="exceeded")
    apply([record := settled(key_id=key.id.bytes, trace=[short, line(owned("key", key.id))])])
    event = UsageEvent.objects.get(request_id=record.request_id)
    assert {check.result for check in traces.checks_of(event, event.trace)} == {"pass"}


@pytest.mark.parametrize("check", ["key", "address", "endpoint", "tags", "request", "model", "route", "customer",
                                   "rate", "candidates", "price", "budget"])  # fmt: skip
def test_every_check_that_can_refuse_has_a_way_out(check: str) -> None:
    assert remedies.in_words({"check": check, "ok": False})
    assert not remedies.in_words({"check": check, "ok": True})


# --- simulate


def test_only_who_may_issue_a_key_simulates_and_only_for_its_own_teams(key: VirtualKey, above: Team) -> None:
    body = {"key": str(key.id), "model": "anything"}
    for role, status in (("owner", 200), ("admin", 200), ("operator", 200), ("analyst", 403), ("auditor", 403)):
        assert client_of(role).post("/simulate", body).status_code == status, role
    assert client_of(Role.OPERATOR, key.team_id).post("/simulate", body).status_code == 200
    stranger = create_team(actor=SYSTEM, name="Charlie's")
    assert client_of(Role.OPERATOR, stranger.id).post("/simulate", body).status_code == 404


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"key": "x"}, {"key": "invalid_id"}),
        ({"dialect": "cobol"}, {"dialect": "invalid_choice"}),
        ({"dialect": "anthropic", "endpoint": "embeddings"}, {"endpoint": "invalid_choice"}),
        ({"body": []}, {"body": "invalid_object"}),
        ({"max_output_tokens": 0}, {"max_output_tokens": "out_of_range"}),
        ({"tags": ["<b>"]}, {"tags.0": "invalid_tag"}),
        ({"modle": "m"}, {"modle": "unknown_field"}),
    ],
)
def test_what_a_simulation_is_asked_wrongly_is_named(
    owner: ApiClient, key: VirtualKey, given: dict[str, Any], fault: dict[str, str]
) -> None:
    answer = owner.post("/simulate", {"key": str(key.id), "model": "m", **given})
    assert (answer.status_code, faults(answer)) == (400, fault)


def test_a_simulation_tells_of_a_key_that_cannot_be_used_and_a_body_that_cannot_be_read(
    owner: ApiClient, key: VirtualKey
) -> None:
    VirtualKey.objects.filter(id=key.id).update(state="disabled")
    body = owner.post("/simulate", {"key": str(key.id), "model": "m", "body": {"messages": 1}}).json()
    assert (body["decision"], body["status"], body["code"]) == ("refused", 401, "invalid_api_key")
    stopped = {line["check"]: line["would_let_it_pass"] for line in body["checks"] if not line["ok"]}
    assert stopped["key"] == "Enable the key"
    assert stopped["request"] == "Mend the request's body"
