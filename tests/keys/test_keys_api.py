from __future__ import annotations

import json
from typing import Any

import pytest
from django.db import connection

from conduit.access.models import Role
from conduit.core import keyring, raw_keys
from conduit.core.actor import SYSTEM
from conduit.core.models import AuditEntry, IdempotentReply
from keys import issuing, teams
from keys.models import Budget, BudgetPeriod, KeySecret, VirtualKey
from tests.access.clients import ApiClient, client_of, faults

HUGE = 2**63


def issue(client: ApiClient, **body: Any) -> dict[str, Any]:
    response = client.post("/keys", {"name": "billing", **body})
    assert response.status_code == 201, response.content
    answer: dict[str, Any] = response.json()
    return answer


def test_a_key_is_issued_with_every_limit_and_shown_once(owner: ApiClient) -> None:
    wanted = {
        "name": "billing",
        "owner": "alice@example.org",
        "models": ["gpt-4o*", "claude-*"],
        "endpoints": ["chat", "embeddings"],
        "rpm": 60,
        "tpm": 100_000,
        "max_parallel": 4,
        "max_output_tokens": 512,
        "ip_allowlist": ["10.0.0.0/8", "::ffff:192.0.2.7", "2001:DB8::/32"],
        "tags": ["prod"],
        "metadata": {"cost centre": "4711", "tier": 2},
        "expires_at": "2999-01-01T00:00:00+01:00",
        "budgets": [{"limit_usd": "12.50", "window": "month", "timezone": "Europe/Berlin"}],
    }
    created = issue(owner, **wanted)
    raw = created.pop("key")
    assert raw_keys.PATTERN.fullmatch(raw)
    assert raw_keys.public_id("vk", raw)
    read = owner.get(f"/keys/{created['id']}").json()
    assert read == created
    assert raw not in json.dumps(read)
    assert read["ip_allowlist"] == ["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"]
    assert read["expires_at"] == "2998-12-31T23:00:00Z"
    budget = read["budgets"][0]
    assert (budget["limit_usd"], budget["settled_usd"], budget["remaining_usd"]) == ("12.50", "0.00", "12.50")
    assert (budget["kind"], budget["window"], budget["wait_ms"]) == ("hard", "month", 2000)
    assert budget["owner"] == {"kind": "key", "id": created["id"], "name": "billing"}
    for name in ("name", "owner", "models", "endpoints", "rpm", "tpm", "max_parallel", "tags", "metadata"):
        assert read[name] == wanted[name]


def test_the_stored_digest_is_the_hmac_of_the_raw_key_under_the_pepper(owner: ApiClient) -> None:
    created = issue(owner)
    secret = KeySecret.objects.get(key=created["id"])
    _, pepper = keyring.purpose_key(issuing.PEPPER, secret.pepper_version)
    assert bytes(secret.digest) == raw_keys.digest(created["key"], pepper)


