"""Versions, accounts, expiry and the breaker in the order of a request's attempts."""

from __future__ import annotations

import random
import time
from collections import Counter

import msgspec
import pytest

from providers.breaker import PAUSE_SECONDS, Breaker
from providers.candidates import Candidate, Watch, candidates
from providers.errors import AuthRejected, Overloaded, RateLimited
from providers.health import Health
from providers.routing import CredentialEntry, RouteEntry
from tests.providers.test_routing import credential, route, target

REJECTED = AuthRejected("Incorrect API key provided.", status=401)
LIMITED = RateLimited("Slow down.", status=429)


def changed(entry: CredentialEntry, **fields: object) -> CredentialEntry:
    return msgspec.structs.replace(entry, **fields)


def names(drawn: candidates) -> list[str]:
    return [one.credential.name for one in drawn]


def half_open(drawn: RouteEntry, *, credentials: bool) -> Watch:
    """Everything was left alone, and may be tried by one request."""
    watch, (only,) = Watch(Breaker(), Health()), drawn.targets
    for one in only.provider.credentials if credentials else ():
        watch.breaker.trip(one.version_id, "no")
        watch.breaker.trips[one.version_id].until = 1.0
    for _ in range(watch.health.failures):
        watch.health.failed(only.key, only.provider.id, Overloaded("x", status=500))
    for trouble in watch.health._targets.values():
        trouble.until = 1.0
    return watch


@pytest.mark.parametrize("credentials", [False, True])
def test_a_probe_that_is_refused_from_here_is_left_to_the_next_request(credentials: bool) -> None:
    drawn = route(target("a", credential("one")))
    watch = half_open(drawn, credentials=credentials)
    mine, other = candidates(drawn, random.Random(1), watch=watch), candidates(drawn, random.Random(1), watch=watch)
    one = next(mine)
    assert names(other) == []
    (entry,) = drawn.targets[0].provider.credentials
    assert watch.breaker.held(entry.version_id) is credentials
    mine.give_back(one)
    assert not watch.breaker.held(entry.version_id)
    assert names(candidates(drawn, random.Random(1), watch=watch)) == ["one"]
    mine.give_back(one)  # that is another's probe by now
    assert names(candidates(drawn, random.Random(1), watch=watch)) == []


def with_canary(share: int) -> RouteEntry:
    return route(target("a", changed(credential("old"), canary=credential("new"), share=share)))


@pytest.mark.parametrize(("share", "least", "most"), [(0, 0, 0), (1, 0.002, 0.02), (10, 0.07, 0.13), (100, 1, 1)])
def test_a_canary_takes_its_share(share: int, least: float, most: float) -> None:
    drawn, rng = with_canary(share), random.Random(5)
    counts = Counter(next(candidates(drawn, rng)).credential.name for _ in range(4000))
    assert least <= counts["new"] / 4000 <= most


def test_a_rejected_canary_is_followed_by_the_active_version_and_no_other() -> None:
    drawn = candidates(with_canary(100), random.Random(1))
    first = next(drawn)
    assert first.credential.name == "new"
    drawn.failed(first, REJECTED)
    assert names(drawn) == ["old"]


def test_a_rejected_new_version_is_followed_by_its_predecessor_while_that_retires() -> None:
    drawn = candidates(route(target("a", changed(credential("new"), previous=credential("old")))), random.Random(1))
    first = next(drawn)
    assert first.credential.name == "new"
    drawn.failed(first, REJECTED)
    assert names(drawn) == ["old"]


def test_another_failure_of_a_canary_brings_the_active_version_and_of_the_active_one_nothing() -> None:
    drawn = candidates(with_canary(100), random.Random(1))
    drawn.failed(next(drawn), Overloaded("Later.", status=503))
    assert names(drawn) == ["old"]
    fresh = candidates(route(target("a", changed(credential("new"), previous=credential("old")))), random.Random(1))
    fresh.failed(next(fresh), Overloaded("Later.", status=503))
    assert names(fresh) == []


