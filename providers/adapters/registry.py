"""Every kind of provider, as data. A vendor that speaks a known wire format is one row of rows/; nothing else changes.

KINDS              kind -> ProviderKind
adapter_for(...)   the adapter that speaks a kind's wire format; adapters are stateless and shared
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from functools import cache
from importlib import import_module
from types import MappingProxyType
from typing import Any

from providers.adapters.base import Adapter
from providers.adapters.kinds import REGION, FieldSpec, ProviderKind
from providers.adapters.quirks import Quirks
from providers.adapters.rows import clouds, direct, google_cloud, makers, own_hosting, routers, vendors
from providers.adapters.types import Dialect

__all__ = ["KINDS", "REGION", "FieldSpec", "ProviderKind", "adapter_for"]

KINDS: Mapping[str, ProviderKind] = MappingProxyType(
    {
        row.kind: row
        for row in (
            *direct.ROWS,
            *clouds.ROWS,
            *google_cloud.ROWS,
            *makers.ROWS,
            *routers.ROWS,
            *own_hosting.ROWS,
            *vendors.ROWS,
        )
    }
)


def adapter_for(kind: str, options: Mapping[str, Any], model: str = "") -> Adapter:
    """The shared adapter for a provider of this kind and the `model` it is asked for (its own name for it).

    Raises KeyError for an unknown kind, ValueError when `options["dialect"]` is not one the kind offers.
    """
    row = KINDS[kind]
    dialect = options.get("dialect") or _by_model(row, model) or next(iter(row.adapters))
    if dialect not in row.adapters:
        raise ValueError(f"dialect must be one of {', '.join(row.adapters)}")
    return _adapter(row.adapters[dialect], row.dressing, row.quirks)


def _by_model(row: ProviderKind, model: str) -> Dialect | None:
    return next((dialect for pattern, dialect in row.by_model if fnmatchcase(model, pattern)), None)


@cache
def _adapter(path: str, dressing: str, quirks: Quirks | None) -> Adapter:
    adapter: Adapter = _class(path)() if quirks is None else _class(path)(quirks)
    return _class(dressing)(adapter) if dressing else adapter


def _class(path: str) -> Callable[..., Adapter]:
    """Loaded on first use: a process imports only the wire formats it speaks."""
    module, _, name = path.partition(":")
    loaded: Callable[..., Adapter] = getattr(import_module(module), name)
    return loaded