@pytest.mark.parametrize(
    ("field", "value", "blamed"),
    [
        ("rpm", 0, "rpm"),
        ("rpm", -1, "rpm"),
        ("rpm", True, "rpm"),
        ("rpm", 1.5, "rpm"),
        ("rpm", "60", "rpm"),
        ("rpm", HUGE, "rpm"),
        ("tpm", HUGE, "tpm"),
        ("max_parallel", 2**31, "max_parallel"),
        ("max_output_tokens", -5, "max_output_tokens"),
        ("max_output_tokens", [], "max_output_tokens"),
        ("models", "gpt-4o", "models"),
        ("models", ["gpt 4o"], "models.0"),
        ("models", ["ok", ""], "models.1"),
        ("models", [7], "models.0"),
        ("models", None, "models"),
        ("endpoints", ["chta"], "endpoints.0"),
        ("ip_allowlist", ["10.0.0.1/8"], "ip_allowlist.0"),
        ("ip_allowlist", ["10.0.0.0/33"], "ip_allowlist.0"),
        ("ip_allowlist", ["localhost"], "ip_allowlist.0"),
        ("ip_allowlist", [167772160], "ip_allowlist.0"),
        ("ip_allowlist", ["fe80::1%eth0"], "ip_allowlist.0"),
        ("tags", ["a,b"], "tags.0"),
        ("tags", ["x" * 65], "tags.0"),
        ("metadata", [1], "metadata"),
        ("metadata", {"deep": {"er": 1}}, "metadata.deep"),
        ("metadata", {"big": "x" * 9000}, "metadata"),
        ("expires_at", "2001-01-01T00:00:00Z", "expires_at"),
        ("expires_at", "2999-01-01", "expires_at"),
        ("expires_at", "2999-01-01T00:00:00", "expires_at"),
        ("expires_at", "2999-13-01T00:00:00Z", "expires_at"),
        ("expires_at", 4102444800, "expires_at"),
        ("name", "", "name"),
        ("name", "x" * 121, "name"),
        ("name", "a\nb", "name"),
        ("name", 5, "name"),
        ("team", "nobody", "team"),
        ("team", 5, "team"),
        ("model", ["x"], "model"),
        ("state", "active", "state"),
        ("id", "0", "id"),
        ("created_by", "me", "created_by"),
        ("budgets", {"limit_usd": "1"}, "budgets"),
        ("budgets", ["1"], "budgets.0"),
        ("budgets", [{}], "budgets.0.limit_usd"),
        ("budgets", [{"limit_usd": "-1"}], "budgets.0.limit_usd"),
        ("budgets", [{"limit_usd": 1.5}], "budgets.0.limit_usd"),
        ("budgets", [{"limit_usd": True}], "budgets.0.limit_usd"),
        ("budgets", [{"limit_usd": None}], "budgets.0.limit_usd"),
        ("budgets", [{"limit_usd": "1,0"}], "budgets.0.limit_usd"),
        ("budgets", [{"limit_usd": "NaN"}], "budgets.0.limit_usd"),
        ("budgets", [{"limit_usd": "1e3"}], "budgets.0.limit_usd"),
        ("budgets", [{"limit_usd": "0.0000000001"}], "budgets.0.limit_usd"),
        ("budgets", [{"limit_usd": str(HUGE)}], "budgets.0.limit_usd"),
        ("budgets", [{"limit_usd": "1", "limit": "1"}], "budgets.0.limit"),
        ("budgets", [{"limit_usd": "1", "window": "year"}], "budgets.0.window"),
        ("budgets", [{"limit_usd": "1", "timezone": "Europe/Berlln"}], "budgets.0.timezone"),
        ("budgets", [{"limit_usd": "1", "timezone": "../../etc/passwd"}], "budgets.0.timezone"),
        ("budgets", [{"limit_usd": "1", "kind": "firm"}], "budgets.0.kind"),
        ("budgets", [{"limit_usd": "1", "wait_ms": -1}], "budgets.0.wait_ms"),
        ("budgets", [{"limit_usd": "1", "reset": "yes"}], "budgets.0.reset"),
        ("budgets", [{"limit_usd": "1"}, {"limit_usd": "2"}], "budgets.1"),
    ],
)
def test_a_wrong_limit_is_refused_by_name_and_nothing_is_stored(
    owner: ApiClient, field: str, value: Any, blamed: str
) -> None:
    response = owner.post("/keys", {"name": "billing", field: value})
    assert response.status_code == 400, response.content
    assert list(faults(response)) == [blamed]
    assert not VirtualKey.objects.exists()
    assert not Budget.objects.exists()


@pytest.mark.parametrize(
    "text",
    [
        b'{"name": "x", "rpm": NaN}',
        b'{"name": "x", "rpm": Infinity}',
        b'{"name": "x", "rpm": 1e400}',
        b'{"name": "x", "name": "y"}',
        b'{"name": "x", "metadata": ' + b'{"a":' * 40 + b"1" + b"}" * 40 + b"}",
        b'{"name": ' + b"[" * 100_000,
        b'{"name": "\\u0000"}',
        b'{"name": "\\ud800"}',
        b'{"name": "\xff"}',
        b'{"name": "x", "rpm": ' + b"9" * 5000 + b"}",
        b"[]",
        b'"x"',
        b"null",
        b"{",
    ],
)
def test_a_body_that_is_no_honest_json_object_is_refused(owner: ApiClient, text: bytes) -> None:
    response = owner.call("POST", "/keys", text)
    assert response.status_code == 400, response.content
    assert response["Content-Type"] == "application/problem+json"
    assert not VirtualKey.objects.exists()


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400"])
def test_a_number_that_json_does_not_have_is_refused_by_the_reader_itself(owner: ApiClient, number: str) -> None:
    response = owner.call("POST", "/keys", f'{{"name": "x", "rpm": {number}}}'.encode())
    assert faults(response) == {"": "invalid_json"}


