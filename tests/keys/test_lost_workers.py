"""What lost workers hold of budgets: shown with amount and age, released once and only when they are surely silent."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db.models import F
from django.utils import timezone

from conduit.access.models import Role
from conduit.core.actor import SYSTEM, Actor
from conduit.core.errors import Conflict, Forbidden, NotFound
from conduit.core.ids import uuid7
from conduit.core.models import AuditEntry
from keys import live_leases, lost_workers
from keys.lost_workers import release
from keys.models import BudgetPeriod, Lease, Team, VirtualKey, Worker
from keys.tasks import release_lost_workers
from tests.access.clients import ApiClient, client_of, faults
from tests.usage.events import at, budget, costing
from tests.usage.uncertain_rows import period_of
from usage.ledger import apply

pytestmark = pytest.mark.django_db
SECONDS = {"serving": 1, "silent": 40, "lost": 100}


def worker(silent: float = 0, *, node: str = "node-a", pid: int = 7, **given: Any) -> Worker:
    """Seen that many seconds ago."""
    made = Worker.objects.create(id=uuid7(), node=node, pid=pid, **given)
    Worker.objects.filter(id=made.id).update(seen_at=timezone.now() - timedelta(seconds=silent))
    made.refresh_from_db()
    return made


def lease(own: Worker, period: BudgetPeriod, granted: int, spent: int = 0, held: int = 0) -> Lease:
    """With its open amount in the period's `leased_nanos`, as a grant leaves it."""
    made = Lease.objects.create(worker=own, period=period, granted_nanos=granted, spent_nanos=spent, held_nanos=held)
    BudgetPeriod.objects.filter(id=period.id).update(leased_nanos=F("leased_nanos") + made.open_nanos)
    return made


@pytest.fixture
def team() -> Team:
    return Team.objects.create(name="Weather")


@pytest.fixture
def key(team: Team) -> VirtualKey:
    return VirtualKey.objects.create(name="forecast", team=team)


def leased() -> dict[int, int]:
    return dict(BudgetPeriod.objects.values_list("id", "leased_nanos"))


def assert_leased_is_what_is_open() -> None:
    for period in BudgetPeriod.objects.all():
        assert period.leased_nanos == sum(one.open_nanos for one in period.leases.all())


def test_a_release_gives_back_what_is_open_of_this_worker_only(key: VirtualKey, team: Team) -> None:
    first, second = period_of(budget(key)), period_of(budget(team, window="month"))
    gone, alive = worker(100), worker(1, pid=8)
    lease(gone, first, 1_000, spent=300, held=200)
    lease(gone, second, 500, spent=600)
    kept = lease(alive, first, 50)
    done = release(gone.id, actor=SYSTEM)
    assert (done.node, done.pid, done.periods, done.nanos) == ("node-a", 7, 1, 700)
    assert leased() == {first.id: 50, second.id: 0}
    kept.refresh_from_db()
    assert kept.open_nanos == 50
    assert not Lease.objects.filter(worker=gone).exists()
    assert_leased_is_what_is_open()
    entry = AuditEntry.objects.get(action="worker.release")
    assert (entry.object_id, entry.object_name) == (str(gone.id), "node-a 7")
    assert entry.after is not None
    assert entry.after["released_usd"] == "0.0000007"


def test_a_worker_is_released_once(key: VirtualKey) -> None:
    period = period_of(budget(key))
    gone = worker(100)
    lease(gone, period, 10)
    release(gone.id, actor=SYSTEM)
    with pytest.raises(Conflict, match="nothing is left"):
        release(gone.id, actor=SYSTEM)
    assert leased() == {period.id: 0}
    with pytest.raises(NotFound):
        release(uuid7(), actor=SYSTEM)


@pytest.mark.parametrize("silent", [0, 30, 80])
def test_a_worker_that_may_still_serve_is_refused_with_how_long_to_wait(key: VirtualKey, silent: int) -> None:
    period = period_of(budget(key))
    seen = worker(silent)
    lease(seen, period, 10)
    with pytest.raises(Conflict, match=r"was seen \d+ s ago .* wait \d+ s more") as refused:
        release(seen.id, actor=SYSTEM)
    words = str(refused.value).split()
    ago, wait = int(words[words.index("s") - 1]), int(words[words.index("wait") + 1])
    assert ago >= silent
    assert ago + wait == 91
    assert leased() == {period.id: 10}


