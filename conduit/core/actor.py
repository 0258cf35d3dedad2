"""Who does something: a person in the console, a management token, or Conduit itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from django.http import HttpRequest
from rest_framework.request import Request


@dataclass(frozen=True, slots=True)
class Actor:
    """`teams`: ids of the own teams and of everything below them; None means all teams."""

    kind: Literal["user", "token", "system"]
    id: str
    name: str
    role: str
    teams: frozenset[UUID] | None

    @property
    def reference(self) -> str:
        """One text that tells actors apart, such as `token:0190…`."""
        return f"{self.kind}:{self.id}"


def actor_of(request: HttpRequest | Request) -> Actor:
    """The actor that authentication put on an API request. Raises TypeError where none did."""
    found: object = request.user
    if not isinstance(found, Actor):
        raise TypeError("the request has no actor")
    return found


SYSTEM = Actor("system", "", "system", "owner", None)
COMMAND_LINE = Actor("system", "cli", "command line", "owner", None)
