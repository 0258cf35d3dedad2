"""Rotation of a credential: a new secret is sealed, proven by a real call, and takes over at once or by a canary.

    begin(credential, actor=…, fields=…, canary=…, overlap_seconds=…)    a rotation; with the same secret: the same one
    set_share   promote   roll_back   finish   extend   change_rules     one step each, by hand
    advance(rotation, seen=…)                                            the next step by rule
    revoke(credential, actor=…, number=…)                                emergency: that version, at once
    roll_back_failed(credential_id, number, problem)                     the data plane saw it rejected
    under_way(credential)   retire_due()

A step whose outcome is there already gives the same result again, so that a lost reply can be repeated; a step out of
order is a Conflict that names the state. Two steps at once queue up at the credential's row.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, TypedDict, Unpack

from django.db import transaction
from django.db.models import Q

from conduit.access.permissions import demand
from conduit.core.actor import SYSTEM, Actor
from conduit.core.clock import now
from conduit.core.errors import Conflict, InvalidInput, NotFound
from conduit.core.fields import parse_text, parse_whole
from conduit.core.secret import Secret
from providers import credentials, vault, versions
from providers.canary import Canary, checked, parse_overlap, parse_rules
from providers.models import Credential, CredentialVersion, Rotation, RotationState, VersionState
from providers.providers import field, kind_of
from providers.verification import VerificationFailed, Verified, check, destination
from providers.versions import locked_credential, move, roll_back, roll_back_failed, standing, under_way

__all__ = ["Canary", "advance", "begin", "change_rules", "extend", "finish", "promote", "retire_due", "revoke"]
__all__ += ["roll_back", "roll_back_failed", "set_share", "under_way"]
# Two checks of some twenty seconds each at most; a version pending for longer belongs to a process that died.
ABANDONED = timedelta(seconds=180)


class Extras(TypedDict, total=False):
    """`expires_at`: when the provider ends the new secret. `other_account`: it may belong to another account."""

    expires_at: datetime | None
    other_account: bool


@dataclass(frozen=True, slots=True)
class _Plan:
    canary: Canary | None
    overlap_seconds: int
    reason: str
    expires_at: datetime | None
    other_account: bool

    def rules(self) -> dict[str, Any]:
        rules = asdict(self.canary) if self.canary else {"steps": ()}
        return {**rules, "steps": list(rules["steps"]), "overlap_seconds": self.overlap_seconds}


def begin(
    credential: Credential,
    *,
    actor: Actor,
    fields: Mapping[str, Secret],
    canary: Canary | None = None,
    overlap_seconds: int = 86_400,
    reason: str = "",
    **extras: Unpack[Extras],
) -> Rotation:
    """Seals and proves a new secret, then promotes it, or starts its canary.

    Call it outside a transaction: the provider is asked in between, with no row locked.
    Raises InvalidInput (also `foreign_account`, `same_secret`), VerificationFailed: the new version is then revoked and
    was never active; Conflict naming the state while another rotation is under way, or a provider changed meanwhile.
    """
    demand(actor, "credentials")
    plain = credentials.parse_fields(kind_of(credential.provider), fields=fields)
    plan = _Plan(
        canary=checked(canary) if canary else None,
        overlap_seconds=parse_overlap(overlap_seconds),
        reason=field("reason", parse_text, reason, 200),
        expires_at=credentials.parse_expiry(extras.get("expires_at")),
        other_account=extras.get("other_account", False),
    )
    data_key = vault.prepare(credential.id, plain, number=vault.next_number(credential))
    with transaction.atomic():
        current = locked_credential(credential)
        if (same := _repeated(current, plain)) is not None:
            return same
        if plan.canary and versions.serving(current) is None:
            raise InvalidInput("canary", "There is no active version to share with: leave the canary out.")
        new = _seal(current, plain, plan, actor, data_key)
    try:
        verified = check(current.provider, plain)
        if not plan.other_account:
            _same_account(current, verified)
    except InvalidInput as refused:
        _refuse(current, new, actor, refused)
        raise
    with transaction.atomic():
        found = locked_credential(current)
        if destination(found.provider) == destination(current.provider):
            return _accept(found, new, verified, plan, actor)
        moved = InvalidInput("secret", "The provider was changed while it was asked. Rotate again.", "provider_changed")
        _refuse(found, new, actor, moved)
    raise Conflict(moved.detail)


def _repeated(current: Credential, plain: Mapping[str, Secret]) -> Rotation | None:
    """The rotation to this very secret, or None when a new one may begin. Raises Conflict, InvalidInput."""
    rotation = versions.latest(current)
    if rotation is not None and rotation.ended_at is None:
        if _holds(rotation.new, plain):
            return rotation
        raise Conflict(standing(current, rotation))
    pending = current.versions.filter(state=VersionState.PENDING).first()
    if pending is not None and not _clear(current, pending):
        raise Conflict(f"Version {pending.number} of {current.name} is pending: it is being verified right now.")
    active = versions.serving(current)
    if active is None or not _holds(active, plain):
        return None
    if rotation is not None and rotation.new_id == active.id:
        return rotation
    raise InvalidInput("secret", f"This secret serves already, as version {active.number}.", "same_secret")


def _holds(version: CredentialVersion, plain: Mapping[str, Secret]) -> bool:
    try:
        stored = vault.open_version(version)
    except vault.Unreadable:
        return False
    if stored.keys() != plain.keys():
        return False
    # Every field is compared, each in constant time: how long it takes tells nothing about how much was right.
    equal = [hmac.compare_digest(stored[name].reveal().encode(), plain[name].reveal().encode()) for name in plain]
    return all(equal)


def _seal(
    current: Credential, plain: Mapping[str, Secret], plan: _Plan, actor: Actor, data_key: vault.DataKey
) -> CredentialVersion:
    new = vault.seal_version(current, plain, number=vault.next_number(current), data_key=data_key)
    new.reason, new.created_by, new.expires_at = plan.reason, actor.name[:254], plan.expires_at
    new.save(update_fields=["reason", "created_by", "expires_at"])
    after = {"version": new.number, "fields": sorted(plain), "reason": plan.reason, "canary": plan.canary is not None}
    versions.log(current, actor=actor, action="rotate", after=after)
    return new


def _same_account(current: Credential, verified: Verified) -> None:
    """Raises InvalidInput when the provider says that the secret belongs to another account than the present one."""
    if not verified.account:
        return
    known = _known_account(current)
    if known and known != verified.account:
        raise InvalidInput(
            "secret",
            f"It belongs to the account {verified.account}, and this credential to {known}. "
            "Give other_account to change accounts on purpose, or add it as another credential.",
            "foreign_account",
        )


def _known_account(current: Credential) -> str:
    """Whose the present secret is: as noted at its check, else asked now; empty when nobody can tell."""
    active = versions.serving(current)
    if active is not None and not active.account:
        try:
            active.account = check(current.provider, vault.open_version(active)).account
        except (VerificationFailed, vault.Unreadable):
            active.account = ""
        CredentialVersion.objects.filter(pk=active.pk).update(account=active.account)
    if active is not None:
        return active.account
    served = current.versions.exclude(activated_at=None).exclude(account="").order_by("-number").first()
    return served.account if served else ""


def _refuse(credential: Credential, new: CredentialVersion, actor: Actor, refused: InvalidInput) -> None:
    with transaction.atomic():
        current = locked_credential(credential)
        move(new, VersionState.REVOKED, problem=refused.detail[: versions.MAX_PROBLEM])
        after = {"version": new.number, "code": refused.code, "problem": new.problem}
        versions.log(current, actor=actor, action="refuse", after=after)


def _accept(current: Credential, new: CredentialVersion, verified: Verified, plan: _Plan, actor: Actor) -> Rotation:
    old = versions.serving(current)
    canary = plan.canary if old is not None else None
    share = canary.steps[0] if canary else 0
    move(new, VersionState.VERIFYING, verified_at=now(), account=verified.account, share=share)
    rotation = Rotation.objects.create(
        credential=current,
        old=old,
        new=new,
        share_since=now() if canary else None,
        started_by=actor.name[:254],
        **plan.rules(),
    )
    if canary:
        versions.log(current, actor=actor, action="canary", after={"version": new.number, "share": share})
    else:
        _promote(current, rotation, actor)
    return rotation


def _promote(current: Credential, rotation: Rotation, actor: Actor) -> None:
    versions.take_over(current, rotation)
    old = rotation.old
    after = {"version": rotation.new.number, "old": old.number if old else None, "state": rotation.state}
    versions.log(current, actor=actor, action="promote", after={**after, "retire_at": old.retire_at if old else None})


# --- steps ---------------------------------------------------------------------------------------------------------


def set_share(credential: Credential, *, actor: Actor, share: int) -> Rotation:
    """The canary gets `share` percent from now on; 100 promotes it. Raises InvalidInput, Conflict naming the state."""
    demand(actor, "credentials")
    if field("share", parse_whole, share, 0, 100) == 100:
        return promote(credential, actor=actor)
    with transaction.atomic():
        current = locked_credential(credential)
        rotation = _in_canary(current)
        if rotation.new.share != share:
            _share(current, rotation, actor, share)
    return rotation


def _in_canary(current: Credential) -> Rotation:
    rotation = versions.latest(current)
    if rotation is None or rotation.state != RotationState.CANARY:
        raise Conflict(standing(current, rotation))
    return rotation


def _share(current: Credential, rotation: Rotation, actor: Actor, share: int) -> None:
    rotation.new.share, rotation.share_since = share, now()
    rotation.new.save(update_fields=["share"])
    rotation.save(update_fields=["share_since"])
    versions.log(current, actor=actor, action="canary", after={"version": rotation.new.number, "share": share})


def promote(credential: Credential, *, actor: Actor) -> Rotation:
    """The canary becomes active, the old version retiring. Promoted already: the same rotation again."""
    demand(actor, "credentials")
    with transaction.atomic():
        current = locked_credential(credential)
        rotation = versions.latest(current)
        if rotation is not None and rotation.state == RotationState.CANARY:
            _promote(current, rotation, actor)
        elif rotation is None or rotation.new.state != VersionState.ACTIVE:
            raise Conflict(standing(current, rotation))
    return rotation


def finish(credential: Credential, *, actor: Actor) -> Rotation:
    """Ends the overlap now; the old secret is destroyed. Finished already: the same rotation again."""
    demand(actor, "credentials")
    with transaction.atomic():
        current = locked_credential(credential)
        rotation = versions.latest(current)
        if rotation is None or rotation.state not in (RotationState.DRAINING, RotationState.FINISHED):
            raise Conflict(standing(current, rotation))
        if rotation.state == RotationState.DRAINING:
            _retire(current, rotation, actor)
    return rotation


def _retire(current: Credential, rotation: Rotation, actor: Actor) -> None:
    versions.retire(rotation)
    old = rotation.old.number if rotation.old else None
    versions.log(current, actor=actor, action="retire", after={"version": old, "active": rotation.new.number})


def extend(credential: Credential, *, actor: Actor, overlap_seconds: int) -> Rotation:
    """The old version is kept for `overlap_seconds` from now; during a canary: from its promotion."""
    demand(actor, "credentials")
    overlap_seconds = parse_overlap(overlap_seconds)
    with transaction.atomic():
        current = locked_credential(credential)
        rotation = versions.latest(current)
        if rotation is None or rotation.ended_at is not None:
            raise Conflict(standing(current, rotation))
        rotation.overlap_seconds = overlap_seconds
        rotation.save(update_fields=["overlap_seconds"])
        after: dict[str, Any] = {"overlap_seconds": overlap_seconds}
        if rotation.state == RotationState.DRAINING and rotation.old is not None:
            rotation.old.retire_at = after["retire_at"] = now() + rotation.overlap
            rotation.old.save(update_fields=["retire_at"])
        versions.log(current, actor=actor, action="extend", after=after)
    return rotation


def change_rules(credential: Credential, *, actor: Actor, changes: Mapping[str, Any]) -> Rotation:
    """Changes the canary's rules: those of Canary, and `overlap_seconds`. Raises InvalidInput, Conflict."""
    demand(actor, "credentials")
    given = dict(changes)
    overlap = {"overlap_seconds": parse_overlap(given.pop("overlap_seconds"))} if "overlap_seconds" in given else {}
    rules = {**parse_rules(given), **overlap}
    if "steps" in rules:
        rules["steps"] = list(rules["steps"])
    with transaction.atomic():
        current = locked_credential(credential)
        rotation = _in_canary(current)
        changed = {name: value for name, value in rules.items() if getattr(rotation, name) != value}
        if changed:
            for name, value in changed.items():
                setattr(rotation, name, value)
            rotation.save(update_fields=list(changed))
            after = {name: str(value) for name, value in changed.items()}
            versions.log(current, actor=actor, action="rules", after=after)
    return rotation


