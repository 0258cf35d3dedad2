"""Another secret for a virtual key. The key's id, limits, budgets and history stay; callers move over in the overlap.

At most two secrets are alive: the newest, and the one before it until its overlap ends. Rotating a third time, or
finishing what was never begun, is OutOfStep, whose text names the state and the ways on. A reply that was lost with
the new secret in it is made good by the same Idempotency-Key, or by `replace`: a newer secret instead of the unseen.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction

from conduit.access import permissions
from conduit.core.actor import SYSTEM, Actor
from conduit.core.clock import now, rfc3339
from conduit.core.errors import InvalidInput, NotFound
from conduit.core.secret import Secret
from keys.errors import OutOfStep
from keys.issuing import RESOURCE, add_secret, check_live, locked, record
from keys.models import KeySecret, VirtualKey

OVERLAP = 86_400  # seconds
LONGEST_OVERLAP = 90 * 86_400


def rotate_key(
    key: VirtualKey, *, actor: Actor, overlap_seconds: int = OVERLAP, replace: bool = False, expected: int | None = None
) -> tuple[VirtualKey, Secret]:
    """The key and its new raw text, which nobody can show again; the secret before works for `overlap_seconds` more.

    `replace`: where a rotation is under way, its new secret ends at once and another takes its place; the overlap stays
    as it was. `expected`: the number of the newest secret that the caller saw; of two at once the second is refused,
    which would otherwise end the secret that the first was just shown. Raises OutOfStep for that too, and while two
    secrets are alive; KeyRevoked, InvalidInput, Forbidden.
    """
    permissions.demand(actor, RESOURCE)
    overlap = _overlap(overlap_seconds)
    with transaction.atomic():
        key, at = locked(key, actor), now()
        live = _rotatable(key, at, expected)
        if len(live) > 1 and not replace:
            raise OutOfStep(_under_way(live))
        if len(live) > 1:
            return key, _renew(key, live, actor=actor, ends=[at, *[secret.expires_at or at for secret in live[1:]]])
        return key, _renew(key, live, actor=actor, ends=[at + overlap for _ in live])


def finish_rotation(key: VirtualKey, *, actor: Actor) -> VirtualKey:
    """The old secret ends now. Again after it is done changes nothing. Raises OutOfStep where there never was one."""
    permissions.demand(actor, RESOURCE)
    with transaction.atomic():
        key, at = locked(key, actor), now()
        check_live(key)
        live = live_secrets(key, at)
        if len(live) < 2:
            if key.secrets.count() > 1:
                return key
            raise OutOfStep(f"No rotation is under way: {_only(live)}. Rotate the key first.")
        for secret in live[1:]:
            destroy(secret, at)
        ended = {"old": f"v{live[1].number}", "old_until": live[1].expires_at}
        record(key, actor, "key.finish_rotation", ended, {"old": ended["old"], "old_until": at})
    return key


def extend_rotation(key: VirtualKey, *, actor: Actor, overlap_seconds: int) -> VirtualKey:
    """The old secret works `overlap_seconds` from now. Raises OutOfStep, and InvalidInput where that is sooner."""
    permissions.demand(actor, RESOURCE)
    overlap = _overlap(overlap_seconds)
    with transaction.atomic():
        key, at = locked(key, actor), now()
        check_live(key)
        live = live_secrets(key, at)
        if len(live) < 2:
            raise OutOfStep(f"No rotation is under way: {_only(live)}. What has ended stays so; rotate again.")
        old, ends_at = live[1], at + overlap
        if old.expires_at is not None and ends_at <= old.expires_at:
            text = f"v{old.number} already works until {rfc3339(old.expires_at)}; give a longer overlap, or finish."
            raise InvalidInput("overlap_seconds", text, "too_short")
        before, old.expires_at = old.expires_at, ends_at
        old.save(update_fields=["expires_at"])
        name = f"v{old.number}"
        record(
            key, actor, "key.extend_rotation", {"old": name, "old_until": before}, {"old": name, "old_until": ends_at}
        )
    return key


def replace_secret(key: VirtualKey, *, actor: Actor, expected: int | None = None) -> tuple[VirtualKey, Secret]:
    """The answer to a leak: a new secret, shown this once, and every older one is refused within a second.

    What was spent counts on. `expected` as in `rotate_key`. Raises KeyRevoked, and OutOfStep for an expired key.
    """
    permissions.demand(actor, RESOURCE)
    with transaction.atomic():
        key, at = locked(key, actor), now()
        live = _rotatable(key, at, expected)
        return key, _renew(key, live, actor=actor, ends=[at for _ in live], action="key.replace")


def _renew(key: VirtualKey, live: list[KeySecret], *, actor: Actor, ends: list[datetime], action: str = "") -> Secret:
    """Ends each live secret at its moment of `ends` and adds another, under the lock of the key; writes the audit
    entry, which names the secrets that were alive and those that are."""
    at, number = now(), _newest(key) + 1
    before = [f"v{secret.number}" for secret in live]
    for secret, end in zip(live, ends, strict=True):
        _end(secret, end, at)
    left = [secret for secret in live if secret.destroyed_at is None]
    raw = add_secret(key, actor=actor, number=number)
    after: dict[str, Any] = {"secrets": [f"v{number}", *[f"v{secret.number}" for secret in left]]}
    if left:
        after["old_until"] = left[0].expires_at
    record(key, actor, action or ("key.replace_secret" if len(live) > 1 else "key.rotate"), {"secrets": before}, after)
    return raw


def live_secrets(key: VirtualKey, at: datetime) -> list[KeySecret]:
    """The newest first; one, or two in an overlap."""
    rows = key.secrets.filter(destroyed_at=None).order_by("-number")
    return [secret for secret in rows if secret.expires_at is None or secret.expires_at > at]


def destroy_ended() -> int:
    """Empties the digests of secrets whose overlap is over; how many. Safe to repeat."""
    at, done = now(), 0
    due = KeySecret.objects.filter(destroyed_at=None, expires_at__lte=at).select_related("key")
    for secret in due.order_by("id")[:1000]:
        with suppress(NotFound), transaction.atomic():  # the key may have been deleted, with its secrets
            key = locked(secret.key, SYSTEM)
            row = key.secrets.filter(pk=secret.pk, destroyed_at=None, expires_at__lte=at).first()
            if row is None:
                continue  # extended, or destroyed by somebody else
            destroy(row, at)
            record(key, SYSTEM, "key.destroy_secret", {"secret": f"v{row.number}"}, None)
            done += 1
    return done


def _rotatable(key: VirtualKey, at: datetime, expected: int | None) -> list[KeySecret]:
    """Its live secrets. Raises KeyRevoked, and OutOfStep for an expired key or another newest secret than expected."""
    check_live(key)
    if key.expires_at is not None and key.expires_at <= at:
        raise OutOfStep(f"The key expired at {rfc3339(key.expires_at)}. Set a later expiry, then rotate it.")
    newest = _newest(key)
    if expected is not None and expected != newest:
        raise OutOfStep(
            f"The newest secret is v{newest}, not v{expected}: the key was rotated meanwhile. Nothing was changed. Look"
            " at its secrets; rotate again if this one is not the one you need."
        )
    return live_secrets(key, at)


def _newest(key: VirtualKey) -> int:
    return key.secrets.order_by("-number").values_list("number", flat=True).first() or 0


def _end(secret: KeySecret, ends_at: datetime, at: datetime) -> None:
    if ends_at <= at:
        destroy(secret, at)
        return
    secret.expires_at = ends_at
    secret.save(update_fields=["expires_at"])


def destroy(secret: KeySecret, at: datetime) -> None:
    """Ends it now and empties its digest, in the caller's transaction."""
    secret.expires_at = min(secret.expires_at or at, at)
    secret.digest, secret.destroyed_at = b"", at
    secret.save(update_fields=["digest", "destroyed_at", "expires_at"])


