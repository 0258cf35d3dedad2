"""Who holds the table of sessions cannot continue one; for everybody else they work as Django's do."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.sessions.models import Session
from django.test import Client

from conduit.access.models import Role
from conduit.access.sessions import SessionStore, stored
from conduit.access.users import create_user
from conduit.core.actor import SYSTEM
from conduit.core.clock import now

pytestmark = pytest.mark.django_db


def _kept() -> tuple[str, Session]:
    """The cookie of a fresh session, and its only row."""
    store = SessionStore()
    store["planted"] = "text"
    store.save()
    assert store.session_key is not None
    return store.session_key, Session.objects.get()


def test_the_table_does_not_hold_the_cookie() -> None:
    cookie, row = _kept()
    assert row.session_key == stored(cookie) != cookie
    assert len(row.session_key) == 40
    assert cookie not in row.session_data


def test_what_the_table_holds_is_no_cookie() -> None:
    _, row = _kept()
    assert SessionStore(row.session_key).load() == {}
    assert not SessionStore().exists(row.session_key)


def test_a_signed_in_person_stays_so_and_signing_out_removes_the_row(client: Client) -> None:
    user, _ = create_user(actor=SYSTEM, email="alice@example.org", role=Role.OWNER)
    client.force_login(user)
    assert client.get("/api/v1/keys").status_code == 200
    thief = Client()
    thief.cookies["conduit_session"] = Session.objects.get().session_key
    assert thief.get("/api/v1/keys").status_code == 401
    client.post("/logout")
    assert not Session.objects.exists()


def test_a_session_is_read_changed_and_ends_at_its_time() -> None:
    cookie, _ = _kept()
    again = SessionStore(cookie)
    assert again["planted"] == "text"
    again["planted"] = "other"
    again.save()
    again.cycle_key()
    moved = again.session_key
    assert moved != cookie
    assert SessionStore(moved).load() == {"planted": "other"}
    assert SessionStore(cookie).load() == {}
    Session.objects.update(expire_date=now() - timedelta(seconds=1))
    assert SessionStore(moved).load() == {}
    SessionStore.clear_expired()
    assert not Session.objects.exists()


@pytest.mark.django_db(transaction=True)
async def test_the_asynchronous_way_keeps_no_cookie_either() -> None:
    store = SessionStore()
    await store.aset("planted", "text")
    await store.asave()
    cookie = store.session_key
    assert cookie is not None
    assert [row.session_key async for row in Session.objects.all()] == [stored(cookie)]
    assert await SessionStore(cookie).aload() == {"planted": "text"}
    assert await SessionStore().aexists(cookie)
    await store.adelete()
    assert not await SessionStore().aexists(cookie)
