"""What would become of a request: the pipeline's own checks, made without taking, holding or sending anything.

A Decision is fed with what its caller found out (the gateway's memory for a dry run, the database for a simulation) and
asks the same functions as the pipeline, in the same order. It does no I/O and knows no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar
from uuid import UUID

import msgspec

from conduit.core.clock import rfc3339
from conduit.proxy import admission, pipeline, rate_gate, reservation
from conduit.proxy.call import Call
from conduit.proxy.dialects.prompt_tokens import estimated_prompt
from conduit.proxy.errors import ApiError, budget_unavailable, candidates_limited, no_credential, telling
from keys.entries import CustomerEntry
from keys.foresight import Prospect, foresee
from keys.holds import Refused
from keys.limits import OverLimit
from keys.rate_foresight import RateProspect
from keys.slices import Slice
from providers.adapters.estimate import tokens_in
from providers.adapters.types import Usage
from providers.candidates import Candidate
from providers.routing import RouteEntry, Routing
from usage.pricing import PriceRow, cost

Found = TypeVar("Found")
Line = dict[str, Any]
NOBODY = UUID(int=0)  # stands for the attempt's id in what is built to see whether it can be


class Funds(msgspec.Struct, frozen=True):
    """What stands behind one candidate: its price, a slice of each budget (None: they cannot be asked), and the limits
    of its provider and credential."""

    price: PriceRow | None
    slices: Sequence[Slice] | None
    rates: Sequence[RateProspect] = ()


class Foreseen(msgspec.Struct):
    """One candidate. Amounts are nano-dollars; `hold` is what would be held, `estimate` what it may really cost."""

    candidate: Candidate
    price: PriceRow | None
    checks: list[Line]
    error: ApiError | None = None
    waits: bool = False
    cap: int | None = None
    input_tokens: int = 0
    hold: int = 0
    estimate: int | None = None
    prospects: list[Prospect] = []
    dropped: tuple[str, ...] = ()


class Stopped(Exception):
    """A check refused, and nothing behind it is looked at."""


class Decision:
    """`to_end`: goes on after a refusal, as far as there is something to check; else raises Stopped."""

    def __init__(self, call: Call, *, to_end: bool = False) -> None:
        self.call, self.to_end = call, to_end
        self.checks: list[Line] = []
        self.error: ApiError | None = None
        self.route: RouteEntry | None = None
        self.candidates: list[Foreseen] = []
        self.chosen: Foreseen | None = None

    @property
    def allowed(self) -> bool:
        return self.error is None

    @property
    def waits(self) -> bool:
        return self.allowed and self.chosen is not None and self.chosen.waits

    def check(self, name: str, act: Callable[[], Found], **found: Any) -> Found | None:
        """Does what the pipeline does and notes how it went; `found` is told when it passes."""
        call = self.call
        call.trace = []
        try:
            result = act()
        except ApiError as error:
            self.checks += call.trace or [{"check": name, "ok": False, "reason": error.message}]
            self.refuse(error)
            return None
        self.checks += call.trace or [{"check": name, "ok": True, **found}]
        return result

    def refuse(self, error: ApiError) -> None:
        """The first refusal decides."""
        self.error = self.error or error
        if not self.to_end:
            raise Stopped

    def caller(self, *, with_address: bool = True) -> None:
        """Address, endpoint and tags."""
        call = self.call
        if with_address:
            self.check("address", lambda: admission.check_address(call), address=call.address)
        self.check("endpoint", lambda: admission.check_endpoint(call), endpoint=call.path.endpoint.value)
        self.check("tags", lambda: admission.read_tags(call))

    def request(self) -> None:
        """The body."""
        call = self.call
        path = call.path
        call.inbound = self.check(
            "request",
            lambda: call.dialect.parse(path.endpoint, call.body, model=path.model, stream=path.stream),
            bytes=len(call.body),
        )

    def routed(self, routing: Routing) -> None:
        """The model's name: may the key use it, and does it lead anywhere?"""
        call = self.call
        assert call.inbound is not None
        name = call.inbound.head.model
        self.check("model", lambda: admission.check_model(call, name), model=name[:200])
        self.route = self.check("route", lambda: admission.check_route(routing, call, name), route=name[:200])

    def customer(self, entry: CustomerEntry | None) -> None:
        call = self.call
        self.check("customer", lambda: admission.take_customer(call, entry), customer=call.customer or None)

    def rates(self, prospects: Sequence[RateProspect]) -> None:
        """Every limit of every scope; the first that is reached decides."""
        for one in prospects:
            self.checks.append(_rate_line(one))
            if not one.ok:
                self.refuse(rate_gate.refusal(OverLimit(one.scope, one.what, one.limit, one.wait)))
        if not prospects:
            self.checks.append({"check": "rate", "ok": True})

    def served_by(self, chosen: Sequence[Candidate], funds: Mapping[UUID, Funds]) -> None:
        """The candidates in the order of their turn. `funds` by provider id and model: see `fund_key`."""
        assert self.route is not None
        if not chosen:
            error = no_credential(self.route.name)
            self.checks.append({"check": "candidates", "ok": False, "reason": error.message})
            self.refuse(error)
            return
        self.checks.append({"check": "candidates", "ok": True, "number": len(chosen)})
        self.candidates = [self._foresee(one, funds[fund_key(one)]) for one in chosen]
        self.chosen, failed = self.candidates[0], None
        for left, one in zip(range(len(chosen) - 1, -1, -1), self.candidates, strict=True):
            if one.error is None:
                self.chosen, failed = one, None
                break
            failed = telling(failed, one.error)
            if not left or not one.error.elsewhere:  # the next one is tried where this one's money is short
                break
        before = self.candidates[: self.candidates.index(self.chosen)]
        self.checks += [line for one in before for line in one.checks if line["check"] == "context"]
        self.checks += self.chosen.checks
        if failed is not None:
            self.refuse(failed)

    def _foresee(self, candidate: Candidate, funds: Funds) -> Foreseen:
        call, target, found = self.call, candidate.target, Foreseen(candidate, funds.price, [])
        assert self.route is not None
        try:
            for limit in funds.rates:
                found.checks.append(_rate_line(limit))
                if not limit.ok:
                    raise candidates_limited(self.route.name, limit.wait)
            if funds.slices is None:
                raise budget_unavailable()
            call.trace = []
            plan = reservation.plan_of(call, target, funds.price, [one.entry for one in funds.slices])
            found.checks += call.trace or [_price_line(candidate, funds.price)]
            found.input_tokens = plan.bound.input_tokens
            found.prospects = foresee(funds.slices, plan.request())
            holds = [one.hold for one in found.prospects if one.slice.hard]
            found.hold = min(holds, default=plan.request().most)
            found.cap = plan.cap(found.hold)
            found.estimate = self._estimate(funds.price, found.cap)
            found.checks.append(reservation.worst_case_line(plan, target, found.hold))
            found.checks += [_budget_line(one) for one in found.prospects]
            found.waits = any(one.waits for one in found.prospects)
            for one in found.prospects:
                if not one.passes:
                    raise reservation.refusal(_refused(one))
            found.dropped = pipeline.build(call, candidate, self.route, found.cap, NOBODY).dropped
        except ApiError as error:
            found.error = error
            found.checks += [] if any(not one["ok"] for one in found.checks) else _unnoted(call, error)
        return found

    def _estimate(self, price: PriceRow | None, cap: int | None) -> int | None:
        """What it may cost: the prompt by the usual figure, and an answer of the length that rates assume."""
        call = self.call
        assert call.inbound is not None
        if price is None:
            return None
        output = 0 if call.path.endpoint.value == "embeddings" else rate_gate.ASSUMED_ANSWER_TOKENS
        output = (output if cap is None else min(output, cap)) * call.inbound.head.n
        try:
            prompt = estimated_prompt(call.inbound)
        except ApiError:  # a body that only its own dialect can carry
            prompt = tokens_in(call.body)
        return cost(Usage(input_tokens=prompt, output_tokens=output), price).nanos


