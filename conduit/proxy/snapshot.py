"""The immutable picture the data plane works from, and the watcher that keeps it true.

A change raises the epoch row and notifies in its own transaction (migrations `0002_epoch`). The watcher listens and
polls the row every 250 ms, so a lost notification costs at most that. `keys:17:<id>` drops one key, a gap in the
numbers drops them all; `budget:<id>` and `lease:<period>:<worker>` are about money. While the database is away, what
is cached serves for CONDUIT_DATABASE_GRACE seconds.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import Any, ParamSpec, Protocol, TypeVar
from uuid import UUID

import msgspec
import psycopg
import structlog
from django.db import DatabaseError, OperationalError, connections

from conduit.core.models import Epoch
from providers import routing
from providers.catalogue import Matcher, matcher
from providers.routing import Routing, TargetEntry
from usage.pricing import PriceBook, PriceRow, load_book

POLL_SECONDS = 0.25
ANSWER_SECONDS = 3.0  # a database that hangs counts as away
RECONNECT_SECONDS = 0.5
CLOCKS_APART = 0.05  # seconds; less is not worth correcting
_POLL = "SELECT snapshot, keys, extract(epoch FROM clock_timestamp()) FROM core_epoch WHERE id = 1"
log = structlog.get_logger("conduit.snapshot")
P = ParamSpec("P")
R = TypeVar("R")


class Snapshot(msgspec.Struct, frozen=True):
    routing: Routing
    prices: PriceBook

    def price(self, target: TargetEntry) -> PriceRow | None:
        """The price in force now for this target's model."""
        provider = target.provider
        return self.prices.find(
            vendor=provider.vendor,
            model=target.model,
            known_as=provider.known_as(target.model),
            provider_id=provider.id,
            at=datetime.now(UTC),
        )


class Pictures:
    """Draws one snapshot after the other. Models and prices are thousands of rows and change seldom: they are read
    again only when their own epoch has moved. Synchronous: runs in a thread of the control plane."""

    def __init__(self) -> None:
        self._known: tuple[int, Matcher, PriceBook] | None = None

    def load(self) -> Snapshot:
        epoch = Epoch.objects.values_list("catalogue", flat=True).get(id=1)  # first: what changes later moves it again
        if self._known is None or self._known[0] != epoch:
            found = matcher()
            self._known = epoch, found, load_book(found.names)
        _, found, prices = self._known
        return Snapshot(routing.load(found), prices)