def test_records_that_arrive_after_the_release_still_settle(key: VirtualKey) -> None:
    own = budget(key)
    period = period_of(own)
    gone = worker(100)
    lease(gone, period, 1_000)
    release(gone.id, actor=SYSTEM)
    late = costing(
        400,
        time_us=at(timezone.now() - timedelta(seconds=120)),
        budgets=[own.id.bytes],
        periods=[period.id],
        worker=gone.id.bytes,
    )
    assert apply([late]).inserted == 1
    period.refresh_from_db()
    assert (period.settled_nanos, period.leased_nanos) == (400, 0)
    assert_leased_is_what_is_open()


def test_without_its_audit_entry_nothing_is_released(key: VirtualKey, monkeypatch: pytest.MonkeyPatch) -> None:
    period = period_of(budget(key))
    gone = worker(100)
    lease(gone, period, 10)

    def refuse(**_: Any) -> None:
        raise RuntimeError("no room for the entry")

    monkeypatch.setattr(lost_workers.audit, "record", refuse)
    with pytest.raises(RuntimeError):
        release(gone.id, actor=SYSTEM)
    assert leased() == {period.id: 10}
    gone.refresh_from_db()
    assert gone.stopped_at is None


def test_only_who_may_change_every_team_s_budgets_releases(key: VirtualKey, team: Team) -> None:
    gone = worker(100)
    for role, teams in (
        (Role.ANALYST, None),
        (Role.AUDITOR, None),
        (Role.OPERATOR, frozenset({team.id})),
    ):
        with pytest.raises(Forbidden):
            release(gone.id, actor=Actor("user", "1", "Bob", role, teams))
    release(gone.id, actor=Actor("user", "1", "Bob", Role.OPERATOR, None))


# --- the policy for nodes that never return ------------------------------------------------------------------------

DAY = 24 * 3600


def _stopped() -> set[int]:
    return set(Worker.objects.exclude(stopped_at=None).values_list("pid", flat=True))


def test_by_default_a_lost_node_keeps_its_leases(key: VirtualKey) -> None:
    period = period_of(budget(key))
    lease(worker(3 * DAY), period, 10)
    worker(1, pid=8)
    release_lost_workers()
    assert leased() == {period.id: 10}
    assert _stopped() == set()


def test_with_the_policy_release_workers_are_released_after_the_hours(key: VirtualKey, settings: Any) -> None:
    settings.LOST_NODE, settings.LOST_NODE_AFTER = "release", 24
    period = period_of(budget(key))
    lease(worker(DAY + 3600, pid=1), period, 10)
    lease(worker(DAY - 3600, pid=2), period, 20)
    lease(worker(1, pid=3, node="node-b"), period, 40)
    release_lost_workers()
    release_lost_workers()
    assert _stopped() == {1}
    assert leased() == {period.id: 60}
    assert AuditEntry.objects.get(action="worker.release").actor_kind == "system"


def test_nobody_is_lost_while_nobody_could_be_seen(key: VirtualKey, settings: Any) -> None:
    """The database was away for two days: on its return every worker was last seen then."""
    settings.LOST_NODE, settings.LOST_NODE_AFTER = "release", 24
    period = period_of(budget(key))
    for pid, silent in ((1, 2 * DAY + 5), (2, 2 * DAY), (3, 2 * DAY + 30)):
        lease(worker(silent, pid=pid), period, 10)
    release_lost_workers()
    assert _stopped() == set()
    worker(0, pid=4)
    release_lost_workers()
    assert _stopped() == {1, 2, 3}


# --- the API -------------------------------------------------------------------------------------------------------


