"""L12: rate limits over four processes against an oracle limiter that sees every request: over-admission 0,
under-admission at most 5 %.

The minute is shortened to some seconds. Each process makes its own attempts, more than fit, in an uneven share (one
process has most of them, one has few), so that slices lie where they are not needed. The oracle is given the very
instants at which the processes asked, and decides by exact counts.
"""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

WINDOW = 6.0
SHARES = (0.55, 0.25, 0.15, 0.05)
STARTING = 6.0  # seconds until every process is up; they wait for the instant
Attempt = tuple[float, int, int, float]  # seconds after the start, estimate, tokens really used, duration


@dataclass(frozen=True)
class Seen:
    """What became of one attempt. `window` is the one it was charged to; times are monotonic seconds."""

    began: float
    ended: float
    admitted: bool
    window: int | None
    released: float | None
    estimate: int
    tokens: int
    duration: float


def split(attempts: Sequence[Attempt], seed: int) -> list[list[Attempt]]:
    """Uneven shares, each in the order of time."""
    rng = random.Random(seed)
    shares: list[list[Attempt]] = [[] for _ in SHARES]
    for attempt in attempts:
        shares[rng.choices(range(len(SHARES)), SHARES)[0]].append(attempt)
    return shares


def run(valkey_url: str, limits: dict[str, int], attempts: Sequence[Attempt], seed: int) -> list[Seen]:
    """Four processes, started before the beginning of a window, in which they make their attempts."""
    scope = {"rpm": None, "tpm": None, "max_parallel": None, **limits, "id": str(uuid.uuid4())}
    start = math.ceil((time.time() + STARTING) / WINDOW) * WINDOW + 0.05

    def process(number: int, mine: list[Attempt]) -> list[Seen]:
        plan: dict[str, Any] = {"valkey": valkey_url, "window": WINDOW, "worker": f"w{number}", "scope": scope}
        done = subprocess.run(
            [sys.executable, "-P", "-m", "tests.keys.rate_worker"],
            input=json.dumps({**plan, "start": start, "attempts": mine}),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            capture_output=True,
            text=True,
            timeout=90,
            check=True,
        )
        # The processes' answers come in the order of asking, which is that of the plan but for a shuffle of neighbours.
        return [Seen(*seen, *attempt[1:]) for seen, attempt in zip(json.loads(done.stdout), mine, strict=True)]

    with ThreadPoolExecutor(len(SHARES)) as threads:
        answers = threads.map(process, range(len(SHARES)), split(attempts, seed))
        return sorted((seen for share in answers for seen in share), key=lambda seen: seen.began)


def tell(what: str, admitted: int, wanted: int, over: int) -> float:
    under = max(0.0, 1 - admitted / wanted)
    sys.stdout.write(f"\nL12: {what}: over-admission {over}, under-admission {under:.2%} ({admitted} of {wanted})\n")
    return under


def test_requests_a_minute(valkey_url: str) -> None:
    limit, count = 400, 1000
    attempts = [(index * WINDOW * 1.9 / count, 1, 1, 0.0) for index in range(count)]  # two windows, with their edge
    seen = run(valkey_url, {"rpm": limit}, attempts, seed=1)
    windows: dict[int | None, int] = {}
    for one in seen:
        if one.admitted:
            windows[one.window] = windows.get(one.window, 0) + 1
    over = sum(max(0, admitted - limit) for admitted in windows.values())
    # Of the second window nine tenths are asked for, which is still more than the limit.
    assert len(windows) == 2
    under = tell("requests a minute", sum(windows.values()), 2 * limit, over)
    assert over == 0
    assert under <= 0.05


def oracle_tokens(seen: Sequence[Seen], limit: int, start: float) -> int:
    """Tokens that an exact limiter lets through, asked at the same instants; corrections come after each duration."""
    used, window, passed = 0, 0, 0
    due: list[tuple[float, int, int]] = []  # when corrected, by how much, admitted in which window
    for one in seen:
        due.sort()
        while due and due[0][0] <= one.began:
            at, more, of = due.pop(0)
            if more > 0 or of == int((at - start) // WINDOW):
                used += more
        now = int((one.began - start) // WINDOW)
        if now > window:
            used, window = max(0, used - limit * (now - window)), now
        if used + one.estimate <= limit:
            used += one.estimate
            passed += one.estimate
            due.append((one.began + one.duration, one.tokens - one.estimate, now))
    return passed


def most_tokens(seen: Sequence[Seen], limit: int) -> int:
    """By how much the estimates that were let through, less what was surely given back, ever exceed the limit.

    An admission counts from its answer on and a correction from its asking on, so that this is never an overstatement.
    """
    moves: list[tuple[float, int, int]] = []
    for one in seen:
        if one.admitted:
            assert one.window is not None
            assert one.released is not None
            moves.append((one.ended, one.window, one.estimate))
            moves.append((one.released, one.window, min(0, one.tokens - one.estimate)))
    totals: dict[int, int] = {}
    worst = 0
    for _, window, units in sorted(moves):
        totals[window] = totals.get(window, 0) + units
        worst = max(worst, totals[window] - limit)
    return worst


@pytest.mark.parametrize("kind", ["overestimated", "underestimated"])
def test_tokens_a_minute_estimated_first_and_corrected_after(valkey_url: str, kind: str) -> None:
    rng, limit, count = random.Random(2), 60_000, 600
    attempts: list[Attempt] = []
    for index in range(count):
        estimate = rng.randint(50, 900)
        share = rng.uniform(0.3, 0.9) if kind == "overestimated" else rng.uniform(0.9, 1.3)
        attempts.append((index * WINDOW * 0.9 / count, estimate, int(estimate * share), rng.uniform(0.05, 0.4)))
    seen = run(valkey_url, {"tpm": limit}, attempts, seed=3)
    passed = sum(one.estimate for one in seen if one.admitted)
    start = seen[0].began - 0.05
    over = most_tokens(seen, limit)
    under = tell(f"tokens a minute, {kind}", passed, oracle_tokens(seen, limit, start), over)
    assert over == 0
    assert under <= 0.05


def most_parallel(seen: Sequence[Seen]) -> int:
    moves = [(one.ended, 1) for one in seen if one.admitted] + [
        (one.released, -1) for one in seen if one.released is not None
    ]
    running = most = 0
    for _, step in sorted(moves):
        running += step
        most = max(most, running)
    return most


def oracle_parallel(seen: Sequence[Seen], limit: int) -> int:
    running: list[float] = []
    passed = 0
    for one in seen:
        running = [until for until in running if until > one.began]
        if len(running) < limit:
            running.append(one.began + one.duration)
            passed += 1
    return passed


def test_parallel_requests(valkey_url: str) -> None:
    rng, limit, count = random.Random(4), 24, 900
    attempts: list[Attempt] = [(index * 5.0 / count, 1, 1, rng.uniform(0.1, 0.3)) for index in range(count)]
    seen = run(valkey_url, {"max_parallel": limit}, attempts, seed=5)
    over = max(0, most_parallel(seen) - limit)
    # Durations as they were: a process that is late gives its place back late.
    real = [one if one.released is None else Seen(**{**vars(one), "duration": one.released - one.ended}) for one in seen]
    under = tell("parallel requests", sum(one.admitted for one in seen), oracle_parallel(real, limit), over)
    assert over == 0
    assert under <= 0.05
