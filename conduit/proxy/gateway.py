"""One worker's state: the snapshot, caches, journal, transport and limits that a request needs, started and stopped."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from uuid import UUID

import structlog
from django.conf import settings
from django.db import DatabaseError
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from conduit.core import keyring
from conduit.core.ids import uuid7
from conduit.core.once import Once
from conduit.proxy import errors, metrics, snapshot
from conduit.proxy.bank import PostgresBank
from conduit.proxy.errors import ApiError
from conduit.proxy.idempotency import IdempotentCalls
from conduit.proxy.rate_gate import RateGate
from conduit.proxy.request_log import RequestLog
from conduit.proxy.snapshot import Database, Snapshot, Watcher
from keys import entries
from keys.authentication import KeyCache
from keys.entries import BudgetEntry, CustomerEntry, KeyEntry
from keys.holds import Holds
from keys.leases import BankAway
from keys.limits import VALKEY_DEADLINE, RateLimits
from keys.slices import Hold, Request
from providers.routing import ProviderEntry, TargetEntry
from providers.transport import Transport
from usage.journal import JournalWriter
from usage.node import node_id
from usage.pricing import PriceRow

CACHED_CUSTOMERS = 50_000
TICK_SECONDS = 1.0
log = structlog.get_logger("conduit.gateway")


class Gateway:
    """Made when a worker starts; `start` returns once it can serve."""

    snapshot: Snapshot
    keys: KeyCache
    journal: JournalWriter
    transport: Transport
    holds: Holds
    rates: RateGate
    request_log: RequestLog

    def __init__(self) -> None:
        self.rng = random.Random()  # noqa: S311 (draws by weight)
        self.idempotent = IdempotentCalls()
        self.tally = metrics.Tally()
        self.ready = False
        self.draining = False
        self._database = Database()
        self._customers: OrderedDict[tuple[UUID | None, str], CustomerEntry | None] = OrderedDict()
        self._customers_loading: Once[CustomerEntry | None] = Once()
        self._provider_budgets: dict[UUID, tuple[BudgetEntry, ...]] = {}
        self._provider_budgets_changed = True
        self._prices: dict[tuple[UUID, str], PriceRow | None] = {}
        self._watcher = Watcher(self)
        self._tasks: list[asyncio.Task[None]] = []

    # --- life

    async def start(self) -> None:
        await self._database.run(keyring.check_database)
        pepper = await self._database.run(keyring.purpose_key, "pepper")
        self.keys = KeyCache(self._load_key, {pepper[0]: pepper[1]})
        self.worker = uuid7()
        worker = self.worker.hex
        self.journal = JournalWriter(settings.JOURNAL_DIR, node_id(), worker, settings.JOURNAL_FSYNC)
        self._bank = PostgresBank(self.worker, node_id())
        self.holds = Holds(self._bank)
        self.request_log = RequestLog(settings.CONDUIT_HOME / "log" / f"requests-{os.getpid()}.jsonl")
        self.transport = Transport(egress_allowed())
        valkey = Redis.from_url(
            settings.VALKEY_URL,
            socket_timeout=VALKEY_DEADLINE,
            socket_connect_timeout=VALKEY_DEADLINE,
            retry=Retry(NoBackoff(), 0),  # keys.limits has its own answer to an engine that is away
        )
        self._valkey = valkey
        self.rates = RateGate(RateLimits(valkey, worker))
        await self.snapshot_changed()
        await self._load_provider_budgets()
        self._tasks.append(asyncio.create_task(self._watcher.run(), name="watcher"))
        self._tasks.append(asyncio.create_task(self.holds.run(), name="holds"))
        self._tasks.append(asyncio.create_task(self._tick_forever(), name="tick"))
        self.ready = True

    async def stop(self) -> None:
        """New requests are refused from here on; what runs has ended when the server calls this."""
        self.ready = False
        for task in self._tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        with suppress(BankAway):  # then they come back with the journal
            await self.holds.give_back()
        await self._bank.close()
        await self.transport.close()
        await self.rates.limits.close()
        await self.idempotent.close()
        await self._valkey.aclose()
        self.journal.close()
        self.request_log.close()
        self._database.close()

    # --- what the watcher calls

    async def snapshot_changed(self) -> None:
        fresh = await self._database.run(snapshot.load)
        self.snapshot = fresh
        self._prices.clear()
        for provider in fresh.routing.providers.values():
            for name in provider.unreadable:
                log.error("credential_unreadable", provider=provider.name, credential=name)

    def keys_changed(self, key: UUID | None) -> None:
        self.keys.drop(key)
        self._customers.clear()
        if key is None:
            self._provider_budgets_changed = True

    def budget_changed(self, budget: UUID) -> None:
        self.holds.doubt(budget)

    def lease_wanted(self, period: int, worker: UUID) -> None:
        if worker != self.worker:
            self.holds.recalled(period)

    async def _tick_forever(self) -> None:
        """Whether the database is there or not: what is flushed, renewed and given back here must not wait for it."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            try:
                await self._tick()
            except Exception as error:  # noqa: BLE001 (the task's edge: the next tick tries again)
                log.error("tick_failed", exc_info=error)

    async def _tick(self) -> None:
        self._prices.clear()
        self.request_log.flush()
        self.tally.flush()
        metrics.SNAPSHOT_AGE.set(self.database_away())
        metrics.WAITING.set(self.holds.waiting)
        metrics.EXCHANGES.inc(self._bank.take_questions())
        await self.rates.limits.tick()
        with suppress(BankAway, DatabaseError, ApiError):  # the watcher tells
            await self.holds.tick(self.now())
            if self._provider_budgets_changed:
                await self._load_provider_budgets()

    # --- what a request asks

    def database_away(self) -> float:
        """Seconds since the database last answered; 0 while it is there."""
        away = self._watcher.away()
        return 0.0 if away < 2.0 or self._watcher.last_contact == 0.0 else away

    def now(self) -> float:
        """Unix seconds by the database's clock, which decides in which window money is spent."""
        return time.time() + self._watcher.offset

    def check_serving(self) -> None:
        """Raises ApiError 503 when nothing may be admitted: starting, draining, out of grace, or no room to record."""
        if not self.ready or self.draining:
            raise errors.not_ready("The gateway is starting or stopping.")
        if self.database_away() > settings.CONDUIT_DATABASE_GRACE:
            raise errors.budget_unavailable()
        if not self.journal.accepting:
            raise errors.not_ready("The gateway has no room left to record requests.")

    async def _load_key(self, public_id: str) -> KeyEntry | None:
        try:
            entry = await self._database.soon(entries.load, public_id)
            if entry is not None:
                await self._follow(entry.budgets)
        except DatabaseError as error:
            raise errors.not_ready("The gateway cannot look this key up: its database cannot be reached.") from error
        return entry

    async def _follow(self, budgets: tuple[BudgetEntry, ...]) -> None:
        if budgets:
            try:
                await self.holds.follow(budgets, self.now())
            except BankAway as error:
                raise errors.budget_unavailable() from error

    def provider_budgets(self, provider: ProviderEntry) -> tuple[BudgetEntry, ...]:
        """What may be spent there by everybody together."""
        return self._provider_budgets.get(provider.id, ())

    async def _load_provider_budgets(self) -> None:
        """Raises DatabaseError or ApiError; then those known before stay in force."""
        self._provider_budgets_changed = False
        try:
            found = await self._database.soon(entries.load_provider_budgets)
            await self._follow(tuple(budget for budgets in found.values() for budget in budgets))
        except BaseException:
            self._provider_budgets_changed = True
            raise
        self._provider_budgets = found

    async def hold(self, budgets: Sequence[BudgetEntry], request: Request) -> tuple[Hold, int]:
        """The hold, and the instant it counts at in microseconds. Raises keys.holds.Refused."""
        while True:
            at = self.now()
            hold = await self.holds.obtain(self.holds.slices(budgets, at), request)
            now = self.now()
            if all(one.start <= now < one.end for one in hold.slices):
                return hold, int(now * 1e6)
            self.holds.settle(hold, 0)  # the window ended while it waited

    async def customer(self, team: UUID | None, name: str) -> CustomerEntry | None:
        key = (team, name)
        if key in self._customers:
            return self._customers[key]
        return await self._customers_loading.get(key, partial(self._load_customer, team, name))

    async def _load_customer(self, team: UUID | None, name: str) -> CustomerEntry | None:
        try:
            entry = await self._database.soon(entries.load_customer, team, name)
            if entry is not None:
                await self._follow(entry.budgets)
        except DatabaseError as error:
            raise errors.budget_unavailable() from error
        self._customers[team, name] = entry
        if len(self._customers) > CACHED_CUSTOMERS:
            self._customers.popitem(last=False)
        return entry

    def price(self, target: TargetEntry) -> PriceRow | None:
        """The price in force, looked up once a second."""
        key = (target.provider.id, target.model)
        try:
            return self._prices[key]
        except KeyError:
            row = self._prices[key] = self.snapshot.price(target)
            return row


def egress_allowed() -> tuple[str, ...]:
    """The operator's allow list, and the sandbox where it runs."""
    own = (f"127.0.0.1:{settings.SANDBOX_PORT}",) if settings.CONDUIT_SANDBOX else ()
    return (*settings.CONDUIT_EGRESS_ALLOW, *own)
