"""Values that come from elsewhere and change there, read ahead of need and kept while the place is away.

    kept = Kept(read, seconds=2)
    kept.get(key)                 reads when the value is not known or due; raises Unavailable
    kept.get(key, wait=False)     never reads: raises Pending for a value that nobody read yet, and notes the wish
    kept.refresh(keys)            reads what is due or wished for, side by side; the worker's thread calls it
    kept.generation               moves on whenever a value, or whether there is one, changed

    kept.wished                   whether anything was wished for that nobody began to read

A place that fails keeps its last good value for `grace` seconds, unless the value itself ends before.

Each read has a thread of its own, and a key never two: what hangs below a file or a name server cannot be stopped, so
there are never more hanging threads than keys, and none of them keeps the process from ending.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections.abc import Callable, Collection, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import structlog

from conduit.core.clock import monotonic
from conduit.core.errors import ConduitError

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
RETRY_SECONDS = 5.0
SIDE_BY_SIDE = 8  # reads of one group that one call begins before the first of them ends
_DIGEST_KEY = secrets.token_bytes(32)
log = structlog.get_logger("conduit.kept")


class Unavailable(ConduitError):
    """There is no value now: `reason` says why, `fix` what an operator does about it."""

    def __init__(self, reason: str, fix: str) -> None:
        super().__init__(f"{reason} {fix}".strip())
        self.reason, self.fix = reason, fix


class Pending(Unavailable):
    """Nobody has read it yet in this process; it is being read."""

    def __init__(self) -> None:
        super().__init__("It is being read for the first time.", "Wait a moment.")


@dataclass(frozen=True, slots=True)
class Reading(Generic[V]):
    """What a read gave. `renew`: seconds until it is read again; `lasts`: seconds it can be used at most."""

    value: V = field(repr=False)
    renew: float
    lasts: float | None = None


@dataclass(slots=True)
class _Entry(Generic[V]):
    """Times in monotonic seconds. `asked`: the newest wish that this reading has fulfilled."""

    value: V | None = field(default=None, repr=False)
    renew_at: float = 0.0
    ends_at: float | None = None
    failing_since: float | None = None
    problem: Unavailable | None = None
    asked: float = 0.0
    told: bytes = field(default=b"", repr=False)  # digest of the outcome that `generation` has told of


@dataclass(slots=True, eq=False)
class _Run:
    """A read that was begun. `began`: monotonic seconds."""

    began: float
    asked: float
    ended: bool = False


class Kept(Generic[K, V]):
    """Safe to share between threads. `grace` None: a value is good until it ends by itself.

    `group`: keys of one group wait for each other's reads to end, those of different groups never do.
    """

    def __init__(
        self,
        read: Callable[[K], Reading[V]],
        *,
        seconds: float,
        grace: float | None,
        group: Callable[[K], str] = lambda key: "",
    ) -> None:
        self._read, self._seconds, self._grace, self._group = read, seconds, grace, group
        self._lock = threading.Condition()  # notified when a read ends
        self._entries: dict[K, _Entry[V]] = {}
        self._wished: set[K] = set()
        self._runs: dict[K, _Run] = {}  # those that have not ended
        self._awaited: list[K] = []  # what `get` waits for: not forgotten meanwhile
        self.generation = 0

    @property
    def wished(self) -> bool:
        return bool(self._wished)

    def get(self, key: K, *, wait: bool = True, fresh: bool = False, asked: float = 0.0) -> V:
        """`fresh`: reads even what is not due, and tells when that fails. `asked`: reads unless done since that wish.

        Raises Unavailable."""
        with self._lock:
            entry = self._entries.get(key)
            outdated = fresh or (entry is not None and entry.asked < asked)
            stale = entry is None or outdated or (wait and monotonic() >= entry.renew_at)
            if stale and not wait:
                self._wished.add(key)
                if entry is None:
                    raise Pending
                entry.asked = max(entry.asked, asked)
            if entry is None or (stale and wait):
                entry = self._read_one(key, asked, anew=outdated)
            if fresh and entry.problem is not None:
                raise entry.problem
            return self._usable(entry)

    def refresh(self, keys: Iterable[K]) -> None:
        """Reads those of `keys` that are due and every one that was wished for; forgets all others.

        What its turn did not come for within the deadline stays as it is, and due."""
        with self._lock:
            wanted, wished = set(keys), self._wished
            self._wished = set()
            for gone in self._entries.keys() - wanted - wished - set(self._awaited):
                del self._entries[gone]
            now = monotonic()
            known = self._entries
            due = {key for key in wanted if key not in known or now >= known[key].renew_at} | wished
            longest = sorted(due, key=lambda key: known[key].renew_at if key in known else 0.0)
            self._wished |= wished & self._read_all(dict.fromkeys(longest, 0.0), anew=wished & known.keys())
            for entry in self._entries.values():
                self._tell(entry)

    def forget(self) -> None:
        """Everything; for tests."""
        with self._lock:
            self._entries.clear()
            self._wished.clear()
            self._runs.clear()

    # --- parts; call them with the lock held

    def _usable(self, entry: _Entry[V]) -> V:
        now = monotonic()
        ended = entry.ends_at is not None and now >= entry.ends_at
        since = entry.failing_since
        kept = since is None or self._grace is None or now - since < self._grace
        if entry.value is not None and not ended and kept:
            return entry.value
        raise entry.problem or Unavailable("It is no longer valid.", "It is being renewed; try again in a moment.")

    def _tell(self, entry: _Entry[V]) -> None:
        """Notes whether what a user of the value would see has changed."""
        try:
            outcome = f"value {self._usable(entry)!r}"
        except Unavailable as problem:
            outcome = f"problem {type(problem)!r}"
        told = hashlib.blake2b(outcome.encode(), key=_DIGEST_KEY).digest()
        if told != entry.told:
            entry.told = told
            self.generation += 1

    def _read_one(self, key: K, asked: float, *, anew: bool) -> _Entry[V]:
        self._awaited.append(key)
        try:
            for unheard in self._read_all({key: asked}, anew=[key] if anew else []):
                self._store(unheard, self._no_answer(), asked)
            return self._entries[key]
        finally:
            self._awaited.remove(key)

    def _read_all(self, wishes: dict[K, float], *, anew: Collection[K]) -> set[K]:
        """Side by side, all within the deadline; lets go of the lock meanwhile. Gives the keys without any outcome.

        A read under way is waited for and not begun twice; `anew`: it began too early for these, so another follows.
        One that overstays ends by itself, and what it gives then is kept too."""
        now = monotonic()
        until = now + self._seconds
        waiting, mine = dict(wishes), dict[K, _Run]()
        while True:
            self._begin(waiting, mine, anew, now)
            if not waiting and all(run.ended for run in mine.values()):
                return set()
            if (now := monotonic()) >= until:
                break
            self._lock.wait(until - now)
            now = monotonic()
        unheard = set(waiting) | {key for key, run in mine.items() if not run.ended}
        for key in unheard & self._runs.keys():
            if self._runs[key].began + self._seconds <= until:
                self._store(key, self._no_answer(), 0.0)
                unheard.discard(key)
        return unheard

    def _begin(self, waiting: dict[K, float], mine: dict[K, _Run], anew: Collection[K], now: float) -> None:
        """Moves from `waiting` to `mine` what can be begun now, or is under way, and drops what hangs since before."""
        busy: dict[str, int] = {}
        for key, run in mine.items():
            busy[self._group(key)] = busy.get(self._group(key), 0) + (not run.ended)
        for key in list(waiting):
            group, running = self._group(key), self._runs.get(key)
            if running is not None and now >= running.began + self._seconds:
                self._store(key, self._no_answer(), waiting.pop(key))
            elif running is not None and key not in anew:
                mine[key] = running
                del waiting[key]
            elif running is None and busy.get(group, 0) < SIDE_BY_SIDE and (begun := self._run(key, waiting[key], now)):
                mine[key] = begun
                del waiting[key]
                busy[group] = busy.get(group, 0) + 1

    def _run(self, key: K, asked: float, now: float) -> _Run | None:
        """None when the process may have no more threads."""
        run = _Run(now, asked)
        thread = threading.Thread(target=self._do, args=(key, run), name="kept", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            return None
        self._runs[key] = run
        return run

    def _do(self, key: K, run: _Run) -> None:
        found: Reading[V] | Unavailable
        try:
            found = self._read(key)
        except Unavailable as problem:
            found = problem
        except Exception as error:  # noqa: BLE001 (the thread's edge: what went wrong is this key's problem alone)
            name = type(error).__name__  # its message may quote a secret
            log.error("read_failed", error=name)
            found = Unavailable(f"Reading it failed ({name}).", "Check the place it is read from.")
        with self._lock:
            run.ended = True
            if self._runs.get(key) is run:
                del self._runs[key]
                self._store(key, found, run.asked)
            self._lock.notify_all()

    def _no_answer(self) -> Unavailable:
        return Unavailable(f"No answer came within {self._seconds:.0f} seconds.", "Check the place it is read from.")

    def _store(self, key: K, found: Reading[V] | Unavailable, asked: float) -> None:
        now = monotonic()
        entry = self._entries.setdefault(key, _Entry())
        entry.asked = max(entry.asked, asked)
        if isinstance(found, Reading):
            entry.value, entry.problem, entry.failing_since = found.value, None, None
            entry.renew_at = now + found.renew
            entry.ends_at = None if found.lasts is None else now + found.lasts
        else:
            entry.problem = found
            entry.failing_since = now if entry.failing_since is None else entry.failing_since
            entry.renew_at = now + RETRY_SECONDS
        self._tell(entry)
