"""States of credential versions and of the rotation that moves them.

    pending → verifying → active → retiring → retired
       └──────────┴──────────┴─────────┴────→ revoked        (and retiring → active when a rotation is rolled back)

`pending`: sealed, not proven yet. `verifying`: the provider took it; it serves the share of a canary. Every move is a
compare-and-set under the credential's row lock, in the transaction of its audit entry; a version that ends as retired
or revoked loses its secret in the same statement's transaction. An unproven version can therefore never become active,
and an ended one never come back.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connection, transaction
from django.db.models import F

from conduit.access.permissions import demand
from conduit.core import audit
from conduit.core.actor import SYSTEM, Actor
from conduit.core.clock import now, rfc3339
from conduit.core.errors import Conflict, InvalidInput, NotFound
from providers import vault
from providers.models import Credential, CredentialField, CredentialVersion, Rotation, RotationState, VersionState
from providers.verification import check

MAX_PROBLEM = 500
LOCK_WAIT = "2s"  # what a data plane's thread may wait for its turn among the changes
MOVES: dict[str, frozenset[str]] = {
    VersionState.PENDING: frozenset({VersionState.VERIFYING, VersionState.REVOKED}),
    VersionState.VERIFYING: frozenset({VersionState.ACTIVE, VersionState.REVOKED}),
    VersionState.ACTIVE: frozenset({VersionState.RETIRING, VersionState.REVOKED}),
    VersionState.RETIRING: frozenset({VersionState.ACTIVE, VersionState.RETIRED, VersionState.REVOKED}),
    VersionState.RETIRED: frozenset(),
    VersionState.REVOKED: frozenset(),
}


def locked_credential(credential: Credential) -> Credential:
    """The row as it is now, locked for this transaction. Raises NotFound when it is gone."""
    audit.lock()
    row = Credential.objects.select_for_update(of=["self"]).select_related("provider").filter(pk=credential.pk).first()
    if row is None:
        raise NotFound("The credential is gone.")
    return row


# --- reading -------------------------------------------------------------------------------------------------------


def serving(credential: Credential) -> CredentialVersion | None:
    """The active version as the database has it now."""
    return CredentialVersion.objects.filter(credential=credential, state=VersionState.ACTIVE).first()


def only(credential: Credential) -> int:
    """Number of the one version that has a secret, or of the newest when none has one any more.

    Raises InvalidInput while there are several: a repeated "revoke the active one" would hit the next one too.
    """
    numbers = dict(CredentialVersion.objects.filter(credential=credential).values_list("number", "state"))
    live = sorted(number for number, state in numbers.items() if MOVES[state])
    if len(live) > 1:
        raise InvalidInput("version", f"Name one of {', '.join(map(str, live))}.", "required")
    return live[0] if live else max(numbers, default=0)


def latest(credential: Credential) -> Rotation | None:
    """The rotation under way, else the one that began last, as the database has it now."""
    rows = Rotation.objects.filter(credential=credential).select_related("old", "new")
    return rows.order_by(F("ended_at").desc(nulls_first=True), "-started_at").first()


def automatic(rotation: Rotation, *, seen: datetime | None) -> tuple[Credential, Rotation] | None:
    """Both as they are now, locked, while it still is an automatic canary whose present share began at `seen`.

    Raises NotFound when the credential is gone.
    """
    current = locked_credential(rotation.credential)
    found = latest(current)
    if found is None or found.id != rotation.id or found.state != RotationState.CANARY:
        return None
    return (current, found) if found.automatic and found.share_since == seen else None


def under_way(credential: Credential) -> Rotation | None:
    """The rotation that has not ended. Uses prefetched `rotations` where there are any."""
    return next((row for row in credential.rotations.all() if row.ended_at is None), None)


def standing(credential: Credential, rotation: Rotation | None) -> str:
    """What a refused step is told: the state the credential is in, and what may be done from there."""
    name = credential.name
    if rotation is None:
        return f"No rotation of {name} is under way. Rotate it first."
    new, old = rotation.new, rotation.old
    if rotation.state == RotationState.CANARY:
        return f"{name} is in canary: version {new.number} has {new.share} %. Promote it or roll it back."
    if rotation.state == RotationState.DRAINING and old is not None:
        until = rfc3339(old.retire_at) if old.retire_at else "it is finished"
        return (
            f"{name} is draining: version {new.number} is active and version {old.number} retiring until {until}. "
            "Finish it, extend it or roll it back."
        )
    if rotation.state == RotationState.ROLLED_BACK:
        return f"The rotation of {name} to version {new.number} is rolled back. Rotate it again."
    return f"The rotation of {name} to version {new.number} is finished; version {new.number} is {new.state}."


# --- moves ---------------------------------------------------------------------------------------------------------


def move(version: CredentialVersion, to: VersionState, **columns: Any) -> None:
    """One step of the machine, in the caller's transaction. Raises Conflict naming the state it found instead."""
    if to not in MOVES[version.state]:
        raise Conflict(f"Version {version.number} is {version.state}; it cannot become {to.value}.")
    if to in (VersionState.RETIRED, VersionState.REVOKED):
        at = now()
        columns |= {"wrapped_key": b"", "share": 0, "retire_at": None}
        columns |= {"retired_at": at} if to == VersionState.RETIRED else {"revoked_at": at}
    if not CredentialVersion.objects.filter(pk=version.pk, state=version.state).update(state=to, **columns):
        raise Conflict(f"Version {version.number} is no longer {version.state}: another step came in between.")
    if to in (VersionState.RETIRED, VersionState.REVOKED):
        CredentialField.objects.filter(version=version).delete()
    version.refresh_from_db()


