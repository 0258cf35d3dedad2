from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from conduit.access import tokens
from conduit.access.models import ManagementToken, Role, User
from conduit.access.users import create_user, set_password
from conduit.core import raw_keys
from conduit.core.actor import SYSTEM
from conduit.core.clock import now
from conduit.core.models import AuditEntry
from conduit.core.secret import Secret
from keys import teams
from tests.access.clients import ApiClient, client_of, faults


@pytest.mark.parametrize("place", range(55))
def test_a_typo_at_any_place_is_refused_without_a_query(
    owner: ApiClient, django_assert_num_queries: Any, place: int
) -> None:
    raw = owner.raw or ""
    for wrong in "0aZ_":
        if raw[place] == wrong:
            continue
        with django_assert_num_queries(0):
            assert ApiClient(raw[:place] + wrong + raw[place + 1 :]).get("/keys").status_code == 401


def test_unknown_wrong_revoked_expired_and_malformed_tokens_are_answered_alike(owner: ApiClient) -> None:
    raw = owner.raw or ""
    revoked, expired = client_of(Role.OWNER), client_of(Role.OWNER)
    ManagementToken.objects.filter(public_id=(revoked.raw or "")[7:17]).update(revoked_at=now())
    ManagementToken.objects.filter(public_id=(expired.raw or "")[7:17]).update(expires_at=now() - timedelta(seconds=1))
    # the right public id with another secret and a right checksum
    forged = raw_keys.mint("mk").raw.reveal()
    head = f"cdt_mk_{raw[7:17]}{forged[17:49]}"
    forged = head + raw_keys._checksum(head)
    assert raw_keys.public_id("mk", forged)
    bad = [revoked.raw, expired.raw, forged, raw_keys.mint("mk").raw.reveal(), "", "x", raw + "0", raw[:-1], "é" * 55]
    answers = {
        (ApiClient(text or "x").get("/keys").status_code, ApiClient(text or "x").get("/keys").content) for text in bad
    }
    assert len(answers) == 1
    assert answers.pop()[0] == 401
    assert owner.get("/keys").status_code == 200


def test_a_token_is_shown_once_and_works_until_it_is_deleted(owner: ApiClient) -> None:
    created = owner.post("/tokens", {"name": "ci", "role": "operator"}).json()
    client = ApiClient(created.pop("token"))
    assert client.get("/keys").status_code == 200
    listed = {row["id"]: row for row in owner.get("/tokens").json()["data"]}[created["id"]]
    assert listed["last_used_at"] is not None
    assert {**listed, "last_used_at": None} == created
    assert owner.delete(f"/tokens/{created['id']}").status_code == 204
    assert owner.delete(f"/tokens/{created['id']}").status_code == 204
    assert client.get("/keys").status_code == 401
    assert AuditEntry.objects.filter(action="token.revoke", object_id=created["id"]).count() == 1


def test_use_is_noted_once_a_minute(owner: ApiClient) -> None:
    owner.get("/keys")
    first = ManagementToken.objects.get().last_used_at
    owner.get("/keys")
    assert ManagementToken.objects.get().last_used_at == first


def test_nobody_issues_a_token_wider_than_themselves(admin: ApiClient, owner: ApiClient) -> None:
    assert admin.post("/tokens", {"name": "x", "role": "owner"}).status_code == 403
    assert admin.post("/tokens", {"name": "x", "role": "admin"}).status_code == 201
    of_owner = ManagementToken.objects.get(public_id=(owner.raw or "")[7:17])
    assert admin.delete(f"/tokens/{of_owner.id}").status_code == 403
    assert owner.get("/keys").status_code == 200


@pytest.mark.parametrize(
    ("body", "blamed"),
    [
        ({"role": "owner"}, "name"),
        ({"name": "x"}, "role"),
        ({"name": "x", "role": "root"}, "role"),
        ({"name": "x", "role": "operator", "team": "search"}, "team"),
        ({"name": "x", "role": "operator", "team": "0190a0a0-0000-7000-8000-000000000000"}, "team"),
        ({"name": "x", "role": "owner", "expires_at": "2001-01-01T00:00:00Z"}, "expires_at"),
        ({"name": "x", "role": "owner", "digest": "00"}, "digest"),
        ({"name": "x", "role": "owner", "public_id": "00"}, "public_id"),
    ],
)
def test_a_wrong_token_is_refused_by_field(owner: ApiClient, body: dict[str, Any], blamed: str) -> None:
    assert list(faults(owner.post("/tokens", body))) == [blamed]


def test_an_owner_s_token_cannot_be_narrowed_to_a_team(owner: ApiClient) -> None:
    team = teams.create_team(actor=SYSTEM, name="search")
    answer = owner.post("/tokens", {"name": "x", "role": "owner", "team": str(team.id)})
    assert faults(answer) == {"team": "not_applicable"}


def test_a_user_is_invited_with_a_password_that_works_and_is_shown_once(owner: ApiClient) -> None:
    team = teams.create_team(actor=SYSTEM, name="search")
    body = {"email": "Alice@Example.org", "role": "operator", "teams": [str(team.id)]}
    created = owner.post("/users", body).json()
    password = created.pop("password")
    assert len(password) == 20
    assert created["email"] == "alice@example.org"
    assert created["teams"] == [str(team.id)]
    assert owner.get("/users").json()["data"] == [created]
    user = User.objects.get()
    assert user.check_password(password)
    assert password not in user.password
    assert owner.post("/users", {"email": "ALICE@example.org", "role": "analyst"}).status_code == 409