def test_a_limit_of_zero_says_what_to_do_instead(owner: ApiClient) -> None:
    assert faults(owner.post("/keys", {"name": "x", "rpm": 0})) == {"rpm": "zero"}


def test_other_content_types_and_bodies_too_large_are_refused(owner: ApiClient) -> None:
    form = owner.client.post("/api/v1/keys", {"name": "x"}, headers={"Authorization": f"Bearer {owner.raw}"})
    assert form.status_code == 415
    assert owner.post("/keys", {"name": "x" * 3_000_000}).status_code == 413


def test_a_misspelt_field_gets_a_suggestion(owner: ApiClient) -> None:
    response = owner.post("/keys", {"name": "x", "max_paralel": 3})
    assert "max_parallel" in response.json()["errors"][0]["detail"]


def test_a_budget_of_zero_is_kept_and_an_absent_one_is_none(owner: ApiClient) -> None:
    blocked = issue(owner, budgets=[{"limit_usd": "0"}])
    free = issue(owner, name="free")
    assert [budget["limit_usd"] for budget in blocked["budgets"]] == ["0.00"]
    assert free["budgets"] == []


def test_editing_a_budget_keeps_what_was_spent_and_a_reset_starts_anew(owner: ApiClient) -> None:
    key = issue(owner, budgets=[{"limit_usd": "5", "window": "day"}, {"limit_usd": "50"}])
    row = Budget.objects.get(owner_id=key["id"], window="day")
    start = next(b["period_start"] for b in key["budgets"] if b["window"] == "day")
    BudgetPeriod.objects.create(budget=row, starts_at=start, settled_nanos=3_000_000_000, leased_nanos=500_000_000)

    changed = owner.patch(f"/keys/{key['id']}", {"budgets": [{"limit_usd": "7", "window": "day"}]}).json()["budgets"]
    assert [(b["id"], b["limit_usd"], b["settled_usd"], b["held_usd"], b["remaining_usd"]) for b in changed] == [
        (str(row.id), "7.00", "3.00", "0.50", "3.50")
    ]
    assert Budget.objects.get(owner_id=key["id"], window="lifetime").removed_at is not None

    anew = [{"limit_usd": "7", "window": "day", "reset": True}]
    reset = owner.patch(f"/keys/{key['id']}", {"budgets": anew}).json()["budgets"][0]
    assert (reset["id"], reset["settled_usd"], reset["remaining_usd"]) == (str(row.id), "0.00", "7.00")
    assert BudgetPeriod.objects.get(budget=row).settled_nanos == 3_000_000_000


def test_budgets_are_read_by_key_in_the_list_and_alone(owner: ApiClient) -> None:
    key = issue(owner, budgets=[{"limit_usd": "5", "window": "week"}])
    of_key = owner.get(f"/keys/{key['id']}/budgets").json()["data"]
    assert owner.get("/budgets").json()["data"] == of_key
    assert owner.get(f"/budgets/{of_key[0]['id']}").json() == of_key[0]
    names = {"id", "owner", "limit_usd", "window", "timezone", "kind", "settled_usd", "held_usd", "remaining_usd"}
    assert names | {"period_start", "resets_at"} <= set(of_key[0])


def test_a_patch_changes_only_what_it_names(owner: ApiClient) -> None:
    key = issue(owner, rpm=5, tags=["a"])
    changed = owner.patch(f"/keys/{key['id']}", {"rpm": None, "name": "renamed"}).json()
    assert (changed["name"], changed["rpm"], changed["tags"]) == ("renamed", None, ["a"])
    entry = AuditEntry.objects.get(action="key.update")
    assert (entry.before, entry.after) == ({"name": "billing", "rpm": 5}, {"name": "renamed", "rpm": None})