def fund_key(candidate: Candidate) -> Any:
    """What tells the funds of two candidates apart."""
    return candidate.target.provider.id, candidate.credential.id, candidate.target.model


def _rate_line(one: RateProspect) -> Line:
    scope = f"{one.scope.kind} {one.scope.name!r}"
    figures = {"scope": scope, "what": one.what, "limit": one.limit, "used": one.used, "asked": one.asked}
    return {"check": "rate", "ok": one.ok, **figures}


def _price_line(candidate: Candidate, price: PriceRow | None) -> Line:
    line = {"check": "price", "ok": True, "provider": candidate.target.provider.name, "model": candidate.target.model}
    if price is not None:
        line |= {"price": str(price.id), "effective_from": rfc3339(price.effective_from)}
    return line


def _budget_line(one: Prospect) -> Line:
    line = reservation.known_line(one.slice, one.hold, ok=one.passes)
    if one.result != "fits":
        line["reason"] = "busy" if one.waits else one.result
    return line | {"least": one.needed, "waits": one.waits}


def _refused(one: Prospect) -> Refused:
    if one.result == "unavailable":
        return Refused("unavailable")
    return Refused("busy" if one.waits else "exceeded", one.slice, one.needed)


def _unnoted(call: Call, error: ApiError) -> list[Line]:
    """A refusal that left no line of its own: a field that the provider cannot carry, budgets that cannot be asked."""
    if call.trace and not call.trace[-1].get("ok", True):
        return call.trace[-1:]
    if error.code == "budget_unavailable":
        return [{"check": "budget", "ok": False, "unavailable": True}]
    return [{"check": "request", "ok": False, "field": error.param, "reason": error.message}]
