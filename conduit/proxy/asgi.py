"""The lean handler: bytes in with a limit, the DRF view, bytes out; and the probes.

It watches for the client's leaving (only once a request takes longer than LOOK_EVERY, because most do not) and then
cancels the work, which closes the upstream connection and settles what was streamed.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import aclosing, suppress
from typing import Any

import orjson
from django.conf import settings

from conduit.core.ids import request_id as make_request_id
from conduit.proxy import errors, metrics, paths, streaming
from conduit.proxy.call import JSON, Answer, Incoming
from conduit.proxy.errors import ApiError
from conduit.proxy.gateway import Gateway
from conduit.proxy.paths import Path
from conduit.proxy.stream_watch import Client, StreamWatch
from conduit.proxy.views import ProxyView, failure
from providers.adapters.types import Endpoint

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
LOOK_EVERY = 0.05
PROBES = ("/livez", "/readyz", "/startupz", "/metrics")


class ClientGone(Exception):
    """The client closed the connection before its request was complete."""


class ProxyHandler:
    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.streams = gateway.streams
        self._watches = _Watches()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        headers: dict[bytes, bytes] = dict(scope["headers"])
        request_id = make_request_id(headers.get(b"x-request-id", b"").decode("latin-1"))
        path = paths.find(scope["path"], headers, scope.get("query_string", b""), method=scope["method"])
        known = path or Path(paths.dialect_of(scope["path"]), Endpoint.CHAT, "", "")
        try:
            if path is None:
                raise errors.unknown_path(scope["path"])
            if path.method != scope["method"]:
                raise errors.method_not_allowed(scope["method"])
            body = await read_body(headers, receive, settings.MAX_BODY_BYTES)
        except ApiError as error:
            answer = failure(known, error, request_id)
            text = request_id.encode()
            answer.headers += [(b"x-request-id", text), (b"request-id", text), (b"connection", b"close")]
            await _write(answer, send)
            return
        except ClientGone:
            return
        source = scope.get("client")
        incoming = Incoming(
            request_id=request_id, body=body, headers=headers, address=source[0] if source else "", started=started
        )
        self.gateway.tally.in_flight += 1
        client = Client(self.gateway, send)
        watch = self._watches.add(_Watch(receive, started, client, self.streams))
        view = watch.view = ProxyView(gateway=self.gateway, path=path)
        try:
            await _answer(await view.dispatch(incoming), view, client, send)
        except asyncio.CancelledError:
            if not watch.fired:
                raise
        finally:  # also when the client left before there was an answer
            watch.stop()
            self._watches.discard(watch)
            self.gateway.tally.in_flight -= 1
            if view.call is not None:
                self.gateway.rates.release(view.call)
            if client.speaking is not None:
                await client.close()


class _Watches:
    """Requests too young to be watched. One timer for all of them, and only while there are any."""

    def __init__(self) -> None:
        self._young: dict[_Watch, None] = {}
        self._armed = False

    def add(self, watch: _Watch) -> _Watch:
        self._young[watch] = None
        if not self._armed:
            self._arm()
        return watch

    def discard(self, watch: _Watch) -> None:
        self._young.pop(watch, None)

    def _arm(self) -> None:
        self._armed = True
        asyncio.get_running_loop().call_later(LOOK_EVERY, self._look)

    def _look(self) -> None:
        self._armed = False
        latest = time.perf_counter() - LOOK_EVERY / 2
        for watch in [watch for watch in self._young if watch.started < latest]:
            del self._young[watch]
            watch.begin()
        if self._young:
            self._arm()


class _Watch:
    """Cancels the current task when the client goes away, unless what it asked for has to be read to its end.

    `started`: time.perf_counter() at the request's first byte. A request that takes longer is shown to `streams` too.
    """

    view: ProxyView

    def __init__(self, receive: Receive, started: float, client: Client, streams: StreamWatch) -> None:
        self.started = started
        self._receive, self._client, self._streams = receive, client, streams
        self._task = asyncio.current_task()
        self._watcher: asyncio.Task[None] | None = None
        self.fired = False

    def begin(self) -> None:
        self._watcher = asyncio.get_running_loop().create_task(self._wait())
        self._streams.add(self._client, lambda: self.view.call)

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        call = self.view.call
        if call is not None and call.whole:
            call.left = True
            return
        self.fired = True
        if self._task is not None:
            self._task.cancel()

    def stop(self) -> None:
        self._streams.discard(self._client)
        if self._watcher is not None and not self.fired:
            self._watcher.cancel()


async def read_body(headers: dict[bytes, bytes], receive: Receive, limit: int) -> bytes:
    """The whole body. Raises ApiError 413 over `limit` bytes, by the declared length or by what came."""
    declared = headers.get(b"content-length", b"")
    if declared.isdigit() and int(declared) > limit:
        raise errors.too_large(limit)
    event = await receive()
    if event["type"] == "http.disconnect":
        raise ClientGone
    body: bytes = event.get("body", b"")
    if not event.get("more_body", False):
        if len(body) > limit:
            raise errors.too_large(limit)
        return body
    parts, size = [body], len(body)
    while event.get("more_body", False):
        event = await receive()
        if event["type"] == "http.disconnect":
            raise ClientGone
        parts.append(event.get("body", b""))
        size += len(parts[-1])
        if size > limit:
            raise errors.too_large(limit)
    return b"".join(parts)


async def _answer(answer: Answer, view: ProxyView, client: Client, send: Send) -> None:
    """Writes what the client's stream has not been told yet: its head may have left while a provider was waited for."""
    if isinstance(answer.body, bytes):
        client.alone = True
        await client.quiet()
        if not client.begun:
            await _write(answer, send)
            return
        body = answer.body
        if view.error is not None and view.call is not None:
            body = streaming.broken(view.call, view.error)
        await send({"type": "http.response.body", "body": body})
        return
    async with aclosing(answer.body) as pieces:  # type: ignore[type-var]
        client.alone = True
        await client.quiet()
        if not client.begun:
            await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
        client.begun, client.alone = True, False
        async for piece in pieces:
            if client.speaking is not None:
                await client.quiet()
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        client.alone = True
        await client.quiet()
        await send({"type": "http.response.body", "body": b""})


async def _write(answer: Answer, send: Send) -> None:
    """A whole answer. Its body is bytes."""
    answer.headers.append((b"content-length", str(len(answer.body)).encode()))  # type: ignore[arg-type]
    await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
    await send({"type": "http.response.body", "body": answer.body})


class Probes:
    """/livez, /readyz, /startupz and /metrics: no credentials, no configuration revealed."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path == "/metrics":
            client = scope.get("client")
            if client and client[0] not in ("127.0.0.1", "::1") and not self._may_scrape(scope):
                await _write(Answer(404, [JSON], b"{}"), send)
                return
            kind = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")
            self.gateway.tally.flush()
            await _write(Answer(200, [kind], metrics.exposition()), send)
            return
        healthy = path == "/livez" or self._healthy()
        body = orjson.dumps({"status": "ok" if healthy else "unavailable"})
        await _write(Answer(200 if healthy else 503, [JSON], body), send)

    def _healthy(self) -> bool:
        with suppress(ApiError):
            self.gateway.check_serving()
            return True
        return False

    def _may_scrape(self, scope: Scope) -> bool:
        """Outside loopback /metrics wants `Authorization: Bearer CONDUIT_METRICS_TOKEN`."""
        token = settings.METRICS_TOKEN
        sent: bytes = dict(scope["headers"]).get(b"authorization", b"")
        return bool(token) and hmac.compare_digest(sent, b"Bearer " + token.encode())