class Database:
    """The data plane's only way to the ORM: threads of its own. A reload never stands before a request's look-up."""

    def __init__(self) -> None:
        self._reloads = ThreadPoolExecutor(max_workers=1, thread_name_prefix="reload")
        self._lookups = ThreadPoolExecutor(max_workers=2, thread_name_prefix="look-up")
        self._writes = ThreadPoolExecutor(max_workers=1, thread_name_prefix="write")

    async def run(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """However long it takes."""
        return await asyncio.get_running_loop().run_in_executor(self._reloads, partial(_job, call, *args, **kwargs))

    async def soon(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """For what a request waits for. Raises DatabaseError after ANSWER_SECONDS."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                job = partial(_job, call, *args, **kwargs)
                return await asyncio.get_running_loop().run_in_executor(self._lookups, job)
        except TimeoutError as error:
            raise OperationalError(f"no answer in {ANSWER_SECONDS:.0f} seconds") from error

    async def read(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """`soon`, for what changes nothing: asked again where the database cut the connection under the question."""
        return await self.soon(_again, partial(call, *args, **kwargs))

    async def write(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """What may wait for its turn among the changes: it stands before nobody's look-up. Raises DatabaseError."""
        return await asyncio.get_running_loop().run_in_executor(self._writes, partial(_job, call, *args, **kwargs))

    def close(self) -> None:
        for threads in (self._reloads, self._lookups, self._writes):
            threads.shutdown(wait=False, cancel_futures=True)


def _job(call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    try:
        return call(*args, **kwargs)
    finally:
        connections.close_all()


def _again(call: Callable[[], R]) -> R:
    """Once more after a cut: a restart or a failover ends also a connection that was found alive a moment ago. A
    database that takes its time is not asked twice."""
    began = time.monotonic()
    try:
        return call()
    except OperationalError:
        if time.monotonic() - began > ANSWER_SECONDS / 3:
            raise
    connections.close_all()
    return call()


def renew_connections() -> None:
    """What ended one connection of this process most likely ended those in the pool as well. Where the other end went
    without a word, each would be found dead by one question, after the network's own time."""
    pool = connections["default"].pool  # type: ignore[attr-defined]
    if pool is not None:
        pool.drain()


def connection_parameters() -> dict[str, Any]:
    parameters = connections["default"].get_connection_params()
    wanted = ("host", "port", "user", "password", "dbname", "sslmode", "sslrootcert")
    return {name: parameters[name] for name in wanted if parameters.get(name)}


class Watched(Protocol):
    """Who is told."""

    async def snapshot_changed(self) -> None: ...

    def keys_changed(self, key: UUID | None) -> None:
        """One key, or any."""
        ...

    def budget_changed(self, budget: UUID) -> None: ...

    def lease_wanted(self, period: int, worker: UUID) -> None:
        """Another worker lacks money of this period."""
        ...


class Watcher:
    """Tells one listener what changes: the epochs' moves for sure, calls for leases as they come."""

    def __init__(self, told: Watched) -> None:
        self._told = told
        self.offset = 0.0  # seconds that the database's clock is ahead of ours; windows go by the database's
        self._epochs = {"snapshot": -1, "keys": -1}
        self.last_contact = 0.0  # monotonic seconds
        self._connected = False

    @property
    def snapshot(self) -> int:
        """The epoch of the configuration that was loaded last."""
        return self._epochs["snapshot"]

    def away(self) -> float:
        """Seconds since the database last answered."""
        return time.monotonic() - self.last_contact

    async def run(self) -> None:
        """For ever; ends by cancellation."""
        while True:
            try:
                connection = await psycopg.AsyncConnection.connect(
                    **connection_parameters(), autocommit=True, connect_timeout=5
                )
                async with connection:
                    await connection.execute("LISTEN conduit")
                    await self._follow(connection)
            except (psycopg.Error, DatabaseError, OSError, TimeoutError) as error:
                if self._connected:
                    log.warning("database_away", reason=(str(error).strip() or type(error).__name__).splitlines()[0])
                    await asyncio.to_thread(renew_connections)
                self._connected = False
            except Exception as error:  # noqa: BLE001 (the task's edge: a worker that sees no change revokes nothing)
                log.error("reload_failed", exc_info=error)
            await asyncio.sleep(RECONNECT_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311 (spreads reconnects)

    async def _follow(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connected = True
        while True:
            await self._poll(connection)
            async for notice in connection.notifies(timeout=POLL_SECONDS, stop_after=1):
                await self._noticed(notice.payload)

    async def _poll(self, connection: psycopg.AsyncConnection[Any]) -> None:
        async with asyncio.timeout(ANSWER_SECONDS):
            asked = time.time()
            cursor = await connection.execute(_POLL)
            row = await cursor.fetchone()
        if row is None:
            return
        snapshot, keys, clock = row
        self._set_clock(asked, float(clock), time.time())
        if snapshot != self._epochs["snapshot"]:
            await self._told.snapshot_changed()
            self._epochs["snapshot"] = snapshot
        if keys != self._epochs["keys"]:
            self._told.keys_changed(None)
            self._epochs["keys"] = keys
        self.last_contact = time.monotonic()

    def _set_clock(self, asked: float, theirs: float, answered: float) -> None:
        """A difference that the round trip itself may explain is none."""
        offset = theirs - (asked + answered) / 2
        self.offset = offset if abs(offset) > max(CLOCKS_APART, answered - asked) else 0.0

    async def _noticed(self, payload: str) -> None:
        topic, _, rest = payload.partition(":")
        epoch, _, subject = rest.partition(":")
        if topic == "lease":
            self._told.lease_wanted(int(epoch), UUID(subject))
        elif topic == "budget":
            self._told.budget_changed(UUID(rest))
        if topic not in self._epochs or not epoch.isdigit():
            return
        if topic == "keys" and int(epoch) == self._epochs["keys"] + 1 and subject:
            self._told.keys_changed(UUID(subject))
            self._epochs["keys"] = int(epoch)
        # everything else is read by the poll that follows at once