def end(rotation: Rotation, state: RotationState, *, problem: str = "") -> None:
    rotation.state, rotation.problem, rotation.ended_at = state, problem[:MAX_PROBLEM], now()
    rotation.save(update_fields=["state", "problem", "ended_at"])


def log(credential: Credential, *, actor: Actor, action: str, after: dict[str, Any]) -> None:
    audit.record(
        actor=actor,
        action=f"credential.{action}",
        kind="credential",
        id=credential.id,
        name=credential.name,
        after=after,
    )


def take_over(credential: Credential, rotation: Rotation) -> None:
    """The new version becomes active with its own expiry; the old one retires. The caller writes the audit entry."""
    at = now()
    if rotation.old is not None:
        until = at + rotation.overlap
        move(rotation.old, VersionState.RETIRING, retire_at=until, expires_at=credential.expires_at)
    move(rotation.new, VersionState.ACTIVE, share=0, activated_at=at)
    serve_with(credential, rotation.new)
    rotation.state = RotationState.DRAINING
    rotation.save(update_fields=["state"])
    if rotation.old is None:
        end(rotation, RotationState.FINISHED)
    elif not rotation.overlap_seconds:
        retire(rotation)


def serve_with(credential: Credential, version: CredentialVersion) -> None:
    """What is known of the credential is now what is known of this version."""
    credential.expires_at, credential.last_verified_at = version.expires_at, version.verified_at
    credential.last_error = credential.last_reminder = ""
    credential.save(update_fields=["expires_at", "last_verified_at", "last_error", "last_reminder", "updated_at"])


def retire(rotation: Rotation) -> None:
    """The end of an overlap: the old secret is destroyed."""
    if rotation.old is not None:
        move(rotation.old, VersionState.RETIRED)
    end(rotation, RotationState.FINISHED)


def undo(credential: Credential, rotation: Rotation, *, actor: Actor, problem: str) -> None:
    """Back to the old version; the new one is revoked with the problem, its secret destroyed."""
    was = rotation.state
    move(rotation.new, VersionState.REVOKED, problem=problem[:MAX_PROBLEM])
    if was == RotationState.DRAINING and rotation.old is not None:
        move(rotation.old, VersionState.ACTIVE, retire_at=None)
        serve_with(credential, rotation.old)
    end(rotation, RotationState.ROLLED_BACK, problem=problem)
    log(
        credential,
        actor=actor,
        action="roll_back",
        after={"from": was, "version": rotation.new.number, "active": _number(rotation.old), "problem": problem},
    )


def _number(version: CredentialVersion | None) -> int | None:
    return version.number if version else None


# --- going back ----------------------------------------------------------------------------------------------------


def roll_back(credential: Credential, *, actor: Actor, problem: str = "") -> Rotation:
    """Ends the rotation under way with the old version active. Rolled back already: the same rotation again.

    Raises Conflict when it is finished: the old secret exists no more.
    """
    demand(actor, "credentials")
    with transaction.atomic():
        current = locked_credential(credential)
        rotation = latest(current)
        if rotation is None or rotation.state == RotationState.FINISHED:
            raise Conflict(standing(current, rotation))
        if rotation.state != RotationState.ROLLED_BACK:
            undo(current, rotation, actor=actor, problem=problem)
    return rotation


def roll_back_canary(rotation: Rotation, *, seen: datetime | None, problem: str) -> bool:
    """Rolls back by rule what `automatic` describes; True if this call did it. Raises NotFound."""
    with transaction.atomic():
        found = automatic(rotation, seen=seen)
        if found is not None:
            undo(*found, actor=SYSTEM, problem=problem)
    return found is not None


def roll_back_failed(credential_id: UUID, number: int, problem: str, *, patient: bool = False) -> bool:
    """The provider rejected version `number` at work: rolls back if that still helps; True if this call did it.

    It helps for a canary, and for an active version whose predecessor still retires and works: the new secret is
    destroyed on the way back, so the old one is proven first, by a real call that may take half a minute. Call it
    outside a transaction. `problem` is masked by the caller. Raises OperationalError when its turn among the changes
    does not come within LOCK_WAIT, unless `patient`; repeat it then.
    """
    credential = Credential(pk=credential_id)
    rotation = _failed(credential, number)
    if rotation is None or (rotation.state == RotationState.DRAINING and not _works(rotation.old)):
        return False
    with transaction.atomic():
        if not patient:
            with connection.cursor() as cursor:
                cursor.execute("SELECT set_config('lock_timeout', %s, true)", [LOCK_WAIT])
        try:
            current = locked_credential(credential)
        except NotFound:
            return False
        found = _failed(current, number)
        if found is None or found.state != rotation.state:
            return False
        undo(current, found, actor=SYSTEM, problem=problem)
    return True


def _failed(credential: Credential, number: int) -> Rotation | None:
    """The rotation that brought in version `number`, while there is a version to go back to."""
    rotation = latest(credential)
    if rotation is None or rotation.ended_at is not None or rotation.new.number != number or rotation.old is None:
        return None
    expires_at = rotation.old.expires_at if rotation.state == RotationState.DRAINING else None
    return None if expires_at is not None and expires_at <= now() else rotation


def _works(version: CredentialVersion | None) -> bool:
    """Whether the provider takes it now."""
    if version is None:
        return False
    try:
        check(version.credential.provider, vault.open_version(version))
    except (InvalidInput, vault.Unreadable):
        return False
    return True
