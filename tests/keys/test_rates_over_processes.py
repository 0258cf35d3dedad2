"""L12: rate limits over four processes against an oracle limiter that sees every request: over-admission 0,
under-admission at most 5 %.

The minute is shortened to some seconds. Each process makes its own attempts, together more than fit, in uneven shares
(one process has most of them, one has few), so that slices lie where they are not needed. The oracle is given the very
instants at which the processes decided, and goes by exact counts.
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
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

WINDOW = 5.0
SHARES = (0.55, 0.25, 0.15, 0.05)
AHEAD = 1.0  # seconds before the start in which all are told of it
RPM, TPM, PARALLEL = 300, 50_000, 20
Attempt = tuple[float, int, int, float]  # seconds after the start, estimate, tokens really used, duration


@dataclass(frozen=True)
class Seen:
    """What became of one attempt. `window` is the one it was charged to; times are monotonic seconds."""

    decided: float
    admitted: bool
    window: int | None
    released: float | None
    estimate: int
    tokens: int
    duration: float


@dataclass(frozen=True)
class Outcome:
    """By scenario; `start` is the beginning of the first window in monotonic seconds."""

    start: float
    seen: dict[str, list[Seen]]


def requests() -> list[Attempt]:
    """Over two windows, with the edge between them."""
    return [(index * WINDOW * 1.9 / 800, 1, 1, 0.0) for index in range(800)]


def tokens(low: float, high: float) -> list[Attempt]:
    """Really used is a share from `low` to `high` of the estimate."""
    rng = random.Random(2)
    found: list[Attempt] = []
    for index in range(500):
        estimate = rng.randint(50, 900)
        used = int(estimate * rng.uniform(low, high))
        found.append((index * WINDOW * 0.9 / 500, estimate, used, rng.uniform(0.05, 0.4)))
    return found


def parallel() -> list[Attempt]:
    """Long beside the way of a place from one process to the next, which is longer on a busy machine."""
    rng = random.Random(4)
    return [(index * WINDOW / 700, 1, 1, rng.uniform(0.3, 0.9)) for index in range(700)]


SCENARIOS: dict[str, tuple[dict[str, int], list[Attempt]]] = {
    "requests": ({"rpm": RPM}, requests()),
    "tokens, overestimated": ({"tpm": TPM}, tokens(0.3, 0.9)),
    "tokens, underestimated": ({"tpm": TPM}, tokens(0.9, 1.3)),
    "parallel requests": ({"max_parallel": PARALLEL}, parallel()),
}


def plans() -> list[list[dict[str, Any]]]:
    """For each process its share of every scenario."""
    rng = random.Random(1)
    shares: list[list[dict[str, Any]]] = [[] for _ in SHARES]
    for limits, attempts in SCENARIOS.values():
        scope = {"rpm": None, "tpm": None, "max_parallel": None, **limits, "id": str(uuid.uuid4())}
        mine: list[list[Attempt]] = [[] for _ in SHARES]
        for attempt in attempts:
            mine[rng.choices(range(len(SHARES)), SHARES)[0]].append(attempt)
        for share, own in zip(shares, mine, strict=True):
            share.append({**scope, "attempts": own})
    return shares


@pytest.fixture(scope="module")
def outcome(valkey_url: str) -> Outcome:
    """All scenarios at once, by four processes that begin together at the beginning of a window."""
    path = os.pathsep.join(path for path in sys.path if path)
    with ExitStack() as stack:
        workers = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-P", "-m", "tests.keys.rate_worker"],
                    env={**os.environ, "PYTHONPATH": path},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for _ in SHARES
        ]
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
        start = math.ceil((time.time() + AHEAD) / WINDOW) * WINDOW
        for number, (worker, scopes) in enumerate(zip(workers, plans(), strict=True)):
            plan = {"valkey": valkey_url, "window": WINDOW, "worker": f"w{number}", "start": start, "scopes": scopes}
            assert worker.stdin is not None
            worker.stdin.write(json.dumps(plan) + "\n")
            worker.stdin.flush()
        answers: list[list[list[list[Any]]]] = [json.loads(worker.communicate(timeout=120)[0]) for worker in workers]
    seen: dict[str, list[Seen]] = {}
    for place, name in enumerate(SCENARIOS):
        found = [Seen(*one) for answer in answers for one in answer[place]]
        seen[name] = sorted(found, key=lambda one: one.decided)
    return Outcome(start - time.time() + time.monotonic(), seen)


def judge(what: str, admitted: int, wanted: int, over: int) -> None:
    under = max(0.0, 1 - admitted / wanted)
    sys.stdout.write(f"\nL12: {what}: over-admission {over}, under-admission {under:.2%} ({admitted} of {wanted})\n")
    assert over == 0
    assert under <= 0.05


def test_requests_a_minute(outcome: Outcome) -> None:
    seen = outcome.seen["requests"]
    charged = Counter(one.window for one in seen if one.admitted)
    asked = Counter(int((one.decided - outcome.start) // WINDOW) for one in seen)
    over = sum(max(0, admitted - RPM) for admitted in charged.values())
    wanted = sum(min(RPM, count) for count in asked.values())
    assert wanted < len(seen), "more is asked for than fits"
    judge("requests a minute", sum(charged.values()), wanted, over)


def oracle_tokens(seen: Sequence[Seen], limit: int, start: float) -> int:
    """Tokens that an exact limiter lets through, asked at the same instants; corrections come after each duration."""
    used, window, passed = 0, 0, 0
    due: list[tuple[float, int, int]] = []  # when corrected, by how much, admitted in which window
    for one in seen:
        now = int((one.decided - start) // WINDOW)
        if now > window:
            used, window = max(0, used - limit * (now - window)), now
        due.sort()
        while due and due[0][0] <= one.decided:
            _, more, of = due.pop(0)
            if more > 0 or of == window:
                used += more
        if used + one.estimate <= limit:
            used += one.estimate
            passed += one.estimate
            due.append((one.decided + one.duration, one.tokens - one.estimate, window))
    return passed


def most_tokens(seen: Sequence[Seen], limit: int) -> int:
    """By how much the estimates that were let through, less what was surely given back, ever exceed the limit.

    An admission counts from its answer on and a correction from its asking on, so this never says too much.
    """
    moves: list[tuple[float, int, int]] = []
    for one in seen:
        if one.admitted:
            assert one.window is not None
            assert one.released is not None
            moves.append((one.decided, one.window, one.estimate))
            moves.append((one.released, one.window, min(0, one.tokens - one.estimate)))
    totals: Counter[int] = Counter()
    worst = 0
    for _, window, units in sorted(moves):
        totals[window] += units
        worst = max(worst, totals[window] - limit)
    return worst


@pytest.mark.parametrize("kind", ["tokens, overestimated", "tokens, underestimated"])
def test_tokens_a_minute_estimated_first_and_corrected_after(outcome: Outcome, kind: str) -> None:
    seen = outcome.seen[kind]
    passed = sum(one.estimate for one in seen if one.admitted)
    wanted = oracle_tokens(seen, TPM, outcome.start)
    assert wanted < sum(one.estimate for one in seen), "more is asked for than fits"
    judge(f"{kind}, a minute", passed, wanted, most_tokens(seen, TPM))


def most_parallel(seen: Sequence[Seen]) -> int:
    """A place counts from the answer on until it is given back, so this never says too much."""
    moves = [(one.decided, 1) for one in seen if one.admitted]
    moves += [(one.released, -1) for one in seen if one.released is not None]
    running = most = 0
    for _, step in sorted(moves):
        running += step
        most = max(most, running)
    return most


def oracle_parallel(seen: Sequence[Seen], limit: int) -> int:
    """How many an exact limiter lets through. A late process gives its places back late, by the oracle's count too."""
    running: list[float] = []
    passed = 0
    for one in seen:
        running = [until for until in running if until > one.decided]
        if len(running) < limit:
            really = one.duration if one.released is None else one.released - one.decided
            running.append(one.decided + really)
            passed += 1
    return passed


def test_parallel_requests(outcome: Outcome) -> None:
    seen = outcome.seen["parallel requests"]
    wanted = oracle_parallel(seen, PARALLEL)
    assert wanted < len(seen), "more is asked for than fits"
    judge("parallel requests", sum(one.admitted for one in seen), wanted, max(0, most_parallel(seen) - PARALLEL))
