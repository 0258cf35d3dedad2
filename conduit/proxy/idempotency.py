"""`idempotency-key` on a request: the same key and request within a day gets the same answer again, billed once.

A record is claimed in PostgreSQL before the request runs (one round trip) and filled with the sealed answer before
the client has its last byte (one more); requests without the header pay nothing. Only a whole, successful answer is
kept. After anything else (refused, failed, broken off, cancelled, the worker killed, or larger than MAX_KEPT_BYTES)
the key is free again: a repeat runs anew and is billed as a request of its own, even where the first may have been.

A record belongs to one virtual key and is found by a keyed digest; neither the key's text nor the body is stored.
"""

from __future__ import annotations

import asyncio
import hmac
import random
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import msgspec
import structlog
from django.db import DatabaseError, connection

from conduit.core import idempotency, keyring
from conduit.proxy import admission, errors, metrics
from conduit.proxy.call import Answer, Call, Headers
from conduit.proxy.snapshot import Database
from keys.entries import KeyEntry

if TYPE_CHECKING:
    from conduit.proxy.gateway import Gateway

HEADER = b"idempotency-key"
MAX_KEPT_BYTES = 8 * 1024 * 1024
WAIT_SECONDS = 10.0  # for the first request of the same key
ASK_AGAIN = 2.0  # what a client is told when that was not enough
POLL_SECONDS = 0.2  # for one that runs in another process
ALIVE_SECONDS = 60.0  # after its worker died, a record can be taken over
RENEW_SECONDS = 15.0
KEPT_HEADERS = (b"content-type", b"cache-control", b"x-conduit-provider", b"x-conduit-model", b"x-conduit-attempts") + (
    b"x-conduit-cache",
    b"x-conduit-cost-usd",
    b"x-conduit-dropped-params",
)
log = structlog.get_logger("conduit.idempotency")
# A concurrent claim is not yet visible to the second part: then there is no row, and the caller asks again.
_CLAIM = """
WITH claimed AS (
  INSERT INTO core_idempotentcall AS held (scope, request, run, alive_until, created_at)
  VALUES (%(scope)s, %(request)s, %(run)s, now() + %(alive)s * interval '1 second', now())
  ON CONFLICT (scope) DO UPDATE SET request = excluded.request, run = excluded.run, status = NULL, reply = NULL,
    alive_until = excluded.alive_until, created_at = excluded.created_at
  WHERE (held.status IS NULL AND held.alive_until < now()) OR held.created_at < now() - %(kept)s * interval '1 second'
  RETURNING run
)
SELECT run, NULL::bytea, NULL::smallint, NULL::bytea FROM claimed
UNION ALL
SELECT run, request, status, reply FROM core_idempotentcall
WHERE scope = %(scope)s AND NOT EXISTS (SELECT 1 FROM claimed)
"""
_FILL = "UPDATE core_idempotentcall SET status = %s, reply = %s WHERE scope = %s AND run = %s"
_FREE = "DELETE FROM core_idempotentcall WHERE scope = %s AND run = %s AND status IS NULL"
_RENEW = (
    "UPDATE core_idempotentcall SET alive_until = now() + %s * interval '1 second' "
    "WHERE run = ANY(%s) AND status IS NULL"
)


