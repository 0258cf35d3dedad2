"""Alice operates the search team, Bob's keys are in a team below it, Charlie's are elsewhere."""

from __future__ import annotations

from typing import Any

import pytest

from conduit.access import teams as access_teams
from conduit.access.actors import actor_of_user
from conduit.access.models import Role
from conduit.access.users import create_user
from conduit.core.actor import SYSTEM
from conduit.core.models import AuditEntry
from keys import customers, issuing, teams
from keys.models import Team, VirtualKey
from tests.access.clients import ApiClient, client_of, faults

BUDGET: list[dict[str, Any]] = [{"limit_usd": "5"}]


class Company:
    def __init__(self) -> None:
        self.search = teams.create_team(actor=SYSTEM, name="search", budgets=BUDGET)
        self.ranking = teams.create_team(actor=SYSTEM, name="ranking", parent=self.search)
        self.sales = teams.create_team(actor=SYSTEM, name="sales", budgets=BUDGET)
        self.bob, _ = issuing.create_key(actor=SYSTEM, name="bob", team=self.ranking, budgets=BUDGET)
        self.charlie, _ = issuing.create_key(actor=SYSTEM, name="charlie", team=self.sales, budgets=BUDGET)
        self.nobody, _ = issuing.create_key(actor=SYSTEM, name="nobody", budgets=BUDGET)
        for team in (self.ranking, self.sales):
            customers.put_customer(actor=SYSTEM, name="eve", team=team, limits={"rpm": 5}, specs=BUDGET)
        self.alice = client_of(Role.OPERATOR, self.search.id)


@pytest.fixture
def company(db: None) -> Company:
    return Company()


def names(response: Any) -> set[str]:
    return {row["name"] for row in response.json()["data"]}


def test_lists_hold_only_the_own_subtree(company: Company) -> None:
    assert names(company.alice.get("/keys")) == {"bob"}
    assert names(company.alice.get("/teams")) == {"search", "ranking"}
    owners = {row["owner"]["name"] for row in company.alice.get("/budgets").json()["data"]}
    assert owners == {"search", "bob", "eve"}
    assert [row["team"] for row in company.alice.get("/customers").json()["data"]] == [str(company.ranking.id)]


@pytest.mark.parametrize("whose", ["charlie", "nobody"])
def test_another_team_s_key_is_as_if_it_did_not_exist(company: Company, whose: str) -> None:
    key = getattr(company, whose)
    path = f"/keys/{key.id}"
    before = VirtualKey.objects.values().get(pk=key.id)
    answers = [
        company.alice.get(path),
        company.alice.patch(path, {"rpm": 1}),
        company.alice.delete(path),
        company.alice.get(f"{path}/budgets"),
        *(company.alice.post(f"{path}/{step}") for step in ("disable", "enable", "revoke")),
    ]
    assert [answer.status_code for answer in answers] == [404] * 7
    absent = company.alice.get("/keys/0190a0a0-0000-7000-8000-000000000000")
    assert answers[0].content == absent.content
    assert VirtualKey.objects.values().get(pk=key.id) == before


def test_another_team_s_budgets_team_and_customers_cannot_be_reached(company: Company, owner: ApiClient) -> None:
    foreign = [row for row in owner.get("/budgets").json()["data"] if row["owner"]["name"] in ("sales", "charlie")]
    assert len(foreign) == 2
    for row in foreign:
        assert company.alice.get(f"/budgets/{row['id']}").status_code == 404
    for call in (company.alice.get, company.alice.delete):
        assert call(f"/teams/{company.sales.id}").status_code == 404
    assert company.alice.patch(f"/teams/{company.sales.id}", {"rpm": 1}).status_code == 404
    assert company.alice.put("/customers/eve", {"team": "sales", "blocked": True}).status_code == 404
    assert company.alice.put("/customers/eve", {"blocked": True}).status_code == 404


def test_keys_are_issued_and_moved_within_the_own_subtree_only(company: Company) -> None:
    assert company.alice.post("/keys", {"name": "x", "team": "ranking"}).status_code == 201
    assert faults(company.alice.post("/keys", {"name": "x", "team": "sales"})) == {"team": "not_found"}
    assert faults(company.alice.post("/keys", {"name": "x"})) == {"team": "required"}
    path = f"/keys/{company.bob.id}"
    assert faults(company.alice.patch(path, {"team": "sales"})) == {"team": "not_found"}
    assert faults(company.alice.patch(path, {"team": None})) == {"team": "required"}
    assert company.alice.patch(path, {"team": "search"}).json()["team"] == str(company.search.id)


