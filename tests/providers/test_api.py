"""The management API of providers, credentials, routes and models, over the real URL conf with real tokens."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.test import Client

from conduit.access.tokens import create_token
from conduit.core.actor import SYSTEM
from conduit.core.models import AuditEntry, IdempotentReply
from providers.catalogue_sync import sync_models
from providers.models import Credential, CredentialVersion, Provider, Route
from tests.harness.sandbox import RunningSandbox
from tests.providers.conftest import Scripted

KEY = "sk-sandbox-canary-2b8e6d4f1a93"
pytestmark = pytest.mark.django_db


class Api:
    """A caller with a token of one role."""

    def __init__(self, role: str) -> None:
        _, raw = create_token(actor=SYSTEM, name=role, role=role)
        self._client = Client(headers={"authorization": f"Bearer {raw.reveal()}"})

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        answer = self.raw(method, path, body, **headers)
        return answer.status_code, json.loads(answer.content) if answer.content else None

    def raw(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        data = json.dumps(body) if body is not None else ""
        return self._client.generic(method, f"/api/v1/{path}", data, "application/json", headers=sent)


@pytest.fixture
def api(db: None) -> Api:
    return Api("operator")


def sandboxed(api: Api, **more: Any) -> dict[str, Any]:
    status, made = api("POST", "providers", {"name": "Sandbox", "kind": "sandbox", **more})
    assert status == 201, made
    return dict(made)


def fields_of(body: Any) -> list[str]:
    return [error["field"] for error in body["errors"]]


def test_the_way_from_provider_to_route(api: Api, sandbox: RunningSandbox) -> None:
    provider = sandboxed(api)
    status, made = api("POST", f"providers/{provider['id']}/credentials", {"name": "main", "secret": KEY})
    assert status == 201, made
    assert (made["health"], made["version"], made["provider"]) == ("ok", 1, "Sandbox")
    assert made["hint"].endswith(KEY[-4:])
    status, models = api("GET", f"providers/{provider['id']}/models")
    assert status == 200
    assert {"id": "sandbox-echo"} in models["data"]
    target = {"provider": "Sandbox", "model": "sandbox-echo"}
    status, route = api("POST", "routes", {"name": "team/echo", "targets": [target]})
    assert status == 201, route
    assert route["targets"] == [{**target, "weight": 100, "priority": 0, "region": ""}]
    assert api("GET", "routes/team/echo")[1] == route
    status, tested = api("POST", f"providers/{provider['id']}/test", {})
    assert (status, tested["ok"]) == (200, True)
    assert tested["results"][0]["models"] >= 6


def test_no_answer_of_any_kind_holds_the_secret(api: Api, upstream: Scripted) -> None:
    seen = ""

    def call(method: str, path: str, body: Any = None, **headers: str) -> Any:
        nonlocal seen
        answer = api.raw(method, path, body, **headers)
        seen += answer.content.decode() + str(dict(answer.items()))
        return json.loads(answer.content) if answer.content else None

    provider = call("POST", "providers", {"name": "House", "kind": "custom", "base_url": upstream.url})
    base = f"providers/{provider['id']}"
    made = call("POST", f"{base}/credentials", {"name": "main", "fields": {"api_key": KEY}}, idempotency_key="one")
    assert (
        call("POST", f"{base}/credentials", {"name": "main", "fields": {"api_key": KEY}}, idempotency_key="one") == made
    )
    assert IdempotentReply.objects.count() == 1
    call("POST", f"{base}/credentials", {"name": KEY[:5], "secret": [KEY]})
    call("POST", f"{base}/credentials", {"name": "x", "secret": KEY, "fields": {"api_key": KEY}})
    call("POST", f"{base}/credentials", {"name": "x", "fields": {"api_kee": KEY}})
    upstream.says(401, json.dumps({"error": {"message": f"bad key {KEY}"}}))
    refused = call("POST", f"{base}/credentials", {"name": "second", "secret": KEY})
    assert "bad key" in refused["detail"]
    assert fields_of(refused) == ["secret"]
    call("POST", f"{base}/test", {})
    for path in ("providers", base, f"{base}/credentials", f"credentials/{made['id']}"):
        call("GET", path)
    versions = call("GET", f"credentials/{made['id']}/versions")
    assert versions["data"][0]["hints"] == {"api_key": made["hint"]}
    call("PATCH", f"credentials/{made['id']}", {"name": "renamed"})
    assert Credential.objects.get().name == "renamed"
    assert seen.count("bad key") >= 3
    assert KEY not in seen
    assert KEY[12:24] not in seen


def test_a_rejected_secret_is_answered_400_and_saves_nothing(api: Api, upstream: Scripted) -> None:
    _, provider = api("POST", "providers", {"name": "House", "kind": "custom", "base_url": upstream.url})
    upstream.says(403, '{"error":{"message":"Your plan does not cover this region"}}')
    status, problem = api("POST", f"providers/{provider['id']}/credentials", {"name": "main", "secret": KEY})
    assert status == 400
    assert "Your plan does not cover this region" in problem["errors"][0]["detail"]
    assert not Credential.objects.exists()
    status, _ = api("POST", f"providers/{provider['id']}/credentials", {"name": "main", "secret": KEY, "verify": False})
    assert status == 201


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, ["name", "kind"]),
        ({"name": "x", "kind": "opneai"}, ["kind"]),
        ({"name": "x", "kind": "openai", "secret": "sk-1"}, ["secret"]),
        ({"name": "x", "kind": "openai", "id": "1", "created_at": "2020-01-01T00:00:00Z"}, ["id", "created_at"]),
        ({"name": 5, "kind": "openai"}, ["name"]),
        ({"name": "x", "kind": "openai", "rpm": "10"}, ["rpm"]),
        ({"name": "x", "kind": "openai", "rpm": True, "tpm": -1}, ["rpm", "tpm"]),
        ({"name": "x", "kind": "openai", "enabled": "yes"}, ["enabled"]),
        ({"name": "x", "kind": "openai", "base_url": "http://0x7f.1/"}, ["base_url"]),
        ({"name": "x", "kind": "openai", "options": {"a": {"b": 1}}}, ["options.a"]),
    ],
)
def test_bad_providers_are_refused_by_field(api: Api, body: dict[str, Any], fields: list[str]) -> None:
    status, problem = api("POST", "providers", body)
    assert (status, sorted(fields_of(problem))) == (400, sorted(fields))
    assert not Provider.objects.exists()


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({"name": "main"}, ["secret"]),
        ({"secret": KEY}, ["name"]),
        ({"name": "main", "secret": ""}, ["secret"]),
        ({"name": "main", "secret": None}, ["secret"]),
        ({"name": "main", "secret": KEY, "verify": "no"}, ["verify"]),
        ({"name": "main", "secret": KEY, "weight": 1.5}, ["weight"]),
        ({"name": "main", "secret": KEY, "rpm": 0}, ["rpm"]),
        ({"name": "main", "secret": KEY, "tpm": "many"}, ["tpm"]),
        ({"name": "main", "secret": KEY, "max_parallel": 2**31}, ["max_parallel"]),
        ({"name": "main", "secret": KEY, "expires_at": "tomorrow"}, ["expires_at"]),
        ({"name": "main", "secret": KEY, "expires_at": "2001-01-01T00:00:00Z"}, ["expires_at"]),
        ({"name": "main", "secret": KEY, "last_error": ""}, ["last_error"]),
        ({"name": "main", "fields": ["api_key"]}, ["fields"]),
    ],
)
def test_bad_credentials_are_refused_by_field(api: Api, body: dict[str, Any], fields: list[str]) -> None:
    provider = sandboxed(api)
    status, problem = api("POST", f"providers/{provider['id']}/credentials", body)
    assert (status, fields_of(problem)) == (400, fields)
    assert not CredentialVersion.objects.exists()


def test_bad_routes_are_refused_by_path(api: Api) -> None:
    sandboxed(api)
    for body, field in (
        ({"name": "r", "targets": {}}, "targets"),
        ({"name": "r", "targets": [{"provider": "Sandbox", "model": "m", "wait": 1}]}, "targets.0.wait"),
        ({"name": "r", "targets": [{"provider": "Sandbox", "model": "m"}, 5]}, "targets.1"),
        ({"name": "r", "targets": [{"provider": "Sandbox", "model": "m"}], "stratgy": "x"}, "stratgy"),
    ):
        status, problem = api("POST", "routes", body)
        assert (status, fields_of(problem)) == (400, [field])
    assert not Route.objects.exists()


def test_what_is_in_use_is_not_deleted_and_says_why(api: Api, sandbox: RunningSandbox) -> None:
    provider = sandboxed(api)
    _, made = api("POST", f"providers/{provider['id']}/credentials", {"name": "main", "secret": KEY})
    api("POST", "routes", {"name": "echo", "targets": [{"provider": "Sandbox", "model": "sandbox-echo"}]})
    status, problem = api("DELETE", f"providers/{provider['id']}")
    assert status == 409
    assert "credential main, route echo" in problem["detail"]
    status, problem = api("DELETE", f"credentials/{made['id']}")
    assert status == 409
    assert "route echo" in problem["detail"]
    for path in ("routes/echo", f"credentials/{made['id']}", f"providers/{provider['id']}"):
        assert api("DELETE", path) == (204, None)
        assert api("GET", path)[0] == 404


def test_a_credential_has_rate_limits_of_its_own(api: Api) -> None:
    provider = sandboxed(api)
    limits = {"rpm": 60, "tpm": 100_000, "max_parallel": 4}
    path = f"providers/{provider['id']}/credentials"
    status, made = api("POST", path, {"name": "main", "secret": KEY, "verify": False, **limits})
    assert (status, {name: made[name] for name in limits}) == (201, limits)
    status, changed = api("PATCH", f"credentials/{made['id']}", {"rpm": None, "tpm": 5})
    assert (status, changed["rpm"], changed["tpm"], changed["max_parallel"]) == (200, None, 5, 4)
    status, problem = api("PATCH", f"credentials/{made['id']}", {"rpm": -1})
    assert (status, sorted(fields_of(problem))) == (400, ["rpm"])


def test_a_change_on_a_stale_copy_is_refused(api: Api) -> None:
    provider = sandboxed(api)
    api("POST", f"providers/{provider['id']}/credentials", {"name": "main", "secret": KEY, "verify": False})
    api("POST", "routes", {"name": "echo", "targets": [{"provider": "Sandbox", "model": "sandbox-echo"}]})
    credential = Credential.objects.get()
    for path, change in (
        (f"providers/{provider['id']}", {"rpm": 5}),
        (f"credentials/{credential.id}", {"weight": 5}),
        ("routes/echo", {"timeout": 5}),
    ):
        tag = api.raw("GET", path)["ETag"]
        assert api("PATCH", path, change, if_match=tag)[0] == 200
        assert api("PATCH", path, change, if_match=tag)[0] == 412
        assert api("DELETE", path, if_match=tag)[0] == 412


def test_an_unreadable_credential_is_shown_red_with_its_fix(api: Api) -> None:
    provider = sandboxed(api)
    for name in ("good", "bad"):
        api("POST", f"providers/{provider['id']}/credentials", {"name": name, "secret": KEY, "verify": False})
    CredentialVersion.objects.filter(credential__name="bad").update(kek_id="GONE")
    _, listed = api("GET", f"providers/{provider['id']}/credentials")
    assert [(row["name"], row["health"]) for row in listed["data"]] == [("bad", "unreadable"), ("good", "unverified")]
    assert "CONDUIT_KEK_GONE" in listed["data"][0]["problem"]["fix"]
    assert listed["data"][1]["problem"] is None


def test_kinds_tell_what_a_form_needs(api: Api) -> None:
    _, kinds = api("GET", "provider-kinds")
    openai = next(row for row in kinds["data"] if row["kind"] == "openai")
    assert openai["fields"][0] == {
        "name": "api_key",
        "secret": True,
        "required": True,
        "help": openai["fields"][0]["help"],
        "shape": "",
    }
    assert "chat" in openai["endpoints"]
    assert openai["capabilities"]["streaming"] is True


def test_the_catalogue_is_listed_by_page_and_vendor(api: Api) -> None:
    sync_models()
    _, first = api("GET", "models?vendor=sandbox&limit=2")
    _, second = api("GET", f"models?vendor=sandbox&limit=2&cursor={first['next']}")
    names = [row["name"] for row in first["data"] + second["data"]]
    assert names == sorted(set(names))
    assert len(names) == 4
    _, found = api("GET", "models?vendor=openai&name=gpt-4o-mini")
    assert {row["name"]: row["context_window"] for row in found["data"]}["gpt-4o-mini"] == 128_000
    assert api("GET", "models?vender=x")[0] == 400


@pytest.mark.parametrize(
    ("role", "reads", "writes"),
    [("owner", 200, 201), ("admin", 200, 201), ("operator", 200, 201), ("auditor", 200, 403), ("analyst", 403, 403)],
)
def test_roles_read_and_write_as_the_table_says(role: str, reads: int, writes: int) -> None:
    api = Api(role)
    assert api("GET", "providers")[0] == reads
    assert api("POST", "providers", {"name": "P", "kind": "openai"})[0] == writes
    assert api("GET", "models")[0] == 200


def test_nobody_without_a_token_gets_anything() -> None:
    for path in ("providers", "providers/x", "providers/x/test", "provider-kinds", "credentials/x", "routes", "models"):
        for method in ("GET", "POST", "PATCH", "DELETE"):
            assert Client().generic(method, f"/api/v1/{path}").status_code == 401


def test_a_model_of_the_catalogue_can_be_corrected_and_handed_back(db: None) -> None:
    api = Api("admin")
    sync_models()
    row = api("GET", "models?vendor=sandbox&name=sandbox-echo")[1]["data"][0]
    path = f"models/{row['id']}"
    tag = api.raw("GET", path)["ETag"]
    said = {"context_window": 1000, "max_output_tokens": 50, "capabilities": {"vision": True}, "title": "Echo"}
    status, changed = api("PATCH", path, said, if_match=tag)
    assert (status, changed["source"]) == (200, "override")
    assert {name: changed[name] for name in said} == said
    assert api("PATCH", path, {"title": "Late"}, if_match=tag)[0] == 412
    sync_models()
    assert api("GET", path)[1] == changed
    assert AuditEntry.objects.filter(action="model.update").count() == 1

    assert api("PATCH", path, {"source": "catalogue"})[1]["source"] == "catalogue"
    sync_models()
    back = api("GET", path)[1]
    assert (back["title"], back["context_window"]) == ("sandbox-echo", row["context_window"])


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"context_window": 0}, "context_window"),
        ({"context_window": "1000"}, "context_window"),
        ({"context_window": 2**31}, "context_window"),
        ({"max_output_tokens": True}, "max_output_tokens"),
        ({"capabilities": ["vision"]}, "capabilities"),
        ({"capabilities": {"vision": 1}}, "capabilities"),
        ({"capabilities": {"": True}}, "capabilities"),
        ({"deprecated": "no"}, "deprecated"),
        ({"title": ""}, "title"),
        ({"source": "mine"}, "source"),
        ({"source": "catalogue", "title": "x"}, "source"),
        ({"vendor": "openai"}, "vendor"),
        ({"contextwindow": 5}, "contextwindow"),
    ],
)
def test_a_wrong_correction_of_a_model_names_its_field_and_changes_nothing(
    db: None, body: dict[str, Any], field: str
) -> None:
    api = Api("admin")
    sync_models()
    row = api("GET", "models?vendor=sandbox&name=sandbox-echo")[1]["data"][0]
    status, problem = api("PATCH", f"models/{row['id']}", body)
    assert (status, fields_of(problem)) == (400, [field])
    assert api("GET", f"models/{row['id']}")[1] == row


def test_a_model_that_is_not_there_and_callers_who_may_not_write(db: None) -> None:
    api = Api("admin")
    sync_models()
    row = api("GET", "models?vendor=sandbox")[1]["data"][0]
    assert api("PATCH", "models/nothing", {"title": "x"})[0] == 404
    for role in ("operator", "analyst", "auditor"):
        assert Api(role)("PATCH", f"models/{row['id']}", {"title": "x"})[0] == 403
