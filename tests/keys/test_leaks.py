"""Leak response: whose is it, what can it do, and a fresh secret at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.cache import caches
from django.db import connection

from conduit.access.models import ManagementToken, Role
from conduit.access.tokens import create_token
from conduit.core import keyring, raw_keys
from conduit.core.actor import SYSTEM
from conduit.core.errors import NotFound
from conduit.core.models import AuditEntry
from conduit.core.secret import Secret
from keys import entries
from keys.issuing import create_key, disable_key, find_key, revoke_key
from keys.models import Budget, KeySecret, Team, VirtualKey
from keys.rotation import replace_secret, rotate_key
from keys.teams import create_team
from providers.credentials import add_credential
from providers.models import Credential, CredentialVersion
from providers.providers import add_provider
from providers.routes import add_route
from tests.access.clients import ApiClient, client_of, faults
from tests.usage.events import refused, settled
from usage import ledger

PROVIDER_SECRET = "sk-proj-canary0123456789abcdefghij"


@pytest.fixture(autouse=True)
def _no_tries_left_over() -> Iterator[None]:
    caches["default"].clear()
    yield
    caches["default"].clear()


def identify(client: ApiClient, text: str) -> list[dict[str, Any]]:
    response = client.post("/keys/identify", {"text": text})
    assert response.status_code == 200, response.content
    found: list[dict[str, Any]] = response.json()["data"]
    return found


def spoiled(raw: str) -> str:
    """One character of the random part changed: the checksum is wrong now."""
    return raw[:20] + ("a" if raw[20] != "a" else "b") + raw[21:]


def forged(raw: str) -> str:
    """The public id of a real key with another secret and a right checksum."""
    head = raw[:17] + "x" * 32
    return head + raw_keys._checksum(head)


@pytest.fixture
def credential(db: None) -> Credential:
    provider = add_provider(actor=SYSTEM, name="openai-main", kind="openai")
    fields = {"api_key": Secret(PROVIDER_SECRET)}
    return add_credential(provider, actor=SYSTEM, name="main", fields=fields, verify=False)


def test_a_text_with_everything_in_it_is_taken_apart_and_nothing_secret_comes_back(
    owner: ApiClient, credential: Credential
) -> None:
    team = create_team(actor=SYSTEM, name="Support")
    key, raw = create_key(actor=SYSTEM, name="support-chat", team=team)
    token, token_raw = create_token(actor=SYSTEM, name="ci", role=Role.OPERATOR)
    stranger = raw_keys.mint("vk").raw.reveal()
    google = "AIza" + "Sy0123456789abcdefghijklmnopqrstuvw"[:35]
    text = (
        f"export KEY={raw.reveal()}\n{spoiled(raw.reveal())} {stranger}\n"
        f'{{"token":"{token_raw.reveal()}"}} {forged(raw.reveal())} OPENAI_API_KEY={PROVIDER_SECRET}; {google}'
    )
    found = identify(owner, text)
    assert [(one["kind"], one["well_formed"], one["ours"], one["live"]) for one in found] == [
        ("virtual_key", True, True, True),
        ("virtual_key", False, False, False),
        ("virtual_key", True, False, False),
        ("management_token", True, True, True),
        ("virtual_key", True, False, False),
        ("provider_secret", True, True, True),
        ("provider_secret", True, False, None),
    ]
    assert found[0]["object"] == {
        "id": str(key.id), "name": "support-chat", "state": "active", "team": "Support", "version": 1, "provider": None,
    }  # fmt: skip
    assert found[3]["object"]["id"] == str(token.id)
    assert (found[5]["object"]["id"], found[5]["object"]["provider"]) == (str(credential.id), "openai-main")
    assert found[5]["object"]["version"] == 1
    answer = json.dumps(found) + json.dumps(list(AuditEntry.objects.values_list("after", flat=True)))
    for secret in (raw.reveal(), token_raw.reveal(), stranger, PROVIDER_SECRET, google):
        assert secret not in answer
        assert secret[18:-5] not in answer


def test_each_question_leaves_an_audit_entry_of_what_was_found(owner: ApiClient) -> None:
    key, raw = create_key(actor=SYSTEM, name="app")
    identify(owner, f"{raw.reveal()} and nothing else")
    entry = AuditEntry.objects.get(action="leak.identify")
    assert (entry.object_id, entry.object_name) == (str(key.id), "app")
    assert entry.after is not None
    assert entry.after["found"] == [
        {"kind": "virtual_key", "hint": f"cdt_vk_{raw.reveal()[7:17]}…", "ours": True, "object": str(key.id)}
    ]


@pytest.mark.parametrize(("act", "state"), [(disable_key, "disabled"), (revoke_key, "revoked")])
def test_a_key_that_is_refused_is_still_told_to_be_ours(owner: ApiClient, act: Any, state: str) -> None:
    key, raw = create_key(actor=SYSTEM, name="app")
    act(key, actor=SYSTEM)
    (found,) = identify(owner, raw.reveal())
    assert (found["ours"], found["live"], found["object"]["state"]) == (True, False, state)


def test_a_secret_under_an_earlier_pepper_is_known(owner: ApiClient) -> None:
    key, raw = create_key(actor=SYSTEM, name="app")
    before = KeySecret.objects.get(key=key).pepper_version
    assert keyring.purpose_key("pepper", before)[0] == before
    assert identify(owner, raw.reveal())[0]["ours"] is True


def test_a_retired_provider_secret_and_one_that_does_not_open(owner: ApiClient, credential: Credential) -> None:
    CredentialVersion.objects.update(state="retired")
    (found,) = identify(owner, PROVIDER_SECRET)
    assert (found["ours"], found["live"], found["object"]["state"]) == (True, False, "retired")
    CredentialVersion.objects.update(wrapped_key=b"x" * 60)
    (found,) = identify(owner, PROVIDER_SECRET)
    assert (found["ours"], found["live"]) == (False, None)


def test_who_may_not_see_the_object_is_told_only_that_it_is_ours(credential: Credential) -> None:
    support, search = (create_team(actor=SYSTEM, name=name) for name in ("Support", "Search"))
    _, raw = create_key(actor=SYSTEM, name="support-chat", team=support)
    _, token = create_token(actor=SYSTEM, name="ci", role=Role.OPERATOR)
    bob = client_of(Role.OPERATOR, search.id)
    key, other = identify(bob, f"{raw.reveal()} {token.reveal()}")
    assert (key["ours"], key["live"], key["object"]) == (True, True, None)
    assert (other["ours"], other["object"]) == (True, None)
    assert "support-chat" not in json.dumps([key, other])
    (guess,) = identify(client_of(Role.ANALYST), PROVIDER_SECRET)
    assert (guess["ours"], guess["object"]) == (False, None)


@pytest.mark.parametrize(("text", "code"), [("", "required"), (" \n", "required"), ("x" * 65_537, "too_large")])
def test_a_text_that_cannot_be_looked_at_is_refused_by_name(owner: ApiClient, text: str, code: str) -> None:
    assert faults(owner.post("/keys/identify", {"text": text})) == {"text": code}


def test_too_many_keys_at_once_and_a_body_that_is_no_text(owner: ApiClient) -> None:
    many = " ".join(raw_keys.mint("vk").raw.reveal() for _ in range(101))
    assert faults(owner.post("/keys/identify", {"text": many})) == {"text": "too_many"}
    assert list(faults(owner.post("/keys/identify", {"text": ["x"]}))) == ["text"]
    assert list(faults(owner.post("/keys/identify", {"text": "x", "key": "y"}))) == ["key"]


def test_asking_is_limited_by_actor(owner: ApiClient, admin: ApiClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("usage.leaks_api.PACE", "3/d")  # a window that seldom ends in between
    statuses = [owner.post("/keys/identify", {"text": "x"}).status_code for _ in range(4)]
    assert statuses == [200, 200, 200, 429]
    assert int(owner.post("/keys/identify", {"text": "x"})["Retry-After"]) > 0
    assert admin.post("/keys/identify", {"text": "x"}).status_code == 200


@pytest.fixture
def reach(credential: Credential) -> tuple[VirtualKey, Team]:
    """A key of a team with two routes it may use and one it may not, budgets on both, and some use."""
    for name in ("fast", "cheap", "other"):
        add_route(actor=SYSTEM, name=name, targets=[{"provider": "openai-main", "model": "gpt-4o-mini"}])
    team = create_team(actor=SYSTEM, name="Support", budgets=[{"limit_usd": "2.00"}])
    key, _ = create_key(
        actor=SYSTEM,
        name="support-chat",
        team=team,
        models=["fast", "che*"],
        endpoints=["chat"],
        budgets=[{"limit_usd": "5.00", "window": "month"}, {"limit_usd": "0.10", "kind": "soft"}],
        ip_allowlist=["10.0.0.0/8"],
    )
    ids = {"key_id": key.id.bytes, "team_id": team.id.bytes, "provider_id": credential.provider_id.bytes}
    lifetime = Budget.objects.get(owner_id=team.id)
    Budget.objects.update(created_at=datetime.now(UTC) - timedelta(days=90))
    old = int((datetime.now(UTC) - timedelta(days=3)).timestamp() * 1e6)
    trace = [{"check": "address", "ok": False, "address": "192.0.2.9"}]
    turned_away: dict[str, Any] = {"status": 403, "error_code": "ip_not_allowed", "trace": trace}
    ledger.apply(
        [
            *(settled(**ids, route="fast", budgets=[lifetime.id.bytes]) for _ in range(2)),
            settled(**ids, route="cheap", time_us=old, budgets=[lifetime.id.bytes]),
            refused(key_id=key.id.bytes, team_id=team.id.bytes, route="fast", **turned_away),
        ]
    )
    return key, team


def test_the_blast_radius_is_what_the_key_opens_and_what_was_done(
    owner: ApiClient, reach: tuple[VirtualKey, Team]
) -> None:
    key, _ = reach
    since = (datetime.now(UTC) - timedelta(days=7)).strftime("%Y-%m-%dT%H:%M:%SZ")
    found = owner.get(f"/keys/{key.id}/blast-radius?since={since}").json()
    assert (found["usable"], found["models"], found["endpoints"]) == (True, ["cheap", "fast"], ["chat"])
    assert (found["providers"], found["ip_allowlist"]) == (["openai-main"], ["10.0.0.0/8"])
    assert {(one["owner"]["name"], one["window"], one["kind"]) for one in found["budgets"]} == {
        ("support-chat", "month", "hard"),
        ("support-chat", "lifetime", "soft"),
        ("Support", "lifetime", "hard"),
    }
    assert found["left_usd"] == "1.999595"  # the team's: 2.00 less three answers
    day, week = found["last_24h"], found["since"]
    assert (day["requests"], day["refused"], day["spend_usd"]) == (3, 1, "0.00027")
    assert (week["requests"], week["spend_usd"], week["from"]) == (4, "0.000405", since)
    assert {one["model"] for one in week["models"]} == {"fast", "cheap"}
    assert day["refused_from"] == ["192.0.2.9"]
    assert faults(owner.get(f"/keys/{key.id}/blast-radius?since=2999-01-01T00:00:00Z")) == {"since": "out_of_range"}
    assert faults(owner.get(f"/keys/{key.id}/blast-radius?since=2020-01-01T00:00:00Z")) == {"since": "out_of_range"}
    assert list(faults(owner.get(f"/keys/{key.id}/blast-radius?since=monday"))) == ["since"]


def test_a_key_without_hard_budgets_or_addresses_is_bounded_by_nothing(owner: ApiClient) -> None:
    key, _ = create_key(actor=SYSTEM, name="free", budgets=[{"limit_usd": "1", "kind": "soft"}])
    seen = owner.get(f"/keys/{key.id}/blast-radius").json()
    assert (seen["left_usd"], seen["ip_allowlist"]) == (None, None)
    create_key(actor=SYSTEM, name="office", parent=key, ip_allowlist=["192.0.2.0/24"])
    child, _ = create_key(actor=SYSTEM, name="nowhere", parent=find_key("office"), ip_allowlist=["198.51.100.0/24"])
    assert owner.get(f"/keys/{child.id}/blast-radius").json()["ip_allowlist"] == []


def test_who_sees_names_only_is_told_name_and_team_and_no_blast_radius(db: None) -> None:
    team = create_team(actor=SYSTEM, name="Support")
    key, raw = create_key(actor=SYSTEM, name="support-chat", team=team)
    analyst = client_of(Role.ANALYST)
    assert analyst.get(f"/keys/{key.id}/blast-radius").status_code == 403
    for live in (True, False):
        (found,) = identify(analyst, raw.reveal())
        assert (found["ours"], found["live"]) == (True, live)
        seen = {name: value for name, value in found["object"].items() if value is not None}
        assert seen == {"id": str(key.id), "name": "support-chat", "team": "Support"}
        assert "revoked" not in json.dumps(found)
        revoke_key(key, actor=SYSTEM)


def test_the_addresses_that_were_turned_away_are_found_by_an_index_of_their_own(db: None) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT indexdef FROM pg_indexes WHERE indexname = 'usage_event_refused'")
        (definition,) = cursor.fetchone()
    assert '(key_id, "time") WHERE' in definition
    assert "ip_not_allowed" in definition


def test_another_teams_key_has_no_blast_radius_and_no_new_secret(reach: tuple[VirtualKey, Team]) -> None:
    key, _ = reach
    bob = client_of(Role.OPERATOR, create_team(actor=SYSTEM, name="Search").id)
    assert bob.get(f"/keys/{key.id}/blast-radius").status_code == 404
    assert bob.post(f"/keys/{key.id}/replace").status_code == 404
    with pytest.raises(NotFound):
        replace_secret(key, actor=replace(SYSTEM, teams=frozenset()))
    assert KeySecret.objects.filter(key=key).count() == 1


def test_a_replaced_key_keeps_identity_terms_and_spend_and_the_old_secret_ends_at_once(
    owner: ApiClient, reach: tuple[VirtualKey, Team]
) -> None:
    key, _ = reach
    before, old = owner.get(f"/keys/{key.id}").json(), KeySecret.objects.get(key=key)
    answer = owner.post(f"/keys/{key.id}/replace")
    assert answer.status_code == 200, answer.content
    body = answer.json()
    raw = body.pop("key")
    same = set(before) - {"hint", "updated_at"}
    assert {name: body[name] for name in same} == {name: before[name] for name in same}
    assert entries.load(old.public_id) is None
    entry = entries.load(raw[7:17])
    assert entry is not None
    assert entry.id == key.id
    _, pepper = keyring.purpose_key("pepper", entry.pepper_version)
    assert raw_keys.digest(raw, pepper) == entry.digest
    logged = AuditEntry.objects.get(action="key.replace")
    assert (logged.before, logged.after) == ({"secrets": ["v1"]}, {"secrets": ["v2"]})


def test_the_old_secret_of_a_replaced_key_is_still_told_to_be_ours(owner: ApiClient) -> None:
    key, old = create_key(actor=SYSTEM, name="app")
    _, new = replace_secret(key, actor=SYSTEM)
    first, second = identify(owner, f"{old.reveal()} {new.reveal()}")
    assert (first["ours"], first["live"], first["object"]["version"]) == (True, False, 1)
    assert (second["ours"], second["live"], second["object"]["version"]) == (True, True, 2)
    assert "earlier secret" in first["detail"]


def test_a_replacement_whose_reply_was_lost_is_repeated_with_the_same_secret(owner: ApiClient) -> None:
    key, _ = create_key(actor=SYSTEM, name="app")
    first = owner.post(f"/keys/{key.id}/replace", Idempotency_Key="leak-1").json()
    again = owner.post(f"/keys/{key.id}/replace", Idempotency_Key="leak-1").json()
    assert first["key"] == again["key"]
    assert KeySecret.objects.filter(key=key).count() == 2


def test_a_revoked_or_expired_key_is_not_replaced_and_the_state_is_named(owner: ApiClient) -> None:
    key, _ = create_key(actor=SYSTEM, name="app")
    VirtualKey.objects.filter(id=key.id).update(expires_at=datetime.now(UTC) - timedelta(days=1))
    expired = owner.post(f"/keys/{key.id}/replace")
    assert (expired.status_code, "expired" in expired.json()["detail"]) == (409, True)
    revoke_key(key, actor=SYSTEM)
    gone = owner.post(f"/keys/{key.id}/replace")
    assert (gone.status_code, "revoked" in gone.json()["detail"]) == (409, True)
    assert KeySecret.objects.filter(key=key).count() == 1


def test_a_token_of_another_installation_is_well_formed_and_not_ours(owner: ApiClient) -> None:
    (found,) = identify(owner, raw_keys.mint("mk").raw.reveal())
    assert (found["kind"], found["well_formed"], found["ours"]) == ("management_token", True, False)
    assert ManagementToken.objects.count() == 1


def test_a_secret_whose_digest_was_destroyed_is_known_by_its_public_id_and_is_not_live(owner: ApiClient) -> None:
    key, raw = create_key(actor=SYSTEM, name="app")
    KeySecret.objects.filter(key=key).update(digest=b"")
    (found,) = identify(owner, raw.reveal())
    assert (found["ours"], found["live"], found["object"]["id"]) == (True, False, str(key.id))
    assert owner.get(f"/keys/{key.id}/blast-radius").json()["name"] == "app"


def test_a_replacement_ends_both_secrets_of_a_rotation_under_way(owner: ApiClient) -> None:
    key, first = create_key(actor=SYSTEM, name="app")
    _, second = rotate_key(key, actor=SYSTEM)
    _, third = replace_secret(key, actor=SYSTEM)
    assert [entries.load(raw.reveal()[7:17]) is not None for raw in (first, second, third)] == [False, False, True]


def test_keys_below_a_leaked_one_are_named(owner: ApiClient) -> None:
    key, _ = create_key(actor=SYSTEM, name="app")
    child, _ = create_key(actor=SYSTEM, name="worker", parent=key)
    found = owner.get(f"/keys/{key.id}/blast-radius").json()
    assert found["children"] == [{"id": str(child.id), "name": "worker"}]
    budgets = owner.patch(f"/keys/{key.id}", {"budgets": [{"limit_usd": "3"}]})
    assert budgets.status_code == 200
    assert owner.get(f"/keys/{child.id}/blast-radius").json()["left_usd"] == "3.00"