@pytest.mark.parametrize(
    ("body", "blamed"),
    [
        ({"email": "nonsense", "role": "analyst"}, "email"),
        ({"email": "a@example.org", "role": "boss"}, "role"),
        ({"email": "a@example.org", "role": "analyst", "teams": ["x"]}, "teams.0"),
        ({"email": "a@example.org", "role": "analyst", "teams": ["0190a0a0-0000-7000-8000-000000000000"]}, "teams.0"),
        ({"email": "a@example.org", "role": "analyst", "password": "x"}, "password"),
        ({"email": "a@example.org", "role": "analyst", "is_superuser": True}, "is_superuser"),
    ],
)
def test_a_wrong_user_is_refused_by_field(owner: ApiClient, body: dict[str, Any], blamed: str) -> None:
    assert list(faults(owner.post("/users", body))) == [blamed]
    assert not User.objects.exists()


def test_an_admin_cannot_make_or_touch_an_owner(admin: ApiClient) -> None:
    owner, _ = create_user(actor=SYSTEM, email="owner@example.org", role=Role.OWNER)
    bob, _ = create_user(actor=SYSTEM, email="bob@example.org", role=Role.ANALYST)
    assert admin.post("/users", {"email": "x@example.org", "role": "owner"}).status_code == 403
    assert admin.patch(f"/users/{owner.id}", {"active": False}).status_code == 403
    assert admin.patch(f"/users/{bob.id}", {"role": "owner"}).status_code == 403
    assert admin.patch(f"/users/{bob.id}", {"role": "admin"}).json()["role"] == "admin"


def test_the_last_active_owner_stays(owner: ApiClient) -> None:
    alice, _ = create_user(actor=SYSTEM, email="alice@example.org", role=Role.OWNER)
    assert owner.patch(f"/users/{alice.id}", {"role": "admin"}).status_code == 409
    assert owner.patch(f"/users/{alice.id}", {"active": False}).status_code == 409
    create_user(actor=SYSTEM, email="bob@example.org", role=Role.OWNER)
    assert owner.patch(f"/users/{alice.id}", {"active": False}).json()["active"] is False


def test_a_demotion_or_a_disabled_account_takes_effect_on_an_open_session(db: None) -> None:
    alice, _ = create_user(actor=SYSTEM, email="alice@example.org", role=Role.ADMIN)
    browser = Client()
    browser.force_login(alice)
    assert browser.get("/api/v1/users").status_code == 200
    User.objects.update(role=Role.ANALYST)
    assert browser.get("/api/v1/users").status_code == 403
    User.objects.update(is_active=False)
    assert browser.get("/api/v1/keys").status_code == 401


def test_a_session_needs_a_csrf_token_to_change_anything(db: None) -> None:
    alice, _ = create_user(actor=SYSTEM, email="alice@example.org", role=Role.ADMIN)
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(alice)
    body = {"name": "x"}
    assert browser.post("/api/v1/keys", body, content_type="application/json").status_code == 403
    browser.cookies["csrftoken"] = "c" * 32
    headers = {"X-CSRFToken": "c" * 32}
    assert browser.post("/api/v1/keys", body, content_type="application/json", headers=headers).status_code == 201
    wrong = {"X-CSRFToken": "d" * 32}
    assert browser.post("/api/v1/keys", body, content_type="application/json", headers=wrong).status_code == 403


def test_the_audit_log_is_read_by_filter_and_never_written(owner: ApiClient, auditor: ApiClient) -> None:
    key = owner.post("/keys", {"name": "billing", "rpm": 5}, x_request_id="my-request-1").json()
    entries = auditor.get(f"/audit?action=key.create&object={key['id']}").json()["data"]
    assert [(e["object"]["name"], e["request_id"], e["actor"]["kind"]) for e in entries] == [
        ("billing", "my-request-1", "token")
    ]
    assert entries[0]["after"]["rpm"] == 5
    assert key["key"] not in auditor.get("/audit").content.decode()
    assert auditor.get("/audit?from=2999-01-01T00:00:00Z").json()["data"] == []
    assert faults(auditor.get("/audit?from=yesterday")) == {"from": "invalid_time"}
    assert owner.post("/audit", {}).status_code in (403, 405)


def test_a_lookup_of_an_unknown_token_does_the_same_work(owner: ApiClient) -> None:
    head = (owner.raw or "")[:17] + raw_keys.mint("mk").raw.reveal()[17:49]
    with CaptureQueriesContext(connection) as known:
        assert tokens.find_token(head + raw_keys._checksum(head)) is None, "another secret behind the right public id"
    with CaptureQueriesContext(connection) as unknown:
        assert tokens.find_token(raw_keys.mint("mk").raw.reveal()) is None
    assert len(unknown) == len(known) > 0


@pytest.mark.django_db
def test_a_new_password_takes_its_turn_among_the_changes_before_it_locks_the_person() -> None:
    """The other way round two changes of one person could wait for each other."""
    user, _ = create_user(actor=SYSTEM, email="alice@example.org", role=Role.OPERATOR)
    with CaptureQueriesContext(connection) as asked:
        set_password(user, actor=SYSTEM, password=Secret("a long and unusual password"))
    order = [row["sql"] for row in asked if "core_epoch" in row["sql"] or row["sql"].startswith("UPDATE")]
    assert "core_epoch" in order[0]
    assert order[0].endswith("FOR UPDATE")
    assert any("password" in sql for sql in order[1:])