def advance(rotation: Rotation, *, seen: datetime | None) -> bool:
    """The next step of an automatic canary whose present share began at `seen`; True if this call did it."""
    with transaction.atomic():
        if (both := versions.automatic(rotation, seen=seen)) is not None:
            current, found = both
            share = next((step for step in found.steps if step > found.new.share), 100)
            if share == 100:
                _promote(current, found, SYSTEM)
            else:
                _share(current, found, SYSTEM, share)
    return both is not None


def retire_due() -> int:
    """Finishes every rotation whose overlap is over, and revokes what a dead process left pending; how many."""
    due = Rotation.objects.filter(ended_at=None, state=RotationState.DRAINING, old__retire_at__lte=now())
    left = CredentialVersion.objects.filter(state=VersionState.PENDING, created_at__lt=now() - ABANDONED)
    found = Credential.objects.filter(Q(rotations__in=due) | Q(versions__in=left)).distinct()
    return sum(_retire_due(credential) for credential in found)


def _retire_due(credential: Credential) -> bool:
    """Looks again with the row locked: it may have been extended, ended or deleted since the list was read."""
    with transaction.atomic():
        try:
            current = locked_credential(credential)
        except NotFound:
            return False
        rotation, pending = versions.latest(current), current.versions.filter(state=VersionState.PENDING).first()
        until = rotation.old.retire_at if rotation and rotation.old else None
        if rotation and rotation.state == RotationState.DRAINING and until and until <= now():
            _retire(current, rotation, SYSTEM)
            return True
        return pending is not None and _clear(current, pending)


