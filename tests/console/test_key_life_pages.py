"""A key's life on its page: what each act says before, what it does, and what the page tells afterwards."""

from __future__ import annotations

from collections.abc import Callable

from django.test import Client

from conduit.access.models import Role
from conduit.access.users import create_user, update_user
from conduit.core import raw_keys
from conduit.core.actor import SYSTEM
from keys import entries, use
from keys.issuing import create_key
from keys.models import VirtualKey
from keys.rotation import rotate_key
from keys.teams import create_team
from tests.console.conftest import World
from tests.console.pages import Markup


def words(html: bytes) -> str:
    return " ".join("".join(Markup(html.decode()).text).split())


def alive(raw: str) -> bool:
    return entries.load(raw[7:17]) is not None


def called(raw: str, address: str, times: int) -> None:
    """As the data plane notes it."""
    uses, entry = use.Uses(), entries.load(raw[7:17])
    assert entry is not None
    for _ in range(times):
        uses.note(entry, address)
    notes = uses.take(0.0)
    assert notes is not None
    use.write(notes)


def test_a_rotated_key_s_new_secret_is_shown_once(world: World, owner: Client) -> None:
    path = f"/keys/{world.alice_key.id}"
    assert "A new secret for the same key" in words(owner.get(path).content)
    answer = owner.post(f"{path}/rotate", {"overlap_seconds": "86400"})
    assert (answer.status_code, answer["Cache-Control"]) == (200, "no-store")
    raw = answer.context["raw"]
    assert raw_keys.public_id(raw_keys.VIRTUAL_KEY, raw)
    page = answer.content.decode()
    assert raw not in page.split("data-secret")[0]
    assert Markup(page).offences() == []
    assert "Secret v2 of support-chat is ready" in words(answer.content)
    assert "v1 works until" in words(answer.content)
    assert alive(raw)
    assert alive(world.alice_raw)
    for where in ("/keys", path, f"{path}?again"):
        assert raw not in owner.get(where).content.decode()
    assert raw not in str(dict(owner.session.items()))


def test_the_page_tells_who_still_uses_the_old_secret(world: World, owner: Client) -> None:
    path = f"/keys/{world.alice_key.id}"
    rotate_key(world.alice_key, actor=SYSTEM)
    said = words(owner.get(path).content)
    assert "v2 Active" in said
    assert "v1 Overlap" in said
    assert "Not used since it was made" in said
    called(world.alice_raw, "10.20.4.22", 12)
    said = words(owner.get(path).content)
    assert "Still used: 12 requests in the last hour, from 10.20.4.22 (12)" in said
    assert "In the last hour it made 12 requests from 1 address" in said  # before it is ended
    assert "Replace the secret v2?" in said


def test_the_overlap_is_extended_and_ended_from_the_page(world: World, owner: Client) -> None:
    path = f"/keys/{world.alice_key.id}"
    assert owner.post(f"{path}/finish").status_code == 409
    rotate_key(world.alice_key, actor=SYSTEM, overlap_seconds=7200)
    for typed, status in (("3600", 409), ("soon", 409), ("604800", 303)):
        assert owner.post(f"{path}/extend", {"overlap_seconds": typed}).status_code == status
    assert owner.post(f"{path}/rotate", {"overlap_seconds": "0"}).status_code == 409
    assert alive(world.alice_raw)
    assert owner.post(f"{path}/finish").status_code == 303
    assert not alive(world.alice_raw)
    said = words(owner.get(path).content)
    assert "v1 Retired" in said
    assert "Extend the overlap" not in said


def test_a_second_rotation_is_a_page_that_names_the_state_and_replace_is_offered(world: World, owner: Client) -> None:
    path = f"/keys/{world.alice_key.id}"
    unseen = owner.post(f"{path}/rotate", {"overlap_seconds": "3600"}).context["raw"]
    answer = owner.post(f"{path}/rotate", {"overlap_seconds": "3600"})
    assert answer.status_code == 409
    assert "A rotation is under way since" in words(answer.content)
    seen = owner.post(f"{path}/rotate", {"replace": "yes"}).context["raw"]
    assert not alive(unseen)
    assert alive(seen)
    assert alive(world.alice_raw)


def test_a_form_sent_twice_or_from_an_old_page_ends_nobody_s_new_secret(world: World, owner: Client) -> None:
    path = f"/keys/{world.alice_key.id}"
    assert 'name="expected" value="1"' in owner.get(path).content.decode()
    first = owner.post(f"{path}/rotate", {"expected": "1"}).context["raw"]  # no overlap is said: a day, not none
    assert alive(world.alice_raw)
    again = owner.post(f"{path}/rotate", {"expected": "1", "replace": "yes"})
    assert (again.status_code, "v2, not v1" in words(again.content)) == (409, True)
    assert owner.post(f"{path}/replace", {"expected": "1"}).status_code == 409
    assert alive(first)


