"""Whom a client calls: the kind of provider by the model's name, its address, and what its requests carry."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from conduit.core.errors import InvalidInput
from providers.adapters.base import Adapter, Upstream
from providers.adapters.registry import KINDS, REGION, ProviderKind, adapter_for

GATEWAY_KEY = "cdt_vk_"
GATEWAY_URL = "http://127.0.0.1:8080/v1"
_SENT_AS_THEY_ARE = ("api_key", "access_key_id", "access_token")


@dataclass(frozen=True, slots=True)
class Target:
    adapter: Adapter
    kind: ProviderKind
    upstream: Upstream


def target(  # noqa: PLR0913 (one for each part of the address)
    model: str,
    *,
    api_key: str,
    fields: Mapping[str, str],
    kind: str,
    base_url: str,
    region: str,
    options: Mapping[str, Any],
) -> Target:
    """Raises InvalidInput that names the argument which is missing or wrong."""
    gateway = api_key.startswith(GATEWAY_KEY)
    row, name = (KINDS["custom"], model) if gateway and not kind else _kind(model, kind)
    given = {**fields, **({"api_key": api_key} if api_key else {})}
    _check_fields(row, given)
    address = (base_url or (GATEWAY_URL if gateway else _address(row, region, options))).rstrip("/")
    try:
        adapter = adapter_for(row.kind, options, name)
    except ValueError as error:
        raise InvalidInput("options", str(error)) from None
    upstream = Upstream(
        base_url=address, model=name, secrets=_ready(row, given, region, options), options=dict(options), region=region
    )
    return Target(adapter, row, upstream)


def _kind(model: str, kind: str) -> tuple[ProviderKind, str]:
    """`kind`, else what stands before the first slash of `model`, else the longest pattern that its name matches."""
    if kind:
        if kind not in KINDS:
            raise InvalidInput("kind", f"There is no kind {kind!r}: `conduit providers kinds` lists them.")
        return KINDS[kind], model
    before, slash, rest = model.partition("/")
    if slash and before in KINDS:
        return KINDS[before], rest
    fitting = [
        (len(pattern), row) for row in KINDS.values() for pattern in row.models if fnmatchcase(model.lower(), pattern)
    ]
    if not fitting:
        raise InvalidInput("model", f"No kind of provider is known for {model!r}: say KIND/MODEL, or give `kind`.")
    return max(fitting, key=lambda found: found[0])[1], model


def _address(row: ProviderKind, region: str, options: Mapping[str, Any]) -> str:
    """The vendor's own, with its places filled."""
    if not row.base_url:
        raise InvalidInput("base_url", f"{row.title} has no address of its own: give its base URL.")
    if REGION in row.base_url and not region:
        raise InvalidInput("region", f"{row.title} is called in a region: give one, such as region='us-east-1'.")
    for name in row.places:
        if not options.get(name):
            raise InvalidInput(f"options.{name}", f"{row.title} needs it for its address.", "required")
    return row.address(region, options)


def _check_fields(row: ProviderKind, given: Mapping[str, str]) -> None:
    known = {spec.name for spec in row.fields} | {"access_token", "project_id"}
    for name in given:
        if name not in known:
            raise InvalidInput("fields", f"{row.title} takes {', '.join(sorted(known))}; {name!r} is none of them.")
    missing = [spec.name for spec in row.fields if spec.required and spec.name not in given]
    if missing and "access_token" not in given:
        raise InvalidInput(missing[0], f"{row.title} needs it to be called.", "required")
    if row.ways and not any(set(way) <= set(given) for way in row.ways) and "access_token" not in given:
        ways = " or ".join(" with ".join(way) for way in row.ways)
        raise InvalidInput("fields", f"{row.title} needs {ways}.", "required")


def _ready(row: ProviderKind, given: Mapping[str, str], region: str, options: Mapping[str, Any]) -> dict[str, str]:
    """The fields as requests carry them: where a token is minted first, by the gateway's own code."""
    if not row.sign_in or ("role_arn" not in given and any(name in given for name in _SENT_AS_THEY_ARE)):
        return dict(given)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "conduit.settings")
    import django  # noqa: PLC0415 (only who signs in pays for it)

    django.setup()
    from providers import tokens  # noqa: PLC0415
    from providers.models import Provider  # noqa: PLC0415

    return tokens.ready(row, given, Provider(kind=row.kind, region=region, options=dict(options)))
