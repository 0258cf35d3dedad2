"""A dry run decides as the request itself would be decided, and leaves no trace of itself. So does a simulation."""

from __future__ import annotations

import random
from typing import Any

import httpx
import pytest
from django.db.models import Sum

from conduit.core.actor import SYSTEM
from conduit.proxy.simulation import Asked, simulate
from keys.customers import put_customer
from keys.models import Budget, BudgetPeriod, Lease, VirtualKey
from keys.teams import create_team
from providers.adapters.types import Dialect, Endpoint
from tests.harness.gateway import RunningGateway, early_in_the_minute, sandbox_provider, wait_for
from tests.harness.invoice import read_invoice
from tests.harness.speakers import Speaker
from usage.models import UsageEvent

pytestmark = pytest.mark.usefixtures("module_books")
DRY = {"x-conduit-dry-run": "1"}
AMOUNTS = ("0", "0.00002", "0.00008", "0.0002", "1000")  # a request below may cost $0.00005 to $0.0004
CONFIGURATIONS, ROUNDS = 24, 2


def row(raw: str) -> VirtualKey:
    return VirtualKey.objects.get(secrets__public_id=raw[7:17])


def dry(gateway: RunningGateway, **fields: Any) -> dict[str, Any]:
    answer = gateway.chat(headers=DRY, **fields)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def outcome(answer: httpx.Response) -> tuple[int, str | None]:
    return answer.status_code, None if answer.status_code == 200 else answer.json()["error"]["code"]


def lines(body: dict[str, Any], check: str) -> list[dict[str, Any]]:
    return [line for line in body["checks"] if line["check"] == check]


def traces_of_use(gateway: RunningGateway) -> dict[str, Any]:
    """Everything that a request moves, once what went before is in the ledger."""
    gateway.ship()
    inner = gateway.app.gateway
    return {
        "journal": (inner.journal._sequence, inner.journal._position),
        "upstream": len(read_invoice(gateway.sandbox.invoice)),
        "events": UsageEvent.objects.count(),
        "lent": Lease.objects.aggregate(granted=Sum("granted_nanos"), spent=Sum("spent_nanos"), held=Sum("held_nanos")),
        "periods": BudgetPeriod.objects.aggregate(leased=Sum("leased_nanos"), settled=Sum("settled_nanos")),
        # what is done is forgotten a minute later
        "slices": sorted(
            (str(one.entry.id), one.granted, one.spent, one.held) for one in inner.holds._all() if not one.done
        ),
        "rates": {name: (meter.left, meter.free) for name, meter in dict(inner.rates.limits._meters).items()},
        "slots": {name: (slots.held, slots.busy) for name, slots in dict(inner.rates.limits._slots).items()},
    }


def at_rest(gateway: RunningGateway) -> bool:
    """Idle slices of budgets and of rates have gone home, and nobody's slot is leased."""
    found = traces_of_use(gateway)
    return not (found["periods"]["leased"] or found["slots"] or any(left for left, _ in found["rates"].values()))


@pytest.fixture(scope="module")
def routes(gateway: RunningGateway) -> list[str]:
    """Over providers with no budget, a tight and a roomy one; one route has a target without a price."""
    providers = [sandbox_provider(name, gateway.sandbox, prefix=f"{name}/") for name in ("free", "tight", "roomy")]
    for provider, amount in zip(providers[1:], (100_000, 10**12), strict=True):
        Budget.objects.create(owner_kind="provider", owner_id=provider.id, limit_nanos=amount)
    free, tight, roomy = [(provider, "sandbox-lorem") for provider in providers]
    gateway.route("tight then free", tight, free)
    gateway.route("dear then free", (providers[0], "sandbox-dear"), free)
    gateway.route("unpriced then roomy", (providers[0], "sandbox-nameless"), roomy)
    gateway.route("only unpriced", (providers[0], "sandbox-nameless"))
    gateway.route("nowhere")
    wait_for(lambda: providers[2].id in gateway.app.gateway._provider_budgets)
    return [
        "free/sandbox-lorem", "tight/sandbox-lorem", "roomy/sandbox-lorem", "tight then free", "dear then free",
        "unpriced then roomy", "only unpriced", "nowhere", "nothing of this name",
    ]  # fmt: skip


