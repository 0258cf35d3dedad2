"""One request's page: its attempts, checks and arithmetic; of a refused one what would let it pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from conduit.access.pages import go, page
from conduit.access.permissions import may
from conduit.core import wording
from conduit.core.actor import Actor
from conduit.core.errors import NotFound
from conduit.core.money import format_usd
from keys.models import VirtualKey
from providers.models import Credential, Provider
from usage import explanations, log, remedies, standing, traces
from usage.models import Exactness, Price, UsageEvent
from usage.traces import Line

DIALECTS = {"openai": "OpenAI", "anthropic": "Anthropic", "gemini": "Gemini"}
UNITS = {"cache_read": "Cache read", "cache_write_5m": "Cache write, 5 min", "cache_write_1h": "Cache write, 1 h"}
USAGE_WORDS = {
    Exactness.EXACT: "sent by the provider",
    Exactness.ESTIMATED: "estimated: the provider sent none that can be true",
    Exactness.UNCERTAIN: "unknown: the answer was lost, so the whole hold counts until it is resolved",
}
RAISE, UNCERTAIN = "/budgets/raise", "/system/uncertain/"


@page("requests")
def request_detail(request: HttpRequest, actor: Actor, request_id: str) -> HttpResponse:
    asked = request.GET.get("request_id", "").strip()[:128]
    if asked and asked != request_id and log.exists(actor, asked):
        return go(request, reverse("request-detail", args=[asked]))
    events = log.attempts(actor, request_id)
    if not events:
        raise NotFound("")
    final, refused = events[-1], events[-1].attempt == 0
    trace = traces.for_actor(actor, final.trace)
    checks = traces.checks_of(final, trace)
    key = explanations.key_of(actor, final)
    context = {
        "crumbs": [{"title": "Requests", "url": reverse("requests")}, {"title": request_id}],
        "request_id": request_id,
        "final": final,
        "refused": refused,
        "headline": _headline(events),
        "key": key,
        "dialect_title": DIALECTS.get(final.dialect, final.dialect),
        "checks": checks,
        "same_as": _same_as(request, request_id),
        **(_of_refused(actor, final, trace, key) if refused else _of_served(events, checks)),
    }
    return render(request, f"usage/request{'_refused' if refused else ''}.html", context)


def _headline(events: list[UsageEvent]) -> str:
    final = events[-1]
    if final.attempt == 0:
        return f"{final.status} refused"
    if final.outcome == "cancelled":
        return "client left"
    if final.outcome == "ok" and len(events) > 1:
        return f"{final.status}, absorbed {wording.plural(len(events) - 1, 'failure')}"
    return f"{final.status} {final.error_code}".strip()


def _same_as(request: HttpRequest, request_id: str) -> list[dict[str, str]]:
    base = f"{request.scheme}://{request.get_host()}"
    text = f'curl \\\n  {base}/api/v1/requests/{request_id} \\\n  -H "Authorization: Bearer $CONDUIT_TOKEN"'
    return [{"ident": "1", "title": "curl", "text": text}]


# --- served


def _of_served(events: list[UsageEvent], checks: Sequence[traces.Check]) -> dict[str, Any]:
    final, cost = events[-1], sum(event.cost_nanos for event in events)
    exactness = log.least_exact(event.exactness for event in events)
    uncertain = explanations.uncertain_of(events)
    return {
        "attempts": events,
        "total": {"cost": cost},
        "held": max(event.held_nanos for event in events),
        "released": explanations.released(final),
        "whole_us": _ends(final, events[0]),
        "waterfall": _waterfall(events),
        "passed": wording.plural(sum(check.result == "pass" for check in checks), "check"),
        "arithmetic": [_arithmetic(event) for event in events if event.arithmetic],
        "price": Price.objects.filter(id=final.price_id).first() if final.price_id else None,
        "exactness": exactness,
        "usage_words": USAGE_WORDS[Exactness(exactness)],
        "settlement": explanations.settlement(final),
        "speed": _speed(final),
        "uncertain": [{"row": row, "url": f"{UNCERTAIN}{row.id}"} for row in uncertain.values()],
    }


def _starts_us(event: UsageEvent, first: UsageEvent) -> int:
    return int((event.time - first.time).total_seconds() * 1_000_000)


def _ends(event: UsageEvent, first: UsageEvent) -> int:
    return _starts_us(event, first) + event.latency_us


def _waterfall(events: list[UsageEvent]) -> list[dict[str, Any]]:
    whole = max(max(_ends(event, events[0]) for event in events), 1)
    providers = dict(Provider.objects.filter(id__in=[e.provider_id for e in events]).values_list("id", "name"))
    owned = dict(Credential.objects.filter(id__in=[e.credential_id for e in events]).values_list("id", "name"))
    rows = []
    for event in events:
        starts = _starts_us(event, events[0])
        wait = min(event.ttft_us or 0, event.latency_us)
        ok = event.outcome == "ok"
        rows.append(
            {
                "event": event,
                "provider_name": providers.get(event.provider_id, "") if event.provider_id else "",
                "credential_name": owned.get(event.credential_id, "") if event.credential_id else "",
                "starts_us": starts,
                "lead": starts * 100 / whole,
                "wait": wait * 100 / whole,
                "run": (event.latency_us - wait) * 100 / whole,
                "css": "f1" if ok else "fbad",
                "words": f"{wording.microseconds(starts)} to {wording.microseconds(starts + event.latency_us)}",
                "outcome_words": f"{event.status} {event.error_code}".strip() if not ok else str(event.status),
                "detail": event.error_message
                or (f"first token after {wording.microseconds(wait)} (grey)" if wait else ""),
                "money": _money(event),
            }
        )
    return rows


def _money(event: UsageEvent) -> str:
    """What became of the hold."""
    if event.exactness == Exactness.UNCERTAIN:
        return f"{wording.usd(event.held_nanos)} stays held"
    if not event.held_nanos:
        return "nothing was held"
    return f"{wording.usd(event.held_nanos)} held, {wording.usd(explanations.released(event))} given back"


def _arithmetic(event: UsageEvent) -> dict[str, Any]:
    lines = [
        {"title": UNITS.get(unit, unit.replace("_", " ").capitalize()), "count": count, "rate": rate, "nanos": nanos}
        for unit, count, rate, nanos in event.arithmetic
    ]
    return {"attempt": event.attempt, "lines": lines, "total": event.cost_nanos}


def _speed(final: UsageEvent) -> str:
    seconds = (final.latency_us - (final.ttft_us or 0)) / 1_000_000
    return f"{final.output_tokens / seconds:,.0f}" if final.stream and seconds > 0 and final.output_tokens > 1 else ""


# --- refused


@dataclass(frozen=True, slots=True)
class Way:
    """One way to let it pass; `url` empty where no page of ours does it."""

    text: str
    detail: str = ""
    url: str = ""
    act: str = ""


def _of_refused(actor: Actor, event: UsageEvent, trace: Sequence[Line], key: VirtualKey | None) -> dict[str, Any]:
    line = traces.stopper(event, trace)
    stopped = next((check for check in traces.checks_of(event, trace) if check.result == "stop"), None)
    now = standing.of_line(event, line, key) if line is not None else None
    ways = [_way(actor, one, line, event, key) for one in remedies.remedies(line)] if line is not None else []
    title = f"Stopped by the check: {stopped.title}" if stopped else f"Refused: {event.error_code}"
    return {
        "stopped_title": _budget_title(line) if line is not None and line.get("check") == "budget" else title,
        "now": now,
        "ways": ways,
        "sum": _sum(line, now) if line is not None and line.get("check") == "budget" else None,
        "worst": next((dict(one) for one in trace if one.get("check") == "worst_case"), None),
    }


def _budget_title(line: Line) -> str:
    """`Stopped by the budget of key ci-evals: $20.00 per day, hard`."""
    kind, name = traces.owner_of(line)
    if not kind:
        return "Stopped: the budgets could not be asked"
    limit, window = line.get("limit"), str(line.get("window", ""))
    terms = (
        []
        if limit is None
        else [wording.usd(int(limit)) + (f" per {window}" if window not in ("", "lifetime") else " in all")]
    )
    terms += [str(line["kind"])] if "kind" in line else []
    return f"Stopped by the budget of {kind} {name}" + (f": {', '.join(terms)}" if terms else "")


def _way(actor: Actor, one: remedies.Remedy, line: Line, event: UsageEvent, key: VirtualKey | None) -> Way:
    url, act = _place(actor, one, line, event, key)
    return Way(one.text, one.detail, url, act)


def _place(
    actor: Actor, one: remedies.Remedy, line: Line, event: UsageEvent, key: VirtualKey | None
) -> tuple[str, str]:
    """Where it is done, for those who may do it."""
    if one.change == "budget" and one.budget and may(actor, "budgets", write=True):
        missing = remedies.short(line)
        asked = {"budget": one.budget} | ({"extra_usd": format_usd(missing)} if missing is not None else {})
        return f"{RAISE}?{urlencode(asked)}", "Raise"
    if one.change == "key" and key is not None and may(actor, "keys", write=True):
        return reverse("key-detail", args=[key.id]), "Edit"
    if one.change == "routes" and may(actor, "routes", write=True):
        return reverse("route-create"), "Create"
    if one.change == "provider" and may(actor, "credentials", write=True):
        return reverse("credentials"), "Open"
    return "", ""


def _sum(line: Line, now: standing.Standing | None) -> dict[str, Any] | None:
    """Limit, settled, held and free at that instant, and now where the budget is still there."""
    if not isinstance(line.get("limit"), int):
        return None
    limit, settled, held = (int(line.get(name, 0)) for name in ("limit", "settled", "held"))
    state = now.budget if now is not None else None
    then = {"Limit": limit, "Settled": -settled, "Held by others": -held}
    later = (
        {"Limit": state.limit_nanos, "Settled": -state.settled_nanos, "Held by others": -state.held_nanos}
        if state is not None
        else {}
    )
    needed = int(line.get("least", line.get("hold", 0)))
    free = max(0, limit - settled - held)
    return {
        "rows": [{"title": title, "then": amount, "now": later.get(title)} for title, amount in then.items()],
        "free": free,
        "free_now": max(0, state.remaining_nanos) if state is not None else None,
        "needed": needed,
        "short": max(0, needed - free),
        "resets_at": state.resets_at if state is not None else None,
    }
