"""Management tokens: issue, find, revoke. The raw token is shown once; stored is its HMAC under a versioned pepper."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Q

from conduit.access import permissions, teams
from conduit.access.actors import NARROWED
from conduit.access.models import ManagementToken, Role
from conduit.core import audit, keyring, raw_keys
from conduit.core.actor import Actor
from conduit.core.clock import now
from conduit.core.errors import Forbidden, InvalidInput
from conduit.core.fields import parse_choice, parse_text
from conduit.core.secret import Secret
from conduit.core.stored_digests import stored_digest

PEPPER = "token-pepper"
USE_NOTED_EVERY = timedelta(minutes=1)


def create_token(
    *, actor: Actor, name: str, role: str, team: UUID | None = None, expires_at: datetime | None = None
) -> tuple[ManagementToken, Secret]:
    """Raises InvalidInput, and Forbidden when the token would be wider than the actor."""
    permissions.demand(actor, "tokens")
    _check_role(actor, role)
    name = parse_named(name)
    if team is not None:
        if role not in NARROWED:
            raise InvalidInput(
                "team", f"Only {' and '.join(sorted(NARROWED))} tokens can have a team.", "not_applicable"
            )
        teams.check_exists(team)
    if expires_at is not None and expires_at <= now():
        raise InvalidInput("expires_at", "Must be in the future.", "in_the_past")
    minted = raw_keys.mint(raw_keys.MANAGEMENT_TOKEN)
    with transaction.atomic():
        version, pepper = keyring.purpose_key(PEPPER)
        token = ManagementToken.objects.create(
            name=name,
            role=role,
            team_id=team,
            public_id=minted.public_id,
            digest=raw_keys.digest(minted.raw.reveal(), pepper),
            pepper_version=version,
            created_by=actor.name,
            expires_at=expires_at,
        )
        after = {"name": name, "role": role, "team": team, "expires_at": expires_at}
        audit.record(
            actor=actor, action="token.create", kind="token", id=token.id, name=name, team_id=team, after=after
        )
    return token, minted.raw


def revoke_token(token: ManagementToken, *, actor: Actor) -> None:
    """For good. Doing it twice changes nothing."""
    permissions.demand(actor, "tokens")
    with transaction.atomic():
        audit.lock()
        token = ManagementToken.objects.select_for_update().get(pk=token.pk)
        _check_role(actor, token.role)
        if token.revoked_at is not None:
            return
        token.revoked_at = now()
        token.save(update_fields=["revoked_at"])
        audit.record(
            actor=actor, action="token.revoke", kind="token", id=token.id, name=token.name, team_id=token.team_id
        )


def _record(token: ManagementToken, actor: Actor, action: str, after: dict[str, Any] | None) -> None:
    audit.record(
        actor=actor, action=action, kind="token", id=token.id, name=token.name, team_id=token.team_id, after=after
    )


def find_token(raw: str) -> ManagementToken | None:
    """The live token of this text. A malformed one costs no query; an unknown one costs what a wrong secret costs."""
    token = whose(raw)
    if token is None or not is_live(token):
        return None
    _repepper(token, raw)
    return token


def whose(raw: str) -> ManagementToken | None:
    """The token of this text, live or not. Its row is read only once the secret is known to be right."""
    public_id = raw_keys.public_id(raw_keys.MANAGEMENT_TOKEN, raw)
    if public_id is None:
        return None
    version, digest = stored_digest(ManagementToken, public_id)
    _, pepper = keyring.purpose_key(PEPPER, version or None)
    genuine = raw_keys.same(raw_keys.digest(raw, pepper), digest) and version > 0
    return ManagementToken.objects.filter(public_id=public_id).first() if genuine else None


def is_live(token: ManagementToken) -> bool:
    return token.revoked_at is None and (token.expires_at is None or token.expires_at > now())


def _repepper(token: ManagementToken, raw: str) -> None:
    """A digest under an older pepper moves to the newest one when its token is used."""
    version, pepper = keyring.purpose_key(PEPPER)
    if token.pepper_version < version:
        fresh = raw_keys.digest(raw, pepper)
        ManagementToken.objects.filter(pk=token.pk, digest=token.digest).update(digest=fresh, pepper_version=version)


def note_use(token: ManagementToken) -> None:
    """Remembers when the token was used, to the minute."""
    at = now()
    stale = Q(last_used_at=None) | Q(last_used_at__lt=at - USE_NOTED_EVERY)
    if token.last_used_at is None or token.last_used_at < at - USE_NOTED_EVERY:
        ManagementToken.objects.filter(stale, pk=token.pk).update(last_used_at=at)


def parse_named(name: object, field: str = "name") -> str:
    """A name of 1 to 120 characters. Raises InvalidInput."""
    try:
        return parse_text(name, 120, shortest=1)
    except InvalidInput as error:
        raise InvalidInput(field, error.detail, error.code) from None


def _check_role(actor: Actor, role: str) -> None:
    try:
        parse_choice(role, Role.values)
    except InvalidInput as error:
        raise InvalidInput("role", error.detail, error.code) from None
    if role == Role.OWNER and actor.role != Role.OWNER:
        raise Forbidden("Only an owner may issue or revoke an owner's token.")
