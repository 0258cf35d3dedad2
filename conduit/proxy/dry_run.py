"""`x-conduit-dry-run: 1`: the decision and the estimated cost of a request that is not made (contract 3).

Nothing is taken, held, journalled or sent. The answer is for the key's holder: it tells what is left of the budgets of
teams above, nothing of a provider's, and no credential.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any

import orjson

from conduit.core.money import format_usd
from conduit.proxy import answer_headers, errors, held_back, rate_gate
from conduit.proxy.call import JSON, Answer, Call, Headers
from conduit.proxy.decision import Decision, Foreseen, Funds, Stopped, fund_key
from conduit.proxy.errors import ApiError
from conduit.proxy.pipeline import MAX_ATTEMPTS
from keys import rate_foresight
from keys.entries import BudgetEntry
from keys.leases import BankAway
from keys.rates_now import rates_now
from keys.slices import Slice
from providers.candidates import Candidate, Watch, candidates
from usage import traces

if TYPE_CHECKING:
    from conduit.proxy.gateway import Gateway

HEADER = b"x-conduit-dry-run"


def asked(call: Call) -> bool:
    """Raises ApiError 400: what is not surely a request must not be one by mistake."""
    sent = call.headers.get(HEADER)
    if sent is None or sent == b"0":
        return False
    call.ended = True  # whatever comes of it, nothing is recorded
    if sent != b"1":
        raise errors.invalid_value(HEADER.decode(), "x-conduit-dry-run: must be 1, or 0 for a real request.")
    return True


async def run(gateway: Gateway, call: Call) -> Answer:
    """200 with the decision, whatever it is."""
    decision = Decision(call)
    with suppress(Stopped):
        await _decide(gateway, call, decision)
    return Answer(200, [JSON, *_headers(gateway, call)], orjson.dumps(_body(decision)))


async def _decide(gateway: Gateway, call: Call, decision: Decision) -> None:
    decision.caller()
    decision.request()
    routing = gateway.snapshot.routing
    decision.routed(routing)
    assert call.inbound is not None
    assert decision.route is not None
    call.customer = call.inbound.head.user[:254]
    try:
        entry = await gateway.customer(call.key.team_id, call.customer) if call.customer else None
    except ApiError as error:  # the database is away
        decision.refuse(error)
        return
    decision.customer(entry)
    now = await asyncio.to_thread(rates_now, call.rates)
    decision.rates(rate_foresight.foresee(now, rate_gate.estimate(call), gateway.rates.limits.unused))
    watch = Watch(gateway.breaker, gateway.health, claims=False)
    drawn = candidates(decision.route, gateway.rng, watch=watch, at=gateway.now())
    chosen = list(islice(drawn, MAX_ATTEMPTS))
    decision.checks += held_back.lines(drawn.held_back)
    if drawn.held_back and not chosen:
        decision.refuse(held_back.refusal(drawn.held_back, decision.route))
    funds = {fund_key(one): await _funds(gateway, call, one) for one in chosen}
    decision.served_by(chosen, funds)


async def _funds(gateway: Gateway, call: Call, candidate: Candidate) -> Funds:
    target, limits = candidate.target, rate_gate.scopes(candidate)
    now = await asyncio.to_thread(rates_now, limits) if limits else []
    rates = rate_foresight.foresee(now, rate_gate.estimate(call), gateway.rates.limits.unused)
    try:
        budgets = (*call.budgets, *gateway.provider_budgets(target.provider))
        slices = await _slices(gateway, budgets)
    except (ApiError, BankAway):
        return Funds(gateway.price(target), None, rates)
    return Funds(gateway.price(target), slices, rates)


async def _slices(gateway: Gateway, budgets: Sequence[BudgetEntry]) -> list[Slice]:
    """What this worker knows, asked anew: an idle worker hears nothing of what others spend."""
    slices = gateway.holds.slices(budgets, gateway.now())
    await gateway.holds.look(slices)
    return slices


def _headers(gateway: Gateway, call: Call) -> Headers:
    """Nobody was called, so nobody is named, and it cost nothing."""
    return [
        (HEADER, b"1"),
        (b"x-conduit-attempts", b"0"),
        (b"x-conduit-cache", b"bypass"),
        (b"x-conduit-cost-usd", b"0.00"),
        (b"x-conduit-overhead-ms", f"{call.overhead_us() / 1000:.3f}".encode()),
        *answer_headers.of_budgets(gateway, call),
    ]


def _body(decision: Decision) -> dict[str, Any]:
    error, chosen = decision.error, decision.chosen
    told: dict[str, Any] = {
        "decision": "allowed" if error is None else "refused",
        "status": 200 if error is None else error.status,
        "code": None if error is None else error.code,
        "message": _message(decision) if error is None else error.message,
        "waits": decision.waits,
        "checks": [traces.outward(traces.for_holder(line)) for line in decision.checks],
        "route": decision.route.name if decision.route else None,
        "candidates": [_named(one) for one in decision.candidates],
    }
    return told | (_figures(chosen) if chosen is not None else {})


def _message(decision: Decision) -> str:
    if decision.waits:
        return "The request would wait for others that are still running, and then be served."
    return "The request would be served."


def _named(one: Foreseen) -> dict[str, str]:
    return {"provider": one.candidate.target.provider.name, "model": one.candidate.target.model}


def _figures(one: Foreseen) -> dict[str, Any]:
    return {
        **_named(one),
        "output_cap": one.cap,
        "input_tokens_bound": one.input_tokens,
        "hold_usd": format_usd(one.hold),
        "estimated_cost_usd": None if one.estimate is None else format_usd(one.estimate),
        "dropped_params": list(one.dropped),
    }
