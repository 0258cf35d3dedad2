"""The money oracle: after a test that moves money, do the books agree with each other and with the provider's invoice?

`check(gateway)` ships what is journalled and raises AssertionError with the first few things that do not add up.
Attempt ids are UUIDv7, so `since` one of them names the attempts of one test.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from types import CoroutineType
from typing import Any
from uuid import UUID

from tests.harness.gateway import RunningGateway, wait_for
from tests.harness.invoice import Billed, read_invoice

SHOWN = 5


NIL = UUID(int=0)


def check(gateway: RunningGateway, since: UUID = NIL) -> None:
    """Every invariant of the ledger. What concerns single attempts is asked of those from `since` on."""
    wait_for(lambda: not _in_flight(gateway))
    wait_for(lambda: not left_behind(gateway))
    gateway.ship()
    from usage.models import UsageEvent

    events = list(UsageEvent.objects.all())
    recent = [event for event in events if event.id >= since]
    invoice = {name: bill for name, bill in read_invoice(gateway.sandbox.invoice).items() if _is_recent(name, since)}
    problems = [
        *attempts_end_once(recent),
        *periods(events),
        *rollups(events),
        *arithmetic(recent),
        *covers(recent, invoice),
        *hard_keys(recent, invoice),
        *limits(),
        *verified(),
    ]
    assert not problems, f"{len(problems)} problems in the books:\n" + "\n".join(problems[:SHOWN])


def _is_recent(attempt: str | None, since: UUID) -> bool:
    return since == NIL if attempt is None else UUID(attempt) >= since


def _in_flight(gateway: RunningGateway) -> int:
    return int(gateway.app.gateway.tally.in_flight)


def left_behind(gateway: RunningGateway) -> list[str]:
    """What no request needs any more: tasks of ours, connections to a provider, holds, waiters."""
    own = gateway.app.gateway
    tasks = asyncio.all_tasks(own._tasks[0].get_loop()) - {*own._tasks, own.idempotent._renewing}
    found = [f"task {coro.__qualname__}" for task in tasks if _is_ours(coro := task.get_coro())]
    found += ["an upstream connection"] * len(own.transport._session.connector._acquired)
    found += [f"{one.held} held of a {one.entry.window} budget" for one in own.holds._all() if one.held]
    return found + ["a request that waits for money"] * len(own.holds._waiting)


def _is_ours(coro: Any) -> bool:
    """The loop makes tasks too, to close generators that were collected: those have no code."""
    return isinstance(coro, CoroutineType) and "/conduit/" in coro.cr_code.co_filename


def limits() -> list[str]:
    """Of a hard budget settled + leased + uncertain stay within the limit, raises included. Left out: budgets whose
    limit was lowered, or that let pass what has no bound, and what an attempt cost beyond its hold (a provider that
    ignores its cap)."""
    from django.db import connection

    from conduit.core.models import AuditEntry

    lowered: set[str] = set()
    for entry in AuditEntry.objects.filter(action="budget.set"):
        former = {budget["id"]: budget for budget in (entry.before or {}).get("budgets", [])}
        for budget in (entry.after or {}).get("budgets", []):
            before = former.get(budget["id"])
            if before and Decimal(before["limit_usd"]) > Decimal(budget["limit_usd"]):
                lowered.add(budget["id"])
    with connection.cursor() as cursor:
        cursor.execute(_OVERSPENT)
        return [
            f"budget {budget} has {gone} of {limit} gone"
            for budget, gone, limit in cursor
            if str(budget) not in lowered
        ]


_OVERSPENT = """
WITH beyond AS (
  SELECT named.id, sum(e.cost_nanos - e.held_nanos) AS nanos
    FROM usage_event e CROSS JOIN LATERAL (SELECT DISTINCT unnest(e.periods) AS id) AS named
   WHERE e.cost_nanos > e.held_nanos GROUP BY 1
)
SELECT b.id, p.settled_nanos + p.leased_nanos + p.uncertain_nanos, b.limit_nanos
  FROM keys_budgetperiod p JOIN keys_budget b ON b.id = p.budget_id LEFT JOIN beyond ON beyond.id = p.id
 WHERE b.kind = 'hard' AND b.unbounded <> 'soft'
   AND p.settled_nanos + p.leased_nanos + p.uncertain_nanos > b.limit_nanos
   + coalesce((SELECT sum(extra_nanos) FROM keys_budgetraise r WHERE r.budget_id = b.id), 0)
   + coalesce(beyond.nanos, 0)
