"""A raise lifts a limit until a moment and reverts by itself."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
import time_machine
from django.db import connection, transaction

from conduit.access.models import Role
from conduit.core.actor import SYSTEM, Actor
from conduit.core.clock import now, rfc3339
from conduit.core.errors import Conflict, Forbidden, InvalidInput, NotFound
from conduit.core.models import AuditEntry, Epoch
from conduit.core.money import MAX_NANOS
from keys import budgets, raises, teams
from keys.issuing import create_key, update_key
from keys.models import Budget, BudgetPeriod, BudgetRaise, OwnerKind, VirtualKey
from providers.providers import add_provider
from tests.access.clients import ApiClient, client_of, faults

DOLLAR = 10**9


def key_with(*specs: dict[str, Any], team: Any = None) -> VirtualKey:
    return create_key(actor=SYSTEM, name="app", team=team, budgets=list(specs))[0]


def only(key: VirtualKey) -> Budget:
    return Budget.objects.get(owner_id=key.id, removed_at=None)


def ahead(**span: float) -> str:
    return rfc3339(now() + timedelta(**span))


def operator(*team_ids: UUID) -> Actor:
    return Actor("user", "7", "bob", Role.OPERATOR, frozenset(team_ids) if team_ids else None)


def test_a_raise_lifts_the_limit_and_says_until_when(owner: ApiClient) -> None:
    row = only(key_with({"limit_usd": "20", "window": "day"}))
    period = budgets.period_bounds(row, now())
    BudgetPeriod.objects.create(
        budget=row, starts_at=period[0], settled_nanos=19 * DOLLAR, leased_nanos=2, uncertain_nanos=DOLLAR
    )
    until = ahead(hours=2)
    answer = owner.post(f"/budgets/{row.id}/raise", {"extra_usd": "10.00", "until": until})
    assert answer.status_code == 201, answer.content
    body = answer.json()
    assert (body["limit_usd"], body["base_limit_usd"]) == ("30.00", "20.00")
    assert (body["held_usd"], body["remaining_usd"]) == ("1.000000002", "9.999999998")
    assert [(one["extra_usd"], one["until"]) for one in body["raises"]] == [("10.00", until)]
    assert owner.get(f"/budgets/{row.id}").json() == body
    assert owner.get("/budgets").json()["data"] == [body]
    entry = AuditEntry.objects.get(action="budget.raise")
    assert (entry.object_kind, entry.object_id, entry.object_name) == ("budget", str(row.id), "app")
    assert entry.before == {"limit_usd": "20.00"}
    assert entry.after == {"limit_usd": "30.00", "extra_usd": "10.00", "until": until}


def test_it_reverts_by_itself_and_several_add_up(db: None) -> None:
    key = key_with({"limit_usd": "20"})
    row, at = only(key), now()
    raises.raise_budget(row, actor=SYSTEM, extra_nanos=10 * DOLLAR, until=at + timedelta(hours=1))
    raises.raise_budget(row, actor=SYSTEM, extra_nanos=5 * DOLLAR, until=at + timedelta(hours=2))

    def limit(later: timedelta) -> int:
        with time_machine.travel(at + later, tick=False):
            return budgets.current(OwnerKind.KEY, key.id)[0].limit_nanos

    assert limit(timedelta(minutes=1)) == 35 * DOLLAR
    assert limit(timedelta(hours=1) - timedelta(microseconds=1)) == 35 * DOLLAR
    assert limit(timedelta(hours=1)) == 25 * DOLLAR
    assert limit(timedelta(hours=2)) == 20 * DOLLAR
    assert BudgetRaise.objects.count() == 2, "nothing had to be deleted"


def test_an_edit_of_the_owner_keeps_the_raise_and_what_was_spent(owner: ApiClient) -> None:
    key = key_with({"limit_usd": "20"})
    row = only(key)
    BudgetPeriod.objects.create(budget=row, starts_at=row.created_at, settled_nanos=7 * DOLLAR)
    owner.post(f"/budgets/{row.id}/raise", {"extra_usd": "10", "until": ahead(days=3)})
    (edited,) = owner.patch(f"/keys/{key.id}", {"budgets": [{"limit_usd": "1"}]}).json()["budgets"]
    assert (edited["id"], edited["base_limit_usd"], edited["limit_usd"]) == (str(row.id), "1.00", "11.00")
    assert (edited["settled_usd"], edited["remaining_usd"]) == ("7.00", "4.00")


def test_a_limit_lowered_under_what_was_spent_is_taken_and_leaves_less_than_nothing(owner: ApiClient) -> None:
    key = key_with({"limit_usd": "20"})
    row = only(key)
    BudgetPeriod.objects.create(budget=row, starts_at=row.created_at, settled_nanos=7 * DOLLAR)
    (lowered,) = owner.patch(f"/keys/{key.id}", {"budgets": [{"limit_usd": "5"}]}).json()["budgets"]
    assert (lowered["settled_usd"], lowered["remaining_usd"]) == ("7.00", "-2.00")


def test_a_raise_that_ends_does_not_change_the_owner_s_etag(owner: ApiClient) -> None:
    key = key_with({"limit_usd": "20"})
    before = owner.get(f"/keys/{key.id}")["ETag"]
    raises.raise_budget(only(key), actor=SYSTEM, extra_nanos=DOLLAR, until=now() + timedelta(hours=1))
    assert owner.get(f"/keys/{key.id}")["ETag"] == before


def test_a_raise_is_ended_before_its_time(owner: ApiClient) -> None:
    row = only(key_with({"limit_usd": "20"}))
    body = owner.post(f"/budgets/{row.id}/raise", {"extra_usd": "10", "until": ahead(days=3)}).json()
    path = f"/budgets/{row.id}/raises/{body['raises'][0]['id']}"
    other = only(key_with({"limit_usd": "1"}))
    assert owner.delete(path.replace(str(row.id), str(other.id))).status_code == 404
    assert owner.delete(f"/budgets/{row.id}/raises/{10**30}").status_code == 404
    assert owner.delete(path).status_code == 204
    assert owner.delete(path).status_code == 404
    after = owner.get(f"/budgets/{row.id}").json()
    assert (after["limit_usd"], after["raises"]) == ("20.00", [])
    entry = AuditEntry.objects.get(action="budget.raise_end")
    assert (entry.before["limit_usd"], entry.after["limit_usd"]) == ("30.00", "20.00")


@pytest.mark.parametrize(
    ("field", "value", "blamed"),
    [
        ("extra_usd", "0", "extra_usd"),
        ("extra_usd", "-1", "extra_usd"),
        ("extra_usd", "NaN", "extra_usd"),
        ("extra_usd", "1e400", "extra_usd"),
        ("extra_usd", "1,0", "extra_usd"),
        ("extra_usd", str(2**63), "extra_usd"),
        ("extra_usd", "9223372036", "extra_usd"),  # with the limit beyond what can be stored
        ("extra_usd", 1.5, "extra_usd"),
        ("extra_usd", True, "extra_usd"),
        ("extra_usd", None, "extra_usd"),
        ("extra_usd", "0.0000000001", "extra_usd"),
        ("until", "2001-01-01T00:00:00Z", "until"),
        ("until", "2999-01-01T00:00:00Z", "until"),
        ("until", "tomorrow", "until"),
        ("until", 4102444800, "until"),
        ("until", None, "until"),
        ("extra", "1", "extra"),
        ("untill", "2030-01-01T00:00:00Z", "untill"),
        ("limit_usd", "1", "limit_usd"),
    ],
)
def test_a_wrong_raise_is_refused_by_name_and_nothing_is_stored(
    owner: ApiClient, field: str, value: Any, blamed: str
) -> None:
    row = only(key_with({"limit_usd": "20"}))
    body = {"extra_usd": "1", "until": ahead(hours=1), field: value}
    answer = owner.post(f"/budgets/{row.id}/raise", body)
    assert answer.status_code == 400, answer.content
    assert list(faults(answer)) == [blamed]
    assert not BudgetRaise.objects.exists()
    assert not AuditEntry.objects.filter(action="budget.raise").exists()


@pytest.mark.parametrize("number", ["NaN", "1e400", "-Infinity"])
def test_a_number_that_json_does_not_have_is_refused(owner: ApiClient, number: str) -> None:
    row = only(key_with({"limit_usd": "20"}))
    text = f'{{"extra_usd": {number}, "until": "{ahead(hours=1)}"}}'.encode()
    assert owner.call("POST", f"/budgets/{row.id}/raise", text).status_code == 400
    assert not BudgetRaise.objects.exists()


def test_both_fields_are_needed(owner: ApiClient) -> None:
    row = only(key_with({"limit_usd": "20"}))
    assert set(faults(owner.post(f"/budgets/{row.id}/raise", {}))) == {"extra_usd", "until"}


def test_a_limit_cannot_grow_beyond_what_can_be_stored_under_a_raise(owner: ApiClient) -> None:
    key = key_with({"limit_usd": "20"})
    raises.raise_budget(only(key), actor=SYSTEM, extra_nanos=MAX_NANOS - 21 * DOLLAR, until=now() + timedelta(days=1))
    answer = owner.patch(f"/keys/{key.id}", {"budgets": [{"limit_usd": "30"}]})
    assert faults(answer) == {"budgets.0.limit_usd": "too_large"}
    assert only(key).limit_nanos == 20 * DOLLAR


def test_there_is_an_end_to_how_many_raises_a_budget_has(db: None) -> None:
    row, until = only(key_with({"limit_usd": "20"})), now() + timedelta(days=1)
    for _ in range(raises.MOST):
        raises.raise_budget(row, actor=SYSTEM, extra_nanos=1, until=until)
    with pytest.raises(Conflict):
        raises.raise_budget(row, actor=SYSTEM, extra_nanos=1, until=until)


def test_operators_raise_budgets_of_their_own_teams_and_nobody_elses(db: None) -> None:
    mine, theirs = (teams.create_team(actor=SYSTEM, name=name) for name in ("Support", "Search"))
    own, foreign = (only(key_with({"limit_usd": "1"}, team=team)) for team in (mine, theirs))
    teamless = only(key_with({"limit_usd": "1"}))
    bob, until = operator(mine.id), now() + timedelta(hours=1)
    raises.raise_budget(own, actor=bob, extra_nanos=1, until=until)
    for row in (foreign, teamless):
        with pytest.raises(NotFound):
            raises.raise_budget(row, actor=bob, extra_nanos=1, until=until)
    made = raises.raise_budget(foreign, actor=SYSTEM, extra_nanos=1, until=until)
    with pytest.raises(NotFound):
        raises.end_raise(made, actor=bob)
    assert AuditEntry.objects.filter(action="budget.raise").values_list("team_id", flat=True).first() == mine.id
    assert [row.budget_id for row in raises.in_force(bob)] == [own.id]


def test_a_provider_s_budget_is_raised_by_those_who_may_change_the_provider(db: None) -> None:
    given: Any = {"name": "openai-main", "kind": "openai", "budgets": [{"limit_usd": "5"}]}
    provider = add_provider(actor=SYSTEM, **given)
    row, until = Budget.objects.get(owner_id=provider.id), now() + timedelta(hours=1)
    team = teams.create_team(actor=SYSTEM, name="Support")
    with pytest.raises(Forbidden):
        raises.raise_budget(row, actor=operator(team.id), extra_nanos=1, until=until)
    raises.raise_budget(row, actor=operator(), extra_nanos=1, until=until)


@pytest.mark.parametrize("role", [Role.ANALYST, Role.AUDITOR])
def test_those_who_only_read_raise_nothing(db: None, role: str) -> None:
    row = only(key_with({"limit_usd": "1"}))
    client = client_of(role)
    assert client.post(f"/budgets/{row.id}/raise", {"extra_usd": "1", "until": ahead(hours=1)}).status_code == 403
    assert client.get(f"/budgets/{row.id}").status_code == 200
    assert not BudgetRaise.objects.exists()


def test_a_budget_out_of_force_is_not_raised(owner: ApiClient) -> None:
    key = key_with({"limit_usd": "1"})
    row = only(key)
    update_key(key, actor=SYSTEM, changes={"budgets": []})
    body = {"extra_usd": "1", "until": ahead(hours=1)}
    assert owner.post(f"/budgets/{row.id}/raise", body).status_code == 404
    with pytest.raises(InvalidInput):
        raises.raise_budget(row, actor=SYSTEM, extra_nanos=True - 1, until=now() + timedelta(hours=1))


def test_a_raise_sent_twice_with_one_idempotency_key_counts_once(owner: ApiClient) -> None:
    row, body = only(key_with({"limit_usd": "20"})), {"extra_usd": "1", "until": ahead(hours=1)}
    first, again = (owner.post(f"/budgets/{row.id}/raise", body, Idempotency_Key="r1") for _ in range(2))
    assert (first.status_code, again.json()) == (201, first.json())
    assert BudgetRaise.objects.count() == 1


def test_a_raise_tells_the_workers_like_any_change_of_a_budget(owner: ApiClient) -> None:
    row = only(key_with({"limit_usd": "20"}))
    before = Epoch.objects.get().keys
    owner.post(f"/budgets/{row.id}/raise", {"extra_usd": "1", "until": ahead(hours=1)})
    assert Epoch.objects.get().keys > before


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("act", ["raise", "edit"])
def test_a_change_of_the_limit_waits_for_a_lease_that_is_being_granted(act: str) -> None:
    """Whoever holds a running period's row has seen the limit before the change, or sees it after: never half."""
    key = key_with({"limit_usd": "20"})
    row = only(key)
    period = BudgetPeriod.objects.create(budget=row, starts_at=row.created_at)
    done = threading.Event()

    def change() -> None:
        try:
            if act == "raise":
                raises.raise_budget(row, actor=SYSTEM, extra_nanos=DOLLAR, until=now() + timedelta(hours=1))
            else:
                update_key(key, actor=SYSTEM, changes={"budgets": [{"limit_usd": "5"}]})
            done.set()
        finally:
            connection.close()

    with transaction.atomic():
        BudgetPeriod.objects.select_for_update(no_key=True).get(pk=period.pk)
        other = threading.Thread(target=change)
        other.start()
        assert not done.wait(0.7)
        assert budgets.current(OwnerKind.KEY, key.id)[0].limit_nanos == 20 * DOLLAR
        BudgetPeriod.objects.create(budget=row, starts_at=now())  # the ledger adds periods meanwhile without waiting
    other.join(30)
    assert done.is_set()
    assert budgets.current(OwnerKind.KEY, key.id)[0].limit_nanos == (21 if act == "raise" else 5) * DOLLAR
