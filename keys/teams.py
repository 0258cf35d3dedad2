"""Teams form a tree. What a team allows, everything below it can only narrow; budgets count on every level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, Unpack
from uuid import UUID

from django.db import IntegrityError, connection, transaction

from conduit.access import permissions, teams
from conduit.core import audit
from conduit.core.actor import Actor
from conduit.core.errors import Conflict, InvalidInput
from keys import budget_specs, budgets, constraints
from keys.errors import NameTaken, TeamInUse
from keys.models import Customer, OwnerKind, Team

RESOURCE = "teams"
DEEPEST = 12
_TREE_LOCK = 0x636F6E64  # any constant: one change of the tree at a time


class TeamLimits(TypedDict, total=False):
    models: Sequence[str]
    endpoints: Sequence[str]
    budgets: Sequence[budget_specs.BudgetSpec | Mapping[str, Any]]
    rpm: int | None
    tpm: int | None
    max_parallel: int | None
    tags: Sequence[str]
    metadata: Mapping[str, Any]


def create_team(*, actor: Actor, name: str, parent: Team | None = None, **limits: Unpack[TeamLimits]) -> Team:
    """Raises InvalidInput naming the field, NameTaken, Forbidden."""
    permissions.demand(actor, RESOURCE)
    specs = budget_specs.parse_specs(limits.pop("budgets", ()))
    stored = constraints.clean({"name": name, **limits}, constraints.TEAM_FIELDS)
    with transaction.atomic():
        lock_tree()
        _check_parent(actor, parent, None)
        team = Team(parent=parent, **stored)
        _save(team)
        budgets.set_budgets(OwnerKind.TEAM, team.id, specs, actor=actor)
        _record(team, actor, "team.create", None, terms(team))
    return team


def update_team(team: Team, *, actor: Actor, changes: Mapping[str, Any]) -> Team:
    """Changes the named fields only; `parent` is a Team or None. Raises as `create_team`, and Conflict for a cycle."""
    permissions.demand(actor, RESOURCE)
    changes = dict(changes)
    specs = budget_specs.parse_specs(changes.pop("budgets")) if "budgets" in changes else None
    moves, parent = "parent" in changes, changes.pop("parent", None)
    with transaction.atomic():
        lock_tree()
        team = _locked(team, actor)
        before = terms(team)
        for field, value in constraints.clean(changes, constraints.TEAM_FIELDS).items():
            setattr(team, field, value)
        if moves and (parent.id if parent else None) != team.parent_id:
            _check_parent(actor, parent, team)
            team.parent = parent
        old, new = audit.changes(before, terms(team))
        if new:
            _save(team)
            _record(team, actor, "team.update", old, new)
        if specs is not None:
            budgets.set_budgets(OwnerKind.TEAM, team.id, specs, actor=actor)
    return team


def delete_team(team: Team, *, actor: Actor) -> None:
    """Raises TeamInUse while keys, teams below it or members hang on it.

    Members too: an operator whose last team vanished would otherwise count as one of all teams.
    """
    permissions.demand(actor, RESOURCE)
    with transaction.atomic():
        lock_tree()
        team = _locked(team, actor)
        for what, rows in (("teams", team.children), ("keys", team.keys), ("members", team.members)):
            if rows.exists():
                raise TeamInUse(f"The team {team.name} still has {what}. Move or delete them first.")
        customers = list(Customer.objects.filter(team=team).values_list("id", flat=True))
        budgets.remove_budgets(OwnerKind.CUSTOMER, customers)
        budgets.remove_budgets(OwnerKind.TEAM, [team.id])
        _record(team, actor, "team.delete", terms(team), None)
        team.delete()


def find_team(reference: object, field: str = "team") -> Team | None:
    """A team by id or by name; None for null. Raises InvalidInput when there is none."""
    if reference is None:
        return None
    if isinstance(reference, str) and 0 < len(reference) <= 120 and "\x00" not in reference:
        team = Team.objects.filter(name=reference).first()
        if team is None:
            try:
                team = Team.objects.filter(pk=UUID(reference)).first()
            except ValueError:
                team = None
        if team is not None:
            return team
    raise InvalidInput(field, "There is no such team.", "not_found")


def terms(team: Team) -> dict[str, Any]:
    parent = {"parent": str(team.parent_id) if team.parent_id else None}
    return {**constraints.outward(team, constraints.TEAM_FIELDS), **parent}


def lock_tree() -> None:
    """Before any row of a team is locked; every change takes the same order, so none waits for another in a circle."""
    audit.lock()
    # Two moves at once could close a cycle that neither of them sees.
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_TREE_LOCK])


def _locked(team: Team, actor: Actor) -> Team:
    row = Team.objects.select_for_update(no_key=True).get(pk=team.pk)  # rows that name it are written meanwhile
    permissions.demand_scope(actor, row.id)
    return row


def _check_parent(actor: Actor, parent: Team | None, team: Team | None) -> None:
    if parent is None:
        if actor.teams is not None:
            raise InvalidInput("parent", "Choose one of your own teams.", "required")
        return
    if not permissions.in_scope(actor, parent.id):
        raise InvalidInput("parent", "There is no such team.", "not_found")
    below = teams.subtree([team.id]) if team else frozenset()
    if parent.id in below:
        raise Conflict(f"The team {parent.name} lies below {team}; a team cannot be above itself.")
    above = _depth(parent)
    if above + _height(team) > DEEPEST:
        raise InvalidInput("parent", f"Teams can be nested {DEEPEST} deep.", "too_deep")


def _depth(team: Team) -> int:
    depth, here = 1, team
    while here.parent is not None and depth <= DEEPEST:
        depth, here = depth + 1, here.parent
    return depth


def _height(team: Team | None) -> int:
    if team is None:
        return 1
    height, level = 0, [team.id]
    while level and height <= DEEPEST:
        height, level = height + 1, list(Team.objects.filter(parent__in=level).values_list("id", flat=True))
    return height


def _save(team: Team) -> None:
    try:
        with transaction.atomic():
            team.save()
    except IntegrityError:
        raise NameTaken(f"There is already a team {team.name}.") from None


def _record(team: Team, actor: Actor, action: str, before: dict[str, Any] | None, after: dict[str, Any] | None) -> None:
    audit.record(
        actor=actor, action=action, kind="team", id=team.id, name=team.name, team_id=team.id, before=before, after=after
    )
