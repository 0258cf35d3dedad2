"""What a page may show of credentials: hints, states and figures, never a secret."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings

from conduit.console.spans import month_start
from conduit.core import live as live_processes
from conduit.core import wording
from conduit.core.actor import Actor
from providers import credentials
from providers.adapters.registry import KINDS
from providers.models import Credential, CredentialVersion, Rotation, RotationState, VersionState
from usage import version_use
from usage.version_use import Live, Use

SOON = timedelta(days=14)
HELD = (VersionState.PENDING, VersionState.VERIFYING, VersionState.ACTIVE, VersionState.RETIRING)


@dataclass(frozen=True, slots=True)
class Health:
    """`kind` and `icon` as the template tag `status` takes them."""

    kind: str
    word: str
    icon: str = ""
    detail: str = ""
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One credential. `recent`: attempts of the last ten minutes. `others`: its versions besides the active one."""

    credential: Credential
    hint: str
    version: CredentialVersion | None
    health: Health
    rotation: Rotation | None
    age: timedelta
    old: bool
    expires_soon: bool
    expired: bool
    recent: int
    use: Use

    @property
    def per_minute(self) -> str:
        return per_minute(self.recent)

    @property
    def needs_attention(self) -> bool:
        return self.credential.enabled and (
            self.health.kind in ("bad", "warn") or self.old or self.expires_soon or self.expired
        )

    @property
    def rotating(self) -> str:
        """`v5 canary 10 %`, `v4 draining`; empty when nothing is under way."""
        if self.rotation is None:
            return ""
        if self.rotation.state == RotationState.CANARY:
            return f"v{self.rotation.new.number} canary {self.rotation.new.share}{wording.NBSP}%"
        return f"v{self.rotation.old.number} draining" if self.rotation.old else ""


@dataclass(frozen=True, slots=True)
class Group:
    """A provider with its credentials and what its accounts are called."""

    title: str
    note: str
    rows: list[Row]


def per_minute(attempts: int) -> str:
    """The mean of the last ten minutes."""
    return f"{attempts / (version_use.WINDOW.total_seconds() / 60):,.1f}"


def rows(actor: Actor, at: datetime) -> list[Row]:
    """Every credential by provider and name."""
    own = Credential.objects.select_related("provider").prefetch_related("versions__fields")
    found = list(own.order_by("provider__name", "name"))
    said = version_use.live(live_processes.alive())
    recent = version_use.recent([credential.id for credential in found], at - version_use.WINDOW)
    used = version_use.who_uses(actor, month_start(at))
    under_way = {
        rotation.credential_id: rotation
        for rotation in Rotation.objects.filter(ended_at=None).select_related("old", "new")
    }
    return [
        row_of(
            credential,
            at,
            said=said,
            rotation=under_way.get(credential.id),
            recent=recent.get(credential.id, 0),
            use=used.get(credential.id, Use()),
        )
        for credential in found
    ]


def row_of(
    credential: Credential,
    at: datetime,
    *,
    said: Mapping[UUID, Live],
    rotation: Rotation | None,
    recent: int = 0,
    use: Use | None = None,
) -> Row:
    version, ends = credentials.active(credential), credential.expires_at
    age = at - (version.activated_at or version.created_at if version else credential.created_at)
    limit = settings.CREDENTIAL_MAX_AGE_DAYS
    return Row(
        credential=credential,
        hint=credentials.hint(credential),
        version=version,
        health=health_of(credential, version, said, at),
        rotation=rotation,
        age=age,
        old=bool(limit) and age > timedelta(days=limit),
        expires_soon=bool(ends and at < ends < at + SOON),
        expired=bool(ends and ends <= at),
        recent=recent,
        use=use or Use(),
    )


def health_of(
    credential: Credential, version: CredentialVersion | None, said: Mapping[UUID, Live], at: datetime
) -> Health:
    """The worst that is known: the secret itself, its switch, its end, the provider's last word, then traffic."""
    if (red := credentials.problem(credential)) is not None:
        return Health("bad", "Unreadable", "alert-circle", red.reason, red.fix)
    if not credential.enabled:
        return Health("off", "Disabled", "player-pause")
    if credential.expires_at is not None and credential.expires_at <= at:
        return Health("bad", "Expired", "hourglass", "The provider ends it.", "Rotate it to a new secret.")
    live = said.get(version.id, Live()) if version else Live()
    if (breaker := live.health(at)) == "tripped":
        return Health("bad", "Tripped", "ban", live.why or "The provider refused it.", "Rotate it, or test it again.")
    if credential.last_error:
        return Health("bad", "Failed its test", "", credential.last_error)
    if breaker == "half_open":
        return Health("warn", "Half-open", "circle-half-2", "The next request tries it again.")
    if credential.last_verified_at is None:
        return Health("warn", "Not tested")
    return Health("ok", "Healthy")


def groups(found: Iterable[Row]) -> list[Group]:
    """By provider, as they come."""
    collected: dict[UUID, list[Row]] = {}
    for row in found:
        collected.setdefault(row.credential.provider_id, []).append(row)
    return [Group(own[0].credential.provider.name, _accounts(own), own) for own in collected.values()]


def _accounts(own: list[Row]) -> str:
    kind = own[0].credential.provider.kind
    title = KINDS[kind].title if kind in KINDS else kind
    accounts = {row.credential.account or f"of {row.credential.id}" for row in own}
    named = sorted({row.credential.account for row in own if row.credential.account})
    if len(accounts) == 1 and named:
        return f"{title}, account {named[0]}"
    return f"{title}, {wording.plural(len(accounts), 'account')}" if named else title


def sealed_under(found: Iterable[Row]) -> dict[str, Any]:
    """How many versions keep a secret, and the key-encryption keys they are sealed under."""
    kept = [version for row in found for version in row.credential.versions.all() if version.state in HELD]
    return {"sealed": len(kept), "keks": sorted({version.kek_id for version in kept})}
