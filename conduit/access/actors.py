"""People and tokens as actors. Role and teams are read anew for each request, so a change takes effect at once."""

from __future__ import annotations

from uuid import UUID

from conduit.access import teams
from conduit.access.models import ManagementToken, Role, User
from conduit.core.actor import Actor

NARROWED = frozenset({Role.OPERATOR, Role.ANALYST})


def actor_of_user(user: User) -> Actor:
    roots = teams.of_user(user) if user.role in NARROWED else []
    return Actor("user", str(user.id), user.email, user.role, _narrowed(roots))


def actor_of_token(token: ManagementToken) -> Actor:
    roots = [token.team_id] if token.team_id else []
    return Actor("token", str(token.id), token.name, token.role, _narrowed(roots))


def _narrowed(roots: list[UUID]) -> frozenset[UUID] | None:
    # A team that is gone narrows to nothing: its token must not widen to all teams.
    return teams.subtree(roots) if roots else None
