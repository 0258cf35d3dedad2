"""May this key make this request? Each check refuses with an ApiError and leaves its numbers in the call's trace."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conduit.proxy import errors
from conduit.proxy.call import Call
from providers.routing import RouteEntry

if TYPE_CHECKING:
    from conduit.proxy.gateway import Gateway

MAX_TAGS, MAX_TAG_CHARACTERS = 16, 64


def check_key(call: Call) -> None:
    """Address and endpoint: what can be said before the body is read."""
    key = call.key
    if not key.may_come_from(call.address):
        call.trace.append({"check": "address", "ok": False, "address": call.address})
        raise errors.address_not_allowed()
    endpoint = call.path.endpoint.value
    if not key.may_use_endpoint(endpoint):
        call.trace.append({"check": "endpoint", "ok": False, "endpoint": endpoint})
        raise errors.endpoint_not_allowed(endpoint)


def read_tags(call: Call) -> None:
    """The key's own tags and those of `x-conduit-tags: a,b`."""
    sent = call.headers.get(b"x-conduit-tags", b"").decode("latin-1")
    tags = [tag.strip() for tag in sent.split(",") if tag.strip()] if sent else []
    if len(tags) > MAX_TAGS or any(len(tag) > MAX_TAG_CHARACTERS for tag in tags):
        message = f"at most {MAX_TAGS} tags of at most {MAX_TAG_CHARACTERS} characters"
        raise errors.invalid_value("x-conduit-tags", f"x-conduit-tags: {message}.")
    call.tags = list(dict.fromkeys([*call.key.tags, *tags]))


def find_route(gateway: Gateway, call: Call, name: str) -> RouteEntry:
    """The route of this name, if the key may use it."""
    if not call.key.may_use_model(name):
        call.trace.append({"check": "model", "ok": False, "model": name[:200]})
        raise errors.model_not_allowed(name)
    route = gateway.snapshot.routing.routes.get(name)
    if route is None:
        call.trace.append({"check": "route", "ok": False, "route": name[:200]})
        raise errors.model_not_found(name)
    return route


async def check_customer(gateway: Gateway, call: Call, name: str) -> None:
    """A customer of the key's team may be blocked or have budgets and rates of its own."""
    call.customer = name[:254]
    call.budgets, call.rates = call.key.budgets, call.key.rates
    entry = await gateway.customer(call.key.team_id, call.customer) if name else None
    if entry is None:
        return
    if entry.blocked:
        call.trace.append({"check": "customer", "ok": False, "customer": call.customer})
        raise errors.customer_blocked(name)
    call.budgets, call.rates = call.key.budgets + entry.budgets, call.key.rates + entry.rates
