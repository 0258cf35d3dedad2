"""Whose a key is and below which key it stands: rights only narrow, and they are looked up when the key is used.

effective = key ∩ its parents ∩ the teams of each ∩ the person of each personal key. A personal key stops when its user
is deactivated, or when the user's role and teams no longer reach the key's team: an operator or analyst must be in it
or above it, an owner, admin or auditor is of all teams. A parent that is revoked, disabled or
expired stops everything below it. Nothing of this is copied into a key, so no order of edits can leave a wider copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from conduit.access import permissions, teams
from conduit.access.actors import NARROWED, actor_of_user
from conduit.access.models import User
from conduit.core.actor import Actor
from conduit.core.errors import Conflict, InvalidInput
from keys.models import KeyKind, KeyState, VirtualKey

DEEPEST = 8  # keys from the top to the bottom of a line of delegation


def line_of(key: VirtualKey) -> list[VirtualKey]:
    """The key, its parent, and so on up; one more than DEEPEST where the line is longer."""
    found, here = [key], key
    while here.parent_id is not None and len(found) <= DEEPEST:
        here = VirtualKey.objects.select_related("team").get(pk=here.parent_id)
        found.append(here)
    return found


def hindrance(line: Sequence[VirtualKey], at: datetime, actor: Actor | None = None) -> str:
    """Why the first key of the line cannot be used now, in words; empty when it can. A key above it that is not
    `actor`'s to see goes without its name."""
    if len(line) > DEEPEST:
        return f"It stands more than {DEEPEST} keys deep."
    for place, key in enumerate(line):
        fault = _own_fault(key, at)
        if fault:
            seen = actor is None or permissions.in_scope(actor, key.team_id)
            above = f"Its parent {key.name}" if seen else "A key above it"
            return f"{above if place else 'It'} {fault}."
    return ""


def _own_fault(key: VirtualKey, at: datetime) -> str:
    if key.state != KeyState.ACTIVE:
        return f"is {key.state}"
    if key.expires_at is not None and key.expires_at <= at:
        return "has expired"
    if key.user is not None:
        if not key.user.is_active:
            return "belongs to a user who is deactivated"
        if not reaches(key.user, key.team_id):
            return "belongs to a user who is no longer in its team"
    return ""


def reaches(user: User, team_id: UUID | None) -> bool:
    """Whether the user's role and teams reach this team's keys.

    Who is in no team at all acts for all teams, but holds no team's personal keys: whoever is taken out of the only
    team must not keep its keys that way.
    """
    if team_id is not None and user.role in NARROWED:
        return team_id in teams.subtree(teams.of_user(user))
    return permissions.in_scope(actor_of_user(user), team_id)


def find_user(reference: object, actor: Actor) -> User | None:
    """A user by e-mail address or id; None for null. Raises InvalidInput when there is none whom the actor may know."""
    if reference is None:
        return None
    if isinstance(reference, str) and 0 < len(reference) <= 254 and "\x00" not in reference:
        where = {"pk": _uuid(reference)} if _uuid(reference) else {"email": reference.strip().lower()}
        user: User | None = User.objects.filter(**where).first()
        if user is not None and _knows(actor, user):
            return user
    raise InvalidInput("", "There is no such user.", "not_found")


def _knows(actor: Actor, user: User) -> bool:
    """Who may not read users knows of itself only: an address's existence is not told."""
    return str(user.id) == actor.id or permissions.may(actor, "users", write=False)


