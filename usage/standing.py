"""How the check that refused a request stands now: would it pass, and what are its figures?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from conduit.core import wording
from keys import entries
from keys.budgets import BudgetState, states_of
from keys.entries import KeyEntry
from keys.models import Budget, Customer, VirtualKey
from keys.rates_now import rates_now
from providers.routes import is_served
from usage import traces
from usage.models import UsageEvent

Line = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Standing:
    """`passes` None: it cannot be said. `budget`: its running period, where the check is a budget's."""

    passes: bool | None
    words: str
    budget: BudgetState | None = None


def of_line(event: UsageEvent, line: Line, key: VirtualKey | None) -> Standing | None:
    """`line` is one that the reader may see; None where its check has nothing to say about now."""
    check = str(line.get("check"))
    if check == "budget":
        return _budget(line)
    if key is None:
        return None
    entry, hindrance = entries.of_key(key)
    if hindrance:
        return Standing(False, "the key cannot be used now")
    found = _CHECKS.get(check)
    return found(event, line, entry) if found else None


def _budget(line: Line) -> Standing | None:
    ident = _uuid(line.get("budget"))
    row = Budget.objects.filter(id=ident).first() if ident else None
    if row is None:
        return None
    if row.removed_at is not None:
        return Standing(True, "the budget is no longer in force")
    state = states_of([row])[0]
    needed = int(line.get("least", line.get("hold", 0)))
    passes = needed <= state.remaining_nanos
    left = wording.usd(max(0, state.remaining_nanos))
    return Standing(passes, f"{left} is free, {wording.usd(needed)} is needed", state)


def _uuid(value: object) -> UUID | None:
    try:
        return UUID(str(value))
    except ValueError:
        return None


def _model(event: UsageEvent, line: Line, entry: KeyEntry) -> Standing:
    passes = entry.may_use_model(event.route)
    return Standing(passes, f"{event.route} is {'allowed' if passes else 'not allowed'}")


def _endpoint(event: UsageEvent, line: Line, entry: KeyEntry) -> Standing:
    passes = entry.may_use_endpoint(event.endpoint)
    return Standing(passes, f"{event.endpoint} is {'allowed' if passes else 'not allowed'}")


def _address(event: UsageEvent, line: Line, entry: KeyEntry) -> Standing:
    address = str(line.get("address"))
    passes = entry.may_come_from(address)
    return Standing(passes, f"{address} is {'allowed' if passes else 'not allowed'}")


def _route(event: UsageEvent, line: Line, entry: KeyEntry) -> Standing:
    passes = is_served(event.route)
    return Standing(passes, f"{event.route} {'exists' if passes else 'does not exist'}")


def _customer(event: UsageEvent, line: Line, entry: KeyEntry) -> Standing:
    blocked = Customer.objects.filter(team=entry.team_id, name=event.customer, blocked=True).exists()
    return Standing(not blocked, f"{event.customer} is {'blocked' if blocked else 'not blocked'}")


def _rate(event: UsageEvent, line: Line, entry: KeyEntry) -> Standing | None:
    kind, name = traces.owner_of(line)
    scope = next((one for one in entry.rates if (one.kind, one.name) == (kind, name)), None)
    if scope is None:
        return Standing(True, "there is no such limit any more")
    (now,) = rates_now([scope])
    figures = {
        "requests": (now.requests, scope.rpm),
        "tokens": (now.tokens, scope.tpm),
        "parallel requests": (now.parallel, scope.max_parallel),
    }
    used, limit = figures.get(str(line.get("what")), (None, None))
    if limit is None:
        return Standing(True, "there is no such limit any more")
    if used is None:
        return Standing(None, "the counters cannot be reached")
    asked = int(line.get("asked", 1))
    return Standing(used + asked <= limit, f"{wording.count(used)} of {wording.count(limit)} are used")


_CHECKS: dict[str, Callable[[UsageEvent, Line, KeyEntry], Standing | None]] = {
    "model": _model,
    "endpoint": _endpoint,
    "address": _address,
    "route": _route,
    "customer": _customer,
    "rate": _rate,
}
