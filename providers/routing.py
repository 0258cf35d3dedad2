"""Which provider, model and credential serve a request, from an immutable picture of the configuration.

`load()` reads the tables (control plane, synchronous); everything else is pure and serves the data plane.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeVar
from uuid import UUID

import msgspec
from django.conf import settings

from conduit.core.secret import Secret
from providers import vault
from providers.adapters.base import Adapter
from providers.adapters.registry import KINDS, adapter_for
from providers.catalogue import Matcher, matcher
from providers.models import Credential, CredentialVersion, Provider, Route, Target, VersionState

_CLIENT_HEADERS = {
    name: MappingProxyType({header.encode(): option for header, option in kind.client_headers.items()})
    for name, kind in KINDS.items()
}


class Limits(msgspec.Struct, frozen=True):
    """Rate limits of a provider or credential; None means no limit of its own."""

    rpm: int | None
    tpm: int | None
    max_parallel: int | None


class CredentialEntry(msgspec.Struct, frozen=True):
    """A usable credential. `secrets` holds plain text: it never leaves the process but to the provider."""

    id: UUID
    name: str
    version: int
    secrets: Mapping[str, str]
    weight: int
    account: str
    limits: Limits | None = None

    def __repr__(self) -> str:
        return f"CredentialEntry({self.name!r} v{self.version})"

    def masks(self) -> list[Secret]:
        """What must never appear in a message to a client."""
        return [Secret(text) for text in self.secrets.values()]


class ProviderEntry(msgspec.Struct, frozen=True, kw_only=True):
    id: UUID
    name: str
    kind: str
    vendor: str  # the price data's provider id
    adapter: Adapter
    base_url: str
    region: str
    options: Mapping[str, Any]
    client_headers: Mapping[bytes, str]  # client header (or prefix ending in "-") to the option that carries it
    credentials: tuple[CredentialEntry, ...]
    unreadable: tuple[str, ...]  # names of credentials that the key ring cannot open
    limits: Limits | None = None


class TargetEntry(msgspec.Struct, frozen=True, kw_only=True):
    provider: ProviderEntry
    model: str
    weight: int
    priority: int
    max_output_tokens: int | None  # the model's own maximum, where the catalogue knows it
    context_window: int | None = None  # tokens of prompt and answer together, where the catalogue knows it


class RouteEntry(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    strict: bool
    timeout: float | None  # seconds
    targets: tuple[TargetEntry, ...]
    created: int  # Unix seconds


class Candidate(msgspec.Struct, frozen=True):
    target: TargetEntry
    credential: CredentialEntry


class Routing(msgspec.Struct, frozen=True):
    """The configuration at one moment."""

    routes: Mapping[str, RouteEntry]
    providers: Mapping[UUID, ProviderEntry]
    matcher: Matcher


Weighted = TypeVar("Weighted", TargetEntry, CredentialEntry)


def candidates(route: RouteEntry, rng: random.Random) -> Iterator[Candidate]:
    """Targets by priority, equal priorities drawn by weight; within a target its credentials drawn by weight."""
    for target in _drawn(route.targets, rng):
        for credential in _draw_all(target.provider.credentials, rng):
            yield Candidate(target, credential)


def _drawn(targets: Sequence[TargetEntry], rng: random.Random) -> list[TargetEntry]:
    if len(targets) == 1:
        return list(targets)
    ordered: list[TargetEntry] = []
    for priority in sorted({target.priority for target in targets}):
        ordered += _draw_all([target for target in targets if target.priority == priority], rng)
    return ordered


def _draw_all(items: Sequence[Weighted], rng: random.Random) -> list[Weighted]:
    """All items with a positive weight, in an order where each next one is drawn by weight (Efraimidis-Spirakis)."""
    if len(items) == 1:
        return list(items)
    drawn = [(rng.random() ** (1 / item.weight), item) for item in items if item.weight > 0]
    return [item for _, item in sorted(drawn, key=lambda pair: -pair[0])]


# --- loading -------------------------------------------------------------------------------------------------------


def load() -> Routing:
    """Reads and decrypts the configuration. A credential that cannot be opened is reported, not skipped silently."""
    found = matcher()
    entries: dict[UUID, ProviderEntry] = {}
    secrets = _open_credentials()
    for row in Provider.objects.filter(enabled=True):
        kind = KINDS.get(row.kind)
        if kind is None:
            continue
        usable, unreadable = secrets.get(row.id, ([], []))
        entries[row.id] = ProviderEntry(
            id=row.id,
            name=row.name,
            kind=row.kind,
            vendor=kind.price_provider,
            adapter=adapter_for(row.kind, row.options),
            base_url=base_url(row),
            region=row.region,
            options=MappingProxyType(dict(row.options)),
            client_headers=_CLIENT_HEADERS[row.kind],
            credentials=tuple(usable),
            unreadable=tuple(unreadable),
            limits=_limits(row),
        )
    routes: dict[str, RouteEntry] = {}
    for route in Route.objects.filter(enabled=True).prefetch_related("targets"):
        targets = tuple(
            _target(target, entries[target.provider_id], found)
            for target in route.targets.all()
            if target.provider_id in entries
        )
        routes[route.name] = RouteEntry(
            name=route.name,
            strict=route.strict,
            timeout=float(route.timeout) if route.timeout else None,
            targets=targets,
            created=int(route.created_at.timestamp()),
        )
    return Routing(MappingProxyType(routes), MappingProxyType(entries), found)


def _limits(row: Provider | Credential) -> Limits | None:
    found = Limits(row.rpm, row.tpm, row.max_parallel)
    return None if found == Limits(None, None, None) else found


def base_url(provider: Provider) -> str:
    """Where requests of this provider go, without trailing slash."""
    if KINDS[provider.kind].own_process:  # the sandbox: wherever `conduit up` started it
        return str(settings.SANDBOX_URL)
    return (provider.base_url or KINDS[provider.kind].base_url).rstrip("/")


def _target(row: Target, provider: ProviderEntry, found: Matcher) -> TargetEntry:
    known = found.match(provider.vendor, row.model)
    return TargetEntry(
        provider=provider,
        model=row.model,
        weight=row.weight,
        priority=row.priority,
        max_output_tokens=known.max_output_tokens if known else None,
        context_window=known.context_window if known else None,
    )


def _open_credentials() -> dict[UUID, tuple[list[CredentialEntry], list[str]]]:
    """Provider id to (usable credentials, names of those that cannot be opened)."""
    found: dict[UUID, tuple[list[CredentialEntry], list[str]]] = {}
    versions = CredentialVersion.objects.filter(state=VersionState.ACTIVE, credential__enabled=True)
    for version in versions.select_related("credential").prefetch_related("fields"):
        credential: Credential = version.credential
        usable, unreadable = found.setdefault(credential.provider_id, ([], []))
        try:
            fields = vault.open_version(version)
        except vault.Unreadable:
            unreadable.append(credential.name)
            continue
        plain = MappingProxyType({name: secret.reveal() for name, secret in fields.items()})
        usable.append(
            CredentialEntry(
                credential.id,
                credential.name,
                version.number,
                plain,
                credential.weight,
                credential.account,
                _limits(credential),
            )
        )
    return found