def budgets(draw: random.Random) -> list[dict[str, Any]]:
    kinds = draw.sample([("lifetime", "hard"), ("day", "hard"), ("month", "soft")], draw.choice([0, 1, 1, 2]))
    return [{"limit_usd": draw.choice(AMOUNTS), "window": window, "kind": kind} for window, kind in kinds]


def configured(gateway: RunningGateway, draw: random.Random, name: str) -> str:
    """A key of a random configuration. A hard budget is always there: what has no price must be refused by us."""
    parent = create_team(actor=SYSTEM, name=f"above {name}", budgets=budgets(draw))
    models = draw.choice([[], [], [], ["*free*", "*tight*"]])
    team = create_team(actor=SYSTEM, name=name, parent=parent, budgets=budgets(draw), models=models)
    put_customer(actor=SYSTEM, name="bob", team=team, limits={"blocked": draw.random() < 0.5}, specs=budgets(draw))
    own = [*budgets(draw), {"limit_usd": draw.choice(AMOUNTS[1:]), "window": "week"}]
    return gateway.key(
        team=team,
        budgets=own,
        endpoints=draw.choice([[], [], [], ["messages"]]),
        ip_allowlist=draw.choice([[], [], [], ["10.0.0.0/8"], ["127.0.0.0/8"]]),
        max_output_tokens=draw.choice([None, 60]),
    )


def simulated_by(gateway: RunningGateway, key: str, fields: dict[str, Any]) -> dict[str, Any]:
    gateway.ship()
    body = {"messages": [{"role": "user", "content": "words: 40"}], **fields}
    asked = Asked(key=row(key), model=str(fields["model"]), body=body, address="127.0.0.1")
    return simulate(asked, actor=SYSTEM)


def test_dry_run_simulation_and_request_decide_alike(gateway: RunningGateway, routes: list[str]) -> None:
    seen: set[tuple[int, str | None]] = set()
    for seed in range(CONFIGURATIONS):
        draw = random.Random(seed)
        key = configured(gateway, draw, f"random {seed}")
        for turn in range(ROUNDS):
            fields: dict[str, Any] = {"model": draw.choice(routes), "user": draw.choice(["", "alice", "bob", "bob"])}
            cap = draw.choice([None, 40, 200])
            if cap is not None:
                fields["max_tokens"] = cap
            if draw.random() < 0.1:
                fields["temperature"] = "warm"
            foreseen = dry(gateway, text="words: 40", key=key, **fields)
            simulated = simulated_by(gateway, key, fields) if turn else foreseen
            real = outcome(gateway.chat("words: 40", key=key, **fields))
            assert (foreseen["status"], foreseen["code"]) == real, (seed, turn, foreseen)
            assert (simulated["status"], simulated["code"]) == real, (seed, turn, simulated)
            assert foreseen["decision"] == simulated["decision"] == ("allowed" if real[0] == 200 else "refused")
            seen.add(real)
    print(f"dry runs and simulations: {CONFIGURATIONS * ROUNDS} requests foreseen, {sorted(map(str, seen))}")
    codes = {"invalid_value", "ip_not_allowed", "endpoint_not_allowed", "model_not_allowed", "model_not_found"}
    codes |= {"customer_blocked", "price_unknown", "budget_exceeded", "upstream_unavailable"}
    assert {code for _, code in seen} == codes | {None}


def test_nothing_moves(gateway: RunningGateway, routes: list[str]) -> None:
    """Neither where it is allowed nor where each of the checks refuses."""
    team = create_team(actor=SYSTEM, name="still", budgets=[{"limit_usd": "1"}])
    roomy = gateway.key(team=team, budgets=[{"limit_usd": "1"}], rpm=100, tpm=100_000, max_parallel=5)
    poor = gateway.key(team=team, budgets=[{"limit_usd": "0"}])
    for key in (roomy, poor):
        gateway.chat(key=key)
    wait_for(lambda: at_rest(gateway), 30)
    early_in_the_minute()
    dry(gateway, key=roomy)
    before = traces_of_use(gateway)
    for _ in range(5):
        assert dry(gateway, key=roomy)["decision"] == "allowed"
        assert dry(gateway, key=poor)["code"] == "budget_exceeded"
        assert dry(gateway, key=roomy, model="nothing of this name")["code"] == "model_not_found"
        assert dry(gateway, key=roomy, temperature="warm")["code"] == "invalid_value"
        assert dry(gateway, key=roomy, stream=True)["decision"] == "allowed"
        simulate(Asked(key=row(roomy), model="sandbox-echo"), actor=SYSTEM)
    gateway.ship()
    assert traces_of_use(gateway) == before


