"""One worker's state: the snapshot, caches, journal, transport and limits that a request needs, started and stopped."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from uuid import UUID

import structlog
from django.conf import settings
from django.db import DatabaseError
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from conduit.core import keyring, live
from conduit.core.ids import uuid7
from conduit.core.once import Once
from conduit.proxy import errors, metrics
from conduit.proxy.bank import PostgresBank
from conduit.proxy.errors import ApiError
from conduit.proxy.idempotency import IdempotentCalls
from conduit.proxy.in_use import InUse
from conduit.proxy.rate_gate import RateGate
from conduit.proxy.rejections import Rejections
from conduit.proxy.request_log import RequestLog
from conduit.proxy.responses import Responses
from conduit.proxy.responses_background import Background
from conduit.proxy.snapshot import Database, Pictures, Snapshot, Watcher
from conduit.proxy.stream_watch import StreamWatch, configured
from keys import entries, peppers
from keys.authentication import KeyCache
from keys.entries import BudgetEntry, CustomerEntry, KeyEntry
from keys.holds import Holds
from keys.leases import BankAway
from keys.limits import VALKEY_DEADLINE, RateLimits
from keys.peppers import Peppers
from keys.slices import Hold, Request
from keys.use import Uses
from providers import supply, use
from providers.breaker import Breaker
from providers.candidates import Watch
from providers.health import Health
from providers.routing import ProviderEntry, TargetEntry
from providers.transport import Transport
from usage.journal import JournalWriter
from usage.node import node_id
from usage.pricing import PriceRow

CACHED_CUSTOMERS = 50_000
TICK_SECONDS = 1.0
STOP_SECONDS = 30.0  # what runs may go on, once the worker is asked to end
SUPPLY_ROUNDS = 3  # a token's fields may be read from elsewhere before the token is: each round finds what to read next
PEPPERS_SECONDS = 10.0
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
        self.responses, self.background = Responses(), Background()
        self.streams = StreamWatch(configured())
        self.stops_by = 0.0  # monotonic seconds until which what runs may end; 0: nobody has asked for the end
        self.tally = metrics.Tally()
        self.uses = Uses()
        self.ready = False
        self.draining = False
        self._database = Database()
        self.breaker = Breaker()
        self.health = Health()
        self.watch = Watch(self.breaker, self.health)
        self.in_use = InUse(self._database, self.breaker)
        self.rejections = Rejections(self._database, self.breaker)
        self._customers: OrderedDict[tuple[UUID | None, str], CustomerEntry | None] = OrderedDict()
        self._customers_loading: Once[CustomerEntry | None] = Once()
        self._provider_budgets: dict[UUID, tuple[BudgetEntry, ...]] = {}
        self._provider_budgets_changed = True
        self._prices: dict[tuple[UUID, str], PriceRow | None] = {}
        self._pictures = Pictures()
        self._watcher = Watcher(self)
        self._supplied = supply.generation()  # what the snapshot was drawn with
        self._wished = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    # --- life

    async def start(self) -> None:
        await self._database.run(keyring.check_database)
        self._peppers = Peppers(await self._database.run(keyring.purpose_keys, "pepper"), self._load_peppers)
        self._peppers_due = 0.0
        self.keys = KeyCache(self._load_key, self._peppers, self._load_stored)
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
        for _ in range(SUPPLY_ROUNDS):
            if not await self._supply():
                break
        self._tasks.append(asyncio.create_task(self._watcher.run(), name="watcher"))
        self._tasks.append(asyncio.create_task(self._supply_forever(), name="supply"))
        self._tasks.append(asyncio.create_task(self.holds.run(), name="holds"))
        self._tasks.append(asyncio.create_task(self._tick_forever(), name="tick"))
        self._tasks.append(asyncio.create_task(self.in_use.run(), name="in use"))
        self._tasks.append(asyncio.create_task(self._report_forever(), name="report"))
        self._tasks.append(asyncio.create_task(self.uses.run(self._database.write), name="uses"))
        self.ready = True

    async def stop(self) -> None:
        """New requests are refused from here on; what runs has ended when the server calls this."""
        self.ready = False
        await self.background.close((self.stops_by or time.monotonic() + STOP_SECONDS) - time.monotonic())
        for task in self._tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await self.rejections.close()
        await self.uses.flush(self._database.write)
        with suppress(BankAway):  # then they come back with the journal
            await self.holds.give_back()
        with suppress(DatabaseError):
            await self._database.write(live.leave, self.worker)
        await self._bank.close()
        await self.transport.close()
        await self.rates.limits.close()
        await self.idempotent.close()
        self.responses.close()
        await self._valkey.aclose()
        self.journal.close()
        self.request_log.close()
        self._database.close()

    def end_soon(self) -> None:
        """The server takes no more connections; `stop` comes when what they asked for has ended."""
        self.stops_by = time.monotonic() + STOP_SECONDS

    # --- what the watcher calls

    async def snapshot_changed(self) -> None:
        supplied = supply.generation()
        fresh = await self._database.run(self._pictures.load)
        self.snapshot, self._supplied = fresh, supplied
        if supply.wished():
            self._wished.set()
        self._prices.clear()
        self.in_use.keep(fresh.routing.versions())
        self.in_use.versions_changed()
        self.health.keep(set(fresh.routing.providers))
        for provider in fresh.routing.providers.values():
            for name in provider.unreadable:
                log.error("credential_unreadable", provider=provider.name, credential=name)

    def keys_changed(self, key: UUID | None) -> None:
        self.keys.drop(key)
        self.in_use.keys_changed()
        self._customers.clear()
        if key is None:
            self._provider_budgets_changed = True

    def budget_changed(self, budget: UUID) -> None:
        self.holds.doubt(budget)

    def lease_wanted(self, period: int, worker: UUID) -> None:
        if worker != self.worker:
            self.holds.recalled(period)

    async def _supply_forever(self) -> None:
        """Reads secrets from elsewhere and tokens ahead: on no request's way, nor where revocations are heard."""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wished.wait(), TICK_SECONDS)
            self._wished.clear()
            await self._supply()

    async def _supply(self) -> bool:
        """Whether what may serve has changed, and was loaded again."""
        try:
            await asyncio.to_thread(supply.refresh_due)
            if supply.generation() == self._supplied:
                return False
            await self.snapshot_changed()
        except Exception as error:  # noqa: BLE001 (the task's edge: what was read before goes on serving)
            log.error("supply_failed", exc_info=error)
            return False
        return True

    async def _tick_forever(self) -> None:
        """Whether the database is there or not: what is flushed, renewed and given back here must not wait for it."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            try:
                await self._tick()
            except Exception as error:  # noqa: BLE001 (the task's edge: the next tick tries again)
                log.error("tick_failed", exc_info=error)

    async def _report_forever(self) -> None:
        """What gates ask about before something is taken away (core/live.py)."""
        while True:
            try:
                await self._database.write(self._report, self.in_use.report(), self.in_use.used(), self.health.report())
            except Exception as error:  # noqa: BLE001 (the task's edge: who is not heard of counts as gone)
                if not isinstance(error, DatabaseError):
                    log.error("report_failed", exc_info=error)
            await asyncio.sleep(live.REPORT_SECONDS)

    def _report(
        self, versions: dict[str, live.VersionUse], used: dict[UUID, float], targets: list[live.TargetTrouble]
    ) -> None:
        ring = keyring.ring()
        live.report(
            self.worker,
            kind="web",
            node=node_id(),
            pid=os.getpid(),
            snapshot=self._watcher.snapshot,
            keks=ring.checks(),
            primary=ring.primary,
            versions=versions,
            targets=targets,
        )
        use.note(used)

    async def _tick(self) -> None:
        self._prices.clear()
        self.request_log.flush()
        self.tally.flush()
        metrics.SNAPSHOT_AGE.set(self.database_away())
        metrics.show_breakers(Counter(self._names_of_open()))
        metrics.WAITING.set(self.holds.waiting)
        metrics.EXCHANGES.inc(self._bank.take_questions())
        await self.rates.limits.tick()
        with suppress(BankAway, DatabaseError, ApiError):  # the watcher tells
            await self.holds.tick(self.now())
            if self._provider_budgets_changed:
                await self._load_provider_budgets()
            await self._follow_peppers()

    def _names_of_open(self) -> Iterator[tuple[str, str]]:
        """Provider and model of each target whose breaker is open."""
        providers = self.snapshot.routing.providers
        for (provider, model), _ in self.health.open():
            if provider in providers:
                yield providers[provider].name, model

    async def _follow_peppers(self) -> None:
        """A new version of the pepper makes every key read again at its next use, which then moves to it."""
        if moves := self._peppers.due():
            await self._database.write(peppers.repepper, moves)
        if time.monotonic() >= self._peppers_due:
            self._peppers_due = time.monotonic() + PEPPERS_SECONDS
            if await self._peppers.renew():
                self.keys.drop()

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
            entry = await self._database.read(entries.load, public_id)
            if entry is not None:
                await self._follow(entry.budgets)
        except DatabaseError as error:
            raise errors.not_ready("The gateway cannot look this key up: its database cannot be reached.") from error
        return entry

    async def _load_stored(self, public_id: str) -> tuple[int, bytes]:
        try:
            return await self._database.read(entries.stored, public_id)
        except DatabaseError as error:
            raise errors.not_ready("The gateway cannot look this key up: its database cannot be reached.") from error

    async def _load_peppers(self) -> dict[int, bytes]:
        try:
            return await self._database.read(keyring.purpose_keys, "pepper")
        except DatabaseError as error:
            raise errors.not_ready("The gateway cannot look this key up: its database cannot be reached.") from error

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
            found = await self._database.read(entries.load_provider_budgets)
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
            entry = await self._database.read(entries.load_customer, team, name)
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
