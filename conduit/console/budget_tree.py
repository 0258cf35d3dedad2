"""The rows of the budgets page: teams with what hangs below them, customers, or providers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.urls import reverse

from conduit.access.permissions import may, scope
from conduit.console.budget_rows import Meter, Pace, meter_of, pace
from conduit.core import wording
from conduit.core.actor import Actor
from keys.budgets import BudgetState, states
from keys.models import Budget, Customer, OwnerKind, Team, VirtualKey
from keys.representation import state_of
from providers.models import Provider

MOST_TEAMS = 1000
MOST = 300
DEEPEST = 5  # levels that are indented


@dataclass(frozen=True, slots=True)
class Row:
    """One budget of an owner; an owner without one has a row without a meter."""

    depth: int
    icon: str
    name: str
    url: str
    meter: Meter | None
    pace: Pace


@dataclass(frozen=True, slots=True)
class Owner:
    depth: int
    icon: str
    name: str
    url: str
    off: str = ""  # why nothing is spent here any more, in a word


def _rows(owner: Owner, found: Sequence[BudgetState], at: datetime) -> Iterator[Row]:
    depth = min(owner.depth, DEEPEST)
    if not found:
        yield Row(depth, owner.icon, owner.name, owner.url, None, Pace("", "no budget of its own"))
    for state in found:
        meter = meter_of(state, owner.name)
        words = Pace("", owner.off) if owner.off else pace(meter, at)
        yield Row(depth, owner.icon, owner.name, owner.url, meter, words)


def of_teams(actor: Actor, at: datetime) -> tuple[list[Row], bool]:
    """The teams as a tree, each with its keys that have a budget; keys of no team come last. The flag: not all keys."""
    teams = list(scope(Team.objects.order_by("name"), actor, "id")[:MOST_TEAMS])
    limited = Budget.objects.filter(owner_kind=OwnerKind.KEY, removed_at=None).values("owner_id")
    # By id, whose index ends the search early however many keys there are.
    newest = list(scope(VirtualKey.objects.filter(id__in=limited), actor).order_by("-id")[: MOST + 1])
    keys = sorted(newest[:MOST], key=lambda key: key.name)
    of_team = states(OwnerKind.TEAM, [team.id for team in teams], at)
    of_key = states(OwnerKind.KEY, [key.id for key in keys], at)
    below: dict[UUID | None, list[VirtualKey]] = defaultdict(list)
    for key in keys:
        below[key.team_id].append(key)

    def key_rows(team: UUID | None, depth: int) -> Iterator[Row]:
        for key in below.pop(team, []):
            status = state_of(key, at)
            off = "" if status == "active" else status
            url = reverse("key-detail", args=[key.id])
            yield from _rows(Owner(depth, "key", key.name, url, off), of_key[key.id], at)

    rows: list[Row] = []
    for depth, team in _down(teams):
        rows += _rows(Owner(depth, "users", team.name, ""), of_team[team.id], at)
        rows += key_rows(team.id, depth + 1)
    for team_id in list(below):  # of no team, or of a team beyond MOST_TEAMS
        rows += key_rows(team_id, 0)
    return rows, len(newest) > MOST


def _down(teams: Iterable[Team]) -> Iterator[tuple[int, Team]]:
    """Each team before those below it, with its depth. The uppermost that are seen are the roots."""
    children: dict[UUID | None, list[Team]] = defaultdict(list)
    found = list(teams)
    known = {team.id for team in found}
    for team in found:
        children[team.parent_id if team.parent_id in known else None].append(team)
    waiting = [(0, team) for team in reversed(children[None])]
    while waiting:
        depth, team = waiting.pop()
        yield depth, team
        waiting += [(depth + 1, child) for child in reversed(children[team.id])]


def of_customers(actor: Actor, at: datetime, before: UUID | None) -> tuple[list[Row], UUID | None]:
    """Customers with a budget, newest first, a page at a time; and where the next page begins."""
    limited = Budget.objects.filter(owner_kind=OwnerKind.CUSTOMER, removed_at=None).values("owner_id")
    found = scope(Customer.objects.filter(id__in=limited).select_related("team"), actor)
    page = list((found.filter(id__lt=before) if before else found).order_by("-id")[: MOST + 1])
    own = states(OwnerKind.CUSTOMER, [customer.id for customer in page[:MOST]], at)
    rows: list[Row] = []
    for customer in page[:MOST]:
        team = f" of {customer.team.name}" if customer.team else ""
        owner = Owner(0, "user", f"{customer.name}{team}", "", "blocked" if customer.blocked else "")
        rows += _rows(owner, own[customer.id], at)
    return rows, page[MOST - 1].id if len(page) > MOST else None


def of_providers(actor: Actor, at: datetime) -> list[Row]:
    """Every provider with a budget. Nothing for those narrowed to teams: it is what all teams spend."""
    if actor.teams is not None:
        return []
    limited = Budget.objects.filter(owner_kind=OwnerKind.PROVIDER, removed_at=None).values("owner_id")
    found = list(Provider.objects.filter(id__in=limited).order_by("name")[:MOST])
    own: Mapping[UUID, list[BudgetState]] = states(OwnerKind.PROVIDER, [row.id for row in found], at)
    linked = may(actor, "providers", write=False)
    rows: list[Row] = []
    for provider in found:
        url = reverse("provider-detail", args=[provider.id]) if linked else ""
        off = "" if provider.enabled else "disabled"
        rows += _rows(Owner(0, "server-2", provider.name, url, off), own[provider.id], at)
    return rows


def tightness(rows: Iterable[Row]) -> tuple[int, int]:
    """(hard budgets with nothing left, those from 80 % on)."""
    hard = [row.meter for row in rows if row.meter and row.meter.kind == "hard"]
    spent = sum(meter.left <= 0 for meter in hard)
    return spent, sum(meter.left > 0 and meter.used * 100 >= meter.limit * 80 for meter in hard)


def digits(rows: Iterable[Row]) -> int:
    """One precision for all amounts of the table."""
    return wording.digits_for(row.meter.limit for row in rows if row.meter)
