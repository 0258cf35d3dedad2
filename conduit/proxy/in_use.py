"""What is under way in this worker: which versions of credentials it uses, and the streams that a revocation ends.

A request that has begun goes on to its end whatever is changed meanwhile, but for two cases: its key may call no more
(other than by the end of its time), or the version of the credential behind it is revoked in an emergency. Then its
stream is cut. An answer that is not streamed is let through: it is billed anyway.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec
import structlog
from django.db import DatabaseError

from conduit.core.live import VersionUse
from conduit.proxy import errors
from conduit.proxy.errors import Withdrawn
from keys import entries
from keys.entries import Caller, KeyEntry
from providers import use
from providers.breaker import Breaker
from providers.routing import CredentialEntry
from providers.transport import UpstreamAnswer

if TYPE_CHECKING:
    from conduit.proxy.snapshot import Database

RETRY_SECONDS = 0.5
log = structlog.get_logger("conduit.in_use")


class Flight(msgspec.Struct, eq=False):
    """One attempt under way: `caller` is the key with its secret, `upstream` is there once the answer is streamed."""

    caller: Caller
    version: UUID
    upstream: UpstreamAnswer | None = None
    withdrawn: Withdrawn | None = None

    def streams(self, upstream: UpstreamAnswer) -> None:
        """Its answer has begun. Raises Withdrawn when it was revoked before."""
        if self.withdrawn is not None:
            raise self.withdrawn
        self.upstream = upstream

    def cut(self, error: Withdrawn) -> None:
        self.withdrawn = error
        if self.upstream is not None:
            self.upstream.abort(error)


class InUse:
    def __init__(self, database: Database, breaker: Breaker) -> None:
        self._database, self._breaker = database, breaker
        self._flights: set[Flight] = set()
        self._last: dict[UUID, tuple[UUID, int]] = {}
        self.changes = 0  # how many were told of; a request compares what it was let in under with what is now
        self._doubt_keys = self._doubt_versions = False
        self._doubt = asyncio.Event()

    def begin(self, key: KeyEntry, credential: CredentialEntry, time_us: int, *, changes: int) -> Flight:
        """`changes`: how many there were when the request was let in. Since then it may have waited for seconds."""
        flight = Flight((key.id, key.secret_id), credential.version_id)
        self._flights.add(flight)
        if changes != self.changes:
            self._look_again(keys=True, versions=True)
        self._last[credential.version_id] = (credential.id, time_us)
        return flight

    def end(self, flight: Flight) -> None:
        self._flights.discard(flight)

    def keys_changed(self) -> None:
        self.changes += 1
        if self._flights:
            self._look_again(keys=True)

    def versions_changed(self) -> None:
        self.changes += 1
        if self._flights:
            self._look_again(versions=True)

    def _look_again(self, *, keys: bool = False, versions: bool = False) -> None:
        self._doubt_keys, self._doubt_versions = self._doubt_keys or keys, self._doubt_versions or versions
        self._doubt.set()

    async def run(self) -> None:
        """Cuts what was revoked. For ever; ends by cancellation."""
        while True:
            await self._doubt.wait()
            self._doubt.clear()
            try:
                await self._look()
            except Exception as error:  # noqa: BLE001 (the task's edge: a worker that does not look cuts nothing)
                if not isinstance(error, DatabaseError):  # while that is away nobody else can revoke
                    log.error("look_failed", exc_info=error)
                self._doubt.set()
                await asyncio.sleep(RETRY_SECONDS)

    async def _look(self) -> None:
        """Raises DatabaseError; then both doubts stay. A doubt that comes meanwhile stays too."""
        keys, versions, self._doubt_keys, self._doubt_versions = self._doubt_keys, self._doubt_versions, False, False
        try:
            if keys:
                gone = await self._database.read(entries.withdrawn, {flight.caller for flight in self._flights})
                self._cut([flight for flight in self._flights if flight.caller in gone], errors.key_withdrawn())
            if versions:
                revoked = await self._database.read(use.revoked, {flight.version for flight in self._flights})
                hit = [flight for flight in self._flights if flight.version in revoked]
                self._cut(hit, errors.credential_withdrawn())
        except BaseException:
            self._doubt_keys, self._doubt_versions = self._doubt_keys or keys, self._doubt_versions or versions
            raise

    def _cut(self, hit: list[Flight], error: Withdrawn) -> None:
        for flight in hit:
            flight.cut(error)
        if hit:
            log.warning("streams_cut", number=len(hit), code=error.shown.code)

    def report(self) -> dict[str, VersionUse]:
        """By version id, for core.live: what is open, last used, tripped."""
        breaker = self._breaker
        found = {
            one: VersionUse(open=0, last=at / 1e6, tripped=breaker.until(one), why=breaker.why(one))
            for one, (_, at) in self._last.items()
        }
        for flight in self._flights:
            found[flight.version]["open"] += 1
        return {str(version): one for version, one in found.items()}

    def used(self) -> dict[UUID, float]:
        """Credential id to when it was last used (Unix seconds)."""
        latest: dict[UUID, float] = {}
        for credential, at in self._last.values():
            latest[credential] = max(at / 1e6, latest.get(credential, 0))
        return latest

    def keep(self, versions: set[UUID]) -> None:
        """Forgets versions that serve no more and have nothing under way."""
        wanted = versions | {flight.version for flight in self._flights}
        self._last = {version: last for version, last in self._last.items() if version in wanted}
        self._breaker.keep(wanted)
