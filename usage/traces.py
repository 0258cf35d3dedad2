"""Why a request was let through or refused, in words, from the trace that the pipeline stored.

A trace holds what had numbers and what stopped the request: [{"check", "ok", …}, …]; a budget's amounts are
nano-dollars. Checks are made in one fixed order: one that is not in the trace passed if it comes before the one that
stopped the request, and was not reached if it comes after.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from conduit.core import wording
from conduit.core.actor import Actor
from conduit.core.money import format_usd
from keys.models import Team
from usage.models import UsageEvent

ORDER = {
    "key": "Key",
    "address": "Address",
    "endpoint": "Endpoint",
    "tags": "Tags",
    "request": "Body",
    "model": "Model",
    "route": "Route",
    "customer": "Customer",
    "rate": "Rates",
    "candidates": "Candidates",
    "breaker": "Breaker",
    "context": "Context window",
    "price": "Price",
    "worst_case": "Worst case",
    "budget": "Budgets",
}
ALWAYS = ("key", "address", "endpoint", "model", "route", "customer", "rate", "budget")
MONEY = frozenset({"limit", "settled", "held", "hold", "least", "most", "remaining"})
SHARED = ("limit", "settled", "held")  # figures of a budget that others spend too
Line = Mapping[str, Any]
Result = Literal["pass", "stop", "ahead"]


# --- who may see what


def for_holder(line: Line) -> dict[str, Any]:
    """A line as the holder of the key may see it: of a team's budget what is left, of a provider's nothing."""
    kind = owner_of(line)[0]
    shown = {name: value for name, value in line.items() if name != "budget"}
    if line.get("check") != "budget" or kind == "key":
        return shown
    return _masked(shown, remaining=kind != "provider")


def for_actor(actor: Actor, lines: Iterable[Line]) -> list[dict[str, Any]]:
    """Lines as somebody of the console or the API may see them, who may be narrowed to teams."""
    found = [dict(line) for line in lines]
    if actor.teams is None:
        return found
    own = set(Team.objects.filter(id__in=actor.teams).values_list("name", flat=True))
    return [_for_teams(line, own) for line in found]


def _for_teams(line: dict[str, Any], own: set[str]) -> dict[str, Any]:
    kind, name = owner_of(line)
    if line.get("check") != "budget" or kind in ("key", "customer", "") or (kind == "team" and name in own):
        return line
    return _masked({name: value for name, value in line.items() if name != "budget"}, remaining=kind != "provider")


def owner_of(line: Line) -> tuple[str, str]:
    """A budget line's owner: kind and name."""
    kind, _, name = str(line.get("scope", "")).partition(" ")
    return kind, name.strip("'")


def _masked(line: dict[str, Any], *, remaining: bool) -> dict[str, Any]:
    shown = {name: value for name, value in line.items() if name not in SHARED}
    return shown | {"remaining": free(line)} if remaining and free(line) is not None else shown


def free(line: Line) -> int | None:
    """Of a budget line, nano-dollars: limit - settled - held, not below zero."""
    if "remaining" in line:
        return int(line["remaining"])
    if not isinstance(line.get("limit"), int):
        return None
    return max(0, int(line["limit"]) - int(line.get("settled", 0)) - int(line.get("held", 0)))


def outward(line: Line) -> dict[str, Any]:
    """A line in the API's names: amounts as decimal strings of dollars."""
    if line.get("check") not in ("budget", "worst_case"):
        return dict(line)
    shown: dict[str, Any] = {}
    for name, value in line.items():
        if name in MONEY and type(value) is int:
            shown[f"{name}_usd"] = format_usd(value)
        else:
            shown[name] = value
    left = free(line)
    return shown | {"remaining_usd": format_usd(left)} if left is not None else shown


# --- in words


@dataclass(frozen=True, slots=True)
class Check:
    """`before` and `limit` are figures of the columns of these names, in words; `line` is where they come from."""

    title: str
    result: Result
    found: str
    before: str = ""
    limit: str = ""
    line: Line | None = None


def checks_of(event: UsageEvent, trace: Sequence[Line]) -> list[Check]:
    """Every check in order; `trace` is the event's as the reader may see it. Empty where a refusal came from none of
    them (a body that cannot be read, for example)."""
    stopped = stopper(event, trace)
    if event.attempt == 0 and stopped is None:
        return []
    names = list(ORDER)
    last = names.index(str(stopped.get("check"))) if stopped and stopped.get("check") in names else len(names)
    found: list[Check] = []
    for index, name in enumerate(names):
        steps = [line for line in trace if line.get("check") == name]
        if event.attempt:  # an earlier candidate's refusal is not this request's
            steps = [line for line in steps if line.get("ok", True)]
        if steps:
            found += [_check(name, line) for line in steps]
        elif name in ALWAYS:
            passed = index < last
            found.append(Check(ORDER[name], "pass" if passed else "ahead", _passed(name, event) if passed else ""))
    if event.attempt == 0:
        found.append(Check("Dispatch", "ahead", "no provider was called"))
    return found


def stopper(event: UsageEvent, trace: Sequence[Line]) -> Line | None:
    """The line that refused the request. Where several candidates were short of money the first one's tells."""
    if event.attempt:
        return None
    return next((line for line in trace if not line.get("ok", True)), None)


def _check(name: str, line: Line) -> Check:
    result: Result = "pass" if line.get("ok", True) else "stop"
    if name == "budget":
        return _budget(line, result)
    if name == "worst_case":
        most = wording.usd(int(line.get("most", 0)))
        cap = f", cap {wording.count(line.get('output_tokens'))} output tokens"
        return Check(ORDER[name], result, f"at most {wording.count(line.get('input_tokens'))} input tokens{cap}", most)
    scope = f": {line['scope']}" if "scope" in line else ""
    facts = [_words(key, value) for key, value in line.items() if key not in ("check", "ok", "scope", "limit", "used")]
    title = ORDER[name].rstrip("s") if scope else ORDER[name]
    before, limit = line.get("used"), line.get("limit")
    return Check(
        f"{title}{scope}",
        result,
        ", ".join(facts),
        "" if before is None else wording.count(before),
        "" if limit is None else wording.count(limit),
    )


def _words(name: str, value: Any) -> str:
    return f"{name} {value:,}" if type(value) is int else f"{name} {value}"


def _budget(line: Line, result: Result) -> Check:
    if line.get("unavailable"):
        return Check("Budgets", result, "the database could not be asked, and the leases were spent")
    kind, name = owner_of(line)
    window = str(line.get("window", ""))
    title = f"Budget: {kind} {name}{'' if window in ('', 'lifetime') else f', {window}'}"
    settled, limit = line.get("settled"), line.get("limit")
    return Check(
        title,
        result,
        _fits(line, result),
        "" if settled is None else wording.usd(int(settled) + int(line.get("held", 0))),
        "" if limit is None else wording.usd(int(limit)),
        line,
    )


def _fits(line: Line, result: Result) -> str:
    left, hold = free(line), line.get("hold")
    if line.get("kind") == "soft":
        return "soft, would only alert"
    if hold is None:
        return ""
    needed = wording.usd(int(hold))
    if result == "pass":
        return f"{needed} fits" + (", after others have settled" if line.get("waits") else "")
    if line.get("reason") == "busy":
        return f"{needed} had to wait for requests in flight, and none settled in time"
    return f"{needed} does not fit" + (f" in {wording.usd(left)}" if left is not None else "")


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
