"""Credentials: adding (verified by a real call before anything is saved), checking, changing and removing them.

    add_credential(provider, actor=…, name=…, fields=…, weight=, account=, expires_at=, rpm=, …, verify=)
    update_credential   verify   delete_credential   verify_all
    active(credential)  hint(credential)  readable(credential)  health(credential)

A secret goes in and never comes out: only hints do. Rotation works on versions: see rotation.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypedDict, Unpack
from uuid import UUID

from django.db import IntegrityError, transaction

from conduit.access.permissions import demand
from conduit.core import audit
from conduit.core.actor import Actor
from conduit.core.clock import now
from conduit.core.errors import Conflict, InvalidInput, NameTaken, NotFound
from conduit.core.fields import parse_text, parse_whole
from providers import supply, vault
from providers.models import Credential, CredentialVersion, Provider, Route, VersionState
from providers.providers import LIMITS, apply_limits, field, kind_of, locked
from providers.secret_fields import parse_fields as parse_fields  # callers take it from here too
from providers.verification import VerificationFailed, Verified, check, destination
from providers.versions import locked_credential, roll_back_failed, serving

MAX_WEIGHT = 10_000
REJECTED = (401, 403)
TAKEN = "This provider already has a credential named {}."
CHANGEABLE = ("name", "weight", "account", "expires_at", "enabled", *LIMITS)


class Settings(TypedDict, total=False):
    """What a credential may be given beside name and fields.

    `verify` False saves without a call. `proven`: when the caller itself proved these fields, so none is made here.
    """

    weight: int
    account: str
    expires_at: datetime | None
    rpm: int | None
    tpm: int | None
    max_parallel: int | None
    verify: bool
    proven: datetime | None


def add_credential(
    provider: Provider, *, actor: Actor, name: str, fields: Mapping[str, Any], **given: Unpack[Settings]
) -> Credential:
    """A new credential with its first version, active. It is verified by a real call unless `verify` is False.

    Raises InvalidInput, Conflict for a name twice, VerificationFailed (nothing was saved), ConfigurationError when the
    key ring is not set up.
    """
    demand(actor, "credentials")
    plain = parse_fields(kind_of(provider), fields=fields)
    credential = Credential(provider=provider)
    _apply(credential, {"name": name, **{key: value for key, value in given.items() if key in CHANGEABLE}})
    if provider.credentials.filter(name=credential.name).exists():
        raise NameTaken(TAKEN.format(credential.name))
    verified_at, account = given.get("proven"), ""
    if verified_at is None and given.get("verify", True):
        account, verified_at = check(provider, plain).account, now()
    credential.last_verified_at = verified_at
    data_key = vault.prepare(credential.id, plain, number=1)
    with transaction.atomic():
        # The row lock keeps the provider as it was verified.
        if destination(locked(provider)) != destination(provider):
            raise Conflict("The provider was changed meanwhile. Add the credential again.")
        _save(credential)
        version = vault.seal_version(credential, plain, number=1, state=VersionState.ACTIVE, data_key=data_key)
        noted = {"verified_at": verified_at, "account": account, "created_by": actor.name[:254]}
        CredentialVersion.objects.filter(pk=version.pk).update(activated_at=now(), **noted)
        audit.record(
            actor=actor,
            action="credential.create",
            kind="credential",
            id=credential.id,
            name=credential.name,
            after={
                **describe(credential),
                "provider": provider.name,
                "fields": sorted(plain),
                "verified": verified_at is not None,
            },
        )
    return credential


def update_credential(credential: Credential, *, actor: Actor, changes: Mapping[str, Any]) -> Credential:
    """Changes any of CHANGEABLE. Raises InvalidInput, NotFound."""
    demand(actor, "credentials")
    if unknown := set(changes) - set(CHANGEABLE):
        raise InvalidInput(min(unknown), "This field cannot be changed.", "read_only")
    with transaction.atomic():
        current = locked_credential(credential)
        before = describe(current)
        _apply(current, changes)
        _save(current)
        old, new = audit.changes(before, describe(current))
        if new:
            audit.record(
                actor=actor,
                action="credential.update",
                kind="credential",
                id=current.id,
                name=current.name,
                before=old,
                after=new,
            )
    return current


def verify(credential: Credential, *, actor: Actor) -> Verified:
    """Calls the provider with the stored secret and notes the outcome. Raises VerificationFailed, Unreadable, Conflict.

    A canary is called too. A version that the provider rejects is rolled back where a former one works to take over.
    The outcome is saved either way; so call it outside a transaction that the exception would roll back.
    """
    demand(actor, "credentials")
    version = active(credential)
    if version is None:
        raise Conflict(f"The credential {credential.name} has no active version. Rotate it: give it a new secret.")
    canary = next((row for row in credential.versions.all() if row.state == VersionState.VERIFYING), None)
    if canary is not None:
        _verify_canary(credential, canary)
    try:
        verified = check(credential.provider, vault.open_version(version))
    except VerificationFailed as error:
        _note(credential, version, actor=actor, error=error.detail)
        if error.status in REJECTED:
            roll_back_failed(credential.id, version.number, error.detail, patient=True)
        raise
    except vault.Unreadable as red:
        _note(credential, version, actor=actor, error=red.reason)
        raise
    _note(credential, version, actor=actor, error="", account=verified.account)
    return verified


def _verify_canary(credential: Credential, canary: CredentialVersion) -> None:
    try:
        check(credential.provider, vault.open_version(canary))
    except VerificationFailed as error:
        if error.status in REJECTED:
            roll_back_failed(credential.id, canary.number, error.detail, patient=True)
    except vault.Unreadable as red:
        roll_back_failed(credential.id, canary.number, red.reason, patient=True)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one credential fared in a test. `detail` is empty when it is `ok`."""

    credential: Credential
    ok: bool
    detail: str
    guidance: str = ""
    models: tuple[str, ...] = ()
    latency_ms: int = 0