def test_keys_of_other_teams_below_a_key_are_not_counted(world: World, owner: Client) -> None:
    key, team = world.alice_key, world.alice_key.team
    assert team is not None
    other = create_team(actor=SYSTEM, name="somewhere-else")
    create_key(actor=SYSTEM, name="child", parent=key)
    for name in ("far-1", "far-2"):
        create_key(actor=SYSTEM, name=name, parent=key, team=other)
    assert "3 keys below it stop too" in words(owner.get(f"/keys/{key.id}").content)
    bob, _ = create_user(actor=SYSTEM, email="bob-op@example.org", role=Role.OPERATOR, in_teams=[team.id])
    client = Client()
    client.force_login(bob)
    said = words(client.get(f"/keys/{key.id}").content)
    assert "1 key below it stops too" in said
    assert "Other keys below it stop too" in said


def test_disabling_names_the_consequences_and_is_undone_from_the_page(world: World, owner: Client) -> None:
    path = f"/keys/{world.alice_key.id}"
    create_key(actor=SYSTEM, name="child", parent=world.alice_key)
    said = words(owner.get(path).content)
    assert "In the last hour this key made 5 requests" in said
    assert "1 key below it stops too" in said
    owner.post(f"{path}/disable")
    said = words(owner.get(path).content)
    assert "It is disabled. Its callers get 401. Undo" in said
    owner.post(f"{path}/enable")
    assert "does not work now" not in words(owner.get(path).content)


def test_an_end_is_set_taken_away_and_brought_about(world: World, owner: Client) -> None:
    path = f"/keys/{world.alice_key.id}"

    def end() -> object:
        world.alice_key.refresh_from_db()
        return world.alice_key.expires_at

    assert owner.post(f"{path}/expire", {"when": "day", "expires_on": "2099-01-31"}).status_code == 303
    assert str(end()).startswith("2099-01-31 00:00")
    for wrong in ({"when": "day"}, {"when": "day", "expires_on": "2001-01-01"}, {"expires_on": "{0}"}, {}):
        assert owner.post(f"{path}/expire", wrong).status_code == 409
    assert str(end()).startswith("2099")
    assert owner.post(f"{path}/expire", {"when": "never"}).status_code == 303
    assert end() is None
    assert owner.post(f"{path}/expire", {"when": "now"}).status_code == 303
    assert "It has expired" in words(owner.get(path).content)
    assert not alive(world.alice_raw)


def test_a_personal_key_below_a_parent_is_made_with_the_form(world: World, owner: Client) -> None:
    alice, _ = create_user(actor=SYSTEM, email="alice@example.org", role=Role.ADMIN)
    form = {"name": "mine", "kind": "personal", "user": "alice@example.org", "parent": "support-chat"}
    preview = words(owner.post("/keys/new/preview", form).content)
    assert "It can do no more than support-chat may" in preview
    answer = owner.post("/keys/new", form)
    assert answer.status_code == 200, answer.content
    key = VirtualKey.objects.get(name="mine")
    assert (key.user, key.parent, key.team) == (alice, world.alice_key, world.support)
    said = words(owner.get(f"/keys/{key.id}").content)
    assert "personal key of alice@example.org" in said
    assert "below support-chat" in said
    assert "Parent support-chat" in said  # its budget
    update_user(alice, actor=SYSTEM, active=False)
    assert "belongs to a user who is deactivated" in words(owner.get(f"/keys/{key.id}").content)
    for field, value in (("user", "nobody@example.org"), ("user", ""), ("parent", "nothing"), ("kind", "robot")):
        wrong = owner.post("/keys/new", {**form, "name": "other", field: value})
        assert wrong.status_code == 422
        assert set(wrong.context["errors"]) == {field}
    assert not VirtualKey.objects.filter(name="other").exists()


def test_the_page_tells_what_the_key_may_do_after_all_narrowing(world: World, owner: Client) -> None:
    key, _ = create_key(actor=SYSTEM, name="narrow", parent=world.alice_key, models=["other-*"], endpoints=["chat"])
    said = words(owner.get(f"/keys/{key.id}").content)
    assert "Routes 0 of 1" in said
    assert "Endpoints chat" in said


def test_who_may_not_change_keys_sees_no_secret_s_caller_and_moves_nothing(
    world: World, signed_in: Callable[..., Client]
) -> None:
    rotate_key(world.alice_key, actor=SYSTEM)
    called(world.alice_raw, "10.20.4.22", 2)
    path = f"/keys/{world.alice_key.id}"
    page = signed_in(Role.ANALYST).get(path).content.decode()
    assert "10.20.4.22" not in page
    assert world.alice_raw[7:17] not in page
    auditor = signed_in(Role.AUDITOR)
    assert "Still used: 2 requests" in words(auditor.get(path).content)
    other = signed_in(Role.OPERATOR, world.search)
    body = {"overlap_seconds": "9000000", "when": "now", "confirm": "guessed"}
    for act in ("rotate", "finish", "extend", "expire", "disable", "enable", "revoke"):
        assert auditor.post(f"{path}/{act}", body).status_code == 403
        assert other.post(f"{path}/{act}", body).status_code == 404
    assert alive(world.alice_raw)
