"""The worst case of an attempt, held before it is sent, and the one output cap that makes it the worst case.

A caller that names its cap gets it or is refused. One that names none gets the model's maximum, or less where its
budgets are tight: at most a fourth of what is left, at least SHORTEST tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from conduit.core.clock import rfc3339
from conduit.core.money import format_usd
from conduit.proxy import context_window, errors
from conduit.proxy.call import Call
from conduit.proxy.errors import ApiError
from conduit.proxy.worst_case import Bound, bound, window_of
from keys.entries import BudgetEntry
from keys.holds import Refused
from keys.slices import Hold, Request, Slice
from providers.adapters.types import Endpoint
from providers.routing import TargetEntry
from usage.pricing import PriceRow, worst_case
from usage.rates import Rates, unpriced

if TYPE_CHECKING:
    from conduit.proxy.gateway import Gateway

UNBOUNDED_OUTPUT = 8192  # tokens, where neither the caller, the key nor the catalogue bounds the answer
SHORTEST = 256  # tokens that a lowered cap leaves at least


class Reserved(msgspec.Struct):
    """An attempt's hold, the cap to be written upstream (None: as it came), and the instant that it counts at.
    `rates`: the prices that the hold goes by, where a hard budget carries it."""

    hold: Hold
    cap: int | None
    time_us: int
    rates: Rates | None = None


class Plan(msgspec.Struct):
    """What the attempt may cost. `full` is the cap asked for; `lowest` what it may be lowered to, None: it may not."""

    price: PriceRow | None
    bound: Bound
    full: int
    lowest: int | None
    written: int | None  # the cap that goes upstream whatever the budgets say

    def worst(self, output: int) -> int:
        """Nano-dollars, of answers of `output` tokens."""
        if self.price is None:
            return 0
        most = self.bound
        return worst_case(
            self.price,
            input_tokens=most.input_tokens,
            output_tokens=output + most.beyond_cap,
            n=most.n,
            units=most.units,
        )

    def request(self) -> Request:
        most = self.worst(self.full)
        least = most if self.lowest is None else self.worst(self.lowest)
        return Request(least, most, unbounded=bool(self.bound.unbounded))

    def cap(self, nanos: int) -> int | None:
        """The longest answer that `nanos` pays for."""
        if self.lowest is None or self.price is None:
            return self.written
        base = self.worst(0)
        a_million = self.worst(1_000_000) - base
        if a_million <= 0 or nanos >= self.worst(self.full):
            return self.full
        return max(self.lowest, (nanos - base) * 1_000_000 // a_million)


async def reserve(
    gateway: Gateway, call: Call, target: TargetEntry, price: PriceRow | None, budgets: Sequence[BudgetEntry]
) -> Reserved:
    """Raises ApiError; then nothing is held."""
    plan = plan_of(call, target, price, budgets)
    try:
        hold, time_us = await gateway.hold(budgets, plan.request())
    except Refused as refused:
        slices = gateway.holds.slices(budgets, gateway.now())
        call.trace += lines_of_refusal(plan, target, slices, refused)
        raise refusal(refused) from refused
    call.trace += [line(one, hold.nanos, taken=taken) for one, taken in zip(hold.slices, hold.taken, strict=True)]
    rates = price.rates if price is not None and any(budget.hard for budget in budgets) else None
    return Reserved(hold, plan.cap(hold.nanos), time_us, rates)


def plan_of(call: Call, target: TargetEntry, price: PriceRow | None, budgets: Sequence[BudgetEntry]) -> Plan:
    """Raises ApiError for a prompt longer than the model's context window, and for what no hard budget can carry: an
    unknown price, or a cost without a bound."""
    assert call.inbound is not None
    context_window.check(call, target)
    head, hard = call.inbound.head, [budget for budget in budgets if budget.hard]
    limits = [limit for limit in (head.max_output_tokens, call.key.max_output_tokens) if limit is not None]
    if target.max_output_tokens is not None and (limits or hard):
        limits.append(target.max_output_tokens)
    full = min(limits, default=target.max_output_tokens or UNBOUNDED_OUTPUT)
    written = min(limits, default=None)
    if call.path.endpoint is Endpoint.EMBEDDINGS:
        full, written = 0, None
    if not hard:
        return Plan(price, Bound(input_tokens=len(call.body), output_tokens=None, n=head.n), full, None, written)
    beta = context_window.beta_of(call)
    most = bound(call.inbound, target, call.body, beta=beta)
    lacking = unpriced(price, output_tokens=full, units=most.units) if price else ("input",)
    if lacking:
        call.trace.append({"check": "price", "ok": False, "model": target.model, "units": list(lacking)})
        raise errors.price_unknown(target.model)
    if target.surcharge and price and price.provider_id != target.provider.id and not most.unbounded:
        reason = f"{target.surcharge}, which no price list tells: set a price for the provider {target.provider.name!r}"
        most = msgspec.structs.replace(most, unbounded=reason)
    if most.unbounded:
        _allow_unbounded(call, hard, most.unbounded)
    flexible = head.max_output_tokens is None and full > 0 and not most.unbounded
    if flexible:
        full = context_window.cap_within(window_of(target, beta), most.input_tokens, full, least=SHORTEST)
    return Plan(price, most, full, min(full, SHORTEST) if flexible else None, full if flexible else written)


def _allow_unbounded(call: Call, hard: Sequence[BudgetEntry], reason: str) -> None:
    for budget in hard:
        if budget.unbounded == "deny":
            owner = f"{budget.owner_kind} {budget.owner_name!r}"
            call.trace.append({"check": "bound", "ok": False, "scope": owner, "window": budget.window, "why": reason})
            raise errors.budget_exceeded(
                f"The hard budget of {owner} refuses what it cannot bound: {reason}. Leave that out, or have an"
                ' operator set the budget\'s "unbounded" to "exclusive" or "soft".'
            )
    call.trace.append({"check": "bound", "ok": True, "why": reason})


def line(one: Slice, nanos: int, *, ok: bool = True, taken: int = 0) -> dict[str, object]:
    """One budget's figures before the hold, for the decision trace. `taken`: what of its `held` is the hold itself."""
    figures: dict[str, object] = {
        "check": "budget",
        "ok": ok,
        "scope": f"{one.entry.owner_kind} {one.entry.owner_name}",
        "window": one.entry.window,
        "limit": one.allowed,
        "settled": one.settled,
        "held": one.held + one.elsewhere - taken,
        "hold": nanos,
    }
    if not one.hard:
        figures["kind"] = "soft"
    return figures


