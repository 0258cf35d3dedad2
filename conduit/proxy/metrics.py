"""Prometheus metrics of the data plane, tallied in memory and flushed by the worker's tick."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections import Counter as Counts
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
RATES = (1, 2, 5, 10, 20, 35, 50, 75, 100, 150, 200, 300, 500, 1000, 2000)  # tokens a second
NAMES = 300  # pairs of provider and model that streams are told apart by in one worker; the rest are "other"
OVERHEAD = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25)

REQUESTS = Counter("conduit_requests_total", "Requests answered", ["endpoint", "provider", "model", "status"])
DURATION = Histogram("conduit_request_seconds", "From first byte in to last byte out", ["endpoint"], buckets=SECONDS)
FIRST_TOKEN = Histogram("conduit_first_token_seconds", "Until the first streamed bytes", ["endpoint"], buckets=SECONDS)
ADDED = Histogram("conduit_overhead_seconds", "Time the gateway itself took", ["endpoint"], buckets=OVERHEAD)
TOKENS = Counter("conduit_tokens_total", "Tokens metered", ["provider", "model", "direction"])
COST = Counter("conduit_cost_nanodollars_total", "Metered cost in nano-dollars", ["provider", "model"])
ATTEMPTS = Counter("conduit_upstream_attempts_total", "Upstream attempts", ["provider", "outcome"])
REFUSED = Counter("conduit_refused_total", "Requests refused by the gateway", ["endpoint", "code"])
REPLAYED = Counter("conduit_idempotent_replays_total", "Answers replayed by idempotency key", ["endpoint"])
STREAM_FIRST = Histogram(
    "conduit_stream_ttft_seconds",
    "Request's first byte in to stream's first piece out",
    ["provider", "model"],
    buckets=SECONDS,
)
STREAM_RATE = Histogram(
    "conduit_stream_tokens_per_second", "Output tokens after the first piece", ["provider", "model"], buckets=RATES
)
STREAMS_ENDED = Counter("conduit_streams_ended_total", "Streams by how they ended", ["reason", "provider", "model"])
STREAMS_OPEN = Gauge("conduit_streams_open", "Streams under way", multiprocess_mode="livesum")
IN_FLIGHT = Gauge("conduit_in_flight_requests", "Requests under way", multiprocess_mode="livesum")
SNAPSHOT_AGE = Gauge("conduit_database_away_seconds", "Since the database last answered", multiprocess_mode="livemax")
WAITING = Gauge("conduit_budget_waiting_requests", "Requests that wait for a hold", multiprocess_mode="livesum")
BREAKERS = Gauge(
    "conduit_breakers_open",
    "Workers that leave a failing target alone",
    ["provider", "model"],
    multiprocess_mode="livesum",
)
EXCHANGES = Counter("conduit_lease_round_trips_total", "Questions about leases to the database")

_SHOWN: set[tuple[str, str]] = set()


class Tally:
    """Counts in plain dictionaries, handed to Prometheus once a second: a metric then costs a request next to nothing.

    Used by the event loop's thread only. A histogram's observations are put into their buckets here, because observing
    them one by one at the flush would cost as much as observing them at once.
    """

    def __init__(self) -> None:
        self._counts: dict[tuple[Counter, tuple[str, ...]], int] = {}
        self._seen: dict[tuple[Histogram, tuple[str, ...]], list[float]] = {}
        self._names: set[tuple[str, str]] = set()
        self.in_flight = 0
        self.streams = 0  # open ones

    def add(self, counter: Counter, labels: tuple[str, ...], amount: int = 1) -> None:
        key = (counter, labels)
        self._counts[key] = self._counts.get(key, 0) + amount

    def observe(self, histogram: Histogram, label: str | tuple[str, ...], value: float) -> None:
        key = (histogram, (label,) if isinstance(label, str) else label)
        try:
            self._seen[key].append(value)
        except KeyError:
            self._seen[key] = [value]

    def bounded(self, provider: str, model: str) -> tuple[str, str]:
        """The labels of a histogram by provider and model: a pair of names costs a series for each bucket."""
        names = (provider, model)
        if names not in self._names:
            if len(self._names) >= NAMES:
                return "other", "other"
            self._names.add(names)
        return names

    def flush(self) -> None:
        counts, self._counts = self._counts, {}
        for (counter, labels), amount in counts.items():
            counter.labels(*labels).inc(amount)
        seen, self._seen = self._seen, {}
        for (histogram, labels), values in seen.items():
            _observe_all(histogram.labels(*labels), values)
        IN_FLIGHT.set(self.in_flight)
        STREAMS_OPEN.set(self.streams)


def _observe_all(child: Any, values: list[float]) -> None:
    """What `child.observe` does, for many values at once: each bucket holds its own count until exposition."""
    buckets = Counts(bisect_left(child._upper_bounds, value) for value in values)
    for index, count in buckets.items():
        child._buckets[index].inc(count)
    child._sum.inc(sum(values))


def show_breakers(opened: Counts[tuple[str, str]]) -> None:
    """One that closed goes on being told, as 0."""
    for labels in _SHOWN - opened.keys():
        BREAKERS.labels(*labels).set(0)
    for labels, number in opened.items():
        BREAKERS.labels(*labels).set(number)
    _SHOWN.update(opened)


def exposition() -> bytes:
    """All workers' figures where PROMETHEUS_MULTIPROC_DIR is set (as `conduit up` does), else this one's."""
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)
    return generate_latest()
