"""Nobody learns from an answer's time whether a key of some public id exists (V5).

Samples of both kinds are taken in turn, so that whatever else the machine does falls on both alike. Their pairwise
differences are judged by a permutation test: under "no difference" each sign is a coin's. No time is ever compared with
a bound of its own.
"""

from __future__ import annotations

import http.client
import random
import time
from collections.abc import Callable
from contextlib import closing
from statistics import median
from typing import Any

from conduit.access.tokens import create_token
from conduit.core import raw_keys
from conduit.core.actor import SYSTEM
from tests.harness.gateway import RunningGateway

PAIRS, SHUFFLES, ROUNDS = 100, 400, 4
DOUBT = 0.01  # of one round; equal things are called different by all rounds once in DOUBT ** -ROUNDS runs


def with_checksum(head: str) -> str:
    return head + raw_keys._checksum(head)


def unknown(kind: str, like: str) -> str:
    return raw_keys.mint(kind).raw.reveal()


def wrong(kind: str, like: str) -> str:
    """The public id of a live key before another secret, each time another one."""
    return with_checksum(like[:17] + raw_keys.mint(kind).raw.reveal()[17:49])


def malformed(kind: str, like: str) -> str:
    raw = raw_keys.mint(kind).raw.reveal()
    return raw[:-1] + ("0" if raw[-1] != "0" else "1")


Make = Callable[[str, str], str]


class Asker:
    """Asks over one connection, and remembers what was answered."""

    def __init__(self, gateway: RunningGateway, path: str, like: str) -> None:
        self.connection = http.client.HTTPConnection(gateway.url.removeprefix("http://"), timeout=20)
        self.path, self.kind, self.like = path, like[4:6], like
        self.answers: set[tuple[int, bytes]] = set()

    def close(self) -> None:
        self.connection.close()

    def seconds(self, make: Make) -> float:
        headers = {"authorization": f"Bearer {make(self.kind, self.like)}", "x-request-id": "bad-key-request"}
        begun = time.perf_counter()
        self.connection.request("GET", self.path, headers=headers)
        answer = self.connection.getresponse()
        body = answer.read()
        taken = time.perf_counter() - begun
        self.answers.add((answer.status, body))
        return taken

    def doubts(self, one: Make, other: Make) -> float:
        """The share of shuffles whose median difference is at least the measured one: small means different."""
        pairs = []
        for number in range(PAIRS):
            first, second = (one, other) if number % 2 else (other, one)
            taken = {first: self.seconds(first)}
            taken[second] = self.seconds(second)
            pairs.append(taken[one] - taken[other])
        dice = random.Random(PAIRS)
        found = abs(median(pairs))
        far = sum(abs(median(gap * dice.choice((1, -1)) for gap in pairs)) >= found for _ in range(SHUFFLES))
        return (far + 1) / (SHUFFLES + 1)

    def told_apart(self, one: Make, other: Make) -> bool:
        """Whether every round finds a difference: what is alike does not come so far."""
        return all(self.doubts(one, other) < DOUBT for _ in range(ROUNDS))

    def seen_apart(self, one: Make, other: Make) -> bool:
        """Whether some round finds a difference: what is far apart does not escape all of them."""
        return any(self.doubts(one, other) < DOUBT for _ in range(ROUNDS))


def test_a_wrong_secret_of_a_live_key_takes_as_long_as_an_unknown_key(gateway: RunningGateway) -> None:
    from keys.budget_specs import BudgetSpec

    live = gateway.key(budgets=[BudgetSpec(10**9, window="day"), BudgetSpec(10**9, window="month")])
    with gateway.client(live) as client:
        assert client.get("/v1/models").status_code == 200
    with closing(Asker(gateway, "/v1/models", live)) as asker:
        assert not asker.told_apart(unknown, wrong)
        # The measurement is fine enough to see one query: a malformed key is answered without it. That tells nobody
        # anything, because the checksum is public: whoever can write a well-formed key knows beforehand.
        assert asker.seen_apart(unknown, malformed)
    ((status, _),) = asker.answers
    assert status == 401
    print(f"V5: unknown, wrong and malformed key: one answer; unknown and wrong not told apart in {PAIRS} pairs")


def test_a_wrong_secret_of_a_live_token_takes_as_long_as_an_unknown_token(gateway: RunningGateway) -> None:
    _, raw = create_token(actor=SYSTEM, name="timed", role="owner")
    with closing(Asker(gateway, "/api/v1/keys", raw.reveal())) as asker:
        assert not asker.told_apart(unknown, wrong)
        assert asker.seen_apart(unknown, malformed)
    ((status, _),) = asker.answers
    assert status == 401
    print(f"V5: unknown, wrong and malformed token: one answer; unknown and wrong not told apart in {PAIRS} pairs")


def test_the_judgement_itself_is_right(gateway: RunningGateway) -> None:
    """Two names of the same are not told apart, however loaded the machine is."""

    def likewise(kind: str, like: str) -> str:
        return unknown(kind, like)

    with closing(Asker(gateway, "/v1/models", gateway.raw_key)) as asker:
        assert not asker.told_apart(unknown, likewise)


def test_an_attempt_with_a_wrong_secret_reads_neither_rights_nor_budgets(gateway: RunningGateway) -> None:
    from keys.budget_specs import BudgetSpec
    from keys.models import BudgetPeriod

    live = gateway.key(budgets=[BudgetSpec(10**9, window="day")])
    before = BudgetPeriod.objects.count()

    def status(raw: str) -> Any:
        with gateway.client(raw) as client:
            return client.get("/v1/models").status_code

    assert status(wrong("vk", live)) == 401
    assert BudgetPeriod.objects.count() == before
    assert status(live) == 200
    assert BudgetPeriod.objects.count() > before, "the key's own first use opens its budget's period"
