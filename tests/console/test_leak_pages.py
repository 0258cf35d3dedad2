"""The console's side of leak response and of the stale-access review."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from django.test import Client

from conduit.access.models import Role
from conduit.core import raw_keys
from conduit.core.actor import SYSTEM
from conduit.core.models import AuditEntry
from keys import entries
from keys.issuing import create_key, revoke_key, update_key
from keys.models import KeySecret, VirtualKey
from tests.console.conftest import SECRET, World
from tests.console.pages import Markup

SignedIn = Callable[..., Client]


def text_of(answer: object) -> str:
    return " ".join(" ".join(Markup(answer.content.decode()).text).split())  # type: ignore[attr-defined]


def test_a_pasted_key_is_named_with_its_blast_radius_and_never_shown(world: World, owner: Client) -> None:
    wrong = world.alice_raw[:-1] + ("a" if world.alice_raw[-1] != "a" else "b")
    answer = owner.post("/keys/leak", {"text": f"KEY={world.alice_raw}\n{wrong}\napi_key: {SECRET}"})
    assert answer.status_code == 200
    text = text_of(answer)
    for wanted in ("support-chat", "Ours, works now", "No key", "Blast radius of support-chat", "openai-main", "main"):
        assert wanted in text, wanted
    assert "5 requests, 1 refused" in text
    assert answer.context["radii"][0]["radius"].day.sums.cost == 4 * 135_000
    html = answer.content.decode()
    for secret in (world.alice_raw[17:49], wrong[17:49], SECRET):
        assert secret not in html
    assert Markup(html).offences() == []
    assert AuditEntry.objects.filter(action="leak.identify").count() == 1


def test_a_text_without_keys_and_an_empty_one(world: World, owner: Client) -> None:
    assert "No key in this text" in text_of(owner.post("/keys/leak", {"text": "hello"}))
    empty = owner.post("/keys/leak", {"text": "  "})
    assert (empty.status_code, "Paste a key" in text_of(empty)) == (422, True)


def test_asking_too_often_is_answered_with_when_to_come_back(
    world: World, owner: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("conduit.console.leak_pages.PACE", "1/h")
    assert owner.post("/keys/leak", {"text": "x"}).status_code == 200
    late = owner.post("/keys/leak", {"text": "x"})
    assert (late.status_code, int(late["Retry-After"]) > 0) == (429, True)


def test_one_button_replaces_the_secret_and_shows_the_new_one_once(world: World, owner: Client) -> None:
    asked = owner.post("/keys/leak", {"text": world.alice_raw}).content.decode()
    assert f'action="/keys/{world.alice_key.id}/replace"' in asked
    answer = owner.post(f"/keys/{world.alice_key.id}/replace")
    (found,) = {one.raw.reveal() for one in raw_keys.occurrences(answer.content.decode())}
    assert (answer["Cache-Control"], "data-secret" in answer.content.decode()) == ("no-store", True)
    assert entries.load(world.alice_raw[7:17]) is None
    entry = entries.load(found[7:17])
    assert entry is not None
    assert entry.id == world.alice_key.id
    assert found not in owner.get(f"/keys/{world.alice_key.id}").content.decode()


def test_who_may_not_change_the_key_gets_no_button_and_no_secret(world: World, signed_in: SignedIn) -> None:
    auditor = signed_in(Role.AUDITOR)
    assert "Blast radius" in text_of(auditor.post("/keys/leak", {"text": world.alice_raw}))
    assert "/replace" not in auditor.post("/keys/leak", {"text": world.alice_raw}).content.decode()
    assert auditor.post(f"/keys/{world.alice_key.id}/replace").status_code == 403
    bob = signed_in(Role.OPERATOR, world.search)
    told = text_of(bob.post("/keys/leak", {"text": world.alice_raw}))
    assert ("Ours, works now" in told, "support-chat" in told, "not yours" in told) == (True, False, True)
    assert bob.post(f"/keys/{world.alice_key.id}/replace").status_code == 404
    assert KeySecret.objects.filter(key=world.alice_key).count() == 1


def test_a_revoked_key_offers_no_replacement_and_refuses_one(world: World, owner: Client) -> None:
    revoke_key(world.alice_key, actor=SYSTEM)
    assert "/replace" not in owner.post("/keys/leak", {"text": world.alice_raw}).content.decode()
    assert owner.post(f"/keys/{world.alice_key.id}/replace").status_code == 409


@pytest.fixture
def aged(world: World) -> World:
    VirtualKey.objects.update(created_at=datetime.now(UTC) - timedelta(days=90))
    return world


def test_the_review_shows_what_to_look_at_and_the_cuts_before_they_are_made(aged: World, owner: Client) -> None:
    page = owner.get("/keys/review")
    assert "Too many endpoints" in text_of(page)
    form = {"key": [str(aged.alice_key.id), str(aged.bob_key.id), "no id"], "days": "30"}
    cuts = owner.post("/keys/review/shrink", form)
    assert "Shrink 2 keys" in text_of(cuts)
    assert "everything else" in text_of(cuts)
    assert VirtualKey.objects.get(id=aged.alice_key.id).allowed_endpoints == []
    done = owner.post("/keys/review/shrink", {**form, "apply": "1"})
    assert (done.status_code, done["Location"]) == (303, "/keys/review?days=30")
    assert VirtualKey.objects.get(id=aged.alice_key.id).allowed_endpoints == ["chat", "models"]
    after = text_of(owner.get("/keys/review"))
    assert "2 keys shrunk to what was used" in after
    assert "Too many endpoints" not in after


def test_budgets_are_cut_only_when_ticked(aged: World, owner: Client) -> None:
    update_key(aged.alice_key, actor=SYSTEM, changes={"budgets": [{"limit_usd": "90.00", "window": "month"}]})
    form = {"key": [str(aged.alice_key.id)], "days": "30"}
    asked = owner.post("/keys/review/shrink", form).context["changing"][0]["cuts"]
    assert [cut["title"] for cut in asked] == ["Models", "Endpoints"]
    *_, cut = owner.post("/keys/review/shrink", {**form, "budgets": "1"}).context["changing"][0]["cuts"]
    assert (cut["title"], cut["gone"], cut["new"]) == ("Budgets", ["$90.00 / month"], ["$1.00 / month"])


def test_another_teams_key_is_not_shrunk(aged: World, signed_in: SignedIn) -> None:
    bob = signed_in(Role.OPERATOR, aged.search)
    assert "support-chat" not in text_of(bob.get("/keys/review"))
    refused = bob.post("/keys/review/shrink", {"key": [str(aged.alice_key.id)], "apply": "1"})
    assert refused.status_code == 409
    assert VirtualKey.objects.get(id=aged.alice_key.id).allowed_endpoints == []


def test_a_key_without_use_says_why_it_is_not_shrunk(aged: World, owner: Client) -> None:
    idle, _ = create_key(actor=SYSTEM, name="idle", team=aged.search)
    VirtualKey.objects.filter(id=aged.bob_key.id).update(allowed_endpoints=["chat"], allowed_models=["sandbox-echo"])
    answer = owner.post("/keys/review/shrink", {"key": [str(aged.bob_key.id), str(idle.id)], "days": "30"})
    assert answer.context["changing"] == []
    assert "served nothing in the last 30 days" in text_of(answer)
    assert "may already do only what it did" in text_of(answer)
    none = owner.post("/keys/review/shrink", {"days": "30"})
    assert (none.status_code, "Choose keys" in text_of(none)) == (409, True)


def test_reviewer_and_keys_page_lead_to_both(world: World, owner: Client) -> None:
    html = owner.get("/keys").content.decode()
    assert 'href="/keys/leak"' in html
    assert 'href="/keys/review"' in html
    offered = owner.post("/palette", {"q": "leaked"}).content.decode()
    assert 'href="/keys/leak"' in offered
