"""What a key's holder may ask about: the models it may use, its own limits and spend."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson

from conduit.core.clock import rfc3339
from conduit.core.money import format_usd
from conduit.proxy import admission
from conduit.proxy.call import JSON, Answer, Call
from conduit.proxy.dialects.base import ModelEntry
from keys.leases import BankAway
from providers import patterns
from providers.routing import RouteEntry

if TYPE_CHECKING:
    from conduit.proxy.gateway import Gateway


def models(gateway: Gateway, call: Call) -> Answer:
    """All routes that the key may use, or the one named in the path."""
    admission.check_key(call)
    listed = gateway.snapshot.routing.routes.listed()
    if name := call.path.model:
        route = admission.find_route(gateway, call, name)
        return Answer(200, [JSON], call.dialect.model(_entry(gateway, name, route)))
    allowed = [_entry(gateway, name, route) for name, route in listed if call.key.may_use_model(name)]
    return Answer(200, [JSON], call.dialect.models(allowed))


def _entry(gateway: Gateway, name: str, route: RouteEntry) -> ModelEntry:
    target = route.targets[0] if route.targets else None
    provider, matcher = target.provider if target else None, gateway.snapshot.routing.matcher
    known = matcher.match(provider.vendor, provider.known_as(target.model)) if target and provider else None
    return ModelEntry(
        name=name,
        title=known.title if known and patterns.is_pattern(route.name) else name,
        owner=target.provider.name if target else "conduit",
        created=route.created,
        context_window=(known.context_window or 0) if known else 0,
        max_output_tokens=(target.max_output_tokens or 0) if target else 0,
    )


async def own_view(gateway: Gateway, call: Call) -> Answer:
    """Limits, spend and expiry of the calling key. Budgets of its teams and parents show what is left, not what others
    spent."""
    key = call.key
    expires = rfc3339(datetime.fromtimestamp(key.expires_at, UTC)) if key.expires_at is not None else None
    shown: dict[str, Any] = {
        "id": str(key.id),
        "name": key.name,
        "key": f"cdt_vk_{key.public_id}…",
        "expires_at": expires,
        "models": [name for name, _ in gateway.snapshot.routing.routes.listed() if key.may_use_model(name)],
        "endpoints": sorted(frozenset.intersection(*key.endpoint_rules)) if key.endpoint_rules else [],
        "max_output_tokens": key.max_output_tokens,
        "limits": [
            {"scope": scope.kind, "rpm": scope.rpm, "tpm": scope.tpm, "max_parallel": scope.max_parallel}
            for scope in key.rates
        ],
        "budgets": [],
        "tags": list(key.tags),
    }
    slices = gateway.holds.slices(key.budgets, gateway.now())
    with suppress(BankAway):  # then what this worker knows is shown
        await gateway.holds.look(slices)
    for budget, one in zip(key.budgets, slices, strict=True):
        item: dict[str, Any] = {
            "scope": budget.owner_kind,
            "window": budget.window,
            "kind": "hard" if budget.hard else "soft",
            "remaining_usd": format_usd(max(0, one.remaining)),
            "resets_at": rfc3339(one.ended_at) if one.ended_at else None,
        }
        if budget.owner_kind == "key":
            item |= {"limit_usd": format_usd(one.allowed), "settled_usd": format_usd(one.settled)}
        shown["budgets"].append(item)
    return Answer(200, [JSON, (b"cache-control", b"no-store")], orjson.dumps(shown))
