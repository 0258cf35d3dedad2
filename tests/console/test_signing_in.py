from __future__ import annotations

from collections.abc import Callable

import pytest
from django.test import Client

from conduit.access.models import Role, User
from tests.console.conftest import PASSWORD, World

ACTS = [
    "/logout",
    "/palette",
    "/keys/new",
    "/keys/new/preview",
    "/keys/{key}/disable",
    "/keys/{key}/enable",
    "/keys/{key}/revoke",
    "/keys/{key}/replace",
    "/keys/leak",
    "/keys/review/shrink",
    "/providers/new?kind=custom",
    "/providers/{provider}/test",
    "/providers/{provider}/switch",
    "/credentials/new?provider={provider}",
    "/routes/new",
    "/routes/{route}",
    "/routes/{route}/delete",
]


@pytest.fixture
def alice(person: Callable[..., User]) -> User:
    return person(Role.OWNER)


def enter(client: Client, user: User, password: str = PASSWORD, then: str = "") -> int:
    data = {"email": user.email, "password": password, "next": then}
    answer = client.post("/login", data)
    client.location = answer.headers.get("Location", "")  # type: ignore[attr-defined]
    return answer.status_code


def test_the_right_password_opens_a_new_session(alice: User, client: Client) -> None:
    client.get("/login")
    session = client.session  # one that somebody else could have planted
    session["planted"] = True
    session.save()
    before = session.session_key
    client.cookies["conduit_session"] = str(before)
    assert enter(client, alice) == 303
    assert client.cookies["conduit_session"].value != before
    assert client.cookies["conduit_session"]["httponly"]
    assert client.get("/").status_code == 200
    planted = Client()
    planted.cookies["conduit_session"] = str(before)
    assert planted.get("/").status_code == 302


def test_a_wrong_password_and_an_unknown_address_are_answered_alike(alice: User, client: Client) -> None:
    answers = []
    for email in (alice.email, "nobody@conduit.local"):
        answer = client.post("/login", {"email": email, "password": "not-the-password"})
        assert answer.status_code == 422
        assert "not-the-password" not in answer.content.decode()
        answers.append(answer.context["problem"])
    assert answers == ["Email or password is wrong"] * 2
    assert client.get("/").status_code == 302


def test_after_ten_wrong_tries_even_the_right_password_waits(alice: User, client: Client) -> None:
    for _ in range(10):
        assert enter(client, alice, "wrong") == 422
    answer = client.post("/login", {"email": alice.email, "password": PASSWORD})
    assert answer.status_code == 429
    assert "try again in" in answer.content.decode()
    assert client.get("/").status_code == 302


@pytest.mark.parametrize(
    ("wanted", "reached"),
    [
        ("/keys?q=a", "/keys?q=a"),
        ("https://evil.example/", "/"),
        ("//evil.example/", "/"),
        ("/\\evil.example", "/"),
        ("javascript:alert(1)", "/"),
        ("", "/"),
    ],
)
def test_signing_in_leads_only_to_pages_of_this_console(wanted: str, reached: str, alice: User, client: Client) -> None:
    assert enter(client, alice, then=wanted) == 303
    assert client.location == reached  # type: ignore[attr-defined]


def test_signing_out_is_a_post_and_ends_the_session(alice: User, client: Client) -> None:
    enter(client, alice)
    kept = client.cookies["conduit_session"].value
    assert client.get("/logout").status_code == 405
    assert client.get("/").status_code == 200
    assert client.post("/logout").status_code == 303
    again = Client()
    again.cookies["conduit_session"] = kept
    assert again.get("/").status_code == 302


def test_a_disabled_person_is_out_at_once(alice: User, client: Client) -> None:
    enter(client, alice)
    User.objects.filter(id=alice.id).update(is_active=False)
    assert client.get("/").status_code == 302


def test_every_act_refuses_a_forged_form(world: World, signed_in: Callable[..., Client]) -> None:
    forged = signed_in(Role.OWNER, enforce_csrf_checks=True)
    ids = {"key": world.alice_key.id, "provider": world.provider.id, "route": world.route.id}
    for path in ACTS:
        assert forged.post(path.format(**ids)).status_code == 403, path
    world.alice_key.refresh_from_db()
    assert world.alice_key.state == "active"
    assert forged.get("/").status_code == 200


def test_acts_are_never_done_by_following_a_link(world: World, owner: Client) -> None:
    for act in ("disable", "enable", "revoke"):
        assert owner.get(f"/keys/{world.alice_key.id}/{act}").status_code == 405
    assert owner.get(f"/providers/{world.provider.id}/switch").status_code == 405
    assert owner.get(f"/routes/{world.route.id}/delete").status_code == 405
