"""A tally shows the same exposition as observing each value would."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from conduit.proxy.metrics import NAMES, Tally

VALUES = [0.001, 0.005, 0.005, 0.02, 0.3, 0.30000001, 7.0, 1000.0, 0.0]


def exposition(tallied: bool) -> list[str]:
    registry = CollectorRegistry()
    seconds = Histogram("seconds", "s", ["endpoint"], buckets=(0.005, 0.1, 0.3, 5), registry=registry)
    total = Counter("total", "t", ["endpoint", "status"], registry=registry)
    tally = Tally()
    for value in VALUES:
        if tallied:
            tally.observe(seconds, "chat", value)
            tally.add(total, ("chat", "200"), 2)
        else:
            seconds.labels("chat").observe(value)
            total.labels("chat", "200").inc(2)
    tally.flush()
    tally.flush()
    lines = generate_latest(registry).decode().splitlines()
    return [line for line in lines if not line.startswith("#") and "_created" not in line]


def test_a_tally_equals_single_observations() -> None:
    assert exposition(tallied=True) == exposition(tallied=False)
    assert any('seconds_bucket{endpoint="chat",le="0.005"} 4.0' in line for line in exposition(tallied=True))


def test_names_that_histograms_are_told_apart_by_are_bounded() -> None:
    tally = Tally()
    first = [tally.bounded("provider", f"model-{number}") for number in range(NAMES)]
    assert len(set(first)) == NAMES
    assert tally.bounded("provider", "one-more") == ("other", "other")
    assert tally.bounded("provider", "model-0") == ("provider", "model-0")
