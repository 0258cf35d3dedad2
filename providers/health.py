"""Which targets this worker leaves alone because they fail, and which credentials because their provider said wait.

A target is a provider's model. FAILURES failures in a row open its breaker for ten seconds; then one request tries it,
and the pause doubles each time that one fails too, up to a minute. Failures are what says that the provider is in
trouble: it cannot be reached, does not answer, breaks off, answers rubbish, or says 500 to 599. A refusal of the
request or of the credential (4xx) is an answer and closes it; that the account is empty (402) says nothing about it.
A wait that a provider asked for with a 429 holds for
that credential and model. In memory, each worker by itself.

A stream that tries a target has come back when it begins. Only its end says that it worked: until then the failures
before it are not forgotten.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator
from uuid import UUID

import msgspec

from conduit.core.live import TargetTrouble
from providers.errors import (
    AccountEmpty,
    ConnectFailed,
    InvalidResponse,
    Overloaded,
    RateLimited,
    UpstreamCut,
    UpstreamError,
    UpstreamRefusal,
    UpstreamTimeout,
)

FAILURES = 5
PAUSE_SECONDS, LONGEST_PAUSE = 10.0, 60.0
LONGEST_WAIT = 300.0  # a provider may ask for hours: then it is asked again now and then
PROBE_SECONDS = 10.0  # a probe whose outcome nobody tells does not keep others away for longer
KEPT = 4096
SHOWN = 50
TROUBLE = (ConnectFailed, InvalidResponse, Overloaded, UpstreamCut, UpstreamTimeout)
Key = tuple[UUID, str]  # provider and model, or credential and model


class Trouble(msgspec.Struct):
    """A target that failed last. `until`: monotonic seconds, 0 while it is closed; `pause` its length."""

    failures: int = 0
    until: float = 0.0
    pause: float = 0.0
    probing: bool = False
    why: str = ""


class Health:
    """`failures` in a row open a breaker; 0 switches all of it off."""

    def __init__(self) -> None:
        self.failures = FAILURES
        self._targets: OrderedDict[Key, Trouble] = OrderedDict()
        self._waits: OrderedDict[Key, float] = OrderedDict()

    # --- what an attempt found out

    def works(self, target: Key) -> None:
        self._targets.pop(target, None)

    def failed(self, target: Key, credential: UUID, error: UpstreamError) -> None:
        """`error.message` is masked already."""
        if not self.failures:
            return
        if isinstance(error, RateLimited) and error.retry_after:
            self._waits[credential, target[1]] = time.monotonic() + min(error.retry_after, LONGEST_WAIT)
            _forget_oldest(self._waits)
        if isinstance(error, TROUBLE) and not error.ours:
            self._count(target, error.message)
        elif isinstance(error, UpstreamRefusal) and not isinstance(error, AccountEmpty):
            self.works(target)
        else:
            self.unknown(target)

    def _count(self, target: Key, why: str) -> None:
        one = self._targets.setdefault(target, Trouble())
        self._targets.move_to_end(target)
        _forget_oldest(self._targets)
        one.failures += 1
        one.why = why
        now = time.monotonic()
        if one.failures < self.failures or (one.until > now and not one.probing):
            return  # or it was under way already when the breaker opened
        one.pause = min(one.pause * 2, LONGEST_PAUSE) if one.pause else PAUSE_SECONDS
        one.until, one.probing = now + one.pause, False

    def unknown(self, target: Key) -> None:
        """Nothing can be said: whoever called left, or it was stopped from here. Another request may try."""
        one = self._targets.get(target)
        if one is not None and one.probing:
            one.until, one.probing = time.monotonic(), False

    def begins(self, target: Key) -> None:
        """A stream has begun: a probe's closes the breaker, and others need not wait for its end. Should it break, that
        is one failure more in the same row, and the pause goes on doubling."""
        one = self._targets.get(target)
        if one is not None and one.probing:
            one.until, one.probing = 0.0, False

    # --- what a request asks

    @property
    def quiet(self) -> bool:
        """Nothing to ask about."""
        return not self._targets and not self._waits

    def opens_in(self, target: Key) -> float:
        """Seconds for which requests pass the target over; 0: they do not."""
        one = self._targets.get(target)
        return max(0.0, one.until - time.monotonic()) if one is not None else 0.0

    def waits(self, credential: Key) -> float:
        """Seconds for which the provider wants no more requests with it; 0: none."""
        until = self._waits.get(credential)
        if until is None:
            return 0.0
        left = until - time.monotonic()
        if left <= 0:
            del self._waits[credential]
        return max(0.0, left)

    def claim(self, target: Key) -> bool:
        """A request uses it. After the pause that is the probe (True), and others wait for its outcome."""
        one = self._targets.get(target)
        if one is None or not one.until or one.until > time.monotonic():
            return False
        one.until, one.probing = time.monotonic() + PROBE_SECONDS, True
        return True

    # --- for those who look on

    def open(self) -> Iterator[tuple[Key, Trouble]]:
        """Targets whose breaker is open, or half open: not closed by an answer yet."""
        return ((key, one) for key, one in self._targets.items() if one.until)

    def report(self) -> list[TargetTrouble]:
        """For core.live: those that opened last."""
        ahead = time.time() - time.monotonic()
        latest = sorted(self.open(), key=lambda pair: -pair[1].until)[:SHOWN]
        return [
            TargetTrouble(
                provider=str(provider),
                model=model,
                failures=one.failures,
                until=one.until + ahead,
                why=one.why[:300],
            )
            for (provider, model), one in latest
        ]

    def keep(self, providers: set[UUID]) -> None:
        """Forgets those of providers that are no more."""
        for key in [key for key in self._targets if key[0] not in providers]:
            del self._targets[key]


def _forget_oldest(kept: OrderedDict[Key, Trouble] | OrderedDict[Key, float]) -> None:
    if len(kept) > KEPT:
        kept.popitem(last=False)