def _clear(current: Credential, pending: CredentialVersion) -> bool:
    """Revokes a version whose check never came to an end; False while it may still be under way."""
    if pending.created_at > now() - ABANDONED:
        return False
    move(pending, VersionState.REVOKED, problem="Its check was cut off.")
    versions.log(current, actor=SYSTEM, action="refuse", after={"version": pending.number, "problem": pending.problem})
    return True


def revoke(credential: Credential, *, actor: Actor, number: int) -> CredentialVersion | None:
    """Revokes one version at once and destroys its secret; returns the version that serves now, None if none is left.

    Of the active version: a retiring predecessor is active again, a canary takes over. Revoked already: same result.
    Raises NotFound; Conflict when the version is retired.
    """
    demand(actor, "credentials")
    with transaction.atomic():
        current = locked_credential(credential)
        version = current.versions.filter(number=number).first()
        if version is None:
            raise NotFound(f"The credential {current.name} has no version {number}.")
        if version.state != VersionState.REVOKED:
            was = version.state
            _revoke(current, version, actor)
            CredentialVersion.objects.filter(pk=version.pk).update(cut_off=True)
            left = versions.serving(current)
            after = {"version": number, "was": was, "active": left.number if left else None}
            versions.log(current, actor=actor, action="revoke", after=after)
        return versions.serving(current)


def _revoke(current: Credential, version: CredentialVersion, actor: Actor) -> None:
    problem = f"Revoked by {actor.name}."
    rotation = versions.latest(current)
    if rotation is None or rotation.ended_at is not None or version.state == VersionState.PENDING:
        move(version, VersionState.REVOKED, problem=problem)
    elif version.id == rotation.new_id:
        versions.undo(current, rotation, actor=actor, problem=problem)
    else:
        move(version, VersionState.REVOKED, problem=problem)
        if rotation.state == RotationState.CANARY:
            move(rotation.new, VersionState.ACTIVE, share=0, activated_at=now())
            versions.serve_with(current, rotation.new)
        versions.end(rotation, RotationState.FINISHED)
