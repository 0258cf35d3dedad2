"""Stale-access review: what is said about a key, and shrinking it to what it used."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import jsonschema
import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from conduit.access.models import Role, User
from conduit.access.users import create_user
from conduit.core import reference
from conduit.core.actor import SYSTEM
from conduit.core.errors import NotFound
from conduit.core.models import AuditEntry
from keys.issuing import create_key, revoke_key, update_key
from keys.models import VirtualKey
from keys.rotation import rotate_key
from keys.teams import create_team
from providers.providers import add_provider
from providers.routes import add_route
from tests.access.clients import ApiClient, client_of, faults
from tests.usage.events import at, costing, refused
from usage import key_review, ledger

ROUTES = ("fast", "cheap", "smart", "tiny")


def ago(days: float) -> datetime:
    return datetime.now(UTC) - timedelta(days=days)


@pytest.fixture(autouse=True)
def _routes(db: None) -> None:
    add_provider(actor=SYSTEM, name="openai-main", kind="openai")
    for name in ROUTES:
        add_route(actor=SYSTEM, name=name, targets=[{"provider": "openai-main", "model": "gpt-4o-mini"}])


def make(name: str = "app", *, age: float = 90, **terms: Any) -> VirtualKey:
    key, _ = create_key(actor=SYSTEM, name=name, **{"owner": "alice@example.org", **terms})
    VirtualKey.objects.filter(id=key.id).update(created_at=ago(age))
    key.refresh_from_db()
    return key


def use(key: VirtualKey, route: str = "fast", *, days: float = 1, cost: int = 1_000_000, **given: Any) -> None:
    team = key.team_id.bytes if key.team_id else None
    ids = {"key_id": key.id.bytes, "team_id": team, "time_us": at(ago(days)), "route": route}
    ledger.apply([costing(cost, **{**ids, **given})])


def turned_away(key: VirtualKey, route: str) -> None:
    ledger.apply([refused(key_id=key.id.bytes, time_us=at(ago(1)), route=route, error_code="model_not_allowed")])


def remarks(client: ApiClient, path: str = "/keys/review") -> dict[str, set[str]]:
    answer = client.get(path)
    assert answer.status_code == 200, answer.content
    return {row["name"]: {remark["code"] for remark in row["remarks"]} for row in answer.json()["data"]}


def test_each_key_is_told_what_is_wrong_with_it_and_a_good_one_nothing(owner: ApiClient) -> None:
    use(make("good", models=["fast"], endpoints=["chat"]))
    make("never")
    make("new", age=2)
    use(make("idle"), days=45)
    use(make("ending", models=["fast"], endpoints=["chat"], expires_at=datetime.now(UTC) + timedelta(days=5)))
    use(make("nobody", models=["fast"], endpoints=["chat"], owner=""))
    use(make("wide"))
    create_user(actor=SYSTEM, email="bob@example.org", role=Role.ANALYST)
    User.objects.filter(email="bob@example.org").update(is_active=False)
    use(make("left", models=["fast"], endpoints=["chat"], owner="Bob@example.org"))
    revoke_key(make("revoked"), actor=SYSTEM)
    expired = make("expired", models=["fast"], endpoints=["chat"])
    use(expired)
    VirtualKey.objects.filter(id=expired.id).update(expires_at=ago(1))
    assert remarks(owner) == {
        "never": {"never_used"},
        "idle": {"unused"},
        "ending": {"expiring"},
        "nobody": {"no_owner"},
        "wide": {"broad_models", "broad_endpoints"},
        "left": {"owner_gone"},
        "expired": {"expired"},
    }


def test_what_was_refused_is_no_use(owner: ApiClient) -> None:
    key = make("app", models=["fast", "cheap"], endpoints=["chat", "embeddings"])
    use(key, "fast")
    turned_away(key, "cheap")
    shown = owner.post(f"/keys/{key.id}/shrink", {"dry_run": True}).json()
    assert shown["after"] == {"models": ["fast"], "endpoints": ["chat"]}


def test_a_longer_look_back_finds_the_use(owner: ApiClient) -> None:
    use(make("idle", models=["fast"], endpoints=["chat"]), days=45)
    assert remarks(owner) == {"idle": {"unused"}}
    assert remarks(owner, "/keys/review?days=60") == {}


@pytest.mark.parametrize("query", ["days=0", "days=367", "days=1.5", "days=-1", "days=x", "limit=0", "cursor=x"])
def test_a_wrong_question_is_refused_by_name(owner: ApiClient, query: str) -> None:
    assert list(faults(owner.get(f"/keys/review?{query}"))) == [query.partition("=")[0]]


def test_the_review_comes_in_pages_newest_first(owner: ApiClient) -> None:
    for number in range(5):
        make(f"never-{number}")
    names, cursor = [], ""
    for _ in range(4):
        page = owner.get(f"/keys/review?limit=2{cursor}").json()
        names += [row["name"] for row in page["data"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert names == [f"never-{number}" for number in (4, 3, 2, 1, 0)]


def test_a_page_ends_although_no_key_has_a_remark(owner: ApiClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_review, "BATCH", 2)
    monkeypatch.setattr(key_review, "MOST_LOOKED_AT", 2)
    make("never")
    for number in range(3):
        make(f"new-{number}", age=1)
    first = owner.get("/keys/review").json()
    assert first["data"] == []
    second = owner.get(f"/keys/review?cursor={first['next']}").json()
    assert [row["name"] for row in second["data"]] == ["never"]


def test_a_narrowed_operator_reviews_its_own_teams_keys_only() -> None:
    support, search = (create_team(actor=SYSTEM, name=name) for name in ("Support", "Search"))
    ours, theirs = make("ours", team=support), make("theirs", team=search)
    alice = client_of(Role.OPERATOR, support.id)
    assert set(remarks(alice)) == {"ours"}
    use(theirs)
    assert alice.post(f"/keys/{theirs.id}/shrink", {"dry_run": True}).status_code == 404
    assert alice.post(f"/keys/{theirs.id}/shrink").status_code == 404
    with pytest.raises(NotFound):
        key_review.shrink(theirs, actor=replace(SYSTEM, teams=frozenset([support.id])))
    use(ours)
    assert alice.post(f"/keys/{ours.id}/shrink").status_code == 200


def test_shrinking_leaves_exactly_what_was_used_and_can_be_taken_back(owner: ApiClient) -> None:
    key = make("wide", models=["*"])
    use(key, "fast")
    use(key, "cheap", days=3, endpoint="embeddings")
    use(key, "smart", days=45)
    shown = owner.post(f"/keys/{key.id}/shrink", {"dry_run": True}).json()
    assert (shown["applied"], VirtualKey.objects.get(id=key.id).allowed_models) == (False, ["*"])
    done = owner.post(f"/keys/{key.id}/shrink", {}).json()
    assert done == {**shown, "applied": True}
    assert done["after"] == {"models": ["cheap", "fast"], "endpoints": ["chat", "embeddings", "models"]}
    stored = VirtualKey.objects.get(id=key.id)
    assert (stored.allowed_models, stored.allowed_endpoints) == (done["after"]["models"], done["after"]["endpoints"])
    entry = AuditEntry.objects.get(action="key.update")
    assert (entry.before, entry.after) == (done["before"], done["after"])
    assert owner.post(f"/keys/{key.id}/shrink", {}).json()["after"] == {}
    assert AuditEntry.objects.filter(action="key.update").count() == 1
    assert owner.patch(f"/keys/{key.id}", done["before"]).status_code == 200
    assert VirtualKey.objects.get(id=key.id).allowed_models == ["*"]


def test_shrinking_never_widens(owner: ApiClient) -> None:
    team = create_team(actor=SYSTEM, name="Support", models=["cheap"])
    key = make("app", models=["fast", "cheap"], endpoints=["chat"], team=team)
    use(key, "fast")
    use(key, "smart", endpoint="embeddings")
    use(key, "cheap")
    done = owner.post(f"/keys/{key.id}/shrink", {}).json()
    assert done["after"] == {"models": ["cheap"]}


def test_use_before_the_key_came_to_its_team_counts(owner: ApiClient) -> None:
    support, search = (create_team(actor=SYSTEM, name=name) for name in ("Support", "Search"))
    key = make("app", team=search)
    use(key, "cheap", days=5)
    VirtualKey.objects.filter(id=key.id).update(team=support)
    key.refresh_from_db()
    use(key, "fast")
    alice = client_of(Role.OPERATOR, support.id)
    assert alice.post(f"/keys/{key.id}/shrink", {}).json()["after"]["models"] == ["cheap", "fast"]


def test_budgets_are_tightened_only_when_asked_and_keep_what_was_spent(owner: ApiClient) -> None:
    terms = [{"limit_usd": "500", "window": "day"}, {"limit_usd": "900"}, {"limit_usd": "3", "window": "week"}]
    key = make("rich", models=["fast"], endpoints=["chat", "models"], budgets=terms)
    use(key, cost=1_400_000_000, days=1)
    use(key, cost=600_000_000, days=2)
    assert remarks(owner) == {"rich": {"loose_budget"}}
    assert owner.post(f"/keys/{key.id}/shrink", {"dry_run": True}).json()["after"] == {}
    ids = {row["window"]: row["id"] for row in owner.get(f"/keys/{key.id}").json()["budgets"]}
    done = owner.post(f"/keys/{key.id}/shrink", {"budgets": True}).json()
    limits = {row["window"]: row["limit_usd"] for row in done["after"]["budgets"]}
    assert limits == {"day": "3.00", "lifetime": "900.00", "week": "3.00"}
    after = {row["window"]: (row["id"], row["limit_usd"]) for row in owner.get(f"/keys/{key.id}").json()["budgets"]}
    assert after == {window: (ids[window], limits[window]) for window in ids}
    assert owner.patch(f"/keys/{key.id}", {"budgets": done["before"]["budgets"]}).status_code == 200


def test_a_key_without_use_or_revoked_is_not_shrunk_and_the_state_is_named(owner: ApiClient) -> None:
    key = make("idle")
    idle = owner.post(f"/keys/{key.id}/shrink", {"days": 7})
    assert (idle.status_code, "7 days" in idle.json()["detail"]) == (409, True)
    revoke_key(key, actor=SYSTEM)
    gone = owner.post(f"/keys/{key.id}/shrink", {})
    assert (gone.status_code, "revoked" in gone.json()["detail"]) == (409, True)


@pytest.mark.parametrize("body", [{"days": 0}, {"days": True}, {"days": "7"}, {"dry_run": 1}, {"models": []}])
def test_a_wrong_wish_is_refused_by_name_and_changes_nothing(owner: ApiClient, body: dict[str, Any]) -> None:
    key = make("app")
    use(key)
    assert list(faults(owner.post(f"/keys/{key.id}/shrink", body))) == list(body)
    assert VirtualKey.objects.get(id=key.id).allowed_models == []


def test_a_key_that_is_changed_while_the_proposal_is_made_is_not_shrunk_to_it(
    owner: ApiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    rich = [{"limit_usd": "500", "window": "day"}]
    made, change = key_review.proposal, dict[str, Any]()

    def overtaken(key: VirtualKey, **wishes: Any) -> key_review.Proposal:
        proposal = made(key, **wishes)
        update_key(key, actor=SYSTEM, changes=change)
        return proposal

    monkeypatch.setattr(key_review, "proposal", overtaken)
    for name, values in (("models", ["smart"]), ("budgets", [{"limit_usd": "400", "window": "day"}])):
        key = make(name, budgets=rich)
        use(key)
        change = {name: values}
        answer = owner.post(f"/keys/{key.id}/shrink", {"budgets": True})
        assert (answer.status_code, "changed meanwhile" in answer.json()["detail"]) == (409, True)
        stored = owner.get(f"/keys/{key.id}").json()
        assert (stored["models"], stored["budgets"][0]["limit_usd"]) == (
            (["smart"], "500.00") if name == "models" else ([], "400.00")
        )


def test_shrinking_takes_its_turn_before_it_locks_the_key() -> None:
    key = make("app")
    use(key)
    with CaptureQueriesContext(connection) as asked:
        key_review.shrink(key, actor=SYSTEM)
    locks = [one["sql"] for one in asked if "FOR UPDATE" in one["sql"] or "FOR NO KEY UPDATE" in one["sql"]]
    assert "core_epoch" in locks[0]
    assert any("keys_virtualkey" in sql for sql in locks)


def test_who_sees_names_only_reviews_and_shrinks_nothing() -> None:
    key = make("app")
    use(key)
    analyst = client_of(Role.ANALYST)
    assert analyst.get("/keys/review").status_code == 403
    assert analyst.post(f"/keys/{key.id}/shrink", {"dry_run": True}).status_code == 403


def asked_for(client: ApiClient, path: str) -> int:
    with CaptureQueriesContext(connection) as asked:
        assert client.get(path).status_code == 200
    return len(asked)


def test_lists_ask_as_much_for_many_keys_as_for_few(owner: ApiClient) -> None:
    team = create_team(actor=SYSTEM, name="Support")
    top = make("top", team=team)

    def more(number: int) -> None:
        for place in range(number):
            child = make(f"child-{place}-{number}", parent=top, team=team)
            rotate_key(child, actor=SYSTEM)
            use(child)

    more(1)
    paths = ("/keys?limit=100", "/keys/review?limit=100")
    asked_for(owner, paths[0])  # the first call notes that the token is in use
    before = [asked_for(owner, path) for path in paths]
    more(4)
    assert [asked_for(owner, path) for path in paths] == before


def test_the_answers_are_what_the_schema_says(owner: ApiClient) -> None:
    document = reference.document()
    key = make("app")
    use(key)
    answers = {
        "ReviewedKey": owner.get("/keys/review").json()["data"][0],
        "ShrinkOutput": owner.post(f"/keys/{key.id}/shrink", {"dry_run": True}).json(),
        "BlastRadiusOutput": owner.get(f"/keys/{key.id}/blast-radius?since={ago(7):%Y-%m-%dT%H:%M:%SZ}").json(),
        "LeakAnswer": owner.post("/keys/identify", {"text": "cdt_vk_" + "0" * 48}).json(),
    }
    for name, answer in answers.items():
        schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        jsonschema.Draft202012Validator(schema).validate(answer)
        assert set(answer) == set(document["components"]["schemas"][name]["properties"]), name
