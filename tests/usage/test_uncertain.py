"""Somebody says what an uncertain attempt cost: the books are right after each answer, and it is given once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.db.models import Sum
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conduit.access.models import Role
from conduit.core.actor import SYSTEM, Actor
from conduit.core.errors import Conflict, Forbidden, InvalidInput, NotFound
from conduit.core.ids import uuid7
from conduit.core.models import AuditEntry
from keys.models import BudgetPeriod, Team, UncertainAttempt, VirtualKey
from providers.models import Provider
from tests.access.clients import ApiClient, client_of, faults
from tests.usage.events import at, budget, costing
from tests.usage.test_ledger import assert_ledger_adds_up, red, rollup_rows
from tests.usage.uncertain_rows import event_of, uncertain_attempt
from usage import corrections, uncertain
from usage.ledger import apply
from usage.models import UsageEvent, UsageHour, UsageTagHour
from usage.verification import rebuild

pytestmark = pytest.mark.django_db
HELD = 700_000


@pytest.fixture
def team() -> Team:
    return Team.objects.create(name="Weather")


@pytest.fixture
def key(team: Team) -> VirtualKey:
    return VirtualKey.objects.create(name="forecast", team=team)


def assert_books_are_right() -> None:
    """All invariants of the ledger, rollups that a rebuild leaves alike, and holds that are those of what is open."""
    assert_ledger_adds_up()
    before = rollup_rows()
    rebuild()
    assert rollup_rows() == before
    open_now = UncertainAttempt.objects.filter(resolved_at=None)
    for period in BudgetPeriod.objects.all():
        held = open_now.filter(periods__contains=[period.id]).aggregate(held=Sum("held_nanos"))["held"] or 0
        assert period.uncertain_nanos == held


def one(key: VirtualKey, team: Team, **given: Any) -> UncertainAttempt:
    """Counts against a key's and a team's budget, with two tags, beside an ordinary answer of the same hour."""
    budgets = [budget(key), budget(team, window="month")]
    fields = {"key_id": key.id.bytes, "team_id": team.id.bytes, "tags": ["a", "b", "a"]}
    attempt = uncertain_attempt(*budgets, held=HELD, **{**fields, **given})
    apply([costing(5, **fields, budgets=[one.id.bytes for one in budgets], periods=attempt.periods)])
    return attempt


@pytest.mark.parametrize(
    ("cost", "flags"),
    [
        (0, ["resolved"]),
        (1, ["resolved"]),
        (HELD, ["resolved"]),
        (HELD + 1, ["resolved", "above_hold"]),
        (2**62, ["resolved", "above_hold"]),
    ],
)
def test_a_resolution_moves_the_hold_out_and_the_cost_in_everywhere(
    key: VirtualKey, team: Team, cost: int, flags: list[str]
) -> None:
    attempt = one(key, team)
    resolved = uncertain.resolve(attempt.id, actor=SYSTEM, cost_nanos=cost)
    event = event_of(attempt)
    assert (event.cost_nanos, event.exactness, event.flags) == (cost, "estimated", flags)
    assert event.arithmetic == [["resolved", 1, cost * 1_000_000, cost]]
    assert {(p.settled_nanos, p.uncertain_nanos) for p in BudgetPeriod.objects.all()} == {(cost + 5, 0)}
    hours = UsageHour.objects.aggregate(cost=Sum("cost_nanos"), lost=Sum("uncertain"), guessed=Sum("estimated"))
    assert hours == {"cost": cost + 5, "lost": 0, "guessed": 1}
    assert [row.cost_nanos for row in UsageTagHour.objects.all()] == [cost + 5, cost + 5]
    assert (resolved.cost_nanos, resolved.resolved_by) == (cost, "system")
    assert resolved.resolved_at is not None
    assert_books_are_right()


def test_what_the_invoice_says_is_exact(key: VirtualKey, team: Team) -> None:
    attempt = one(key, team)
    uncertain.resolve(attempt.id, actor=SYSTEM, cost_nanos=123, from_invoice=True)
    assert event_of(attempt).exactness == "exact"
    assert UsageHour.objects.aggregate(both=Sum("uncertain") + Sum("estimated"))["both"] == 0
    assert_books_are_right()


def test_a_resolution_stands(key: VirtualKey, team: Team) -> None:
    attempt = one(key, team)
    uncertain.resolve(attempt.id, actor=SYSTEM, cost_nanos=0)
    with pytest.raises(Conflict, match=r"resolved at .* by system to \$0\.00"):
        uncertain.resolve(attempt.id, actor=SYSTEM, cost_nanos=HELD)
    assert event_of(attempt).cost_nanos == 0
    assert_books_are_right()


def test_the_resolution_is_in_the_audit_log_or_did_not_happen(
    key: VirtualKey, team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = one(key, team)

    def refuse(**_: Any) -> None:
        raise RuntimeError("no room for the entry")

    with monkeypatch.context() as patched:
        patched.setattr(uncertain.audit, "record", refuse)
        with pytest.raises(RuntimeError):
            uncertain.resolve(attempt.id, actor=SYSTEM, cost_nanos=3)
    assert event_of(attempt).exactness == "uncertain"
    assert_books_are_right()
    uncertain.resolve(attempt.id, actor=SYSTEM, cost_nanos=3)
    entry = AuditEntry.objects.get(action="attempt.resolve")
    assert (entry.object_id, entry.team_id) == (str(attempt.id), team.id)
    assert entry.before == {"held_usd": "0.0007", "reason": "uncertain"}
    assert entry.after == {"cost_usd": "0.000000003", "from_invoice": False}


@pytest.mark.parametrize("cost", [-1, 2**62 + 1, True])
def test_amounts_that_no_attempt_costs_are_refused(key: VirtualKey, team: Team, cost: int) -> None:
    attempt = one(key, team)
    with pytest.raises(InvalidInput, match="cost_usd"):
        uncertain.resolve(attempt.id, actor=SYSTEM, cost_nanos=cost)
    assert_books_are_right()


def test_a_sum_beyond_the_books_is_refused_and_changes_nothing(key: VirtualKey, team: Team) -> None:
    first, second = one(key, team), uncertain_attempt(key_id=key.id.bytes, team_id=team.id.bytes)
    uncertain.resolve(first.id, actor=SYSTEM, cost_nanos=2**62)
    with pytest.raises(InvalidInput, match="so much"):
        uncertain.resolve(second.id, actor=SYSTEM, cost_nanos=2**62)
    assert event_of(second).exactness == "uncertain"
    assert_books_are_right()


def test_a_record_that_arrives_after_the_resolution_changes_nothing(key: VirtualKey, team: Team) -> None:
    attempt = one(key, team)
    uncertain.resolve(attempt.id, actor=SYSTEM, cost_nanos=9)
    late = costing(50, attempt_id=attempt.id.bytes, time_us=at(attempt.time), periods=attempt.periods)
    assert apply([late]).duplicates == 1
    assert event_of(attempt).cost_nanos == 9
    assert_books_are_right()


def test_without_its_event_a_hold_can_be_freed_and_no_cost_be_made_up(key: VirtualKey, team: Team) -> None:
    attempt = uncertain_attempt(budget(key))
    UsageEvent.objects.all().delete()
    with pytest.raises(Conflict, match="unbilled"):
        uncertain.resolve(attempt.id, actor=SYSTEM, cost_nanos=1)
    uncertain.resolve(attempt.id, actor=SYSTEM, cost_nanos=0)
    assert BudgetPeriod.objects.get().uncertain_nanos == 0


def test_many_are_resolved_by_node_or_by_age(key: VirtualKey) -> None:
    own = budget(key)
    old = at(datetime.now(UTC) - timedelta(minutes=50))
    for node, time_us in (("node-a", old), ("node-a", None), ("node-b", old)):
        uncertain_attempt(own, held=7, node=node, **({"time_us": time_us} if time_us else {}))
    with pytest.raises(InvalidInput, match="Name a node"):
        uncertain.resolve_all(actor=SYSTEM, as_="unbilled")
    done = uncertain.resolve_all(actor=SYSTEM, node="node-a", older_than=timedelta(minutes=30), as_="held")
    assert (done.attempts, done.cost_nanos, done.held_nanos, done.left) == (1, 7, 7, 0)
    done = uncertain.resolve_all(actor=SYSTEM, node="node-a", as_="unbilled")
    assert (done.attempts, done.cost_nanos, done.held_nanos) == (1, 0, 7)
    assert UncertainAttempt.objects.filter(resolved_at=None).get().node == "node-b"
    assert BudgetPeriod.objects.get().settled_nanos == 7
    assert_books_are_right()


shapes = st.lists(
    st.tuples(
        st.integers(0, 3),  # hours ago
        st.integers(0, 10**9),  # held
        st.sampled_from([None, 0, 1, 10**6, 10**12]),  # resolved to, None: stays open
        st.lists(st.sampled_from(["a", "b", "c"]), max_size=3),
        st.booleans(),
    ),
    max_size=6,
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shapes)
def test_any_resolutions_among_any_events_leave_the_books_right(found: list[Any]) -> None:
    with transaction.atomic():
        own = budget(VirtualKey.objects.create(name="any"))
        moment = datetime.now(UTC)
        attempts = [
            (uncertain_attempt(own, held=held, tags=tags, time_us=at(moment - timedelta(hours=hours))), cost, invoice)
            for hours, held, cost, tags, invoice in found
        ]
        apply(
            [
                costing(
                    3,
                    tags=["a"],
                    budgets=[own.id.bytes],
                    periods=list(BudgetPeriod.objects.values_list("id", flat=True)),
                )
            ]
        )
        for attempt, cost, invoice in attempts:
            if cost is not None:
                uncertain.resolve(attempt.id, actor=SYSTEM, cost_nanos=cost, from_invoice=invoice)
        assert_books_are_right()
        transaction.set_rollback(True)


@pytest.mark.django_db(transaction=True)
def test_of_several_who_resolve_at_once_one_does_and_the_books_are_right_beside_a_shipper() -> None:
    key = VirtualKey.objects.create(name="forecast")
    budgets = [budget(key, window=window) for window in ("lifetime", "month")]
    attempts = [uncertain_attempt(*budgets, tags=["a"]) for _ in range(12)]
    done: list[int] = []
    failures: list[BaseException] = []

    def resolve(mine: list[UncertainAttempt], cost: int) -> None:
        for attempt in mine:
            try:
                uncertain.resolve(attempt.id, actor=SYSTEM, cost_nanos=cost)
                done.append(cost)
            except Conflict:
                continue

    def ship() -> None:
        for _ in range(15):
            record = costing(3, budgets=[one.id.bytes for one in budgets], periods=attempts[0].periods, tags=["a"])
            apply([record])

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 (shown by the test)
            failures.append(error)
        finally:
            connection.close()

    works: list[Callable[[], None]] = [
        lambda: resolve(attempts, 100),
        lambda: resolve(attempts[::-1], 10_000),
        ship,
    ]
    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures
    assert len(done) == 12
    assert {p.settled_nanos for p in BudgetPeriod.objects.all()} == {sum(done) + 45}
    assert_books_are_right()


# --- who may, and the API ------------------------------------------------------------------------------------------


def test_a_narrowed_actor_resolves_what_is_their_team_s_and_sees_nothing_else(key: VirtualKey, team: Team) -> None:
    other = Team.objects.create(name="Search")
    mine, parents = budget(key), budget(other)
    own = uncertain_attempt(mine, parents, team_id=team.id.bytes)
    foreign, of_none = uncertain_attempt(team_id=other.id.bytes), uncertain_attempt()
    bob = Actor("user", "1", "Bob", Role.OPERATOR, frozenset({team.id}))
    assert list(uncertain.open_attempts(bob)) == [own]
    (shown,) = uncertain.shown([own], bob)
    assert [period.owner for period in shown.periods] == ["forecast"]
    for attempt in (foreign, of_none):
        with pytest.raises(NotFound):
            uncertain.resolve(attempt.id, actor=bob, cost_nanos=0)
    uncertain.resolve(own.id, actor=bob, cost_nanos=0)
    assert UncertainAttempt.objects.get(id=own.id).resolved_by == "Bob"
    for role in (Role.ANALYST, Role.AUDITOR):
        with pytest.raises(Forbidden):
            uncertain.resolve(foreign.id, actor=Actor("user", "2", "Charlie", role, None), cost_nanos=0)


def test_the_api_lists_what_is_open_with_names_and_resolves_it(owner: ApiClient, key: VirtualKey, team: Team) -> None:
    provider = Provider.objects.create(name="acme", kind="custom")
    own = uncertain_attempt(budget(key), provider_id=provider.id.bytes, key_id=key.id.bytes, team_id=team.id.bytes)
    uncertain_attempt(node="node-b", model="other")
    (listed,) = owner.get(f"/uncertain?key={key.id}").json()["data"]
    assert listed["id"] == str(own.id)
    assert (listed["key_name"], listed["provider_name"], listed["held_usd"]) == ("forecast", "acme", "0.0007")
    assert (listed["periods"][0]["owner"]["name"], listed["periods"][0]["window"]) == ("forecast", "lifetime")
    for query in (
        "provider=acme",
        "model=sandbox-echo",
        "node=node-a",
        f"team={team.id}",
        "reason=uncertain&node=node-a",
    ):
        assert [row["id"] for row in owner.get(f"/uncertain?{query}").json()["data"]] == [str(own.id)], query
    first = owner.get("/uncertain?limit=1").json()
    second = owner.get(f"/uncertain?limit=1&cursor={first['next']}").json()
    assert len({first["data"][0]["id"], second["data"][0]["id"]}) == 2
    assert second["next"] is None

    done = owner.post(f"/uncertain/{own.id}/resolve", {"outcome": "billed", "cost_usd": "0.0005"})
    assert (done.status_code, done.json()["cost_usd"]) == (200, "0.0005")
    assert owner.post(f"/uncertain/{own.id}/resolve", {"outcome": "unbilled"}).status_code == 409
    assert len(owner.get("/uncertain").json()["data"]) == 1
    assert [row["id"] for row in owner.get("/uncertain?state=resolved").json()["data"]] == [str(own.id)]
    assert_books_are_right()


def test_billed_without_an_amount_costs_the_hold_and_unbilled_nothing(owner: ApiClient, key: VirtualKey) -> None:
    own = budget(key)
    held, freed = uncertain_attempt(own), uncertain_attempt(own)
    assert owner.post(f"/uncertain/{held.id}/resolve", {"outcome": "billed"}).json()["cost_usd"] == "0.0007"
    body = {"outcome": "unbilled", "from_invoice": True}
    assert owner.post(f"/uncertain/{freed.id}/resolve", body).json()["cost_usd"] == "0.00"
    assert event_of(freed).exactness == "exact"
    assert_books_are_right()


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "outcome"),
        ({"outcome": "free"}, "outcome"),
        ({"outcome": "unbilled", "cost_usd": "0.01"}, "cost_usd"),
        ({"outcome": "billed", "cost_usd": "-1"}, "cost_usd"),
        ({"outcome": "billed", "cost_usd": "1,0"}, "cost_usd"),
        ({"outcome": "billed", "cost_usd": "1e400"}, "cost_usd"),
        ({"outcome": "billed", "cost_usd": "9223372036"}, "cost_usd"),
        ({"outcome": "billed", "cost_usd": 1.5}, "cost_usd"),
        ({"outcome": "billed", "cost": "1"}, "cost"),
    ],
)
def test_bodies_that_say_nothing_clear_are_refused_with_the_field(
    owner: ApiClient, body: dict[str, Any], field: str
) -> None:
    attempt = uncertain_attempt()
    answer = owner.post(f"/uncertain/{attempt.id}/resolve", body)
    assert answer.status_code == 400
    assert field in faults(answer)
    assert event_of(attempt).exactness == "uncertain"


@pytest.mark.parametrize("query", ["state=lost", "key=7", "team=x", "from=now", "nodes=a", "provider=nobody"])
def test_filters_that_cannot_be_are_refused_with_their_name(owner: ApiClient, query: str) -> None:
    answer = owner.get(f"/uncertain?{query}")
    assert answer.status_code in (400, 404)
    if answer.status_code == 400:
        assert query.partition("=")[0] in faults(answer)


def test_who_reads_only_is_told_who_may_resolve(db: None) -> None:
    attempt = uncertain_attempt()
    for role in (Role.ANALYST, Role.AUDITOR):
        client = client_of(role)
        assert len(client.get("/uncertain").json()["data"]) == 1
        assert client.post(f"/uncertain/{attempt.id}/resolve", {"outcome": "unbilled"}).status_code == 403
    assert client_of(Role.OPERATOR).post(f"/uncertain/{attempt.id}/resolve", {"outcome": "unbilled"}).status_code == 200
    assert client_of(Role.OWNER).post(f"/uncertain/{uuid7()}/resolve", {"outcome": "unbilled"}).status_code == 404


# --- negative controls ---------------------------------------------------------------------------------------------


def test_without_taking_the_former_row_out_of_the_rollups_the_checks_turn_red(
    key: VirtualKey, team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = one(key, team)
    monkeypatch.setattr(corrections, "_TAKE", "SELECT 1")
    uncertain.resolve(attempt.id, actor=SYSTEM, cost_nanos=3)
    assert red() >= {"hours", "tag-hours"}


def test_without_the_cost_in_the_periods_the_checks_turn_red(
    key: VirtualKey, team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = one(key, team)
    monkeypatch.setattr(uncertain, "_MOVE", uncertain._MOVE.replace("THEN %(cost)s", "THEN 0 * %(cost)s"))
    uncertain.resolve(attempt.id, actor=SYSTEM, cost_nanos=3)
    assert red() == {"periods"}
