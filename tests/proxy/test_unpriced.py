"""What has no price, or no price for what it does, spends nothing of a hard budget (L6)."""

from __future__ import annotations

from typing import Any

import pytest

from conduit.core.actor import SYSTEM
from providers.credentials import add_credential
from providers.providers import add_provider
from tests.harness import oracle
from tests.harness.gateway import RunningGateway
from tests.harness.stub_upstream import stub_upstream
from usage.overrides import set_price

pytestmark = pytest.mark.usefixtures("module_books")

# Names by which the sandbox's model is not sold: an alias, a variant, a date behind it. None has a price of its own.
VARIANTS = ["sandbox-echo ", " sandbox-echo", "sandbox-echo-2", "sandbox-echo-2026-01-01", "sandbox_echo", "echo"]


def refused(gateway: RunningGateway, key: str, model: str) -> dict[str, Any]:
    answer = gateway.chat("hello", key=key, model=model)
    assert (answer.status_code, answer.headers["x-should-retry"]) == (429, "false")
    error: dict[str, Any] = answer.json()["error"]
    return error


@pytest.mark.parametrize("model", VARIANTS)
def test_a_variant_of_a_priced_name_is_refused_under_a_hard_budget(gateway: RunningGateway, model: str) -> None:
    route = f"variant-{VARIANTS.index(model)}"
    gateway.route(route, (gateway.provider("sandbox"), model))
    error = refused(gateway, gateway.key(budgets=[{"limit_usd": "1"}]), route)
    assert (error["code"], error["type"], error["param"]) == ("price_unknown", "insufficient_quota", "model")


def test_capitals_do_not_make_a_model_free(gateway: RunningGateway) -> None:
    """The catalogue knows names whatever their capitals: the call is priced, and the provider decides on the name."""
    gateway.route("capitals", (gateway.provider("sandbox"), "SANDBOX-ECHO"))
    answer = gateway.chat("hello big world", key=gateway.key(budgets=[{"limit_usd": "1"}]), model="capitals")
    event = gateway.event(answer)
    assert event.price_id is not None
    assert (answer.status_code, event.cost_nanos) == (404, 0), "the sandbox knows its own spelling only"


def test_an_alias_costs_what_its_model_costs(gateway: RunningGateway) -> None:
    gateway.route("my-alias", (gateway.provider("sandbox"), "sandbox-echo"))
    answer = gateway.chat("hello big world", key=gateway.key(budgets=[{"limit_usd": "1"}]), model="my-alias")
    event = gateway.event(answer)
    assert event.cost_nanos == oracle.billed(gateway, event.id).nanos == 10 * 150 + 3 * 600


def test_a_price_set_for_the_variant_opens_it(gateway: RunningGateway) -> None:
    provider = gateway.provider("sandbox-anthropic")
    gateway.route("priced-later", (provider, "sandbox-json-2"))
    key = gateway.key(budgets=[{"limit_usd": "1"}])
    assert refused(gateway, key, "priced-later")["code"] == "price_unknown"
    set_price("sandbox-json-2", actor=SYSTEM, provider=str(provider.id), rates={"input": "1", "output": "1"})
    gateway.refresh()
    assert gateway.chat("hello", key=key, model="priced-later").status_code == 404, "which the sandbox does not have"


def test_no_dearer_vendor_may_answer_for_openrouter_and_no_model_that_spends_by_itself(
    gateway: RunningGateway,
) -> None:
    with stub_upstream() as stub:
        provider = add_provider(actor=SYSTEM, name="openrouter", kind="openrouter", base_url=stub.url)
        add_credential(provider, actor=SYSTEM, name="main", fields={"api_key": "sk-or-1"}, verify=False)
        gateway.route("routed", (provider, "a/model"))
        gateway.route("researches", (provider, "perplexity/sonar-deep-research"))
        for model in ("a/model", "perplexity/sonar-deep-research"):
            set_price(model, actor=SYSTEM, provider=str(provider.id), rates={"input": "1.5", "output": "7"})
        gateway.refresh()
        key = gateway.key(budgets=[{"limit_usd": "1"}])
        assert refused(gateway, key, "researches")["code"] == "budget_exceeded"
        assert gateway.chat("hello", key=key, model="routed").status_code == 200
        assert gateway.chat("hello", model="routed").status_code == 200
        held, free = (asked.body.get("provider") for asked in stub.asked)
        assert held == {"max_price": {"prompt": 1.5, "completion": 7}}
        assert free is None, "without a hard budget any vendor may"


def test_no_event_that_the_provider_billed_costs_nothing(gateway: RunningGateway) -> None:
    from tests.harness.invoice import read_invoice
    from usage.models import UsageEvent

    gateway.chat("hello big world")
    gateway.ship()
    free = {str(event.id) for event in UsageEvent.objects.filter(cost_nanos=0)}
    billed = {attempt: bill.nanos for attempt, bill in read_invoice(gateway.sandbox.invoice).items() if bill.nanos}
    assert billed
    assert free.isdisjoint(billed)