def test_a_limited_accounts_other_credentials_go_last() -> None:
    one, same, other = (
        changed(credential(name), account=account) for name, account in (("1", "x"), ("2", "x"), ("3", "y"))
    )
    lines = route(target("a", one, same, other), target("b", credential("4"), priority=1))
    for seed in range(30):
        drawn = candidates(lines, random.Random(seed))
        first = next(drawn)
        drawn.failed(first, LIMITED)
        rest = names(drawn)
        assert sorted([first.credential.name, *rest]) == ["1", "2", "3", "4"]
        if first.credential.account == "x":
            assert rest[-1] in ("1", "2")


def test_an_expired_credential_is_left_out() -> None:
    old = changed(credential("old"), expires_at=1000.0)
    lines = route(target("a", old, credential("good")))
    assert set(names(candidates(lines, random.Random(1), at=999.0))) == {"old", "good"}
    assert names(candidates(lines, random.Random(1), at=1000.0)) == ["good"]


def test_a_canary_serves_once_the_active_version_has_expired_and_an_expired_predecessor_never() -> None:
    old = changed(credential("old"), expires_at=1000.0, canary=credential("new"), share=1)
    assert names(candidates(route(target("a", old)), random.Random(1), at=1000.0)) == ["new"]
    active = changed(credential("active"), previous=changed(credential("past"), expires_at=1000.0))
    drawn = candidates(route(target("a", active)), random.Random(1), at=1000.0)
    drawn.failed(next(drawn), REJECTED)
    assert names(drawn) == []


def test_a_tripped_version_goes_after_everything_else_and_trips_no_other() -> None:
    bad, good = credential("bad"), credential("good")
    lines, breaker = route(target("a", bad, good), target("b", credential("far"), priority=1)), Breaker()
    breaker.trip(bad.version_id, "Incorrect API key provided.")
    for seed in range(20):
        assert names(candidates(lines, random.Random(seed), watch=Watch(breaker, Health()))) == ["good", "far", "bad"]


def test_a_tripped_canary_and_a_tripped_active_version_give_way() -> None:
    breaker, rng = Breaker(), random.Random(1)
    canary = with_canary(100)
    held = canary.targets[0].provider.credentials[0].canary
    assert held is not None
    breaker.trip(held.version_id, "no")
    assert names(candidates(canary, rng, watch=Watch(breaker, Health()))) == ["old"]
    fresh = changed(credential("new"), previous=credential("old"))
    breaker.trip(fresh.version_id, "no")
    assert names(candidates(route(target("a", fresh)), rng, watch=Watch(breaker, Health()))) == ["old"]


def test_after_the_pause_one_request_tries_and_success_closes() -> None:
    breaker, version = Breaker(), credential("x").version_id
    assert not breaker.held(version)
    breaker.trip(version, "no")
    assert breaker.held(version)
    assert breaker.until(version) > time.time()
    assert breaker.trips[version].until <= time.monotonic() + PAUSE_SECONDS
    breaker.trips[version].until = time.monotonic()  # the pause is over
    held = changed(credential("x"), version_id=version)
    probe = candidates(route(target("a", held)), random.Random(1), watch=Watch(breaker, Health()))
    assert not breaker.held(version)
    next(probe)
    assert breaker.held(version), "one request tries"
    breaker.trip(version, "no")
    assert breaker.trips[version].pause == 2 * PAUSE_SECONDS
    breaker.works(version)
    assert not breaker.held(version)
    assert breaker.until(version) == 0


def test_a_candidate_knows_what_could_step_in() -> None:
    (one,) = candidates(with_canary(0), random.Random(1))
    assert isinstance(one, Candidate)
    assert one.other is None
    (one,) = candidates(with_canary(100), random.Random(1))
    assert one.other is not None
    assert one.other.canary is one.credential
