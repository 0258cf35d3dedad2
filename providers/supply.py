"""From a stored credential to what requests carry: unsealed, references resolved, tokens minted.

    complete(provider, fields)        of fields given or unsealed; may wait for sources and token services
    opened(version)                   of a stored version
    with loading() as usable:         for the data plane's picture: usable(version) never waits
    refresh_due()                     each web worker's thread calls it every second, and when something is wished for
    wished()                          whether the thread has something to read at once
    generation()                      moves on when what `usable` gives has changed: load again
    refresh(credential, actor=…)      reads its sources at once, in every worker

`usable` raises Pending for what nobody has read yet in this process. The thread reads it next and `generation` moves,
so a source that hangs delays neither requests nor the news of a revocation.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from django.db import transaction

from conduit.access.permissions import demand
from conduit.core import audit
from conduit.core.actor import Actor
from conduit.core.clock import monotonic, now
from conduit.core.errors import Conflict, InvalidInput
from conduit.core.secret import Secret
from providers import sources, tokens, vault
from providers.adapters.registry import ProviderKind
from providers.kept import Pending, Unavailable
from providers.models import Credential, CredentialField, CredentialVersion, Provider, VersionState
from providers.providers import kind_of
from providers.references import Reference
from providers.secret_fields import check_value

SERVING = (VersionState.ACTIVE, VersionState.RETIRING)
WATCHED_SECONDS = 30.0
COMING = (VersionState.PENDING, VersionState.VERIFYING)


def complete(
    provider: Provider, fields: Mapping[str, Secret], *, wait: bool = True, fresh: bool = False
) -> dict[str, str]:
    """What adapters read. `fresh`: asks sources and token services anew. Raises vault.Unreadable; Pending only when it
    must not wait."""
    row = kind_of(provider)
    plain = _resolved(row, fields, wait=wait, fresh=fresh)
    try:
        return tokens.ready(row, plain, provider, wait=wait, fresh=fresh)
    except Pending:
        raise
    except Unavailable as problem:
        raise vault.Unreadable(problem.reason, problem.fix) from None


def _resolved(row: ProviderKind, fields: Mapping[str, Secret], *, wait: bool, fresh: bool) -> dict[str, str]:
    """Values from elsewhere are checked as typed ones are when they are saved."""
    found = sources.resolve(fields, wait=wait, fresh=fresh)
    specs = {spec.name: spec for spec in row.fields}
    plain: dict[str, str] = {}
    for name, secret in found.items():
        plain[name] = secret.reveal()
        if isinstance(fields[name], Reference) and name in specs:
            try:
                plain[name] = check_value(specs[name], name, secret)
            except InvalidInput as wrong:
                raise vault.Unreadable(
                    f"{name} from {fields[name].reveal()}: {wrong.detail}", "Correct the value at its source."
                ) from None
    return plain


def opened(version: CredentialVersion, *, fresh: bool = False) -> dict[str, str]:
    """Raises vault.Unreadable."""
    return complete(version.credential.provider, vault.open_version(version), fresh=fresh)


# --- the data plane's picture --------------------------------------------------------------------------------------


@dataclass(slots=True)
class _InUse:
    """The references and claims that the last picture needs: only these are kept fresh."""

    references: set[str] = field(default_factory=set)
    claims: set[tokens.Claim] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.references or self.claims)


class _Picture:
    """What this process serves with."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.in_use = _InUse()
        self.refreshed = float("-inf")  # monotonic


_picture = _Picture()


@contextmanager
def loading() -> Iterator[Callable[[CredentialVersion], dict[str, str]]]:
    """Inside, a function from a version (with `credential__provider` and `fields`) to what its requests carry."""
    found = _InUse()

    def usable(version: CredentialVersion) -> dict[str, str]:
        """Raises vault.Unreadable, Pending."""
        fields = vault.open_version(version)
        found.references |= {secret.reveal() for secret in fields.values() if isinstance(secret, Reference)}
        provider = version.credential.provider
        row = kind_of(provider)
        plain = _resolved(row, fields, wait=False, fresh=False)
        if (wanted := tokens.claim(row, plain, provider)) is not None:
            found.claims.add(wanted)
        return complete(provider, fields, wait=False)

    yield usable
    _warm(usable)
    with _picture.lock:
        _picture.in_use = found


