"""What access must know of teams without importing the app above it: the tree, and who belongs where."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from uuid import UUID

from django.apps import apps
from django.db.models import Model, QuerySet

from conduit.access.models import User
from conduit.core.errors import InvalidInput


def _rows(model: str) -> QuerySet[Model]:
    rows: QuerySet[Model] = apps.get_model("keys", model)._base_manager.all()
    return rows


def subtree(roots: Iterable[UUID]) -> frozenset[UUID]:
    """The teams and everything below them. Ids that no longer exist are left out."""
    children: dict[UUID | None, list[UUID]] = defaultdict(list)
    known = set()
    for team_id, parent_id in _rows("Team").values_list("id", "parent_id"):
        children[parent_id].append(team_id)
        known.add(team_id)
    found: set[UUID] = set()
    waiting = [root for root in roots if root in known]
    while waiting:
        team_id = waiting.pop()
        if team_id not in found:
            found.add(team_id)
            waiting += children[team_id]
    return frozenset(found)


def of_user(user: User) -> list[UUID]:
    """The teams that a user was put into, without those below them."""
    return list(_rows("TeamMember").filter(user_id=user.id).order_by("id").values_list("team_id", flat=True))


def of_users(users: Iterable[User]) -> dict[UUID, list[UUID]]:
    """`of_user` for many, in one query."""
    members: dict[UUID, list[UUID]] = defaultdict(list)
    rows = _rows("TeamMember").filter(user_id__in=[user.id for user in users]).order_by("id")
    for user_id, team_id in rows.values_list("user_id", "team_id"):
        members[user_id].append(team_id)
    return members


def put(user: User, teams: Iterable[UUID]) -> None:
    """Makes these the user's teams. Raises InvalidInput for one that does not exist."""
    wanted = list(dict.fromkeys(teams))
    for index, team_id in enumerate(wanted):
        check_exists(team_id, f"teams.{index}")
    member = apps.get_model("keys", "TeamMember")
    member._base_manager.filter(user_id=user.id).exclude(team_id__in=wanted).delete()
    member._base_manager.bulk_create(
        [member(user_id=user.id, team_id=team_id) for team_id in wanted], ignore_conflicts=True
    )


def check_exists(team_id: UUID, field: str = "team") -> None:
    if not _rows("Team").filter(pk=team_id).exists():
        raise InvalidInput(field, "There is no such team.", "not_found")