def test_teams_are_made_below_the_own_ones_only(company: Company) -> None:
    assert faults(company.alice.post("/teams", {"name": "x"})) == {"parent": "required"}
    assert faults(company.alice.post("/teams", {"name": "x", "parent": "sales"})) == {"parent": "not_found"}
    assert company.alice.post("/teams", {"name": "x", "parent": "ranking"}).status_code == 201
    path = f"/teams/{company.ranking.id}"
    assert faults(company.alice.patch(path, {"parent": None})) == {"parent": "required"}


def test_what_belongs_to_the_whole_installation_is_not_changed_by_a_narrowed_operator(company: Company) -> None:
    from conduit.access import permissions
    from conduit.core.actor import Actor

    narrowed = Actor("token", "1", "alice", Role.OPERATOR, frozenset({company.search.id}))
    everywhere = Actor("token", "2", "dora", Role.OPERATOR, None)
    for resource in ("providers", "credentials", "routes"):
        assert permissions.may(narrowed, resource, write=False)
        assert not permissions.may(narrowed, resource, write=True)
        assert permissions.may(everywhere, resource, write=True)


def test_a_user_s_teams_narrow_by_their_subtree_and_follow_the_tree(company: Company) -> None:
    user, _ = create_user(actor=SYSTEM, email="alice@example.org", role=Role.OPERATOR, in_teams=[company.search.id])
    assert actor_of_user(user).teams == {company.search.id, company.ranking.id}
    teams.update_team(company.ranking, actor=SYSTEM, changes={"parent": company.sales})
    assert actor_of_user(user).teams == {company.search.id}
    owner, _ = create_user(actor=SYSTEM, email="o@example.org", role=Role.OWNER, in_teams=[company.search.id])
    assert actor_of_user(owner).teams is None


def test_a_team_that_vanishes_never_widens_anybody(company: Company, owner: ApiClient) -> None:
    lone = teams.create_team(actor=SYSTEM, name="lone")
    create_user(actor=SYSTEM, email="alice@example.org", role=Role.OPERATOR, in_teams=[lone.id])
    assert owner.delete(f"/teams/{lone.id}").status_code == 409
    token_of_lone = client_of(Role.OPERATOR, lone.id)
    Team.objects.filter(pk=lone.id).delete()
    assert token_of_lone.get("/keys").json()["data"] == []
    assert access_teams.subtree([lone.id]) == frozenset()


def test_an_analyst_sees_what_keys_and_teams_are_called_and_no_more(company: Company, analyst: ApiClient) -> None:
    assert set(analyst.get(f"/keys/{company.bob.id}").json()) == {"id", "name", "team"}
    assert all(set(row) == {"id", "name", "team"} for row in analyst.get("/keys").json()["data"])
    assert all(set(row) == {"id", "name", "parent"} for row in analyst.get("/teams").json()["data"])
    assert analyst.get(f"/keys/{company.bob.id}/budgets").json()["data"][0]["limit_usd"] == "5.00"


def test_a_tree_has_no_cycle_and_no_double_name(company: Company, owner: ApiClient) -> None:
    path = f"/teams/{company.search.id}"
    assert owner.patch(path, {"parent": "ranking"}).status_code == 409
    assert owner.patch(path, {"parent": "search"}).status_code == 409
    assert owner.post("/teams", {"name": "search"}).status_code == 409
    assert owner.delete(path).status_code == 409
    assert owner.delete(f"/teams/{company.ranking.id}").status_code == 409
    deep = company.ranking
    for level in range(10):
        deep = teams.create_team(actor=SYSTEM, name=f"level {level}", parent=deep)
    assert faults(owner.post("/teams", {"name": "too deep", "parent": str(deep.id)})) == {"parent": "too_deep"}
    assert faults(owner.patch(path, {"parent": "sales"})) == {"parent": "too_deep"}


def test_a_customer_is_put_whole(company: Company, owner: ApiClient) -> None:
    made = owner.put("/customers/team%2Fmallory", {"rpm": 3, "budgets": BUDGET})
    assert made.status_code == 201
    assert made.json()["id"] == "team/mallory"
    again = owner.put("/customers/team%2Fmallory", {"blocked": True})
    assert again.status_code == 200
    assert (again.json()["rpm"], again.json()["blocked"], again.json()["budgets"]) == (None, True, [])
    assert faults(owner.put("/customers/x", {"rpm": 0})) == {"rpm": "zero"}
    assert faults(owner.put("/customers/x", {"blocked": "yes"})) == {"blocked": "invalid_flag"}
    actions = AuditEntry.objects.filter(object_kind="customer", object_name="team/mallory").order_by("id")
    assert [entry.action for entry in actions][0] == "customer.create"
