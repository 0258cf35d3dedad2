"""The audit log's page: words instead of codes, what changed, one object's history, and whether the log is whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext

from conduit.access import audit_log
from conduit.access.models import Role
from conduit.console import audit_words
from conduit.core import audit
from conduit.core.actor import SYSTEM, Actor
from conduit.core.clock import now
from conduit.core.models import AuditEntry
from keys.issuing import disable_key, update_key
from keys.models import Budget, VirtualKey
from keys.raises import raise_budget
from tests.console.conftest import SECRET, World
from tests.console.pages import Markup
from tests.console.test_pages import HOSTILE
from tests.core.test_audit_chain import tamper

CAROL = Actor("token", "0192", "ci", "admin", None)


@pytest.fixture(autouse=True)
def _nothing_kept() -> Iterator[None]:
    yield
    audit_log._kept().unlink(missing_ok=True)


def words(answer: Any) -> str:
    return " ".join("".join(Markup(answer.content.decode()).text).split())


def test_the_page_says_who_did_what_from_what_to_what(world: World, owner: Client) -> None:
    update_key(
        world.alice_key, actor=CAROL, changes={"rpm": 500, "budgets": [{"limit_usd": "2.50", "window": "month"}]}
    )
    disable_key(world.bob_key, actor=SYSTEM)
    answer = owner.get("/audit")
    assert Markup(answer.content.decode()).offences() == []
    text = words(answer)
    for said in (
        "ci (token) changed key support-chat rpm 300 → 500",
        "set budgets support-chat budgets",
        "$1.00 per month → $2.50 per month",
        "system disabled key search-answers state active → disabled",
        "created credential main",
        "Not verified on this node yet",
    ):
        assert said in text, said
    assert f'href="/keys/{world.alice_key.id}"' in answer.content.decode()
    assert SECRET not in text
    assert SECRET[:12] not in text


def test_chips_range_and_words_narrow_the_list(world: World, owner: Client) -> None:
    disable_key(world.bob_key, actor=CAROL)

    def found(query: str) -> set[str]:
        return {row["entry"].action for row in owner.get(f"/audit?{query}").context["rows"]}

    assert found("of=credentials") == {"credential.create"}
    assert found("of=budgets") == {"budget.set"}
    assert found("of=keys") == {"key.create", "key.disable", "budget.set"}
    assert found("q=disabled+key") == {"key.disable"}
    assert found("q=ci") >= {"key.disable"}
    assert "key.disable" not in found("of=system")
    assert found("q=no-such-thing") == set()
    assert found(f"kind=key&object={world.bob_key.id}") == {"key.create", "key.disable"}
    assert "All that happened to search-answers" in words(owner.get(f"/audit?kind=key&object={world.bob_key.id}"))
    for odd in ("range=x", "of=x", "before=x", "after=-1", "before=99999999999999999999", "q=%00", "object=%00"):
        assert owner.get(f"/audit?{odd}").status_code == 200, odd


def test_a_search_looks_for_actions_in_the_range_only(world: World, owner: Client) -> None:
    with CaptureQueriesContext(connection) as seen:
        owner.get("/audit?q=disabled+key&range=7d")
    (actions,) = [one["sql"] for one in seen.captured_queries if "DISTINCT" in one["sql"]]
    assert '"time" >=' in actions


def test_verify_now_says_what_it_did_not_walk_again_and_when_another_one_is_at_it(
    world: World, owner: Client, monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    monkeypatch.setattr(audit_log, "WALKED_WHOLE", 1)
    owner.post("/audit/verify")
    assert "the whole log" not in words(owner.get("/audit"))
    owner.post("/audit/verify")
    assert f"from entry {AuditEntry.objects.count() + 1} on, the whole log" in words(owner.get("/audit"))
    with psycopg.connect(database_url, autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(%s)", [audit_log._LOCK])
        owner.post("/audit/verify")
        assert "Another verification is under way" in words(owner.get("/audit"))


def test_older_and_newer_go_through_all_entries_without_a_gap(world: World, owner: Client) -> None:
    for number in range(120):
        with transaction.atomic():
            audit.record(actor=SYSTEM, action="key.update", kind="key", id=number)
    seen: list[int] = []
    query = ""
    while True:
        context = owner.get(f"/audit?{query}").context
        seen += [row["entry"].id for row in context["rows"]]
        if not context["older_query"]:
            break
        query = context["older_query"]
    assert seen == sorted(AuditEntry.objects.values_list("id", flat=True), reverse=True)
    back = owner.get(f"/audit?{context['newer_query']}").context
    assert back["rows"][-1]["entry"].id == context["rows"][0]["entry"].id + 1
    assert back["older_query"]


def test_verify_now_tells_a_whole_log_and_a_broken_one_everywhere(
    world: World, owner: Client, signed_in: Callable[..., Client]
) -> None:
    assert owner.get("/audit/verify").status_code == 405
    assert owner.post("/audit/verify").status_code == 303
    text = words(owner.get("/audit"))
    number = AuditEntry.objects.count()
    assert f"Chain intact: {number} of {number} entries" in text
    assert "Intact" in words(owner.get("/system"))
    disable_key(world.bob_key, actor=SYSTEM)
    assert "1 more since" in words(owner.get("/audit"))
    tamper("UPDATE core_auditentry SET object_name = 'x' WHERE id = 3")
    auditor = signed_in(Role.AUDITOR)
    auditor.post("/audit/verify")
    assert "Chain broken at entry 3: edited" in words(auditor.get("/audit"))
    assert "The audit log is broken at entry 3" in words(owner.get("/"))
    assert "Broken at entry 3: edited" in words(owner.get("/system"))
    operator = signed_in(Role.OPERATOR)
    assert operator.get("/audit").status_code == 403
    assert operator.post("/audit/verify").status_code == 403
    assert "audit" not in words(operator.get("/")).casefold()


def test_hostile_names_are_text(world: World, owner: Client) -> None:
    VirtualKey.objects.filter(id=world.bob_key.id).update(name=HOSTILE)
    disable_key(VirtualKey.objects.get(id=world.bob_key.id), actor=Actor("user", "x", HOSTILE, "owner", None))
    page = owner.get(f"/audit?q={HOSTILE}").content.decode()
    assert Markup(page).offences() == []
    assert HOSTILE in "".join(Markup(page).text)


@pytest.mark.parametrize(
    ("action", "said"),
    [
        ("key.rotate", "rotated key"),
        ("key.revoke", "revoked key"),
        ("user.sign_in", "signed in"),
        ("budget.raise", "raised for a while"),
        ("credential.set_share", "moved canary of credential"),
        ("kek.add", "added kek"),
    ],
)
def test_an_action_reads_as_words(action: str, said: str) -> None:
    assert audit_words.did(action) == said


def test_changes_read_as_money_lists_and_plain_words() -> None:
    told = audit_words.changes(
        {"limit_usd": "5.00", "models": ["a"], "enabled": True, "same": 1, "gone": None},
        {"limit_usd": "6.50", "models": ["a", "b"], "enabled": False, "same": 1, "note": "x" * 200},
    )
    assert [(one.name, one.before, one.after) for one in told[:3]] == [
        ("limit", "$5.00", "$6.50"),
        ("models", "a", "a, b"),
        ("enabled", "yes", "no"),
    ]
    assert told[3].name == "note"
    assert len(told[3].after) == audit_words.LONGEST


def test_a_raise_shows_both_limits(world: World, owner: Client) -> None:
    budget = Budget.objects.get(owner_id=world.alice_key.id)
    raise_budget(budget, actor=CAROL, extra_nanos=500_000_000, until=now() + timedelta(hours=2))
    assert "raised for a while support-chat limit $1.00 → $1.50" in words(owner.get("/audit?of=budgets"))
