"""May this key make this request? Each check refuses with an ApiError and leaves its numbers in the call's trace."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conduit.proxy import errors
from conduit.proxy.call import Call
from keys.entries import CustomerEntry
from providers.routing import RouteEntry, Routing

if TYPE_CHECKING:
    from conduit.proxy.gateway import Gateway

MAX_TAGS, MAX_TAG_CHARACTERS = 16, 64


def check_key(call: Call) -> None:
    """Address and endpoint: what can be said before the body is read."""
    check_address(call)
    check_endpoint(call)


def check_address(call: Call) -> None:
    if not call.key.may_come_from(call.address):
        call.trace.append({"check": "address", "ok": False, "address": call.address})
        raise errors.address_not_allowed()


def check_endpoint(call: Call) -> None:
    endpoint = call.path.endpoint.value
    if not call.key.may_use_endpoint(endpoint):
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
    check_model(call, name)
    return check_route(gateway.snapshot.routing, call, name)


def check_model(call: Call, name: str) -> None:
    if not call.key.may_use_model(name):
        call.trace.append({"check": "model", "ok": False, "model": name[:200]})
        raise errors.model_not_allowed(name)


def check_route(routing: Routing, call: Call, name: str) -> RouteEntry:
    route = routing.routes.get(name)
    if route is None:
        call.trace.append({"check": "route", "ok": False, "route": name[:200]})
        raise errors.model_not_found(name)
    return route


async def check_customer(gateway: Gateway, call: Call, name: str) -> None:
    """A customer of the key's team may be blocked or have budgets and rates of its own."""
    call.customer = name[:254]
    take_customer(call, await gateway.customer(call.key.team_id, call.customer) if name else None)


def take_customer(call: Call, entry: CustomerEntry | None) -> None:
    """The limits that the call is under; None: the customer has none of its own."""
    call.budgets, call.rates = call.key.budgets, call.key.rates
    if entry is None:
        return
    name = call.customer
    if entry.blocked:
        call.trace.append({"check": "customer", "ok": False, "customer": call.customer})
        raise errors.customer_blocked(name)
    call.budgets, call.rates = call.key.budgets + entry.budgets, call.key.rates + entry.rates
