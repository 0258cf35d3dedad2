"""The data plane's HTTP client: one aiohttp session per worker behind two small types.

Everything that can go wrong is translated here, by one table, into providers.errors. Cancelling a read closes the
upstream connection at once. No redirects, no proxies or .netrc from the environment, addresses checked by the egress
policy when they are resolved and pinned by connecting to just those.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from conduit.core.clock import now
from providers import egress
from providers.adapters.base import UpstreamRequest
from providers.adapters.sigv4 import signature_headers
from providers.errors import ConnectFailed, InvalidResponse, UpstreamCut, UpstreamError, UpstreamTimeout

CONNECT_SECONDS = 10.0
IDLE_SECONDS = 300.0
MAX_ANSWER_BYTES = 64 * 1024 * 1024
KNOWN_URLS = 4096
_ENCODED = ("gzip", "deflate", "br", "zstd")


class PinnedResolver(AbstractResolver):
    """Answers only addresses that the egress policy permits; aiohttp then connects to just those."""

    def __init__(self, allow: Sequence[str]) -> None:
        self._allow = allow

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        addresses = await egress.resolve_async(host, port, allow=self._allow)
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in addresses
        ]

    async def close(self) -> None:
        """Nothing is held."""


class UpstreamAnswer:
    """An answer whose head has come. Use as `async with`: leaving it early closes the connection."""

    __slots__ = ("_aborted", "_over", "_response", "headers", "status")

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self._aborted: UpstreamError | None = None
        self._over = False
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers

    async def read(self, limit: int = MAX_ANSWER_BYTES) -> bytes:
        """The whole body. Raises InvalidResponse when it is larger than `limit` bytes."""
        length = self._response.content_length
        if length is not None and length > limit:
            raise InvalidResponse(f"The provider's answer is larger than {limit} bytes.", status=self.status)
        try:
            if length is not None:
                return await self._response.read()
            parts, size = [], 0
            async for part in self._response.content.iter_any():
                size += len(part)
                if size > limit:
                    raise InvalidResponse(f"The provider's answer is larger than {limit} bytes.", status=self.status)
                parts.append(part)
            return b"".join(parts)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise translate(error, sent=True) from error

    async def more(self) -> bytes:
        """The body as it comes, in pieces of whatever size the socket gave; empty at its end."""
        try:
            if self._aborted is None:
                return await self._response.content.readany()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            if self._over:
                return b""
            if self._aborted is None:
                raise translate(error, sent=True) from error
        raise self._aborted

    def untimed(self) -> None:
        """Nobody waits for single bytes of it any more: aiohttp's timer would be moved with each of them."""
        connection = self._response.connection
        if connection is not None and connection.protocol is not None:
            connection.protocol.read_timeout = None
            connection.protocol.start_timeout()  # which ends the one that runs

    def abort(self, error: UpstreamError) -> None:
        """Closes the connection; who reads the body, now or later, gets `error`."""
        self._aborted = error
        self._response.close()

    def end(self) -> None:
        """Closes the connection of a body that is whole already: who reads on finds its end."""
        self._over = True
        self._response.close()

    def arrived(self) -> bytes:
        """What came and was not read yet, without waiting."""
        content = self._response.content
        return b"" if content.exception() else content.read_nowait()

    def finish(self) -> None:
        """The body was read whole: the connection may serve the next request."""
        self._response.release()

    def close(self) -> None:
        """Closes the connection unless the body was read whole. Safe to call twice."""
        self._response.close()


class Transport:
    """Owns the session. `allow`: entries of the egress policy's allow list."""

    def __init__(self, allow: Sequence[str]) -> None:
        self._allow = allow
        connector = aiohttp.TCPConnector(
            limit=0,
            resolver=PinnedResolver(allow),
            ttl_dns_cache=30,
            keepalive_timeout=30,
            enable_cleanup_closed=False,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            auto_decompress=False,
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent",),
            max_line_size=16_384,
            max_field_size=16_384,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=IDLE_SECONDS),
        )
        self._urls: dict[str, URL] = {}

    async def send(
        self,
        request: UpstreamRequest,
        *,
        timeout: float | None = None,  # noqa: ASYNC109
        idle: float = IDLE_SECONDS,
    ) -> UpstreamAnswer:
        """Sends and waits for the head. `timeout`: seconds for the whole exchange, `idle`: for its head and between two
        pieces of its body. Raises UpstreamError."""
        url = self._urls.get(request.url) or self._checked(request.url)
        options: dict[str, Any] = {}
        if timeout is not None or idle != IDLE_SECONDS:
            options["timeout"] = _timeouts(timeout, idle)
        try:
            response = await self._session.request(
                request.method, url, data=request.body, headers=signed(request), allow_redirects=False, **options
            )
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise translate(error, sent=False) from error
        if response.headers.get("content-encoding", "identity").lower() in _ENCODED:
            response.close()
            raise InvalidResponse("The provider compressed its answer although that was not asked for.")
        return UpstreamAnswer(response)

    def _checked(self, text: str) -> URL:
        """Parses an address once. Literals never reach the resolver, so they are judged here."""
        egress.check_call(text, allow=self._allow)
        if len(self._urls) > KNOWN_URLS:
            self._urls.clear()
        url = self._urls[text] = URL(text, encoded=True)
        return url

    async def close(self) -> None:
        await self._session.close()


@lru_cache(64)
def _timeouts(total: float | None, idle: float) -> aiohttp.ClientTimeout:
    longest = math.inf if total is None else total
    return aiohttp.ClientTimeout(total=total, sock_connect=min(longest, CONNECT_SECONDS), sock_read=min(longest, idle))


def signed(request: UpstreamRequest) -> dict[str, str]:
    """The headers to send: with a signature of this moment where the request carries keys for one."""
    if request.signing is None:
        return request.headers
    own = signature_headers(request.method, request.url, request.headers, request.body, request.signing, now())
    return {**request.headers, **own}


def translate(error: Exception, *, sent: bool) -> UpstreamError:
    """aiohttp's and the socket's errors as ours. `sent`: the head of the answer had already come."""
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return ConnectFailed("The provider could not be reached in time.")
    if isinstance(error, TimeoutError):
        return UpstreamTimeout("The provider did not answer in time.")
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return ConnectFailed("The provider's host name could not be resolved.")
    if isinstance(error, (aiohttp.ClientConnectorCertificateError, aiohttp.ClientSSLError)):
        return ConnectFailed("The provider's TLS certificate could not be verified.")
    if isinstance(error, aiohttp.ClientConnectorError):
        return ConnectFailed("The provider could not be reached.")
    if isinstance(error, (aiohttp.ClientResponseError, aiohttp.ClientPayloadError)) and not sent:
        return InvalidResponse("The provider's answer is not valid HTTP.")
    if isinstance(error, ValueError) and not sent and not isinstance(error, aiohttp.ClientError):
        return InvalidResponse("The provider's address or answer is not valid.")
    return UpstreamCut("The provider closed the connection before its answer was complete.")
