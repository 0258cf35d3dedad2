"""The audit log's page: who did what to what, from where; is the log whole."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.contrib import messages
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import NoReverseMatch, reverse

from conduit.access import audit_log
from conduit.access.pages import go, page
from conduit.console import audit_words
from conduit.console.spans import today
from conduit.core import clock, wording
from conduit.core.actor import Actor
from conduit.core.models import AuditEntry, AuditHead
from keys.models import Customer, Team, VirtualKey
from providers.models import Credential, Provider, Route

PAGE_ROWS = 50
MOST_COUNTED = 10_000
RANGES = {"today": "Today", "7d": "Last 7 days", "30d": "Last 30 days", "all": "All of it"}
DAYS = {"7d": 6, "30d": 29}
SIGN_INS = ("user.sign_in", "user.sign_out", "user.sign_in_failed", "user.locked_out")
SCOPES: dict[str, tuple[str, Q]] = {
    "": ("Everything", Q()),
    "keys": ("Keys", Q(object_kind="key")),
    "credentials": ("Credentials", Q(object_kind="credential")),
    "budgets": ("Budgets", Q(action__startswith="budget.")),
    "sign-ins": ("Sign-ins", Q(action__in=SIGN_INS)),
    "system": ("By the system", Q(actor_kind="system")),
}
ICONS = {"user": "user", "token": "terminal-2", "system": "bolt"}
# Where an object is looked at: kind → (URL names to try, model).
PLACES: dict[str, tuple[tuple[str, ...], Any]] = {
    "key": (("key-detail",), VirtualKey),
    "provider": (("provider-detail",), Provider),
    "credential": (("credential-detail", "credential"), Credential),
    "route": (("route-edit",), Route),
    "team": ((), Team),
    "customer": ((), Customer),
}


@dataclass(frozen=True, slots=True)
class Ask:
    """What the URL asks for. `object_kind` and `object_id`: the history of one object."""

    q: str
    scope: str
    range: str
    object_kind: str
    object_id: str
    before: int | None
    after: int | None

    def query(self, **changed: Any) -> str:
        """The URL of the same question with some of it changed; a page is left when the question is another."""
        asked = {
            "q": self.q,
            "of": self.scope,
            "range": self.range if self.range != "7d" else "",
            "kind": self.object_kind,
            "object": self.object_id,
        }
        return urlencode({name: value for name, value in {**asked, **changed}.items() if value})


def _parse(given: Any) -> Ask:
    scope, span = given.get("of", ""), given.get("range", "7d")
    one = given.get("object", "")[:128]
    return Ask(
        given.get("q", "").strip().replace("\x00", "")[:120],
        scope if scope in SCOPES else "",
        # The history of one object is short and goes back to its beginning.
        span if span in RANGES and ("range" in given or not one) else "all" if one else "7d",
        given.get("kind", "")[:32].replace("\x00", ""),
        one.replace("\x00", ""),
        _number(given.get("before", "")),
        _number(given.get("after", "")),
    )


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


@page("audit")
def audit(request: HttpRequest, actor: Actor) -> HttpResponse:
    at = clock.now()
    ask = _parse(request.GET)
    found = _found(ask, at)
    rows, newer, older = _slice(found, ask)
    number = found[:MOST_COUNTED].count()
    context = {
        "crumbs": [{"title": "Audit log"}],
        "ask": ask,
        "rows": _rows(rows, at),
        "many": f"{MOST_COUNTED - 1:,}+" if number == MOST_COUNTED else f"{number:,}",
        "range_words": {"today": "today", "all": "in all"}.get(ask.range, f"in {RANGES[ask.range][5:]}"),
        "ranges": [(value, title, value == ask.range) for value, title in RANGES.items()],
        "scopes": [(title, ask.query(of=value), value == ask.scope) for value, (title, _) in SCOPES.items()],
        "one": rows[0].object_name or rows[0].object_id if ask.object_id and rows else ask.object_id,
        "everything_query": ask.query(kind="", object="", range=""),
        "newer_query": ask.query(after=rows[0].id) if newer else "",
        "older_query": ask.query(before=rows[-1].id) if older else "",
        "wider_query": ask.query(range="all", q="", of=""),
        "export_url": "/api/v1/audit/export",
        "verified": _verified(),
        "same_as": _same_as(request, ask, at),
    }
    return render(request, "console/audit.html", context)


@page("audit", methods=("POST",))
def verify(request: HttpRequest, actor: Actor) -> HttpResponse:
    """Verifies the log now, a long one from where it was intact the last time; the page tells the outcome."""
    told, made_now = audit_log.verify_in_turn()
    if not made_now:
        messages.info(request, "Another verification is under way. Below is the outcome of the one before.")
    elif told["ok"]:
        messages.success(request, "Verified just now.")
    return go(request, reverse("audit"))


# --- the entries ---------------------------------------------------------------------------------------------------


def _found(ask: Ask, at: datetime) -> QuerySet[AuditEntry]:
    rows = AuditEntry.objects.filter(SCOPES[ask.scope][1])
    if (since := _since(ask, at)) is not None:
        rows = rows.filter(time__gte=since)
    if ask.object_kind:
        rows = rows.filter(object_kind=ask.object_kind)
    if ask.object_id:
        rows = rows.filter(object_id=ask.object_id)
    if ask.q:
        known = list(rows.order_by().values_list("action", flat=True).distinct())  # of the range, not of the whole log
        about = Q(actor_name__icontains=ask.q) | Q(object_name__icontains=ask.q) | Q(object_id=ask.q)
        rows = rows.filter(about | Q(action__in=audit_words.actions_like(ask.q, known)) | Q(request_id=ask.q))
    return rows


def _since(ask: Ask, at: datetime) -> datetime | None:
    return None if ask.range == "all" else today(at) - timedelta(days=DAYS.get(ask.range, 0))


def _slice(rows: QuerySet[AuditEntry], ask: Ask) -> tuple[list[AuditEntry], bool, bool]:
    """(a page, newest first; whether there are newer ones; whether there are older ones)"""
    if ask.after is not None:
        found = list(rows.filter(id__gt=ask.after).order_by("id")[: PAGE_ROWS + 1])
        return found[:PAGE_ROWS][::-1], len(found) > PAGE_ROWS, True
    older = rows if ask.before is None else rows.filter(id__lt=ask.before)
    found = list(older.order_by("-id")[: PAGE_ROWS + 1])
    return found[:PAGE_ROWS], ask.before is not None, len(found) > PAGE_ROWS


def _rows(entries: Sequence[AuditEntry], at: datetime) -> list[dict[str, Any]]:
    places = _places(entries)
    rows = []
    for entry in entries:
        url, name = places.get((entry.object_kind, entry.object_id), ("", ""))
        told = audit_words.changes(entry.before, entry.after, entry.object_name)
        rows.append(
            {
                "entry": entry,
                "time": _time(entry.time, at),
                "iso": clock.rfc3339(entry.time),
                "icon": ICONS.get(entry.actor_kind, "user"),
                "who": f"{entry.actor_name} (token)" if entry.actor_kind == "token" else entry.actor_name,
                "did": audit_words.did(entry.action),
                "what": entry.object_name or name or entry.object_id or wording.DASH,
                "url": url,
                "changes": told[: audit_words.SHOWN],
                "more": told[audit_words.SHOWN :],
            }
        )
    return rows


def _time(time: datetime, at: datetime) -> str:
    text = f"{time:%H:%M:%S}"
    if time >= today(at):
        return text
    year = f" {time.year}" if time.year != at.year else ""
    return f"{time.day} {time:%b}{year} {text}"


def _places(entries: Sequence[AuditEntry]) -> dict[tuple[str, str], tuple[str, str]]:
    """(kind, id) → (where it is looked at, what it is called now), for what is still there."""
    found: dict[tuple[str, str], tuple[str, str]] = {}
    for kind, (names, model) in PLACES.items():
        ids = [one for entry in entries if entry.object_kind == kind and (one := _uuid(entry.object_id))]
        for row, name in model.objects.filter(pk__in=ids).values_list("pk", "name") if ids else ():
            found[kind, str(row)] = _url(names, row), name
    return found


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _url(names: tuple[str, ...], ident: UUID) -> str:
    for name in names:
        try:
            return reverse(name, args=[ident])
        except NoReverseMatch:
            continue
    return ""


# --- is it whole ---------------------------------------------------------------------------------------------------


def _verified() -> dict[str, Any] | None:
    """How this node's last verification went, and how many entries came since."""
    kept = audit_log.last_verification()
    if kept is None:
        return None
    told, when = kept
    head = AuditHead.objects.first()
    anchored, whole = told.get("anchored_at"), told.get("whole_at")
    return {
        "ok": bool(told.get("ok")),
        "entries": int(told.get("entries", 0)),
        "total": int(told.get("total", 0)),
        "since": max((head.number if head else 0) - int(told.get("total", 0)), 0),
        "head": f"{told.get('head', '')[:4]}…{told.get('head', '')[-4:]}",
        "when": when,
        "first": int(told.get("first", 1)),
        "whole_at": datetime.fromisoformat(whole) if whole else None,
        "anchored": datetime.fromisoformat(anchored) if anchored else None,
        "fault": told.get("fault"),
        "notes": told.get("notes", []),
    }


def _same_as(request: HttpRequest, ask: Ask, at: datetime) -> list[dict[str, str]]:
    since = _since(ask, at)
    given = {"kind": ask.object_kind, "object": ask.object_id, "from": clock.rfc3339(since) if since else ""}
    given = {name: text for name, text in given.items() if text}
    if ask.scope in ("keys", "credentials"):
        given["kind"] = ask.scope.removesuffix("s")
    if ask.scope == "budgets":
        given["action"] = "budget.*"
    url = f"{request.scheme}://{request.get_host()}/api/v1/audit"
    curl = f'curl "{url}?{urlencode(given, safe=":*")}" \\\n  -H "Authorization: Bearer $CONDUIT_TOKEN"'
    words = " ".join(f"--{name} {shlex.quote(text)}" for name, text in given.items())
    return [
        {"ident": "1", "title": "conduit", "text": f"conduit audit list {words}".strip() + "\nconduit audit verify"},
        {"ident": "2", "title": "curl", "text": curl},
    ]
