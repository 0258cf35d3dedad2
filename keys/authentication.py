"""Who calls the proxy: raw key to KeyEntry, from a bounded cache by full digest; one query on a miss.

Unknown, disabled, expired and revoked keys give the same answer in the same way. A malformed key (checksum) costs no
query. The cache is dropped, whole or by key, when the keys epoch moves (conduit/proxy/snapshot.py).
"""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from functools import partial
from hashlib import blake2b
from uuid import UUID

from conduit.core import raw_keys
from conduit.core.once import Once
from keys.entries import KeyEntry

CACHED_KEYS = 20_000
CACHED_STRANGERS = 5_000  # well-formed keys that do not exist: bounded, so that guessing cannot fill memory
STRANGER_SECONDS = 10.0


class KeyCache:
    """`load(public_id)` reads one entry; `peppers` maps pepper version to key."""

    def __init__(self, load: Callable[[str], Awaitable[KeyEntry | None]], peppers: dict[int, bytes]) -> None:
        self._load, self._peppers = load, peppers
        self._seed = secrets.token_bytes(32)  # a fast keyed hash finds the entry; the stored HMAC is checked on a miss
        self._known: OrderedDict[bytes, KeyEntry] = OrderedDict()
        self._strangers: OrderedDict[bytes, float] = OrderedDict()
        self._loading: Once[KeyEntry | None] = Once()  # a crowd with one key costs one query
        self._generation = 0

    async def find(self, raw: str) -> KeyEntry | None:
        """The live key, or None. Raises what `load` raises when the database cannot be asked."""
        digest = blake2b(raw.encode(), key=self._seed, digest_size=32).digest()
        entry = self._known.get(digest)
        if entry is None:
            entry = await self._miss(raw, digest)
        if entry is None or (entry.expires_at is not None and entry.expires_at <= time.time()):
            return None
        return entry

    async def _miss(self, raw: str, digest: bytes) -> KeyEntry | None:
        public_id = raw_keys.public_id(raw_keys.VIRTUAL_KEY, raw)
        if public_id is None:
            return None
        seen = self._strangers.get(digest)
        if seen is not None and seen > time.monotonic():
            return None
        return await self._loading.get(digest, partial(self._read, raw, public_id, digest))

    async def _read(self, raw: str, public_id: str, digest: bytes) -> KeyEntry | None:
        while True:  # a change that arrives while the key is being read makes what was read worthless
            generation = self._generation
            entry = await self._load(public_id)
            if generation == self._generation:
                break
        if entry is not None:
            pepper = self._peppers.get(entry.pepper_version)
            if pepper is None or not raw_keys.same(raw_keys.digest(raw, pepper), entry.digest):
                entry = None
        if entry is None:
            self._strangers[digest] = time.monotonic() + STRANGER_SECONDS
            if len(self._strangers) > CACHED_STRANGERS:
                self._strangers.popitem(last=False)
            return None
        self._known[digest] = entry
        if len(self._known) > CACHED_KEYS:
            self._known.popitem(last=False)
        return entry

    def drop(self, key_id: UUID | None = None) -> None:
        """Forgets one key, or all. The next request with it reads it anew."""
        self._generation += 1
        self._strangers.clear()
        if key_id is None:
            self._known.clear()
            return
        for digest in [digest for digest, entry in self._known.items() if entry.id == key_id]:
            del self._known[digest]

    def entries(self) -> list[KeyEntry]:
        return list(self._known.values())
