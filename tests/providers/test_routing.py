"""Targets go by priority, share by weight; credentials within a target share by weight."""

from __future__ import annotations

import random
from collections import Counter
from uuid import uuid4

from providers.adapters.registry import adapter_for
from providers.candidates import candidates
from providers.routing import CredentialEntry, ProviderEntry, RouteEntry, TargetEntry


def credential(name: str, weight: int = 100) -> CredentialEntry:
    return CredentialEntry(
        id=uuid4(),
        name=name,
        version=1,
        version_id=uuid4(),
        secrets={"api_key": "sk-canary-secret"},
        weight=weight,
        account="",
    )


def target(name: str, *credentials: CredentialEntry, weight: int = 100, priority: int = 0) -> TargetEntry:
    provider = ProviderEntry(
        id=uuid4(),
        name=name,
        kind="openai",
        vendor="openai",
        base_url="https://api.example.com/v1",
        region="",
        options={},
        client_headers={},
        credentials=credentials,
        unreadable=(),
    )
    adapter = adapter_for("openai", {})
    return TargetEntry(
        provider=provider,
        model="m",
        adapter=adapter,
        native=adapter.native,
        weight=weight,
        priority=priority,
        max_output_tokens=None,
    )


def route(*targets: TargetEntry) -> RouteEntry:
    return RouteEntry(name="r", strict=False, timeout=None, targets=targets, created=0)


def first_names(drawn: RouteEntry, times: int = 4000) -> Counter[str]:
    rng = random.Random(7)
    return Counter(next(candidates(drawn, rng)).target.provider.name for _ in range(times))


def test_a_lower_priority_goes_first_and_the_rest_follow_in_order() -> None:
    drawn = route(
        target("c", credential("1"), priority=9), target("a", credential("2")), target("b", credential("3"), priority=5)
    )
    for seed in range(20):
        names = [found.target.provider.name for found in candidates(drawn, random.Random(seed))]
        assert names == ["a", "b", "c"]


def test_equal_priorities_share_by_weight() -> None:
    counts = first_names(route(target("a", credential("1"), weight=75), target("b", credential("2"), weight=25)))
    assert 0.72 < counts["a"] / 4000 < 0.78


def test_weight_zero_is_never_drawn_beside_others() -> None:
    drawn = route(target("a", credential("1"), weight=0), target("b", credential("2")))
    assert first_names(drawn, 200) == {"b": 200}


def test_credentials_share_by_weight_and_all_are_candidates() -> None:
    drawn = route(target("a", credential("heavy", 90), credential("light", 10)))
    rng = random.Random(3)
    firsts = Counter(next(candidates(drawn, rng)).credential.name for _ in range(4000))
    assert 0.87 < firsts["heavy"] / 4000 < 0.93
    assert {found.credential.name for found in candidates(drawn, rng)} == {"heavy", "light"}


def test_a_target_without_a_usable_credential_is_no_candidate() -> None:
    drawn = route(target("a"), target("b", credential("1"), priority=1))
    assert [found.target.provider.name for found in candidates(drawn, random.Random(1))] == ["b"]


def test_a_credential_does_not_print_its_secret() -> None:
    assert "canary" not in repr(credential("main"))
    assert "canary" not in repr(target("a", credential("main")))
