"""When keys were last used, and who still calls with which secret while a key has two.

The data plane notes in memory (one set or dict operation a request) and writes every few seconds: the last use of a
secret and its key at most once a minute, requests by source address only while there are two secrets to tell apart.
What a worker had noted and not written when it was killed is lost; nothing is decided by these figures.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from django.db import DatabaseError, connection
from django.db.models import Max, Sum

from conduit.core.clock import now
from keys.entries import KeyEntry
from keys.models import KeySecret, SecretUse

EVERY = 2.0  # seconds between two writes
AGAIN = 60.0  # seconds after which a last use is written anew
SLICE = 300  # seconds
KEPT = timedelta(days=1)
ADDRESSES = 64  # of one secret in one slice; the rest is counted together
PLACES = 10_000  # (secret, address) that one worker keeps between two writes
SHOWN = 8
log = structlog.get_logger("conduit.keys")

_LAST = """
UPDATE {table} AS t SET last_used_at = greatest(t.last_used_at, %s) FROM (
  SELECT id FROM {table} WHERE {where} ORDER BY id FOR NO KEY UPDATE
) AS due WHERE t.id = due.id
"""
_LAST_OF_SECRETS = _LAST.format(table="keys_keysecret", where="id = ANY(%s)")
_LAST_OF_KEYS = _LAST.format(
    table="keys_virtualkey", where="id IN (SELECT key_id FROM keys_keysecret WHERE id = ANY(%s))"
)
_COUNT = """
INSERT INTO keys_secretuse AS u (secret_id, address, slice_at, requests, last_used_at)
  SELECT s.id, n.address, %s, n.requests, %s
    FROM unnest(%s::bigint[], %s::text[], %s::bigint[]) AS n (secret, address, requests)
    JOIN keys_keysecret s ON s.id = n.secret ORDER BY s.id, n.address
  ON CONFLICT (secret_id, address, slice_at) DO UPDATE
    SET requests = u.requests + excluded.requests, last_used_at = greatest(u.last_used_at, excluded.last_used_at)
"""


@dataclass(slots=True)
class Notes:
    """`used`: secrets whose last use is to be written. `counted`: (secret, address) → requests."""

    used: list[int]
    counted: dict[tuple[int, str], int]


class Uses:
    """One worker's notes. Used by the event loop's thread only."""

    def __init__(self) -> None:
        self._used: set[int] = set()
        self._counted: Counter[tuple[int, str]] = Counter()
        self._written: dict[int, float] = {}  # secret → monotonic seconds, of the last minute or two
        self._pruned = 0.0

    def note(self, key: KeyEntry, address: str) -> None:
        """A request came with this secret, whatever becomes of it."""
        if not key.rotating:
            self._used.add(key.secret_id)
            return
        place = (key.secret_id, address if len(self._counted) < PLACES else "")
        self._counted[place] += 1

    def take(self, at: float) -> Notes | None:
        """What is due at `at` (monotonic seconds), or None."""
        counted, self._counted = dict(self._counted), Counter()
        self._used.update(secret for secret, _ in counted)
        used = sorted(secret for secret in self._used if at - self._written.get(secret, -AGAIN) >= AGAIN)
        self._used.clear()
        if at - self._pruned >= AGAIN:
            self._written = {secret: then for secret, then in self._written.items() if at - then < AGAIN}
            self._pruned = at
        self._written |= dict.fromkeys(used, at)
        return Notes(used, counted) if used or counted else None

    def put_back(self, notes: Notes) -> None:
        """They could not be written: the next time then."""
        self._used.update(notes.used)
        for secret in notes.used:
            self._written.pop(secret, None)
        for place, requests in notes.counted.items():
            self._counted[place if len(self._counted) < PLACES else (place[0], "")] += requests

    async def flush(self, save: Callable[[Callable[[Notes], None], Notes], Awaitable[None]]) -> None:
        """`save(write, notes)` runs it in a thread; on DatabaseError the notes stay."""
        notes = self.take(time.monotonic())
        if notes is None:
            return
        try:
            await save(write, notes)
        except DatabaseError as error:
            self.put_back(notes)
            log.warning("use_not_written", reason=(str(error).strip() or type(error).__name__).splitlines()[0])

    async def run(self, save: Callable[[Callable[[Notes], None], Notes], Awaitable[None]]) -> None:
        """For ever; ends by cancellation."""
        while True:
            await asyncio.sleep(EVERY)
            await self.flush(save)


def write(notes: Notes) -> None:
    """Synchronous. Each statement is a transaction of its own: none waits for a row while it holds another kind."""
    at = now()
    if notes.counted:
        _write_counts(notes.counted, at)
    if notes.used:
        with connection.cursor() as cursor:
            cursor.execute(_LAST_OF_SECRETS, [at, notes.used])
            cursor.execute(_LAST_OF_KEYS, [at, notes.used])


def _write_counts(counted: dict[tuple[int, str], int], at: datetime) -> None:
    slice_at = datetime.fromtimestamp(at.timestamp() // SLICE * SLICE, UTC)
    known: dict[int, set[str]] = defaultdict(set)
    rows = SecretUse.objects.filter(secret__in={secret for secret, _ in counted}, slice_at=slice_at)
    for secret, address in rows.values_list("secret_id", "address"):
        known[secret].add(address)
    sums: Counter[tuple[int, str]] = Counter()
    for (secret, address), requests in counted.items():
        if address not in known[secret] and len(known[secret]) >= ADDRESSES:
            address = ""
        known[secret].add(address)
        sums[secret, address] += requests
    columns = [list(column) for column in zip(*((s, a[:45], n) for (s, a), n in sums.items()), strict=True)]
    with connection.cursor() as cursor:
        cursor.execute(_COUNT, [slice_at, at, *columns])


def forget_old() -> int:
    """Deletes counts older than a day; how many rows."""
    return SecretUse.objects.filter(slice_at__lt=now() - KEPT).delete()[0]


@dataclass(slots=True)
class Caller:
    """Requests of the last hour from one address; empty: all the others together."""

    address: str
    requests: int
    last_used_at: datetime


@dataclass(slots=True)
class Use:
    """Of one secret. `last_hour` None: not counted, because the key has (or had) only one."""

    last_used_at: datetime | None
    last_hour: int | None = None
    callers: list[Caller] = field(default_factory=list)


def of_secrets(secrets: Sequence[KeySecret], at: datetime) -> dict[int, Use]:
    """By id. An hour is what the slices that began within it hold."""
    found = {secret.id: Use(secret.last_used_at) for secret in secrets}
    rows: Any = SecretUse.objects.filter(secret__in=found)
    for secret, last in rows.values_list("secret").annotate(last=Max("last_used_at")):
        found[secret].last_hour = 0
        found[secret].last_used_at = max(last, found[secret].last_used_at or last)
    hour = rows.filter(slice_at__gt=at - timedelta(hours=1)).values("secret", "address")
    for row in hour.annotate(count=Sum("requests"), last=Max("last_used_at")).order_by("-count", "address"):
        use = found[row["secret"]]
        use.last_hour = (use.last_hour or 0) + row["count"]
        use.callers.append(Caller(row["address"], row["count"], row["last"]))
    return found
