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
from conduit.core.stored_digests import NOBODY
from keys.entries import KeyEntry
from keys.peppers import Peppers

CACHED_KEYS = 20_000
CACHED_STRANGERS = 5_000  # well-formed keys that do not exist: bounded, so that guessing cannot fill memory
STRANGER_SECONDS = 10.0


class KeyCache:
    """`load(public_id)` reads one entry; `peppers` maps pepper version to key, or finds newer versions too.

    `stored(public_id)` reads (pepper version, digest) alone, version 0 for nobody's. It is asked first, so that a wrong
    secret of a known public id costs what an unknown one costs, and moves nothing: neither rights nor budgets are read.
    """

    def __init__(
        self,
        load: Callable[[str], Awaitable[KeyEntry | None]],
        peppers: dict[int, bytes] | Peppers,
        stored: Callable[[str], Awaitable[tuple[int, bytes]]] | None = None,
    ) -> None:
        self._load, self._stored = load, stored
        self._peppers = peppers if isinstance(peppers, Peppers) else Peppers(peppers, partial(_only, peppers))
        self._seed = secrets.token_bytes(32)  # a fast keyed hash finds the entry; the stored HMAC is checked on a miss
        self._known: OrderedDict[bytes, KeyEntry] = OrderedDict()
        self._strangers: OrderedDict[bytes, float] = OrderedDict()
        self._loading: Once[KeyEntry | None] = Once()  # a crowd with one key costs one query
        self._reading: dict[bytes, set[UUID | None]] = {}  # what was dropped while this digest is being read

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
        dropped = self._reading[digest] = set()
        try:
            while True:  # a change that arrives while the key is being read makes what was read worthless
                dropped.clear()
                entry = await self._load(public_id) if await self._genuine(raw, public_id) else None
                pepper = await self._peppers.find(entry.pepper_version) if entry else None
                if not _concerns(dropped, entry):  # nothing is awaited from here until it is remembered
                    return self._remember(raw, digest, entry, pepper)
        finally:
            del self._reading[digest]

    def _remember(self, raw: str, digest: bytes, entry: KeyEntry | None, pepper: bytes | None) -> KeyEntry | None:
        if entry is not None:
            if pepper is None or not raw_keys.same(raw_keys.digest(raw, pepper), entry.digest):
                entry = None
            else:
                self._peppers.used(entry, raw)
        if entry is None:
            self._strangers[digest] = time.monotonic() + STRANGER_SECONDS
            if len(self._strangers) > CACHED_STRANGERS:
                self._strangers.popitem(last=False)
            return None
        self._known[digest] = entry
        if len(self._known) > CACHED_KEYS:
            self._known.popitem(last=False)
        return entry

    async def _genuine(self, raw: str, public_id: str) -> bool:
        """Whether the stored digest is that of this text. Without a row the same work is done for nothing."""
        if self._stored is None:
            return True  # `load` answers both at once
        version, digest = await self._stored(public_id)
        pepper = await self._peppers.find(version) if version else None
        same = raw_keys.same(raw_keys.digest(raw, pepper or NOBODY), digest)
        return same and pepper is not None

    def drop(self, key_id: UUID | None = None) -> None:
        """Forgets one key and those below it, or all. The next request with it reads it anew."""
        for dropped in self._reading.values():
            dropped.add(key_id)
        self._strangers.clear()
        if key_id is None:
            self._known.clear()
            return
        below = [digest for digest, entry in self._known.items() if key_id == entry.id or key_id in entry.parents]
        for digest in below:
            del self._known[digest]

    def entries(self) -> list[KeyEntry]:
        return list(self._known.values())


def _concerns(dropped: set[UUID | None], entry: KeyEntry | None) -> bool:
    """Whether a drop made the entry stale; of a key that was not found, which only exists now perhaps, any may."""
    if not dropped or entry is None or None in dropped:
        return bool(dropped)
    return not dropped.isdisjoint((entry.id, *entry.parents))


async def _only(peppers: dict[int, bytes]) -> dict[int, bytes]:
    return peppers
