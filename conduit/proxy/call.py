"""One request on its way through the pipeline: who calls, what for, and what has been decided so far."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from conduit.proxy.dialects.base import DialectModule, Inbound
from conduit.proxy.paths import Path
from keys.entries import BudgetEntry, KeyEntry, RateScope
from keys.limits import OverLimit, Taken
from providers.adapters.types import Dialect, Endpoint

if TYPE_CHECKING:
    from conduit.proxy.rate_gate import AttemptTaken
    from providers.adapters.base import Relay
    from providers.transport import UpstreamAnswer

Headers = list[tuple[bytes, bytes]]


class Incoming(msgspec.Struct, kw_only=True):
    """A request as it came. `headers` by lower-case name, `started` is time.perf_counter() at the first byte."""

    request_id: str
    body: bytes
    headers: Mapping[bytes, bytes]
    address: str
    started: float


class Flow(msgspec.Struct, eq=False):
    """How far a stream has come, for who watches it. `turns` is odd while the client has to take a piece, even while
    the provider has to bring one; `taken` counts the provider's bytes."""

    upstream: UpstreamAnswer
    relay: Relay
    taken: int = 0
    turns: int = 0

    @property
    def giving(self) -> bool:
        return bool(self.turns & 1)


class Call(Incoming, kw_only=True):
    """`upstream` is the seconds spent waiting for providers."""

    path: Path
    dialect: DialectModule
    key: KeyEntry
    changes: int = 0  # of keys and credentials, that this worker knew of when the request was let in
    inbound: Inbound | None = None
    budgets: tuple[BudgetEntry, ...] = ()
    rates: tuple[RateScope, ...] = ()
    taken: Taken | None = None
    attempt_taken: AttemptTaken | None = None  # of the attempt under way
    over: OverLimit | None = None  # the caller's own limit that refused it
    limited: bool = False  # a candidate was at its own limit, and this is when the first is open again (seconds):
    retry_after: float | None = None
    tokens: int = 0  # really used, of all attempts
    customer: str = ""
    tags: list[str] = msgspec.field(default_factory=list)
    trace: list[dict[str, Any]] = msgspec.field(default_factory=list)
    dropped: tuple[str, ...] = ()
    noted: int = 0  # of the candidates that were held back, how many are in the trace
    least_tokens: int | None = None  # of the prompt, once somebody had to know (context_window.py)
    attempts: int = 0
    ended: bool = False  # a final row was written
    whole: bool = False  # an answer is under way whose cost a hard budget must know: who leaves does not stop it
    left: bool = False  # the client left meanwhile
    upstream: float = 0.0
    timeout: float | None = None  # seconds, from x-conduit-timeout
    flow: Flow | None = None  # of a stream whose provider has begun to answer
    broken: bool = False  # a stream that ended with an error event

    @property
    def speaks(self) -> tuple[Dialect, Endpoint]:
        return self.path.dialect, self.path.endpoint

    def overhead_us(self) -> int:
        """Microseconds since the first byte that were not spent waiting for a provider."""
        return max(0, int((time.perf_counter() - self.started - self.upstream) * 1e6))


class Answer(msgspec.Struct):
    """What goes back: a whole body, or pieces as they come (then `body` is an async generator to be closed)."""

    status: int
    headers: Headers
    body: bytes | AsyncIterator[bytes]


JSON: tuple[bytes, bytes] = (b"content-type", b"application/json")
EVENTS: Headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]
