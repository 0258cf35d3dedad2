"""S8: sixteen writers at once, each with a connection of its own: one chain, and nobody waits in a circle."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from datetime import timedelta
from threading import Barrier
from typing import Any

import pytest
from django.db import IntegrityError, OperationalError, connection, transaction

from conduit.access.models import Role, User
from conduit.access.tokens import create_token, revoke_token
from conduit.access.users import create_user, update_user
from conduit.core import audit, audit_chain
from conduit.core.actor import SYSTEM
from conduit.core.clock import now
from conduit.core.models import AuditEntry
from conduit.core.secret import Secret
from keys import raises
from keys.budgets import Budget
from keys.customers import put_customer
from keys.issuing import create_key, disable_key, enable_key, update_key
from keys.models import VirtualKey
from keys.teams import create_team, update_team
from providers.credentials import add_credential, update_credential
from providers.models import Credential, Provider, Route
from providers.providers import add_provider, update_provider
from providers.routes import add_route, update_route
from tests.keys.test_keys_at_once import at_once

WRITERS, ROUNDS = 16, 8
WORLD: dict[str, Any] = {}


def _budgets(rng: random.Random) -> list[dict[str, str]]:
    return [{"limit_usd": str(rng.randrange(1, 90)), "window": window} for window in ("day", "month")]


def _key(rng: random.Random) -> None:
    update_key(WORLD["key"], actor=SYSTEM, changes={"budgets": _budgets(rng)})


def _key_and_budgets(rng: random.Random) -> None:
    update_key(WORLD["key"], actor=SYSTEM, changes={"rpm": rng.randrange(1, 10**6), "budgets": _budgets(rng)})


def _raise(rng: random.Random) -> None:
    budget = Budget.objects.filter(owner_id=WORLD["key"].id, removed_at=None).order_by("?")[0]
    made = raises.raise_budget(budget, actor=SYSTEM, extra_nanos=10**9, until=now() + timedelta(hours=1))
    raises.end_raise(made, actor=SYSTEM)


def _new_key(rng: random.Random) -> None:
    create_key(actor=SYSTEM, name="app", team=WORLD["team"], budgets=_budgets(rng))


def _turn(rng: random.Random) -> None:
    key = VirtualKey.objects.get(id=WORLD["other"].id)
    disable_key(key, actor=SYSTEM)
    enable_key(key, actor=SYSTEM)


def _team(rng: random.Random) -> None:
    update_team(WORLD["team"], actor=SYSTEM, changes={"rpm": rng.randrange(1, 10**6), "budgets": _budgets(rng)})


def _customer(rng: random.Random) -> None:
    put_customer(name="mallory", actor=SYSTEM, team=WORLD["team"], limits={"rpm": rng.randrange(1, 10**6)})


def _provider(rng: random.Random) -> None:
    update_provider(WORLD["provider"], actor=SYSTEM, changes={"rpm": rng.randrange(1, 10**6)})


def _credential(rng: random.Random) -> None:
    update_credential(WORLD["credential"], actor=SYSTEM, changes={"weight": rng.randrange(1, 100)})


def _new_credential(rng: random.Random) -> None:
    fields = {"api_key": Secret("sk-0123456789")}
    add_credential(WORLD["provider"], actor=SYSTEM, name=f"c{rng.random()}", fields=fields, verify=False)


def _route(rng: random.Random) -> None:
    targets = [{"provider": name, "model": f"m{rng.randrange(10**6)}"} for name in rng.sample(["one", "two"], 2)]
    update_route(WORLD["route"], actor=SYSTEM, changes={"targets": targets})


def _new_route(rng: random.Random) -> None:
    add_route(actor=SYSTEM, name=f"r{rng.random()}", targets=[{"provider": "one", "model": "m"}])


def _token(rng: random.Random) -> None:
    token, _ = create_token(actor=SYSTEM, name="ci", role=Role.ANALYST, team=WORLD["team"].id)
    revoke_token(token, actor=SYSTEM)


def _user(rng: random.Random) -> None:
    user = User.objects.get(email="bob@example.org")
    update_user(user, actor=SYSTEM, name=str(rng.random()), teams=[WORLD["team"].id] if rng.random() < 0.5 else [])


CHANGES: tuple[Callable[[random.Random], None], ...] = (
    _key, _key_and_budgets, _raise, _new_key, _turn, _team, _customer, _provider, _credential, _new_credential, _route,
    _new_route, _token, _user,
)  # fmt: skip


@pytest.fixture
def world(transactional_db: None) -> None:
    team = create_team(actor=SYSTEM, name="Support")
    one, two = (add_provider(actor=SYSTEM, name=name, kind="openai") for name in ("one", "two"))
    credential = add_credential(
        one, actor=SYSTEM, name="main", fields={"api_key": Secret("sk-0123456789")}, verify=False
    )
    key, _ = create_key(actor=SYSTEM, name="app", team=team, budgets=_budgets(random.Random(0)))  # noqa: S311
    other, _ = create_key(actor=SYSTEM, name="other", team=team)
    create_user(actor=SYSTEM, email="bob@example.org", role=Role.OPERATOR, password=Secret("correct-horse-battery-9"))
    route = add_route(actor=SYSTEM, name="fast", targets=[{"provider": "one", "model": "m"}])
    rows: dict[str, VirtualKey | Provider | Credential | Route | Any] = {
        "team": team, "provider": one, "second": two, "credential": credential, "key": key, "other": other,
        "route": route,
    }  # fmt: skip
    WORLD.update(rows)
    connection.pool.resize(0, WRITERS + 4)  # type: ignore[attr-defined]


def _deadlocks() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_force_next_flush(), pg_stat_clear_snapshot()")
        cursor.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        return int((cursor.fetchone() or (0,))[0])


def _run(writers: int, rounds: int) -> tuple[int, list[BaseException]]:
    """All start together; each does every kind of change in an order of its own. (changes, what failed)"""
    barrier = Barrier(writers)

    def one(number: int) -> list[BaseException]:
        rng = random.Random(number)  # noqa: S311
        failed: list[BaseException] = []
        barrier.wait(60)
        for _ in range(rounds):
            try:
                rng.choice(CHANGES)(rng)
            except (OperationalError, IntegrityError) as error:
                failed.append(error)
        return failed

    failed = [error for found in at_once(writers, one) for error in found]
    return writers * rounds, failed


def test_sixteen_writers_at_once_make_one_chain_and_no_deadlock(world: None) -> None:
    before, deadlocks, started = AuditEntry.objects.count(), _deadlocks(), time.monotonic()
    changes, failed = _run(WRITERS, ROUNDS)
    took = time.monotonic() - started
    assert failed == []
    assert _deadlocks() == deadlocks
    found = audit_chain.verify()
    assert found.intact, found.fault
    written = found.entries - before
    assert written >= changes - WRITERS, "a change of each round at least, but for a few that change nothing"
    assert list(AuditEntry.objects.order_by("id").values_list("id", flat=True)) == list(range(1, found.entries + 1))
    print(  # noqa: T201
        f"S8: {WRITERS} writers at once, {changes} mixed changes, {written} entries in {took:.1f} s:"
        " forks 0, deadlocks 0"
    )


def test_without_the_turn_they_fork(world: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: two that read the same end write the same number, and one of them fails."""
    monkeypatch.setattr(audit_chain, "lock", lambda: None)
    barrier = Barrier(2)

    def one(number: int) -> bool:
        try:
            with transaction.atomic():
                end = audit_chain._end()
                barrier.wait(30)
                monkeypatch.setattr(audit_chain, "_end", lambda: end)
                audit.record(actor=SYSTEM, action="x", kind="x", id=number)
        except IntegrityError:
            return False
        return True

    assert sorted(at_once(2, one)) == [False, True]
