"""Which upstream addresses may be called: one policy for the control plane (httpx) and the data plane (aiohttp).

    check_url(url, allow=…)             at save: form, scheme, address literals, known local names; no I/O
    check_call(url, allow=…)            the same at each call, for a URL that may have a query
    resolve(host, port, allow=…)        at connect: DNS, then only permitted addresses; connect to one of these
    resolve_async(…)                    the same for an aiohttp resolver
    client(allow=…)                     httpx client that connects to a checked address and follows nothing

`allow` holds entries of CONDUIT_EGRESS_ALLOW: a host name, an address, a network, each but the last also with `:port`.
A name entry opens private and loopback addresses for that name, never link-local or metadata ones: whoever controls
the name's DNS must not reach those. A cloud's metadata address is opened by an entry of exactly that address only.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import ssl
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as ResolveTimeout
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import SplitResult, urlsplit

import certifi
import httpx
import idna

from conduit.core.errors import InvalidInput
from providers.errors import ConnectFailed, EgressRefused

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

RESOLVE_SECONDS = 5.0
CALL_SECONDS = 10.0
MAX_URL = 2_000  # a request's; a base URL's column holds 500
_NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)", re.ASCII)
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]*", re.ASCII)
_FORBIDDEN = re.compile(r"[\x00-\x20\x7f\\]")
_LOCAL_NAMES = ("localhost", "ip6-localhost", "ip6-loopback", "localhost.localdomain")
_METADATA_NAMES = (
    "metadata",
    "metadata.google.internal",
    "metadata.goog",
    "instance-data",
    "instance-data.ec2.internal",
    "metadata.tencentyun.com",
    "metadata.platformequinix.com",
)


def _networks(*texts: str) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)


# Clouds' metadata and host services, wherever they lie; two of them are ordinary-looking public addresses.
_METADATA = _networks(
    "169.254.169.254/32",  # AWS, Google, Azure, Oracle, DigitalOcean, Hetzner, OpenStack
    "169.254.169.253/32",  # AWS resolver
    "169.254.169.123/32",  # AWS time
    "169.254.170.2/32",  # AWS container credentials
    "169.254.170.23/32",  # AWS pod identity
    "169.254.0.23/32",  # Tencent
    "169.254.42.42/32",  # Scaleway
    "100.100.100.200/32",  # Alibaba
    "168.63.129.16/32",  # Azure host
    "192.0.0.192/32",  # Oracle
    "fd00:ec2::254/128",  # AWS
    "fd00:ec2::23/128",  # AWS pod identity
    "fd00:c1::a9fe:a9fe/128",  # Oracle
    "fd00:42::42/128",  # Scaleway
    "fd20:ce::254/128",  # Google
)
# What a host-name entry may open.
_PRIVATE = _networks(
    *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8", "100.64.0.0/10", "fc00::/7", "::1/128")
)
# Not global although some Python versions think so, and addresses that carry another one inside.
_NEVER_PUBLIC = _networks(
    *("0.0.0.0/8", "192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24"),
    *("192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
    *("::/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"),
    *("5f00::/16", "fec0::/10", "ff00::/8", "fe80::/10"),
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class _Entry:
    """One entry of the allow list: a network or a name, and a port unless any will do."""

    network: Network | None
    name: str
    port: int | None


@lru_cache(maxsize=64)
def _parsed(allow: tuple[str, ...]) -> tuple[_Entry, ...]:
    return tuple(_entry(text.strip().lower()) for text in allow if text.strip())


def _entry(text: str) -> _Entry:
    """An address or network, with or without port, else a name. What is neither matches nothing."""
    try:
        return _Entry(ipaddress.ip_network(text, strict=False), "", None)
    except ValueError:
        pass
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit():
        return _Entry(None, text, None)
    try:
        return _Entry(ipaddress.ip_network(host.strip("[]")), "", int(port))
    except ValueError:
        return _Entry(None, host, int(port))


def _entries(allow: Iterable[str], port: int | None) -> list[_Entry]:
    """Entries that hold for this port. port None: unknown, so only entries for any port count."""
    return [entry for entry in _parsed(tuple(allow)) if entry.port is None or entry.port == port]


def _within(address: Address, networks: Iterable[Network]) -> bool:
    return any(address.version == network.version and address in network for network in networks)


def _plain(ip: str) -> Address | None:
    """The address meant by canonical text; an IPv4-mapped one is the IPv4 address that the kernel would call."""
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            return None
        return address.ipv4_mapped or address
    return address


def check_address(ip: str, allow: Sequence[str], *, port: int | None = None) -> bool:
    """Whether this address may be called: it is public, or an address or network of `allow` holds it."""
    address = _plain(ip)
    if address is None or address.is_unspecified:
        return False
    opened = [e.network for e in _entries(allow, port) if e.network is not None and _within(address, [e.network])]
    if _within(address, _METADATA):
        return any(network.num_addresses == 1 for network in opened)
    if isinstance(address, ipaddress.IPv6Address) and address in _NAT64:
        inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        return bool(opened) and check_address(str(inner), allow, port=port)
    if opened:
        return True
    return address.is_global and not address.is_multicast and not _within(address, _NEVER_PUBLIC)


def _named(host: str, allow: Sequence[str], port: int | None) -> bool:
    """Whether a name entry of `allow` is this host."""
    return any(entry.network is None and entry.name == host for entry in _entries(allow, port))


def permitted(host: str, addresses: Iterable[str], *, allow: Sequence[str], port: int | None = None) -> list[str]:
    """Those of the addresses that `host` resolved to which may be called, in order; IPv4-mapped ones unwrapped."""
    named = _named(host.lower(), allow, port)
    kept: dict[str, None] = {}
    for text in addresses:
        address = _plain(text)
        if address is None:
            continue
        private = named and _within(address, _PRIVATE) and not _within(address, _METADATA)
        if private or check_address(text, allow, port=port):
            kept[str(address)] = None
    return list(kept)


def _refuse(detail: str, code: str) -> InvalidInput:
    return InvalidInput("base_url", detail, code)


def _split(url: str) -> SplitResult:
    """The parts of a base URL in plain form. Raises InvalidInput for forms that two parsers may read differently."""
    if not url or len(url) > MAX_URL:
        raise _refuse(f"must be a URL of at most {MAX_URL} characters", "invalid_url")
    if _FORBIDDEN.search(url):
        raise _refuse("must not contain spaces, control characters or backslashes", "invalid_url")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _refuse("is not a URL", "invalid_url") from None
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise _refuse("must start with https:// (or http:// for hosts in CONDUIT_EGRESS_ALLOW)", "scheme_not_allowed")
    if "@" in parts.netloc:
        raise _refuse("must not contain a user name or password", "userinfo_not_allowed")
    if "?" in url or "#" in url:
        raise _refuse("must not contain a query or fragment", "invalid_url")
    if port == 0 or parts.netloc.endswith(":"):
        raise _refuse("has no usable port", "invalid_url")
    return parts


def host_of(url: str) -> str:
    """The host of a base URL in lower-case ASCII (IDNA), an address in canonical form. Raises InvalidInput."""
    parts = _split(url)
    host = parts.hostname or ""
    if parts.netloc.startswith("["):
        address = _plain(host)
        if address is None:
            raise _refuse("has an IPv6 address that is not plain (zone ids are not allowed)", "address_form")
        return str(address)
    if "%" in host:
        raise _refuse("must not contain percent signs in the host", "invalid_url")
    try:
        host = host if host.isascii() else idna.encode(host, uts46=True).decode()
    except idna.IDNAError:
        raise _refuse("has a host name that is not valid IDNA", "invalid_url") from None
    # A last label that is a number makes parsers read the whole as IPv4, in octal, hex or short forms too.
    if _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]):
        address = _plain(host)
        if address is None:
            raise _refuse("has a number as host: write four decimal numbers, no trailing dot", "address_form")
        return str(address)
    if len(host) > 253 or not all(_NAME.fullmatch(label) for label in host.lower().split(".")):
        raise _refuse("has a host name that is not valid (no trailing dot, no empty label)", "invalid_url")
    return host.lower()


def port_of(url: str) -> int:
    parts = _split(url)
    return parts.port or (443 if parts.scheme == "https" else 80)


def _is_local_name(host: str) -> bool:
    return host in _LOCAL_NAMES or host.endswith(".localhost")


def check_url(url: str, *, allow: Sequence[str]) -> None:
    """Whether a base URL may be saved and called; no I/O. Raises InvalidInput("base_url", reason).

    Plain http is for hosts of the allow list only: elsewhere the credential would travel readable.
    """
    host, port = host_of(url), port_of(url)
    fix = f"Add {host} to CONDUIT_EGRESS_ALLOW if it is meant."
    literal = _plain(host)
    if literal is not None:
        if not check_address(host, allow, port=port):
            raise _refuse(f"{host} is a private, local or reserved address. {fix}", "address_not_allowed")
        opened = any(e.network is not None and _within(literal, [e.network]) for e in _entries(allow, port))
    else:
        opened = _named(host, allow, port)
        if _is_local_name(host):
            opened = opened or any(check_address(ip, allow, port=port) for ip in ("127.0.0.1", "::1"))
        if not opened and (_is_local_name(host) or host in _METADATA_NAMES):
            raise _refuse(f"{host} is a local name. {fix}", "address_not_allowed")
    if url.startswith("http:") and not opened:
        raise _refuse(f"must be https: the credential would travel readable. {fix}", "scheme_not_allowed")


def opened(url: str, *, allow: Sequence[str]) -> bool:
    """Whether an entry of the allow list names this host, or holds it where it is an address."""
    host, port = host_of(url), port_of(url)
    literal = _plain(host)
    if literal is None:
        return _named(host, allow, port)
    return any(e.network is not None and _within(literal, [e.network]) for e in _entries(allow, port))


def check_call(url: str, *, allow: Sequence[str]) -> None:
    """As check_url for the whole address of a request, which may have a query. Raises EgressRefused."""
    head, question, _ = url.partition("?")
    try:
        check_url(head if question else url, allow=allow)
    except InvalidInput as refused:
        raise EgressRefused(refused.detail) from None


def check_resolved(url: str, *, allow: Sequence[str]) -> None:
    """At save, after check_url: refuses a name that by now resolves to forbidden addresses only.

    A name that does not resolve passes: the address is checked again whenever it is called.
    """
    try:
        resolve(host_of(url), port_of(url), allow=allow)
    except EgressRefused as error:
        raise _refuse(error.message, "address_not_allowed") from None
    except ConnectFailed:
        return


def _lookup(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return [str(entry[4][0]) for entry in found]


def _judged(host: str, port: int, addresses: Iterable[str], allow: Sequence[str]) -> list[str]:
    kept = permitted(host, addresses, allow=allow, port=port)
    if not kept:
        raise EgressRefused(f"{host} resolves to private, local or reserved addresses only (see CONDUIT_EGRESS_ALLOW)")
    return kept


def resolve(host: str, port: int, *, allow: Sequence[str], seconds: float = RESOLVE_SECONDS) -> list[str]:
    """Addresses to connect to, checked now: connect to one of these, not to the name again (DNS may change its mind).

    Raises EgressRefused when none is permitted, ConnectFailed when the name does not resolve in time.
    """
    if _plain(host) is not None:
        return _judged(host, port, [host], allow)
    # getaddrinfo cannot be given a deadline; a thread that overstays is left to end by itself.
    pool = ThreadPoolExecutor(1, thread_name_prefix="resolve")
    try:
        addresses = pool.submit(_lookup, host, port).result(seconds)
    except (OSError, UnicodeError, ResolveTimeout):
        raise ConnectFailed(f"{host} does not resolve: check the host name and this machine's DNS") from None
    finally:
        pool.shutdown(wait=False)
    return _judged(host, port, addresses, allow)


async def resolve_async(host: str, port: int, *, allow: Sequence[str], seconds: float = RESOLVE_SECONDS) -> list[str]:
    """As `resolve`, for an aiohttp resolver. aiohttp resolves no address literals: call check_url for those first."""
    if _plain(host) is not None:
        return _judged(host, port, [host], allow)
    loop = asyncio.get_running_loop()
    lookup = loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    try:
        found = await asyncio.wait_for(lookup, seconds)
    except (OSError, UnicodeError, TimeoutError):
        raise ConnectFailed(f"{host} does not resolve: check the host name and this machine's DNS") from None
    return _judged(host, port, [str(entry[4][0]) for entry in found], allow)


@lru_cache(maxsize=1)
def tls_context() -> ssl.SSLContext:
    """The machine's trusted authorities (SSL_CERT_FILE included) and certifi's, for images that have none."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


