"""`POST /api/v1/simulate`: what would become of a request, decided in the control plane from what the database knows.

Synchronous, and without the data plane: it may run where no gateway does. Every check is made, also behind the first
that refuses. What workers have spent and not shipped yet (about a second) is not known here.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from time import perf_counter
from typing import Any

import msgspec
import orjson

from conduit.core.actor import Actor
from conduit.core.clock import now, rfc3339
from conduit.core.errors import InvalidInput
from conduit.core.money import format_usd
from conduit.proxy import errors, rate_gate
from conduit.proxy.call import Call
from conduit.proxy.decision import Decision, Foreseen, Funds, fund_key
from conduit.proxy.dialects.registry import DIALECTS
from conduit.proxy.paths import Path
from conduit.proxy.pipeline import MAX_ATTEMPTS
from conduit.proxy.snapshot import Pictures, Snapshot
from keys import entries, rate_foresight
from keys.entries import KeyEntry
from keys.foresight import read_slices
from keys.models import VirtualKey
from keys.rates_now import rates_now
from keys.representation import state_of
from providers.adapters.types import Dialect, Endpoint
from providers.candidates import Candidate
from providers.routing import RouteEntry
from usage import remedies, traces

ENDPOINTS = {
    Dialect.OPENAI: (Endpoint.CHAT, Endpoint.COMPLETIONS, Endpoint.EMBEDDINGS),
    Dialect.RESPONSES: (Endpoint.RESPONSES,),
    Dialect.ANTHROPIC: (Endpoint.MESSAGES,),
    Dialect.GEMINI: (Endpoint.GENERATE, Endpoint.EMBEDDINGS),
}
_SAMPLE = "Hello"


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """`body` is the request's JSON, a small one when None; `address` None: the address is not looked at. A cap or a
    customer that is given wins over the body's."""

    key: VirtualKey
    model: str
    dialect: Dialect = Dialect.OPENAI
    endpoint: Endpoint | None = None
    body: Mapping[str, Any] | None = None
    max_output_tokens: int | None = None
    customer: str | None = None
    tags: tuple[str, ...] = ()
    address: str | None = None


def simulate(asked: Asked, *, actor: Actor) -> dict[str, Any]:
    """The answer's body. Raises InvalidInput where the dialect has no such endpoint. Changes nothing."""
    at = now()
    entry, hindrance = entries.of_key(asked.key, actor)
    decision, picture = Decision(_call(asked, entry), to_end=True), Pictures().load()
    if hindrance:
        state = state_of(asked.key, at)
        stopped = {"state": "stopped", "found": hindrance} if state == "active" else {"state": state}
        decision.checks.append({"check": "key", "ok": False, **stopped})
        decision.refuse(errors.bad_key())
    else:
        decision.checks.append({"check": "key", "ok": True, "state": "active"})
    _decide(decision, picture, asked, at)
    return _body(decision, actor)


def _call(asked: Asked, key: KeyEntry) -> Call:
    body = dict(asked.body) if asked.body is not None else _sample(asked)
    path = _path(asked)
    if path.dialect is not Dialect.GEMINI:  # there the path names the model
        body["model"] = asked.model
    tags = ",".join(asked.tags).encode("latin-1", "replace")
    return Call(
        request_id="simulated",
        body=orjson.dumps(body),
        headers={b"x-conduit-tags": tags} if tags else {},
        address=asked.address or "",
        started=perf_counter(),
        path=path,
        dialect=DIALECTS[asked.dialect],
        key=key,
    )


def _path(asked: Asked) -> Path:
    endpoint = asked.endpoint or ENDPOINTS[asked.dialect][0]
    if endpoint not in ENDPOINTS[asked.dialect]:
        names = ", ".join(ENDPOINTS[asked.dialect])
        raise InvalidInput("endpoint", f"In the dialect {asked.dialect} it must be one of {names}.", "invalid_choice")
    return Path(asked.dialect, endpoint, "generate", "POST", asked.model if asked.dialect is Dialect.GEMINI else "")


def _sample(asked: Asked) -> dict[str, Any]:
    """The least that the dialect accepts."""
    embeds = asked.endpoint is Endpoint.EMBEDDINGS
    if asked.dialect is Dialect.GEMINI:
        part = {"parts": [{"text": _SAMPLE}]}
        return {"content": part} if embeds else {"contents": [{"role": "user", **part}]}
    if embeds or asked.dialect is Dialect.RESPONSES:
        return {"input": _SAMPLE}
    if asked.endpoint is Endpoint.COMPLETIONS:
        return {"prompt": _SAMPLE}
    body: dict[str, Any] = {"messages": [{"role": "user", "content": _SAMPLE}]}
    if asked.dialect is Dialect.ANTHROPIC:  # its callers must name a cap
        body["max_tokens"] = asked.max_output_tokens or rate_gate.ASSUMED_ANSWER_TOKENS
    return body


