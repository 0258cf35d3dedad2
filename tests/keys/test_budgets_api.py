"""Budgets of every kind of owner, read together: filters, scope, and what an owner's edit may say."""

from __future__ import annotations

from typing import Any

import pytest

from conduit.access.models import Role
from conduit.core.actor import SYSTEM
from conduit.core.budgeting import WINDOWS
from conduit.core.models import AuditEntry
from keys import entries, teams
from keys.customers import put_customer
from keys.issuing import create_key
from keys.models import Budget, BudgetPeriod, Customer, OwnerKind, Team, Window
from providers.models import Provider
from providers.providers import add_provider
from tests.access.clients import ApiClient, client_of, faults

HUGE = 2**63
ITEMS = [
    ({"limit_usd": "-1"}, "limit_usd"),
    ({"limit_usd": "NaN"}, "limit_usd"),
    ({"limit_usd": "1e400"}, "limit_usd"),
    ({"limit_usd": str(HUGE)}, "limit_usd"),
    ({"limit_usd": HUGE}, "limit_usd"),
    ({"limit_usd": "1,0"}, "limit_usd"),
    ({"limit_usd": None}, "limit_usd"),
    ({"limit_usd": 0.5}, "limit_usd"),
    ({"limit_usd": False}, "limit_usd"),
    ({}, "limit_usd"),
    ({"limit": "1"}, "limit"),
    ({"limit_usd": "1", "windw": "day"}, "windw"),
    ({"limit_usd": "1", "window": "hour"}, "window"),
    ({"limit_usd": "1", "timezone": "Mars/Olympus"}, "timezone"),
    ({"limit_usd": "1", "kind": "HARD"}, "kind"),
    ({"limit_usd": "1", "unbounded": "allow"}, "unbounded"),
    ({"limit_usd": "1", "wait_ms": 60_001}, "wait_ms"),
    ({"limit_usd": "1", "wait_ms": True}, "wait_ms"),
    ({"limit_usd": "1", "reset": 1}, "reset"),
]


@pytest.fixture
def tree(db: None) -> dict[str, Any]:
    """Alice's team Support with a key and a customer, Bob's team Search, a provider; a budget on each."""
    monthly: Any = [{"limit_usd": "5", "window": "month"}]
    given: Any = {"name": "openai-main", "kind": "openai", "budgets": [{"limit_usd": "40", "kind": "soft"}]}
    support = teams.create_team(actor=SYSTEM, name="Support", budgets=[{"limit_usd": "50"}])
    return {
        "support": support,
        "search": teams.create_team(actor=SYSTEM, name="Search", budgets=[{"limit_usd": "9", "window": "week"}]),
        "key": create_key(actor=SYSTEM, name="app", team=support, budgets=monthly)[0],
        "customer": put_customer(actor=SYSTEM, name="c-17", team=support, limits={}, specs=[{"limit_usd": "1"}])[0],
        "provider": add_provider(actor=SYSTEM, **given),
    }


def owners(client: ApiClient, query: str = "") -> list[str]:
    answer = client.get(f"/budgets{query}")
    assert answer.status_code == 200, answer.content
    return [row["owner"]["name"] for row in answer.json()["data"]]


def test_every_owner_s_budgets_are_listed_and_filtered(tree: dict[str, Any], owner: ApiClient) -> None:
    assert owners(owner) == ["openai-main", "c-17", "app", "Search", "Support"]
    assert owners(owner, "?owner_kind=provider") == ["openai-main"]
    assert owners(owner, "?owner_kind=team&window=week") == ["Search"]
    assert owners(owner, "?kind=soft") == ["openai-main"]
    assert owners(owner, "?window=month") == ["app"]
    assert owners(owner, "?owner=Support") == ["Support"]
    assert owners(owner, f"?owner={tree['customer'].id}") == ["c-17"]
    assert owners(owner, "?owner=nobody") == []
    assert owners(owner, "?owner=Support&owner_kind=key") == []


def test_the_list_goes_page_by_page(tree: dict[str, Any], owner: ApiClient) -> None:
    first = owner.get("/budgets?limit=3").json()
    second = owner.get(f"/budgets?limit=3&cursor={first['next']}").json()
    seen = [row["owner"]["name"] for row in first["data"] + second["data"]]
    assert (seen, second["next"]) == (owners(owner), None)