def verify_all(provider: Provider, *, actor: Actor) -> list[Outcome]:
    """Verifies each enabled credential of a provider and notes the outcomes. Raises Conflict when there is none."""
    demand(actor, "credentials")
    rows = provider.credentials.filter(enabled=True).select_related("provider").order_by("name")
    if not rows:
        raise Conflict(f"The provider {provider.name} has no enabled credential to test with.")
    return [tested(credential, actor=actor) for credential in rows]


def tested(credential: Credential, *, actor: Actor) -> Outcome:
    """`verify` without an exception."""
    try:
        done = verify(credential, actor=actor)
    except VerificationFailed as error:
        return Outcome(credential, ok=False, detail=error.detail, guidance=error.guidance)
    except vault.Unreadable as red:
        return Outcome(credential, ok=False, detail=red.reason, guidance=red.fix)
    except Conflict as error:
        return Outcome(credential, ok=False, detail=str(error))
    return Outcome(credential, ok=True, detail="", models=done.models, latency_ms=done.latency_ms)


def _note(credential: Credential, version: CredentialVersion, *, actor: Actor, error: str, account: str = "") -> None:
    """Keeps the outcome of the version that serves; one that was replaced meanwhile says nothing about the credential.

    Conduit's own daily checks enter the audit log only when the outcome changes.
    """
    at = now()
    with transaction.atomic():
        current = locked_credential(credential)
        present = serving(current)
        if present is None or present.pk != version.pk:
            return
        before, current.last_error = current.last_error, error[:500]
        current.last_verified_at = current.last_verified_at if error else at
        current.save(update_fields=["last_error", "last_verified_at"])
        if not error:
            noted = {"account": account} if account else {}
            CredentialVersion.objects.filter(pk=version.pk).update(verified_at=at, **noted)
        if actor.kind != "system" or bool(before) != bool(error):
            audit.record(
                actor=actor,
                action="credential.verify",
                kind="credential",
                id=current.id,
                name=current.name,
                after={"ok": not error, "error": current.last_error},
            )
    credential.last_error, credential.last_verified_at = current.last_error, current.last_verified_at