class PinnedTransport(httpx.BaseTransport):
    """Resolves and checks by itself, connects to the checked address, and keeps the name for TLS and Host."""

    def __init__(self, allow: Sequence[str]) -> None:
        self._allow = tuple(allow)
        # No connection is kept: the pool's key is the address, so that two names there would share one TLS session.
        limits = httpx.Limits(max_keepalive_connections=0)
        self._inner = httpx.HTTPTransport(verify=tls_context(), trust_env=False, limits=limits)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Raises EgressRefused or ConnectFailed before anything is sent, httpx's own errors after."""
        host = request.url.host
        check_call(str(request.url), allow=self._allow)
        port = request.url.port or (443 if request.url.scheme == "https" else 80)
        failure: httpx.ConnectError | httpx.ConnectTimeout | None = None
        for address in resolve(host, port, allow=self._allow)[:4]:
            try:
                return self._inner.handle_request(_pinned(request, host, address))
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failure = error
        raise ConnectFailed(f"{host} could not be reached: {failure or 'timed out'}") from failure

    def close(self) -> None:
        self._inner.close()


def _pinned(request: httpx.Request, host: str, address: str) -> httpx.Request:
    extensions: dict[str, Any] = dict(request.extensions)
    if host != address:
        extensions["sni_hostname"] = host
    return httpx.Request(
        request.method,
        request.url.copy_with(host=address),
        headers=request.headers,
        stream=request.stream,
        extensions=extensions,
    )


def client(*, allow: Sequence[str], seconds: float = CALL_SECONDS) -> httpx.Client:
    """A control-plane client: no redirects, no proxy or .netrc from the environment, only permitted addresses."""
    return httpx.Client(
        transport=PinnedTransport(allow),
        timeout=seconds,
        follow_redirects=False,
        trust_env=False,
        headers={"accept-encoding": "identity"},
    )
