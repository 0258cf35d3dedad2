"""Which role may read and write what: the one table behind every endpoint, page and command.

Roles write only where the table says so, and only owner, admin and operator ever do. Whoever is narrowed to teams
(operators, analysts, tokens with a team) sees and changes what belongs to those teams; of what belongs to no team it
may read what its role may read, and change nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from django.db.models import Model, QuerySet
from rest_framework.exceptions import NotAuthenticated
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from conduit.access.models import Role
from conduit.core.actor import Actor
from conduit.core.errors import Forbidden, NotFound

if TYPE_CHECKING:
    from rest_framework.views import APIView  # its module reads the settings that name this one

Row = TypeVar("Row", bound=Model)
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})

TEAM_OWNED = frozenset({"keys", "budgets", "customers", "teams", "usage", "requests", "uncertain"})
INSTALLATION = frozenset(
    {"providers", "credentials", "routes", "models", "prices", "alerts", "webhooks", "config", "ledger"}
    | {"leases", "system"}
)
PEOPLE = frozenset({"users", "tokens", "audit"})
RESOURCES = TEAM_OWNED | INSTALLATION | PEOPLE | {"keks", "account"}

_OPERATES = frozenset(
    {"keys", "budgets", "customers", "teams", "providers", "credentials", "routes", "uncertain", "leases"}
)
# `account` is one's own: sessions, password.
READS: dict[str, frozenset[str]] = {
    Role.OWNER: RESOURCES,
    Role.ADMIN: RESOURCES - {"keks"},
    Role.OPERATOR: (TEAM_OWNED | INSTALLATION | {"account"}) - {"config"},
    Role.ANALYST: frozenset(
        {"usage", "requests", "uncertain", "budgets", "leases", "keys", "teams", "models", "account"}
    ),
    Role.AUDITOR: RESOURCES,
}
WRITES: dict[str, frozenset[str]] = {
    Role.OWNER: RESOURCES - {"audit"},
    Role.ADMIN: RESOURCES - {"audit", "keks"},
    Role.OPERATOR: _OPERATES | {"account"},
    Role.ANALYST: frozenset({"account"}),
    Role.AUDITOR: frozenset({"account"}),
}


def may(actor: Actor, resource: str, *, write: bool) -> bool:
    """Whether the role allows it at all; which objects is `in_scope`'s."""
    if resource not in (WRITES if write else READS).get(actor.role, frozenset()):
        return False
    return not (write and resource in INSTALLATION and actor.teams is not None)


def demand(actor: Actor, resource: str, *, write: bool = True) -> None:
    """Raises Forbidden, naming the roles that may."""
    if may(actor, resource, write=write):
        return
    table = WRITES if write else READS
    allowed = [role for role in Role.values if resource in table[role]]
    verb = "change" if write else "read"
    narrowed = " without a team" if write and resource in INSTALLATION else ""
    raise Forbidden(
        f"The role {actor.role} may not {verb} {resource}; {', '.join(allowed) or 'no role'}{narrowed} may."
    )


def names_only(actor: Actor) -> bool:
    """Whether this actor sees of keys and teams no more than what they are called."""
    return actor.role == Role.ANALYST


def demand_whole(actor: Actor, what: str) -> None:
    """Raises Forbidden for an actor who sees names only."""
    if names_only(actor):
        raise Forbidden(f"The role {actor.role} may see only what keys are called, not {what}.")


def in_scope(actor: Actor, team_id: UUID | None) -> bool:
    """Whether an object of this team (None: of no team) is the actor's to see or change."""
    return actor.teams is None or team_id in actor.teams


def demand_scope(actor: Actor, team_id: UUID | None) -> None:
    """Raises NotFound for another team's object: its existence is not told."""
    if not in_scope(actor, team_id):
        raise NotFound("")


def scope(queryset: QuerySet[Row], actor: Actor, field: str = "team_id") -> QuerySet[Row]:
    """The rows that `in_scope` would allow."""
    return queryset if actor.teams is None else queryset.filter(**{f"{field}__in": actor.teams})


class RolePermission(BasePermission):
    """The view's `resource` and the method against the table. A view without a resource answers nobody."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        actor: Any = request.user
        if not isinstance(actor, Actor):
            raise NotAuthenticated
        resource = getattr(view, "resource", "")
        reads = request.method in SAFE or request.method in getattr(view, "reads", ())
        demand(actor, resource, write=not reads)
        return True