@pytest.mark.parametrize(
    ("query", "blamed"),
    [("owner_kind=user", "owner_kind"), ("window=hour", "window"), ("kind=firm", "kind"), ("ownr=Support", "ownr")],
)
def test_a_filter_that_is_not_known_is_named(tree: dict[str, Any], owner: ApiClient, query: str, blamed: str) -> None:
    assert list(faults(owner.get(f"/budgets?{query}"))) == [blamed]


def test_a_narrowed_operator_sees_the_budgets_of_own_teams_only(tree: dict[str, Any]) -> None:
    bob = client_of(Role.OPERATOR, tree["support"].id)
    assert owners(bob) == ["c-17", "app", "Support"]
    assert owners(bob, "?owner=Search") == []
    assert owners(bob, f"?owner={tree['provider'].id}") == []
    for name in ("search", "provider"):
        row = Budget.objects.get(owner_id=tree[name].id)
        assert bob.get(f"/budgets/{row.id}").status_code == 404
        raised = bob.post(f"/budgets/{row.id}/raise", {"extra_usd": "1", "until": "2030-01-01T00:00:00Z"})
        assert raised.status_code == 404


def test_a_list_costs_the_same_number_of_queries_however_long_it_is(
    tree: dict[str, Any], owner: ApiClient, django_assert_max_num_queries: Any
) -> None:
    for number in range(12):
        create_key(actor=SYSTEM, name=f"key {number}", budgets=[{"limit_usd": "1"}])
    with django_assert_max_num_queries(12):
        assert len(owners(owner)) == 17


# --- providers --------------------------------------------------------------------------------------------------------


def test_a_provider_is_given_budgets_and_keeps_what_was_spent_when_they_change(owner: ApiClient) -> None:
    wanted = [{"limit_usd": "40", "window": "month"}, {"limit_usd": "0", "window": "day", "timezone": "Asia/Tokyo"}]
    made = owner.post("/providers", {"name": "openai-main", "kind": "openai", "budgets": wanted})
    assert made.status_code == 201, made.content
    path = f"/providers/{made.json()['id']}"
    assert [(row["limit_usd"], row["window"]) for row in made.json()["budgets"]] == [
        ("40.00", "month"),
        ("0.00", "day"),
    ]
    assert made.json()["budgets"][0]["owner"]["name"] == "openai-main"
    assert owner.get(path).json() == made.json()
    assert owner.get("/providers").json()["data"] == [made.json()]

    row = Budget.objects.get(window="month")
    BudgetPeriod.objects.create(
        budget=row, starts_at=made.json()["budgets"][0]["period_start"], settled_nanos=7 * 10**9
    )
    assert owner.get(path)["ETag"] == made["ETag"], "spending changes nothing that people decided"
    changed = owner.patch(path, {"budgets": [{"limit_usd": "6", "window": "month"}]}, If_Match=made["ETag"])
    (budget,) = changed.json()["budgets"]
    assert (budget["id"], budget["settled_usd"], budget["remaining_usd"]) == (str(row.id), "7.00", "-1.00")
    assert owner.patch(path, {"rpm": 5}, If_Match=made["ETag"]).status_code == 412
    assert owner.patch(path, {"rpm": 5}, If_Match=changed["ETag"]).json()["budgets"][0]["id"] == str(row.id)
    actions = list(AuditEntry.objects.order_by("id").values_list("action", flat=True))
    assert actions[-4:] == ["provider.create", "budget.set", "budget.set", "provider.update"]

    provider = Provider.objects.get()
    (entry,) = entries.load_provider_budgets()[provider.id]
    assert (entry.id, entry.owner_kind, entry.owner_name, entry.limit_nanos) == (
        row.id,
        "provider",
        "openai-main",
        6 * 10**9,
    )
    assert owner.delete(path).status_code == 204
    assert not Budget.objects.filter(removed_at=None).exists()


@pytest.mark.parametrize(("item", "member"), ITEMS)
def test_a_wrong_budget_of_a_provider_is_named_and_nothing_is_saved(
    owner: ApiClient, item: dict[str, Any], member: str
) -> None:
    body = {"name": "openai-main", "kind": "openai", "budgets": [{"limit_usd": "1"}, item]}
    answer = owner.post("/providers", body)
    assert answer.status_code == 400, answer.content
    assert list(faults(answer)) == [f"budgets.1.{member}"]
    assert not Provider.objects.exists()
    assert not Budget.objects.exists()