def _decide(decision: Decision, picture: Snapshot, asked: Asked, at: datetime) -> None:
    call = decision.call
    if asked.address is None:
        decision.checks.append({"check": "address", "ok": True, "address": None, "found": "not given: not looked at"})
    decision.caller(with_address=asked.address is not None)
    decision.request()
    if call.inbound is None:
        return
    given = {"max_output_tokens": asked.max_output_tokens, "user": asked.customer}
    changes = {name: value for name, value in given.items() if value is not None}
    call.inbound = msgspec.structs.replace(call.inbound, head=msgspec.structs.replace(call.inbound.head, **changes))
    decision.routed(picture.routing)
    call.customer = call.inbound.head.user[:254]
    decision.customer(entries.load_customer(call.key.team_id, call.customer) if call.customer else None)
    decision.rates(rate_foresight.foresee(rates_now(call.rates), rate_gate.estimate(call)))
    if decision.route is not None:
        chosen = _candidates(decision.route)
        decision.served_by(chosen, _funds(call, picture, chosen, at))


def _candidates(route: RouteEntry) -> list[Candidate]:
    """By priority, then by weight: of equal ones a real request draws."""
    targets = sorted(route.targets, key=lambda target: (target.priority, -target.weight))
    pairs = [Candidate(target, one) for target in targets for one in _heaviest(target.provider.credentials)]
    return pairs[:MAX_ATTEMPTS]


def _heaviest(credentials: Any) -> list[Any]:
    usable = [one for one in credentials if one.weight > 0] if len(credentials) > 1 else list(credentials)
    return sorted(usable, key=lambda one: -one.weight)


def _funds(call: Call, picture: Snapshot, chosen: list[Candidate], at: datetime) -> dict[Any, Funds]:
    own = entries.load_provider_budgets()
    slices = {
        id: read_slices((*call.budgets, *own.get(id, ())), at) for id in {one.target.provider.id for one in chosen}
    }
    return {
        fund_key(one): Funds(
            picture.price(one.target),
            slices[one.target.provider.id],
            rate_foresight.foresee(rates_now(rate_gate.scopes(one)), rate_gate.estimate(call)),
        )
        for one in chosen
    }


# --- the answer


def _body(decision: Decision, actor: Actor) -> dict[str, Any]:
    error, chosen = decision.error, decision.chosen
    told: dict[str, Any] = {
        "decision": "allowed" if error is None else "refused",
        "status": 200 if error is None else error.status,
        "code": None if error is None else error.code,
        "message": "The request would be served." if error is None else error.message,
        "waits": decision.waits,
        "checks": _lines(decision.checks, actor),
        "route": decision.route.name if decision.route else None,
        "provider": None,
        "model": None,
        "output_cap": None,
        "input_tokens_bound": None,
        "hold_usd": None,
        "estimated_cost_usd": None,
        "dropped_params": [],
    }
    if chosen is not None:
        told |= _figures(chosen)
    return told | {
        "holds": _holds(chosen, actor) if chosen is not None else [],
        "candidates": [_candidate(one, actor) for one in decision.candidates],
    }


def _lines(lines: list[dict[str, Any]], actor: Actor) -> list[dict[str, Any]]:
    shown = traces.for_actor(actor, lines)
    return [traces.outward(line) | {"would_let_it_pass": remedies.in_words(line) or None} for line in shown]


def _figures(one: Foreseen) -> dict[str, Any]:
    return {
        "provider": one.candidate.target.provider.name,
        "model": one.candidate.target.model,
        "output_cap": one.cap,
        "input_tokens_bound": one.input_tokens,
        "hold_usd": format_usd(one.hold),
        "estimated_cost_usd": None if one.estimate is None else format_usd(one.estimate),
        "dropped_params": list(one.dropped),
    }


def _holds(one: Foreseen, actor: Actor) -> list[dict[str, Any]]:
    """What would be held where; soft budgets hold nothing."""
    lines = [line for line in one.checks if line["check"] == "budget" and line.get("kind") == "hard"]
    named = ("budget", "scope", "window", "hold_usd")
    return [
        {name: line[name] for name in named if name in line}
        for line in map(traces.outward, traces.for_actor(actor, lines))
    ]


def _candidate(one: Foreseen, actor: Actor) -> dict[str, Any]:
    target, price = one.candidate.target, one.price
    return {
        **_figures(one),
        "priority": target.priority,
        "weight": target.weight,
        "credential": one.candidate.credential.name,
        "price": None
        if price is None
        else {
            "id": str(price.id),
            "model": price.model,
            "source": price.source,
            "effective_from": rfc3339(price.effective_from),
            "rates": {unit: format_usd(steps[0][1]) for unit, steps in price.rates.items()},
        },
        "decision": "allowed" if one.error is None else "refused",
        "code": None if one.error is None else one.error.code,
        "message": None if one.error is None else one.error.message,
        "checks": _lines(one.checks, actor),
    }