def _warm(usable: Callable[[CredentialVersion], object]) -> None:
    """Versions that will serve soon: their sources and tokens are at hand when they do."""
    coming = CredentialVersion.objects.filter(state__in=COMING, credential__enabled=True, fields__isnull=False)
    for version in coming.select_related("credential__provider").prefetch_related("fields").distinct():
        try:
            usable(version)
        except (vault.Unreadable, Pending, Conflict):
            continue  # told when it serves


def problem(provider: Provider, fields: Mapping[str, Secret]) -> vault.Unreadable | None:
    """Why these unsealed fields cannot be used now. Waits for nothing where the worker's thread keeps them fresh."""
    try:
        complete(provider, fields, wait=monotonic() - _picture.refreshed > WATCHED_SECONDS)
    except vault.Unreadable as red:
        return red
    except Pending:
        return None
    return None


def forget() -> None:
    """Everything that this process has read, and that it is watched; for tests."""
    _picture.in_use, _picture.refreshed = _InUse(), float("-inf")
    sources.secrets.forget()
    tokens.minted.forget()


def generation() -> tuple[int, int]:
    return sources.secrets.generation, tokens.minted.generation


def wished() -> bool:
    return sources.secrets.wished or tokens.minted.wished


def refresh_due() -> None:
    """Reads what is due. At most some seconds, on the caller's thread and on threads of its own."""
    with _picture.lock:
        in_use = _picture.in_use
    _picture.refreshed = monotonic()
    sources.secrets.refresh(in_use.references)
    tokens.minted.refresh(in_use.claims)


# --- by hand -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one field fared. `detail` is empty when it is `ok`."""

    name: str
    source: str
    ok: bool
    detail: str


def refresh(credential: Credential, *, actor: Actor) -> list[Outcome]:
    """Reads every source of the credential's versions now; each worker does the same as soon as it hears of it.

    Raises Forbidden, Conflict when no field of it comes from elsewhere.
    """
    demand(actor, "credentials")
    live = credential.versions.filter(state__in=(*SERVING, *COMING)).prefetch_related("fields")
    found: dict[tuple[str, str], Outcome] = {}
    for version in live:
        try:
            fields = vault.open_version(version)
        except vault.Unreadable as red:
            found |= {
                (row.name, row.hint): Outcome(row.name, row.hint, ok=False, detail=str(red))
                for row in version.fields.all()
                if row.source
            }
            continue
        for name, secret in fields.items():
            if isinstance(secret, Reference) and (name, secret.reveal()) not in found:
                found[name, secret.reveal()] = _reread(kind_of(credential.provider), name, secret)
    if not found:
        raise Conflict(f"No field of the credential {credential.name} comes from an external source.")
    with transaction.atomic():
        audit.lock()
        # Changes of this table are news for every worker (migrations 0002_epoch).
        CredentialField.objects.filter(version__in=[row.pk for row in live], source=True).update(asked_at=now())
        audit.record(
            actor=actor,
            action="credential.refresh",
            kind="credential",
            id=credential.id,
            name=credential.name,
            after={outcome.source: "read" if outcome.ok else outcome.detail for outcome in found.values()},
        )
    return list(found.values())


def _reread(row: ProviderKind, name: str, reference: Reference) -> Outcome:
    try:
        _resolved(row, {name: reference}, wait=True, fresh=True)
    except vault.Unreadable as red:
        return Outcome(name, reference.reveal(), ok=False, detail=str(red))
    return Outcome(name, reference.reveal(), ok=True, detail="")