class Kept(msgspec.Struct):
    """An answer as it is stored. `request_id` is that of the request which made it."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    request_id: str


class Claim(msgspec.Struct, frozen=True):
    """The right to make this request: nobody else makes it while the claim is renewed."""

    scope: bytes
    request: bytes
    run: UUID


class Reused(Exception):
    """The key was used with another request."""


class IdempotentCalls:
    """One worker's requests that carry the header. `run` is the only thing that a request calls."""

    def __init__(self) -> None:
        self._database = Database()
        self._here: dict[tuple[UUID, str], asyncio.Future[None]] = {}  # done when the one under way has ended
        self._claims: set[UUID] = set()
        self._renewing: asyncio.Task[None] | None = None
        self._storing: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.gather(self._renewing, return_exceptions=True)
        await asyncio.gather(*self._storing, return_exceptions=True)
        self._database.close()

    async def run(self, gateway: Gateway, call: Call, act: Callable[[], Awaitable[Answer]]) -> Answer:
        """The answer of `act`, or the kept answer of the same request before. Raises ApiError 400, 409, 422, 503."""
        text = call.headers[HEADER].decode("latin-1").strip()
        if not idempotency.valid_key(text):
            raise errors.invalid_value(HEADER.decode(), f"idempotency-key: {idempotency.KEY_RULE}")
        admission.check_key(call)  # also for an answer that is only replayed
        name = (call.key.id, text)
        found = await self._claim(call, name)
        if isinstance(found, Kept):
            return _replayed(gateway, call, found)
        self._here[name] = asyncio.get_running_loop().create_future()
        try:
            answer = await act()
        except BaseException:
            self._later(self._end(name, found, None))
            raise
        if isinstance(answer.body, bytes):
            kept = _kept(call, answer, answer.body)
            await asyncio.shield(self._later(self._end(name, found, kept)))
        else:
            answer.body = self._recorded(call, answer, answer.body, name, found)
            await anext(answer.body)  # now it runs, and its `finally` frees the key whatever happens
        return answer

    async def _claim(self, call: Call, name: tuple[UUID, str]) -> Claim | Kept:
        deadline = time.monotonic() + min(WAIT_SECONDS, call.timeout or WAIT_SECONDS)
        run, asked = uuid4(), _parts(call)
        while True:
            here = self._here.get(name)
            if here is not None:
                await _ended(here, deadline)
            found = await self._ask(call.key, name[1], asked, run)
            if found is not None:
                return found
            if time.monotonic() >= deadline:
                raise errors.idempotency_in_flight(ASK_AGAIN)
            if name not in self._here:
                await asyncio.sleep(POLL_SECONDS * random.uniform(0.5, 1))  # noqa: S311 (spreads the askers)

    async def _ask(self, key: KeyEntry, text: str, asked: list[str | int | bytes], run: UUID) -> Claim | Kept | None:
        late = threading.Event()
        asking = asyncio.ensure_future(self._database.soon(_claimed, key, text, asked, run, late))
        try:
            found = await asyncio.shield(asking)
        except asyncio.CancelledError:  # the client left; what is claimed meanwhile must not stay so
            asking.add_done_callback(self._unclaim)
            raise
        except DatabaseError as error:
            late.set()  # the thread may yet succeed
            raise errors.idempotency_unavailable() from error
        except Reused:
            raise errors.idempotency_key_reused() from None
        if isinstance(found, Claim):
            self._claims.add(found.run)
            if self._renewing is None:
                self._renewing = asyncio.get_running_loop().create_task(self._renew(), name="idempotent calls")
        return found

    def _unclaim(self, asked: asyncio.Future[Claim | Kept | None]) -> None:
        found = None if asked.cancelled() or asked.exception() else asked.result()
        if isinstance(found, Claim):
            self._later(self._store(found, None))

    async def _recorded(
        self, call: Call, answer: Answer, body: AsyncIterator[bytes], name: tuple[UUID, str], claim: Claim
    ) -> AsyncIterator[bytes]:
        """The stream as it is; its end is held back until the whole is kept."""
        pieces: list[bytes] | None = []
        size, kept = 0, None
        try:
            async with aclosing(body) as stream:  # type: ignore[type-var]
                yield b""
                async for piece in stream:
                    size += len(piece)
                    if size > MAX_KEPT_BYTES:
                        pieces = None
                    if pieces is not None:
                        pieces.append(piece)
                    yield piece
            if pieces is not None and not call.broken:
                kept = _kept(call, answer, b"".join(pieces))
        finally:
            stored = self._later(self._end(name, claim, kept))
        await asyncio.shield(stored)

    async def _end(self, name: tuple[UUID, str], claim: Claim, kept: Kept | None) -> None:
        try:
            await self._store(claim, kept)
        finally:
            self._here.pop(name).set_result(None)

    async def _store(self, claim: Claim, kept: Kept | None) -> None:
        try:
            await self._database.soon(_filled, claim, kept)
        except DatabaseError as error:  # the answer is good all the same; the claim runs out by itself
            log.warning("idempotent_answer_not_kept", reason=str(error).strip().splitlines()[0])
        finally:
            self._claims.discard(claim.run)

    def _later(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """In a task of its own: the client may leave, the record must be ended."""
        task = asyncio.get_running_loop().create_task(work)
        self._storing.add(task)
        task.add_done_callback(self._storing.discard)
        return task

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            if self._claims:
                with suppress(DatabaseError):  # tried again soon, long before it runs out
                    await self._database.soon(_renewed, list(self._claims))


async def _ended(here: asyncio.Future[None], deadline: float) -> None:
    try:
        async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
            await asyncio.shield(here)
    except TimeoutError:
        raise errors.idempotency_in_flight(ASK_AGAIN) from None


def _parts(call: Call) -> list[str | int | bytes]:
    """What makes two requests the same: path and body, byte for byte."""
    path = call.path
    return [path.dialect.value, path.endpoint.value, path.action, path.model, path.stream, path.array, call.body]


def _kept(call: Call, answer: Answer, body: bytes) -> Kept | None:
    if answer.status >= 300 or len(body) > MAX_KEPT_BYTES:
        return None
    headers = [(name, value) for name, value in answer.headers if name in KEPT_HEADERS]
    return Kept(answer.status, headers, body, call.request_id)


def _replayed(gateway: Gateway, call: Call, kept: Kept) -> Answer:
    """Not an attempt and not billed: it leaves a line in the request log and a count, and no usage event."""
    gateway.tally.add(metrics.REPLAYED, (call.path.endpoint.value,))
    gateway.request_log.write(
        {
            "time_us": time.time_ns() // 1000,
            "request_id": call.request_id,
            "key": call.key.public_id,
            "endpoint": call.path.endpoint.value,
            "status": kept.status,
            "outcome": "replayed",
            "original": kept.request_id,
        }
    )
    told: Headers = [
        (b"x-conduit-idempotent-replay", b"true"),
        (b"x-conduit-original-request-id", kept.request_id.encode()),
    ]
    return Answer(kept.status, [*kept.headers, *told], kept.body)


# --- in a thread ---------------------------------------------------------------------------------------------------


def _claimed(
    key: KeyEntry, text: str, asked: list[str | int | bytes], run: UUID, late: threading.Event
) -> Claim | Kept | None:
    """None: the first request is still under way. Nothing stays claimed when it is too `late` by then.

    Raises Reused, DatabaseError.
    """
    _, secret = keyring.purpose_key(idempotency.PURPOSE)
    scope = idempotency.digest(secret, "idempotent call", key.id.bytes, text)
    request = idempotency.digest(secret, "idempotent request", *asked)
    wanted: dict[str, Any] = {"scope": scope, "request": request, "run": run}
    wanted |= {"alive": ALIVE_SECONDS, "kept": idempotency.KEPT.total_seconds()}
    with connection.cursor() as cursor:
        cursor.execute(_CLAIM, wanted)
        row = cursor.fetchone()
    if row is None:
        return None
    owner, before, status, reply = row
    if before is None:
        claim = Claim(scope, request, owner)
        if late.is_set():
            _filled(claim, None)
        return claim
    if not hmac.compare_digest(bytes(before), request):
        raise Reused
    if status is None:
        return None
    return msgspec.msgpack.decode(idempotency.open_reply(bytes(reply), _context(scope, request, status)), type=Kept)


def _filled(claim: Claim, kept: Kept | None) -> None:
    with connection.cursor() as cursor:
        if kept is None:
            cursor.execute(_FREE, [claim.scope, claim.run])
            return
        version, secret = keyring.purpose_key(idempotency.PURPOSE)
        plain = msgspec.msgpack.encode(kept)
        sealed = idempotency.seal_reply(version, secret, plain, _context(claim.scope, claim.request, kept.status))
        cursor.execute(_FILL, [kept.status, sealed, claim.scope, claim.run])


def _renewed(runs: list[UUID]) -> None:
    with connection.cursor() as cursor:
        cursor.execute(_RENEW, [ALIVE_SECONDS, runs])


def _context(scope: bytes, request: bytes, status: int) -> bytes:
    return keyring.context("idempotent answer", scope, request, status)