@pytest.mark.parametrize(
    "body",
    [
        {"state": "active"},
        {"id": "0190a0a0-0000-7000-8000-000000000000"},
        {"created_by": "mallory"},
        {"created_at": "2020-01-01T00:00:00Z"},
        {"revoked_at": None},
        {"last_used_at": None},
        {"key": "cdt_vk_x"},
        {"digest": "00"},
        {"secrets": []},
        {"allowed_models": []},
        {"team_id": None},
        {"hint": "x"},
        {"team_name": "x"},
        {"updated_at": "2020-01-01T00:00:00Z"},
    ],
)
def test_mass_assignment_changes_nothing(owner: ApiClient, body: dict[str, Any]) -> None:
    key = issue(owner)
    owner.post(f"/keys/{key['id']}/revoke")
    before = VirtualKey.objects.values().get()
    assert list(faults(owner.patch(f"/keys/{key['id']}", body))) == list(body)
    assert VirtualKey.objects.values().get() == before


def test_the_steps_of_a_key_and_that_revoked_is_for_good(owner: ApiClient) -> None:
    key = f"/keys/{issue(owner)['id']}"
    assert owner.post(f"{key}/disable").json()["state"] == "disabled"
    assert owner.post(f"{key}/disable").json()["state"] == "disabled"
    assert owner.post(f"{key}/enable").json()["state"] == "active"
    assert owner.post(f"{key}/revoke").json()["state"] == "revoked"
    assert owner.post(f"{key}/revoke").json()["state"] == "revoked"
    assert owner.post(f"{key}/enable").status_code == 409
    assert owner.post(f"{key}/disable").status_code == 409
    assert owner.patch(key, {"name": "back"}).status_code == 409
    actions = list(AuditEntry.objects.filter(object_kind="key").order_by("id").values_list("action", flat=True))
    assert actions == ["key.create", "key.disable", "key.enable", "key.revoke"]
    assert owner.post(f"{key}/revoke", {"force": True}).status_code == 400
    assert owner.delete(key).status_code == 204
    assert owner.get(key).status_code == 404
    assert not KeySecret.objects.exists()


def test_an_expired_key_says_so(owner: ApiClient) -> None:
    key = issue(owner)
    VirtualKey.objects.update(expires_at="2020-01-01T00:00:00Z")
    assert owner.get(f"/keys/{key['id']}").json()["state"] == "expired"


def test_an_etag_guards_against_a_lost_update(owner: ApiClient) -> None:
    created = owner.post("/keys", {"name": "billing"})
    path, tag = f"/keys/{created.json()['id']}", created["ETag"]
    assert owner.get(path)["ETag"] == tag
    VirtualKey.objects.update(last_used_at="2026-01-01T00:00:00Z")
    changed = owner.patch(path, {"rpm": 5}, If_Match=tag)
    assert changed.status_code == 200
    assert changed["ETag"] != tag
    assert owner.patch(path, {"rpm": 6}, If_Match=tag).status_code == 412
    assert owner.delete(path, If_Match=tag).status_code == 412
    assert VirtualKey.objects.get().rpm == 5
    assert owner.patch(path, {"rpm": 6}, If_Match=f'"other", {changed["ETag"]}').status_code == 200


def test_a_budget_edit_changes_the_etag_but_spending_does_not(owner: ApiClient) -> None:
    created = owner.post("/keys", {"name": "billing", "budgets": [{"limit_usd": "5"}]})
    path = f"/keys/{created.json()['id']}"
    row = Budget.objects.get()
    BudgetPeriod.objects.create(budget=row, starts_at=row.created_at, settled_nanos=1)
    assert owner.get(path)["ETag"] == created["ETag"]
    owner.patch(path, {"budgets": [{"limit_usd": "6"}]})
    assert owner.get(path)["ETag"] != created["ETag"]


def test_an_idempotent_post_replays_the_same_raw_key_and_stores_it_sealed(owner: ApiClient) -> None:
    first = owner.post("/keys", {"name": "billing"}, Idempotency_Key="abc 1")
    again = owner.post("/keys", {"name": "billing"}, Idempotency_Key="abc 1")
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert again["ETag"] == first["ETag"]
    assert again["Idempotent-Replayed"] == "true"
    assert VirtualKey.objects.count() == 1
    stored = IdempotentReply.objects.get()
    raw = first.json()["key"].encode()
    assert raw not in bytes(stored.reply or b"")
    assert raw[-32:] not in bytes(stored.reply or b"")

    assert owner.post("/keys", {"name": "other"}, Idempotency_Key="abc 1").status_code == 422
    assert owner.post("/teams", {"name": "billing"}, Idempotency_Key="abc 1").status_code == 422
    assert client_of(Role.OWNER).post("/keys", {"name": "billing"}, Idempotency_Key="abc 1").status_code == 201
    assert VirtualKey.objects.count() == 2


