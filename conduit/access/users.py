"""People: invite, change, disable. An owner can only be touched by an owner, and the last one stays."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any, TypedDict, Unpack
from uuid import UUID

from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import IntegrityError, transaction

from conduit.access import permissions, teams
from conduit.access.models import Role, User
from conduit.core import audit
from conduit.core.actor import Actor
from conduit.core.errors import Conflict, Forbidden, InvalidInput
from conduit.core.fields import parse_choice, parse_text
from conduit.core.raw_keys import ALPHABET
from conduit.core.secret import Secret

PASSWORD_LENGTH = 20


class UserChanges(TypedDict, total=False):
    name: str
    role: str
    active: bool
    teams: Sequence[UUID]


def create_user(
    *,
    actor: Actor,
    email: str,
    role: str,
    name: str = "",
    password: Secret | None = None,
    in_teams: Sequence[UUID] = (),
) -> tuple[User, Secret]:
    """The user and their password, generated unless given. Raises InvalidInput, Conflict (address taken), Forbidden."""
    permissions.demand(actor, "users")
    email, name = parse_email(email), _field("name", parse_text, name, 120)
    _check_rank(actor, _field("role", parse_choice, role, Role.values))
    if password is None:
        password = Secret("".join(secrets.choice(ALPHABET) for _ in range(PASSWORD_LENGTH)))
    user = User(email=email, name=name, role=role)
    check_password(password, user)
    user.set_password(password.reveal())
    try:
        with transaction.atomic():
            audit.lock()
            user.save(force_insert=True)
            teams.put(user, in_teams)
            audit.record(
                actor=actor, action="user.create", kind="user", id=user.id, name=email, after=describe(user, in_teams)
            )
    except IntegrityError:
        raise Conflict(f"There is already a user {email}.") from None
    return user, password


def update_user(user: User, *, actor: Actor, **changes: Unpack[UserChanges]) -> User:
    """Raises InvalidInput, Forbidden, and Conflict for the last active owner. Takes effect on open sessions at once."""
    permissions.demand(actor, "users")
    with transaction.atomic():
        owners = lock_owners()
        user = owners.get(user.pk) or User.objects.select_for_update(no_key=True).get(pk=user.pk)
        before = describe(user, teams.of_user(user))
        _check_rank(actor, user.role)
        if "name" in changes:
            user.name = _field("name", parse_text, changes["name"], 120)
        if "role" in changes:
            user.role = _field("role", parse_choice, changes["role"], Role.values)
            _check_rank(actor, user.role)
        user.is_active = changes.get("active", user.is_active)
        others = [row for row in owners.values() if row.is_active and row.pk != user.pk]
        leaves = before["role"] == Role.OWNER and before["active"] and (user.role != Role.OWNER or not user.is_active)
        if leaves and not others:
            raise Conflict("This is the last active owner. Make somebody else an owner first.")
        user.save(update_fields=["name", "role", "is_active"])
        if "teams" in changes:
            teams.put(user, changes["teams"])
        old, new = audit.changes(before, describe(user, teams.of_user(user)))
        if new:
            audit.record(
                actor=actor, action="user.update", kind="user", id=user.id, name=user.email, before=old, after=new
            )
    return user


def lock_owners() -> dict[UUID, User]:
    """All owners, locked in one order: two owners demoting each other at once must not leave none."""
    audit.lock()
    # No lock on the ids: rows that name a user are written meanwhile.
    return {row.pk: row for row in User.objects.select_for_update(no_key=True).filter(role=Role.OWNER).order_by("pk")}


def set_password(user: User, *, actor: Actor, password: Secret) -> None:
    """Ends the user's other sessions: Django binds them to the password. Raises InvalidInput, Forbidden."""
    if actor.id != str(user.id):
        permissions.demand(actor, "users")
        _check_rank(actor, user.role)
    check_password(password, user)
    user.set_password(password.reveal())  # slow on purpose: before anybody waits for the lock
    with transaction.atomic():
        audit.lock()
        user.save(update_fields=["password"])
        audit.record(actor=actor, action="user.password", kind="user", id=user.id, name=user.email)


def describe(user: User, in_teams: Sequence[UUID]) -> dict[str, Any]:
    return {
        "email": user.email,
        "name": user.name,
        "role": user.role,
        "active": user.is_active,
        "teams": sorted(str(team_id) for team_id in in_teams),
    }


def parse_email(email: object) -> str:
    """In lower case, so that one person has one account however the address is typed. Raises InvalidInput."""
    text = _field("email", parse_text, email, 254).lower()
    try:
        validate_email(text)
    except ValidationError:
        raise InvalidInput("email", "Must be an e-mail address.", "invalid_email") from None
    return text


def check_password(password: Secret, user: User) -> None:
    try:
        validate_password(password.reveal(), user)
    except ValidationError as error:
        raise InvalidInput("password", " ".join(error.messages), "weak_password") from None


def _check_rank(actor: Actor, role: str) -> None:
    if role == Role.OWNER and actor.role != Role.OWNER:
        raise Forbidden("Only an owner may make or change an owner.")


def _field(field: str, parse: Any, value: object, rule: Any) -> str:
    try:
        text: str = parse(value, rule)
    except InvalidInput as error:
        raise InvalidInput(field, error.detail, error.code) from None
    return text
