"""The page of budgets, raising one with a confirmation, and a provider's limits."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import Client

from conduit.access.models import Role
from conduit.console.budget_rows import Meter, Pace, pace
from conduit.core.actor import SYSTEM
from conduit.core.clock import now
from keys.budgets import current, period_bounds
from keys.customers import put_customer
from keys.issuing import create_key, update_key
from keys.models import Budget, BudgetPeriod, BudgetRaise, OwnerKind
from keys.raises import raise_budget
from keys.teams import create_team, update_team
from providers.providers import update_provider
from tests.console.conftest import World
from tests.console.pages import Markup

DOLLAR = 10**9


def words(page: Any) -> str:
    return " ".join("".join(Markup(page.content.decode()).text).split())


def spend(budget: Budget, settled: int, leased: int = 0) -> None:
    start, end = period_bounds(budget, now())
    BudgetPeriod.objects.update_or_create(
        budget=budget, starts_at=start, defaults={"ends_at": end, "settled_nanos": settled, "leased_nanos": leased}
    )


def of(world: World) -> Budget:
    return Budget.objects.get(owner_id=world.alice_key.id, removed_at=None)


def test_the_tree_has_teams_with_their_keys_below_and_sums_nothing_up(world: World, owner: Client) -> None:
    below = create_team(actor=SYSTEM, name="Apps", parent=world.support, budgets=[{"limit_usd": "3"}])
    create_key(actor=SYSTEM, name="deep", team=below, budgets=[{"limit_usd": "1"}, {"limit_usd": "2", "window": "day"}])
    create_key(actor=SYSTEM, name="alone", budgets=[{"limit_usd": "1"}])
    update_team(world.support, actor=SYSTEM, changes={"budgets": [{"limit_usd": "7", "window": "week"}]})
    spend(of(world), 600_000_000, 50_000_000)
    rows = owner.get("/budgets").context["rows"]
    assert [(row.depth, row.name) for row in rows] == [
        (0, "Search"),
        (0, "Support"),
        (1, "support-chat"),
        (1, "Apps"),
        (2, "deep"),
        (2, "deep"),
        (0, "alone"),
    ]
    assert rows[0].meter is None
    key = rows[2].meter
    assert (key.settled, key.held, key.left, key.window) == (600_000_000, 50_000_000, 350_000_000, "month")


def test_customers_and_providers_have_lists_of_their_own(world: World, owner: Client) -> None:
    limits: Any = {"limits": {"blocked": True}, "specs": [{"limit_usd": "1"}]}
    put_customer(actor=SYSTEM, name="c-17", team=world.support, **limits)
    update_provider(world.provider, actor=SYSTEM, changes={"budgets": [{"limit_usd": "9"}]})
    customers, providers = (owner.get(f"/budgets?of={name}").context["rows"] for name in ("customers", "providers"))
    assert [(row.name, row.pace.words) for row in customers] == [("c-17 of Support", "blocked")]
    assert [row.name for row in providers] == ["openai-main"]


def test_a_narrowed_operator_sees_own_budgets_only(world: World, signed_in: Callable[..., Client]) -> None:
    create_key(actor=SYSTEM, name="of-search", team=world.search, budgets=[{"limit_usd": "1"}])
    update_provider(world.provider, actor=SYSTEM, changes={"budgets": [{"limit_usd": "9"}]})
    bob = signed_in(Role.OPERATOR, world.support)
    assert [row.name for row in bob.get("/budgets").context["rows"]] == ["Support", "support-chat"]
    assert bob.get("/budgets?of=providers").context["rows"] == []
    assert {one["meter"].owner for one in bob.get("/budgets/raise").context["offered"]} == {"support-chat"}
    foreign = Budget.objects.get(owner_kind=OwnerKind.KEY, owner_id__in=world.search.keys.values("id"))
    assert bob.get(f"/budgets/raise?budget={foreign.id}").status_code == 404
    form = {"budget": str(foreign.id), "extra_usd": "1", "until": "1h"}
    assert bob.post("/budgets/raise", form).status_code == 404
    assert "9.00" not in words(bob.get(f"/providers/{world.provider.id}"))


def test_an_exhausted_an_overdrawn_and_a_raised_budget_say_so(world: World, owner: Client) -> None:
    budget = of(world)
    spend(budget, DOLLAR)
    assert owner.get("/budgets").context["rows"][-1].pace == Pace("bad", "used up")
    update_key(world.alice_key, actor=SYSTEM, changes={"budgets": [{"limit_usd": "0.40", "window": "month"}]})
    page = owner.get("/budgets")
    assert page.context["rows"][-1].pace == Pace("bad", "over by $0.6000")
    assert "−$0.6000" in words(page)
    assert "−$0.60" in words(owner.get(f"/keys/{world.alice_key.id}"))
    raise_budget(budget, actor=SYSTEM, extra_nanos=5 * DOLLAR, until=now() + timedelta(hours=3))
    page = owner.get("/budgets")
    assert page.context["rows"][-1].meter.left == 4_400_000_000
    assert [(one["before"], one["after"]) for one in page.context["raised"]] == [(400_000_000, 5_400_000_000)]
    assert "raised from $0.4000" in words(owner.get(f"/keys/{world.alice_key.id}"))


def test_a_raise_is_confirmed_with_what_it_allows_and_until_when(world: World, owner: Client) -> None:
    budget = of(world)
    spend(budget, 900_000_000, 50_000_000)
    update_team(world.support, actor=SYSTEM, changes={"budgets": [{"limit_usd": "0.75"}]})
    asked = owner.post("/budgets/raise", {"budget": str(budget.id), "extra_usd": "10.00", "until": "1h"})
    assert asked.status_code == 200
    assert not BudgetRaise.objects.exists(), "nothing before it is confirmed"
    said = words(asked)
    assert "The limit becomes $11.00 instead of $1.00, until" in said
    assert "$10.05 can be spent: $0.9000 is settled and $0.0500 held" in said
    assert "Team Support stays as it is: $0.7500 free of $0.7500 / lifetime, hard" in said
    assert "no more than that can be spent here" in said
    fields = {a["name"]: a["value"] for tag, a in Markup(asked.content.decode()).tags if a.get("type") == "hidden"}
    confirmed = {str(name): str(value) for name, value in fields.items() if name != "csrfmiddlewaretoken"}
    done = owner.post("/budgets/raise", confirmed)
    assert (done.status_code, done["Location"]) == (303, "/budgets")
    (made,) = BudgetRaise.objects.all()
    assert (made.extra_nanos, made.created_by) == (10 * DOLLAR, "owner0@conduit.local")
    assert timedelta(minutes=50) < made.until - now() <= timedelta(hours=1)
    assert owner.post("/budgets/raise", confirmed).status_code == 409, "the limit is no longer the one that was shown"
    assert BudgetRaise.objects.count() == 1
    assert owner.post(f"/budgets/raises/{made.id}/end").status_code == 303
    assert current(OwnerKind.KEY, world.alice_key.id)[0].limit_nanos == DOLLAR
    assert owner.post(f"/budgets/raises/{made.id}/end").status_code == 404


def test_a_raise_that_does_not_cover_what_was_spent_says_so(world: World, owner: Client) -> None:
    spend(of(world), 5 * DOLLAR)
    said = words(owner.post("/budgets/raise", {"budget": str(of(world).id), "extra_usd": "1", "until": "window"}))
    assert "Still nothing can be spent: $5.00 is settled and $0.00 held, $3.00 more than this limit." in said


WRONG_RAISES: list[tuple[dict[str, str], str]] = [
    ({"extra_usd": ""}, "extra_usd"),
    ({"extra_usd": "0"}, "extra_usd"),
    ({"extra_usd": "-1"}, "extra_usd"),
    ({"extra_usd": "NaN"}, "extra_usd"),
    ({"extra_usd": "1e400"}, "extra_usd"),
    ({"extra_usd": "1,0"}, "extra_usd"),
    ({"extra_usd": str(2**63)}, "extra_usd"),
    ({"until": "soon"}, "until"),
    ({"until_at": "2001-01-01T00:00"}, "until"),
    ({"until_at": "2999-01-01T00:00"}, "until"),
    ({"until_at": "x"}, "until"),
    ({"budget": ""}, "budget"),
    ({"budget": "x"}, "budget"),
]


def test_a_wrong_field_is_named_and_nothing_is_raised(world: World, owner: Client) -> None:
    for typed, place in WRONG_RAISES:
        form = {"budget": str(of(world).id), "extra_usd": "1", "until": "1h", "confirm": "yes", **typed}
        answer = owner.post("/budgets/raise", form)
        assert (answer.status_code, list(answer.context["errors"])) == (422, [place]), typed
        links = [a["href"] for tag, a in Markup(answer.content.decode()).tags if tag == "a"]
        assert f"#{place}" in links, typed
    assert not BudgetRaise.objects.exists()


def test_a_lifetime_has_no_window_whose_end_could_be_chosen(world: World, owner: Client) -> None:
    update_team(world.support, actor=SYSTEM, changes={"budgets": [{"limit_usd": "1"}]})
    row = Budget.objects.get(owner_id=world.support.id)
    answer = owner.post("/budgets/raise", {"budget": str(row.id), "extra_usd": "1", "until": "window"})
    assert list(answer.context["errors"]) == ["until"]


def test_those_who_only_read_are_offered_no_raise(world: World, signed_in: Callable[..., Client]) -> None:
    for role in (Role.ANALYST, Role.AUDITOR):
        client = signed_in(role)
        assert "Raise" not in words(client.get("/budgets"))
        assert "Raise" not in words(client.get(f"/keys/{world.alice_key.id}"))
        form = {"budget": str(of(world).id), "extra_usd": "1", "until": "1h", "confirm": "yes"}
        assert client.post("/budgets/raise", form).status_code == 403
        assert client.post("/budgets/raises/1/end").status_code == 403


def test_the_key_s_page_has_the_budgets_of_every_team_above_and_what_is_used_of_rates(
    world: World, owner: Client, signed_in: Callable[..., Client]
) -> None:
    product = create_team(actor=SYSTEM, name="Product", budgets=[{"limit_usd": "70"}])
    changes = {"parent": product, "budgets": [{"limit_usd": "7"}], "rpm": 900}
    update_team(world.support, actor=SYSTEM, changes=changes)
    page = owner.get(f"/keys/{world.alice_key.id}")
    assert [meter.owner for meter in page.context["meters"]] == ["Key", "Team Support", "Team Product"]
    assert [(row["owner"], row["limit"], row["used"]) for row in page.context["rates_now"]] == [
        ("Key", 300, 0),
        ("Team Support", 900, 0),
    ]
    narrowed = signed_in(Role.OPERATOR, world.support).get(f"/keys/{world.alice_key.id}")
    assert [meter.owner for meter in narrowed.context["meters"]] == ["Key", "Team Support"]


# --- a provider's limits ---


LIMITS = {
    "rpm": "4,000",
    "tpm": "",
    "max_parallel": "8",
    "budget_limit": ["1,250.50", "5", ""],
    "budget_window": ["month", "day", "month"],
    "budget_timezone": ["UTC", "Europe/Berlin", "UTC"],
    "budget_kind": ["hard", "soft", "hard"],
}


def test_a_provider_s_limits_are_changed_and_nothing_that_the_form_does_not_show_is_lost(
    world: World, owner: Client
) -> None:
    path = f"/providers/{world.provider.id}"
    first: Any = {"limit_usd": "3", "window": "month", "unbounded": "exclusive", "wait_ms": 7}
    update_provider(world.provider, actor=SYSTEM, changes={"budgets": [first], "tpm": 5})
    kept = current(OwnerKind.PROVIDER, world.provider.id)[0].id
    raise_budget(
        Budget.objects.get(id=kept), actor=SYSTEM, extra_nanos=DOLLAR, until=datetime.now(UTC) + timedelta(days=1)
    )
    shown = owner.get(f"{path}/limits").context
    assert [row["limit"] for row in shown["budgets"]] == ["3.00", ""], "the limit without its raise"
    assert owner.post(f"{path}/limits", LIMITS).status_code == 303
    world.provider.refresh_from_db()
    assert (world.provider.rpm, world.provider.tpm, world.provider.max_parallel) == (4000, None, 8)
    month, day = current(OwnerKind.PROVIDER, world.provider.id)
    assert (month.id, month.base_nanos, month.unbounded, month.wait_ms) == (kept, 1_250_500_000_000, "exclusive", 7)
    assert (day.kind, day.timezone) == ("soft", "Europe/Berlin")
    assert "$1,251.50 / month" in words(owner.get(path))


WRONG_LIMITS: list[tuple[str, Any, str]] = [
    ("rpm", "0", "rpm"),
    ("tpm", "1e3", "tpm"),
    ("max_parallel", "9" * 12, "max_parallel"),
    ("budget_limit", ["-1", "", ""], "budget-0"),
    ("budget_limit", ["1", "1e400", ""], "budget-1"),
    ("budget_timezone", ["UTC", "Mars/Olympus", "UTC"], "budget-1"),
]


def test_a_wrong_limit_of_a_provider_is_named_and_nothing_is_saved(world: World, owner: Client) -> None:
    for field, typed, place in WRONG_LIMITS:
        answer = owner.post(f"/providers/{world.provider.id}/limits", {**LIMITS, field: typed})
        assert (answer.status_code, list(answer.context["errors"])) == (422, [place]), (field, typed)
    world.provider.refresh_from_db()
    assert world.provider.max_parallel is None
    assert current(OwnerKind.PROVIDER, world.provider.id) == []


# --- the pace ---


def meter(settled: int, **given: Any) -> Meter:
    start = datetime(2027, 1, 1, tzinfo=UTC)
    fields: dict[str, Any] = {
        "id": start,
        "owner": "x",
        "limit": 100 * DOLLAR,
        "base": 100 * DOLLAR,
        "raises": (),
        "held": 0,
        "window": "month",
        "timezone": "UTC",
        "kind": "hard",
        "period_start": start,
        "resets_at": start + timedelta(days=30),
    }
    return Meter(**{**fields, "settled": settled, **given})


@pytest.mark.parametrize(
    ("row", "day", "kind", "said"),
    [
        (meter(20 * DOLLAR), 10, "", "about $40 left"),
        (meter(32 * DOLLAR), 10, "warn", "tight: about $4 left"),
        (meter(50 * DOLLAR), 10, "warn", "runs out Thu 21 Jan"),
        (meter(50 * DOLLAR), 1, "", "too early to say"),
        (meter(0), 10, "", "about $100 left"),
        (meter(100 * DOLLAR), 10, "bad", "used up"),
        (meter(60 * DOLLAR, held=40 * DOLLAR), 10, "bad", "all of it settled or held"),
        (meter(101 * DOLLAR), 10, "bad", "over by $1.00"),
        (meter(101 * DOLLAR, kind="soft"), 10, "warn", "over by $1.00"),
        (meter(0, limit=0), 10, "bad", "blocks every request"),
        (meter(9 * DOLLAR, resets_at=None), 10, "", "–"),
    ],
)
def test_the_pace_says_where_it_leads(row: Meter, day: int, kind: str, said: str) -> None:
    assert pace(row, row.period_start + timedelta(days=day)) == Pace(kind, said)


def test_a_page_of_budgets_costs_the_same_number_of_queries_however_many_there_are(
    world: World, owner: Client, django_assert_max_num_queries: Any
) -> None:
    with django_assert_max_num_queries(40) as counting:
        owner.get("/budgets")
    few = len(counting.captured_queries)
    for number in range(12):
        create_key(actor=SYSTEM, name=f"k{number}", team=world.support, budgets=[{"limit_usd": "1"}])
    with django_assert_max_num_queries(few):
        assert len(owner.get("/budgets").context["rows"]) == 15
