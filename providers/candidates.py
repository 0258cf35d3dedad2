"""In which order a request's attempts go: targets by priority and weight, within a target its credentials by weight,
within a credential its versions (a canary takes its share).

    drawn = candidates(route, rng, watch=Watch(…), at=…)
    next(drawn)                  each candidate once
    drawn.held_back              what was passed over because it fails, or because its provider asked to wait
    drawn.failed(one, error)     what comes next depends on how an attempt failed
    drawn.give_back(one)         no attempt came of it: if it was a probe, another request may make it

- The provider rejected the credential, or a canary failed in any other way: another version of the same credential
  goes next, where there is one. So a canary that does not work costs nobody a request.
- The provider limits the account: credentials of the same account go last.
- The prompt was too long: only targets with a larger context window are left.
- A credential that its provider rejected goes after everything else: it is better than nothing.
- A target whose breaker is open, or a credential that is to wait, is not asked at all (health.py).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import TypeVar

import msgspec

from providers.breaker import Breaker
from providers.errors import TOO_LONG, AuthRejected, RateLimited, UpstreamError
from providers.health import Health
from providers.routing import CredentialEntry, RouteEntry, TargetEntry

Weighted = TypeVar("Weighted", TargetEntry, CredentialEntry)


class Candidate(msgspec.Struct, frozen=True):
    """`credential` is the version that serves; `other` the same credential's version that could step in."""

    target: TargetEntry
    credential: CredentialEntry
    other: CredentialEntry | None = None

    @property
    def is_canary(self) -> bool:
        return self.other is not None and self.other.canary is self.credential


class HeldBack(msgspec.Struct, frozen=True):
    """`seconds` from now it is asked again; `limited`: its provider wanted that, else it failed."""

    target: TargetEntry
    seconds: float
    limited: bool = False


class Watch(msgspec.Struct, frozen=True):
    """What a worker knows of its credentials and targets. `claims`: who is drawn is asked, and may be a probe."""

    breaker: Breaker
    health: Health
    claims: bool = True


class candidates(Iterator[Candidate]):  # noqa: N801 (read as a function, like `reversed`)
    """`at`: Unix seconds; credentials that expired before are left out."""

    def __init__(self, route: RouteEntry, rng: random.Random, *, watch: Watch | None = None, at: float = 0.0) -> None:
        self._rng, self._at = rng, at
        self._breaker = watch.breaker if watch is not None else None
        self._health = watch.health if watch is not None else None
        self._claims = watch is not None and watch.claims
        self.held_back: list[HeldBack] = []
        self._first: Candidate | None = None
        self._probes = False, False  # whether the last one handed out tries its credential, its target
        self._rest = self._drawn(route)

    def __next__(self) -> Candidate:
        first, self._first = self._first, None
        one = first or next(self._rest)
        if self._claims and self._breaker is not None and self._health is not None:
            self._probes = (
                bool(self._breaker.trips) and self._breaker.claim(one.credential.version_id),
                not self._health.quiet and self._health.claim(one.target.key),
            )
        return one

    def give_back(self, one: Candidate) -> None:
        """The last one handed out was refused from here, so nobody learns how it is."""
        (credential, target), self._probes = self._probes, (False, False)
        if credential and self._breaker is not None:
            self._breaker.unknown(one.credential.version_id)
        if target and self._health is not None:
            self._health.unknown(one.target.key)

    def failed(self, one: Candidate, error: UpstreamError) -> None:
        """Rearranges what has not been handed out yet."""
        rejected = isinstance(error, AuthRejected) or one.is_canary
        if error.code == TOO_LONG:
            self._rest = (other for other in self._rest if other.target.holds_more_than(one.target))
        elif rejected and one.other is not None and self._passes(one.other):
            self._first = Candidate(one.target, one.other)
        elif isinstance(error, RateLimited) and one.credential.account:
            rest = list(self._rest)
            self._rest = iter(sorted(rest, key=lambda other: _same_account(one, other)))

    def _drawn(self, route: RouteEntry) -> Iterator[Candidate]:
        late: list[Candidate] = []
        for target in _by_priority(route.targets, self._rng):
            for credential in _draw_all(target.provider.credentials, self._rng):
                if self._failing(target):
                    break
                candidate = self._version(target, credential)
                if candidate is None or self._is_to_wait(candidate):
                    continue
                if self._passes(candidate.credential):
                    yield candidate
                else:
                    late.append(candidate)
        for candidate in late:
            if not self._failing(candidate.target):
                yield candidate

    def _failing(self, target: TargetEntry) -> bool:
        if self._health is None or self._health.quiet:
            return False
        if seconds := self._health.opens_in(target.key):
            self.held_back.append(HeldBack(target, seconds))
        return bool(seconds)

    def _is_to_wait(self, one: Candidate) -> bool:
        if self._health is None or self._health.quiet:
            return False
        if seconds := self._health.waits((one.credential.id, one.target.model)):
            self.held_back.append(HeldBack(one.target, seconds, limited=True))
        return bool(seconds)

    def _version(self, target: TargetEntry, credential: CredentialEntry) -> Candidate | None:
        """The canary for its share of the requests, else the active version; None when what there is has expired."""
        canary, previous = self._unexpired(credential.canary), self._unexpired(credential.previous)
        if self._unexpired(credential) is None:
            return Candidate(target, canary) if canary is not None else None
        if canary is not None and self._rng.random() * 100 < credential.share and self._passes(canary):
            return Candidate(target, canary, credential)
        if previous is not None and not self._passes(credential):
            return Candidate(target, previous, credential)
        return Candidate(target, credential, previous)

    def _unexpired(self, version: CredentialEntry | None) -> CredentialEntry | None:
        expired = version is not None and version.expires_at is not None and version.expires_at <= self._at
        return None if expired else version

    def _passes(self, version: CredentialEntry) -> bool:
        breaker = self._breaker
        return breaker is None or not breaker.trips or not breaker.held(version.version_id)


def _same_account(one: Candidate, other: Candidate) -> bool:
    return other.target.provider.id == one.target.provider.id and other.credential.account == one.credential.account


def _by_priority(targets: Sequence[TargetEntry], rng: random.Random) -> list[TargetEntry]:
    if len(targets) == 1:
        return list(targets)
    ordered: list[TargetEntry] = []
    for priority in sorted({target.priority for target in targets}):
        ordered += _draw_all([target for target in targets if target.priority == priority], rng)
    return ordered


def _draw_all(items: Sequence[Weighted], rng: random.Random) -> list[Weighted]:
    """All items with a positive weight, in an order where each next one is drawn by weight (Efraimidis-Spirakis)."""
    if len(items) == 1:
        return list(items)
    drawn = [(rng.random() ** (1 / item.weight), item) for item in items if item.weight > 0]
    return [item for _, item in sorted(drawn, key=lambda pair: -pair[0])]