def _overlap(seconds: object) -> timedelta:
    if type(seconds) is not int or not 0 <= seconds <= LONGEST_OVERLAP:
        text = f"Must be whole seconds from 0 (the old secret ends at once) to {LONGEST_OVERLAP:,}."
        raise InvalidInput("overlap_seconds", text, "out_of_range")
    return timedelta(seconds=seconds)


def _only(live: list[KeySecret]) -> str:
    return f"v{live[0].number} is the only live secret" if live else "no secret is alive"


def _under_way(live: list[KeySecret]) -> str:
    new, old = live[0], live[1]
    until = rfc3339(old.expires_at) if old.expires_at else "it is ended"
    return (
        f"A rotation is under way since {rfc3339(new.created_at)}: v{new.number} is active, v{old.number} works until "
        f'{until}. Finish it, extend it, or rotate with "replace": true for another secret in place of v{new.number}.'
    )


def describe(secret: KeySecret, newest: int, at: datetime) -> dict[str, Any]:
    """One version as pages and the API show it, without its use."""
    alive = secret.destroyed_at is None and (secret.expires_at is None or secret.expires_at > at)
    return {
        "number": secret.number,
        "state": "retired" if not alive else "active" if secret.number == newest else "retiring",
        "hint": f"cdt_vk_{secret.public_id}…{secret.last_four}",
        "created_at": secret.created_at,
        "created_by": secret.created_by,
        "ends_at": secret.expires_at,
    }