def test_leases_are_listed_with_amount_and_age_and_only_while_they_are_live(owner: ApiClient, key: VirtualKey) -> None:
    own = budget(key)
    period = period_of(own)
    serving, gone = worker(1), worker(100, node="node-b", pid=9)
    lease(serving, period, 2_500, spent=500, held=1_500)
    lease(gone, period, 70)
    spent = lease(worker(1, pid=11), period, 5, spent=5)
    rows = owner.get("/leases").json()["data"]
    assert [row["pid"] for row in rows] == [9, 7]
    assert str(spent.pk) not in {row["id"] for row in rows}
    row = rows[1]
    assert (row["open_usd"], row["held_usd"], row["window"]) == ("0.000002", "0.0000015", "lifetime")
    assert row["owner"] == {"kind": "key", "id": str(key.id), "name": "forecast"}
    assert 0 <= row["age_seconds"] < 600
    for query in (f"worker={gone.id}", "node=node-b"):
        assert [row["pid"] for row in owner.get(f"/leases?{query}").json()["data"]] == [9]
    assert len(owner.get(f"/leases?budget={own.id}").json()["data"]) == 2
    assert owner.get(f"/leases?budget={uuid7()}").json()["data"] == []
    assert "worker" in faults(owner.get("/leases?worker=7"))


def test_workers_tell_whether_they_serve(owner: ApiClient, key: VirtualKey) -> None:
    period = period_of(budget(key))
    made = {name: worker(silent, node=name) for name, silent in SECONDS.items()}
    lease(made["lost"], period, 30, held=20)
    worker(500, node="stopped", stopped_at=timezone.now())
    rows = owner.get("/workers").json()["data"]
    assert {row["node"]: row["state"] for row in rows} == {name: name for name in SECONDS}
    lost = next(row for row in rows if row["node"] == "lost")
    assert (lost["leases"], lost["open_usd"], lost["held_usd"]) == (1, "0.00000003", "0.00000002")
    assert [row["state"] for row in owner.get("/workers?state=stopped").json()["data"]] == ["stopped"]
    first = owner.get("/workers?state=all&limit=3").json()
    second = owner.get(f"/workers?state=all&limit=3&cursor={first['next']}").json()
    assert len({row["id"] for row in [*first["data"], *second["data"]]}) == 4
    assert "state" in faults(owner.get("/workers?state=asleep"))


def test_the_api_releases_and_refuses_in_words(operator: ApiClient, key: VirtualKey) -> None:
    period = period_of(budget(key))
    gone, alive = worker(100), worker(5)
    lease(gone, period, 30)
    done = operator.post(f"/workers/{gone.id}/release").json()
    assert (done["periods"], done["released_usd"]) == (1, "0.00000003")
    refused = operator.post(f"/workers/{alive.id}/release")
    assert refused.status_code == 409
    assert "wait" in refused.json()["detail"]
    assert operator.post(f"/workers/{uuid7()}/release").status_code == 404
    for role in (Role.ANALYST, Role.AUDITOR):
        reader = client_of(role)
        assert reader.get("/leases").status_code == reader.get("/workers").status_code == 200
        assert reader.post(f"/workers/{alive.id}/release").status_code == 403


def test_who_is_narrowed_to_a_team_sees_the_leases_of_its_budgets_only(key: VirtualKey, team: Team) -> None:
    other = Team.objects.create(name="Search")
    own, foreign = period_of(budget(key)), period_of(budget(other))
    serving = worker(1)
    lease(serving, own, 10, held=4)
    lease(serving, foreign, 1_000)
    narrowed = client_of(Role.OPERATOR, team.id)
    rows = narrowed.get("/leases").json()["data"]
    assert [row["owner"]["name"] for row in rows] == ["forecast"]
    assert [(row["leases"], row["open_usd"]) for row in narrowed.get("/workers").json()["data"]] == [(1, "0.00000001")]
    bob = Actor("user", "1", "Bob", Role.OPERATOR, frozenset({team.id}))
    sums = live_leases.totals(live_leases.live(bob))
    assert (sums.leases, sums.open_nanos, sums.held_nanos, sums.spare_nanos) == (1, 10, 4, 6)
    assert narrowed.post(f"/workers/{serving.id}/release").status_code == 403