def test_what_a_provider_costs_all_teams_is_not_shown_to_one_team(tree: dict[str, Any], owner: ApiClient) -> None:
    path = f"/providers/{tree['provider'].id}"
    bob = client_of(Role.OPERATOR, tree["support"].id)
    assert "budgets" in owner.get(path).json()
    assert "budgets" not in bob.get(path).json()
    assert "budgets" not in bob.get("/providers").json()["data"][0]


# --- teams and customers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("item", "member"), ITEMS)
def test_a_wrong_budget_of_a_team_or_customer_is_named_and_nothing_is_saved(
    owner: ApiClient, item: dict[str, Any], member: str
) -> None:
    assert list(faults(owner.post("/teams", {"name": "x", "budgets": [item]}))) == [f"budgets.0.{member}"]
    assert list(faults(owner.put("/customers/c-1", {"budgets": [item]}))) == [f"budgets.0.{member}"]
    assert not Team.objects.exists()
    assert not Customer.objects.exists()
    assert not Budget.objects.exists()


def test_a_customer_is_exactly_what_was_put(owner: ApiClient) -> None:
    team = teams.create_team(actor=SYSTEM, name="Support")
    full = {"team": "Support", "budgets": [{"limit_usd": "2", "window": "day"}], "rpm": 5, "tpm": 700, "blocked": True}
    made = owner.put("/customers/org/user 17", full)
    assert made.status_code == 201, made.content
    body = made.json()
    assert (body["id"], body["team"], body["rpm"], body["tpm"], body["blocked"]) == (
        "org/user 17",
        str(team.id),
        5,
        700,
        True,
    )
    (budget,) = body["budgets"]
    assert budget["owner"]["kind"] == "customer"

    again = owner.put("/customers/org/user 17", {"team": "Support", "budgets": [{"limit_usd": "3", "window": "day"}]})
    assert again.status_code == 200
    assert (again.json()["rpm"], again.json()["tpm"], again.json()["blocked"]) == (None, None, False)
    assert [(row["id"], row["limit_usd"]) for row in again.json()["budgets"]] == [(budget["id"], "3.00")]
    assert owner.put("/customers/org/user 17", {"team": "Support"}).json()["budgets"] == []
    assert owner.get("/customers?team=Support").json()["data"] == [
        owner.put("/customers/org/user 17", {"team": "Support"}).json()
    ]
    other = owner.put("/customers/org/user 17", {})
    assert other.status_code == 201, "the same name under no team is somebody else"


@pytest.mark.parametrize(
    ("body", "blamed"),
    [
        ({"rpm": 0}, "rpm"),
        ({"rpm": -1}, "rpm"),
        ({"tpm": HUGE}, "tpm"),
        ({"tpm": "1,0"}, "tpm"),
        ({"blocked": "yes"}, "blocked"),
        ({"blocked": None}, "blocked"),
        ({"block": True}, "block"),
        ({"max_parallel": 3}, "max_parallel"),
        ({"budgets": None}, "budgets"),
        ({"budgets": {}}, "budgets"),
        ({"team": "nobody"}, "team"),
        ({"name": "x"}, "name"),
    ],
)
def test_a_wrong_field_of_a_customer_is_named(owner: ApiClient, body: dict[str, Any], blamed: str) -> None:
    assert list(faults(owner.put("/customers/c-1", body))) == [blamed]
    assert not Customer.objects.exists()


def test_a_narrowed_operator_puts_customers_of_own_teams_only(tree: dict[str, Any]) -> None:
    bob = client_of(Role.OPERATOR, tree["support"].id)
    assert bob.put("/customers/new", {"team": "Support"}).status_code == 201
    assert bob.put("/customers/new", {"team": "Search"}).status_code == 404
    assert bob.put("/customers/new", {}).status_code == 404


def test_the_words_of_the_api_are_those_of_the_tables() -> None:
    assert set(WINDOWS) == set(Window.values)
    assert OwnerKind.PROVIDER == "provider"
