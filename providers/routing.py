"""An immutable picture of the configuration: what may serve a request (providers/candidates.py says in which order).

`load()` reads the tables (control plane, synchronous); everything else is pure and serves the data plane.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any
from uuid import UUID

import msgspec
from django.conf import settings
from django.db.models import Prefetch

from conduit.core.errors import Conflict
from conduit.core.secret import Secret
from providers import masks, supply, vault
from providers.adapters.base import Adapter
from providers.adapters.registry import KINDS, adapter_for
from providers.adapters.types import Dialect, Endpoint
from providers.catalogue import Matcher, matcher
from providers.kept import Pending
from providers.models import Credential, CredentialVersion, Provider, Route, Target, VersionState
from providers.route_table import RouteTable

_CLIENT_HEADERS = {
    name: MappingProxyType({header.encode(): option for header, option in kind.client_headers.items()})
    for name, kind in KINDS.items()
}


class Limits(msgspec.Struct, frozen=True):
    """Rate limits of a provider or credential; None means no limit of its own."""

    rpm: int | None
    tpm: int | None
    max_parallel: int | None


class CredentialEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A version of a usable credential. `secrets` holds plain text: it never leaves the process but to the provider.

    The active version knows the others that may serve in its place: the `canary` for `share` percent of the requests,
    and the `previous` one while it is retiring, should the provider reject the active one.
    """

    id: UUID
    name: str
    version: int
    version_id: UUID
    secrets: Mapping[str, str]
    weight: int
    account: str
    limits: Limits | None = None
    expires_at: float | None = None  # Unix seconds
    canary: CredentialEntry | None = None
    share: int = 0
    previous: CredentialEntry | None = None

    def __repr__(self) -> str:
        return f"CredentialEntry({self.name!r} v{self.version})"

    def masks(self) -> list[Secret]:
        """What must never appear in a message to a client."""
        return masks.masks(self.secrets)


class ProviderEntry(msgspec.Struct, frozen=True, kw_only=True):
    id: UUID
    name: str
    kind: str
    vendor: str  # the price data's provider id
    base_url: str
    region: str
    options: Mapping[str, Any]
    client_headers: Mapping[bytes, str]  # client header (or prefix ending in "-") to the option that carries it
    credentials: tuple[CredentialEntry, ...]
    unreadable: tuple[str, ...]  # names of credentials that the key ring cannot open
    limits: Limits | None = None

    def known_as(self, model: str) -> str:
        """The name by which catalogue and prices know what this provider calls `model`."""
        return KINDS[self.kind].known_as(model, self.options)


class TargetEntry(msgspec.Struct, frozen=True, kw_only=True):
    provider: ProviderEntry
    model: str
    adapter: Adapter
    native: frozenset[tuple[Dialect, Endpoint]]  # what is passed through: spoken by client and provider alike
    weight: int
    priority: int
    max_output_tokens: int | None  # the model's own maximum, where the catalogue knows it
    context_window: int | None = None  # tokens of prompt and answer together, where the catalogue knows it
    sealer: str = ""  # who seals its thoughts: nobody else can read them
    spends: str = ""  # what the model spends on beyond what a request bounds, in words
    surcharge: str = ""  # what the provider's options cost beyond the price list, in words

    @property
    def key(self) -> tuple[UUID, str]:
        """What tells it from other targets: provider and model."""
        return self.provider.id, self.model

    def holds_more_than(self, other: TargetEntry) -> bool:
        """Whether it may take a prompt that was too long for the other one."""
        return self.context_window is not None and self.context_window > (other.context_window or 0)


class RouteEntry(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    strict: bool
    timeout: float | None  # seconds
    targets: tuple[TargetEntry, ...]
    created: int  # Unix seconds


class Routing(msgspec.Struct, frozen=True):
    """The configuration at one moment."""

    routes: RouteTable
    providers: Mapping[UUID, ProviderEntry]
    matcher: Matcher

    def versions(self) -> set[UUID]:
        """Of all credentials: the versions that may serve."""
        found: set[UUID] = set()
        for provider in self.providers.values():
            for one in provider.credentials:
                found.update(version.version_id for version in (one, one.canary, one.previous) if version is not None)
        return found


# --- loading -------------------------------------------------------------------------------------------------------


def load(found: Matcher | None = None) -> Routing:
    """Reads and decrypts the configuration. A credential that cannot be opened is reported, not skipped silently.

    `found` describes models; without it the catalogue is read.
    """
    found = found or matcher()
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
            base_url=base_url(row),
            region=row.region,
            options=MappingProxyType(dict(row.options)),
            client_headers=_CLIENT_HEADERS[row.kind],
            credentials=tuple(usable),
            unreadable=tuple(unreadable),
            limits=_limits(row),
        )
    routes: list[RouteEntry] = []
    disabled: set[str] = set()
    for route in Route.objects.prefetch_related("targets"):
        if not route.enabled:
            disabled.add(route.name)
            continue
        targets = tuple(
            _target(target, entries[target.provider_id], found)
            for target in route.targets.all()
            if target.provider_id in entries
        )
        one = RouteEntry(
            name=route.name,
            strict=route.strict,
            timeout=float(route.timeout) if route.timeout else None,
            targets=targets,
            created=int(route.created_at.timestamp()),
        )
        routes.append(one)
    table = RouteTable(routes, found, aimed, frozenset(disabled))
    return Routing(table, MappingProxyType(entries), found)


