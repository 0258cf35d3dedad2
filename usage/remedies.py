"""What would let a refused request pass, from the line of its trace that refused it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from conduit.core.money import format_usd
from usage import traces

Line = Mapping[str, Any]
LEAST_RAISE = 10_000_000  # nano-dollars: nobody raises a budget by less than a cent


@dataclass(frozen=True, slots=True)
class Remedy:
    """`change` says where: key, team, customer, budget, provider, routes, prices or caller; `budget` is its id."""

    text: str
    change: str
    detail: str = ""
    budget: str = ""


def remedies(line: Line) -> list[Remedy]:
    """The shortest way first. Empty for a line that refused nothing."""
    if line.get("ok", True):
        return []
    found = _REMEDIES.get(str(line.get("check")))
    return found(line) if found else []


def in_words(line: Line) -> str:
    """All ways in one sentence, for the API."""
    texts = [one.text for one in remedies(line)]
    return ", or ".join([*texts[:1], *(text[:1].lower() + text[1:] for text in texts[1:])])


def _key(line: Line) -> list[Remedy]:
    state = str(line.get("state", ""))
    if state == "disabled":
        return [Remedy("Enable the key", "key")]
    if state == "expired":
        return [Remedy("Set a later expiry", "key"), Remedy("Issue another key", "key")]
    if state == "stopped":
        return [
            Remedy("Put right what stops the key: its parent or its user", "key"),
            Remedy("Issue another key", "key"),
        ]
    return [Remedy("Issue another key", "key", "a revoked key stays revoked")]


def _address(line: Line) -> list[Remedy]:
    return [Remedy(f"Add {line.get('address') or 'the address'} to the key's allowed addresses", "key")]


def _endpoint(line: Line) -> list[Remedy]:
    return [Remedy(f"Allow the endpoint {line.get('endpoint')} for the key and each team above it", "key")]


def _model(line: Line) -> list[Remedy]:
    return [
        Remedy(f"Allow the model {line.get('model')} for the key and each team above it", "key"),
        Remedy("Ask for a model that the key may use", "caller"),
    ]


def _route(line: Line) -> list[Remedy]:
    return [
        Remedy(f"Create a route named {line.get('route')}", "routes"),
        Remedy("Ask for a route that exists", "caller"),
    ]


def _customer(line: Line) -> list[Remedy]:
    return [Remedy(f"Unblock the customer {line.get('customer')}", "customer")]


def _rate(line: Line) -> list[Remedy]:
    scope, what, asked, limit = line.get("scope"), line.get("what"), line.get("asked"), line.get("limit")
    parallel = what == "parallel requests"
    found = [Remedy("Wait for requests in flight to end" if parallel else "Wait for the next minute", "caller")]
    if isinstance(asked, int) and isinstance(limit, int) and asked > limit:
        found = [Remedy(f"Ask for at most {limit:,} tokens at once", "caller", f"this request asks for {asked:,}")]
    return [*found, Remedy(f"Raise the {what} of {scope}", "key" if str(scope).startswith("key ") else "team")]


def _candidates(line: Line) -> list[Remedy]:
    return [Remedy("Give the route's providers a usable credential", "provider")]


def _context(line: Line) -> list[Remedy]:
    shorter = Remedy(f"Shorten the prompt to less than {line.get('window'):,} tokens", "caller")
    return [shorter, Remedy("Give the route a target with a larger context window", "routes")]


def _breaker(line: Line) -> list[Remedy]:
    return [
        Remedy(f"Wait until {line.get('provider')} is tried again", "caller"),
        Remedy("Give the route a target at another provider", "routes"),
    ]


def _price(line: Line) -> list[Remedy]:
    return [Remedy(f"Set a price for {line.get('model')}", "prices", "a hard budget carries only what has a price")]


def _request(line: Line) -> list[Remedy]:
    field = line.get("field")
    return [Remedy(f"Change the field {field} of the request" if field else "Mend the request's body", "caller")]


def _tags(line: Line) -> list[Remedy]:
    return [Remedy("Mend the header x-conduit-tags", "caller")]


def _budget(line: Line) -> list[Remedy]:
    if line.get("unavailable"):
        return [Remedy("Wait until the database answers", "caller")]
    owner, budget = str(line.get("scope", "")), str(line.get("budget", ""))
    window = "" if line.get("window") in (None, "lifetime") else f"{line['window']} "
    resets = line.get("resets_at")
    needed, limit = line.get("least", line.get("hold", 0)), line.get("limit")
    ever = not isinstance(limit, int) or needed <= limit  # else it fits in no window
    wait = [Remedy(f"Wait until it resets at {resets}", "caller")] if resets and ever else []
    if line.get("reason") == "busy":
        return [Remedy("Wait for requests in flight to settle", "caller")]
    raised = f"Raise the {window}budget of {owner}"
    missing = short(line)
    if missing is not None:
        raised += f" by ${format_usd(missing)}"
    left = traces.free(line)
    smaller = Remedy("Send a shorter prompt, or ask for fewer output tokens", "caller")
    return [Remedy(raised, "budget", "", budget), *([smaller] if left else []), *wait]


def short(line: Line) -> int | None:
    """What a budget line lacks, rounded up to whole cents; None where its figures are not the reader's to see."""
    needed = line.get("least", line.get("hold"))
    if not isinstance(needed, int) or not isinstance(line.get("limit"), int):
        return None
    missing = needed - (int(line["limit"]) - int(line.get("settled", 0)))
    return max(LEAST_RAISE, -(-missing // LEAST_RAISE) * LEAST_RAISE)


_REMEDIES = {
    "key": _key,
    "address": _address,
    "endpoint": _endpoint,
    "tags": _tags,
    "request": _request,
    "model": _model,
    "route": _route,
    "customer": _customer,
    "rate": _rate,
    "candidates": _candidates,
    "breaker": _breaker,
    "context": _context,
    "price": _price,
    "budget": _budget,
}