def test_rates_are_foreseen_and_not_taken(gateway: RunningGateway, minute: None) -> None:
    key = gateway.key(rpm=2, max_parallel=1)
    for served in (0, 1):
        (found,) = [line for line in lines(dry(gateway, key=key), "rate") if line["what"] == "requests"]
        assert (found["ok"], found["used"], found["limit"]) == (True, served, 2)
        assert gateway.chat(key=key).status_code == 200
    refused = dry(gateway, key=key)
    assert (refused["status"], refused["code"]) == (429, "rate_limit_exceeded") == outcome(gateway.chat(key=key))
    assert simulate(Asked(key=row(key), model="sandbox-echo"), actor=SYSTEM)["code"] == "rate_limit_exceeded"
    small = gateway.key(tpm=10)
    assert dry(gateway, key=small)["code"] == "rate_limit_exceeded" == outcome(gateway.chat(key=small))[1]


def test_what_only_requests_in_flight_prevent_waits(gateway: RunningGateway) -> None:
    key = gateway.key(budgets=[{"limit_usd": "0.0002", "wait_ms": 20000}])
    hasty = gateway.key(budgets=[{"limit_usd": "0.0002", "wait_ms": 0}])
    bodies = {"model": "sandbox-lorem", "max_tokens": 200, "messages": [{"role": "user", "content": "words: 3"}]}
    for raw, allowed in ((key, True), (hasty, False)):
        with (
            gateway.client(raw) as client,
            client.stream(
                "POST",
                "/v1/chat/completions",
                json=bodies | {"stream": True},
                headers={"x-sandbox-chunk-gap-ms": "400"},
            ) as running,
        ):
            body = dry(gateway, key=raw, text="words: 3", model="sandbox-lorem", max_tokens=200)
            assert body["waits"] is allowed
            assert body["code"] == (None if allowed else "budget_busy")
            assert lines(body, "budget")[0]["waits"]
            running.read()
        assert dry(gateway, key=raw, text="words: 3", model="sandbox-lorem", max_tokens=200)["waits"] is False


def test_what_others_spent_meanwhile_is_known(gateway: RunningGateway) -> None:
    key = gateway.key(budgets=[{"limit_usd": "0.01"}])
    assert dry(gateway, key=key)["decision"] == "allowed"
    period = BudgetPeriod.objects.filter(budget__owner_id=row(key).id)
    period.update(settled_nanos=10_000_000)
    try:
        assert dry(gateway, key=key)["code"] == "budget_exceeded"
    finally:
        period.update(settled_nanos=0)
    assert dry(gateway, key=key)["decision"] == "allowed"


def test_every_dialect_answers_the_decision(gateway: RunningGateway, speaker: Speaker) -> None:
    key = gateway.key(budgets=[{"limit_usd": "1"}])
    body = speaker.ask(gateway.url, key, cap=50, headers=DRY).json()
    assert (body["decision"], body["route"], body["provider"]) == ("allowed", "sandbox-echo", "sandbox")
    assert body["output_cap"] == 50
    assert 0 < float(body["estimated_cost_usd"]) < float(body["hold_usd"])
    assert body["input_tokens_bound"] >= len("hello big world")


def test_headers_stay_true_and_a_wrong_value_is_no_request(gateway: RunningGateway) -> None:
    key = gateway.key(budgets=[{"limit_usd": "1"}])
    answer = gateway.chat(key=key, headers=DRY)
    told = answer.headers
    assert (told["x-conduit-attempts"], told["x-conduit-cost-usd"], told["x-conduit-dry-run"]) == ("0", "0.00", "1")
    assert "x-conduit-provider" not in told
    assert told["x-conduit-budget-remaining-usd"] == "1.00"
    before = traces_of_use(gateway)
    wrong = gateway.chat(key=key, headers={"x-conduit-dry-run": "yes"})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "x-conduit-dry-run")
    assert gateway.chat(key="cdt_vk_nothing", headers=DRY).status_code == 401
    after = traces_of_use(gateway)
    recorded = ("journal", "upstream", "events")  # leases of former tests are going home meanwhile
    assert [before[name] for name in recorded] == [after[name] for name in recorded]
    real = gateway.chat(key=key, headers={"x-conduit-dry-run": "0"})
    assert real.headers["x-conduit-attempts"] == "1"


