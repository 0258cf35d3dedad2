"""Why a request was let through or refused, in words, from the trace that the pipeline stored.

A trace holds what had numbers and what stopped the request: [{"check", "ok", …}, …]. Checks are made in one fixed
order: one that is not in the trace passed if it comes before the one that stopped the request, and was not reached if
it comes after.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from conduit.core import wording
from usage.models import UsageEvent

ORDER = {
    "key": "Key",
    "address": "Address",
    "endpoint": "Endpoint",
    "model": "Model",
    "route": "Route",
    "customer": "Customer",
    "rate": "Rates",
    "budget": "Budgets",
}
MONEY = frozenset({"limit", "settled", "hold", "held"})
Result = Literal["pass", "stop", "ahead"]


@dataclass(frozen=True, slots=True)
class Check:
    title: str
    result: Result
    found: str


def checks_of(event: UsageEvent) -> list[Check]:
    """Every check in order. Empty where a refusal came from none of them (a body that cannot be read, for example)."""
    trace: Sequence[Mapping[str, Any]] = event.trace
    stopped = next((str(step.get("check")) for step in trace if not step.get("ok", True)), "")
    if event.attempt == 0 and not stopped:
        return []
    names = list(ORDER)
    last = names.index(stopped) if stopped in names else len(names)
    found: list[Check] = []
    for index, name in enumerate(names):
        steps = [step for step in trace if step.get("check") == name]
        if steps:
            found += [_check(name, step) for step in steps]
        elif index < last:
            found.append(Check(ORDER[name], "pass", _passed(name, event)))
        else:
            found.append(Check(ORDER[name], "ahead", ""))
    return found


def _check(name: str, step: Mapping[str, Any]) -> Check:
    scope = f": {step['scope']}" if "scope" in step else ""
    facts = [_words(name, key, value) for key, value in step.items() if key not in ("check", "ok", "scope")]
    title = ORDER[name].rstrip("s") if scope else ORDER[name]
    return Check(f"{title}{scope}", "pass" if step.get("ok", True) else "stop", ", ".join(facts))


def _words(check: str, name: str, value: Any) -> str:
    """Amounts of a budget are nano-dollars; everything else is said as it stands."""
    if check == "budget" and name in MONEY and isinstance(value, int):
        return f"{wording.usd(value)} {'at most needed' if name in ('hold', 'held') else name}"
    if check == "budget" and name == "window":
        return f"per {value}" if value != "lifetime" else "in all"
    return f"{name} {value:,}" if type(value) is int else f"{name} {value}"


def _passed(name: str, event: UsageEvent) -> str:
    found = {
        "key": "known, active, not expired",
        "address": "allowed",
        "endpoint": f"{event.endpoint} is allowed",
        "model": f"{event.route} is allowed" if event.route else "allowed",
        "route": f"leads to {event.model}" if event.attempt else "exists",
        "customer": event.customer or "none named",
        "rate": "within the limits, or none set",
        "budget": "none in the way",
    }
    return found[name]