def _limits(row: Provider | Credential) -> Limits | None:
    found = Limits(row.rpm, row.tpm, row.max_parallel)
    return None if found == Limits(None, None, None) else found


def base_url(provider: Provider) -> str:
    """Where requests of this provider go, without trailing slash."""
    if KINDS[provider.kind].own_process:  # the sandbox: wherever `conduit up` started it
        return str(settings.SANDBOX_URL)
    return (provider.base_url or KINDS[provider.kind].address(provider.region, provider.options)).rstrip("/")


def _target(row: Target, provider: ProviderEntry, found: Matcher) -> TargetEntry:
    return _for_model(provider, row.model, found, weight=row.weight, priority=row.priority)


def aimed(target: TargetEntry, model: str, found: Matcher) -> TargetEntry:
    """The same target for another of its provider's models."""
    return _for_model(target.provider, model, found, weight=target.weight, priority=target.priority)


def _for_model(provider: ProviderEntry, model: str, found: Matcher, *, weight: int, priority: int) -> TargetEntry:
    adapter, kind = adapter_for(provider.kind, provider.options, model), KINDS[provider.kind]
    known = found.match(provider.vendor, provider.known_as(model))
    return TargetEntry(
        provider=provider,
        model=model,
        adapter=adapter,
        native=frozenset(pair for pair in adapter.native if kind.serves(pair[1], model)),
        weight=weight,
        priority=priority,
        max_output_tokens=known.max_output_tokens if known else None,
        context_window=known.context_window if known else None,
        sealer=kind.sealer(model, adapter.wire),
        spends=kind.spends(model),
        surcharge=kind.surcharge(provider.options),
    )


_IN_USE = Prefetch(
    "versions",
    CredentialVersion.objects.filter(
        state__in=(VersionState.ACTIVE, VersionState.VERIFYING, VersionState.RETIRING)
    ).prefetch_related("fields"),
    to_attr="in_use",
)


def _open_credentials() -> dict[UUID, tuple[list[CredentialEntry], list[str]]]:
    """Provider id to (usable credentials, names of those that cannot be opened)."""
    found: dict[UUID, tuple[list[CredentialEntry], list[str]]] = {}
    enabled = Credential.objects.filter(enabled=True).select_related("provider").order_by("id")
    with supply.loading() as plain_of:
        for credential in enabled.prefetch_related(_IN_USE):
            usable, unreadable = found.setdefault(credential.provider_id, ([], []))
            versions: list[CredentialVersion] = credential.in_use
            opened: dict[str, CredentialEntry] = {}
            for version in versions:
                if version.state == VersionState.VERIFYING and not version.share:
                    continue
                try:
                    opened[version.state] = _entry(credential, version, plain_of(version))
                except vault.Unreadable:
                    unreadable.append(credential.name)
                except (Pending, Conflict):
                    continue  # not read yet, and this picture is drawn again when it is; or a kind of another version
            previous, canary = opened.get(VersionState.RETIRING), opened.get(VersionState.VERIFYING)
            if (active := opened.get(VersionState.ACTIVE)) is not None:
                share = next((version.share for version in versions if version.state == VersionState.VERIFYING), 0)
                usable.append(msgspec.structs.replace(active, canary=canary, share=share, previous=previous))
            elif (instead := previous or canary) is not None:  # the active one does not open here, or is not read yet
                usable.append(instead)
    return found


def _entry(credential: Credential, version: CredentialVersion, plain: Mapping[str, str]) -> CredentialEntry:
    expires_at = credential.expires_at if version.state == VersionState.ACTIVE else version.expires_at
    return CredentialEntry(
        id=credential.id,
        name=credential.name,
        version=version.number,
        version_id=version.id,
        secrets=MappingProxyType(dict(plain)),
        weight=credential.weight,
        account=credential.account,
        limits=_limits(credential),
        expires_at=expires_at.timestamp() if expires_at else None,
    )
