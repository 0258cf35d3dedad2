"""Where a request comes from, when reverse proxies stand before Conduit (CONDUIT_TRUSTED_PROXIES).

Without that setting the address is that of the connection and the headers are not looked at: anybody can send them.
With it, and only on a connection from a trusted proxy, the right-most address that is no trusted proxy counts, because
everything left of it was written by whoever is there. X-Forwarded-For and Forwarded are both read; a proxy appends to
one of them and passes the other on as the client sent it, so where they disagree neither is believed: the address is
then empty, which no allow-list holds.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any

from django.conf import settings

from conduit.core.errors import ConfigurationError

if TYPE_CHECKING:
    from django.http import HttpRequest
    from rest_framework.request import Request

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
LONGEST = 4096  # bytes of such headers; more than any chain of proxies writes
UNKNOWN = ""


def parse_proxies(texts: Iterable[str]) -> tuple[Network, ...]:
    """The setting's networks. Raises ConfigurationError naming the wrong one."""
    found = []
    for text in texts:
        try:
            found.append(ipaddress.ip_network(text))
        except ValueError:
            raise ConfigurationError(
                f'CONDUIT_TRUSTED_PROXIES holds {text!r}, which is no address or network such as "10.0.0.0/8".'
            ) from None
    return tuple(found)


def behind_proxies(scope: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The ASGI scope with the caller's own address as `client`; the scope itself where no proxy is trusted."""
    trusted: tuple[Network, ...] = settings.TRUSTED_PROXIES
    if not trusted:
        return scope
    client = scope.get("client")
    found = caller(client[0] if client else UNKNOWN, scope["headers"], trusted)
    return {**scope, "client": (found, client[1] if client else 0)}


def caller(peer: str, headers: Sequence[tuple[bytes, bytes]], trusted: Sequence[Network]) -> str:
    """The caller's address as text. `peer`: the connection's; `headers` in the order they came, names in lower case."""
    here = _address(peer)
    if here is None or not _holds(trusted, here):
        return peer
    claims = {name: _joined(headers, name) for name in (b"x-forwarded-for", b"forwarded")}
    sent = {name: text for name, text in claims.items() if text is not None}
    if not sent:
        return peer
    found = {_right_most(_hops(name, text), trusted) for name, text in sent.items()}
    return found.pop() if len(found) == 1 else UNKNOWN


def client_address(request: HttpRequest | Request) -> str:
    """Where a request of the control plane came from; empty where that is not known, as on a UNIX socket."""
    return str(request.META.get("REMOTE_ADDR") or UNKNOWN)


def _joined(headers: Sequence[tuple[bytes, bytes]], name: bytes) -> str | None:
    """All lines of a header as one; None where there is none."""
    lines = [value for key, value in headers if key == name]
    return b",".join(lines)[-LONGEST:].decode("latin-1") if lines else None


def _hops(name: bytes, text: str) -> list[Address | None]:
    """From the client to the nearest proxy; None for what is no address (`unknown`, `_hidden`, rubbish)."""
    parts = text.split(",")
    return [_address(_bare(part if name == b"x-forwarded-for" else _for(part))) for part in parts]


def _right_most(hops: Sequence[Address | None], trusted: Sequence[Network]) -> str:
    """Behind trusted proxies only: the farthest of them, which made the request itself."""
    last = UNKNOWN
    for hop in reversed(hops):
        if hop is None:
            return UNKNOWN
        last = str(hop)
        if not _holds(trusted, hop):
            return last
    return last


def _for(element: str) -> str:
    """The `for` of one element of Forwarded (RFC 7239). A quoted text with a comma in it is no address."""
    for pair in element.split(";"):
        name, _, value = pair.strip().partition("=")
        if name.lower() == "for":
            return value.strip().strip('"')
    return ""


def _bare(text: str) -> str:
    """Without the port: `192.0.2.1:4711`, `[2001:db8::1]:4711`."""
    text = text.strip()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text


def _address(text: str) -> Address | None:
    """An IPv4 address written as IPv6 becomes IPv4."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Address):
        if found.scope_id is not None:
            return None
        return found.ipv4_mapped or found
    return found


def _holds(networks: Sequence[Network], address: Address) -> bool:
    return any(address in network for network in networks)