def worst_case_line(plan: Plan, target: TargetEntry, nanos: int) -> dict[str, object]:
    """What `nanos` pays for, at most, for the decision trace. `least` and `most` bound the hold."""
    request = plan.request()
    return {
        "check": "worst_case",
        "ok": True,
        "provider": target.provider.name,
        "model": target.model,
        "price": str(plan.price.id) if plan.price else None,
        "input_tokens": plan.bound.input_tokens,
        "output_tokens": plan.cap(nanos) or plan.full,
        "n": plan.bound.n,
        "least": request.least,
        "most": request.most,
    }


def known_line(one: Slice, nanos: int, *, ok: bool) -> dict[str, object]:
    """`line`, with what leads to the budget and says when it resets: for what is refused, and for what is foreseen."""
    resets = rfc3339(one.ended_at) if one.ended_at else None
    kind = "hard" if one.hard else "soft"
    return line(one, nanos, ok=ok) | {"budget": str(one.entry.id), "kind": kind, "resets_at": resets}


def lines_of_refusal(
    plan: Plan, target: TargetEntry, slices: Sequence[Slice], refused: Refused
) -> list[dict[str, object]]:
    """The worst case, and the budgets up to the one that refused."""
    lines = [worst_case_line(plan, target, refused.nanos)]
    if refused.slice is None:
        return [*lines, {"check": "budget", "ok": False, "unavailable": True}]
    for one in slices:
        if one.entry.id == refused.slice.entry.id:
            break
        lines.append(known_line(one, refused.nanos, ok=True))
    return [*lines, known_line(refused.slice, refused.nanos, ok=False) | {"reason": refused.reason}]


def refusal(refused: Refused) -> ApiError:
    """In words for the client: scope, window, what is left and when it resets. The limit is told of the key's own
    budget only: what others may spend is theirs to know (usage/traces.py for_holder)."""
    one = refused.slice
    if one is None:
        return errors.budget_unavailable()
    owner = f"{one.entry.owner_kind} {one.entry.owner_name!r}"
    window = "lifetime" if one.entry.window == "lifetime" else f"{one.entry.window}'s"
    if refused.reason == "busy":
        error = errors.budget_busy(f"The {window} budget of {owner} is held by requests that are still running.")
        error.elsewhere = one.entry.owner_kind == "provider"
        return error
    when = f"It resets at {rfc3339(one.ended_at)}." if one.ended_at else "It does not reset by itself."
    if one.entry.owner_kind == "provider":  # shared by all teams: its figures are nobody's of them
        return errors.budget_exceeded(f"The {window} budget of {owner} is used up. {when}")
    own, left = one.entry.owner_kind == "key", _usd(max(0, one.remaining))
    if one.remaining <= 0:
        limit = f"limit {_usd(one.allowed)}, " if own else ""
        message = f"The {window} budget of {owner} is used up ({limit}$0.00 left). {when}"
    else:
        message = (
            f"The {window} budget of {owner} cannot carry this request: it may cost up to {_usd(refused.nanos)}, and"
            f" {left + f' of {_usd(one.allowed)}' if own else left} is left. Ask for fewer output tokens. {when}"
        )
    return errors.budget_exceeded(message)


def _usd(nanos: int) -> str:
    return f"${format_usd(nanos)}"