def test_a_holder_sees_of_others_budgets_no_more_than_what_is_left(gateway: RunningGateway, routes: list[str]) -> None:
    parent = create_team(actor=SYSTEM, name="those above", budgets=[{"limit_usd": "77.77"}])
    team = create_team(actor=SYSTEM, name="mine", parent=parent, budgets=[{"limit_usd": "55.55"}])
    key = gateway.key(team=team, budgets=[{"limit_usd": "33.33"}])
    answer = gateway.chat(key=key, model="roomy/sandbox-lorem", headers=DRY)
    above, team_s, own, provider_s = lines(answer.json(), "budget")
    assert (own["scope"].split()[0], own["limit_usd"], own["settled_usd"]) == ("key", "33.33", "0.00")
    assert [line.get("remaining_usd") for line in (above, team_s, provider_s)] == ["77.77", "55.55", None]
    for line in (above, team_s, provider_s):
        assert not {"limit_usd", "settled_usd", "held_usd", "budget"} & line.keys()
    assert '"main"' not in answer.text, "no credential is named"


def test_a_simulation_goes_on_behind_the_first_refusal(gateway: RunningGateway) -> None:
    team = create_team(actor=SYSTEM, name="narrow", budgets=[{"limit_usd": "0.00001"}], models=["other"])
    key = row(gateway.key(team=team, ip_allowlist=["10.0.0.0/8"], endpoints=["messages"]))
    body = simulate(Asked(key=key, model="sandbox-echo", address="127.0.0.1"), actor=SYSTEM)
    assert (body["status"], body["code"]) == (403, "ip_not_allowed")
    stopped = {line["check"]: line["would_let_it_pass"] for line in body["checks"] if not line["ok"]}
    assert list(stopped) == ["address", "endpoint", "model", "budget"]
    assert stopped["budget"].startswith("Raise the budget of team narrow by $0.01, or send a shorter prompt")
    (hold,) = body["holds"]
    assert (hold["scope"], hold["hold_usd"]) == ("team narrow", body["hold_usd"])
    (candidate,) = body["candidates"]
    assert (candidate["credential"], candidate["price"]["rates"]["input"]) == ("main", "0.15")


def test_the_trace_tells_what_was_there_before_the_hold(gateway: RunningGateway) -> None:
    key = gateway.key(budgets=[{"limit_usd": "0.0002"}])
    served = gateway.event(gateway.chat(key=key, max_tokens=10))
    (found,) = [line for line in served.trace if line["check"] == "budget"]
    assert (found["limit"], found["settled"], found["held"], found["hold"]) == (200_000, 0, 0, served.held_nanos)
    refused = gateway.event(gateway.chat(key=key, max_tokens=1_000))
    worst, last = refused.trace
    assert (worst["check"], worst["output_tokens"], worst["most"]) == ("worst_case", 1_000, last["hold"])
    assert (last["reason"], last["settled"], last["budget"]) == ("exceeded", served.cost_nanos, str(served.budgets[0]))


@pytest.mark.parametrize(("dialect", "endpoint"), [("anthropic", None), ("gemini", None), ("openai", "embeddings")])
def test_a_simulation_needs_no_body_in_any_dialect(gateway: RunningGateway, dialect: str, endpoint: Any) -> None:
    model = "sandbox-embed" if endpoint else "sandbox-echo"
    key = row(gateway.key(budgets=[{"limit_usd": "1"}]))
    endpoint = Endpoint(endpoint) if endpoint else None
    body = simulate(Asked(key=key, model=model, dialect=Dialect(dialect), endpoint=endpoint), actor=SYSTEM)
    assert (body["decision"], body["model"]) == ("allowed", model), body