def test_a_refused_post_leaves_its_idempotency_key_free(owner: ApiClient) -> None:
    assert owner.post("/keys", {"name": ""}, Idempotency_Key="k").status_code == 400
    assert owner.post("/keys", {"name": "good"}, Idempotency_Key="k").status_code == 201
    assert owner.post("/keys", {"name": "x"}, Idempotency_Key="é").status_code == 400


def test_no_raw_key_or_token_lies_in_any_table(owner: ApiClient) -> None:
    secrets = [owner.raw or ""]
    secrets.append(issue(owner, budgets=[{"limit_usd": "1"}])["key"])
    secrets.append(owner.post("/keys", {"name": "again"}, Idempotency_Key="again").json()["key"])
    secrets.append(owner.post("/tokens", {"name": "ci", "role": "admin"}).json()["token"])
    password = owner.post("/users", {"email": "bob@example.org", "role": "analyst"}).json()["password"]
    secrets.append(password)
    found = dump()
    assert "billing" in found  # the dump does hold what was stored
    for secret in secrets:
        assert len(secret) >= 20
        assert secret not in found
        assert len(secret) < 55 or secret[17:49] not in found, "the random part of a key"
        assert secret.encode().hex() not in found


def dump() -> str:
    """Every row of every table as text; bytes as hex and as what they spell."""
    out: list[str] = []
    for table in connection.introspection.table_names():
        with connection.cursor() as cursor:
            cursor.execute(f'SELECT * FROM "{table}"')
            for row in cursor.fetchall():
                for value in row:
                    raw = bytes(value) if isinstance(value, (bytes, memoryview)) else None
                    out.append(raw.hex() + raw.decode("latin-1") if raw is not None else str(value))
    return "\n".join(out)


def test_lists_go_page_by_page_without_losing_or_doubling(owner: ApiClient) -> None:
    made = {issue(owner, name=f"key {number}")["id"] for number in range(7)}
    seen: list[str] = []
    cursor = ""
    while True:
        answer = owner.get(f"/keys?limit=3{cursor}").json()
        seen += [key["id"] for key in answer["data"]]
        if answer["next"] is None:
            break
        issue(owner, name="meanwhile")
        cursor = f"&cursor={answer['next']}"
    assert len(seen) == 7
    assert set(seen) == made


@pytest.mark.parametrize("query", ["limit=0", "limit=201", "limit=x", "limit=-1", "limit=", "limit=1e2", "cursor=%00"])
def test_wrong_page_parameters_are_named(owner: ApiClient, query: str) -> None:
    assert list(faults(owner.get(f"/keys?{query}"))) == [query.partition("=")[0]]


@pytest.mark.parametrize("cursor", ["x", "bnVsbA", "WzEuNV0", "WyIxIl0", "W10", "WyJhIiwiYiJd", "W1wiYSJd"])
def test_a_forged_cursor_is_a_fault_of_the_caller(owner: ApiClient, cursor: str) -> None:
    assert list(faults(owner.get(f"/keys?cursor={cursor}"))) == ["cursor"]


def test_lists_can_be_filtered_and_refuse_what_they_do_not_know(owner: ApiClient) -> None:
    team = teams.create_team(actor=SYSTEM, name="search")
    mine = issue(owner, name="crawler", team="search")
    issue(owner, name="other")
    assert [key["id"] for key in owner.get("/keys?team=search").json()["data"]] == [mine["id"]]
    assert [key["id"] for key in owner.get(f"/keys?team={team.id}&state=active").json()["data"]] == [mine["id"]]
    assert [key["id"] for key in owner.get("/keys?name=CRAWL").json()["data"]] == [mine["id"]]
    assert faults(owner.get("/keys?stat=active")) == {"stat": "unknown_parameter"}
    assert faults(owner.get("/keys?state=gone")) == {"state": "invalid_choice"}


def test_a_list_costs_the_same_number_of_queries_however_long_it_is(
    owner: ApiClient, django_assert_max_num_queries: Any
) -> None:
    for number in range(12):
        issue(owner, name=f"key {number}", budgets=[{"limit_usd": "1"}, {"limit_usd": "2", "window": "day"}])
    with django_assert_max_num_queries(10):
        assert len(owner.get("/keys").json()["data"]) == 12