def delete_credential(credential: Credential, *, actor: Actor) -> None:
    """Deletes it with its sealed versions. Raises Conflict when it is the last one that serves a provider's routes."""
    demand(actor, "credentials")
    with transaction.atomic():
        provider = locked(credential.provider)
        current = locked_credential(credential)
        if routes := routes_that_need(current):
            raise Conflict(
                f"The credential {current.name} is the last one of {provider.name}, which serves "
                f"{', '.join(f'route {name}' for name in routes)}. Add another one or change these first."
            )
        audit.record(
            actor=actor,
            action="credential.delete",
            kind="credential",
            id=current.id,
            name=current.name,
            before={**describe(current), "provider": provider.name},
        )
        current.delete()


def routes_that_need(credential: Credential) -> list[str]:
    """Enabled routes to the provider of its last enabled credential; empty while another one can serve them."""
    others = Credential.objects.filter(provider=credential.provider_id, enabled=True).exclude(pk=credential.pk)
    if not credential.enabled or others.exists():
        return []
    routes = Route.objects.filter(enabled=True, targets__provider=credential.provider_id).order_by("name").distinct()
    return list(routes.values_list("name", flat=True)[:10])


# --- reading -------------------------------------------------------------------------------------------------------


def find(text: str) -> Credential:
    """By id. Raises NotFound."""
    try:
        row = Credential.objects.select_related("provider").filter(id=UUID(text)).first()
    except ValueError:
        row = None
    if row is None:
        raise NotFound(f"There is no credential {text[:120]!r}.")
    return row


def active(credential: Credential) -> CredentialVersion | None:
    """The version that serves, with its fields. Uses prefetched `versions` where there are any."""
    return next((version for version in credential.versions.all() if version.state == VersionState.ACTIVE), None)


def hint(credential: Credential) -> str:
    """What a person may see of the secret, such as `sk-…cdef`; empty where there is none."""
    version = active(credential)
    if version is None:
        return ""
    rows = {row.name: row.hint for row in version.fields.all()}
    for spec in kind_of(credential.provider).fields:
        if spec.secret and spec.name in rows:
            return rows[spec.name]
    return next(iter(rows.values()), "")


def problem(credential: Credential) -> vault.Unreadable | None:
    """Why the stored secret does not open and what to do, or None when it opens."""
    version = active(credential)
    if version is None:
        return vault.Unreadable("There is no active version.", "Rotate the credential: give it a new secret.")
    try:
        return supply.problem(credential.provider, vault.open_version(version))
    except vault.Unreadable as red:
        return red


def readable(credential: Credential) -> str | None:
    """The reason why the stored secret does not open, or None."""
    red = problem(credential)
    return red.reason if red else None


def health(credential: Credential) -> str:
    """revoked (no version left) | unreadable | disabled | expired | failing | unverified | ok; the first that holds."""
    if active(credential) is None:
        return "revoked"
    if readable(credential) is not None:
        return "unreadable"
    if not credential.enabled:
        return "disabled"
    if credential.expires_at is not None and credential.expires_at <= now():
        return "expired"
    if credential.last_error:
        return "failing"
    return "ok" if credential.last_verified_at else "unverified"


def describe(credential: Credential) -> dict[str, Any]:
    """What the audit log keeps of a credential; it holds no secret."""
    return {name: getattr(credential, name) for name in CHANGEABLE}


# --- parts ---------------------------------------------------------------------------------------------------------


def _save(credential: Credential) -> None:
    try:
        with transaction.atomic():
            credential.save()
    except IntegrityError:
        raise NameTaken(TAKEN.format(credential.name)) from None


def _apply(credential: Credential, given: Mapping[str, Any]) -> None:
    """Sets what is given, checked. Fields not given stay as they are."""
    if "name" in given:
        credential.name = field("name", parse_text, given["name"], 120, shortest=1)
    if "weight" in given:
        credential.weight = field("weight", parse_whole, given["weight"], 0, MAX_WEIGHT)
    if "account" in given:
        credential.account = field("account", parse_text, given["account"] or "", 120)
    if "enabled" in given:
        credential.enabled = bool(given["enabled"])
    if "expires_at" in given:
        credential.expires_at = parse_expiry(given["expires_at"])
    apply_limits(credential, given)


def parse_expiry(value: datetime | None) -> datetime | None:
    """A time in the future, or None for never. Raises InvalidInput."""
    if value is not None and (value.tzinfo is None or value <= now()):
        raise InvalidInput("expires_at", "Must be a time in the future, with its offset.", "invalid_time")
    return value
