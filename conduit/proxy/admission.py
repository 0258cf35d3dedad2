"""May this key make this request? Each check refuses with an ApiError and leaves its numbers in the call's trace."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conduit.core.clock import rfc3339
from conduit.core.money import format_usd
from conduit.proxy import errors
from conduit.proxy.call import Call
from keys.entries import BudgetEntry
from providers.routing import RouteEntry, TargetEntry
from usage.pricing import PriceRow, worst_case

if TYPE_CHECKING:
    from conduit.proxy.gateway import Gateway

UNBOUNDED_OUTPUT = 8192  # tokens assumed when neither the caller, the key nor the catalogue bounds the answer
MAX_TAGS, MAX_TAG_CHARACTERS = 16, 64


def check_key(call: Call) -> None:
    """Address and endpoint: what can be said before the body is read."""
    key = call.key
    if not key.may_come_from(call.address):
        call.trace.append({"check": "address", "ok": False, "address": call.address})
        raise errors.address_not_allowed()
    endpoint = call.path.endpoint.value
    if not key.may_use_endpoint(endpoint):
        call.trace.append({"check": "endpoint", "ok": False, "endpoint": endpoint})
        raise errors.endpoint_not_allowed(endpoint)


def read_tags(call: Call) -> None:
    """The key's own tags and those of `x-conduit-tags: a,b`."""
    sent = call.headers.get(b"x-conduit-tags", b"").decode("latin-1")
    tags = [tag.strip() for tag in sent.split(",") if tag.strip()] if sent else []
    if len(tags) > MAX_TAGS or any(len(tag) > MAX_TAG_CHARACTERS for tag in tags):
        message = f"at most {MAX_TAGS} tags of at most {MAX_TAG_CHARACTERS} characters"
        raise errors.invalid_value("x-conduit-tags", f"x-conduit-tags: {message}.")
    call.tags = list(dict.fromkeys([*call.key.tags, *tags]))


def find_route(gateway: Gateway, call: Call, name: str) -> RouteEntry:
    """The route of this name, if the key may use it."""
    if not call.key.may_use_model(name):
        call.trace.append({"check": "model", "ok": False, "model": name[:200]})
        raise errors.model_not_allowed(name)
    route = gateway.snapshot.routing.routes.get(name)
    if route is None:
        call.trace.append({"check": "route", "ok": False, "route": name[:200]})
        raise errors.model_not_found(name)
    return route


async def check_customer(gateway: Gateway, call: Call, name: str) -> None:
    """A customer of the key's team may be blocked or have budgets and rates of its own."""
    call.customer = name[:254]
    call.budgets, call.rates = call.key.budgets, call.key.rates
    entry = await gateway.customer(call.key.team_id, call.customer) if name else None
    if entry is None:
        return
    if entry.blocked:
        call.trace.append({"check": "customer", "ok": False, "customer": call.customer})
        raise errors.customer_blocked(name)
    call.budgets, call.rates = call.key.budgets + entry.budgets, call.key.rates + entry.rates


def output_cap(call: Call, target: TargetEntry) -> int | None:
    """The one output cap written upstream, in tokens; None leaves the request as it came."""
    assert call.inbound is not None
    asked = call.inbound.head.max_output_tokens
    limits = [limit for limit in (asked, call.key.max_output_tokens) if limit is not None]
    if limits and target.max_output_tokens is not None:
        limits.append(target.max_output_tokens)
    return min(limits) if limits else None


def hold(gateway: Gateway, call: Call, target: TargetEntry, price: PriceRow | None, cap: int | None) -> int:
    """Refuses when a hard budget is used up or the price is unknown under one. Returns the worst case, nano-dollars."""
    assert call.inbound is not None
    head = call.inbound.head
    worst = 0
    if price is not None:
        output = cap or target.max_output_tokens or UNBOUNDED_OUTPUT
        worst = worst_case(price, input_tokens=len(call.body), output_tokens=output, n=head.n)
    for budget in call.budgets:
        settled = gateway.spending.settled(budget)
        open_ = settled < budget.limit_nanos or not budget.hard
        call.trace.append(
            {
                "check": "budget",
                "ok": open_,
                "scope": f"{budget.owner_kind} {budget.owner_name}",
                "window": budget.window,
                "limit": budget.limit_nanos,
                "settled": settled,
                "hold": worst,
            }
        )
        if not open_:
            raise errors.budget_exceeded(_used_up(gateway, budget))
        if price is None and budget.hard:
            call.trace[-1]["ok"] = False
            raise errors.price_unknown(target.model)
    return worst


def _used_up(gateway: Gateway, budget: BudgetEntry) -> str:
    resets = gateway.spending.resets_at(budget)
    when = f"It resets at {rfc3339(resets)}." if resets else "It does not reset by itself."
    window = "lifetime" if budget.window == "lifetime" else f"{budget.window}'s"
    owner, limit = f"{budget.owner_kind} {budget.owner_name!r}", format_usd(budget.limit_nanos)
    return f"The {window} budget of {owner} is used up (limit ${limit}, $0.00 left). {when}"
