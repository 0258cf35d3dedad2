"""The system page: engines, workers, journals, leases, uncertain attempts; and the acts on lost ones."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from conduit.access import audit_log
from conduit.access.pages import go, page
from conduit.access.permissions import in_scope, may
from conduit.console import installation, support_bundle
from conduit.console.context import VERSION
from conduit.core import audit, clock, wording
from conduit.core.actor import Actor
from conduit.core.errors import Conflict, InvalidInput, NotFound
from conduit.core.money import MoneyError, parse_usd
from keys import live_leases, lost_workers
from keys.models import Worker
from usage import uncertain
from usage.uncertain_api import cost_of

MOST_WORKERS, MOST_LEASES, MOST_ATTEMPTS = 200, 50, 50
BOTH = ("GET", "HEAD", "POST")
WORDS = {
    "serving": ("ok", "Serving"),
    "silent": ("warn", "Silent"),
    "lost": ("bad", "Lost"),
}


@dataclass(frozen=True, slots=True)
class Line:
    """A row of engines and jobs. `kind`: ok, warn, bad, off, note."""

    what: str
    kind: str
    word: str
    detail: str
    answers_us: int | None = None


@page("system")
def system(request: HttpRequest, actor: Actor) -> HttpResponse:
    at = clock.now()
    valkey, jobs = installation.valkey()
    shipping, journal = installation.shipping(), installation.journal()
    workers, leases = _workers(actor, at), live_leases.live(actor)
    attempts = uncertain.open_attempts(actor)
    leased, held = live_leases.totals(leases), uncertain.sums(attempts)
    context = {
        "crumbs": [{"title": "System"}],
        "version": VERSION,
        "node": installation.node(),
        "nodes": len({row["worker"].node for row in workers}),
        "up": _up(workers, at),
        "workers": workers,
        "serving": sum(row["state"] == "serving" for row in workers),
        "shipping": shipping,
        "leased": leased,
        "lease_digits": wording.digits_for([leased.open_nanos, leased.held_nanos]),
        "lines": [*_engines(installation.postgres(), valkey, jobs)],
        "books": [*_books(shipping, journal, installation.ledger(), at)],
        "leases": _leases(actor, leases, at),
        "uncertain": held,
        "held_digits": wording.digits_for([held.held_nanos]),
        "attempts": _attempts(actor, uncertain.newest(attempts, MOST_ATTEMPTS)),
        "may_release": may(actor, "leases", write=True),
        "may_resolve": may(actor, "uncertain", write=True),
        "may_see_keks": may(actor, "keks", write=False),
    }
    return render(request, "console/system.html", context)


def _workers(actor: Actor, at: datetime) -> list[dict[str, Any]]:
    """Workers that have not stopped, by node; a lost one stays until its leases are released."""
    rows = list(Worker.objects.filter(stopped_at=None).order_by("node", "pid", "id")[:MOST_WORKERS])
    sums = live_leases.of_workers(rows, actor)
    found = []
    for row in rows:
        state = live_leases.state(row, at)
        kind, word = WORDS[state]
        found.append(
            {"worker": row, "state": state, "kind": kind, "word": word, "leased": sums[row.id], "lost": state == "lost"}
        )
    return found


def _up(workers: list[dict[str, Any]], at: datetime) -> str:
    """Since when somebody has served without a break, as far as the oldest worker that serves can tell."""
    since = min((row["worker"].started_at for row in workers if row["state"] == "serving"), default=None)
    return "" if since is None else wording.span(at - since)


def _leases(actor: Actor, rows: Any, at: datetime) -> list[dict[str, Any]]:
    found = live_leases.largest(rows, MOST_LEASES)
    names = live_leases.period_names((row.period_id for row in found), actor)
    return [
        {"lease": row, "period": names[row.period_id], "age": wording.span(at - row.granted_at)}
        for row in found
        if row.period_id in names
    ]


def _attempts(actor: Actor, rows: list[Any]) -> list[dict[str, Any]]:
    return [{"one": one, "own": in_scope(actor, one.attempt.team_id)} for one in uncertain.shown(rows, actor)]


def _engines(
    postgres: installation.Engine, valkey: installation.Engine, jobs: installation.Jobs | None
) -> Iterable[Line]:
    for engine in (postgres, valkey):
        kind, word = ("ok", "Healthy") if engine.ok else ("bad", "Away")
        yield Line(f"{engine.name} {engine.version}".strip(), kind, word, engine.detail, engine.answers_us)
    if jobs is None:
        yield Line("Jobs", "bad", "Unknown", "their queue lies in Valkey")
        return
    detail = f"{jobs.waiting:,} waiting, {jobs.taken:,} at work"
    if not jobs.scheduler:
        yield Line("Jobs", "bad", "No scheduler", f"{detail}; nothing recurring runs")
    elif jobs.overdue is not None and jobs.overdue > installation.OVERDUE:
        yield Line("Jobs", "warn", "Late", f"{detail}; a task is due since {wording.span(jobs.overdue)}")
    else:
        yield Line("Jobs", "ok", "Running", detail)


def _books(
    shipping: installation.Shipping, journal: installation.Journal, ledger: installation.LedgerCheck, at: datetime
) -> Iterable[Line]:
    """Journal, shipper and ledger of this node."""
    yield _shipper(shipping, at)
    yield Line("Journal", "ok", "Open", f"{wording.plural(journal.segments, 'segment')}, {_megabytes(journal.bytes)}")
    if journal.quarantined:
        detail = f"{wording.plural(journal.quarantined, 'record')} in journal/quarantine, for a person to look at"
        yield Line("Quarantine", "bad", "Not applied", detail)
    else:
        yield Line("Quarantine", "ok", "Empty", "no record was damaged or refused")
    if ledger.checked is None:
        yield Line("Ledger", "note", "Not checked yet", "an hourly job checks it; so does conduit ledger verify")
    elif ledger.ok:
        age = wording.relative(ledger.checked, at)
        yield Line("Ledger", "ok", "Adds up", f"{wording.plural(ledger.events, 'event')} of two days, checked {age}")
    else:
        yield Line("Ledger", "bad", "Does not add up", f"failed: {', '.join(ledger.failed)}")
    yield _audit(at)


def _audit(at: datetime) -> Line:
    kept = audit_log.last_verification()
    if kept is None:
        return Line("Audit log", "note", "Not verified yet", "an hourly job does it; so does conduit audit verify")
    told, when = kept
    if not told["ok"]:
        return Line("Audit log", "bad", "Broken", f"at entry {told['fault']['number']:,}: {told['fault']['kind']}")
    detail = f"{wording.plural(told['entries'], 'entry', 'entries')}, verified {wording.relative(when, at)}"
    return Line("Audit log", "ok", "Intact", detail)


def _shipper(shipping: installation.Shipping, at: datetime) -> Line:
    if shipping.told is None:
        return Line("Shipper", "bad", "Never reported", "it brings the journal into the database")
    if shipping.silent:
        return Line("Shipper", "bad", "Silent", f"last report {wording.relative(shipping.told, at)}")
    if not shipping.working:
        return Line("Shipper", "warn", "Waiting", "the database is away, or another shipper works for this node")
    return Line("Shipper", "ok", "Working", f"{wording.plural(shipping.applied, 'event')} applied since it started")


def _megabytes(size: int) -> str:
    return f"{size / 2**20:.1f} MB"


@page("system")
def bundle(request: HttpRequest, actor: Actor) -> HttpResponse:
    """As a file: what somebody who helps may see."""
    with transaction.atomic():
        audit.record(actor=actor, action="bundle.export", kind="system", id="bundle", name="support bundle")
    answer = HttpResponse(json.dumps(support_bundle.bundle(actor), indent=2), content_type="application/json")
    answer["Content-Disposition"] = f'attachment; filename="conduit-support-{clock.now():%Y%m%d-%H%M%S}.json"'
    return answer


@page("leases", write=True, methods=BOTH)
def release(request: HttpRequest, actor: Actor, worker_id: UUID) -> HttpResponse:
    """First what it would do, in the figures of the moment; then the act."""
    if request.method == "POST":
        done = lost_workers.release(worker_id, actor=actor)
        messages.success(
            request,
            f"Worker {done.pid} of node {done.node} is released: {wording.usd(done.nanos)} is free again in "
            f"{wording.plural(done.periods, 'budget period')}.",
        )
        return go(request, reverse("system"))
    worker = Worker.objects.filter(id=worker_id).first()
    if worker is None:
        raise NotFound("")
    silent = int((clock.now() - worker.seen_at).total_seconds())
    lost_workers.check_lost(worker.node, worker.pid, worker.stopped_at, silent)
    context = {
        "crumbs": [{"title": "System", "url": reverse("system")}, {"title": "Release a lost worker"}],
        "worker": worker,
        "leased": live_leases.of_workers([worker], actor)[worker.id],
    }
    return render(request, "console/release.html", context)


# --- one uncertain attempt -----------------------------------------------------------------------------------------

OUTCOMES = ("unbilled", "held", "billed")
LABELS = {"outcome": "What it cost", "cost_usd": "Amount"}


@page("uncertain", write=True, methods=BOTH)
def resolve(request: HttpRequest, actor: Actor, attempt_id: UUID) -> HttpResponse:
    """The form says what each answer would do; the answer stands."""
    row = uncertain.find_attempt(attempt_id, actor)
    if not in_scope(actor, row.team_id):
        raise Conflict("The attempt belongs to no team of yours; somebody who sees all teams can resolve it.")
    if row.resolved_at is not None:
        raise Conflict(f"{row.resolved_by} has resolved it to {wording.usd(row.cost_nanos)}; that stands.")
    (one,) = uncertain.shown([row], actor)
    values = {name: request.POST.get(name, "").strip()[:60] for name in ("outcome", "cost_usd", "from_invoice")}
    context = {
        "crumbs": [{"title": "System", "url": reverse("system")}, {"title": "Uncertain attempt"}],
        "one": one,
        "values": values,
        "labels": LABELS,
        "errors": {},
        "age": wording.span(max(clock.now() - row.time, timedelta(0))),
        "same_as": _same_as(row.id),
    }
    if request.method != "POST":
        return render(request, "console/uncertain.html", context)
    try:
        nanos = _cost(values, row)
        uncertain.resolve(row.id, actor=actor, cost_nanos=nanos, from_invoice=bool(values["from_invoice"]))
    except InvalidInput as error:
        context["errors"] = {error.field: error.detail}
        template = "parts/errors.html" if request.headers.get("HX-Request") else "console/uncertain.html"
        return render(request, template, context, status=422)
    messages.success(
        request, f"Resolved: {wording.usd(nanos)} settled, {wording.usd(row.held_nanos)} is no longer held."
    )
    return go(request, reverse("system"))


def _cost(values: dict[str, str], row: Any) -> int:
    """Raises InvalidInput naming the field of the form."""
    outcome = values["outcome"]
    if outcome not in OUTCOMES:
        raise InvalidInput("outcome", "Choose what it cost.", "required")
    if outcome != "billed" and values["cost_usd"]:
        raise InvalidInput("cost_usd", "Goes with another amount only: choose that, or leave it empty.", "not_used")
    if outcome != "billed":
        return cost_of(row, "unbilled" if outcome == "unbilled" else "billed", None)
    try:
        return parse_usd(values["cost_usd"].removeprefix("$"))
    except MoneyError as error:
        raise InvalidInput("cost_usd", f"The amount {error}.", "invalid_amount") from None


def _same_as(attempt: UUID) -> list[dict[str, str]]:
    curl = (
        f"curl $CONDUIT_URL/api/v1/uncertain/{attempt}/resolve \\\n"
        '  -H "Authorization: Bearer $CONDUIT_TOKEN" -H "Content-Type: application/json" \\\n'
        '  -d \'{"outcome": "unbilled"}\''
    )
    tabs = (("conduit", f"conduit uncertain resolve {attempt} --as unbilled"), ("curl", curl))
    return [{"ident": str(number), "title": title, "text": text} for number, (title, text) in enumerate(tabs, 1)]
