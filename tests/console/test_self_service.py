"""The page of a key's holder: what it shows, what it never tells, and that it opens nothing else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.test import Client

from conduit.console import self_service
from conduit.core import raw_keys
from conduit.core.actor import SYSTEM
from keys.issuing import create_key, delete_key, disable_key, revoke_key, update_key
from keys.models import Budget, BudgetPeriod, KeySecret, VirtualKey
from keys.rotation import replace_secret, rotate_key
from keys.teams import update_team
from tests.console.conftest import SECRET, World
from tests.console.pages import Markup


def enter(raw: str, **options: Any) -> Client:
    client = Client(**options)
    answer = client.post("/self", {"key": raw})
    assert (answer.status_code, answer["Location"]) == (303, "/self"), answer.content
    return client


def shown(client: Client) -> str:
    answer = client.get("/self")
    assert answer.status_code == 200
    return answer.content.decode()


def test_a_holder_sees_limits_spend_requests_and_how_to_call(world: World) -> None:
    client = enter(world.alice_raw)
    answer = client.get("/self")
    html = answer.content.decode()
    text = " ".join(Markup(html).text)
    for wanted in ("support-chat", "This key", "Requests per minute", "support-fast", "CONDUIT_KEY", "sandbox-echo"):
        assert wanted in text, wanted
    assert answer.context["total"].requests == 5
    assert answer.context["meters"][0].limit == 1_000_000_000
    assert [row.outcome_word for row in answer.context["latest"]].count("429 budget_exceeded") == 1
    assert sum(int(n) for n in [answer.context["total"].cost_nanos]) == 4 * 135_000
    assert Markup(html).offences() == []
    assert "unsafe" not in answer["Content-Security-Policy"]
    assert "no-store" in answer["Cache-Control"]


def test_the_key_is_in_no_address_cookie_or_page_and_nothing_of_others_is_shown(world: World) -> None:
    client = enter(f"  {world.alice_raw}\n")
    cookies = "; ".join(f"{name}={morsel.value}" for name, morsel in client.cookies.items())
    html = shown(client)
    random_part = world.alice_raw[17:49]
    assert random_part not in cookies + html
    assert KeySecret.objects.get(key=world.alice_key).public_id not in cookies
    for foreign in ("search-answers", "openai-main", SECRET, str(world.provider.id), "/keys/", "/requests/"):
        assert foreign not in html, foreign
    cookie = client.cookies["conduit_holder"]
    assert (cookie["httponly"], cookie["samesite"], cookie["path"], cookie["max-age"]) == (
        True, "Strict", "/self", 1800,
    )  # fmt: skip


def test_every_bad_key_gets_the_same_answer(world: World, settings: Any) -> None:
    raws = {"wrong checksum": world.alice_raw[:-1] + ("a" if world.alice_raw[-1] != "a" else "b")}
    head = world.alice_raw[:17] + "x" * 32
    raws["right public id, another secret"] = head + raw_keys._checksum(head)
    hollow, raw = create_key(actor=SYSTEM, name="hollow")
    KeySecret.objects.filter(key=hollow).update(digest=b"")
    raws["destroyed"] = raw.reveal()
    raws["unknown"] = raw_keys.mint("vk").raw.reveal()
    raws["a token's form"] = raw_keys.mint("mk").raw.reveal()
    raws["nothing"] = ""
    raws["text"] = "x" * 5000
    for name, act in {"disabled": disable_key, "revoked": revoke_key, "deleted": delete_key}.items():
        key, raw = create_key(actor=SYSTEM, name=name)
        act(key, actor=SYSTEM)
        raws[name] = raw.reveal()
    expired, raw = create_key(actor=SYSTEM, name="expired")
    VirtualKey.objects.filter(id=expired.id).update(expires_at=datetime.now(UTC) - timedelta(seconds=5))
    raws["expired"] = raw.reveal()
    _, raw = create_key(actor=SYSTEM, name="elsewhere", ip_allowlist=["192.0.2.0/24"])
    raws["address"] = raw.reveal()
    answers = {}
    for number, (name, text) in enumerate(raws.items()):
        answer = Client(REMOTE_ADDR=f"127.0.1.{number}").post("/self", {"key": text})
        body = Markup(answer.content.decode())
        answers[name] = (answer.status_code, [part for part in body.text if part.strip()], sorted(answer.headers))
        assert "conduit_holder" not in answer.cookies, name
    assert {status for status, _, _ in answers.values()} == {422}
    assert all(answer == answers["unknown"] for answer in answers.values())


def test_an_allowed_address_is_looked_at_at_each_view(world: World) -> None:
    _, raw = create_key(actor=SYSTEM, name="office", ip_allowlist=["192.0.2.0/24"])
    client = enter(raw.reveal(), REMOTE_ADDR="192.0.2.7")
    assert "office" in shown(client)
    elsewhere = Client(REMOTE_ADDR="198.51.100.7")
    elsewhere.cookies = client.cookies
    assert "office" not in shown(elsewhere)


def test_rules_that_leave_nothing_are_said_to_leave_nothing(world: World) -> None:
    top, _ = create_key(actor=SYSTEM, name="top")
    key, raw = create_key(actor=SYSTEM, name="below", parent=top)
    client = enter(raw.reveal())
    page = client.get("/self")
    assert (page.context["endpoints"], page.context["networks"]) == (None, None)
    update_key(top, actor=SYSTEM, changes={"endpoints": ["embeddings"]})
    update_key(key, actor=SYSTEM, changes={"endpoints": ["chat"]})
    said = " ".join("".join(Markup(shown(client)).text).split())
    assert "Endpoints none" in said
    assert "Addresses every" in said


@pytest.mark.parametrize("act", [disable_key, revoke_key, delete_key, replace_secret])
def test_the_page_closes_with_the_secret(world: World, act: Any) -> None:
    client = enter(world.alice_raw)
    assert "support-chat" in shown(client)
    act(world.alice_key, actor=SYSTEM)
    html = shown(client)
    assert "support-chat" not in html
    assert "Show my key" in html


def test_the_page_closes_after_half_an_hour(world: World) -> None:
    client = enter(world.alice_raw)
    for minutes, open_ in ((29, True), (31, False)):
        with time_machine.travel(datetime.now(UTC) + timedelta(minutes=minutes), tick=False):
            assert ("support-chat" in shown(client)) is open_


def test_leaving_forgets_the_visit(world: World) -> None:
    client = enter(world.alice_raw)
    assert client.post("/self", {"leave": "1"}).status_code == 303
    assert "support-chat" not in shown(client)


@pytest.mark.parametrize("cookie", ["1", "conduit:1:x", "eyJhIjoxfQ:1tttt:abc", "\x00", "x" * 4000])
def test_a_made_up_cookie_opens_nothing(world: World, cookie: str) -> None:
    client = Client()
    client.cookies["conduit_holder"] = cookie
    assert "Show my key" in shown(client)


def test_a_holder_has_no_rights_in_the_console_and_changes_nothing(world: World) -> None:
    client = enter(world.alice_raw)
    for path in ("/", "/keys", f"/keys/{world.alice_key.id}", "/requests", "/usage"):
        assert client.get(path)["Location"].startswith("/login"), path
    assert client.get("/api/v1/keys").status_code == 401
    assert client.post(f"/keys/{world.alice_key.id}/disable").status_code == 302
    for method in ("put", "patch", "delete"):
        assert getattr(client, method)("/self").status_code == 405


def test_a_rotated_secret_is_told_when_it_ends(world: World) -> None:
    client = enter(world.alice_raw)
    assert "This secret ends" not in shown(client)
    rotate_key(world.alice_key, actor=SYSTEM)
    html = shown(client)
    assert "This secret ends" in html
    assert "The key was rotated" in html


def test_tries_are_limited_by_address_and_the_limit_says_when_to_come_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(self_service, "PACE", "3/h")
    near, far = Client(REMOTE_ADDR="127.0.2.1"), Client(REMOTE_ADDR="127.0.2.2")
    statuses = [near.post("/self", {"key": "x"}).status_code for _ in range(4)]
    assert statuses == [422, 422, 422, 429]
    late = near.post("/self", {"key": world.alice_raw})
    assert (late.status_code, int(late["Retry-After"]) > 0) == (429, True)
    assert far.post("/self", {"key": world.alice_raw}).status_code == 303


def test_nobody_enters_while_tries_cannot_be_counted(world: World, settings: Any) -> None:
    away = {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": "redis://127.0.0.1:1"}
    settings.CACHES = {"default": away}
    answer = Client().post("/self", {"key": world.alice_raw})
    assert answer.status_code == 503
    assert "Valkey is away" in answer.content.decode()


def test_the_form_is_refused_without_its_token(world: World) -> None:
    assert Client(enforce_csrf_checks=True).post("/self", {"key": world.alice_raw}).status_code == 403


def test_a_hostile_name_is_shown_as_text(world: World) -> None:
    hostile = "<script>alert(1)</script>\"'>"
    update_key(world.alice_key, actor=SYSTEM, changes={"name": hostile})
    html = shown(enter(world.alice_raw))
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert(1)" in html


def test_of_a_teams_budget_only_what_it_leaves_is_told(world: World) -> None:
    update_team(world.support, actor=SYSTEM, changes={"budgets": [{"limit_usd": "77.00"}]})
    row = Budget.objects.get(owner_id=world.support.id, removed_at=None)
    BudgetPeriod.objects.create(budget=row, starts_at=row.created_at, settled_nanos=7_000_000_000)
    text = " ".join(Markup(shown(enter(world.alice_raw))).text)
    assert "$70.00" in text
    assert "$77" not in text
    assert "$7.00" not in text