"""


def hard_keys(events: Iterable[Any], invoice: dict[str | None, Billed]) -> list[str]:
    """Where a hard budget stood behind an attempt, what is booked or set aside is not less than what was billed."""
    from keys.models import Budget

    hard = set(Budget.objects.filter(kind="hard").values_list("id", flat=True))
    problems = []
    for event in events:
        billed = invoice.get(str(event.id))
        if billed is None or hard.isdisjoint(event.budgets) or "false-usage" in event.tags:
            continue
        kept = event.held_nanos if event.exactness == "uncertain" else event.cost_nanos
        if kept < billed.nanos:
            problems.append(f"attempt {event.id} ({event.exactness}, hard): {kept} kept < billed {billed.nanos}")
    return problems


def attempts_end_once(events: Iterable[Any]) -> list[str]:
    """No id twice; attempts of one request count 1, 2, 3 and only the last is final; a refusal stands alone, or last
    where a further attempt could not be paid for."""
    events = list(events)
    problems = [f"event {one} is there {n} times" for one, n in Counter(e.id for e in events).items() if n > 1]
    by_request: defaultdict[str, list[Any]] = defaultdict(list)
    for event in events:
        by_request[event.request_id].append(event)
    for request, found in by_request.items():
        found.sort(key=lambda event: (event.time, event.attempt))
        numbers = [event.attempt for event in found]
        ends = [event.final for event in found]
        tried = list(range(1, len(found)))
        if numbers not in ([*tried, len(found)], [*tried, 0]) or sum(ends) != 1 or not ends[-1]:
            problems.append(f"request {request} has attempts {numbers} with ends {ends}")
    return problems


def periods(events: Iterable[Any]) -> list[str]:
    """A budget's settled amount is the sum of the events that name it (in one period: tests do not outlive a day)."""
    from keys.models import BudgetPeriod

    spent: Counter[Any] = Counter()
    for event in events:
        for budget in set(event.budgets):
            spent[budget] += event.cost_nanos
    settled: Counter[Any] = Counter()
    for budget, nanos in BudgetPeriod.objects.values_list("budget_id", "settled_nanos"):
        settled[budget] += nanos
    return [
        f"budget {budget} has settled {settled[budget]}, its events cost {spent[budget]}"
        for budget in settled.keys() | spent.keys()
        if settled[budget] != spent[budget]
    ]


def rollups(events: Iterable[Any]) -> list[str]:
    """The totals of the hourly and of the daily rollup are those of the rows."""
    from usage.models import UsageDay, UsageHour

    events = list(events)
    return [problem for table in (UsageHour, UsageDay) for problem in _rollup(list(table.objects.all()), events)]


def _rollup(rows: list[Any], events: list[Any]) -> list[str]:
    problems = []
    for name in ("cost_nanos", "input_tokens", "output_tokens", "cache_read_tokens", "reasoning_tokens"):
        kept, real = sum(getattr(row, name) for row in rows), sum(getattr(event, name) for event in events)
        if kept != real:
            problems.append(f"the rollup has {name} {kept}, the events {real}")
    counts = {
        "requests": sum(event.final for event in events),
        "attempts": sum(event.attempt > 0 for event in events),
        "refused": sum(event.attempt == 0 for event in events),
        "estimated": sum(event.exactness == "estimated" for event in events),
        "uncertain": sum(event.exactness == "uncertain" for event in events),
    }
    for name, real in counts.items():
        kept = sum(getattr(row, name) for row in rows)
        if kept != real:
            problems.append(f"the rollup has {name} {kept}, the events {real}")
    return problems


def arithmetic(events: Iterable[Any]) -> list[str]:
    """Each cost is the sum of its lines, each line ceil(count x rate / 1,000,000)."""
    problems = []
    for event in events:
        lines = [-(-count * rate // 1_000_000) for _, count, rate, _ in event.arithmetic]
        if lines != [nanos for *_, nanos in event.arithmetic] or sum(lines) != event.cost_nanos:
            problems.append(f"event {event.id} costs {event.cost_nanos}, its lines say {event.arithmetic}")
    return problems


def covers(events: Iterable[Any], invoice: dict[str | None, Billed]) -> list[str]:
    """The ledger never has less than the provider billed for an attempt, and exactly as much where it says exact.

    Three exceptions. An attempt whose worker died is uncertain. A provider that reports false figures (the sandbox's
    usage faults) is believed. And of an answer that never came, or only in part, nobody but the provider knows how long
    it was: there the ledger must have at least the prompt.
    """
    known = {str(event.id): event for event in events}
    problems = [f"the invoice has {nanos} without an attempt id" for nanos in _unnamed(invoice)]
    for attempt, billed in invoice.items():
        if attempt is None:
            continue
        event = known.get(attempt)
        if event is None:
            problems.append(f"attempt {attempt} is on the invoice with {billed.nanos} and in no event")
        elif billed.requests > 1:
            problems.append(f"attempt {attempt} was sent {billed.requests} times")
        elif (
            event.exactness == "uncertain"
            or "false-usage" in event.tags
            or event.outcome == "error"
            and not event.stream
            and event.cost_nanos >= _prompt(event, billed)
        ):
            continue
        elif event.cost_nanos < billed.nanos:
            problems.append(f"attempt {attempt} ({event.exactness}): {event.cost_nanos} < billed {billed.nanos}")
        elif event.exactness == "exact" and event.cost_nanos != billed.nanos:
            problems.append(f"attempt {attempt} is exact with {event.cost_nanos}, billed {billed.nanos}")
    return problems


def _prompt(event: Any, billed: Billed) -> int:
    rates = {unit: rate for unit, _, rate, _ in event.arithmetic}
    return -(-billed.units["input_tokens"] * rates.get("input", 0) // 1_000_000)


def _unnamed(invoice: dict[str | None, Billed]) -> list[int]:
    return [billed.nanos for attempt, billed in invoice.items() if attempt is None and billed.nanos]


def verified() -> list[str]:
    """What `conduit ledger verify` says."""
    from usage.verification import verify

    return [f"ledger verify: {one.statement} {one.examples}" for one in verify().checks if not one.ok]


def billed(gateway: RunningGateway, attempt: object, path: Path | None = None) -> Billed:
    """The invoice's final word on one attempt."""
    found: list[Billed] = []

    def final() -> bool:
        found[:] = [
            entry
            for name, entry in read_invoice(path or gateway.sandbox.invoice).items()
            if name == str(attempt) and entry.final
        ]
        return bool(found)

    wait_for(final)
    return found[0]
