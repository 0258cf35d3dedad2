"""What the sidebar and the palette offer. An entry is shown only to roles that may read its resource."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from django.db.models import QuerySet
from django.urls import reverse

from conduit.access.permissions import may
from conduit.core.actor import Actor
from keys.models import VirtualKey
from providers.models import Credential, Provider, Route

CAP = 1000


@dataclass(frozen=True, slots=True)
class Entry:
    """`name` is the URL's name, `key` the letter after `g`, `pages` the other URL names that belong to it."""

    title: str
    name: str
    icon: str
    resource: str
    key: str = ""
    write: bool = False
    rows: Callable[[], QuerySet[VirtualKey] | QuerySet[Provider] | QuerySet[Credential] | QuerySet[Route]] | None = None
    pages: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Shown:
    title: str
    url: str
    icon: str
    key: str
    count: str
    current: bool


@dataclass(frozen=True, slots=True)
class Group:
    title: str
    entries: list[Shown]


GROUPS: tuple[tuple[str, tuple[Entry, ...]], ...] = (
    ("", (Entry("Overview", "overview", "layout-dashboard", "usage", "o"),)),
    (
        "Traffic",
        (
            Entry("Requests", "requests", "list-details", "usage", "r", pages=("request-detail",)),
            Entry("Usage", "usage", "chart-bar", "usage", "u"),
        ),
    ),
    (
        "Access",
        (
            Entry(
                "Keys",
                "keys",
                "key",
                "keys",
                "k",
                rows=VirtualKey.objects.all,
                pages=("key-create", "key-detail", "key-edit", "key-leak", "key-replace", "key-review", "key-shrink"),
            ),
            Entry("Budgets", "budgets", "wallet", "budgets", "b", pages=("budget-raise",)),
        ),
    ),
    (
        "Upstream",
        (
            Entry(
                "Providers",
                "providers",
                "server-2",
                "providers",
                "p",
                rows=Provider.objects.all,
                pages=("provider-create", "provider-detail", "provider-limits"),
            ),
            Entry(
                "Credentials",
                "credentials",
                "lock",
                "credentials",
                "c",
                rows=Credential.objects.all,
                pages=(
                    "credential-create",
                    "credential",
                    "credential-rotate",
                    "credential-settings",
                    "credential-rules",
                    "credential-revoke",
                    "credential-delete",
                ),
            ),
            Entry(
                "Routes",
                "routes",
                "route",
                "routes",
                "t",
                rows=Route.objects.all,
                pages=("route-create", "route-edit"),
            ),
        ),
    ),
    ("Oversight", (Entry("Audit log", "audit", "shield-check", "audit", "a"),)),
    (
        "Installation",
        (
            Entry(
                "System",
                "system",
                "settings",
                "system",
                "s",
                pages=("uncertain", "worker-release", "keks", "kek-rotate", "kek-retire"),
            ),
            Entry("First request", "first-run", "player-play", "keys", write=True),
        ),
    ),
)


def _count(entry: Entry) -> str:
    """Rows up to a cap: a sidebar must stay fast with a million keys."""
    if entry.rows is None:
        return ""
    number = entry.rows()[:CAP].count()
    return f"{CAP - 1}+" if number == CAP else str(number)


def shown(actor: Actor, current: str) -> list[Group]:
    """The groups this actor sees; `current` is the URL name of the page."""
    groups = []
    for title, entries in GROUPS:
        seen = [
            Shown(e.title, reverse(e.name), e.icon, e.key, _count(e), current == e.name or current in e.pages)
            for e in entries
            if may(actor, e.resource, write=e.write)
        ]
        if seen:
            groups.append(Group(title, seen))
    return groups
