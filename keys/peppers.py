"""The versions of the pepper that a worker knows, and how secrets move to the newest one.

A digest can only be made from the raw key, so a secret moves when it is used: the worker that checked it writes the
digest under the newest pepper a moment later, not on the request's way. Until then the older version checks it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from django.db import connection, transaction

from conduit.core import audit, raw_keys
from keys.entries import KeyEntry

WAITING = 1000  # at most; what does not fit moves at a later use
AT_ONCE = 20
MOVE = """
UPDATE keys_keysecret SET digest = moved.new, pepper_version = moved.version
FROM unnest(%s::text[], %s::bytea[], %s::bytea[], %s::int[]) AS moved (public_id, old, new, version)
WHERE keys_keysecret.public_id = moved.public_id AND keys_keysecret.digest = moved.old
"""


@dataclass(frozen=True, slots=True)
class Move:
    """One secret's digest, as it was checked and under the newest pepper."""

    public_id: str
    old: bytes
    new: bytes
    version: int


class Peppers:
    """`versions` maps version to key and grows; `load` reads them all."""

    def __init__(self, versions: dict[int, bytes], load: Callable[[], Awaitable[dict[int, bytes]]]) -> None:
        self.versions, self._load = dict(versions), load
        self._moves: deque[Move] = deque(maxlen=WAITING)

    async def renew(self) -> bool:
        """Reads the versions again; whether there is a newer one. Raises what `load` raises."""
        newest = max(self.versions, default=0)
        self.versions.update(await self._load())
        return max(self.versions, default=0) > newest

    async def find(self, version: int) -> bytes | None:
        """A version's key; asks for one that is not known yet."""
        if version not in self.versions:
            await self.renew()
        return self.versions.get(version)

    def used(self, entry: KeyEntry, raw: str) -> None:
        """A genuine key came along: notes its move when its digest is under an older pepper."""
        newest = max(self.versions)
        if entry.pepper_version < newest:
            fresh = raw_keys.digest(raw, self.versions[newest])
            self._moves.append(Move(entry.public_id, entry.digest, fresh, newest))

    def due(self) -> list[Move]:
        """Some of the noted moves, each once."""
        return [self._moves.popleft() for _ in range(min(AT_ONCE, len(self._moves)))]


def repepper(moves: list[Move]) -> int:
    """Writes the moves whose secret is still as it was checked; how many.

    One statement for all of them, and its turn among the changes first: a rotation locks secrets of one key too, in
    its own order. Workers are not told: what they checked against the old digest was right, and stays so.
    """
    if not moves:
        return 0
    columns = ([move.public_id for move in moves], [move.old for move in moves], [move.new for move in moves])
    with transaction.atomic(), connection.cursor() as cursor:
        audit.lock()
        cursor.execute(MOVE, [*columns, [move.version for move in moves]])
        return int(cursor.rowcount)