def find_parent(reference: object, actor: Actor) -> VirtualKey | None:
    """A key by id, or by name where only one has it, among those the actor may see; None for null. Raises
    InvalidInput."""
    if reference is None:
        return None
    if isinstance(reference, str) and 0 < len(reference) <= 120 and "\x00" not in reference:
        where = {"pk": _uuid(reference)} if _uuid(reference) else {"name": reference}
        rows = permissions.scope(VirtualKey.objects.select_related("team"), actor)
        found = list(rows.filter(**where)[:2])
        if len(found) == 1:
            return found[0]
        if found:
            raise InvalidInput("", "Several keys have this name; name one by its id.", "ambiguous")
    raise InvalidInput("", "There is no such key.", "not_found")


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def check_user(actor: Actor, key: VirtualKey) -> None:
    """Raises InvalidInput unless a personal key, and only one, has a user whom it may belong to.

    Who may not read users can make keys for themselves only, and learns nothing else about a user.
    """
    user = key.user
    if user is not None and not _knows(actor, user):
        raise InvalidInput("user", "There is no such user.", "not_found")
    if key.kind == KeyKind.SERVICE:
        if user is not None:
            raise InvalidInput("user", 'Only a personal key has a user: say "kind": "personal".', "unexpected")
        return
    if user is None:
        raise InvalidInput("user", "A personal key names the user it belongs to.", "required")
    if not user.is_active:
        raise InvalidInput("user", "This user is deactivated.", "inactive")
    if not reaches(user, key.team_id):
        text = "This user is not in the key's team. Put the user into it, or choose one of the user's teams."
        raise InvalidInput("user", text, "out_of_team")


def check_seen(actor: Actor, parent: VirtualKey) -> None:
    """Raises InvalidInput for another team's key: its existence is not told."""
    if not permissions.in_scope(actor, parent.team_id):
        raise InvalidInput("parent", "There is no such key.", "not_found")


def check_leaving(actor: Actor, parent_id: str | None) -> None:
    """Raises InvalidInput for a parent of another team: who delegated the key narrows it, nobody else undoes that."""
    parent = VirtualKey.objects.filter(pk=parent_id).first() if parent_id else None
    if parent is not None and not permissions.in_scope(actor, parent.team_id):
        raise InvalidInput("parent", "It was delegated by another team, which alone can let it go.", "not_yours")


def check_parent(actor: Actor, parent: VirtualKey, key: VirtualKey | None) -> None:
    """Under `audit.lock`: two moves at once could close a circle that neither of them sees. `key` None: it does not
    exist yet. Raises InvalidInput, and Conflict for a circle."""
    fresh = VirtualKey.objects.select_related("team").filter(pk=parent.pk).first()  # read before the lock, it may lie
    if fresh is None:
        raise InvalidInput("parent", "There is no such key.", "not_found")
    check_seen(actor, fresh)
    if fresh.state == KeyState.REVOKED:
        raise InvalidInput("parent", f"The key {parent.name} is revoked; choose a live one.", "revoked")
    above = line_of(fresh)
    if key is not None and key.id in {one.id for one in above}:
        raise Conflict(f"The key {parent.name} stands below {key.name}; a key cannot be above itself.")
    if len(above) + _height(key) > DEEPEST:
        raise InvalidInput("parent", f"Keys can be delegated {DEEPEST} deep.", "too_deep")


def _height(key: VirtualKey | None) -> int:
    """Levels from the key downwards, itself included."""
    if key is None:
        return 1
    height, level = 0, [key.id]
    while level and height <= DEEPEST:
        height, level = height + 1, list(VirtualKey.objects.filter(parent__in=level).values_list("id", flat=True))
    return height


def lines_of(keys: Sequence[VirtualKey]) -> dict[UUID, list[VirtualKey]]:
    """`line_of` for many keys with one query per level, for lists and reports. Rows of one team share its object, so
    that what is looked up of it is looked up once."""
    lines = {key.id: [key] for key in keys}
    known = {key.id: key for key in keys}
    for _ in range(DEEPEST):
        tops = {line[-1].parent_id for line in lines.values() if line[-1].parent_id}
        if not tops:
            break
        known |= VirtualKey.objects.select_related("team", "user").in_bulk(tops - known.keys())
        for line in lines.values():
            above = line[-1].parent_id
            if above in known:
                line.append(known[above])
    teams = {key.team_id: key.team for key in known.values()}
    for key in known.values():
        key.team = teams[key.team_id]
    return lines
